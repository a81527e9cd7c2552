"""Primal-dual path following over the multipliers, for finitely many angles.

With q relative to the current point and G~ = Q^1/2 G Q^-1/2 the condition at an angle is

    S = 2 threshold I - G~ - G~^H > 0,   which moves by   diag(d) R + R^H diag(d) - gain N,   R = threshold I - G~,

when q grows by the factors 1 + d and the level by ``gain``. The level is either the strength, at threshold 1
(N = d G~ / d strength + its conjugate transpose), or minus the threshold, at a fixed strength (N = 2 I). Maximising it
is a semidefinite program, but for the curvature of G in the strength; q is normalised by a linear equation. Its dual
has a matrix X >= 0 at every angle: the sum of trace(X N) is 1, and in every channel the sum of Re(R X)_ii is 0, up to
mu. The steps follow X S = mu I in the direction of C. Helmberg, F. Rendl, R. Vanderbei, H. Wolkowicz
(SIAM J. Optim. 6 (1996)) and M. Kojima, S. Shindoh, S. Hara (SIAM J. Optim. 7 (1997)); q > 0 and the spectrum of A are
kept away by a plain logarithmic barrier.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines.peaks import scaled
from certes.engines.response import Matrix, Response

Array = NDArray[np.float64]

#: Share of the way to the border that a step goes.
SHORT = 0.93
#: Angles are beside each other if they differ by less than this share.
BESIDE = 1e-4
#: Backtracking: at most this many trials of a step.
TRIALS = 30


@dataclass(eq=False)
class Slack:
    """The condition at one angle, in scaled coordinates: R, N, the inverse of S, and the dual matrix X."""

    angle: float
    R: Matrix
    N: Matrix
    inverse: Matrix
    X: Matrix

    @property
    def S(self) -> Matrix:
        """R + R^H."""
        return _hermitian(2.0 * self.R)


@dataclass(frozen=True, eq=False)
class Direction:
    """A step: the move of q (relative), the gain of the level, and the moves of S and X at every angle."""

    move: Array
    gain: float
    slack: list[Matrix]
    dual: list[Matrix]


@dataclass(frozen=True, eq=False)
class System:
    """Newton's equations [[hessian, -mixed], [-mixed^T, curvature]], and their right sides per unit of mu."""

    hessian: Array
    mixed: Array
    curvature: float
    right: Array
    hold: float


@dataclass(eq=False)
class Path:
    """A point near the path.

    Attributes:
        response: the system.
        q: multipliers, shape (m,).
        strength: the strength at which G is taken.
        threshold: see the module's docstring.
        climbing: True: the level is the strength; False: it is minus the threshold.
        mu: the target of the last step; inf: choose it from the first point.
        slacks: one entry per angle.
    """

    response: Response
    q: Array
    strength: float
    threshold: float
    climbing: bool
    mu: float = np.inf
    slacks: list[Slack] = field(default_factory=list)

    def ask(self, angles: Iterable[float]) -> bool:
        """Ask at more angles; False, and nothing is done: the point is not strictly inside at one of them."""
        found = []
        for angle in angles:
            slack = self._slack(self.q, self.strength, self.threshold, angle)
            if slack is None:
                return False
            found.append(slack)
        self.slacks += found
        if not np.isfinite(self.mu):
            hold = sum(float(np.vdot(slack.N, slack.inverse).real) for slack in self.slacks)
            self.mu = 1.0 / max(hold + self._ceiling_force, 1e-300)
            found = self.slacks
        for slack in found:
            slack.X = self.mu * slack.inverse
        return True

    @property
    def angles(self) -> list[float]:
        """Where the condition is asked."""
        return [slack.angle for slack in self.slacks]

    @property
    def gap(self) -> float:
        """Near the path no q has, at these angles, a level better by more than this."""
        products = sum(float(np.vdot(slack.X, slack.S).real) for slack in self.slacks)
        return products + self.mu * (len(self.q) + 1)

    @property
    def unbalance(self) -> float:
        """How far the dual matrices are from holding the level: 0 on the path."""
        hold = sum(float(np.vdot(slack.N, slack.X).real) for slack in self.slacks)
        return abs(hold + self.mu * self._ceiling_force - 1.0)

    @property
    def _ceiling_force(self) -> float:
        return 1.0 / (self.response.ceiling - self.strength) if self.climbing else 0.0

    def _slack(self, q: Array, strength: float, threshold: float, angle: float) -> Slack | None:
        gain, growth = (scaled(part, q) for part in self.response.at(strength, angle))
        eye = np.eye(len(q))
        R = threshold * eye - gain
        N = _hermitian(2.0 * growth) if self.climbing else 2.0 * eye
        try:
            lower = np.linalg.cholesky(R + R.conj().T)
        except np.linalg.LinAlgError:
            return None
        half = scipy.linalg.solve_triangular(lower, eye, lower=True, check_finite=False)
        inverse = half.conj().T @ half
        return Slack(angle, R, N, inverse, inverse) if np.isfinite(inverse).all() else None

    def prune(self, share: float) -> None:
        """Drop angles beside a heavier one, and those with less than a share of what holds the level; keep two."""
        ranked = sorted(self.slacks, key=lambda slack: -float(np.vdot(slack.N, slack.X).real))
        least = share * float(np.vdot(ranked[0].N, ranked[0].X).real)
        kept: list[Slack] = []
        for slack in ranked:
            beside = any(abs(slack.angle - other.angle) <= BESIDE * other.angle for other in kept)
            if len(kept) < 2 or (not beside and float(np.vdot(slack.N, slack.X).real) > least):
                kept.append(slack)
        self.slacks = sorted(kept, key=lambda slack: slack.angle)

    def channels(self) -> tuple[Array, Array]:
        """Sums over the angles of Re(G~ X)_ii and X_ii, shapes (m,)."""
        below = sum((np.diagonal(slack.X).real for slack in self.slacks), np.zeros(len(self.q)))
        rest = sum((np.einsum("ij,ji->i", slack.R, slack.X).real for slack in self.slacks), np.zeros(len(self.q)))
        return self.threshold * below - rest, below

    def step(self) -> bool:
        """One step, Mehrotra's predictor and corrector; False: it failed."""
        order = len(self.q) * len(self.slacks)
        now = self._products(None, 0.0, 0.0) / order
        system = self._newton(now)
        aim = self._direction(system, 0.0, None)
        if aim is None:
            return False
        free, held = self._lengths(aim)
        self.mu = now * min(max(self._products(aim, free, held) / (order * now), 0.01), 1.0) ** 2
        corrected = self._direction(system, self.mu, aim)
        return corrected is not None and self._advance(corrected)

    def _products(self, step: Direction | None, free: float, held: float) -> float:
        """Sum of trace(X S) after a step."""
        if step is None:
            return sum(float(np.vdot(slack.X, slack.S).real) for slack in self.slacks)
        pairs = zip(self.slacks, step.slack, step.dual, strict=True)
        return sum(float(np.vdot(slack.X + held * X, slack.S + free * S).real) for slack, S, X in pairs)

    def _newton(self, now: float) -> System:
        """The equations for (d, gain), and their right sides per unit of mu."""
        m, force = len(self.q), self._ceiling_force
        hessian, mixed, curvature = now * np.eye(m), np.zeros(m), now * force * force
        right, hold = np.ones(m), force
        for slack in self.slacks:
            R, X, Z = slack.R, slack.X, slack.inverse
            RX, RZ = R @ X, R @ Z
            RXR, RZR = RX @ R.conj().T, RZ @ R.conj().T
            hessian += (RX.T * RZ + X.T * RZR + RXR.T * Z + (RX * RZ.T).conj()).real
            XNZ = X @ slack.N @ Z
            mixed += _along(R, XNZ)
            right += 2.0 * np.diagonal(RZ).real
            hold += float(np.vdot(slack.N, Z).real)
            curvature += float(np.vdot(slack.N, XNZ).real)
        return System(hessian, mixed, curvature, right, hold)

    def _direction(self, system: System, mu: float, aim: Direction | None) -> Direction | None:
        """The step towards X S = mu I; with a predicted step, its product is allowed for."""
        right, last, products = mu * system.right, 1.0 - mu * system.hold, list[Matrix]()
        if aim is not None:
            for slack, S, X in zip(self.slacks, aim.slack, aim.dual, strict=True):
                products.append(_hermitian(X @ S @ slack.inverse))
                right = right - _along(slack.R, products[-1])
                last += float(np.vdot(slack.N, products[-1]).real)
        solved = _solve(system, right, last)
        if solved is None:
            return None
        move, gain = solved
        slacks, duals = [], []
        for k, slack in enumerate(self.slacks):
            half = move[:, None] * slack.R
            S = half + half.conj().T - gain * slack.N
            X = mu * slack.inverse - slack.X - _hermitian(slack.X @ S @ slack.inverse)
            slacks.append(S)
            duals.append(X - products[k] if aim is not None else X)
        return Direction(move, gain, slacks, duals)

    def _lengths(self, step: Direction) -> tuple[float, float]:
        """How far the two sides may go, as if G moved linearly with the strength."""
        bounds = [1.0, 0.95 / max(float(-step.move.min()), 1e-300)]
        if self.climbing:
            bounds.append(0.95 / max(step.gain * self._ceiling_force, 1e-300))
        free = _longest([slack.S for slack in self.slacks], step.slack, min(bounds))
        return free, _longest([slack.X for slack in self.slacks], step.dual, 1.0)

    def _advance(self, step: Direction) -> bool:
        """Move, each of the two sides as far as it stays inside."""
        free, held = self._lengths(step)
        for _ in range(TRIALS):
            q = self.q * (1.0 + free * step.move)
            strength = self.strength + free * step.gain * self.climbing
            threshold = self.threshold - free * step.gain * (not self.climbing)
            found = [self._slack(q, strength, threshold, angle) for angle in self.angles]
            fresh = [slack for slack in found if slack is not None]
            if len(fresh) == len(found):
                break
            free *= 0.6
        else:
            return False
        root = np.sqrt(q / self.q)
        for old, new, dual in zip(self.slacks, fresh, step.dual, strict=True):
            new.X = (old.X + held * dual) * (root[:, None] * root[None, :])
        self.q, self.strength, self.threshold, self.slacks = q, strength, threshold, fresh
        return True


def _longest(matrices: list[Matrix], moves: list[Matrix], most: float) -> float:
    """A length up to ``most``, short of where one of matrix + length move stops being positive definite."""
    length = most
    for matrix, move in zip(matrices, moves, strict=True):
        for _ in range(60):
            try:
                np.linalg.cholesky(matrix + length / SHORT * move)
            except np.linalg.LinAlgError:
                length *= 0.8
            else:
                break
    return length


def _hermitian(matrix: Matrix) -> Matrix:
    found: Matrix = 0.5 * (matrix + matrix.conj().T)
    return found


def _along(R: Matrix, Y: Matrix) -> Array:
    """trace of Y (e_i r_i + r_i^H e_i^T) for the rows r_i of R, real parts: how S moves with each multiplier."""
    return np.asarray(np.einsum("ij,ji->i", R, Y + Y.conj().T).real)


def _solve(system: System, right: Array, last: float) -> tuple[Array, float] | None:
    """Moves of q, of sum 0, and of the level; None: the equations are too near singular."""
    m = len(right)
    mixed = -system.mixed[:, None]
    whole = np.block([[system.hessian, mixed], [mixed.T, np.array([[system.curvature]])]])
    whole = 0.5 * (whole + whole.T)
    size = 1.0 / np.sqrt(np.maximum(np.diagonal(whole), 1e-300))
    whole = whole * size[:, None] * size[None, :] + 1e-14 * np.eye(m + 1)
    given, across = np.append(right, last) * size, np.append(np.ones(m), 0.0) * size
    try:
        factor = scipy.linalg.cho_factor(whole, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    direct, other = scipy.linalg.cho_solve(factor, np.column_stack([given, across]), check_finite=False).T
    step = (direct - (across @ direct) / (across @ other) * other) * size
    return (step[:m], float(step[m])) if np.isfinite(step).all() else None
