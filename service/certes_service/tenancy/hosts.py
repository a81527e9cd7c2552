"""Under which name the service is asked, and by whose page: what keeps other sites' scripts away from it.

A page of another site may make a browser ask ``http://127.0.0.1:8080``. The browser tells whose page it was
(``Origin``), unless that site has pointed its own name at 127.0.0.1 (DNS rebinding): then ``Host`` is that name. So
both are looked at. ``X-Forwarded-Host`` and its kin are not: anybody may write them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from certes.errors import InputError

from certes_service.settings import Settings

_AUTHORITY = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::(?P<port>[0-9]{0,5}))?"
)
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>\S+)", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Authority:
    """A host and maybe a port, in one spelling: lower case, no last dot, addresses as Python writes them."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Authority | None:
        """Read ``Host``'s value; None if it is not one (a user in it, a zone, spaces, letters beyond ASCII)."""
        found = _AUTHORITY.fullmatch(text)
        if found is None:
            return None
        six, name, digits = found["six"], found["name"], found["port"]
        port = int(digits) if digits else None
        if port is not None and port > 65535:
            return None
        if six is not None:
            try:
                return cls(str(ipaddress.IPv6Address(six)), port)
            except ValueError:
                return None
        host = name.lower().removesuffix(".")
        return cls(host, port) if host and not host.endswith(".") else None


def is_loopback(host: str) -> bool:
    """Whether a host name or address (without brackets) is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_binding(settings: Settings, host: str) -> None:
    """Refuse to listen where others may ask, as long as nobody has to say who he is.

    Args:
        settings: of the service.
        host: name or address to listen on; an empty one is every address that there is.

    Raises:
        InputError: beyond loopback without keys (slug ``remote-refused``).
    """
    if settings.keys or is_loopback(host):
        return
    expected = "a loopback address; anyone could use the service, so going beyond needs keys (CERTES_KEYS=true)"
    raise InputError("host", repr(host)[:200], expected, "remote-refused")


def check_allowed(allowed: Sequence[str]) -> None:
    """Refuse names that no request could ever come under.

    Raises:
        InputError: a URL, a pattern, or anything else that is no host (slug ``setting``).
    """
    for text in allowed:
        if Authority.parse(text) is None:
            expected = "host names or addresses, each with or without a port; no URL and no pattern"
            raise InputError("allowed_hosts", repr(text)[:200], expected, "setting")


def host_is_ours(given: Sequence[str], allowed: Sequence[str], own: str | None) -> bool:
    """Whether a request was meant for this service.

    Args:
        given: values of the header ``Host``: exactly one is right.
        allowed: names by which the service goes, each with or without a port.
        own: the address at which the request arrived. Only names can be rebound, so it is no danger.
    """
    authority = Authority.parse(given[0]) if len(given) == 1 else None
    if authority is None:
        return False
    if is_loopback(authority.host) or (own is not None and authority.host == _address(own)):
        return True
    for text in allowed:
        entry = Authority.parse(text)
        if entry is not None and entry.host == authority.host and entry.port in (None, authority.port):
            return True
    return False


def origin_is_ours(given: Sequence[str], hosts: Sequence[str], *, secure: bool) -> bool:
    """Whether a request came from a page of this service, or from no page at all.

    Args:
        given: values of the header ``Origin``: none, or exactly one.
        hosts: values of the header ``Host``: the page must have come from there.
        secure: the page is reached by https only. Otherwise either scheme is right: who speaks TLS for the service
            passes plain http on.
    """
    if not given:
        return True
    found = _ORIGIN.fullmatch(given[0]) if len(given) == 1 else None
    origin = None if found is None else Authority.parse(found["authority"])
    host = Authority.parse(hosts[0]) if len(hosts) == 1 else None
    if found is None or origin is None or host is None:
        return False
    scheme = found["scheme"].lower()
    if secure and scheme != "https":
        return False
    usual = _PORTS[scheme]
    return origin.host == host.host and (origin.port or usual) == (host.port or usual)


def _address(text: str) -> str | None:
    """An address in Python's spelling; None if it is none. What arrives by IPv4 at an IPv6 socket arrives by IPv4."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
