"""Projections: the nearest weights of one network that are certified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from certes.errors import InputError
from certes.projection import Keep, project
from certes.projection.files import certified_file, projected_name
from certes.spec import SystemSpec
from certes.systems import System, UnsupportedCell
from certes.weights import WeightFile
from numpy.typing import NDArray

from certes_service.questions import interconnections
from certes_service.questions.base import Context, Limits, Solved, Spent, question_digest
from certes_service.questions.interconnections import InterconnectionQuestion
from certes_service.questions.projected import ended, named, projected
from certes_service.schema import ProjectionOptions, split

if TYPE_CHECKING:
    from certes_service.settings import Settings


def question(given: dict[str, Any], weights: bytes, name: str) -> ProjectionQuestion | InterconnectionQuestion:
    """A request's spec as a question; one with ``modules`` or ``interconnection`` is about an assembly.

    Raises:
        InputError: naming the entry.
    """
    if "modules" in given or "interconnection" in given:
        return interconnections.question(given, weights, name)
    asked, described = split(given, ProjectionOptions)
    return ProjectionQuestion(SystemSpec.parse(described), ProjectionOptions.parse(asked), weights, name)


@dataclass(frozen=True)
class ProjectionQuestion:
    """One network to project.

    Attributes:
        spec: the system.
        options: what is asked about it.
        weights: bytes of a safetensors file.
        name: the file's name.
    """

    kind: ClassVar[str] = "projection"

    spec: SystemSpec
    options: ProjectionOptions
    weights: bytes
    name: str

    @classmethod
    def rebuild(cls, parts: Mapping[str, Any], weights: bytes, name: str) -> Self:
        """From :meth:`parts`."""
        return cls(SystemSpec.parse(parts["spec"]), ProjectionOptions.parse(parts["options"]), weights, name)

    def parts(self) -> dict[str, Any]:
        """Spec and options."""
        return {"spec": self.spec.model_dump(mode="json"), "options": self.options.model_dump(mode="json")}

    def digest(self, settings: Settings) -> str:
        """Same bytes and same question, same digest."""
        return question_digest(self.kind, settings, self.weights, self.parts() | {"name": self.name})

    def needs(self) -> set[str]:
        """None."""
        return set()

    def check(self, settings: Settings) -> None:
        """Read the network, and the tensors that say what has to stay."""
        self._read(Limits.of(settings))

    def solve(self, context: Context) -> Solved:
        """Project, put the new weights into the file, and certify that."""
        file, system, mask, weighting = self._read(context.limits)
        asked, keep = self.options, self.options.keep
        try:
            found = project(
                system,
                asked.condition,
                asked.rate,
                keep=Keep(mask, keep.zeros, keep.diagonal, keep.rank),
                weighting=weighting,
                seconds=context.limit(asked.seconds),
                seed=asked.seed,
                starts=asked.starts,
                progress=context.say,
            )
        except InputError as error:
            raise named(error) from error
        made = certified_file(found, self.spec, file, lambda: self.weights, projected_name(self.name))
        return projected(found.to_json(), found.result.verdict, made)

    def undecided(self, reason: Spent, detail: str) -> Solved:
        """The answer if the solver was ended."""
        unknown = ("relative", "rate", "factor", "condition", "shrink_distance", "fixed_scaling_distance")
        norm = "frobenius" if self.options.weighting is None else "weighted"
        answer: dict[str, Any] = {"distance": None, "norm": norm, "unchanged": False, "distance_bound": None}
        return ended(answer | dict.fromkeys(unknown) | {"attempts": []}, reason, detail)

    def _read(
        self, limits: Limits
    ) -> tuple[WeightFile, System | UnsupportedCell, NDArray[Any] | None, NDArray[np.float64] | None]:
        """The file, and what the question names of it: network, mask and weighting.

        Raises:
            InputError: it is not there, or not of that kind.
        """
        file, asked = limits.read(self.weights, self.name), self.options
        system = self.spec.system(file)
        limits.check_size(system)
        mask = None if asked.keep.mask is None else file.get(asked.keep.mask, "spec.keep.mask").array()
        weighting = None if asked.weighting is None else file.get(asked.weighting, "spec.weighting").floats()
        return file, system, mask, weighting
