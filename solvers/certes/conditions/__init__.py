"""Stability conditions, cheapest first. A new condition touches its own file and this table."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from certes.conditions.base import Backend, Candidate, Condition, Decision, Goal, NothingFound
from certes.errors import InputError

#: name -> module whose ``CONDITION`` is the condition; cheapest first. Modules load on first use.
_TABLE: dict[str, str] = {
    "absolute": "certes.conditions.absolute",
    "symmetric": "certes.conditions.symmetric",
    "product": "certes.conditions.product",
    "singular": "certes.conditions.singular",
    "lure": "certes.conditions.lure",
}

NAMES: tuple[str, ...] = tuple(_TABLE)


def by_name(name: str) -> Condition:
    """The condition of that name.

    Raises:
        InputError: there is none.
    """
    if name not in _TABLE:
        raise InputError("condition", repr(name), f"one of auto, {', '.join(NAMES)}", "unknown-condition")
    return cast(Condition, import_module(_TABLE[name]).CONDITION)


def __getattr__(name: str) -> object:
    if name == "CONDITIONS":
        return tuple(by_name(entry) for entry in NAMES)
    raise AttributeError(name)


CONDITIONS: tuple[Condition, ...]

__all__ = ["CONDITIONS", "NAMES", "Backend", "Candidate", "Condition", "Decision", "Goal", "NothingFound", "by_name"]
