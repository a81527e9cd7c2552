"""Who asks, and what he may do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from certes.errors import CertesError, InputError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

#: What a key may be good for. None includes another: a key has exactly the scopes that it was made with.
SCOPES = ("certify", "project", "train", "admin")


class Forbidden(CertesError):
    """The caller's key has not the scope that this needs (HTTP 403).

    Attributes:
        scope: what is missing.
        has: the scopes of the key.
    """

    def __init__(self, scope: str, has: Iterable[str]) -> None:
        self.scope = scope
        self.has = tuple(name for name in SCOPES if name in set(has))
        super().__init__(f"this needs a key of the scope {scope!r}; the scopes of this one: {', '.join(self.has)}")


class Unidentified(CertesError):
    """Nobody has said who he is (HTTP 401)."""


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        tenant: id of the tenant to whom everything belongs that he makes, and who is all that he sees.
        scopes: what he may do, of :data:`SCOPES`.
        key: id of his key; None where no keys are asked for.
    """

    tenant: str
    scopes: frozenset[str]
    key: str | None = None


#: The only caller there is while no keys are asked for: whoever sits at this machine.
LOCAL = Caller("local", frozenset(SCOPES))


@dataclass(frozen=True)
class Session:
    """A login on the page.

    Attributes:
        caller: whose.
        csrf: the token that every unsafe request of the page has to bring along.
        hash: sha256 of the cookie's value, its name in the table.
        expires: seconds since 1970.
    """

    caller: Caller
    csrf: str = field(repr=False)
    hash: str
    expires: float


def parse_scopes(given: Iterable[str]) -> frozenset[str]:
    """Scopes by name.

    Raises:
        InputError: one of them is none, or there are none.
    """
    found = frozenset(given)
    unknown = sorted(found - set(SCOPES))
    if unknown or not found:
        raise InputError("scope", repr(unknown[0])[:80] if unknown else "none", ", ".join(SCOPES), "unknown-scope")
    return found


def caller_of(request: HTTPConnection) -> Caller | None:
    """Who asks; None: somebody without a key, at one of the few paths where that is allowed."""
    return cast("Caller | None", _state(request, "caller"))


def session_of(request: HTTPConnection) -> Session | None:
    """The login by which the request came, for its CSRF token; None: it came by a bearer key, or keys are off."""
    return cast("Session | None", _state(request, "session"))


def allow(request: HTTPConnection, scope: str) -> Caller:
    """The caller, who may do this.

    Args:
        request: the request.
        scope: what it needs, of :data:`SCOPES`.

    Raises:
        Unidentified: nobody is known to ask. Forbidden: the key is not good for it.
    """
    caller = identified(request)
    if scope not in caller.scopes:
        raise Forbidden(scope, caller.scopes)
    return caller


def identified(request: HTTPConnection) -> Caller:
    """The caller, whatever his scopes.

    Raises:
        Unidentified: nobody is known to ask.
    """
    caller = caller_of(request)
    if caller is None:
        raise Unidentified("this needs an API key")
    return caller


def _state(request: HTTPConnection, name: str) -> object:
    # A request that did not pass the gate has no caller: it is nobody's, not everybody's.
    return request.scope.get("state", {}).get(name)
