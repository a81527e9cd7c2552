"""An assembly in words: modules, couplings and step, in YAML or JSON, with the weights in safetensors files beside it.

    step: null                      # Euler step of the whole; null: as the modules are
    mode: auto                      # which proofs, see certes.composition.compose.Mode
    file: weights.safetensors       # where tensors are that name no file
    modules:
      v1: {form: rate, tensors: {W: v1.W}, activation: tanh}       # a network: the entries of a SystemSpec
      v2: {certificate: v2.certificate.json, weights: v2.safetensors}   # verified first; its network is used
      v3: {form: rate, tensors: {W: v3.W}, activation: tanh, metric: [1.0, 2.5]}   # where a proof is looked for first
      pfc: {assembly: pfc.yaml}                                    # another description
      hub: {modules: {...}, couplings: [...]}                      # one inline, to any depth
    couplings:
      - {to: v2, from: v1, tensor: L}                   # L as it stands in x' (maps: in the next state)
      - {to: v1, from: hub, tensor: C, inside: true}    # inside phi
      - feedback: {between: [v1, pfc], tensor: B}       # L_ij = B, L_ji = -M_j^-1 B^T M_i: free of cost
    topology: {kind: ring, seed: 0, scale: 0.5}         # drawn at random, for experiments, added to the couplings
    gate: {least: 0.1, weight: gate.weight, bias: gate.bias}    # scales the whole step, see certes.input_gate

Paths are relative to the file that names them and stay inside its folder. Nothing but safetensors, certificates and
descriptions is read. A ``metric`` (its diagonal, or its rows) is a hint and never trusted: what is proven in it is
verified as anything else, and where nothing comes of the hints, metrics are searched as if there were none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.assemblies import DEEPEST, SEPARATOR, Assembly, Coupling
from certes.cells import GatedNetwork
from certes.composition import plaintext
from certes.composition.compose import compose
from certes.composition.entries import (
    AssemblySpec,
    CertifiedSpec,
    CouplingSpec,
    FeedbackSpec,
    GateSpec,
    IncludedSpec,
    TopologySpec,
)
from certes.composition.interfaces import Offered
from certes.composition.outcome import Composition, Mode
from certes.composition.sources import Folder, Sources, bytes_of, moved
from certes.errors import InputError, TooLargeError
from certes.input_gate import InputGate
from certes.spec import SystemSpec
from certes.systems import System, Tensor, UnsupportedCell, tensor

Array = NDArray[np.float64]

#: Modules (networks and assemblies, each as often as it is used) and couplings of one description.
MAX_MODULES, MAX_COUPLINGS = 10_000, 200_000


@dataclass(frozen=True, eq=False)
class Described:
    """What a description says.

    Attributes:
        assembly: modules and couplings.
        mode: the proofs that it asks for.
        known: interfaces that were found on the way (for feedback), by the identity of their networks.
        proved: paths of those networks.
        metrics: path of a network -> a metric in which it is said to contract, shape (n, n): a hint.
        gate: that scales the step of the whole; None: there is none.
    """

    assembly: Assembly
    mode: Mode
    known: Mapping[str, Offered] = field(default_factory=dict, repr=False)
    proved: tuple[str, ...] = ()
    metrics: Mapping[str, Array] = field(default_factory=dict, repr=False)
    gate: InputGate | None = None

    def compose(self, *, mode: Mode | None = None, seconds: float | None = None, **options: Any) -> Composition:
        """:func:`certes.compose` of it; no network is proven twice. Hints that lead nowhere are dropped."""
        known = Composition("undecided", self.assembly, known=self.known) if self.known else None
        asked, begun = {**options, "mode": mode or self.mode, "known": known}, time.monotonic()
        found = None
        if self.metrics:
            found = compose(self.assembly, metrics=self.metrics, seconds=seconds, **{**asked, "refute": False})
        if found is None or (found.verdict == "undecided" and found.reason not in ("deadline", "cancelled")):
            left = None if seconds is None else max(seconds - (time.monotonic() - begun), 0.01)
            found = compose(self.assembly, seconds=left, **asked)
        return replace(found, proved=tuple(dict.fromkeys((*self.proved, *found.proved))), gate=self.gate)


def read(path: str | os.PathLike[str], **options: Any) -> Described:
    """Read a description from a file.

    Args:
        path: the file, YAML or JSON.
        options: ``seconds``, ``progress``, ``cancelled`` of :func:`certes.compose`, for the metrics that feedback
            needs.

    Raises:
        InputError: naming the entry (``assembly.modules.v1.file``), or the file.
    """
    target = Path(path)
    data = bytes_of(target, "assembly", target.name)
    return describe(plaintext.parse(data, "assembly"), Folder(target), "assembly", **options)


def describe(
    given: Mapping[str, Any],
    sources: Sources,
    where: str = "assembly",
    *,
    check: Callable[[System, str], None] | None = None,
    **options: Any,
) -> Described:
    """What a description says, once it is read.

    Args:
        given: plain values.
        sources: where its files come from.
        where: what it is called in errors.
        check: called with every network and its entry before anything is computed; raises what it objects to.
        options: as :func:`read`.

    Raises:
        InputError: naming the entry.
    """
    builder = _Builder(options, check)
    spec = AssemblySpec.parse(given, where)
    gate = None if spec.gate is None else _gate(spec, sources, f"{where}.gate")
    assembly = builder.assembly(spec, sources, where, ())
    proved = tuple(dict.fromkeys(builder.proved))
    return Described(assembly, spec.mode, builder.known, proved, builder.metrics, gate)


class _Builder:
    """Puts assemblies together, and counts what they come to."""

    def __init__(self, options: Mapping[str, Any], check: Callable[[System, str], None] | None = None) -> None:
        self.options = options
        self.check = check
        self.known: dict[str, Offered] = {}
        self.proved: list[str] = []
        self.metrics: dict[str, Array] = {}
        self.modules = self.couplings = 0

    def assembly(self, spec: AssemblySpec, sources: Sources, where: str, path: tuple[str, ...]) -> Assembly:
        """One level, and all below."""
        if path and spec.gate is not None:
            # one number for all states makes an average of two maps, several do not
            raise InputError(f"{where}.gate", "a gate of a module", "none: a gate is of the whole", "conflict")
        if len(path) >= DEEPEST:
            raise InputError(where, "assemblies nested too deeply", f"at most {DEEPEST} levels", "too-deep")
        self.modules += len(spec.modules)
        self.couplings += len(spec.couplings)
        if self.modules > MAX_MODULES:
            raise TooLargeError(where, f"more than {MAX_MODULES} modules", MAX_MODULES, "modules")
        if self.couplings > MAX_COUPLINGS:
            raise TooLargeError(where, f"more than {MAX_COUPLINGS} couplings", MAX_COUPLINGS, "couplings")
        modules: dict[str, System | Assembly] = {}
        for name, given in spec.modules.items():
            module = self._module(given, spec, sources, f"{where}.modules.{name[:80]}", (*path, name))
            if self.check is not None and not isinstance(module, Assembly):
                self.check(module, f"{where}.modules.{name[:80]}")
            modules[name] = module
        level = _Level(spec, sources, where, modules, lambda names: self._metrics(modules, names, where, path))
        couplings = level.couplings()
        try:
            return Assembly(modules, couplings, spec.step)
        except InputError as error:
            raise moved(error, f"{where}.{level.named(error.field)}") from error

    def _module(
        self, given: Mapping[str, Any], spec: AssemblySpec, sources: Sources, where: str, path: tuple[str, ...]
    ) -> System | Assembly:
        if "certificate" in given:
            pair = CertifiedSpec.parse(given, where)
            return sources.certified(pair.certificate, pair.weights or spec.file, where)
        if "assembly" in given:
            content, inner = sources.included(IncludedSpec.parse(given, where).assembly, where)
            return self.assembly(AssemblySpec.parse(content, where), inner, where, path)
        if "modules" in given:
            if "mode" in given:
                raise InputError(f"{where}.mode", "a mode of a module", "none: the outermost one counts", "conflict")
            nested = AssemblySpec.parse({"file": spec.file, **given}, where)
            return self.assembly(nested, sources, where, path)
        if "form" not in given:
            expected = "form (a network), certificate, assembly (a file) or modules"
            raise InputError(where, "a module without any of these", expected, "missing-value")
        return self._network(given, spec, sources, where, path)

    def _network(
        self, given: Mapping[str, Any], spec: AssemblySpec, sources: Sources, where: str, path: tuple[str, ...]
    ) -> System:
        entries = dict(given)
        hint = entries.pop("metric", None)
        name = entries.pop("file", spec.file)
        if name is not None and not isinstance(name, str):
            raise InputError(f"{where}.file", f"a {type(name).__name__}", "text", "wrong-type")
        system = SystemSpec.parse(entries, where)
        file = sources.weights(name, f"{where}.file")
        try:
            found = system.system(file)
        except InputError as error:
            raise moved(error, f"{where}.{error.field.removeprefix('spec.')}") from error
        if isinstance(found, GatedNetwork | UnsupportedCell):
            raise InputError(where, found.detail, "a network of one layer", "unsupported-cell")
        if hint is not None:
            self.metrics[SEPARATOR.join(path)] = _metric(hint, found.size, f"{where}.metric")
        return found

    def _metrics(
        self, modules: Mapping[str, System | Assembly], names: set[str], where: str, path: tuple[str, ...]
    ) -> dict[str, Any]:
        """The interfaces of some modules, for feedback."""
        wanted = {name: module for name, module in modules.items() if name in names}
        before = Composition("undecided", Assembly(wanted), known=self.known)
        prefix = "".join(name + SEPARATOR for name in path)
        hints = {name[len(prefix) :]: hint for name, hint in self.metrics.items() if name.startswith(prefix)}
        asked = {"mode": "interface", "refute": False, "known": before, **self.options}
        found = compose(Assembly(wanted), metrics=hints, **asked)
        self.known.update(found.known)
        self.proved += [SEPARATOR.join((*path, inner)) for inner in found.proved]
        if found.root is None:
            expected = "modules that are certified: feedback needs their metrics"
            raise InputError(f"{where}.couplings", f"{found.reason}: {found.detail}"[:400], expected, "not-certified")
        return {name: node.interface for name, node in found.root.children.items()}


@dataclass(frozen=True, eq=False)
class _Level:
    """The couplings of one level."""

    spec: AssemblySpec
    sources: Sources
    where: str
    modules: Mapping[str, System | Assembly]
    metrics: Callable[[set[str]], dict[str, Any]]

    def couplings(self) -> tuple[Coupling, ...]:
        """As they are, then from feedback, then from the topology."""
        found: list[Coupling] = []
        blocks: dict[tuple[str, str], Tensor] = {}
        for k, given in enumerate(self.spec.couplings):
            where = f"{self.where}.couplings.{k}"
            if "feedback" in given:
                if others := sorted(set(given) - {"feedback"}):
                    raise InputError(
                        f"{where}.{others[0]}", "an entry beside feedback", "no such entry", "unknown-field"
                    )
                asked = FeedbackSpec.parse(given["feedback"], f"{where}.feedback")
                to, source = asked.between
                self._known(where, to, source)
                if (to, source) in blocks or (source, to) in blocks:
                    raise InputError(where, "feedback between two modules twice", "one", "duplicate-key")
                blocks[to, source] = self._tensor(asked.tensor, asked.file, f"{where}.feedback")
                continue
            plain = CouplingSpec.parse(given, where)
            self._known(where, plain.to, plain.source)
            weights = self._tensor(plain.tensor, plain.file, where)
            found.append(Coupling(plain.to, plain.source, weights, plain.inside))
        drawn = {} if self.spec.topology is None else self._drawn(self.spec.topology)
        if self.spec.topology is not None and self.spec.topology.get("feedback"):
            blocks = {**drawn, **blocks}
            drawn = {}
        if blocks:
            found += self._feedback(blocks)
        return (*found, *(Coupling(to, source, weights) for (to, source), weights in drawn.items()))

    def named(self, name: str) -> str:
        """``couplings.TO.FROM`` as ``couplings.POSITION``, if it is one of those that were listed."""
        for k, given in enumerate(self.spec.couplings):
            if name == f"couplings.{given.get('to')}.{given.get('from')}":
                return f"couplings.{k}"
        return name

    def _known(self, where: str, to: str, source: str) -> None:
        for end in (to, source):
            if end not in self.modules:
                known = ", ".join(list(self.modules)[:20])
                raise InputError(where, f"an unknown module {end[:80]!r}", f"one of {known}", "unknown-module")
        if to == source:
            given, expected = "a coupling of a module to itself", "such weights inside the module"
            raise InputError(where, given, expected, "self-coupling")

    def _tensor(self, name: str, file: str | None, where: str) -> Tensor:
        weights = self.sources.weights(file or self.spec.file, f"{where}.file")
        try:
            return weights.matrix(name, "")
        except InputError as error:
            entry = f"{where}.tensor: {error.field}" if error.field else f"{where}.tensor"
            raise moved(error, entry) from error

    def _feedback(self, blocks: Mapping[tuple[str, str], Tensor]) -> list[Coupling]:
        from certes.composition.feedback import feedback, metrics_of

        names = {name for pair in blocks for name in pair}
        try:
            made = feedback(blocks, metrics_of(self.metrics(names)))
        except InputError as error:
            at_home = error.field.startswith(self.where)
            raise moved(error, error.field if at_home else f"{self.where}.{error.field}") from error
        return [
            Coupling(to, source, _given_or(blocks.get((to, source)), block, f"couplings.{to}.{source}"))
            for (to, source), block in made.items()
        ]

    def _drawn(self, given: Mapping[str, Any]) -> dict[tuple[str, str], Tensor]:
        from certes.composition import topologies

        where = f"{self.where}.topology"
        asked, names = TopologySpec.parse(given, where), list(self.modules)
        if (asked.kind == "hub") != (asked.hub is not None):
            raise InputError(f"{where}.hub", repr(asked.hub), "the hub's name, for kind hub", "missing-value")
        if (asked.kind == "random") != (asked.pairs is not None):
            raise InputError(f"{where}.pairs", repr(asked.pairs), "a number, for kind random", "missing-value")
        both = asked.feedback
        try:
            pairs = {
                "all-to-all": lambda: topologies.all_to_all(names),
                "ring": lambda: topologies.ring(names),
                "chain": lambda: topologies.chain(names),
                "hierarchy": lambda: topologies.hierarchy(names),
                "hub": lambda: topologies.hub(names, asked.hub or ""),
                "random": lambda: topologies.random_pairs(names, asked.pairs or 0, seed=asked.seed, both=both),
            }[asked.kind]()
            pairs = topologies.unordered(pairs) if both else pairs
            sizes = {name: module.size for name, module in self.modules.items()}
            made = topologies.blocks(pairs, sizes, seed=asked.seed, scale=asked.scale)
        except InputError as error:
            entry = {"centre": "hub", "count": "pairs"}.get(error.field, error.field)
            raise moved(error, f"{where}.{entry}") from error
        return {pair: tensor(f"couplings.{pair[0]}.{pair[1]}", block) for pair, block in made.items()}


def _given_or(given: Tensor | None, made: NDArray[Any], name: str) -> Tensor:
    """The given tensor under its own name where feedback left it as it is, else what was made."""
    if given is not None and isinstance(given.value, np.ndarray) and np.array_equal(given.value, made):
        return given
    return tensor(name, made)


def _metric(given: Any, size: int, where: str) -> Array:
    """A hint as a matrix: from its diagonal, or from its rows.

    Raises:
        InputError: it is none of so many states. Whether anything is proven in it is another matter.
    """
    expected = f"{size} numbers, or {size} rows of them"
    try:
        found = np.array(given, dtype=np.float64) if isinstance(given, list | tuple) else np.zeros(())
    except (TypeError, ValueError, OverflowError):
        raise InputError(where, "something else", expected, "wrong-type") from None
    if found.shape not in ((size,), (size, size)) or _texts(given):
        raise InputError(where, f"shape {found.shape}", expected, "wrong-shape")
    if not np.isfinite(found).all():
        raise InputError(where, "a number that is not finite", expected, "not-finite")
    return np.diag(found) if found.ndim == 1 else found


def _gate(spec: AssemblySpec, sources: Sources, where: str) -> InputGate:
    """The gate, whose tensors have to be there.

    Raises:
        InputError: naming the entry.
    """
    asked = GateSpec.parse(spec.gate, where)
    file = sources.weights(spec.file, f"{where}.file")
    shapes = []
    for role, name in (("weight", asked.weight), ("bias", asked.bias)):
        try:
            shapes.append(file.get(name).floats().shape)
        except InputError as error:
            raise moved(error, f"{where}.{role}") from error
    weight, bias = shapes
    for role, shape, fits in (
        ("weight", weight, len(weight) == 2 and weight[0] == 1 and weight[1] > 0), ("bias", bias, bias == (1,))
    ):  # fmt: skip
        if not fits:
            expected = "shape (1, inputs)" if role == "weight" else "shape (1,)"
            raise InputError(f"{where}.{role}", f"shape {shape}", expected, "wrong-shape")
    return InputGate(asked.least)


def _texts(given: Any) -> bool:
    """Whether there is anything but numbers in it: numpy reads texts and truth values as numbers."""
    if isinstance(given, list | tuple):
        return any(map(_texts, given))
    return isinstance(given, bool) or not isinstance(given, int | float)


def with_step(described: Described, step: float | None) -> Described:
    """The same assembly run with another Euler step (None: in continuous time).

    Raises:
        InputError: the modules are maps.
    """
    assembly = described.assembly
    return replace(described, assembly=Assembly(assembly.modules, assembly.couplings, step))
