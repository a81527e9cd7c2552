"""Projections: the nearest weights, or the nearest interconnection of modules, that are certified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from certes.cells import GatedNetwork
from certes.errors import InputError, TooLargeError
from certes.projection import Keep, project
from certes.projection.files import CertifiedFile, certified_file, file_with, projected_name
from certes.results import Result
from certes.spec import SystemSpec
from certes.systems import System, Tensor, UnsupportedCell
from certes.weights import WeightFile
from numpy.typing import NDArray

from certes_service.questions.base import (
    Context,
    Limits,
    Plain,
    Solved,
    Spent,
    clip,
    finite,
    result_json,
)
from certes_service.questions.certificates import certified
from certes_service.schema import InterconnectionOptions, ProjectionOptions, split

if TYPE_CHECKING:
    from certes_service.settings import Settings

#: What the matrices of a whole are called in the new file: ``assembly.A``, ``assembly.B``, ``assembly.C``.
WHOLE = "assembly"

Pair = tuple[str, str]


def question(given: dict[str, Any], weights: bytes, name: str) -> ProjectionQuestion | InterconnectionQuestion:
    """A request's spec as a question; one with ``modules`` or ``interconnection`` is about an assembly.

    Raises:
        InputError: naming the entry.
    """
    if "modules" in given or "interconnection" in given:
        options = InterconnectionOptions.parse(given)
        specs = {key: SystemSpec.parse(spec, f"spec.modules.{clip(key, 80)}") for key, spec in options.modules.items()}
        return InterconnectionQuestion(specs, options, weights, name)
    asked, described = split(given, ProjectionOptions)
    return ProjectionQuestion(SystemSpec.parse(described), ProjectionOptions.parse(asked), weights, name)


@dataclass(frozen=True)
class ProjectionQuestion(Plain):
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

    def check(self, settings: Settings) -> None:
        """Read the network."""
        limits = Limits.of(settings)
        limits.check_size(self.spec.system(limits.read(self.weights, self.name)))

    def undecided(self, reason: Spent, detail: str) -> Solved:
        """The answer if the solver was ended."""
        asked = self.options
        norm = "frobenius" if asked.weighting is None else "weighted"
        numbers = ("distance", "relative", "factor", "condition", "shrink_distance", "fixed_scaling_distance")
        return _spent(reason, detail, dict.fromkeys(numbers) | {"norm": norm, "attempts": []})

    def solve(self, context: Context) -> Solved:
        """Project, put the new weights into the file, and certify that."""
        file, asked = context.limits.read(self.weights, self.name), self.options
        system = self.spec.system(file)
        context.limits.check_size(system)
        keep = asked.keep
        mask = None if keep.mask is None else file.get(keep.mask, "spec.keep.mask").array()
        weighting = None if asked.weighting is None else file.get(asked.weighting, "spec.weighting").floats()
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
            raise _named(error) from error
        made = certified_file(found, self.spec, file, lambda: self.weights, projected_name(self.name))
        return _solved(found.to_json(), found.result.verdict, made)


@dataclass(frozen=True)
class InterconnectionQuestion(Plain):
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
    def rebuild(cls, parts: Mapping[str, Any], weights: bytes, name: str) -> Self:
        """From :meth:`parts`."""
        specs = {key: SystemSpec.parse(spec) for key, spec in parts["modules"]}
        options = InterconnectionOptions.parse(parts["options"] | {"modules": dict(parts["modules"])})
        return cls(specs, options, weights, name)

    def parts(self) -> dict[str, Any]:
        """Modules, whose order counts, and options."""
        modules = [[key, spec.model_dump(mode="json")] for key, spec in self.specs.items()]
        return {"modules": modules, "options": self.options.model_dump(mode="json", exclude={"modules"})}

    def check(self, settings: Settings) -> None:
        """Read the modules."""
        self._modules(Limits.of(settings))

    def undecided(self, reason: Spent, detail: str) -> Solved:
        """The answer if the solver was ended."""
        numbers: dict[str, Any] = dict.fromkeys(("distance", "distance_frobenius", "shrink_distance", "iterations"))
        return _spent(reason, detail, numbers | {"norm": self.options.norm, "blocks": [], "module_rates": {}})

    def solve(self, context: Context) -> Solved:
        """Project, put the new matrices and those of the whole into the file, and certify that."""
        from certes.projection.interconnection import project_interconnection

        asked = self.options
        file, modules = self._modules(context.limits)
        names = {_pair(key, modules, "interconnection"): name for key, name in asked.interconnection.items()}
        self._check_names(names)
        try:
            found = project_interconnection(
                modules,
                {pair: _block(file, name) for pair, name in names.items()},
                asked.rate,
                mask={
                    _pair(key, modules, "masks"): _mask(file, name, f"spec.masks.{key}")
                    for key, name in asked.masks.items()
                },
                fill=asked.fill,
                norm=asked.norm,
                seconds=context.limit(asked.seconds),
                progress=context.say,
            )
        except InputError as error:
            raise _named(error) from error
        certificate = found.result.certificate
        made = None
        if found.result.verdict == "contracting" and certificate is not None:
            blocks = self._tensors(names, file, found.blocks)
            made = file_with(found.system, certificate, file, blocks, WHOLE, projected_name(self.name))
        return _solved(found.to_json(), found.result.verdict, made)

    def _modules(self, limits: Limits) -> tuple[WeightFile, dict[str, System]]:
        file = limits.read(self.weights, self.name)
        modules = {key: self._module(limits, key, file) for key in self.specs}
        states = sum(system.size for system in modules.values())
        if states > limits.states:
            raise TooLargeError("spec.modules", f"{states} states in all", limits.states, "states")
        return file, modules

    def _module(self, limits: Limits, name: str, file: WeightFile) -> System:
        system = self.specs[name].system(file)
        if isinstance(system, GatedNetwork | UnsupportedCell):
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


def _block(file: WeightFile, name: str) -> Tensor:
    return file.get(name, "spec.interconnection").tensor()


def _mask(file: WeightFile, name: str, field: str) -> NDArray[np.bool_]:
    values = file.get(name, clip(field)).array()
    if values.dtype != np.bool_ and not bool(((values == 0) | (values == 1)).all()):
        raise InputError(clip(field), f"dtype {values.dtype}", "booleans, or numbers 0 and 1", "wrong-dtype")
    return values.astype(np.bool_)


def _solved(answer: dict[str, Any], verdict: str, made: CertifiedFile | None) -> Solved:
    """The answer in Python's names, with links to what was made."""
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


def _spent(reason: Spent, detail: str, empty: dict[str, Any]) -> Solved:
    """Nothing was found in the time or memory that there was."""
    found = result_json(Result("undecided", reason=reason, detail=detail)) | {"certificate": None}
    answer = {"verdict": "undecided", "rate": None, "unchanged": False, "distance_bound": None} | empty
    return Solved(answer | {"result": found, "weights": None})


#: Fields of errors that are entries of the spec under other names.
_ENTRIES = {"blocks": "interconnection", "mask": "masks", "system": "form"}
_SPEC = ("condition", "rate", "keep", "weighting", "seed", "starts", "seconds", "modules", "norm", "step")


def _named(error: InputError) -> InputError:
    """The same error with the field as the request named it."""
    first, dot, rest = error.field.partition(".")
    entry = _ENTRIES.get(first, first if first in _SPEC else None)
    if entry is None or isinstance(error, TooLargeError):
        return error
    return InputError(f"spec.{entry}{dot}{rest}", error.given, error.expected, error.slug)
