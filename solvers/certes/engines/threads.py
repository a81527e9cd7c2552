"""How many threads a BLAS may use: one for small matrices.

OpenBLAS splits also small products between its threads, which then wait for each other; on a machine that has other
work this made a certificate for 24 neurons ten times slower (docs/decisions.md). The number of threads belongs to the
process, so that overlapping computations share one limit, which the last of them takes away.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

#: Order of the matrices from which more than one thread is worth having.
MANY = 400

_lock = threading.Lock()
_users = 0
_undo = contextlib.ExitStack()


@contextlib.contextmanager
def few_threads(size: int) -> Iterator[None]:
    """Within the block the BLAS uses one thread, unless matrices of order ``size`` deserve more."""
    global _users  # the limit is the process's own
    if size >= MANY:
        yield
        return
    import scipy.linalg  # noqa: F401  (its BLAS must be loaded to be limited)
    from threadpoolctl import threadpool_limits

    with _lock:
        if _users == 0:
            _undo.enter_context(threadpool_limits(limits=1, user_api="blas"))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _undo.close()
