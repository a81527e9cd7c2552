"""What projections of one network and of an interconnection answer in common."""

from __future__ import annotations

from typing import Any

from certes.errors import InputError, TooLargeError
from certes.projection.files import CertifiedFile
from certes.results import Result

from certes_service.questions.base import Solved, Spent, finite
from certes_service.questions.certificates import certified

#: Fields of errors that are entries of the spec under other names.
_ENTRIES = {"blocks": "interconnection", "mask": "masks", "system": "form"}
_SPEC = ("condition", "rate", "keep", "weighting", "seed", "starts", "seconds", "modules", "norm", "step")


def projected(answer: dict[str, Any], verdict: str, made: CertifiedFile | None) -> Solved:
    """The answer in Python's names, with links to what was made.

    Args:
        answer: of the projection, as JSON.
        verdict: of its result.
        made: the new file; None if nothing was certified.
    """
    answer = {"verdict": verdict} | finite(answer)
    if made is None:
        return Solved(answer | {"weights": None})
    digest = made.certificate.digest
    answer["result"]["certificate"] = {"digest": digest}  # about the file, not about arrays in memory
    answer["weights"] = {
        "href": f"/v1/certificates/{digest}/weights",
        "name": made.name,
        "sha256": made.sha256,
        "changed": list(made.changed),
    }
    return certified(answer, made.certificate, made.data)


def ended(answer: dict[str, Any], reason: Spent, detail: str) -> Solved:
    """The answer if the solver was ended: no weights were certified.

    Args:
        answer: as JSON, without ``result``.
        reason: why it was ended.
        detail: that in words.
    """
    result = Result("undecided", reason=reason, detail=detail)
    return projected(answer | {"result": result.to_json()}, result.verdict, None)


def named(error: InputError) -> InputError:
    """The same error with the field as the request named it."""
    first, dot, rest = error.field.partition(".")
    entry = _ENTRIES.get(first, first if first in _SPEC else None)
    if entry is None or isinstance(error, TooLargeError):
        return error
    return InputError(f"spec.{entry}{dot}{rest}", error.given, error.expected, error.slug)
