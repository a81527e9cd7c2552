"""JSON kept with its own digest, bound to where it belongs: a damaged or moved row is noticed when it is read."""

from __future__ import annotations

import json
from typing import Any

from certes_service.storage.errors import CorruptedError, sha256


def sealed(value: dict[str, Any], *place: str) -> str:
    """A value as text, with the digest of itself and of its place.

    Args:
        value: JSON.
        place: what the row is called, e.g. tenant and question.
    """
    body = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return json.dumps({"sha256": _digest(body, place), "body": body})


def unsealed(text: str, *place: str) -> dict[str, Any]:
    """The value, as it was sealed at that place.

    Raises:
        CorruptedError: it is not what was written, or was written elsewhere.
    """
    try:
        found = json.loads(text)
        body = found["body"]
        if _digest(body, place) != found["sha256"]:
            raise ValueError("digest")
        value = json.loads(body)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptedError("stored JSON is damaged") from error
    if not isinstance(value, dict):
        raise CorruptedError("stored JSON is damaged")
    return value


def _digest(body: str, place: tuple[str, ...]) -> str:
    return sha256(json.dumps([*place, body]).encode())
