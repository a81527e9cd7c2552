"""``/healthz``, ``/readyz``, ``/metrics``."""

from __future__ import annotations

from certes._version import __version__
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from certes_service import problems
from certes_service.jobs.desk import Desk
from certes_service.operations import documentation
from certes_service.operations.metrics import Metrics
from certes_service.operations.probes import Readiness
from certes_service.operations.schema import Health, Ready
from certes_service.tenancy.callers import allow


def install(app: FastAPI, desk: Desk, metrics: Metrics) -> None:
    """Add the routes."""
    readiness = Readiness(desk)

    @app.get("/healthz", response_model=Health, **documentation.HEALTH)
    async def healthz() -> dict[str, str]:
        """Whether the service answers."""
        return {"status": "ok", "version": __version__}

    @app.get("/readyz", response_model=Ready, **documentation.READY)
    async def readyz() -> Response:
        """Whether the service can do its work: its database, its blobs, its queue. 503 while one of them cannot."""
        parts = await readiness.parts()
        missing = [part for part in parts if not part.ready]
        if missing:
            detail = "; ".join(f"{part.name}: {part.reason}" for part in missing)
            return problems.problem(503, "not-ready", detail, {"Retry-After": "5"})
        return JSONResponse({"status": "ready", "parts": [part.name for part in parts]})

    if desk.settings.metrics:

        @app.get("/metrics", response_class=Response, **documentation.METRICS)
        async def show(request: Request) -> Response:
            """Counts and durations of this process, as Prometheus reads them. With keys on it needs the scope admin."""
            allow(request, "admin")
            text = await desk.in_thread(generate_latest, metrics.registry)
            return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})
