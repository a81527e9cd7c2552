"""The application: the parts of this process put together, and the routes of every room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from certes._version import __version__
from fastapi import FastAPI
from starlette.types import ASGIApp

from certes_service import certificates, documentation, inquiries, problems
from certes_service.jobs import routes as job_routes
from certes_service.jobs.desk import Desk
from certes_service.jobs.job import SOLVE, TRAIN
from certes_service.jobs.works import Works
from certes_service.operations import routes as operations_routes
from certes_service.operations.logs import Requests
from certes_service.operations.metrics import Metrics
from certes_service.settings import Settings
from certes_service.tenancy import routes as tenancy_routes
from certes_service.tenancy.headers import SecurityHeaders
from certes_service.tenancy.tenants import check_room
from certes_service.web import routes as web_routes
from certes_service.web.pages import Pages
from certes_service.web.problem_pages import ProblemPages

__all__ = ["Application", "build"]


class Application(FastAPI):
    """FastAPI with security headers around everything, the answers to crashes included, and a name for each request."""

    metrics: Metrics
    pages: Pages | None = None

    def build_middleware_stack(self) -> ASGIApp:
        """The usual stack, and around it what every answer has."""
        stack = super().build_middleware_stack()
        if self.pages is not None:
            stack = ProblemPages(stack, self.pages.problem)
        return Requests(SecurityHeaders(stack), self.metrics)


def build(settings: Settings) -> FastAPI:
    """The application over one database and one place of blobs. Jobs are worked on between its start and its end.

    Raises:
        StorageError: the database or the blobs cannot be used. InputError: the signing key cannot sign.
    """
    metrics = Metrics()
    works = Works(settings, (SOLVE, TRAIN) if settings.worker else (), metrics)
    desk = Desk(works)
    app = Application(
        title="Certes",
        version=__version__,
        description=documentation.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.desk, app.state.failure = desk, None
    problems.install(app)
    registry = tenancy_routes.install(app, settings, desk.database)
    desk.queue_limit = registry.tenants.queue_limit
    desk.check_room = lambda tenant, size: check_room(desk.blobs, registry.tenants, tenant, size)
    inquiries.install(app, desk)
    certificates.install(app, desk)
    job_routes.install(app, desk)
    metrics.watch_queue(desk.board.depths)
    operations_routes.install(app, desk, metrics)
    app.pages = web_routes.install(app, desk)
    app.metrics = metrics
    documentation.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start and end the works. What keeps them from starting is left in ``app.state.failure``."""
    desk: Desk = app.state.desk
    try:
        await asyncio.to_thread(desk.works.start)
    except BaseException as error:
        app.state.failure = error
        raise
    try:
        yield
    finally:
        desk.leaving.set()
        await asyncio.to_thread(desk.works.stop, desk.settings.grace_seconds)
        desk.close()
