"""The pages, and the drawings that the API serves. Each is a few lines: ask the desk, show what it says."""

from __future__ import annotations

import contextlib
import functools
import re
from typing import Annotated, Any

from certes.errors import InputError
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import RedirectResponse

from certes_service import certificates, problems
from certes_service.jobs.desk import Answered, Asking, Desk
from certes_service.jobs.job import Job
from certes_service.problems import JobFailed
from certes_service.questions.base import Question, clip
from certes_service.questions.figures import Theme
from certes_service.storage.errors import StorageError
from certes_service.tenancy import refusals
from certes_service.tenancy.callers import allow, caller_of, identified
from certes_service.web import documentation, forms, fragments, views
from certes_service.web.figures import Figures
from certes_service.web.pages import Pages, address, static

_NAME = re.compile(r"[0-9a-f]{32}")
#: Seconds that the page waits for an answer before it shows the job.
_WAIT = 1.5
_PER_PAGE = 40
_CURSOR = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?~[0-9a-f]{32,64}")
_SCOPES = {"project": "project", "training": "train"}


def install(app: FastAPI, desk: Desk) -> Pages | None:
    """Add the drawings, and the pages unless they are turned off; returns the templates of the latter."""
    pages = Pages(desk.settings)
    figures = Figures(desk, pages)
    _drawings(app, desk, figures)
    if not desk.settings.page:
        return None
    _static(app)
    _asking(app, desk, pages)
    _jobs(app, desk, pages)
    _certificates(app, desk, pages)
    _login(app, desk, pages)
    fragments.install(app, desk, pages, figures)
    return pages


def _drawings(app: FastAPI, desk: Desk, figures: Figures) -> None:
    @app.get("/v1/certificates/{digest}/figure.svg", response_class=Response, **documentation.FIGURE)
    async def figure(
        request: Request,
        digest: str,
        theme: Annotated[Theme, Query(description="For which background")] = "light",
    ) -> Response:
        """The picture of a certificate: the field of values inside its conic, or an assembly's graph.

        That of a public certificate needs no key. The weights of a question are kept as long as its job: later there is
        no picture.
        """
        tenant, stored = await certificates.readable(desk, request, digest)
        caller = caller_of(request)
        mine = caller is not None and caller.tenant == tenant
        drawing = await figures.drawn(tenant, digest, stored, theme, mine=mine)
        headers = certificates.kept(f"{digest}-{theme}", stored)
        return Response(drawing.svg, media_type="image/svg+xml", headers=headers)

    @app.get("/v1/certificates/{digest}/badge.svg", response_class=Response, **documentation.BADGE)
    async def badge(request: Request, digest: str) -> Response:
        """A badge that says what is certified. That of a public certificate needs no key."""
        _, stored = await certificates.readable(desk, request, digest)
        drawing = await desk.in_thread(figures.badge, stored)
        headers = {"Cache-Control": "public, max-age=300" if stored.public else "private, max-age=300"}
        return Response(drawing, media_type="image/svg+xml", headers=headers)


def _static(app: FastAPI) -> None:
    @app.get("/static/{name}", include_in_schema=False)
    async def file(request: Request, name: str) -> Response:
        """A file of the page: for ever under its address with the digest, else to be asked for again."""
        found = static(name)
        if found is None:
            raise problems.Unknown("path", name[:80], "a file of the page", "not-found")
        tag = address(name).partition("?")[2]
        lasting = request.url.query == tag
        kept = {"Cache-Control": "public, max-age=31536000, immutable" if lasting else "no-cache", "ETag": f'"{tag}"'}
        if request.headers.get("if-none-match") == kept["ETag"]:
            return Response(status_code=304, headers=kept)
        return Response(found[0], media_type=found[1], headers=kept)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        """There is none."""
        return Response(status_code=204)


def _go(request: Request, target: str) -> Response:
    """On to another page, for a browser with and without scripts."""
    if "hx-request" in request.headers:
        return Response(status_code=204, headers={"HX-Redirect": target})
    return RedirectResponse(target, 303)


def _asking(app: FastAPI, desk: Desk, pages: Pages) -> None:
    choices: dict[str, Any] = {"activations": forms.ACTIVATIONS, "forms": forms.FORMS, "conditions": forms.CONDITIONS}

    @app.get("/", include_in_schema=False)
    async def home(request: Request) -> Response:
        """Drop a file."""
        return pages.answer(request, "home.html", guessed=None, **choices)

    @app.post("/inspect", include_in_schema=False)
    async def inspect(request: Request) -> Response:
        """What the form offers for a file."""
        identified(request)
        form = await forms.Form.read(request, desk.settings)
        guessed = await desk.in_thread(forms.guess, form, desk.settings)
        return pages.answer(request, "_fields.html", guessed=guessed, **choices)

    @app.post("/ask", include_in_schema=False)
    async def ask(request: Request) -> Response:
        """Ask, and go on to the job or the certificate."""
        form = await forms.Form.read(request, desk.settings)
        caller = allow(request, _SCOPES.get(form.text("what"), "certify"))
        question = await desk.in_thread(forms.question, form)
        return _go(request, await _asked(desk, caller, question))


async def _asked(desk: Desk, caller: Any, question: Question, before: str | None = None) -> str:
    """Ask a question; where its answer is shown."""
    try:
        found = await desk.ask(caller, question, Asking(wait=_WAIT))
    except JobFailed as failed:
        return f"/jobs/{failed.job}"
    after = "" if before is None else f"?before={before}"
    if isinstance(found, Job):
        return f"/jobs/{found.id}{after}"
    return await _where(desk, caller.tenant, question, found, after)


async def _where(desk: Desk, tenant: str, question: Question, found: Answered, after: str) -> str:
    """The page of an answer: that of its job, while there is one, or else of its certificate."""
    if found.job is not None:
        return f"/jobs/{found.job}{after}"
    digest = await desk.in_thread(question.digest, desk.settings)
    known = await desk.in_thread(desk.board.latest, tenant, digest)
    if known is not None:
        return f"/jobs/{known.id}{after}"
    return f"/certificates/{found.answer['certificate']['digest']}"  # no answer is remembered without one


def _jobs(app: FastAPI, desk: Desk, pages: Pages) -> None:
    @app.get("/jobs", include_in_schema=False)
    async def listed(request: Request, before: str | None = None) -> Response:
        """The caller's jobs."""
        found = await desk.jobs(identified(request).tenant, _PER_PAGE + 1, _place(before))
        page = found[:_PER_PAGE]
        moving = before is None and any(not job.ended for job in page)
        older = f"{page[-1].created!r}~{page[-1].id}" if len(found) > _PER_PAGE else None
        template = "_jobs.html" if "hx-request" in request.headers else "jobs.html"
        return pages.answer(request, template, jobs=[views.line(job) for job in page], moving=moving, older=older)

    @app.get("/jobs/{job}", include_in_schema=False)
    async def one(request: Request, job: str, before: str | None = None) -> Response:
        """A job: its progress, or what it came to."""
        found = await _job(desk, request, job)
        earlier = None
        if before is not None and _NAME.fullmatch(before):
            earlier = await desk.job(found.tenant, before)
        values = await _answer(desk, found)
        compared = None if earlier is None or not earlier.answer else (await _answer(desk, earlier))["answer"]
        template = "_job.html" if "hx-request" in request.headers else "job.html"
        return pages.answer(
            request, template, job=views.line(found), before=before if earlier else None, compared=compared, **values
        )

    @app.post("/jobs/{job}/cancel", include_in_schema=False)
    async def cancel(request: Request, job: str) -> Response:
        """Cancel it."""
        found = await _job(desk, request, job)
        await desk.cancel(found.tenant, found.id)
        return _go(request, f"/jobs/{found.id}")

    @app.post("/jobs/{job}/project", include_in_schema=False)
    async def project(request: Request, job: str) -> Response:
        """Ask for the nearest certified weights to those of a job."""
        caller = allow(request, "project")
        found, weights = await _asked_about(desk, request, job)
        made = functools.partial(forms.projection_of, found.request["parts"], weights, found.name)
        question = await desk.in_thread(made)
        return _go(request, await _asked(desk, caller, question, found.id))

    @app.post("/jobs/{job}/step", include_in_schema=False)
    async def largest_step(request: Request, job: str) -> Response:
        """Ask for the largest step that can be certified of the network of a job."""
        caller = allow(request, "certify")
        found, weights = await _asked_about(desk, request, job)
        made = functools.partial(forms.largest_step_of, found.request["parts"], weights, found.name)
        return _go(request, await _asked(desk, caller, await desk.in_thread(made)))


async def _asked_about(desk: Desk, request: Request, job: str) -> tuple[Job, bytes]:
    """The job of a certificate, and the weights that it is about."""
    found = await _job(desk, request, job)
    weights = None if found.weights is None else await desk.in_thread(desk.blobs.get, found.tenant, found.weights)
    if found.kind != "certificate" or weights is None:
        raise InputError("job", f"a job of the kind {found.kind}", "a certificate's, with its weights", "conflict")
    return found, weights


async def _job(desk: Desk, request: Request, name: str) -> Job:
    found = await desk.job(identified(request).tenant, name) if _NAME.fullmatch(name) else None
    if found is None:
        raise problems.Unknown("job", name[:80], "one of your jobs", "unknown-job")
    return found


async def _answer(desk: Desk, job: Job) -> dict[str, Any]:
    """What a job came to, for a template."""
    if job.state != "done" or job.answer is None:
        return {"answer": None}
    link = job.answer.get("certificate")
    stored = None if link is None else await desk.stored(job.tenant, link["digest"])
    return {"answer": await desk.in_thread(views.of_job, job, job.answer, stored)}


def _place(before: str | None) -> tuple[float, str] | None:
    """Time and name of the last entry of the page before.

    Raises:
        Unknown: it is none.
    """
    if before is None:
        return None
    if not _CURSOR.fullmatch(before):
        raise problems.Unknown("before", clip(repr(before), 80), "a link of this page", "not-found")
    created, _, name = before.partition("~")
    return float(created), name


def _entries(desk: Desk, tenant: str, before: tuple[float, str] | None) -> tuple[list[dict[str, Any]], str | None]:
    """A tenant's certificates with what they say (of one that cannot be read only its name), and where it goes on."""
    found = []
    entries = desk.store.list(tenant, _PER_PAGE + 1, before)
    last = entries[_PER_PAGE - 1] if len(entries) > _PER_PAGE else None
    for entry in entries[:_PER_PAGE]:
        said: dict[str, Any] = {"verdict": "", "headline": "cannot be read", "level": "", "about": entry.kind}
        with contextlib.suppress(StorageError):
            stored = desk.store.certificate(tenant, entry.digest)
            if stored is not None:
                said = views.brief(stored)
        found.append(certificates.listed(entry) | said)
    return found, None if last is None else f"{last.created!r}~{last.digest}"


def _certificates(app: FastAPI, desk: Desk, pages: Pages) -> None:
    @app.get("/certificates", include_in_schema=False)
    async def listed(request: Request, before: str | None = None) -> Response:
        """The caller's certificates."""
        found, older = await desk.in_thread(_entries, desk, identified(request).tenant, _place(before))
        return pages.answer(request, "certificates.html", certificates=found, older=older)

    @app.get("/certificates/{digest}", include_in_schema=False)
    async def one(request: Request, digest: str) -> Response:
        """A certificate: a permanent link, for everybody once it is public."""
        tenant, stored = await certificates.readable(desk, request, digest)
        caller = caller_of(request)
        mine = caller is not None and caller.tenant == tenant
        view = await desk.in_thread(views.of_certificate, stored)
        suffix = ".assembly.json" if stored.kind == "assembly" else ".certificate.json"
        return pages.answer(
            request, "certificate.html", digest=digest, view=view, public=stored.public, mine=mine, kind=stored.kind,
            weights=mine and stored.weights is not None, file=digest + suffix, base=str(request.base_url).rstrip("/"),
        )  # fmt: skip

    @app.post("/certificates/{digest}/publish", include_in_schema=False)
    async def publish(request: Request, digest: str) -> Response:
        """Let everybody read it, or nobody else any more."""
        await certificates.own(desk, request, digest)
        form = await request.form(max_files=0, max_fields=5)
        await desk.in_thread(desk.store.publish, identified(request).tenant, digest, form.get("public") == "true")
        return _go(request, f"/certificates/{digest}")


def _login(app: FastAPI, desk: Desk, pages: Pages) -> None:
    @app.get("/login", include_in_schema=False)
    async def login(request: Request, next: str | None = None, failed: str | None = None) -> Response:
        """Log in with a key."""
        if not desk.settings.keys:
            return RedirectResponse("/", 303)
        return pages.answer(request, "login.html", target=refusals.safe_target(next), failed=failed is not None)
