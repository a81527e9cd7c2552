"""A first policy: the weight files of a folder, each with the description that its names and shapes suggest."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from certes import formats
from certes.errors import CertesError
from certes.guess import Guess, guess
from certes.words import printable

from certes_client.policy.descriptions import descriptions

#: Folders that hold no weights of the repository's own.
_SKIPPED = frozenset({"node_modules", "__pycache__", "venv", "env", "build", "dist", "site-packages"})
_MOST = 1000


def weight_files(folder: Path) -> Iterator[Path]:
    """The weight files below a folder, as :func:`files`; of one and what it was converted to, the latter."""
    for path in files(folder, (".safetensors", *formats.SUFFIXES)):
        apart = path.name.endswith(".proof.safetensors")
        if not apart and not (formats.is_foreign(path) and path.with_suffix(".safetensors").is_file()):
            yield path


def files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The files below a folder, sorted; hidden folders and those of tools are left out, links not followed."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        for name in sorted(files):
            if name.endswith(suffixes):
                yield Path(where) / name


def first_policy(folder: Path) -> tuple[str, list[str], list[str]]:
    """The text of a policy for a folder.

    Returns:
        The text, the names of its models, and a line for each file that no model was made of. What belongs to an
        assembly is no model of its own.
    """
    parts, names, left = [_HEAD], list[str](), list[str]()
    assemblies, theirs, broken = descriptions(folder, files(folder, (".yaml", ".yml", ".json")))
    for path in assemblies:
        name = _name(path.parent.name if path.stem == "assembly" else path.stem, names)
        names.append(name)
        parts.append(_assembly(name, path.relative_to(folder).as_posix()))
    left += [f"{path.relative_to(folder).as_posix()}: {error}" for path, error in broken]
    for path in [path for path in weight_files(folder) if path.resolve() not in theirs][:_MOST]:
        file = path.relative_to(folder).as_posix()
        try:
            found = guess(formats.read(path))
        except CertesError as error:
            left.append(f"{file}: {error}")
            continue
        if found.spec is None:
            left.append(f"{file}: {found.recognition.detail}")
            continue
        name = _name(path.stem, names)
        names.append(name)
        parts.append(_model(name, file, found))
    return "\n".join(parts), names, left


_HEAD = """\
# What this repository promises of its recurrent networks: `certes check` says whether it holds.
# Every entry below was guessed from the files: look at each one before you rely on it.
certificates = ".certes"

# [trust]
# keys = ["keys/release.pub.pem"]   # a certificate counts only if one of these has signed it
"""
_DEMANDS = """\
# rate_at_least = 0.1 (a map: factor_at_most = 0.99)
allowed_regression = 0.01"""


def _assembly(name: str, file: str) -> str:
    lines = [f"[models.{_key(name)}]", f"assembly = {_value(file)}   # it can be read as the description of one"]
    return "\n".join([*lines, _DEMANDS, ""])


def _model(name: str, file: str, found: Guess) -> str:
    assert found.spec is not None
    lines = [f"[models.{_key(name)}]", f"file = {_value(file)}"]
    for key, value in found.spec.items():
        why = found.reasons.get(key)
        note = "" if why is None else f"   # {printable(why, 200)}"
        lines.append(f"{key} = {_value(value)}{note}")
    if "step" not in found.spec and found.spec["form"] in ("rate", "hopfield"):
        lines.append(f"# step = 0.1   # {found.reasons.get('step', 'without one, time is continuous')}")
    return "\n".join([*lines, _DEMANDS, ""])


def _name(stem: str, taken: list[str]) -> str:
    """A name that is not taken, of the letters that a name may have."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:80] or "model"
    name, k = plain, 2
    while name in taken:
        name, k = f"{plain}-{k}", k + 1
    return name


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\u{ord(found[0]):04x}", escaped) + '"'
    return repr(value)
