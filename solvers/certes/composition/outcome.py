"""What a composition is: the tree of verified interfaces, what each coupling costs, and the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from certes.assemblies import SEPARATOR, Assembly, FlowProof, InterfaceProof, MapProof, WholeProof
from certes.composition.interfaces import Offered
from certes.input_gate import InputGate
from certes.proofs import Verdict
from certes.results import Result
from certes.systems import System
from certes.verify.interface import Interface

#: ``auto``: interface; exact and whole as well while they are affordable. ``all``: monolithic too.
Mode = Literal["auto", "interface", "exact", "whole", "monolithic", "all"]


@dataclass(frozen=True, eq=False)
class Composed:
    """A module with a verified interface: a network, or an assembly of such.

    Attributes:
        module: the network or assembly.
        proof: what was verified.
        interface: what it offers.
        children: the modules of an assembly; empty for a network.
    """

    module: System | Assembly
    proof: InterfaceProof | FlowProof | MapProof
    interface: Interface
    children: Mapping[str, Composed] = field(default_factory=dict)

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Composed]]:
        """Path and node of every network below."""
        for name, child in self.children.items():
            path = prefix + name
            if child.children:
                yield from child.leaves(path + SEPARATOR)
            else:
                yield path, child


@dataclass(frozen=True)
class EdgeReport:
    """What a coupling costs.

    Attributes:
        to, source, inside: the coupling.
        strength: its norm in the metrics, head and tail scaled.
        slope: by how much the rate of the interface test falls per relative growth of the coupling (0 for maps).
        limiting: whether it is among those that cost most.
    """

    to: str
    source: str
    inside: bool
    strength: float
    slope: float
    limiting: bool


@dataclass(frozen=True, eq=False)
class Composition:
    """The answer of :func:`compose`.

    Attributes:
        verdict: ``contracting``; ``not_contracting`` if a witness against the whole was verified; else ``undecided``.
            Of a network with a gate a witness is against the map where the gate is open: smaller steps may contract.
        rate, factor: proven, whichever fits; of a network with a gate, where the gate is open.
        mode: the proof mode that gives it.
        modes: mode -> the number it proves (None: it proves nothing), side by side; ``feedback`` and ``hierarchy`` name
            what makes the interface test free of cost.
        lipschitz: of the whole, in its metric (continuous time).
        largest_step: (h, factor): every Euler step up to h contracts, at h with this factor; from rate and Lipschitz
            constant alone.
        whole_step: (h, factor) of the largest Euler step found that mode ``whole`` certifies, which is often much
            larger; verified, and certified by asking for it: ``step=h, mode="whole"``.
        assembly: modules and couplings.
        root: the tree of verified interfaces, None if a module or the interface test failed.
        whole: the proof of the whole as one system, if that mode was asked and holds.
        edges: what each coupling of the top level costs.
        module_levels: name -> rate or factor of each module of the top level.
        limiting: the module whose rate is the smallest (factor the largest).
        refutation: the answer about the whole as one system, if it is refuted.
        proved: paths of the networks whose interfaces were proven anew.
        recomposed: paths of the assemblies that were composed anew; ``""`` is the whole.
        reason, detail: the cause of an ``undecided``, in words what was proven otherwise.
        gate: of the network that is run, which is then not the assembly but that with a gate; None: there is none.
    """

    verdict: Verdict
    assembly: Assembly
    rate: float | None = None
    factor: float | None = None
    mode: str | None = None
    modes: Mapping[str, float | None] = field(default_factory=dict)
    lipschitz: float | None = None
    largest_step: tuple[float, float] | None = None
    whole_step: tuple[float, float] | None = None
    root: Composed | None = None
    whole: WholeProof | None = None
    edges: tuple[EdgeReport, ...] = ()
    module_levels: Mapping[str, float] = field(default_factory=dict)
    limiting: str | None = None
    refutation: Result | None = None
    proved: tuple[str, ...] = ()
    recomposed: tuple[str, ...] = ()
    reason: str | None = None
    detail: str = ""
    known: Mapping[str, Offered] = field(default_factory=dict, repr=False)
    nodes: Mapping[str, Composed] = field(default_factory=dict, repr=False)
    gate: InputGate | None = None

    @property
    def gated(self) -> dict[str, float | None] | None:
        """``least``, ``rate`` and ``factor`` of the network that is run; None: it has no gate, or nothing is proven."""
        if self.gate is None or self.verdict != "contracting":
            return None
        return self.gate.to_json(self.rate, self.factor)

    def what_if(
        self,
        *,
        without: Sequence[str] = (),
        scale: Mapping[tuple[str, str], float] | None = None,
        mode: Mode = "interface",
    ) -> Composition:
        """The same assembly changed, answered from the interfaces: no network is proven anew.

        Args:
            without: paths of modules that are removed, with their couplings.
            scale: ("to", "from") -> factor of the couplings between two modules of the top level (0: cut).
            mode: as :func:`compose`.

        Raises:
            InputError: an unknown module or coupling, or nothing is left.
        """
        from certes.composition.changes import changed
        from certes.composition.compose import compose

        found = compose(changed(self.assembly, without, scale or {}), mode=mode, known=self)
        return replace(found, gate=self.gate)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values under the Python names."""
        step, whole_step = self.largest_step, self.whole_step
        return {
            "verdict": self.verdict,
            "rate": self.rate,
            "factor": self.factor,
            "gate": self.gated,
            "mode": self.mode,
            "modes": dict(self.modes),
            "lipschitz": self.lipschitz,
            "largest_step": None if step is None else {"step": step[0], "factor": step[1]},
            "whole_step": None if whole_step is None else {"step": whole_step[0], "factor": whole_step[1]},
            "states": self.assembly.size,
            "modules": dict(self.module_levels),
            "limiting": self.limiting,
            "edges": [vars(edge) for edge in self.edges],
            "proved": list(self.proved),
            "recomposed": list(self.recomposed),
            "reason": self.reason,
            "detail": self.detail,
            "refutation": None if self.refutation is None else self.refutation.to_json(),
        }
