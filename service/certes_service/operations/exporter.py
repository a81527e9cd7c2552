"""A port on which a worker, which answers no requests, shows its metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from certes.errors import InputError
from prometheus_client import start_http_server

from certes_service.operations.metrics import Metrics
from certes_service.settings import Settings
from certes_service.tenancy.hosts import check_binding


@contextlib.contextmanager
def shown(metrics: Metrics, settings: Settings) -> Iterator[int | None]:
    """Answer ``/metrics`` on ``metrics_port`` while the context lasts; gives the port, None where there is none.

    Anybody who reaches the port may read: it belongs on loopback or in a network of its own, and beyond loopback it is
    opened only where keys are asked for elsewhere.

    Raises:
        InputError: the address cannot be had.
    """
    if settings.metrics_port is None or not settings.metrics:
        yield None
        return
    check_binding(settings, settings.host)
    try:
        server, thread = start_http_server(settings.metrics_port, settings.host, metrics.registry)
    except OSError as error:
        given = f"{settings.metrics_port}: {error.strerror or error}"
        raise InputError("metrics_port", given, "a port that is free", "address") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
