"""What to say where the extra ``service`` is not installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needed(purpose: str) -> Iterator[None]:
    """Imports inside need the extra ``service``.

    Args:
        purpose: what for, in words that begin the message.

    Raises:
        MissingExtraError: a package of others is not installed.
    """
    from certes.errors import MissingExtraError

    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "certes").split(".")[0] in {"certes", "certes_service"}:
            raise  # not an extra that is missing but a defect
        raise MissingExtraError(error.name or "fastapi", "service", purpose) from error
