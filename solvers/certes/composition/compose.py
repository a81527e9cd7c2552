"""``compose``: certified modules become a certified assembly, which is a module again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from certes import formats
from certes.assemblies import SEPARATOR, Assembly, Coupling, FlowProof, InterfaceProof, WholeProof
from certes.certificate.document import Certificate
from certes.composition import flows, maps, whole
from certes.composition.edges import Edge, whitened
from certes.composition.interfaces import Offered, Refused, identity, offer, offer_in
from certes.composition.outcome import Composed, Composition, EdgeReport, Mode
from certes.composition.sources import system_of
from certes.engines.monitor import Monitor, time_limit
from certes.engines.threads import one_blas_thread
from certes.errors import InputError
from certes.results import Result
from certes.systems import System, tensor
from certes.verify.composition import euler_factor_squared
from certes.weights import WeightFile

Array = NDArray[np.float64]

#: Modes whose numbers differ by less than this, relative, count as equal; the one with the simpler proof is taken.
_EQUAL = 1e-4
#: States up to which ``auto`` looks at the exact test, at the whole, and ``all`` at the monolithic one.
EXACT, WHOLE, MONOLITHIC = 600, 150, 600
#: States up to which ``auto`` searches the largest step of the whole.
STEPPED = 60
#: Modules from which interfaces are taken from the Perron scaling.
MANY = 50
#: The largest step is claimed this much (relative) below its supremum.
_STEP_ROOM = 1e-3


@dataclass(frozen=True, eq=False)
class Inside:
    """A coupling that enters the argument of phi; the value of a mapping given to :func:`compose`."""

    weights: Any


@one_blas_thread()
def compose(
    modules: Assembly | Mapping[str, Any],
    interconnection: Mapping[tuple[str, str], Any] | Sequence[Coupling] = (),
    *,
    step: float | None = None,
    mode: Mode = "auto",
    refute: bool = True,
    known: Composition | None = None,
    metrics: Mapping[str, Array] | None = None,
    seconds: float | None = None,
    progress: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Composition:
    """Certify an assembly from certificates of its modules.

    Args:
        modules: name -> network, assembly, composition, or a pair (certificate, weight file) of a network, the
            certificate of which is verified first; or a ready :class:`certes.assemblies.Assembly`.
        interconnection: ("to", "from") -> L, shape (n_to, n_from), as it stands in x' (maps: in the next state), or
            ``Inside(C)`` for a coupling inside phi; or couplings as they are.
        step: Euler step of the whole, for modules in continuous time.
        mode: which proofs are tried, see :data:`Mode`; the best number wins, all are reported.
        refute: whether to look for a witness against the whole where nothing is proven.
        known: an earlier composition whose networks need not be proven anew.
        metrics: path of a network -> a metric in which it is known to contract, shape (n, n): tried before any is
            searched. Couplings that were made skew in it need it.
        seconds: time limit; None: no limit, and the answer is deterministic.
        progress: called with a short line of text now and then.
        cancelled: asked now and then whether to stop.

    Raises:
        InputError: naming the module or the coupling, or ``mode`` or ``seconds``.
    """
    if mode not in get_args(Mode):
        raise InputError("mode", repr(mode), f"one of {', '.join(get_args(Mode))}", "unknown-value")
    assembly = modules if isinstance(modules, Assembly) else build(modules, interconnection, step)
    monitor = Monitor(time_limit(seconds), cancelled, progress)
    return _Search(assembly, mode, refute, known, metrics or {}, monitor).run()


def build(
    modules: Mapping[str, Any], interconnection: Mapping[tuple[str, str], Any] | Sequence[Coupling], step: float | None
) -> Assembly:
    """The assembly of modules and couplings as :func:`compose` takes them.

    Raises:
        InputError: naming the module or the coupling.
    """
    if not isinstance(modules, Mapping):
        raise InputError("modules", f"a {type(modules).__name__}", "a mapping {name: module}", "wrong-type")
    found: dict[str, System | Assembly] = {}
    for name, module in modules.items():
        inner = module.assembly if isinstance(module, Composition) else module
        if isinstance(module, tuple) and len(module) == 2:
            inner = _certified(f"modules.{name}", *module)
        if not isinstance(inner, System | Assembly):
            given = f"a {type(module).__name__}"
            expected = "a network, an assembly, a composition, or (certificate, weight file)"
            raise InputError(f"modules.{name}", given, expected, "wrong-type")
        found[name] = inner
    if isinstance(interconnection, Mapping):
        couplings = tuple(_coupling(pair, value) for pair, value in interconnection.items())
    else:
        couplings = tuple(interconnection)
    return Assembly(found, couplings, step)


def _certified(field: str, certificate: Any, weights: Any) -> System:
    """The network of a certificate, which is verified against a weight file.

    Raises:
        InputError: unreadable, or a certificate that does not hold or says something else than contracting.
    """
    document = certificate if isinstance(certificate, Certificate) else Certificate.read(certificate)
    return system_of(document, weights if isinstance(weights, WeightFile) else formats.read(weights), field)


def _coupling(pair: object, value: Any) -> Coupling:
    if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(name, str) for name in pair)):
        raise InputError("couplings", f"the key {pair!r}", "pairs of names ('to', 'from')", "wrong-type")
    inside = isinstance(value, Inside)
    weights = tensor(f"couplings.{pair[0]}.{pair[1]}", value.weights if inside else value)
    return Coupling(pair[0], pair[1], weights, inside)


class _Search:
    """One composition on its way."""

    def __init__(
        self,
        assembly: Assembly,
        mode: Mode,
        refute: bool,
        known: Composition | None,
        metrics: Mapping[str, Array],
        monitor: Monitor,
    ) -> None:
        self.assembly, self.mode, self.refuting, self.monitor = assembly, mode, refute, monitor
        self.metrics = metrics
        self.known: dict[str, Offered] = {} if known is None else dict(known.known)
        self.nodes: dict[str, Composed] = {} if known is None else dict(known.nodes)
        self.proved: list[str] = []
        self.recomposed: list[str] = []
        self.quick = sum(1 for _ in assembly.leaves()) > MANY
        self.modes: dict[str, float | None] = {}
        self.exact: FlowProof | None = None
        self.edges: list[Edge] = []
        self.slopes: Array | None = None
        self.whole_step: tuple[float, float] | None = None

    def run(self) -> Composition:
        children = self._children(self.assembly, "")
        if isinstance(children, Refused):
            return self._undecided(children.reason, children.detail, {})
        root = self._node(self.assembly, children, top=True)
        self.recomposed.append("")
        best = self._modes(root, children)
        if best is None:
            return self._undecided("margin", "the modules are certified, their interconnection is not", children)
        return self._contracting(root, children, *best)

    def _children(self, assembly: Assembly, prefix: str) -> dict[str, Composed] | Refused:
        """Every module with its interface; the first that fails is named by its path."""
        found: dict[str, Composed] = {}
        for name, module in assembly.modules.items():
            path = prefix + name
            if isinstance(module, Assembly):
                inner = self._children(module, path + SEPARATOR)
                if isinstance(inner, Refused):
                    return inner
                node = self._inner(path, module, inner)
                if node is None:
                    return Refused("margin", f"{path}: its modules are certified, their interconnection is not")
                found[name] = node
                continue
            offered = self._offer(path, module)
            if isinstance(offered, Refused):
                return Refused(offered.reason, f"{path}: {offered.detail}")
            found[name] = Composed(module, offered.proof, offered.interface)
        return found

    def _offer(self, path: str, system: System) -> Offered | Refused:
        """The interface of a network, each network once; in each metric that is given for it once."""
        key, given = identity(system), self.metrics.get(path)
        hinted = None if given is None else f"{key} {hashlib.sha256(given.tobytes()).hexdigest()}"
        if hinted is not None and given is not None and hinted not in self.known:
            self.monitor.say(f"{path}: proving its interface")
            if (offered := offer_in(system, given)) is not None:
                self.known[hinted] = offered
                self.known.setdefault(key, offered)
                self.proved.append(path)
        if hinted in self.known:
            return self.known[hinted]
        if key not in self.known:
            self.monitor.say(f"{path}: proving its interface")
            found = offer(system, quick=self.quick, monitor=self.monitor)
            if isinstance(found, Refused):
                return found
            self.known[key] = found
            self.proved.append(path)
        return self.known[key]

    def _inner(self, path: str, assembly: Assembly, children: Mapping[str, Composed]) -> Composed | None:
        """An assembly inside, each once: its key is everything that its proof depends on."""
        key = _key(assembly, children)
        if key not in self.nodes:
            node = self._node(assembly, children, top=False)
            if node is None:
                return None
            self.nodes[key] = node
            self.recomposed.append(path)
        return self.nodes[key]

    def _node(self, assembly: Assembly, children: Mapping[str, Composed], *, top: bool) -> Composed | None:
        """The interface test of one assembly."""
        interfaces = [child.interface for child in children.values()]
        self.monitor.say(f"composing {len(interfaces)} modules")
        edges = whitened(assembly, interfaces)
        if top:
            self.edges = edges
        if not interfaces[0].continuous:
            found = maps.prove(assembly, interfaces, edges, modest=not top)
            return None if found is None else Composed(assembly, found.proof, found.interface, children)
        flow = flows.prove(assembly, interfaces, edges, exact=False, modest=not top)
        if flow is None and not top and assembly.size <= EXACT:
            flow = flows.prove(assembly, interfaces, edges, exact=True, modest=True)
        if flow is None:
            return None
        if top:
            self.slopes = flow.edge_slopes
        return Composed(assembly, flow.proof, flow.interface, children)

    def _modes(self, root: Composed | None, children: Mapping[str, Composed]) -> tuple[str, float, Any] | None:
        """Every mode that is asked for; the best of them with its proof."""
        found: list[tuple[str, float, Any]] = []
        level = None if root is None else root.interface.level
        self.modes["interface"] = level
        if root is not None and level is not None:
            found.append(("interface", level, None))
            self._structure(level, children)
        for name, run in self._others(root, children):
            self.monitor.say(f"mode {name}")
            proof = run()
            self.modes[name] = None if proof is None else proof[0]
            if proof is not None:
                found.append((name, *proof))
        if not found:
            return None
        best = (max if self.assembly.continuous else min)(level for _, level, _ in found)
        slack = _EQUAL * (best if self.assembly.continuous else 1.0 - best)
        return next(entry for entry in found if abs(entry[1] - best) <= slack)

    def _structure(self, level: float, children: Mapping[str, Composed]) -> None:
        """Name what makes the interface test free of cost."""
        if not self.assembly.continuous or not self.edges:
            return
        slowest = min(child.interface.level for child in children.values())
        heads = {(edge.head, edge.tail) for edge in self.edges}
        if level >= slowest * (1.0 - 1e-3):
            both = all((tail, head) in heads for head, tail in heads)
            self.modes["feedback" if both else "hierarchy"] = level

    def _others(
        self, root: Composed | None, children: Mapping[str, Composed]
    ) -> Iterator[tuple[str, Callable[[], tuple[float, Any] | None]]]:
        size, mode = self.assembly.size, self.mode
        every, flow = mode == "all", self.assembly.continuous or self.assembly.step is not None
        inside = any(edge.inside for edge in self.assembly.couplings)
        if flow and not inside and (mode == "exact" or (size <= EXACT and (every or mode == "auto"))):
            yield "exact", lambda: self._exact(children)
        if mode == "whole" or (size <= WHOLE and (every or mode == "auto")):
            yield "whole", lambda: self._whole(root, children)
        if mode == "monolithic" or (every and size <= MONOLITHIC):
            yield "monolithic", self._monolithic

    def _exact(self, children: Mapping[str, Composed]) -> tuple[float, Any] | None:
        flow = flows.prove(self.assembly, [child.interface for child in children.values()], self.edges, exact=True)
        return (
            None
            if flow is None
            else (flow.interface.level, Composed(self.assembly, flow.proof, flow.interface, children))
        )

    def _whole(self, root: Composed | None, children: Mapping[str, Composed]) -> tuple[float, Any] | None:
        best: WholeProof | None = None
        better = float.__gt__ if self.assembly.continuous else float.__lt__
        for metric, q in self._metrics(root, children):
            found = whole.prove(self.assembly, metric, q)
            if found is not None and (best is None or better(found.proof.level, best.level)):
                best = found.proof
            every = self.mode in ("whole", "all")
            if self.assembly.continuous and (self.assembly.size <= STEPPED or (every and self.assembly.size <= WHOLE)):
                stepped = whole.largest_step(self.assembly, metric, q)
                self.whole_step = None if stepped is None else (stepped[0], stepped[1].proof.level)
        return None if best is None else (best.level, best)

    def _metrics(self, root: Composed | None, children: Mapping[str, Composed]) -> Iterator[tuple[Array, Array]]:
        """Block metrics with the multipliers of the networks, scaled as the interface test found best.

        For an Euler map also those that are best in continuous time.
        """
        own = [block for child in children.values() for block in child.interface.blocks]
        candidates = [own if root is None else list(root.interface.blocks)]
        if self.assembly.step is not None:
            flow = flows.prove(
                Assembly(self.assembly.modules, self.assembly.couplings),
                [child.interface for child in children.values()],
                self.edges,
                exact=False,
            )
            candidates += [] if flow is None else [list(flow.interface.blocks)]
        leaves = [leaf for child in children.values() for leaf in _leaves_of(child)]
        for blocks in candidates:
            multipliers = []
            for leaf, block in zip(leaves, blocks, strict=True):
                assert isinstance(leaf.proof, InterfaceProof)
                ratio = float(block.mid[0, 0] / leaf.proof.metric[0, 0])
                multipliers.append(leaf.proof.multipliers * ratio)
            q = np.concatenate(multipliers)
            metric = whole.block_metric([block.mid for block in blocks])
            yield metric, q if self.assembly.step is None else q * self.assembly.step

    def _monolithic(self) -> tuple[float, Any] | None:
        found = whole.monolithic(self.assembly, self.monitor)
        return None if found is None else (found.proof.level, found.proof)

    def _contracting(
        self, root: Composed | None, children: Mapping[str, Composed], mode: str, level: float, proof: Any
    ) -> Composition:
        continuous = self.assembly.continuous
        if isinstance(proof, Composed):  # the exact test: a node of its own
            root = proof
        lipschitz = None if root is None or not continuous else root.interface.lipschitz
        step = None
        if root is not None and continuous and isinstance(root.proof, FlowProof) and lipschitz is not None:
            step = largest_step(root.proof.level, lipschitz)
        unit = "rate" if continuous else "factor"
        numbers = ", ".join(f"{name} {value:.6g}" for name, value in self.modes.items() if value is not None)
        return Composition(
            "contracting",
            self.assembly,
            rate=level if continuous else None,
            factor=None if continuous else level,
            mode=mode,
            modes=self.modes,
            lipschitz=lipschitz,
            largest_step=step,
            whole_step=self.whole_step,
            root=root,
            whole=proof if isinstance(proof, WholeProof) else None,
            edges=self._edges(),
            module_levels={name: child.interface.level for name, child in children.items()},
            limiting=self._limiting(children),
            proved=tuple(self.proved),
            recomposed=tuple(self.recomposed),
            detail=f"{unit} {level:.6g}, proven by {mode}; {numbers}",
            known=self.known,
            nodes=self.nodes,
        )

    def _limiting(self, children: Mapping[str, Composed]) -> str | None:
        worst = min if next(iter(children.values())).interface.continuous else max
        return worst(children, key=lambda name: children[name].interface.level)

    def _edges(self) -> tuple[EdgeReport, ...]:
        slopes = np.zeros(len(self.edges)) if self.slopes is None else self.slopes
        most = float(slopes.max(initial=0.0))
        return tuple(
            EdgeReport(
                coupling.to, coupling.source, coupling.inside, edge.norm, float(slope),
                limiting=bool(most > 1e-9 and slope > 0.5 * most),
            )
            for coupling, edge, slope in zip(self.assembly.couplings, self.edges, slopes, strict=True)
        )  # fmt: skip

    def _undecided(self, reason: str, detail: str, children: Mapping[str, Composed]) -> Composition:
        refutation = self._refuted() if self.refuting and not self.monitor.over else None
        answer = Composition(
            "undecided" if refutation is None else "not_contracting",
            self.assembly,
            modes=self.modes,
            edges=self._edges() if children else (),
            module_levels={name: child.interface.level for name, child in children.items()},
            refutation=refutation,
            proved=tuple(self.proved),
            reason=reason if refutation is None else None,
            detail=detail if refutation is None else refutation.detail,
            known=self.known,
            nodes=self.nodes,
        )
        if self.monitor.why is not None and refutation is None:
            return replace(answer, reason=self.monitor.why)
        return answer

    def _refuted(self) -> Result | None:
        """A verified witness against the whole as one system."""
        if self.assembly.size > MONOLITHIC:
            return None
        from certes.conditions.base import Goal
        from certes.inquiry import Inquiry

        left = self.monitor.left
        goal = Goal(None, seconds=None if left is None else max(left, 0.01), cancelled=self.monitor.cancelled)
        return Inquiry(whole.flattened(self.assembly), goal).refute()


def largest_step(rate: float, lipschitz: float) -> tuple[float, float] | None:
    """(h, factor) a little below h = 2 c / K^2, where the factor is still below 1."""
    step = 2.0 * rate / lipschitz**2 * (1.0 - _STEP_ROOM)
    factor = math.sqrt(max(float(euler_factor_squared(rate, lipschitz, step)), 0.0)) * (1.0 + 1e-15)
    return (step, factor) if factor < 1.0 else None


def _key(assembly: Assembly, children: Mapping[str, Composed]) -> str:
    """Digest of the couplings and of what the modules offer: equal keys, equal composition."""
    digest = hashlib.sha256(repr((assembly.step, list(assembly.modules))).encode())
    for child in children.values():
        for name, array in child.proof.to_arrays().items():
            digest.update(name.encode() + array.tobytes())
        if not child.children:  # couplings inside phi look at the network itself
            digest.update(identity(child.module).encode() if isinstance(child.module, System) else b"")
    for edge in assembly.couplings:
        shas = [subject.sha256 for subject in edge.weights.subjects]
        digest.update(repr((edge.to, edge.source, edge.inside, shas)).encode())
    return digest.hexdigest()


def _leaves_of(node: Composed) -> list[Composed]:
    return [leaf for _, leaf in node.leaves()] if node.children else [node]
