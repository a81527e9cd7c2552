"""The page of settings in the documentation, made from the settings themselves.

python -m certes_service.operations.settings_page docs/service/settings.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from certes_service.operations.configuration import GROUPS
from certes_service.settings import FILE_VARIABLE, PREFIX, SECRETS, Settings

_HEAD = f"""# Settings of the service

<!-- Made by `python -m certes_service.operations.settings_page FILE` from settings.py. Change it there. -->

Every setting of `certes serve`, `certes worker`, `certes keys` and `certes storage` can be given in three ways. The
first of these that says something wins:

1. an option of the command, where it has one (`certes serve --help`);
2. the environment variable in the table. Lists and mappings are JSON there: `CERTES_ALLOWED_HOSTS='["certes.lan"]'`.
   An empty variable counts as not set;
3. the TOML file that `{FILE_VARIABLE}` names, under the setting's name: `port = 8080`.

`certes config` prints every setting with its value and where that came from, and never a secret; what it prints is
itself a file of settings to start from. `certes config --json` prints the same as one JSON object. It also names
variables that begin with `{PREFIX}` and are no setting. A value that cannot be used ends every command with exit code 2
and the setting's name, before anything is opened.

Processes that work together have to agree on where things are (`database`, `blobs`, or `data`), on the signing key, and
on `beat_seconds` and `lease_seconds`; all else may differ between them.
"""


def page() -> str:
    """The page, in Markdown."""
    properties = Settings.model_json_schema()["properties"]
    parts = [_HEAD]
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            parts.append(
                f"\n## {GROUPS[name]}\n\n| setting | variable | value | default | |\n| --- | --- | --- | --- | --- |"
            )
        default = field.get_default(call_default_factory=True)
        cells = (
            f"`{name}`",
            f"`{PREFIX}{name.upper()}`",
            _kind(properties[name]) + (", secret" if name in SECRETS else ""),
            "" if default is None else f"`{_shown(default)}`",
            (field.description or "").replace("|", "\\|"),
        )
        parts.append("| " + " | ".join(cells) + " |")
    return "\n".join(parts) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "[]" if value == () else str(value)


_KINDS = {"string": "text", "boolean": "true or false", "array": "list", "object": "mapping"}


def _kind(schema: dict[str, Any]) -> str:
    """What may be given, in a word or two."""
    choices = [entry for entry in schema.get("anyOf", [schema]) if entry.get("type") != "null"]
    [found] = choices
    if "enum" in found:
        return ", ".join(f"`{value}`" for value in found["enum"])
    if found.get("format") == "path":
        return "path"
    kind = found["type"]
    if kind not in ("integer", "number"):
        return _KINDS[kind]
    low, high, above = found.get("minimum"), found.get("maximum"), found.get("exclusiveMinimum")
    said = {"integer": "whole number", "number": "number"}[kind]
    if low is not None and high is not None:
        return f"{said}, {low:g} to {high:g}"
    if low is not None:
        return f"{said}, at least {low:g}"
    return said if above is None else f"{said} > {above:g}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
