"""Unstable fixed points of gated cells under a constant admissible input: the search behind a cell's 'no'.

For inputs at corners of the declared box, at its centre and at random points: Newton's method for F(x, u) = x from
random states and from points between two resting places (whichever basin the simulation falls into, the border between
two basins holds a fixed point that is not stable). The fixed point whose Jacobian has the largest spectral radius
beyond 1 becomes a :class:`~certes.proofs.GatedWitness`.
Everything here is float arithmetic and proves nothing: :func:`certes.verify.gated_instability.verify_gated_instability`
decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from certes.cells import GatedNetwork
from certes.engines.monitor import Monitor
from certes.engines.slopes import Linearisation, Mode, leading_mode
from certes.proofs import GatedWitness
from certes.refutation import LEAST_PARTING, PARTING, inertia_numbers
from certes.verify.gated_instability import GatedEvidence, distances, fixed_point, step
from certes.verify.motion import MOST_STEPS

Array = NDArray[np.float64]

#: Inputs and states that are tried, steps of simulation into a resting place, steps of Newton's method.
_INPUTS, _STATES, _SETTLING, _NEWTON = 24, 8, 200, 30
#: Points between two resting places that are followed at once, and how often.
_SHARES, _ROUNDS = 24, 4
#: States up to which everything is tried; beyond, fewer inputs.
_SMALL = 256
#: A spectral radius that counts as unstable; one with which the search ends.
_UNSTABLE, _ENOUGH = 1.0 + 1e-6, 1.05
#: Radii that are offered for the fixed point's enclosure.
_RADII = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-11, 1e-5)


@dataclass(frozen=True, eq=False)
class Resting:
    """A fixed point in float64 and the spectral radius of its Jacobian."""

    input: Array
    state: Array
    radius: float


def refute_cell(cell: GatedNetwork, monitor: Monitor) -> GatedWitness | None:
    """Look for an unstable fixed point; None says nothing about the cell.

    Args:
        cell: with a declared box of inputs.
        monitor: ends the search.

    Returns:
        A witness whose replay has parted, for the verifier to judge; or None. Deterministic without a time limit.
    """
    best: Resting | None = None
    with np.errstate(all="ignore"):
        for found in _restings(cell, monitor):
            if found.radius > _UNSTABLE and (best is None or found.radius > best.radius):
                best = found
                if best.radius > _ENOUGH:
                    break
        try:
            return None if best is None else _witness(cell, best)
        except (np.linalg.LinAlgError, ValueError):
            return None


def _inputs(cell: GatedNetwork, random: np.random.Generator) -> Iterator[Array]:
    """Centre, zero, both extreme corners, then random corners and points of the box."""
    assert cell.inputs is not None
    lower, upper = cell.inputs
    yield 0.5 * lower + 0.5 * upper
    yield np.clip(np.zeros_like(lower), lower, upper)
    yield lower
    yield upper
    for k in range(_INPUTS if cell.states <= _SMALL else _INPUTS // 4):
        share = random.random(cell.width)
        yield np.where(share < 0.5, lower, upper) if k % 2 else np.clip(lower + share * (upper - lower), lower, upper)


def _restings(cell: GatedNetwork, monitor: Monitor) -> Iterator[Resting]:
    random = np.random.default_rng(0)
    for given in _inputs(cell, random):
        starts = random.uniform(-1.0, 1.0, (cell.states, _STATES))
        settled = starts
        for _ in range(_SETTLING):
            settled = step(cell, settled, given)
        for state in np.concatenate([settled, _between(cell, settled, given), starts], axis=1).T:
            if monitor.over:
                return
            if (found := _newton(cell, state, given)) is not None:
                yield found


def _between(cell: GatedNetwork, settled: Array, given: Array) -> Array:
    """Points near the border between the basins of the two resting places that lie farthest apart, shape (., k)."""
    apart = np.abs(settled - settled[:, :1]).max(axis=0)
    far = int(apart.argmax())
    if not apart[far] > 1e-3:
        return settled[:, :0]
    one, other = settled[:, :1], settled[:, far : far + 1]
    low, high = 0.0, 1.0
    for _ in range(_ROUNDS):
        shares = np.linspace(low, high, _SHARES)
        states = (1.0 - shares) * one + shares * other
        for _ in range(_SETTLING):
            states = step(cell, states, given)
        nearer = np.abs(states - one).max(axis=0) <= np.abs(states - other).max(axis=0)
        last = int(np.argmin(nearer)) if not nearer.all() else _SHARES - 1
        low, high = float(shares[max(last - 1, 0)]), float(shares[last])
    middle = 0.5 * (low + high)
    path = [(1.0 - middle) * one + middle * other]
    for _ in range(_SETTLING // 2):
        path.append(step(cell, path[-1], given))
    moved = [float(np.abs(after - before).max()) for before, after in pairwise(path)]
    slowest = np.argsort(np.array(moved), kind="stable")[:3]  # where it lingers, a saddle is near
    return np.concatenate([path[int(k)] for k in slowest], axis=1)


def derivative(cell: GatedNetwork, state: Array, given: Array) -> Array:
    """The Jacobian of the map at a state, in float64, shape (states, states)."""
    n = cell.size
    a = cell.stacked("W") @ given + cell.stacked("b")
    y = cell.stacked("U") @ state[-n:] + cell.stacked("c")
    s = (a + y).reshape(cell.gates, n)
    U = cell.stacked("U").reshape(cell.gates, n, n)
    p = 0.5 + 0.5 * np.tanh(0.5 * s)
    slope = p * (1.0 - p)
    if cell.form == "gru":
        q = y[2 * n :]
        new = np.tanh(a[2 * n :] + p[0] * q)
        fresh = (1.0 - p[1]) * (1.0 - new**2)
        rows = (fresh * p[0])[:, None] * U[2] + (fresh * q * slope[0])[:, None] * U[0]
        return np.asarray(rows + ((state - new) * slope[1])[:, None] * U[1] + np.diag(p[1]))
    new = np.tanh(s[2])
    out = np.tanh(p[1] * state[:n] + p[0] * new)
    inner = (state[:n] * slope[1])[:, None] * U[1] + (new * slope[0])[:, None] * U[0]
    inner = inner + (p[0] * (1.0 - new**2))[:, None] * U[2]
    seen = p[3] * (1.0 - out**2)
    lower = seen[:, None] * inner + (out * slope[3])[:, None] * U[3]
    return np.block([[np.diag(p[1]), inner], [np.diag(seen * p[1]), lower]])


def _newton(cell: GatedNetwork, state: Array, given: Array) -> Resting | None:
    """The fixed point that Newton's method comes to, if it does."""
    for _ in range(_NEWTON):
        rest = step(cell, state[:, None], given)[:, 0] - state
        try:
            move = np.linalg.solve(np.eye(cell.states) - derivative(cell, state, given), rest)
        except np.linalg.LinAlgError:
            return None
        size = float(np.abs(move).max())
        if not math.isfinite(size):
            return None
        state = state + move * min(1.0, 0.5 / max(size, 1e-300))
        if size <= 1e-13 * (1.0 + float(np.abs(state).max())):
            J = derivative(cell, state, given)
            return Resting(given, state, float(np.abs(np.linalg.eigvals(J)).max())) if np.isfinite(J).all() else None
    return None


def _witness(cell: GatedNetwork, at: Resting) -> GatedWitness | None:
    """The proof's numbers and the parting starts of one fixed point."""
    n = cell.states
    J = derivative(cell, at.state, at.input)
    nothing = np.zeros(1)
    problem = Linearisation(J, np.zeros((n, 1)), np.zeros((1, n)), nothing, nothing, False)
    mode: Mode | None = leading_mode(problem, nothing)
    numbers = None if mode is None else inertia_numbers(problem, mode, exact=True)
    if mode is None or numbers is None:
        return None
    eigenvector = mode.eigenvector
    phase = np.exp(-0.5j * np.angle((eigenvector * eigenvector).sum()))
    ahead = np.real(phase * eigenvector)
    ahead = ahead / np.abs(ahead).max()
    draft = GatedWitness(
        at.input, at.state, _RADII[0], numbers.lyapunov, numbers.direction, numbers.growth, at.state, at.state, 1.0
    )
    radius = next((r for r in _RADII if fixed_point(GatedEvidence(cell, replace(draft, radius=r))).held), None)
    if radius is None:
        return None
    for nudge in (1e-6, 1e-4, 1e-8):
        for aim in (PARTING, PARTING**1.5, 1.5 * LEAST_PARTING):
            horizon = min(math.ceil(math.log(aim) / math.log(at.radius)), MOST_STEPS)
            start, other = at.state + nudge * ahead, at.state - nudge * ahead
            witness = replace(draft, radius=radius, start=start, start_other=other, horizon=float(horizon))
            found = list(distances(GatedEvidence(cell, witness), horizon))
            if found[-1] >= LEAST_PARTING * found[0] > 0.0:
                return witness
    return None
