"""Which paths need a caller. What is not named here does."""

from __future__ import annotations

import re
from enum import Enum

_DIGEST = "[0-9a-f]{64}"
#: Answered at once, without a look at credentials, limits or the database.
_PROBES = frozenset({"/healthz", "/readyz"})
_STATIC = ("/static/",)
_OPEN = frozenset({"/openapi.json", "/v1/keys", "/login", "/favicon.ico"})
#: Marked public by its owner, a certificate is for everybody; the route answers 404 for every other.
_PUBLIC = (
    re.compile(rf"/v1/certificates/{_DIGEST}(?:/proof|/badge\.svg|/figure\.svg)?"),
    re.compile(rf"/certificates/{_DIGEST}(?:/figure|/graph)?"),
)


class Need(Enum):
    """How much a path wants to know of who asks."""

    NOTHING = "nothing"  #: not even how often he does
    ADDRESS = "address"  #: only how often he does
    MAYBE = "maybe"  #: with a key more than without
    CALLER = "caller"  #: nothing without a key


def need_of(method: str, path: str) -> Need:
    """What a request needs, by its method and its path (decoded, as the routes see it)."""
    reading = method in ("GET", "HEAD")
    if reading and (path in _PROBES or path.startswith(_STATIC)):
        return Need.NOTHING
    if path in _OPEN and (reading or path == "/login"):
        return Need.ADDRESS
    if path == "/logout" or (reading and any(pattern.fullmatch(path) for pattern in _PUBLIC)):
        return Need.MAYBE
    return Need.CALLER
