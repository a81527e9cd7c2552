"""From proposed weights to certified ones: rounded to the stored dtype, and backed off until the verifier accepts.

Backing off goes from the proposed weights towards the anchor (0, and the entries that may not move), by as little as
possible. What comes back is certified: the same proof and verifier as everywhere else decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.conditions import by_name
from certes.conditions.base import Condition, Decision, Goal, NothingFound
from certes.conditions.uniform import UniformLeak, uniform_candidates
from certes.engines import scaling
from certes.engines.monitor import Monitor
from certes.inquiry import Inquiry
from certes.projection.keeping import Structure
from certes.results import Result
from certes.systems import Matrix, Network, SparseMatrix, System

Array = NDArray[np.float64]

#: Parts of the way to the anchor that are tried, in this order; then the last gap is halved a few times.
_BACK_OFFS = (0.0, 1e-7, *(10.0 ** (k / 2) for k in range(-12, 0)), 0.5, 0.8, 0.95, 1.0)
_HALVINGS = 3
#: Relative tolerance of the multipliers that are looked for anew where those at hand prove nothing.
_TOLERANCE = 1e-6
#: A first look, and how far (relative) it may be from the level for a second one to be worth its time.
_ROUGH, _WITHIN = 1e-3, 5e-3
#: Part of the way from which they are looked for.
_SEARCHED = 1e-3


@dataclass(frozen=True, eq=False)
class Known:
    """A condition that proposes what is already known: the multipliers q of ``lure``.

    Attributes:
        q: shape (n,).
    """

    q: Array
    name: str = "lure"
    version: int = 1

    def applies(self, system: System) -> str | None:
        """None for a network with uniform leak."""
        return None if UniformLeak.of(system) is not None else "'lure' with given multipliers needs uniform leak"

    @np.errstate(all="ignore")
    def decide(self, system: System, goal: Goal) -> Decision:
        """The proof that q gives at exactly the target."""
        leak = UniformLeak.of(system)
        if leak is None or goal.target is None or not np.isfinite(leak.weights).all():
            return NothingFound("not-applicable", "multipliers without uniform leak or without a target")
        return uniform_candidates(leak, self.q, goal.target, goal.target) or NothingFound("margin", "q is not enough")


@dataclass(frozen=True, eq=False)
class Settled:
    """Certified weights.

    Attributes:
        system: the network with them.
        inquiry: the question in which they were proven.
        backed_off: part of the way to the anchor that was given up.
    """

    system: Network
    inquiry: Inquiry
    backed_off: float

    def result(self) -> Result:
        """The answer, with every further claim that follows."""
        return self.inquiry.contracting()


def settle(
    system: Network,
    weights: Matrix,
    number: float,
    condition: str,
    q: Array | None = None,
    *,
    structure: Structure | None = None,
    monitor: Monitor | None = None,
) -> Settled | None:
    """Round and back off until certified.

    Args:
        system: the network whose weights are replaced.
        weights: the proposed ones, shape (n, n), or sparse with the same pattern.
        number: rate or factor to certify.
        condition: the condition that is to certify them.
        q: multipliers for ``lure``, shape (n,).
        structure: what has to be kept; None: nothing.
        monitor: time limit and cancellation.

    Returns:
        None if not even the anchor is certified.
    """
    kept = structure or Structure(system.tensors["W"].value, None, None)
    attempts = _Attempts(system, weights, number, condition, q, kept, monitor or Monitor())
    best, failed = None, -1.0
    for part in _BACK_OFFS:
        if (best := attempts.at(part)) is not None or attempts.monitor.why == "cancelled":
            break
        failed = part
    if best is None or failed < 0.0:
        return best
    for _ in range(_HALVINGS):
        middle = math.sqrt(failed * best.backed_off) if failed > 0.0 else 0.5 * best.backed_off
        if (found := attempts.at(middle)) is None:
            failed = middle
        else:
            best = found
    return best


def certified(
    system: System, number: float, condition: str, q: Array | None, monitor: Monitor, *, search: bool = True
) -> Inquiry | None:
    """The inquiry in which one condition certifies a network at a number as it stands, or None.

    Args:
        system: the network.
        number: rate or factor.
        condition: name of the condition.
        q: multipliers of ``lure``, asked first.
        monitor: time limit and cancellation.
        search: whether to look for other multipliers than q.
    """
    left = monitor.left if search else None
    inquiry = Inquiry(
        system, Goal(number, seconds=None if left is None else max(left, 0.01), cancelled=monitor.cancelled)
    )
    for candidate in _conditions(system, number, condition, q, search, monitor):
        inquiry.attempt(candidate)
        if inquiry.proven:
            return inquiry
    return None


def _conditions(
    system: System, number: float, condition: str, q: Array | None, search: bool, monitor: Monitor
) -> Iterator[Condition]:
    leak = UniformLeak.of(system) if condition == "lure" else None
    if leak is None:
        yield by_name(condition)
        return
    if q is not None:
        yield Known(q)
    if not search:
        return
    level = leak.level(number)
    for tolerance in (_ROUGH, _TOLERANCE):
        found = scaling.optimise(leak.weights, leak.family, tolerance=tolerance, target=level, start=q, monitor=monitor)
        q = found.q
        yield Known(q)
        best, wanted = leak.family.cost(found.level), leak.family.cost(level)
        if not best - wanted <= _WITHIN * max(abs(best), abs(wanted)):
            return  # the bundle is nearly done, and the level is out of reach


class _Attempts:
    """The weights at a part of the way to the anchor, rounded and asked about."""

    def __init__(
        self,
        system: Network,
        weights: Matrix,
        number: float,
        condition: str,
        q: Array | None,
        structure: Structure,
        monitor: Monitor,
    ) -> None:
        self.system, self.number, self.condition, self.q = system, number, condition, q
        self.structure, self.monitor = structure, monitor
        self.rounded: Callable[[float], Array]
        if isinstance(weights, SparseMatrix):
            data = weights.data
            self.rounded = lambda part: np.asarray((1.0 - part) * data)
        else:
            dense, anchor = weights, structure.anchor
            self.rounded = lambda part: structure.rounded(anchor + (1.0 - part) * (dense - anchor), system.dtype)

    def at(self, part: float) -> Settled | None:
        """Certified weights at that part of the way, or None."""
        system = self.system.with_weights(self.rounded(part))
        # new multipliers are searched for only where those at hand would have cost much
        search = self.q is None or part >= _SEARCHED
        found = certified(system, self.number, self.condition, self.q, self.monitor, search=search)
        return None if found is None else Settled(system, found, part)
