"""What a stability condition is: a theorem that can propose proofs.

A condition never says yes. It returns *candidates*, numbers that :mod:`certes.verify` may accept, ordered from the best
claim to safer ones; ``certify`` takes the first that the verifier accepts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from certes.engines.monitor import Monitor
from certes.proofs import Claims, LevelBound, Proof
from certes.systems import System

Array = NDArray[np.float64]

Backend = Literal["auto", "cvxpy-clarabel", "cvxpy-scs"]
Why = Literal["not-applicable", "margin", "too-large", "missing-extra", "deadline", "cancelled", "solver"]


#: By how much candidates fall behind the best level, relative; each gives the verifier more margin.
BACK_OFFS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)


@dataclass(frozen=True)
class Candidate:
    """A proof and what it is meant to prove.

    Attributes:
        proof: the numbers.
        claims: the rate (continuous time, 1/unit of time) or the factor (a map, per step), nothing else.
        bound: what no certificate of the condition ``lure`` can reach, if the search came to know; proposed as well.
    """

    proof: Proof
    claims: Claims
    bound: LevelBound | None = None


@dataclass(frozen=True)
class NothingFound:
    """A condition has nothing to offer; this says nothing about the network.

    Attributes:
        reason: stable code.
        detail: the reason in words.
        distance: the best rate (at most 0) or factor (at least 1) that the condition came to, if it came to one.
        bound: as in :class:`Candidate`.
        multipliers: those of the best point, shape (m,), if the condition has multipliers and came to some.
    """

    reason: Why
    detail: str
    distance: float | None = None
    bound: LevelBound | None = None
    multipliers: Array | None = None


Decision = tuple[Candidate, ...] | NothingFound


@dataclass(frozen=True)
class Goal:
    """What is asked of a condition.

    Attributes:
        target: rate or factor to reach; None: the best there is.
        backend: the solver, for conditions that need one.
        seconds: time limit of the solver in seconds, or None.
        progress: called with a short line of text now and then, or None.
        cancelled: asked now and then whether to give up, or None.
    """

    target: float | None = None
    backend: Backend = "auto"
    seconds: float | None = None
    progress: Callable[[str], None] | None = None
    cancelled: Callable[[], bool] | None = None

    def monitor(self) -> Monitor:
        """A watch on the work for this goal; the clock starts now."""
        return Monitor(self.seconds, self.cancelled, self.progress)


class Condition(Protocol):
    """A theorem that implies contraction.

    Attributes:
        name: the name users and certificates know it by.
        version: changes when the obligations of its proofs change.
    """

    @property
    def name(self) -> str:
        """The name."""
        ...

    @property
    def version(self) -> int:
        """The version of the law."""
        ...

    def applies(self, system: System) -> str | None:
        """None if the theorem speaks of such a system, else why it does not."""
        ...

    def decide(self, system: System, goal: Goal) -> Decision:
        """Candidates, best claim first, or why there are none. Deterministic."""
        ...


def eigenvalues(matrix: Array) -> Array | None:
    """Eigenvalues of a symmetric matrix, ascending; None if they leave the float range."""
    if not np.isfinite(matrix).all():
        return None
    try:
        values = np.asarray(np.linalg.eigvalsh(matrix), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    return values if np.isfinite(values).all() else None


def aim(system: System, best: float, goal: Goal, back_offs: tuple[float, ...]) -> tuple[float, ...]:
    """The numbers to claim, best first, when ``best`` is the exact optimum for the proof at hand.

    Args:
        system: decides whether numbers are rates (larger is better) or factors (smaller is better).
        best: rate or factor of the proof in exact arithmetic.
        goal: a target is claimed as it is when ``best`` reaches it, and nothing below it is offered.
        back_offs: distances from ``best``, in units of 1/tau for rates, ascending.

    Returns:
        Distinct claims that make sense (rate > 0, 0 < factor < 1); empty if there is none.
    """
    if system.continuous:
        unit = 1.0 / float(system.tau.max())
        found = [best - back * unit for back in back_offs]
        if goal.target is not None:
            found = [goal.target] if goal.target <= found[0] else []
        found = [c for c in found if 0.0 < c < math.inf]
    else:
        found = [best + back for back in back_offs]
        if goal.target is not None:
            found = [goal.target] if goal.target >= found[0] else []
        found = [rho for rho in found if 0.0 < rho < 1.0]
    return tuple(dict.fromkeys(found))


def missed(system: System, best: float, goal: Goal, condition: str) -> NothingFound:
    """What to answer when ``best`` is no claim worth making."""
    word = "rate" if system.continuous else "factor"
    wanted = "" if goal.target is None else f", {goal.target:.6g} was asked for"
    distance = float(best) if math.isfinite(best) else None
    return NothingFound("margin", f"the best {word} that '{condition}' comes to is {best:.6g}{wanted}", distance)


def claim(system: System, number: float) -> Claims:
    """Claims with just this rate (continuous time) or factor (a map)."""
    return Claims(rate=number) if system.continuous else Claims(factor=number)


def is_claim(continuous: bool, number: float) -> bool:
    """Whether a rate or factor is one that can be claimed."""
    return number > 0.0 if continuous else 0.0 < number < 1.0
