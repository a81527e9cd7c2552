"""Interconnections: the nearest matrices between modules with which the whole is certified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from certes.errors import InputError, TooLargeError
from certes.projection.files import file_with, projected_name
from certes.spec import SystemSpec
from certes.systems import System, Tensor, UnsupportedCell
from certes.weights import WeightFile
from numpy.typing import NDArray

from certes_service.questions.base import Context, Limits, Solved, Spent, clip, question_digest
from certes_service.questions.projected import ended, named, projected
from certes_service.schema import InterconnectionOptions

if TYPE_CHECKING:
    from certes_service.settings import Settings

#: What the matrices of a whole are called in the new file: ``assembly.A``, ``assembly.B``, ``assembly.C``.
WHOLE = "assembly"

Pair = tuple[str, str]


def question(given: dict[str, Any], weights: bytes, name: str) -> InterconnectionQuestion:
    """A request's spec as a question.

    Raises:
        InputError: naming the entry.
    """
    return InterconnectionQuestion.of(InterconnectionOptions.parse(given), weights, name)


@dataclass(frozen=True)
class InterconnectionQuestion:
    """Modules and the matrices between them, which are to be projected.

    Attributes:
        specs: name -> the module's system.
        options: the interconnection, and what is asked about it.
        weights: bytes of a safetensors file with every tensor.
        name: the file's name.
    """

    kind: ClassVar[str] = "interconnection"

    specs: Mapping[str, SystemSpec]
    options: InterconnectionOptions
    weights: bytes
    name: str

    @classmethod
    def of(cls, options: InterconnectionOptions, weights: bytes, name: str) -> Self:
        """The question of options whose modules are not looked at yet.

        Raises:
            InputError: naming the module's entry.
        """
        specs = {key: SystemSpec.parse(spec, f"spec.modules.{clip(key, 80)}") for key, spec in options.modules.items()}
        return cls(specs, options, weights, name)

    @classmethod
    def rebuild(cls, parts: Mapping[str, Any], weights: bytes, name: str) -> Self:
        """From :meth:`parts`."""
        return cls.of(
            InterconnectionOptions.parse(parts["options"] | {"modules": dict(parts["modules"])}), weights, name
        )

    def parts(self) -> dict[str, Any]:
        """Modules, in their order, and options."""
        modules = [[key, spec.model_dump(mode="json")] for key, spec in self.specs.items()]  # their order counts
        return {"modules": modules, "options": self.options.model_dump(mode="json", exclude={"modules"})}

    def digest(self, settings: Settings) -> str:
        """Same bytes and same question, same digest."""
        return question_digest(self.kind, settings, self.weights, self.parts() | {"name": self.name})

    def needs(self) -> set[str]:
        """None."""
        return set()

    def check(self, settings: Settings) -> None:
        """Read modules, matrices and masks."""
        self._read(Limits.of(settings))

    def solve(self, context: Context) -> Solved:
        """Project, put the new matrices and those of the whole into the file, and certify that."""
        from certes.projection.interconnection import project_interconnection

        asked, (file, modules, names, blocks, masks) = self.options, self._read(context.limits)
        try:
            found = project_interconnection(
                modules,
                blocks,
                asked.rate,
                mask=masks,
                fill=asked.fill,
                norm=asked.norm,
                seconds=context.limit(asked.seconds),
                progress=context.say,
            )
        except InputError as error:
            raise named(error) from error
        certificate = found.result.certificate
        made = None
        if found.result.verdict == "contracting" and certificate is not None:
            tensors = self._tensors(names, file, found.blocks)
            made = file_with(found.system, certificate, file, tensors, WHOLE, projected_name(self.name))
        return projected(found.to_json(), found.result.verdict, made)

    def undecided(self, reason: Spent, detail: str) -> Solved:
        """The answer if the solver was ended; the given matrices are in the file."""
        unknown = ("distance", "distance_frobenius", "distance_bound", "shrink_distance")
        answer: dict[str, Any] = {"blocks": [], "rate": self.options.rate, "module_rates": {}}
        answer |= dict.fromkeys(unknown) | {"norm": self.options.norm, "unchanged": False, "iterations": 0}
        return ended(answer, reason, detail)

    def _read(
        self, limits: Limits
    ) -> tuple[WeightFile, dict[str, System], dict[Pair, str], dict[Pair, Tensor], dict[Pair, NDArray[np.bool_]]]:
        """The file, and what the question names of it: modules, names of the matrices, matrices, masks.

        Raises:
            InputError: it is not there, or not of that kind.
        """
        file, asked = limits.read(self.weights, self.name), self.options
        modules = {key: self._module(limits, key, file) for key in self.specs}
        states = sum(system.size for system in modules.values())
        if states > limits.states:
            raise TooLargeError("spec.modules", f"{states} states in all", limits.states, "states")
        names = {_pair(key, modules, "interconnection"): name for key, name in asked.interconnection.items()}
        self._check_names(names)
        blocks = {pair: file.get(name, "spec.interconnection").tensor() for pair, name in names.items()}
        masks = {
            _pair(key, modules, "masks"): _mask(file, name, f"spec.masks.{key}") for key, name in asked.masks.items()
        }
        return file, modules, names, blocks, masks

    def _module(self, limits: Limits, name: str, file: WeightFile) -> System:
        system = self.specs[name].system(file)
        if isinstance(system, UnsupportedCell):
            expected = "a network in continuous time: rate, hopfield or lure"
            raise InputError(f"spec.modules.{clip(name, 80)}", system.cell, expected, "unsupported")
        limits.check_size(system)
        return system

    def _check_names(self, names: Mapping[Pair, str]) -> None:
        """Raise InputError if a tensor would have to be two things at once."""
        used = {tensor for spec in self.specs.values() for tensor in spec.tensors.values()}
        for (to, source), name in names.items():
            if name in used:
                field = f"spec.interconnection.{clip(to, 80)}/{clip(source, 80)}"
                expected = "a tensor of its own for each matrix that may move"
                raise InputError(field, f"the tensor {clip(name, 80)!r}, which is used elsewhere", expected, "conflict")
            used.add(name)

    @staticmethod
    def _tensors(
        names: Mapping[Pair, str], file: WeightFile, blocks: Mapping[Pair, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Tensor name -> matrix; one that was absent is called ``TO/FROM``."""
        found: dict[str, NDArray[Any]] = {}
        for (to, source), block in blocks.items():
            name = names.get((to, source), f"{to}/{source}")
            if (to, source) not in names and name in file.tensors:
                expected = "no tensor of that name: a matrix that was absent is added"
                raise InputError("weights", f"a tensor {clip(name, 80)!r}", expected, "conflict")
            if (to, source) not in names or not np.array_equal(block, file.tensors[name].array()):
                found[name] = block
        return found


def _pair(key: str, modules: Mapping[str, System], entry: str) -> Pair:
    """``TO/FROM`` as the two names; names may have slashes in them."""
    found = [
        (key[:k], key[k + 1 :])
        for k, letter in enumerate(key)
        if letter == "/" and key[:k] in modules and key[k + 1 :] in modules
    ]
    if len(found) != 1:
        given = "a key that is no TO/FROM" if not found else "a key that can be read in two ways"
        raise InputError(f"spec.{entry}.{clip(key, 80)}", given, "the names of two modules, TO/FROM", "unknown-module")
    return found[0]


def _mask(file: WeightFile, name: str, field: str) -> NDArray[np.bool_]:
    values = file.get(name, clip(field)).array()
    if values.dtype != np.bool_ and not bool(((values == 0) | (values == 1)).all()):
        raise InputError(clip(field), f"dtype {values.dtype}", "booleans, or numbers 0 and 1", "wrong-dtype")
    return values.astype(np.bool_)
