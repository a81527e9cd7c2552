"""Descriptions of assemblies in a folder, for ``certes init``: which there are, and which files belong to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from certes.composition import plaintext
from certes.composition.description import read
from certes.composition.sources import bytes_of
from certes.errors import CertesError

#: Files that are looked at, and seconds for the metrics that feedback in one of them needs.
_MOST, _SECONDS = 1000, 20.0
_MODULES = re.compile(rb"""\bmodules["']?\s*:""")


def descriptions(folder: Path, files: Iterable[Path]) -> tuple[list[Path], set[Path], list[tuple[Path, str]]]:
    """Look at files for descriptions of assemblies.

    Args:
        folder: the repository; only what is inside it is looked at.
        files: YAML and JSON.

    Returns:
        The descriptions that can be read and are no part of another; every file that they name, resolved; and those
        that look like one and cannot be read, with the reason. Files of another kind are passed over in silence.
    """
    found: list[Path] = []
    named: dict[Path, set[Path]] = {}
    broken: list[tuple[Path, str]] = []
    for path in list(files)[:_MOST]:
        content = _content(path)
        if content is None or not path.resolve().is_relative_to(folder.resolve()):
            continue
        try:
            read(path, seconds=_SECONDS)
        except CertesError as error:
            broken.append((path, str(error)))
            continue
        found.append(path)
        named[path] = set(_named(content, path.parent, {path.resolve()}))
    parts = {part for own in named.values() for part in own}
    whole = [path for path in found if path.resolve() not in parts]
    return whole, parts, [(path, error) for path, error in broken if path.resolve() not in parts]


def _content(path: Path) -> dict[str, Any] | None:
    """The values of a description; None: of something else."""
    try:
        text = bytes_of(path, "assembly", path.name)
        if _MODULES.search(text) is None:  # most files: to parse a large one takes seconds
            return None
        content = plaintext.parse(text, "assembly")
    except CertesError:
        return None
    modules = content.get("modules") if isinstance(content, Mapping) else None
    if not isinstance(modules, Mapping) or not modules or not all(isinstance(m, Mapping) for m in modules.values()):
        return None
    kinds = ("form", "certificate", "assembly", "modules")
    return dict(content) if all(any(kind in module for kind in kinds) for module in modules.values()) else None


def _named(content: Mapping[str, Any], folder: Path, seen: set[Path]) -> Iterator[Path]:
    """The files that a description names, and those that these name."""
    for key, value in content.items():
        if key in ("file", "certificate", "weights", "assembly") and isinstance(value, str):
            path = (folder / value).resolve()
            yield path
            if key == "assembly" and path not in seen:
                seen.add(path)
                yield from _named(_content(path) or {}, path.parent, seen)
        elif isinstance(value, Mapping):
            yield from _named(value, folder, seen)
        elif isinstance(value, list):
            for entry in value:
                yield from _named(entry, folder, seen) if isinstance(entry, Mapping) else ()
