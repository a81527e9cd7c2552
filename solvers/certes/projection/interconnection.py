"""The nearest interconnection with which an assembly of given modules contracts.

Modules x_i' = f_i(x_i), coupled by x_i' = f_i(x_i) + sum_j L_ij x_j. L is what stands in x', in 1/(unit of time): where
an assembly is written T x' = ... + L x, divide by T first. A module proven by ``lure`` brings a metric M_i and a rate
c_i, and the block of the whole in the metric diag(s_i M_i) is the blocks of the modules and, on the states,

    2 diag(s_i (c_i - c) M_i) - (M L + L^T M),    M = diag(s_i M_i),

so that the assembly keeps the rate c if this is positive (docs/theory.md section 12; L. Kozachkov, M. Ennis, J.-J.
Slotine, NeurIPS 2022). For given metrics the nearest such L is a convex problem, :mod:`.coupling`; the scales s_i are
1, or those with which L fits best. What leaves is one :class:`LureSystem`, the whole, with its own verified proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from certes.conditions import by_name
from certes.conditions.base import Goal
from certes.conditions.uniform import lure_proof
from certes.engines.monitor import Monitor, time_limit
from certes.engines.threads import one_blas_thread
from certes.errors import InputError
from certes.inquiry import Inquiry, Proven
from certes.projection import coupling
from certes.projection.coupling import Pattern
from certes.projection.modules import Module, Unproven, as_lure, interfaces
from certes.projection.wiring import Pair, Wiring
from certes.proofs import Claims, LureProof
from certes.results import Attempt, Result
from certes.systems import LureSystem, System
from certes.verify.contraction import verify_contraction

Array = NDArray[np.float64]
Norm = Literal["whitened", "frobenius"]

#: How far inside the set a coupling is put at least, relative: with the scales 1, and with scales that were searched
#: for (further until the search finds scales for the answer too: whoever asks about it gets it back unchanged).
_INSIDE, _INSIDE_SCALED = 1e-12, 1e-6
#: Share of the room that a coupling with fixed entries leaves free when it serves as the anchor.
_SPARE = 0.05


@dataclass(frozen=True, eq=False)
class InterconnectionProjection:
    """Interconnections with which the assembly is certified, and how far they are from the given ones.

    Attributes:
        blocks: ("to", "from") -> L_ij in the dtype it was given in, in 1/(unit of time); read-only.
        result: of the assembly as it is returned; ``contracting`` with a certificate about :attr:`system`, or
            ``undecided`` (then ``blocks`` are the given ones).
        system: the assembly, x' = A x + B phi(C x + u) + v, states in the order of the modules; L is part of A.
        rate: the rate asked for, 1/(unit of time); None if none was given and a module is not proven.
        module_rates: name -> c_i, the rate that the metric of a module is used at (a little below its best).
        metrics: name -> s_i M_i, the metrics that the distance is measured in.
        distance: norm_F(R (L' - L) R^-1), R^T R = blkdiag(s_i M_i).
        distance_frobenius: norm_F(L' - L).
        norm: which of the two distances was to be small.
        distance_bound: no L' that keeps the rate in these metrics, and the pattern, is nearer in that norm (weak
            duality, in floating point; not a verified claim). None where nothing was searched.
        shrink_distance: that of all of L scaled down until it fits, in that norm; None if entries that are not zero
            may not move.
        unchanged: whether the given blocks came back, bit for bit.
        iterations: steps of the alternating projections.
    """

    blocks: Mapping[Pair, NDArray[Any]]
    result: Result
    system: LureSystem
    rate: float | None
    module_rates: Mapping[str, float]
    metrics: Mapping[str, Array]
    distance: float = 0.0
    distance_frobenius: float = 0.0
    norm: Norm = "whitened"
    distance_bound: float | None = None
    shrink_distance: float | None = None
    unchanged: bool = True
    iterations: int = 0

    def to_json(self) -> dict[str, Any]:
        """The answer as plain JSON values under the Python names; metrics are in the certificate's proof."""
        numbers = (
            "distance",
            "distance_frobenius",
            "norm",
            "distance_bound",
            "shrink_distance",
            "unchanged",
            "iterations",
        )
        return {
            "blocks": [
                {"to": to, "from": source, "dtype": block.dtype.name, "values": block.tolist()}
                for (to, source), block in self.blocks.items()
            ],
            "rate": self.rate,
            "module_rates": dict(self.module_rates),
            **{name: getattr(self, name) for name in numbers},
            "result": self.result.to_json(),
        }


@one_blas_thread()
def project_interconnection(
    modules: Mapping[str, System],
    blocks: Mapping[Pair, Any],
    rate: float | None = None,
    *,
    mask: Mapping[Pair, Any] | None = None,
    fill: bool = False,
    norm: Norm = "whitened",
    seconds: float | None = None,
    progress: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> InterconnectionProjection:
    """The nearest linear interconnection with which the assembly keeps a contraction rate.

    Args:
        modules: name -> network in continuous time (rate, hopfield or lure), n_i states.
        blocks: ("to", "from") -> L_ij, shape (n_to, n_from), as it stands in x', in 1/(unit of time). Absent: zero.
        rate: the rate of the whole, below the best rate of every module; None: half of the slowest module's.
        mask: ("to", "from") -> which entries may move, booleans of the block's shape. Without one the entries of a
            block may move unless all of them are zero.
        fill: blocks that are absent or zero may be filled.
        norm: in which norm the interconnection is to be nearest: ``"whitened"``, norm_F(R (L' - L) R^-1), which
            weighs couplings by what they do in the modules' metrics; ``"frobenius"``, norm_F(L' - L).
        seconds: time limit for searching; None: no limit, and the answer is deterministic.
        progress: called with a short line of text now and then.
        cancelled: asked now and then whether to stop.

    Returns:
        The interconnection, certified after rounding to the dtypes given; or ``undecided`` if a module is not proven
        contracting, or nothing was found that keeps the entries that must stay.

    Raises:
        InputError: naming ``modules.NAME``, ``blocks.TO.FROM``, ``mask.TO.FROM``, ``rate`` or ``seconds``.
    """
    _check_modules(modules)
    if norm not in get_args(Norm):
        raise InputError("norm", repr(norm), f"one of {', '.join(get_args(Norm))}", "unknown-value")
    wiring = Wiring.read(modules, blocks, mask, fill=fill)
    monitor = Monitor(time_limit(seconds), cancelled, progress)
    wanted = _positive("rate", rate)
    found = interfaces(modules, wanted, monitor)
    if isinstance(found, Unproven):
        result = Result("undecided", reason=found.reason, detail=found.detail)
        whole = _whole(modules, wiring.given)
        return InterconnectionProjection(wiring.blocks, result, whole, wanted, {}, {}, norm=norm)
    return _Search(modules, wiring, found[1], found[0], norm, monitor).answer()


def _check_modules(modules: object) -> None:
    """Names and continuous-time networks with dense weights.

    Raises:
        InputError: anything else.
    """
    if not isinstance(modules, Mapping) or not modules:
        given = "none" if isinstance(modules, Mapping) else f"a {type(modules).__name__}"
        raise InputError("modules", given, "a mapping {name: network} with at least one", "wrong-type")
    for name, system in modules.items():
        if not isinstance(name, str) or not name:
            raise InputError("modules", f"the name {name!r}", "a name that is not empty", "wrong-type")
        if not isinstance(system, System):
            expected = "a RateNetwork, HopfieldNetwork or LureSystem"
            raise InputError(f"modules.{name}", f"a {type(system).__name__}", expected, "wrong-type")
        if not system.continuous:
            raise InputError(f"modules.{name}", "a map", "a network in continuous time (no step)", "wrong-time")
        if system.is_sparse:
            raise InputError(f"modules.{name}", "sparse weights", "dense weights", "sparse")


def _positive(field: str, given: object) -> float | None:
    """A positive finite number, or None.

    Raises:
        InputError: anything else.
    """
    if given is None:
        return None
    number = isinstance(given, (int, float, np.floating, np.integer)) and not isinstance(given, bool)
    if not number or not 0.0 < float(given) < np.inf:  # type: ignore[arg-type]
        raise InputError(field, repr(given), "a positive number, or None", "not-positive")
    return float(given)  # type: ignore[arg-type]


def _whole(modules: Mapping[str, System], coupling: Array) -> LureSystem:
    """The assembly as one Lur'e system; it keeps the name of an activation that all modules share."""
    parts = [as_lure(system) for system in modules.values()]
    A, B, C = (block_diag(*(part.matrix(role) for part in parts)) for role in "ABC")
    entries = {system.slope.activation for system in modules.values()}
    shared = entries.pop() if len(entries) == 1 else None
    if shared is not None:
        return LureSystem(A + coupling, B, C, activation=shared.name)
    lower, upper = (np.concatenate([getattr(part.slope, side) for part in parts]) for side in ("lower", "upper"))
    return LureSystem(A + coupling, B, C, slope=(lower, upper))


@dataclass(frozen=True, eq=False)
class _Frame:
    """One choice of scales s_i: the coordinates in which couplings are measured.

    Attributes:
        scales: s_i, one per module.
        pattern: the way to whitened coordinates.
        start: X0 = R L R^-1 of the given L.
    """

    scales: Array
    pattern: Pattern
    start: Array


@dataclass(frozen=True, eq=False)
class _Found:
    """An accepted interconnection."""

    weights: Array
    system: LureSystem
    frame: _Frame
    bound: float | None
    steps: int


class _Search:
    """One question on its way."""

    def __init__(
        self,
        given: Mapping[str, System],
        wiring: Wiring,
        modules: list[Module],
        rate: float,
        norm: Norm,
        monitor: Monitor,
    ) -> None:
        """Put the room of each state together."""
        self.given, self.wiring, self.modules, self.rate, self.monitor = given, wiring, modules, rate, monitor
        self.norm: Norm = norm
        self.sizes = [module.system.size for module in modules]
        self.room = np.repeat([module.rate - rate for module in modules], self.sizes)
        self._plain = self._frame(np.ones(len(modules)))

    def answer(self) -> InterconnectionProjection:
        """As it is in the metrics as they are, as it is in scaled ones, else the nearest in either."""
        weights = self.wiring.given
        if (found := self._as_it_is(weights)) is not None:
            return self._projection(found)
        plain, scaled = self._plain, self._balanced(weights)
        strains = [coupling.strain(entry.pattern.whiten(weights), self.room) for entry in (plain, scaled)]
        frames = [plain, scaled] if strains[1] < (1.0 - _INSIDE_SCALED) * strains[0] else [plain]
        nearest = [entry for entry in (self._nearest(frame) for frame in frames) if entry is not None]
        if nearest:
            return self._projection(min(nearest, key=lambda entry: float(np.linalg.norm(entry.weights - weights))))
        return self._otherwise(plain)

    def _as_it_is(self, weights: Array) -> _Found | None:
        """An interconnection that passes with the scales 1, or with those that fit it best."""
        return self._accepted(weights, self._plain) or self._accepted(weights, self._balanced(weights))

    def _balanced(self, weights: Array) -> _Frame:
        return self._frame(coupling.balanced(self._plain.pattern.whiten(weights), self.room, self.sizes))

    def _frame(self, scales: Array) -> _Frame:
        roots = [
            np.sqrt(scale) * np.linalg.cholesky(module.metric).T
            for scale, module in zip(scales, self.modules, strict=True)
        ]
        pattern = Pattern(roots, self.wiring.movable, whitened=self.norm == "whitened")
        return _Frame(scales, pattern, pattern.whiten(self.wiring.given))

    def _proof(self, frame: _Frame) -> LureProof:
        """Metric blkdiag(s_i M_i) and the modules' multipliers times s_i."""
        metric = block_diag(*(s * module.metric for s, module in zip(frame.scales, self.modules, strict=True)))
        multipliers = [s * module.multipliers for s, module in zip(frame.scales, self.modules, strict=True)]
        return lure_proof(metric, np.concatenate(multipliers), dual=False)

    def _accepted(self, weights: Array, frame: _Frame, bound: float | None = None, steps: int = 0) -> _Found | None:
        """The interconnection if the verifier accepts the modules' proofs put together for it."""
        if not coupling.excess(frame.pattern.whiten(weights), self.room) < 0.0:
            return None
        system = _whole(self.given, weights)
        if not verify_contraction(system, self._proof(frame), Claims(rate=self.rate)).valid:
            return None
        return _Found(weights, system, frame, bound, steps)

    def _nearest(self, frame: _Frame) -> _Found | None:
        """The nearest interconnection of the pattern, pulled towards the anchor until it passes when rounded."""
        self.monitor.say("projecting the interconnection")
        anchor, stay = self._anchor(frame)
        if anchor is None:
            return None
        found = coupling.nearest(frame.pattern, frame.start, self.room, anchor, self.monitor)
        over = coupling.excess(frame.start + found.move, self.room)
        first = coupling.pull_share(over, -coupling.excess(frame.start + anchor, self.room))
        move, given = frame.pattern.weights(found.move), self.wiring.given
        for share in coupling.shares(first, _INSIDE if frame is self._plain else _INSIDE_SCALED):
            rounded = self.wiring.rounded(given + (1.0 - share) * move + share * stay)
            if rounded is None:
                continue
            accepted = self._accepted(rounded, frame, found.bound, found.steps)
            if accepted is not None and (frame is self._plain or self._as_it_is(rounded) is not None):
                return accepted
        return None

    def _anchor(self, frame: _Frame) -> tuple[Array | None, Array]:
        """A move to a coupling that fits strictly, whitened and in L: nothing but fixed entries, or a deeper one."""
        stay = np.where(self.wiring.movable, -self.wiring.given, 0.0)
        anchor = frame.pattern.whiten(stay)
        if coupling.excess(frame.start + anchor, self.room) < 0.0:
            return anchor, stay
        deeper = coupling.nearest(frame.pattern, frame.start, (1.0 - _SPARE) * self.room, None, self.monitor)
        stay = frame.pattern.weights(deeper.move)
        fits = coupling.excess(frame.start + deeper.move, self.room) < 0.0
        return (deeper.move if fits else None), stay

    def _otherwise(self, frame: _Frame) -> InterconnectionProjection:
        """Where the modules' metrics allow nothing: the sharper condition of the whole, for L as it is."""
        system = _whole(self.given, self.wiring.given)
        left = self.monitor.left
        goal = Goal(self.rate, seconds=None if left is None else max(left, 0.01), cancelled=self.monitor.cancelled)
        inquiry = Inquiry(system, goal)
        inquiry.attempt(by_name("lure"))
        if inquiry.proven:
            result = inquiry.contracting()
        else:
            detail = "with the entries that must stay, no interconnection was found that keeps the rate"
            result = Result(
                "undecided",
                reason=self.monitor.why or "margin",
                detail=f"{detail}. To try: a lower rate, or more entries that may move",
                attempts=tuple(inquiry.attempts),
            )
        return self._outcome(self.wiring.given, system, frame, result)

    def _projection(self, found: _Found) -> InterconnectionProjection:
        """The answer for an accepted interconnection, with its certificate."""
        claims = Claims(rate=self.rate)
        inquiry = Inquiry(found.system, Goal(self.rate, seconds=self.monitor.left, cancelled=self.monitor.cancelled))
        inquiry.proven.append(Proven(by_name("lure"), self._proof(found.frame), claims))
        inquiry.attempts.append(Attempt("lure", "proven", self.rate))
        outcome = self._outcome(found.weights, found.system, found.frame, inquiry.contracting())
        return replace(outcome, distance_bound=found.bound, iterations=found.steps)

    def _outcome(self, weights: Array, system: LureSystem, frame: _Frame, result: Result) -> InterconnectionProjection:
        change, metrics = weights - self.wiring.given, zip(frame.scales, self.modules, strict=True)
        unchanged = weights is self.wiring.given
        return InterconnectionProjection(
            self.wiring.blocks if unchanged else self.wiring.split(weights),
            result,
            system,
            self.rate,
            {module.name: module.rate for module in self.modules},
            {module.name: scale * module.metric for scale, module in metrics},
            distance=float(np.linalg.norm(frame.pattern.whiten(change))),
            distance_frobenius=float(np.linalg.norm(change)),
            norm=self.norm,
            shrink_distance=self._shrink(frame),
            unchanged=unchanged,
        )

    def _shrink(self, frame: _Frame) -> float | None:
        """Distance of the scaled-down L; None if it may not be scaled."""
        if self.wiring.given[~self.wiring.movable].any():
            return None
        strain = coupling.strain(frame.start, self.room)
        return max(1.0 - 1.0 / max(strain, 1.0), 0.0) * frame.pattern.length(frame.start)
