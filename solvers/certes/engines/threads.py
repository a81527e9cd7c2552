"""One BLAS thread for the engines.

OpenBLAS splits also small products between its threads, which then wait for each other. Measured on two cores that had
nothing else to do: the multipliers for n = 200 took 0.4 s with one thread and 5.7 s with two, a proof and its bound for
n = 500 took 3.8 s and 60 s (docs/decisions.md). The number of threads belongs to the process, so that overlapping
computations share one limit, which the last of them takes away.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_users = 0
_undo = contextlib.ExitStack()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within the block the BLAS works in the thread that calls it; also usable as a decorator."""
    import scipy.linalg  # noqa: F401  (its BLAS must be loaded to be limited)
    from threadpoolctl import threadpool_limits

    global _users  # the limit is the process's own
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
