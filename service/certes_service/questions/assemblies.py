"""Assemblies: networks of networks, composed from their modules and certified as a graph of certificates."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from certes import strictjson
from certes.assemblies import SEPARATOR, Assembly
from certes.certificate.assembly import couplings_file
from certes.certificate.document import Certificate
from certes.composition.certificates import certified
from certes.composition.description import describe
from certes.composition.entries import AssemblySpec
from certes.composition.outcome import Composition
from certes.composition.sources import Sources, system_of
from certes.errors import InputError, TooLargeError
from certes.systems import System
from certes.weights import WeightFile, pack, read_weights

from certes_service.questions.base import Context, Limits, Plain, Solved, Spent, clip, finite, result_json
from certes_service.schema_assembly import AssemblyOptions
from certes_service.storage.errors import is_digest

if TYPE_CHECKING:
    from certes_service.settings import Settings

#: Modes that never form a matrix of all states of a large assembly, and how much larger it may be for them.
_SPARSE, _LARGER = ("auto", "interface", "all"), 16


def question(given: dict[str, Any], weights: bytes, name: str) -> AssemblyQuestion:
    """A request's spec as a question.

    Raises:
        InputError: naming the entry.
    """
    strictjson.canonical(given, "spec")
    options = AssemblyOptions.parse({key: value for key, value in given.items() if key in AssemblyOptions.model_fields})
    described = {key: value for key, value in given.items() if key not in AssemblyOptions.model_fields}
    AssemblySpec.parse(described, "spec")
    return AssemblyQuestion(described, options, weights, name)


@dataclass(frozen=True)
class AssemblyQuestion(Plain):
    """One assembly to compose.

    Attributes:
        spec: its description (:mod:`certes.composition.description`), without files.
        options: what is asked about it.
        weights: bytes of a safetensors file with every tensor.
        name: the file's name.
    """

    kind: ClassVar[str] = "assembly"

    spec: dict[str, Any]
    options: AssemblyOptions
    weights: bytes
    name: str

    @classmethod
    def rebuild(cls, parts: Mapping[str, Any], weights: bytes, name: str) -> Self:
        """From :meth:`parts`."""
        return cls(json.loads(parts["spec"]), AssemblyOptions.parse(parts["options"]), weights, name)

    def parts(self) -> dict[str, Any]:
        """Spec, as text: the order of the modules is that of the states; and options."""
        return {"spec": json.dumps(self.spec), "options": self.options.model_dump(mode="json")}

    def needs(self) -> set[str]:
        """The certificates that stand for modules."""
        return set(_certificates(self.spec.get("modules")))

    def check(self, settings: Settings) -> None:
        """Read the weight file; the modules are read where they are composed."""
        Limits.of(settings).read(self.weights, self.name)

    def undecided(self, reason: Spent, detail: str) -> Solved:
        """The answer if the solver was ended."""
        empty = ("rate", "factor", "mode", "lipschitz", "largest_step", "whole_step", "limiting", "refutation", "gate")
        answer: dict[str, Any] = {"verdict": "undecided", "states": 0}  # nobody counted them
        answer |= dict.fromkeys(empty) | {"modes": {}, "modules": {}, "edges": [], "proved": [], "recomposed": []}
        return Solved(answer | {"reason": reason, "detail": detail, "couplings": None})

    def solve(self, context: Context) -> Solved:
        """Compose, and certify every module and every step."""
        file, limit = context.limits.read(self.weights, self.name), context.limit(self.options.seconds)
        start, sizes = time.monotonic(), _Sizes(context.limits.states, str(self.spec.get("mode", "auto")))
        described = describe(
            self.spec, _Stored(context, file), "spec", check=sizes, seconds=limit, progress=context.say
        )
        try:
            left = max(limit - (time.monotonic() - start), 0.01)
            found = described.compose(seconds=left, progress=context.say)
        except InputError as error:
            raise InputError(f"spec.{error.field}", error.given, error.expected, error.slug) from error
        answer = _answer(found)
        if found.verdict != "contracting":
            return Solved(answer | {"couplings": None})
        made = certified(found)
        couplings, states = _couplings(found.assembly), found.assembly.size
        return Solved(answer, made.documents, made.proofs, made.root, couplings, True, states)


class _Sizes:
    """Objects to networks, and to assemblies, that are too large; before anything is computed."""

    def __init__(self, states: int, mode: str) -> None:
        self.states, self.total = states, 0
        self.most = states * (_LARGER if mode in _SPARSE else 1)

    def __call__(self, system: System, where: str) -> None:
        self.total += system.size
        widest = max(max(entry.value.shape) for entry in system.tensors.values())
        if widest > self.states:
            raise TooLargeError(clip(where), f"{widest} states", self.states, "states")
        if self.total > self.most:
            raise TooLargeError("spec.modules", f"more than {self.most} states in all", self.most, "states")


class _Stored:
    """Tensors from the one weight file of the request; certificates from the store.

    Args:
        context: with the certificates.
        file: the weights.
    """

    def __init__(self, context: Context, file: WeightFile) -> None:
        self.context, self.file = context, file

    def weights(self, name: str | None, where: str) -> WeightFile:
        """The file of the request."""
        if name is not None:
            raise InputError(clip(where), clip(repr(name)), "no such entry: every tensor is in weights", "conflict")
        return self.file

    def certified(self, certificate: str, weights: str | None, where: str) -> System:
        """The network of a stored certificate; its weights are those that are kept, or else those of the request."""
        if weights is not None:
            expected = "no such entry: weights that are kept, or those of the request"
            raise InputError(f"{clip(where)}.weights", clip(repr(weights)), expected, "conflict")
        stored = self.context.stored(certificate)
        field, expected = f"{clip(where)}.certificate", "the digest of a network's certificate that was issued here"
        if stored is None:
            raise InputError(field, clip(repr(certificate), 80), expected, "unknown-digest")
        try:
            found = Certificate.from_parts(stored.envelope, stored.proof)
        except InputError as error:  # of an assembly: its modules are to be named
            raise InputError(
                field, f"another kind of certificate ({error.slug})", expected, "unknown-digest"
            ) from error
        kept = None if stored.weights is None else self.context.limits.read(stored.weights, None)
        return system_of(found, self.file if kept is None else kept, clip(where))

    def included(self, name: str, where: str) -> tuple[dict[str, Any], Sources]:
        """None: nothing is read from files."""
        raise InputError(f"{clip(where)}.assembly", clip(repr(name)), "its modules inline: 'modules'", "conflict")


def _certificates(modules: Any) -> Iterator[str]:
    """Digests that stand for modules, at any depth."""
    for module in modules.values() if isinstance(modules, dict) else ():
        if isinstance(module, dict):
            if isinstance(digest := module.get("certificate"), str) and is_digest(digest):
                yield digest
            yield from _certificates(module.get("modules"))


def _answer(found: Composition) -> dict[str, Any]:
    answer = finite(found.to_json())
    answer["refutation"] = None if found.refutation is None else finite(result_json(found.refutation))
    return dict(answer)


def _couplings(assembly: Assembly) -> bytes | None:
    """The tensors of every coupling of every level, named by path; None if there is none."""
    found = dict(_tensors(assembly, ""))
    return pack(found) if found else None


def _tensors(assembly: Assembly, prefix: str) -> Iterator[tuple[str, tuple[str, list[int], bytes]]]:
    if assembly.couplings:
        for name, entry in read_weights(couplings_file(assembly)).tensors.items():
            yield prefix + name, (entry.dtype, list(entry.shape), entry.raw())
    for name, module in assembly.modules.items():
        if isinstance(module, Assembly):
            yield from _tensors(module, f"{prefix}{name}{SEPARATOR}")
