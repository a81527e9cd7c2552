"""What ``certes certify --server`` (and ``check``) does: the service searches, and what it found is verified here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

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
    asked = Asked(question.file, spec, weights, question.condition, question.rate, question.seconds, step, backend)
    return asked.answer(url, system, progress)


@dataclass(frozen=True)
class Asked:
    """A question about one network, as a service is asked it.

    Attributes:
        file: the weights.
        spec: the network in it.
        weights: the file, read.
        condition, rate, seconds, step, backend: as :func:`certes.certify`.
    """

    file: Path
    spec: SystemSpec
    weights: WeightFile
    condition: str = "auto"
    rate: float | Literal["best"] = "best"
    seconds: float | None = None
    step: Literal["given", "max"] = "given"
    backend: Backend = "auto"

    def answer(self, url: str, system: System | GatedNetwork, progress: Callable[[str], None]) -> Result:
        """What the service found, verified here.

        Args:
            url: the service.
            system: the network, made here of ``spec`` and ``weights``.
            progress: told how far it is.

        Raises:
            InputError: what the service says of the input. RemoteError: no answer, or one that does not hold.
        """
        with connected(url) as client:
            progress("asking the service")
            sent = formats.as_safetensors(self.file, self.weights)
            found = client.certify(self._json(), sent, self.weights.name, progress=told(progress))
            progress("verifying what it answered")
            return trust.result(
                found, client.certificate, system, self.weights,
                condition=self.condition, rate=self.rate, step=self.step,
            )  # fmt: skip

    def _json(self) -> dict[str, Any]:
        given: dict[str, Any] = self.spec.model_dump(mode="json", exclude_none=True)
        given |= {"condition": self.condition, "rate": self.rate, "backend": self.backend}
        if self.step == "max":
            given["step"] = "max"
        return given | ({} if self.seconds is None else {"seconds": self.seconds})
