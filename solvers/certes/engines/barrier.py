"""Newton's method on a logarithmic barrier over the multipliers, for finitely many angles.

With q relative to the current point and G~ = Q^1/2 G Q^-1/2 the condition at an angle is

    S = threshold 2 I - G~ - G~^H > 0,    which moves by  diag(d) R + R^H diag(d) - step N,  R = threshold I - G~,

when q grows by the factors 1 + d and the level improves by ``step``. The level is either the strength, at threshold 1
(N = d G~ / d strength + its conjugate transpose), or minus the threshold, at a fixed strength (N = 2 I). What is
minimised is - level / mu - sum over angles of log det S - sum of log q, the multipliers normalised by a linear equation
(path following for generalised eigenvalue problems: S. Boyd, L. El Ghaoui, Linear Algebra Appl. 188 (1993);
Y. Nesterov, A. Nemirovskii, Interior-Point Polynomial Algorithms, SIAM 1994). At the minimum the matrices S^-1 / mu
solve the dual problem up to mu times the order of the barrier: that is the bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines.peaks import scaled
from certes.engines.response import Matrix, Response

Array = NDArray[np.float64]

#: Factor by which mu falls once the point is near the path.
FALL = 0.1
#: Backtracking: at most this many trials of a step.
TRIALS = 25


@dataclass(frozen=True, eq=False)
class Slack:
    """The condition at one angle: its matrices in scaled coordinates, and log det S."""

    R: Matrix
    N: Matrix
    lower: Matrix
    logdet: float


@dataclass(eq=False)
class Barrier:
    """A point of the path.

    Attributes:
        response: the system.
        q: multipliers, shape (m,).
        strength: the strength at which G is taken.
        threshold: see the module's docstring.
        angles: where the condition is asked.
        climbing: True: the level is the strength; False: it is minus the threshold.
        weight: of the linear equation that normalises q, shape (m,).
        mu: the weight of the barrier.
    """

    response: Response
    q: Array
    strength: float
    threshold: float
    angles: list[float]
    climbing: bool
    mu: float = np.inf
    weight: Array = field(init=False)
    slacks: list[Slack] = field(init=False)

    def __post_init__(self) -> None:
        """Raises ValueError unless the point is strictly inside."""
        self.weight = 1.0 / self.q
        slacks = self._slacks(self.q, self.strength, self.threshold)
        if slacks is None:
            raise ValueError("the point is not inside")
        self.slacks = slacks

    @property
    def order(self) -> float:
        """nu: near the path the level is within mu nu of the best for these angles."""
        return float(len(self.q) * (len(self.angles) + 1) + 1)

    @property
    def level(self) -> float:
        """What grows."""
        return self.strength if self.climbing else -self.threshold

    def _slack(self, q: Array, strength: float, threshold: float, angle: float) -> Slack | None:
        gain, growth = (scaled(part, q) for part in self.response.at(strength, angle))
        eye = np.eye(len(q))
        R = threshold * eye - gain
        N: Matrix = np.asarray(growth + growth.conj().T) if self.climbing else 2.0 * eye
        try:
            lower: Matrix = np.linalg.cholesky(R + R.conj().T)
        except np.linalg.LinAlgError:
            return None
        logdet = 2.0 * float(np.log(np.diagonal(lower).real).sum())
        return Slack(R, N, lower, logdet) if np.isfinite(logdet) else None

    def _slacks(self, q: Array, strength: float, threshold: float) -> list[Slack] | None:
        if self.climbing and not strength < self.response.ceiling:
            return None
        found: list[Slack] = []
        for angle in self.angles:
            slack = self._slack(q, strength, threshold, angle)
            if slack is None:
                return None
            found.append(slack)
        return found

    def _room(self, strength: float) -> float:
        """How far the strength is from the spectrum of A, in units of the size (climbing only)."""
        return (self.response.ceiling - strength) / self.response.size if self.climbing else 1.0

    def dual(self) -> tuple[list[Matrix], float]:
        """The matrices S^-1, and the least over the channels of sum Re(G~ S^-1)_ii / sum (S^-1)_ii.

        The second is a lower bound of the threshold for these angles at this strength.
        """
        found, above, below = [], np.zeros(len(self.q)), np.zeros(len(self.q))
        for slack in self.slacks:
            X = _inverse(slack.lower)
            found.append(X)
            below += np.diagonal(X).real
            above += self.threshold * np.diagonal(X).real - np.diagonal(slack.R @ X).real
        return found, float((above / below).min())

    def prune(self, share: float) -> None:
        """Drop the angles that carry less than a share of the dual solution, but keep two."""
        weights = np.array([float(np.linalg.norm(_inverse(slack.lower))) for slack in self.slacks])
        kept = [k for k in range(len(weights)) if weights[k] > share * weights.max() or k in np.argsort(weights)[-2:]]
        self.angles = [self.angles[k] for k in kept]
        self.slacks = [self.slacks[k] for k in kept]

    def step(self) -> float:
        """One damped Newton step; returns Newton's decrement before it (inf: the step failed)."""
        m = len(self.q)
        gradient, hessian, mixed = np.full(m, -1.0), np.eye(m), np.zeros(m)
        slope, curvature = 0.0, 0.0
        if self.climbing:
            slope = 1.0 / (self._room(self.strength) * self.response.size)
            curvature = slope * slope
        for slack in self.slacks:
            X = _inverse(slack.lower)
            RX, XN = slack.R @ X, X @ slack.N
            RXR = RX @ slack.R.conj().T
            gradient -= 2.0 * np.diagonal(RX).real
            hessian += 2.0 * (RX * RX.T + X.T * RXR).real
            mixed -= 2.0 * np.einsum("ij,ji->i", RX, slack.N @ X).real
            slope += float(np.trace(XN).real)
            curvature += float(np.einsum("ij,ji->", XN, XN).real)
        if not np.isfinite(self.mu):
            self.mu = 1.0 / slope
        move, gain, decrement = _newton(
            hessian, mixed, curvature, gradient, slope - 1.0 / self.mu, self.weight * self.q
        )
        return decrement if self._search(move, gain, decrement) else np.inf

    def _merit(self, q: Array, strength: float, threshold: float, slacks: list[Slack]) -> float:
        level = (strength - self.strength) if self.climbing else (self.threshold - threshold)
        # log det of 2 Q - Q G - G^H Q is that of S plus the sum of log q, at every angle
        logs = sum(slack.logdet for slack in slacks) + (len(slacks) + 1) * float(np.log(q / self.q).sum())
        return -level / self.mu - logs - float(np.log(self._room(strength)))

    def _search(self, move: Array, gain: float, decrement: float) -> bool:
        """Backtrack along a direction until the merit falls; False: it does not."""
        if not (np.isfinite(move).all() and np.isfinite(gain)):
            return False
        before = self._merit(self.q, self.strength, self.threshold, self.slacks)
        length = min(1.0, 0.95 / max(float(-move.min()), 1e-300))
        for _ in range(TRIALS):
            q = self.q * (1.0 + length * move)
            strength = self.strength + length * gain if self.climbing else self.strength
            threshold = self.threshold if self.climbing else self.threshold - length * gain
            slacks = self._slacks(q, strength, threshold)
            if slacks is not None:
                after = self._merit(q, strength, threshold, slacks)
                if after <= before - 0.05 * length * decrement**2 + 1e-12 * abs(before):
                    self.q, self.strength, self.threshold, self.slacks = q, strength, threshold, slacks
                    return True
            length *= 0.5
        return False


def _inverse(lower: Matrix) -> Matrix:
    half = scipy.linalg.solve_triangular(lower, np.eye(len(lower)), lower=True, check_finite=False)
    return np.asarray(half.conj().T @ half)


def _newton(
    hessian: Array, mixed: Array, curvature: float, gradient: Array, slope: float, normal: Array
) -> tuple[Array, float, float]:
    """Minimise the quadratic model over moves of q and of the level with normal . move = 0; with the decrement."""
    m = len(gradient)
    whole = np.block([[hessian, mixed[:, None]], [mixed[None, :], np.array([[curvature]])]])
    size = 1.0 / np.sqrt(np.maximum(np.diagonal(whole), 1e-300))
    whole = whole * size[:, None] * size[None, :] + 1e-13 * np.eye(m + 1)
    right = np.append(gradient, slope) * size
    across = np.append(normal, 0.0) * size
    try:
        factor = scipy.linalg.cho_factor(whole, check_finite=False)
    except np.linalg.LinAlgError:
        return np.full(m, np.nan), np.nan, np.inf
    direct, other = scipy.linalg.cho_solve(factor, np.column_stack([right, across]), check_finite=False).T
    step = -(direct - (across @ direct) / (across @ other) * other)
    decrement = float(np.sqrt(max(-(right @ step), 0.0)))
    return step[:m] * size[:m], float(step[m] * size[m]), decrement
