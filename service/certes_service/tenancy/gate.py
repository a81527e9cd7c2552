"""The gate: every request passes it before any route. It says who asks, or sends him away.

With keys on, a request needs ``Authorization: Bearer KEY`` or the page's session cookie; a header wins over a cookie.
A cookie comes along by itself, whoever's page made the browser ask, so it counts only for a page of this service
(``Origin``) and, to change something, with the session's CSRF token. With keys off everybody at this machine is the
same caller, and the names under which the service may be asked are few.

Nothing is remembered of who was let in: a key that is revoked is refused at the next request.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from certes_service.limits import BodyLimit, drain
from certes_service.settings import Settings
from certes_service.storage.errors import StorageError
from certes_service.tenancy import fields, hosts, refusals
from certes_service.tenancy.callers import LOCAL, Caller, Session
from certes_service.tenancy.keys import Keys, hash_of
from certes_service.tenancy.paths import Need, need_of
from certes_service.tenancy.rates import Buckets, neighbourhood
from certes_service.tenancy.refusals import Refused
from certes_service.tenancy.sessions import CSRF_FIELD, CSRF_HEADER, Sessions, cookie_name, cookies, same
from certes_service.tenancy.tenants import Limits, Tenants

log = logging.getLogger("certes.service")
T = TypeVar("T")

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
#: Keys that turn out wrong, from one address in one minute. A key cannot be guessed; this spares the database.
FAILURES_PER_MINUTE = 60
#: Longest body of a login, and longest form in which the CSRF token is looked for, in bytes.
FORM_BYTES = fields.FORM_BYTES
_LOGIN, _LOGOUT = "/login", "/logout"
_REMEMBERED = 4096
_THREADS = 8


@dataclass
class Registry:
    """What the gate and the routes share.

    Attributes:
        settings: of the service.
        keys: API keys.
        sessions: logins.
        tenants: tenants and their limits.
        requests: how often each tenant asks, in this process.
        failures: how often wrong keys come from where, in this process.
    """

    settings: Settings
    keys: Keys
    sessions: Sessions
    tenants: Tenants
    requests: Buckets
    failures: Buckets

    @classmethod
    def over(cls, settings: Settings, tenants: Tenants, clock: Callable[[], float] = time.monotonic) -> Registry:
        """All of it over the tenants' database."""
        keys = Keys(tenants.database)
        sessions = Sessions(tenants.database, keys)
        return cls(settings, keys, sessions, tenants, Buckets(clock=clock), Buckets(clock=clock))

    def limited(self) -> bool:
        """Whether requests are counted: not for who is alone at his machine, unless he says how many."""
        return self.settings.keys or "requests_per_minute" in self.settings.model_fields_set


class Gate:
    """ASGI middleware: host, origin, key or session, rate, CSRF token, size of the body; in this order.

    It leaves in ``request.state``: ``caller`` (None: nobody, on a path for everybody), ``session`` (None: not by the
    page's cookie) and ``limits``.

    Args:
        app: the application.
        registry: who may ask.
    """

    def __init__(self, app: ASGIApp, registry: Registry) -> None:
        self.app = app
        self.registry = registry
        self.settings = registry.settings
        self._usual = Limits.of(registry.settings, {})
        self._limiter = anyio.CapacityLimiter(_THREADS)
        self._good: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks web sockets
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        state = scope.setdefault("state", {})
        state.update(caller=None, session=None, limits=self._usual)
        try:
            receive = await self._enter(scope, receive)
        except Refused as refusal:
            await _answer(refusal.response, scope, refusal.receive or receive, send)
            return
        except StorageError as error:
            log.error("storage: %s", error)
            await _answer(refusals.storage(error), scope, receive, send)
            return
        limit = FORM_BYTES if scope["path"] == _LOGIN else state["limits"].max_body_bytes
        await BodyLimit(self.app, limit)(scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive) -> Receive:
        headers, need = Headers(scope=scope), need_of(scope["method"], scope["path"])
        self._check_names(scope, headers, need)
        if not self.settings.keys:
            if need is not Need.NOTHING:
                await self._welcome(scope, LOCAL)
            return receive
        if need is Need.NOTHING:
            return receive
        if need is Need.ADDRESS:
            self._count("address " + _whence(scope), self._usual)
            return receive
        return await self._identify(scope, headers, receive, need)

    def _check_names(self, scope: Scope, headers: Headers, need: Need) -> None:
        """Under which name it was asked, and by whose page."""
        given, allowed = headers.getlist("host"), self.settings.allowed_hosts
        server = scope.get("server")
        checked = not self.settings.keys or (bool(allowed) and need is not Need.NOTHING)  # probes come by any address
        if checked and not hosts.host_is_ours(given, allowed, server[0] if server else None):
            raise Refused(refusals.host(given))
        if not self.settings.keys or scope["path"] in (_LOGIN, _LOGOUT):
            self._check_origin(headers)

    def _check_origin(self, headers: Headers) -> None:
        origins = headers.getlist("origin")
        if not hosts.origin_is_ours(origins, headers.getlist("host"), secure=self.settings.secure_cookies):
            raise Refused(refusals.origin(origins))

    async def _identify(self, scope: Scope, headers: Headers, receive: Receive, need: Need) -> Receive:
        """Who asks, by the header or else by the cookie."""
        bearer = headers.getlist("authorization")
        if bearer:
            secret = _secret(bearer)
            caller = await self._known(scope, secret, lambda: self.registry.keys.authenticate(secret or ""))
            if caller is None:
                raise Refused(refusals.bad_key())
            await self._welcome(scope, caller)
            return receive
        planted = set(cookies(headers.getlist("cookie"), cookie_name(self.settings)))
        cookie = planted.pop() if len(planted) == 1 else None
        session = None
        if cookie:
            self._check_origin(headers)
            found = cookie
            session = await self._known(scope, cookie, lambda: self.registry.sessions.find(found), "session ")
        if session is not None:
            return await self._resume(scope, headers, receive, session)
        if need is Need.MAYBE:
            self._count("address " + _whence(scope), self._usual)
            return receive
        raise Refused(refusals.unidentified(scope, headers))

    async def _resume(self, scope: Scope, headers: Headers, receive: Receive, session: Session) -> Receive:
        """Let the page's own request through: to change something it has to bring the token along."""
        await self._welcome(scope, session.caller)
        scope["state"]["session"] = session
        if scope["method"] in SAFE_METHODS:
            return receive
        sent = headers.getlist(CSRF_HEADER)
        if not sent:
            sent, receive = await fields.read(headers, receive, CSRF_FIELD)
        if len(sent) != 1 or not same(sent[0], session.csrf):
            raise Refused(refusals.csrf(), receive)
        return receive

    async def _known(self, scope: Scope, secret: str | None, find: Callable[[], T | None], kind: str = "") -> T | None:
        """Look somebody up, unless too many came from there whom nobody knows."""
        # Sessions for themselves: a forgotten page that goes on asking must keep nobody from logging in again.
        whence, name = kind + _whence(scope), hash_of(secret or "")
        wait = self.registry.failures.wait(whence, FAILURES_PER_MINUTE)
        if wait is not None and name not in self._good:  # behind one address others may be whom we know
            raise Refused(refusals.too_many(wait, "keys that are not valid"))
        found = None if secret is None else await self._in_thread(find)
        if found is None:
            self.registry.failures.take(whence, FAILURES_PER_MINUTE)
            self._good.pop(name, None)
            return None
        self._good[name] = None
        self._good.move_to_end(name)
        if len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)
        return found

    async def _welcome(self, scope: Scope, caller: Caller) -> None:
        tenants = self.registry.tenants
        limits = tenants.known(caller.tenant)
        if limits is None:
            limits = await self._in_thread(lambda: tenants.limits_of(caller.tenant))
        scope["state"].update(caller=caller, limits=limits)
        self._count("tenant " + caller.tenant, limits)

    def _count(self, who: str, limits: Limits) -> None:
        if not self.registry.limited():
            return
        wait = self.registry.requests.take(who, limits.requests_per_minute)
        if wait is not None:
            said = f"requests: {limits.requests_per_minute} in a minute are allowed"
            raise Refused(refusals.too_many(wait, said))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # threads of its own: those that everybody shares may all be waiting for solvers
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


def _secret(given: list[str]) -> str | None:
    """The key in the header ``Authorization``; None if it is given twice, or is of another kind."""
    scheme, _, secret = given[0].partition(" ")
    return secret.strip() if len(given) == 1 and scheme.lower() == "bearer" else None


def _whence(scope: Scope) -> str:
    client = scope.get("client")
    return neighbourhood(client[0] if client else None)


async def _answer(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse without the body. Who is still sending it would not see the answer, so some of it is thrown away."""
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        if "expect" not in headers:  # who asks before he sends need not send
            await drain(receive)
        response.headers["Connection"] = "close"
    await response(scope, receive, send)
