"""``GET /v1/keys``, login and logout; and how the room is put into an application."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, Field
from starlette.datastructures import FormData, Headers

from certes_service.settings import Settings
from certes_service.storage.database import Database
from certes_service.tenancy import hosts, refusals, signing
from certes_service.tenancy.callers import Forbidden, Unidentified, session_of
from certes_service.tenancy.gate import FAILURES_PER_MINUTE, Gate, Registry
from certes_service.tenancy.rates import neighbourhood
from certes_service.tenancy.sessions import cookie_name, cookies, set_cookie
from certes_service.tenancy.tenants import Tenants

log = logging.getLogger("certes.service")


class SigningKeyAnswer(BaseModel):
    """A key that signs certificates here, or has signed some."""

    keyid: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="As signatures in an envelope name it")]
    public: Annotated[str, Field(description="The public half, PEM: what `certes verify --key` takes")]
    created: Annotated[str, Field(description="When it was first used here, RFC 3339")]
    current: Annotated[bool, Field(description="Whether new certificates are signed with it")]


class SigningKeysAnswer(BaseModel):
    """Every key that ever signed here, newest first."""

    keys: list[SigningKeyAnswer]


KEYS: dict[str, Any] = {
    "summary": "Public keys",
    "responses": {
        200: {
            "description": "The public half of every key that ever signed here, newest first",
            "content": {
                "application/json": {
                    "example": {
                        "keys": [
                            {
                                "keyid": "c1b7b6b0f6ed4b2e1b2d5b7f7a4c1b6dd6b6a2c4a9d3d8f1e0c9b8a796857463",
                                "public": "-----BEGIN PUBLIC KEY-----\n"
                                "MCowBQYDK2VwAyEAPIYtvVFqBj4fN/45APsLKYmG1fsEE9qshN8cOUDWRXA=\n"
                                "-----END PUBLIC KEY-----\n",
                                "created": "2026-01-01T00:00:00Z",
                                "current": True,
                            }
                        ]
                    }
                }
            },
        }
    },
}


def install(app: FastAPI, settings: Settings, database: Database) -> Registry:
    """Put keys, sessions and limits into an application; the tables are there already.

    The gate becomes the application's outermost middleware of those added so far. Its answers, and those of crashes,
    get their security headers from :class:`~certes_service.tenancy.headers.SecurityHeaders`, around the whole.

    Raises:
        InputError: the signing key cannot sign, or an allowed host is none. StorageError: the database cannot be used.
    """
    hosts.check_allowed(settings.allowed_hosts)
    registry = Registry.over(settings, Tenants(database, settings))
    current = signing.record(database, settings.private_key)
    if settings.keys and not registry.keys.usable():
        log.warning("keys are asked for and there is none: make one with `certes keys create --tenant NAME`")
    app.state.registry = registry
    app.add_middleware(Gate, registry=registry)
    _problems(app)
    _signing_keys(app, database, current)
    _logins(app, registry)
    return registry


def _problems(app: FastAPI) -> None:
    @app.exception_handler(Forbidden)
    async def forbidden(_: Request, error: Forbidden) -> Response:
        return refusals.scope_missing(error)

    @app.exception_handler(Unidentified)
    async def unidentified(request: Request, error: Unidentified) -> Response:
        return refusals.unidentified(request.scope, request.headers)


def _signing_keys(app: FastAPI, database: Database, current: str | None) -> None:
    @app.get("/v1/keys", response_model=SigningKeysAnswer, **KEYS)
    async def keys() -> Response:
        """The public keys with which certificates of this service can be verified, old ones too. Needs no API key."""
        found = await anyio.to_thread.run_sync(signing.recorded, database)
        answer = [
            {
                "keyid": entry.keyid,
                "public": entry.public,
                "created": _rfc3339(entry.created),
                "current": entry.keyid == current,
            }
            for entry in found
        ]
        return JSONResponse({"keys": answer})


def _logins(app: FastAPI, registry: Registry) -> None:
    settings = registry.settings

    @app.post("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        """Begin a session, by the field ``key`` of a form; ``next``: the path to go on to."""
        form = await _form(request)
        target = refusals.safe_target(_text(form, "next"))
        if not settings.keys:
            return RedirectResponse(target, 303)
        whence = neighbourhood(request.client.host if request.client else None)
        wait = registry.failures.wait(whence, FAILURES_PER_MINUTE)
        if wait is not None:
            return refusals.too_many(wait, "keys that are not valid")
        secret, old = (_text(form, "key") or "").strip(), _cookie(request, settings)
        opened = await anyio.to_thread.run_sync(registry.sessions.open, secret, old)
        if opened is None:
            registry.failures.take(whence, FAILURES_PER_MINUTE)
            if "text/html" in request.headers.get("accept", ""):
                return RedirectResponse(f"{refusals.LOGIN}?failed=1&next={quote(target, safe='/')}", 303)
            return refusals.bad_key()
        return _with_cookie(RedirectResponse(target, 303), settings, opened[1])

    @app.post("/logout", include_in_schema=False)
    async def logout(request: Request) -> Response:
        """End the session."""
        session = session_of(request)
        if session is not None:
            await anyio.to_thread.run_sync(registry.sessions.close, session)
        return _with_cookie(RedirectResponse(refusals.LOGIN if settings.keys else "/", 303), settings, None)


async def _form(request: Request) -> FormData:
    """A form in either encoding; fields only."""
    return await request.form(max_files=0, max_fields=20)


def _text(form: FormData, name: str) -> str | None:
    values = form.getlist(name)
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def _cookie(request: Request, settings: Settings) -> str | None:
    found = cookies(Headers(scope=request.scope).getlist("cookie"), cookie_name(settings))
    return found[0] if len(found) == 1 else None


def _with_cookie(response: Response, settings: Settings, value: str | None) -> Response:
    response.headers["Set-Cookie"] = set_cookie(settings, value)
    response.headers["Cache-Control"] = "no-store"
    return response


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
