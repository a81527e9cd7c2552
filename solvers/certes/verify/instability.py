"""When does a witness show that a network does not contract, in any norm? The numbered obligations.

    1. slopes      D = phi'(s), enclosed; or, for a bare slope interval, D inside it (phi_i(s) = D_i s is in the class)
    2. lyapunov    -((J - sigma I)^T X + X (J - sigma I)) > 0, resp. sigma^2 X - J^T X J > 0 (map), for J = A + B D C
    3. direction   v^T X v < 0
    4. equilibrium the stored input makes the midpoint of both starts an equilibrium at which phi has arguments s
    5. parting     from the two starts, under that input, the simulated trajectories part

1 to 3 are rigorous: if all eigenvalues of J - sigma I lay in the open left half plane, 2 would force X > 0, against 3;
and an eigenvalue on the axis contradicts 2. So J has an eigenvalue beyond sigma >= 0 (map: |.| > sigma >= 1). The input
u that puts the equilibrium at s exists exactly in the reals; near it trajectories leave it at an exponential rate, so
no norm, constant or varying and bounded above and below, contracts. 4 and 5 tie the stored, rounded input and starts to
that statement, in float64: they are evidence anyone can replay, to a relative accuracy of 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.proofs import InstabilityWitness
from certes.systems import System
from certes.verify.attained import attained, beyond, jacobian, negative, slope_box, unshifted
from certes.verify.intervals import Box
from certes.verify.motion import MOST_STEPS, NEAR, PART, Motion, parting_steps
from certes.verify.question import arrays_of, definite_check, inputs, is_symmetric
from certes.verify.report import Check, Report, judged

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Does ``witness`` refute ``system``?"""

    system: System
    witness: InstabilityWitness

    @property
    def jacobian(self) -> Box:
        """J = A + B D C."""
        return jacobian(unshifted(self.system), slope_box(self.system, self.witness.points, self.witness.slopes))

    @property
    def motion(self) -> Motion:
        """The network under the stored input."""
        entry, given = self.system.slope.activation, self.witness.slopes[:, None]
        u = self.witness.input[:, None]
        return Motion(self.system, entry.function if entry is not None else lambda s: given * s, lambda _: u)

    @property
    def starts(self) -> Array:
        """Both starts, shape (n, 2)."""
        return np.column_stack([self.witness.start, self.witness.start_other])


def _fits(evidence: Evidence) -> bool:
    system, witness = evidence.system, evidence.witness
    n, m = system.size, len(system.slope.lower)
    vectors = ((witness.points, m), (witness.slopes, m), (witness.direction, n), (witness.input, m))
    starts = ((witness.start, n), (witness.start_other, n))
    return all(vector.shape == (size,) for vector, size in vectors + starts) and witness.lyapunov.shape == (n, n)


def slopes(evidence: Evidence) -> Check:
    """The slopes are attained: phi'(s), away from kinks if phi is piecewise linear; or inside a bare interval."""
    return attained(evidence.system, evidence.witness.points, evidence.witness.slopes)


def lyapunov(evidence: Evidence) -> Check:
    """X is symmetric and certifies that no eigenvalue of J lies on the border sigma."""
    witness = evidence.witness
    if not evidence.system.continuous:
        return beyond("lyapunov", witness.lyapunov, witness.growth, evidence.jacobian, "sigma^2 X - J^T X J > 0")
    if not (is_symmetric(witness.lyapunov) and 0.0 <= witness.growth < np.inf):
        return Check("lyapunov", False, "X symmetric, sigma >= 0 (continuous) or 1 (map)")
    X, sigma = Box.exact(witness.lyapunov), Box.exact(witness.growth)
    product = X @ evidence.jacobian
    decay = (X * sigma + X * sigma) - (product + product.T)
    return definite_check("lyapunov", decay, "-((J - sigma I)^T X + X (J - sigma I)) > 0")


def direction(evidence: Evidence) -> Check:
    """v^T X v < 0."""
    return negative(evidence.witness.lyapunov, evidence.witness.direction)


def equilibrium(evidence: Evidence) -> Check:
    """At x = (start + start_other) / 2: x' = 0 and phi's arguments are s, to a relative 1e-6."""
    motion, points = evidence.motion, evidence.witness.points
    centre = evidence.starts.sum(axis=1, keepdims=True) / 2.0
    rest = np.abs(motion.drift(centre)).max()
    held = rest <= NEAR * (1.0 + np.abs(centre).max())
    if evidence.system.slope.activation is not None:
        offset = np.abs(motion.arguments(centre)[:, 0] - points)
        held = held and bool((offset <= NEAR * (1.0 + np.abs(points))).all())
    return Check(
        "equilibrium", bool(held), "the input makes the midpoint of the starts an equilibrium with arguments s"
    )


def trajectories(evidence: Evidence) -> Iterator[Array]:
    """Both trajectories, step by step up to the horizon, shape (n, 2); empty if it is not positive, or out of reach."""
    motion, horizon = evidence.motion, evidence.witness.horizon
    if not 0 < horizon < np.inf:
        return
    norm = float(np.linalg.norm(evidence.jacobian.mid, 2))
    steps = parting_steps(norm, horizon) if evidence.system.continuous else horizon
    if not steps <= MOST_STEPS:
        return
    count = int(np.ceil(steps))
    states = evidence.starts
    for _ in range(count):
        states = motion.advance(states, horizon / count)
        yield states


def parting(evidence: Evidence) -> Check:
    """Simulated in float64, the two trajectories end at least 10 times as far apart as they started."""
    initial, final = distance(evidence.starts), None
    for states in trajectories(evidence):
        final = states
    if final is None:
        return Check("parting", False, f"a positive horizon, at most {MOST_STEPS} steps of simulation")
    held = 0 < initial < np.inf and distance(final) >= PART * initial
    return Check("parting", bool(held), f"distance {initial:.3g} grows to {distance(final):.3g}")


def distance(states: Array) -> float:
    """Euclidean distance of the two columns."""
    return float(np.linalg.norm(states[:, 0] - states[:, 1]))


OBLIGATIONS: tuple[Callable[[Evidence], Check], ...] = (slopes, lyapunov, direction, equilibrium, parting)


def verify_instability(system: System, witness: InstabilityWitness) -> Report:
    """Verify that ``witness`` shows ``system`` not contracting.

    Args:
        system: the network as given, dense weights.
        witness: slopes, a Lyapunov matrix, a direction, an input and two starts.

    Returns:
        A report with verdict ``not_contracting`` if and only if every obligation held.
    """
    return judged("not_contracting", _checks(Evidence(system, witness)))


def _checks(evidence: Evidence) -> Iterator[Check]:
    if (failed := inputs(evidence.system, arrays_of(evidence.witness))) is not None:
        yield failed
    elif evidence.system.is_sparse or not _fits(evidence):
        yield Check("shapes", False, "dense weights; s, D, u (m,); v and starts (n,); X (n, n)")
    else:
        for obligation in OBLIGATIONS:
            yield obligation(evidence)
