"""``certes config``: every setting, what it is, and where that came from. What it prints is a file of settings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from certes_service.settings import FILE_VARIABLE, PREFIX, SECRETS, Settings

Source = Literal["default", "file", "environment", "option"]

#: Where each group of settings begins, in their order, and what it is called.
GROUPS: Mapping[str, str] = {
    "data": "Storage",
    "host": "Listening",
    "max_body_bytes": "Limits",
    "solvers": "Jobs and workers",
    "job_days": "How long things are kept",
    "signing_key": "Signing",
    "log_format": "Log and metrics",
}
#: Variables that begin like a setting and are none.
_OTHERS = frozenset({FILE_VARIABLE, "CERTES_DEBUG", "CERTES_SLOW", "CERTES_SLOW_SEED"})


@dataclass(frozen=True)
class Entry:
    """One setting.

    Attributes:
        name: its name.
        group: heading that it stands under.
        variable: the environment variable that sets it.
        value: its value as JSON; None: not set. Of a secret it is never shown.
        source: where the value came from.
        secret: whether the value is never shown.
        is_set: whether there is a value.
        description: what it is for.
    """

    name: str
    group: str
    variable: str
    value: Any
    source: Source
    secret: bool
    is_set: bool
    description: str

    def json(self) -> dict[str, Any]:
        """As JSON; of a secret ``set`` or ``unset`` stands for the value."""
        shown = ("set" if self.is_set else "unset") if self.secret else self.value
        return {
            "value": shown,
            "source": self.source,
            "variable": self.variable,
            "secret": self.secret,
            "description": self.description,
        }


def entries(settings: Settings, given: Iterable[str] = ()) -> list[Entry]:
    """Every setting, in the order of their declaration.

    Args:
        settings: as they were read.
        given: names of those that were given as options.
    """
    places: dict[Source, set[str]] = {
        "option": set(given),
        "environment": set(EnvSettingsSource(Settings)()),
        "file": _in_file(),
    }
    found, group = [], ""
    for name, field in Settings.model_fields.items():
        group = GROUPS.get(name, group)
        source: Source = next((place for place, names in places.items() if name in names), "default")
        value = getattr(settings, name)
        secret = name in SECRETS
        is_set = value is not None and value != {}
        shown = None if secret or not is_set else _plain(value)
        variable, description = PREFIX + name.upper(), field.description or ""
        found.append(Entry(name, group, variable, shown, source, secret, is_set, description))
    return found


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Environment variables that look like settings and are none: most often a slip of the pen."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | _OTHERS
    return sorted(name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known)


def as_toml(found: Iterable[Entry]) -> Iterator[str]:
    """Lines of a TOML file that says the same; what is not set, and every secret, stands in it as a comment."""
    group = ""
    for entry in found:
        if entry.group != group:
            yield f"\n# {entry.group}" if group else f"# {entry.group}"
            group = entry.group
        yield f"\n# {entry.description}"
        yield f"# {entry.variable}, from: {entry.source}"
        if entry.secret:
            yield f"# {entry.name} is {'set, and not shown' if entry.is_set else 'not set'}"
        elif entry.is_set:
            yield f"{entry.name} = {json.dumps(entry.value)}"  # strings, numbers and lists: JSON and TOML agree
        else:
            yield f"# {entry.name} is not set"


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _in_file() -> set[str]:
    file = os.environ.get(FILE_VARIABLE)
    return set(TomlConfigSettingsSource(Settings, Path(file))()) if file else set()
