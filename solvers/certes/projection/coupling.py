"""The nearest linear coupling that given room allows, in whitened coordinates: closed form, and with a pattern.

Modules with metrics M_i = R_i^T R_i and rates c_i, coupled by L, keep the rate c in the metric diag(M_i) iff, with
R = blkdiag(R_i), X = R L R^-1 and the room C = diag(c_i - c),

    C - (X + X^T) / 2 >= 0.

Without a pattern the nearest such X has the closed form X - (sym(X) - C)_+: only the symmetric part is clipped. It
fills the blocks that were zero. With a pattern (entries of L that must stay) the nearest point of the intersection is
asked for; alternating projections with Dykstra's correction are gradient ascent with step 1 on its dual,

    max over Z >= 0 of <Z, sym(X0) - C> - norm(P Z)^2 / 2,        X = X0 - P Z,

P the orthogonal projector on the moves that the pattern allows (R. Dykstra 1983; duality: N. Gaffke, R. Mathar 1989).
Measured in norm_F(L' - L) instead, P Z becomes R (mask o R^T Z R^-T) R^-1, norm(P Z)^2 becomes <Z, P Z>, and the step
one over the largest singular value of that map.
Nesterov's momentum with restarts takes the same steps faster; the dual's value bounds the distance from below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg

from certes.engines.monitor import Monitor

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Numbers in the factor of a masked block up to which it is formed (32 MB); above, conjugate gradients.
_DENSE = 4_000_000
#: Relative gap between distance and lower bound at which the search ends, its steps, and how often the gap is taken.
_GAP, _STEPS, _EVERY = 1e-8, 20000, 10
#: The search ends as well when the bound has grown by less than this, relative, within so many steps.
_GROWTH, _PATIENCE = 1e-10, 1000
#: Largest abs(log s) of a module's scale.
_SPREAD = 60.0
#: Power iterations for the step.
_POWERS = 100


def symmetric(matrix: Array) -> Array:
    """(X + X^T) / 2."""
    return 0.5 * (matrix + matrix.T)


def positive_part(matrix: Array) -> Array:
    """The nearest positive semidefinite matrix to a symmetric one."""
    values, vectors = np.linalg.eigh(matrix)
    kept = vectors[:, values > 0.0]
    return np.asarray((kept * values[values > 0.0]) @ kept.T)


def clipped(coupling: Array, room: Array) -> Array:
    """The nearest X with C - sym(X) >= 0 in the Frobenius norm, where every entry may move.

    Args:
        coupling: X, shape (N, N), in whitened coordinates.
        room: the diagonal of C, shape (N,).
    """
    return coupling - positive_part(symmetric(coupling) - np.diag(room))


def excess(coupling: Array, room: Array) -> float:
    """lambda_max(sym(X) - C): at most 0 iff the coupling fits the room."""
    return float(np.linalg.eigvalsh(symmetric(coupling) - np.diag(room))[-1])


class _Block:
    """One masked block: least squares on its movable entries, in the whitened norm."""

    def __init__(self, rows: slice, columns: slice, left: Array, right: Array, mask: Mask) -> None:
        """Factor the map from movable entries d to left @ D @ right."""
        self.rows, self.columns, self.left, self.right, self.mask = rows, columns, left, right, mask
        self.at = np.nonzero(mask)
        self.factor: tuple[Array, Array] | None = None
        if len(self.at[0]) * mask.size <= _DENSE:
            images = left[:, None, self.at[0]] * right[self.at[1], :].T[None, :, :]
            basis, triangle = np.linalg.qr(images.reshape(mask.size, -1))
            self.factor = (basis, triangle)

    def solve(self, target: Array) -> Array:
        """The supported D that brings left @ D @ right closest to ``target``."""
        moved = np.zeros(self.mask.shape)
        if self.factor is not None:
            basis, triangle = self.factor
            moved[self.at] = np.linalg.solve(triangle, basis.T @ target.reshape(-1))
            return moved
        gram_left, gram_right = self.left.T @ self.left, self.right @ self.right.T

        def normal(entries: Array) -> Array:
            spread = np.zeros(self.mask.shape)
            spread[self.at] = np.ravel(entries)
            return np.asarray((gram_left @ spread @ gram_right)[self.at])

        count = len(self.at[0])
        weight = 1.0 / (np.diag(gram_left)[self.at[0]] * np.diag(gram_right)[self.at[1]])
        scale = LinearOperator((count, count), matvec=lambda entries: weight * np.ravel(entries), dtype=np.float64)
        operator = LinearOperator((count, count), matvec=normal, dtype=np.float64)
        sides = (self.left.T @ target @ self.right.T)[self.at]
        moved[self.at] = cg(operator, sides, rtol=1e-12, maxiter=2000, M=scale)[0]
        return moved

    def project(self, target: Array) -> Array:
        """The image left @ D @ right closest to ``target``."""
        if self.factor is not None:
            basis = self.factor[0]
            return np.asarray((basis @ (basis.T @ target.reshape(-1))).reshape(target.shape))
        return np.asarray(self.left @ self.solve(target) @ self.right)


class Pattern:
    """Which entries of L may move, and the way to whitened coordinates and back.

    Attributes:
        root, inverse: R = blkdiag(R_i) and R^-1, shape (N, N).
        movable: shape (N, N).
    """

    def __init__(self, roots: Sequence[Array], movable: Mask, *, whitened: bool = True) -> None:
        """Sort the blocks into free, fixed and masked ones.

        Args:
            roots: R_i, upper triangular, shape (n_i, n_i).
            movable: which entries of L may move, shape (N, N).
            whitened: whether moves are measured as R D R^-1, or as they are.
        """
        self.movable, self.whitened = movable, whitened
        self.root, self.inverse = np.zeros(movable.shape), np.zeros(movable.shape)
        ends = np.cumsum([len(root) for root in roots])
        slices = [slice(int(end) - len(root), int(end)) for end, root in zip(ends, roots, strict=True)]
        for part, root in zip(slices, roots, strict=True):
            self.root[part, part], self.inverse[part, part] = root, np.linalg.inv(root)
        self._free = np.zeros(movable.shape, dtype=np.bool_)
        self._masked: list[_Block] = []
        for rows in slices:
            for columns in slices:
                mask = movable[rows, columns]
                if mask.all():
                    self._free[rows, columns] = True
                elif mask.any() and whitened:
                    left, right = self.root[rows, rows], self.inverse[columns, columns]
                    self._masked.append(_Block(rows, columns, left, right, mask))

    def whiten(self, weights: Array) -> Array:
        """X = R L R^-1."""
        return np.asarray(self.root @ weights @ self.inverse)

    def length(self, move: Array) -> float:
        """How long a move is, given whitened."""
        return float(np.linalg.norm(move if self.whitened else self.inverse @ move @ self.root))

    def project(self, dual: Array) -> Array:
        """The move that a dual Z asks for: the nearest to Z that the pattern allows, both whitened."""
        if not self.whitened:
            return self.whiten(np.where(self.movable, self.root.T @ dual @ self.inverse.T, 0.0))
        move = dual
        allowed = np.where(self._free, move, 0.0)
        for block in self._masked:
            allowed[block.rows, block.columns] = block.project(move[block.rows, block.columns])
        return allowed

    def step(self) -> float:
        """The step of the dual ascent: one over the norm of its Hessian, which power iteration finds to 10 %."""
        if self.whitened:
            return 1.0
        norm, image = 0.0, symmetric(np.random.default_rng(0).standard_normal(self.movable.shape))
        for _ in range(_POWERS):
            size = float(np.linalg.norm(image))
            if size == 0.0:
                return 1.0
            image = symmetric(self.project(image / size))
            norm = float(np.linalg.norm(image))
        return 1.0 / (1.1 * norm) if norm > 0.0 else 1.0

    def weights(self, move: Array) -> Array:
        """The same in the coordinates of L, exactly 0 where nothing may move."""
        if not self.whitened:
            return np.where(self.movable, self.inverse @ move @ self.root, 0.0)
        moved = np.where(self._free, self.inverse @ np.where(self._free, move, 0.0) @ self.root, 0.0)
        for block in self._masked:
            moved[block.rows, block.columns] = block.solve(move[block.rows, block.columns])
        return moved


@dataclass(frozen=True, eq=False)
class Nearest:
    """Where the search for the nearest coupling came to.

    Attributes:
        move: X - X0 in whitened coordinates, of the pattern; it may exceed the room by rounding and what is left of the
            gap.
        bound: no coupling of the pattern that fits the room is nearer (weak duality, in floating point).
        steps: steps taken.
    """

    move: Array
    bound: float
    steps: int


def nearest(
    pattern: Pattern, start: Array, room: Array, anchor: Array | None, monitor: Monitor, steps: int = _STEPS
) -> Nearest:
    """The nearest coupling that fits the room and keeps the pattern.

    Args:
        pattern: what may move.
        start: X0 in whitened coordinates, shape (N, N).
        room: the diagonal of C, shape (N,), positive.
        anchor: a move of the pattern to a coupling that fits the room strictly, if one is known, to take the gap with.
        monitor: ends the search.
        steps: the most steps to take.
    """
    gradient = symmetric(start) - np.diag(room)
    inner = 0.0 if anchor is None else -excess(start + anchor, room)
    dual = ahead = np.zeros(start.shape)
    image = image_ahead = np.zeros(start.shape)
    momentum, best, taken, step = 1.0, 0.0, 0, pattern.step()
    grown, when = 0.0, 0
    for taken in range(1, steps + 1):
        slope = gradient - symmetric(image_ahead)
        stepped = positive_part(ahead + step * slope)
        new_image = pattern.project(stepped)
        faster = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        forward = (momentum - 1.0) / faster
        if np.vdot(ahead - stepped, stepped - dual) > 0.0:  # the momentum points downhill: drop it
            faster, forward = 1.0, 0.0
        ahead = stepped + forward * (stepped - dual)
        image_ahead = new_image + forward * (new_image - image)
        dual, image, momentum = stepped, new_image, faster
        if taken % _EVERY == 0 or taken == steps:
            value = 2.0 * float(np.vdot(dual, gradient)) - float(np.vdot(dual, image))
            best = max(best, float(np.sqrt(max(value, 0.0))))
            if best > (1.0 + _GROWTH) * grown:
                grown, when = best, taken
            if monitor.over or taken - when >= _PATIENCE or _closed(pattern, start, room, image, anchor, inner, best):
                break
    return Nearest(-image, best, taken)


def _closed(
    pattern: Pattern, start: Array, room: Array, image: Array, anchor: Array | None, inner: float, bound: float
) -> bool:
    """Whether the point pulled to the anchor until it fits is as near as the bound says."""
    over = excess(start - image, room)
    if anchor is None:
        return over <= _GAP * float(room.min())
    pull = pull_share(over, inner)
    distance = pattern.length(pull * anchor - (1.0 - pull) * image)
    return distance <= (1.0 + _GAP) * bound


def pull_share(over: float, inner: float) -> float:
    """How far towards an anchor with margin ``inner`` a point that exceeds the room by ``over`` must go (convexity)."""
    return 0.0 if over <= 0.0 else over / (over + inner)


def shares(first: float, least: float) -> Iterator[float]:
    """Shares of the way to the anchor, ascending from ``first`` to 1, by which a coupling may be pulled to it.

    Args:
        first: the share at which it fits in exact arithmetic.
        least: the smallest further share to go, relative to the rest of the way.
    """
    powers = [10.0 ** (0.5 * k) for k in range(-24, -1)]
    backs = [*(back for back in powers if back > least), 0.5, *(1.0 - 10.0 ** (-0.5 * k) for k in range(1, 33))]
    for back in (least, *backs, 1.0):
        yield 1.0 - (1.0 - first) * (1.0 - back)


def strain(coupling: Array, room: Array) -> float:
    """lambda_max(C^-1/2 sym(X) C^-1/2): at most 1 iff the coupling fits, and what to divide it by to make it fit."""
    root = np.sqrt(room)
    return float(np.linalg.eigvalsh(symmetric(coupling / root[:, None] / root[None, :]))[-1])


def balanced(coupling: Array, room: Array, sizes: Sequence[int]) -> Array:
    """Scales s_i of the modules' metrics in which the strain is least; deterministic.

    The strain of S^1/2 X S^-1/2 is quasi-convex in log(s). It is minimised through a smooth bound, the logarithm of a
    sum of exponentials, ever sharper.

    Args:
        coupling: X in the coordinates of scales 1, shape (N, N).
        room: the diagonal of C, shape (N,).
        sizes: states of each module, k of them.

    Returns:
        s, shape (k,).
    """
    root = np.sqrt(room)
    weights = coupling / root[:, None] / root[None, :]
    owner = np.repeat(np.arange(len(sizes)), sizes)

    def smooth(logs: Array, width: float) -> tuple[float, Array]:
        half = 0.5 * logs[owner]
        scaled = weights * np.exp(half[:, None] - half[None, :])
        values, vectors = np.linalg.eigh(symmetric(scaled))
        share = np.exp((values - values[-1]) / width)
        total = float(share.sum())
        flow = ((vectors * (share / total)) @ vectors.T) * scaled
        slope = 0.5 * np.bincount(owner, flow.sum(axis=1) - flow.sum(axis=0), len(sizes))
        return float(values[-1]) + width * float(np.log(total)), np.asarray(slope, dtype=np.float64)

    logs, bounds = np.zeros(len(sizes)), [(-_SPREAD, _SPREAD)] * len(sizes)
    unit = max(strain(coupling, room), 1.0)
    for width in (0.1, 1e-2, 1e-3, 1e-4, 1e-5):
        found = minimize(smooth, logs, (width * unit,), jac=True, method="L-BFGS-B", bounds=bounds)
        logs = np.asarray(found.x) - float(np.mean(found.x))
        unit = max(min(unit, float(found.fun)), 1e-3)
    return np.exp(logs)
