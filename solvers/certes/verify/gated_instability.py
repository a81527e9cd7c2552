"""When does a witness show that a gated cell does not contract, in any norm? The numbered obligations.

    1. admissible  the constant input u lies in the declared box
    2. fixed-point F(., u) has a fixed point within ``radius`` of the stored state, entry by entry (Krawczyk)
    3. lyapunov    sigma^2 X - J^T X J > 0 for the Jacobian J of F(., u) at every state that close, sigma >= 1
    4. direction   v^T X v < 0
    5. parting     from the two starts, under u, the simulated trajectories part

1 to 4 are rigorous. 2: with G(x) = x - F(x, u), Y any matrix and B the box around the state x, if

    |Y G(x)| + |I - Y (I - J(B))| radius < radius        in every row,

then x -> x - Y G(x) maps B into itself and has a fixed point there (Brouwer), and Y is regular (its product with
I - J is within distance 1 of I in a norm), so G vanishes at that point. 3, 4 as in :mod:`~certes.verify.instability`:
J has an eigenvalue of modulus > sigma >= 1, trajectories near the fixed point leave it at an exponential rate under one
and the same admissible input, and no norm, constant or varying and bounded above and below, contracts on states around
the fixed point. It has |h| < 1, and lies in every box of starts that :mod:`~certes.verify.gated` admits. Not refuted:
that trajectories which stay away from it approach each other. 5 is evidence, in float64, that anyone can replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.cells import GatedNetwork
from certes.proofs import GatedWitness
from certes.verify.attained import beyond, negative
from certes.verify.elementary import Interval, exact, logistic_slope, tanh, tanh_slope
from certes.verify.gated import gates, image, numbers
from certes.verify.intervals import Box, U, plus_diagonal, upward
from certes.verify.motion import MOST_STEPS, PART
from certes.verify.question import arrays_of
from certes.verify.report import Check, Report, judged

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GatedEvidence:
    """Does ``witness`` refute ``cell``?"""

    cell: GatedNetwork
    witness: GatedWitness

    @property
    def around(self) -> Interval:
        """The box around the stored state."""
        state, radius = self.witness.state, self.witness.radius
        return Interval.of(Box(state, np.full(state.shape, radius)))

    @property
    def jacobian(self) -> Box:
        """J at every state of that box."""
        return jacobian(self.cell, self.around, exact(self.witness.input))


def jacobian(cell: GatedNetwork, states: Interval, inputs: Interval) -> Box:
    """A matrix box around the Jacobians of F over boxes of states and inputs, shape (states, states)."""
    inside = gates(cell, states, inputs)
    matrices = [Box.exact(cell.gate("U", k)) for k in range(cell.gates)]
    one = exact(np.ones(cell.size))

    def summed(*coefficients: tuple[int, Interval]) -> Box:
        first, *rest = [value.box[:, None] * matrices[gate] for gate, value in coefficients]
        for term in rest:
            first = first + term
        return first

    if cell.form == "gru":
        reset, update, new = inside.values
        fresh = (one - update) * tanh_slope(new)
        pulled = fresh * (inside.inner * logistic_slope(reset))
        moved = (states - new) * logistic_slope(update)
        return plus_diagonal(summed((2, fresh * reset), (0, pulled), (1, moved)), update.box)
    enter, forget, new, leave = inside.values
    out = tanh(forget * inside.inner + enter * new)
    by_f, by_i, by_g = inside.inner * logistic_slope(forget), new * logistic_slope(enter), enter * tanh_slope(new)
    seen = leave * tanh_slope(out)
    upper = summed((1, by_f), (0, by_i), (2, by_g))
    lower = summed((1, seen * by_f), (0, seen * by_i), (2, seen * by_g), (3, out * logistic_slope(leave)))
    kept, passed = forget.box, (seen * forget).box
    mids = [[np.diag(kept.mid), upper.mid], [np.diag(passed.mid), lower.mid]]
    rads = [[np.diag(kept.rad), upper.rad], [np.diag(passed.rad), lower.rad]]
    return Box(np.block(mids), np.block(rads))


def step(cell: GatedNetwork, states: Array, given: Array) -> Array:
    """One step of the cell in float64, columns of shape (states, k), constant input of shape (inputs,)."""
    n = cell.size
    driven = cell.stacked("W") @ given + cell.stacked("b")
    fed = cell.stacked("U") @ states[-n:] + cell.stacked("c")[:, None]
    a, y = np.split(driven[:, None], cell.gates), np.split(fed, cell.gates)
    if cell.form == "gru":
        update = _sigmoid(a[1] + y[1])
        return np.asarray((1.0 - update) * np.tanh(a[2] + _sigmoid(a[0] + y[0]) * y[2]) + update * states)
    enter, forget, leave = (_sigmoid(a[k] + y[k]) for k in (0, 1, 3))
    inner = forget * states[:n] + enter * np.tanh(a[2] + y[2])
    return np.concatenate([inner, leave * np.tanh(inner)])


def _sigmoid(argument: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * argument))


def admitted(evidence: GatedEvidence) -> Check:
    """The input lies in the declared box."""
    lower, upper = evidence.cell.inputs or (np.inf, -np.inf)
    given = evidence.witness.input
    return Check("admissible", bool((lower <= given).all() and (given <= upper).all()), "the input lies in the box")


def fixed_point(evidence: GatedEvidence) -> Check:
    """|Y G(x)| + |I - Y (I - J(B))| radius < radius in every row."""
    cell, state, radius = evidence.cell, evidence.witness.state, evidence.witness.radius
    detail = f"a fixed point within {radius!r} of the state"
    if not 0.0 < radius < 1.0:
        return Check("fixed-point", False, detail)
    one = Box.exact(np.ones(cell.states))
    apart = plus_diagonal(-evidence.jacobian, one)
    try:
        inverse = Box.exact(np.asarray(np.linalg.inv(apart.mid), dtype=np.float64))
    except np.linalg.LinAlgError:
        return Check("fixed-point", False, "I - J is regular")
    rest = (exact(state) - image(cell, exact(state), exact(evidence.witness.input))).box
    moved = (inverse @ rest[:, None]).magnitude[:, 0]
    left = plus_diagonal(-(inverse @ apart), one).magnitude
    total = upward(moved + upward(left.sum(axis=1), 4 * cell.states) * radius)
    return Check("fixed-point", bool((total < radius * (1.0 - 8.0 * U)).all()), detail)


def lyapunov(evidence: GatedEvidence) -> Check:
    """X is symmetric and certifies that no eigenvalue of J has modulus sigma."""
    witness = evidence.witness
    return beyond("lyapunov", witness.lyapunov, witness.growth, evidence.jacobian, "sigma^2 X - J^T X J > 0")


def direction(evidence: GatedEvidence) -> Check:
    """v^T X v < 0."""
    return negative(evidence.witness.lyapunov, evidence.witness.direction)


def distances(evidence: GatedEvidence, steps: int) -> Iterator[float]:
    """Euclidean distance of the two simulated trajectories, at the start and after each step."""
    states = np.column_stack([evidence.witness.start, evidence.witness.start_other])
    yield float(np.linalg.norm(states[:, 0] - states[:, 1]))
    for _ in range(steps):
        states = step(evidence.cell, states, evidence.witness.input)
        yield float(np.linalg.norm(states[:, 0] - states[:, 1]))


def parting(evidence: GatedEvidence) -> Check:
    """Simulated in float64, the two trajectories end at least 10 times as far apart as they started."""
    horizon = evidence.witness.horizon
    if not 0 < horizon <= MOST_STEPS or horizon != int(horizon):
        return Check("parting", False, f"a positive whole horizon, at most {MOST_STEPS} steps of simulation")
    found = list(distances(evidence, int(horizon)))
    held = 0 < found[0] < np.inf and found[-1] >= PART * found[0]
    return Check("parting", bool(held), f"distance {found[0]:.3g} grows to {found[-1]:.3g}")


OBLIGATIONS: tuple[Callable[[GatedEvidence], Check], ...] = (admitted, fixed_point, lyapunov, direction, parting)


def _fits(evidence: GatedEvidence) -> bool:
    cell, witness = evidence.cell, evidence.witness
    vectors = (witness.state, witness.direction, witness.start, witness.start_other)
    held = cell.inputs is not None and witness.input.shape == (cell.width,)
    return (
        held
        and all(vector.shape == (cell.states,) for vector in vectors)
        and witness.lyapunov.shape == (cell.states,) * 2
    )


def verify_gated_instability(cell: GatedNetwork, witness: GatedWitness) -> Report:
    """Verify that ``witness`` shows ``cell`` not contracting over its box of inputs, in any norm.

    Args:
        cell: the cell as given, with its declared box.
        witness: an input, a state, a Lyapunov matrix, a direction and two starts.

    Returns:
        A report with verdict ``not_contracting`` if and only if every obligation held.
    """
    return judged("not_contracting", _checks(GatedEvidence(cell, witness)))


def _checks(evidence: GatedEvidence) -> Iterator[Check]:
    if type(evidence.witness) is not GatedWitness:
        yield Check("condition", False, "a gated cell is refuted by a witness of kind gated-instability")
    elif (failed := numbers(evidence.cell, *arrays_of(evidence.witness))) is not None:
        yield failed
    elif not _fits(evidence):
        yield Check("shapes", False, "a declared box; u (inputs,); state, v, starts (states,); X (states, states)")
    else:
        for obligation in OBLIGATIONS:
            yield obligation(evidence)
