"""The command line ``certes``, and the clients for the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from certes_client.client import (
        AsyncClient,
        BadAnswer,
        Client,
        Job,
        RemoteError,
        Retry,
        ServiceError,
        TimedOut,
        Unreachable,
        Untrusted,
    )

__all__ = [
    "AsyncClient",
    "BadAnswer",
    "Client",
    "Job",
    "RemoteError",
    "Retry",
    "ServiceError",
    "TimedOut",
    "Unreachable",
    "Untrusted",
]


def __getattr__(name: str) -> Any:
    """Load the clients on first use: the command line does not need it."""
    if name in __all__:
        from certes_client import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
