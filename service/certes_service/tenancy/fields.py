"""A field of a form, read before anybody else reads the body, which is then given once more.

Of a plain form any field; of one with files (``multipart/form-data``) the first part alone, so that no file has to be
read to find it: the page's forms have the token before anything else.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import Message, Receive

#: Bytes of a plain form, and of the beginning of one with files.
FORM_BYTES, _FIRST = 64 * 1024, 1024
_MULTIPART = re.compile(r'multipart/form-data;\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))\s*', re.IGNORECASE)


async def read(headers: Headers, receive: Receive, name: str) -> tuple[list[str], Receive]:
    """The values of a field, and a ``receive`` that gives the body once more.

    Args:
        headers: of the request.
        receive: gives its body.
        name: of the field.
    """
    given = headers.get("content-type", "").strip()
    if given.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
        body, whole, again = await _begun(receive, FORM_BYTES)
        return (_plain(body, name) if whole else []), again
    if boundary := _MULTIPART.fullmatch(given):
        body, _, again = await _begun(receive, _FIRST)
        return _first(body, boundary[1] or boundary[2], name), again
    return [], receive


async def _begun(receive: Receive, most: int) -> tuple[bytes, bool, Receive]:
    """The body until there is more than ``most`` of it, whether that is all, and a ``receive`` from its beginning."""
    messages: list[Message] = []
    body, more = b"", True
    while more and len(body) <= most:
        message = await receive()
        messages.append(message)
        body += message.get("body", b"")
        more = bool(message.get("more_body", False))

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return body, len(body) <= most, again


def _plain(body: bytes, name: str) -> list[str]:
    try:
        fields = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        return []
    return [value for key, value in fields if key == name]


def _first(body: bytes, boundary: str, name: str) -> list[str]:
    """The first part, if it is a field of that name and no file."""
    line = re.escape(b"--" + boundary.encode("latin-1", "replace"))
    head = rb'\r\nContent-Disposition: form-data; name="' + re.escape(name.encode("ascii")) + rb'"\r\n\r\n'
    found = re.match(line + head + rb"([!-~]{1,200})\r\n" + line, body, re.IGNORECASE)
    return [] if found is None else [found[1].decode("ascii")]
