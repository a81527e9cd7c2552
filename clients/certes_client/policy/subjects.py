"""What a model of a policy is: a network, an assembly, or the layers of one file, each with its certificate.

A subject knows what is asked of it, whether a certificate holds for it, and how to find one. Nothing that is kept is
believed: :meth:`Subject.holds` verifies a certificate against the weights and the description at hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from certes import formats, strictjson
from certes._version import __version__
from certes.assemblies import Assembly
from certes.cells import GatedNetwork
from certes.certificate.assembly import ASSEMBLY_SUFFIX, AssemblyBundle
from certes.certificate.assembly_check import verify_assembly
from certes.certificate.check import verify_certificate
from certes.certificate.document import Certificate
from certes.certify import certify, check
from certes.errors import InputError
from certes.input_gate import InputGate
from certes.results import Result
from certes.systems import System, UnsupportedCell
from certes.weights import WeightFile

from certes_client.policy.document import ModelPolicy
from certes_client.policy.store import Document, question

if TYPE_CHECKING:
    from certes.composition.description import Described

#: Certificates beside a description that are tried.
_MOST = 20


@dataclass(frozen=True)
class Undecided:
    """There is no certificate: why."""

    reason: str | None
    detail: str


class Subject(Protocol):
    """One thing with one certificate. ``part`` names it where a model consists of several; else it is empty."""

    part: str

    @property
    def step(self) -> float | None:
        """The Euler step that is run, if there is one."""
        ...

    @property
    def gate(self) -> InputGate | None:
        """A gate that scales the step, if there is one: a certificate speaks of the network where it is open."""
        ...

    def question(self, model: ModelPolicy) -> str:
        """Digest of what is asked: the network, its weights, and how the answer is looked for."""
        ...

    def holds(self, document: Document, key: bytes | None = None) -> bool:
        """Whether a certificate is true of this, and signed by ``key`` if one is given; verified now."""
        ...

    def answer(
        self, model: ModelPolicy, enough: Callable[[Document], bool], progress: Callable[[str], None]
    ) -> Document | Undecided:
        """A certificate, which is looked for; ``enough`` says whether one that is there already will do."""
        ...


@dataclass(frozen=True, eq=False)
class Network:
    """A network, or a gated cell.

    Attributes:
        system: it.
        search: finds what :func:`certes.certify` would of what the policy asks, elsewhere; None: it is done here.
        part: see :class:`Subject`.
    """

    system: System | GatedNetwork
    search: Callable[[ModelPolicy, Callable[[str], None]], Result] | None = None
    part: str = ""
    gate: InputGate | None = None

    @property
    def step(self) -> float | None:
        """See :class:`Subject`."""
        return self.system.step

    def question(self, model: ModelPolicy) -> str:
        """See :class:`Subject`."""
        return question(model, self.system)

    def holds(self, document: Document, key: bytes | None = None) -> bool:
        """See :class:`Subject`."""
        return isinstance(document, Certificate) and verify_certificate(document, self.system, key=key).valid

    def answer(
        self, model: ModelPolicy, enough: Callable[[Document], bool], progress: Callable[[str], None]
    ) -> Document | Undecided:
        """See :class:`Subject`."""
        if self.search is None:
            result = certify(self.system, model.condition, model.asked, seconds=model.seconds)
        else:
            result = self.search(model, progress)
        return Undecided(result.reason, result.detail) if result.certificate is None else result.certificate


@dataclass(frozen=True, eq=False)
class Composed:
    """An assembly.

    Attributes:
        assembly: modules and couplings.
        compose: finds a composition; called with the time limit and the progress.
        mode: the proofs that are asked for.
        beside: a folder whose certificates are tried before any is looked for; None: none.
        part, gate: see :class:`Subject`.
    """

    assembly: Assembly
    compose: Callable[..., Any]
    mode: str
    beside: Path | None = None
    part: str = ""
    gate: InputGate | None = None

    @property
    def step(self) -> float | None:
        """See :class:`Subject`."""
        return self.assembly.step

    def question(self, model: ModelPolicy) -> str:
        """See :class:`Subject`."""
        content = {
            "certes": __version__, "assembly": _content(self.assembly), "mode": self.mode, "proof": _proof(model)
        }  # fmt: skip
        return hashlib.sha256(strictjson.canonical(content, "question")).hexdigest()

    def holds(self, document: Document, key: bytes | None = None) -> bool:
        """See :class:`Subject`.

        A refutation is about the whole as one network with rounded numbers: it may say no, and never yes.
        """
        if isinstance(document, AssemblyBundle):
            return verify_assembly(document, self.assembly, key=key).valid
        from certes.composition.whole import flattened

        report = verify_certificate(document, flattened(self.assembly), key=key)
        return report.valid and report.verdict == "not_contracting"

    def answer(
        self, model: ModelPolicy, enough: Callable[[Document], bool], progress: Callable[[str], None]
    ) -> Document | Undecided:
        """See :class:`Subject`."""
        there: AssemblyBundle | None = None
        for bundle in self._beside():
            if self.holds(bundle):
                if enough(bundle):
                    return bundle
                there = there or bundle
        from certes.composition.certificates import certified

        found = self.compose(seconds=model.seconds, progress=progress)
        if found.verdict == "contracting":
            by_interfaces = _proof(model) == "interface" and found.root is not None
            return certified(found, proof="interface" if by_interfaces else "best")
        if there is not None:
            return there
        if found.refutation is not None and found.refutation.certificate is not None:
            refuted: Certificate = found.refutation.certificate
            return refuted
        return Undecided(found.reason, found.detail)

    def _beside(self) -> Iterator[AssemblyBundle]:
        """What a training, or ``certes compose --out``, has left beside the description."""
        paths = [] if self.beside is None else sorted(self.beside.glob(f"*{ASSEMBLY_SUFFIX}"))
        for path in paths[:_MOST]:
            try:
                yield AssemblyBundle.read(path)
            except InputError:
                continue


def subjects(model: ModelPolicy, path: Path, server: str | None = None) -> list[Any]:
    """What a model consists of.

    Args:
        model: of the policy.
        path: of its weights, or of the description of its assembly.
        server: address of a service that looks for certificates; None: that is done here.

    Returns:
        One or several of :class:`Subject`, or one :class:`Undecided` for a cell that is not covered.

    Raises:
        InputError: naming what cannot be read.
    """
    if model.system is None:
        return [_described(path, server)]
    from certes.composition import torch_layers

    weights = formats.read(path)
    system = model.system.system(weights)
    if not isinstance(system, UnsupportedCell):
        return [Network(system, None if server is None else _asking(server, path, weights, system))]
    if system.cell not in torch_layers.CELLS:
        return [Undecided("unsupported_cell", system.detail)]
    if model.condition != "auto" or model.rate is not None:
        field = "condition" if model.condition != "auto" else "rate"
        raise InputError(field, f"{getattr(model, field)}", "none: the layers of a network are composed", "conflict")
    if model.weight_radius_at_least is not None:
        expected = (
            "none: layers are composed, and the certificate of an assembly claims no radius; demand it of each layer "
            'as a model of its own (form = "rate", tensors = { W = "…weight_hh_l0" }, step = 1.0, condition = "lure")'
        )
        raise InputError("weight_radius_at_least", f"{model.weight_radius_at_least}", expected, "conflict")
    from certes.composition.description import Described

    parts = torch_layers.of_spec(model.system, weights)
    return [
        Composed(assembly, _composing(Described(assembly, "auto"), server), "auto", part=name if len(parts) > 1 else "")
        for name, assembly in parts
    ]


def _described(path: Path, server: str | None) -> Composed:
    from certes.composition.description import read

    described = read(path)
    return Composed(described.assembly, _composing(described, server), described.mode, path.parent, gate=described.gate)


def _composing(described: Described, server: str | None) -> Callable[..., Any]:
    """Composes an assembly; with a server, from the proofs that it has of the modules, each verified here."""
    if server is None:
        return described.compose

    def compose(*, seconds: float | None, progress: Callable[[str], None]) -> Any:
        from certes_client.remote.composing import composed

        proven = composed(server, described, None, seconds, progress)
        return proven.compose(seconds=seconds, progress=progress)

    return compose


def _asking(
    server: str, path: Path, weights: WeightFile, system: System | GatedNetwork
) -> Callable[[ModelPolicy, Callable[[str], None]], Result]:
    """Lets a service certify; what it answers is verified here."""

    def search(model: ModelPolicy, progress: Callable[[str], None]) -> Result:
        from certes_client.remote.certifying import Asked

        assert model.system is not None
        check(system, model.condition, model.asked, seconds=model.seconds)
        asked = Asked(path, model.system, weights, model.condition, model.asked, model.seconds)
        return asked.answer(server, system, progress)

    return search


def _proof(model: ModelPolicy) -> str:
    """Only the proof by the interfaces gives a largest step."""
    return "best" if model.step_margin_at_least is None else "interface"


def _content(assembly: Assembly) -> dict[str, Any]:
    """Everything that an assembly is, as JSON."""
    from certes.composition.interfaces import identity

    modules = [
        [name, _content(module) if isinstance(module, Assembly) else identity(module)]
        for name, module in assembly.modules.items()
    ]
    couplings = [
        [edge.to, edge.source, edge.inside, [[s.dtype, list(s.shape), s.sha256] for s in edge.weights.subjects]]
        for edge in assembly.couplings
    ]
    return {"modules": modules, "couplings": couplings, "step": assembly.step}
