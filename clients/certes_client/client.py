"""The clients of the service, and what can go wrong; see :mod:`certes_client.remote`."""

from __future__ import annotations

from certes_client.remote.aclient import AsyncClient
from certes_client.remote.answers import Job
from certes_client.remote.client import Client
from certes_client.remote.errors import BadAnswer, RemoteError, ServiceError, TimedOut, Unreachable, Untrusted
from certes_client.remote.retry import Retry

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
