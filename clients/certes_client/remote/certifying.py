"""What ``certes certify --server`` does: the service searches, and what it found is verified here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from certes import formats
from certes.cells import GatedNetwork
from certes.certify import certify, check
from certes.conditions.base import Backend
from certes.results import Result
from certes.spec import SystemSpec
from certes.systems import System, UnsupportedCell
from certes.weights import WeightFile

from certes_client.remote import trust
from certes_client.remote.option import connected, told

if TYPE_CHECKING:
    from certes_client.certifying import Question


def answer(
    url: str,
    question: Question,
    spec: SystemSpec,
    weights: WeightFile,
    system: System | GatedNetwork | UnsupportedCell,
    progress: Callable[[str], None],
) -> Result:
    """As :func:`certes.certify` would answer, but searched for elsewhere.

    Raises:
        InputError: as there. RemoteError: no answer, or one that does not hold.
    """
    step, backend = question.system.step_choice, cast(Backend, question.backend)
    check(system, question.condition, question.rate, step=step, backend=backend, seconds=question.seconds)
    if isinstance(system, UnsupportedCell):
        return certify(system)  # nobody has to be asked
    with connected(url) as client:
        progress("asking the service")
        found = client.certify(
            asked(question, spec),
            formats.as_safetensors(question.file, weights),
            weights.name,
            progress=told(progress),
        )
        progress("verifying what it answered")
        return trust.result(
            found, client.certificate, system, weights, condition=question.condition, rate=question.rate, step=step
        )


def asked(question: Question, spec: SystemSpec) -> dict[str, Any]:
    """The question as the service takes it."""
    given: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True)
    given |= {"condition": question.condition, "rate": question.rate, "backend": question.backend}
    if question.system.step_choice == "max":
        given["step"] = "max"
    return given | ({} if question.seconds is None else {"seconds": question.seconds})
