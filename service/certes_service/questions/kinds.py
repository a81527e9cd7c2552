"""The kinds of questions, by name; a kind's module loads when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, cast

from certes.errors import InputError

from certes_service.questions.base import Question

#: kind -> module and class.
KINDS: dict[str, str] = {
    "certificate": "certes_service.questions.certificates:CertificateQuestion",
    "projection": "certes_service.questions.projections:ProjectionQuestion",
    "interconnection": "certes_service.questions.projections:InterconnectionQuestion",
    "assembly": "certes_service.questions.assemblies:AssemblyQuestion",
    "training": "certes_service.questions.trainings:TrainingQuestion",
    "verification": "certes_service.questions.verifications:VerificationQuestion",
    "assembly-verification": "certes_service.questions.assembly_verifications:AssemblyVerification",
    "figure": "certes_service.questions.figures:FigureQuestion",
}
#: Where that table is: a module, or a file of Python with a table of its own.
TABLE = "certes_service.questions.kinds"


def table(source: str = TABLE) -> Mapping[str, Any]:
    """A table of kinds.

    Args:
        source: a module, or the path of a file (``.py``), whose ``KINDS`` it is; entries ``MODULE:CLASS`` or classes.
    """
    if not source.endswith(".py"):
        return cast("Mapping[str, Any]", importlib.import_module(source).KINDS)
    name = f"certes_kinds_{sha256(source.encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, source)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return cast("Mapping[str, Any]", sys.modules[name].KINDS)


def by_name(kind: str, source: str = TABLE) -> type[Question]:
    """The class of a kind.

    Raises:
        InputError: there is none.
    """
    known = table(source)
    if kind not in known:
        raise InputError("kind", repr(kind)[:80], f"one of {', '.join(known)}", "unknown-kind")
    entry = known[kind]
    if isinstance(entry, str):
        module, _, name = entry.partition(":")
        entry = getattr(importlib.import_module(module), name)
    return cast("type[Question]", entry)


def rebuild(kind: str, parts: Mapping[str, Any], weights: bytes, name: str, source: str = TABLE) -> Question:
    """A question from what was kept of it.

    Raises:
        InputError: it is none.
    """
    return by_name(kind, source).rebuild(parts, weights, name)
