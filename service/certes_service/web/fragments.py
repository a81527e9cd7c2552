"""Parts of pages that take a while: figures, graphs and comparisons, fetched when the page already stands."""

from __future__ import annotations

import re
from typing import Any

from certes.errors import CertesError, InputError
from certes.weights import read_weights
from fastapi import FastAPI, Request, Response

from certes_service import certificates, problems
from certes_service.jobs.desk import Desk
from certes_service.jobs.job import Job
from certes_service.problems import Busy
from certes_service.storage.store import Stored
from certes_service.tenancy.callers import caller_of, identified
from certes_service.web import graph
from certes_service.web.comparison import Comparison, compare
from certes_service.web.curves import charts
from certes_service.web.figures import Figures
from certes_service.web.pages import Pages

_NAME = re.compile(r"[0-9a-f]{32}")


def install(app: FastAPI, desk: Desk, pages: Pages, figures: Figures) -> None:
    """Add the routes."""

    @app.get("/certificates/{digest}/figure", include_in_schema=False)
    async def figure(request: Request, digest: str) -> Response:
        """The figure of a certificate with its caption, or why there is none."""
        tenant, stored = await certificates.readable(desk, request, digest)
        values: dict[str, Any] = {"digest": digest, "missing": None, "caption": ""}
        try:
            values["caption"] = (
                await figures.drawn(tenant, digest, stored, "light", mine=_mine(request, tenant))
            ).caption
        except (CertesError, Busy) as error:
            values["missing"] = _missing(error)
        return pages.answer(request, "_figure.html", **values)

    @app.get("/certificates/{digest}/graph", include_in_schema=False)
    async def drawn(request: Request, digest: str) -> Response:
        """Modules and couplings of an assembly's certificate."""
        tenant, stored = await certificates.readable(desk, request, digest)
        if stored.kind != "assembly":
            expected = "the digest of an assembly's certificate: no other has a graph"
            raise problems.Unknown("digest", "the certificate of a network", expected, "no-graph")
        found = await desk.in_thread(_graph, desk, tenant, digest, stored, _mine(request, tenant))
        return pages.answer(request, "_graph.html", graph=found)

    @app.get("/jobs/{job}/comparison", include_in_schema=False)
    async def compared(request: Request, job: str) -> Response:
        """The recurrent matrix before and after a projection."""
        tenant = identified(request).tenant
        found = await desk.job(tenant, job) if _NAME.fullmatch(job) else None
        if found is None:
            raise problems.Unknown("job", job[:80], "one of your jobs", "unknown-job")
        comparison = await desk.in_thread(_comparison, desk, found)
        return pages.answer(request, "_comparison.html", comparison=comparison)

    @app.get("/jobs/{job}/curve", include_in_schema=False)
    async def curve(request: Request, job: str) -> Response:
        """The learning curve of a training, as far as it is."""
        tenant = identified(request).tenant
        found = await desk.job(tenant, job) if _NAME.fullmatch(job) else None
        if found is None or found.kind != "training":
            raise problems.Unknown("job", job[:80], "one of your trainings", "unknown-job")
        known = (found.answer or found.progress or {}).get("curve") or []
        return pages.answer(request, "_curve.html", job=found.id, charts=charts(known), moving=not found.ended)


def _mine(request: Request, tenant: str) -> bool:
    caller = caller_of(request)
    return caller is not None and caller.tenant == tenant


def _missing(error: Exception) -> str:
    """Why there is no figure, in words."""
    if isinstance(error, problems.Unknown):
        return (
            "The weights are not kept here any longer, so there is no figure. "
            "Whoever has them can draw it: certes figure."
        )
    if isinstance(error, InputError):
        return f"There is no figure of this certificate: {error.given}; there would be one of {error.expected}."
    if isinstance(error, Busy):
        return "Everything here is at work, so the figure has to wait: load the page again in a moment."
    return "Figures need matplotlib, which is not installed here: pip install 'certes[figures]'."


def _graph(desk: Desk, tenant: str, digest: str, stored: Stored, mine: bool) -> graph.Graph:
    def find(name: str) -> Stored | None:
        found = desk.store.certificate(tenant, name)
        return found if found is None or mine or found.public else None

    return graph.of_certificate(stored, find, _answered(desk, tenant, digest) if mine else None)


def _answered(desk: Desk, tenant: str, digest: str) -> dict[str, Any] | None:
    """What was answered when the certificate was made, while a job remembers it."""
    for job in desk.board.page(tenant, 200, None, ("done",)):
        answer = job.answer or {}
        if job.kind == "assembly" and (answer.get("certificate") or {}).get("digest") == digest:
            return answer
    return None


def _comparison(desk: Desk, job: Job) -> Comparison | None:
    """The two matrices, if both files are kept."""
    answer = job.answer or {}
    made, link = answer.get("weights"), answer.get("certificate")
    if job.kind not in ("projection", "interconnection") or not made or not link or job.weights is None:
        return None
    before, after = desk.blobs.get(job.tenant, job.weights), desk.store.weights(job.tenant, link["digest"])
    if before is None or after is None:
        return None
    return compare(read_weights(before), read_weights(after[0]), made["changed"])
