"""YAML (and JSON, which is YAML) from strangers, as plain JSON values.

Only what JSON can say is read: mappings with text keys, lists, text, numbers, true, false, null. Scalars follow YAML
1.2 (``no`` and ``on`` are text, ``1e-3`` is a number). Tags that make other objects, a key given twice, and documents
that are too long, too deep or that unfold to too much (aliases of aliases) are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

from certes import strictjson
from certes.errors import InputError, TooLargeError

#: Bounds of a document: bytes, nested collections, and values after every alias is written out.
MAX_BYTES, MAX_DEPTH, MAX_VALUES = 8 * 2**20, 160, 200_000

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SCALARS = (
    ("tag:yaml.org,2002:null", r"(?:~|null|Null|NULL|)\Z", ("~", "n", "N", "")),
    ("tag:yaml.org,2002:bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", tuple("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0|[1-9][0-9]*)\Z", tuple("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)\Z",
        tuple("-+.0123456789"),
    ),
    ("tag:yaml.org,2002:merge", r"<<\Z", ("<",)),
)


class _Loader(_Base):  # type: ignore[misc]
    """The safe loader with the scalars of YAML 1.2, and no key twice."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (yaml's own way)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            word = key.value if isinstance(key, yaml.ScalarNode) else None
            if word is not None and word in seen:
                raise _TwiceError(str(word))
            seen.add(word)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


class _TwiceError(Exception):
    """A key that is given twice."""


def parse(data: bytes, field: str) -> dict[str, Any]:
    """Read one document, whose outermost value is a mapping.

    Args:
        data: UTF-8 text.
        field: what the document is called in errors.

    Raises:
        TooLargeError: too long, or it unfolds to too many values.
        InputError: malformed (``malformed-yaml``), too deep (``too-deep``), a key twice (``duplicate-key``), or
            something that JSON cannot say (``wrong-type``, ``not-finite``).
    """
    if len(data) > MAX_BYTES:
        raise TooLargeError(field, f"{len(data)} bytes", MAX_BYTES)
    content = _as_json(data, field)
    if content is None:
        content = _as_yaml(data, field)
    if not isinstance(content, dict):
        raise InputError(field, f"a {type(content).__name__}", "a mapping", "wrong-type")
    return content


def _as_json(data: bytes, field: str) -> Any:
    """What JSON's own reader makes of it (tabs and escapes that YAML's reader stumbles over); None if it is no JSON."""
    if not data.lstrip().startswith(b"{"):
        return None
    try:
        return strictjson.parse(data, field, max_bytes=MAX_BYTES, max_depth=MAX_DEPTH)
    except InputError as error:
        if error.slug == "malformed-json":
            return None
        if error.slug == "json-depth":
            raise _too_deep(field) from None
        raise


def _as_yaml(data: bytes, field: str) -> Any:
    expected = "one YAML or JSON document in UTF-8"
    try:
        text = data.decode("utf-8")
        _check_events(text, field)
        content = yaml.load(text, Loader=_Loader)  # a subclass of the safe loader
    except _TwiceError as error:
        raise InputError(field, f"the key {str(error)[:80]!r} twice", "each key once", "duplicate-key") from None
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        given = f"text that is not YAML ({' '.join(str(error).split())[:160]})"
        raise InputError(field, given, expected, "malformed-yaml") from None
    _check_plain(content, field)
    return content


def _check_events(text: str, field: str) -> None:
    """Depth and size of the document with every alias written out, before anything is built."""
    open_: list[list[int]] = [[0, 0]]  # values and height so far, of the collections that are open
    anchors: list[str | None] = []
    known: dict[str, tuple[int, int]] = {}
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append([1, 0])
            anchors.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent | yaml.ScalarEvent | yaml.AliasEvent):
            if isinstance(event, yaml.CollectionEndEvent):
                values, height = open_.pop()
                height, anchor = height + 1, anchors.pop()
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in known:  # unknown, or of a collection that is still open
                    given = f"the alias *{event.anchor} of itself or of nothing"
                    raise InputError(field, given, "aliases of what stands before", "malformed-yaml")
                values, height = known[event.anchor]
                anchor = None
            else:
                values, height, anchor = 1, 0, event.anchor
            if anchor is not None:
                known[anchor] = values, height
            open_[-1] = [open_[-1][0] + values, max(open_[-1][1], height)]
        if len(open_) - 1 + open_[-1][1] > MAX_DEPTH:
            raise _too_deep(field)
        if open_[-1][0] > MAX_VALUES:
            raise TooLargeError(field, f"more than {MAX_VALUES} values (aliases written out)", MAX_VALUES, "values")


def _too_deep(field: str) -> InputError:
    return InputError(field, "values nested too deeply", f"at most {MAX_DEPTH} levels", "too-deep")


def _check_plain(value: Any, field: str) -> None:
    """Only what JSON can say."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise InputError(
                    field, f"the key {str(key)[:80]!r}, which is no text", "text (in quotes)", "wrong-type"
                )
            _check_plain(entry, f"{field}.{key[:80]}")
    elif isinstance(value, list):
        for entry in value:
            _check_plain(entry, field)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(field, f"{value}", "finite numbers", "not-finite")
    elif not isinstance(value, str | int | float | type(None)):
        expected = "text, numbers, true, false, null, lists and mappings"
        raise InputError(field, f"a {type(value).__name__}", expected, "wrong-type")
