"""JSON from strangers, and the one canonical form of what Certes writes.

Reading refuses what Python's reader lets through: duplicate keys, NaN and Infinity, numbers that overflow, nesting
beyond a limit, documents beyond a size. Writing is canonical: UTF-8, keys sorted by code point, no spaces, floats as
the shortest decimal that reads back to the same float64 (``repr``), no NaN, no Infinity.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from certes.errors import InputError, TooLargeError

#: Default bounds of a JSON document from outside.
MAX_BYTES = 64 * 2**20
MAX_DEPTH = 16

# An unclosed string runs to the end, so that the pattern never fails after a long scan (linear time on any input).
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def parse(data: bytes, field: str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Read one JSON document.

    Args:
        data: UTF-8 text.
        field: what the document is called in errors.
        max_bytes: limit on the length of ``data``.
        max_depth: limit on the nesting of arrays and objects.

    Raises:
        TooLargeError: too long.
        InputError: not JSON, nested too deeply, a key given twice, or a number that is not finite
            (slugs ``malformed-json``, ``json-depth``, ``duplicate-key``, ``not-finite``).
    """
    if len(data) > max_bytes:
        raise TooLargeError(field, f"{len(data)} bytes of JSON", max_bytes)
    _check_depth(data, field, max_depth)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise InputError(field, f"the key {twice!r} twice", "each key once", "duplicate-key")
        return result

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise InputError(field, f"the number {text[:40]}", "finite numbers", "not-finite")
        return value

    def constant(text: str) -> NoReturn:
        raise InputError(field, text, "finite numbers", "not-finite")

    try:
        text = data.decode("utf-8")
        return json.loads(text, object_pairs_hook=pairs, parse_float=number, parse_constant=constant)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        given = f"text that is not JSON ({str(error)[:120]})"
        raise InputError(field, given, "one JSON document in UTF-8", "malformed-json") from None


def _check_depth(data: bytes, field: str, limit: int) -> None:
    depth = 0
    for match in _BRACKET.finditer(_STRING.sub(b"", data)):
        depth += 1 if match.group() in b"[{" else -1
        if depth > limit:
            raise InputError(field, "JSON nested too deeply", f"at most {limit} levels", "json-depth")


def canonical(value: Any, field: str = "document") -> bytes:
    """The canonical bytes of a JSON value.

    Raises:
        InputError: NaN or Infinity, or a text that UTF-8 cannot express (a lone surrogate).
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except ValueError as error:
        given = f"a value without a JSON form ({error})"
        raise InputError(field, given, "finite numbers and valid text", "malformed-json") from error
