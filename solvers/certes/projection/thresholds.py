"""Many small convex problems at once: the nearest rows whose weighted absolute values and own function are bounded.

In row i the entries off the diagonal are |W'_j| = c_j max(|W_j| / c_j - m, 0) for a multiplier m >= 0, and the diagonal
entry follows the proximal path of m h for a maximum h of affine functions: down the pieces of h, resting at its kinks.
Each piece of slope s is thresholded alike: it adds s clip(p - m, 0, q) to W'_ii, up to sign, and s^2 clip(p - m, 0, q)
to h. So the constrained sum is piecewise linear and falling in m; :func:`search` finds where it meets its bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.integer[Any]]

#: Newton steps between two moves of the zero point, and such moves.
_ROUNDS, _PASSES = 14, 12
#: Unit in the last place of 1.
EPS = 2.0**-52


@dataclass(frozen=True, eq=False)
class Own:
    """The paths of the diagonal entries, in units of the weights; every array has shape (n,) unless said.

    Attributes:
        lines: slopes and offsets of the affine functions whose maximum is h, shape (2, pieces, n).
        value: W_ii.
        sign: the path is value -> sign * (end + ...), see the module's docstring.
        end: sign * the last point of the path: where h is smallest, or 0 where h has no smallest value.
        level: h at the last point.
        slope, place, length: s, p and q of the last and the last but one piece, shape (2, n); 0 for no piece.
        floor: lower end of the clip, 0, or -inf on the last piece where h has no smallest value, shape (2, n).
    """

    lines: Array
    value: Array
    sign: Array
    end: Array
    level: Array
    slope: Array
    place: Array
    length: Array
    floor: Array

    @classmethod
    def of(cls, lines: Array, value: Array, movable: Mask) -> Own:
        """The paths; entries that may not move get none."""
        slopes, offsets = lines
        up, down = slopes > 0.0, slopes < 0.0
        bottom = np.where(up | down, -np.inf, offsets).max(axis=0)
        for i in range(len(slopes)):
            for j in range(len(slopes)):
                cross = (slopes[j] * offsets[i] - slopes[i] * offsets[j]) / (slopes[j] - slopes[i])
                bottom = np.where(down[i] & up[j], np.maximum(bottom, cross), bottom)
        right = np.where(up, (bottom - offsets) / slopes, np.inf).min(axis=0)
        left = np.where(down, (bottom - offsets) / slopes, -np.inf).max(axis=0)
        sign = np.where(value > right, 1.0, -1.0)
        moves = movable & ((value > right) | (value < left))
        endless = moves & np.isinf(bottom)
        end = np.where(endless, 0.0, np.where(sign > 0, right, -left))
        end = np.where(moves, end, sign * value)
        level = np.where(moves, np.where(endless, 0.0, bottom), _envelope(lines, value))
        slope, place, length = _pieces(np.stack([sign * slopes, offsets]), sign * value, end, endless)
        slope, place, length = (np.where(moves, part, 0.0) for part in (slope, place, length))
        floor = np.stack([np.where(endless, -np.inf, 0.0), np.zeros_like(value)])
        return cls(lines, value, sign, end, level, slope, place, length, floor)

    def height(self, values: Array) -> Array:
        """h, shape (n,)."""
        return _envelope(self.lines, values)

    @property
    def endless(self) -> Mask:
        """Where h can be made as small as one likes, shape (n,)."""
        return np.asarray(self.floor[0] == -np.inf)


def _envelope(lines: Array, values: Array) -> Array:
    return np.asarray((lines[0] * values + lines[1]).max(axis=0))


def _pieces(lines: Array, top: Array, end: Array, endless: Mask) -> tuple[Array, Array, Array]:
    """Slope, place and length of the at most two rising pieces of h between ``end`` and ``top``, shapes (2, n)."""
    order = np.argsort(-lines[0], axis=0, kind="stable")[:2]
    (steep, flat), (steep_at, flat_at) = (np.take_along_axis(part, order, axis=0) for part in lines)
    kink = (flat_at - steep_at) / (steep - flat)
    bottom = np.where(endless, -np.inf, end)
    same = steep == flat
    # which of the two lines is above on the way: only the steep one, only the flat one, or both in turn
    only_steep = (flat <= 0.0) | (same & (steep_at >= flat_at)) | (~same & (kink <= bottom))
    only_flat = ~only_steep & (same | (kink >= top))
    last = np.where(only_steep, steep, flat)
    between = np.where(only_steep | only_flat, top, kink)
    slope = np.stack([last, np.where(only_steep | only_flat, 0.0, steep)])
    place = np.stack([(top - end) / last, (top - between) / steep])
    return slope, place, np.stack([(between - end) / last, (top - between) / steep])


def row_maxima(rows: NDArray[np.intp], values: Array, n: int) -> Array:
    """Largest value of each row, -inf for empty ones; ``rows`` ascending."""
    out = np.full(n, -np.inf)
    if len(rows):
        starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
        out[rows[starts]] = np.maximum.reduceat(values, starts)
    return out


def added(rows: Indices, values: Array, n: int) -> Array:
    """Sums of the values with the same row, shape (n,); float also for no values at all."""
    return np.bincount(rows, weights=values, minlength=n).astype(np.float64, copy=False)


def search(
    rows: NDArray[np.intp], c: Array, place: Array, own: Own, target: Array, active: Mask
) -> tuple[Array, Array, Array]:
    """Multipliers at which the rows' sums meet their targets: at most the target, and less by rounding alone.

    Newton's method from the left, which does not overshoot where the sum is convex, inside a bracket for where it is
    not (at kinks of h). What is left of an entry far beyond its bound is a small difference, |W_ij| / c_ij minus the
    multiplier: so everything is measured from a zero point near the multiplier, which is moved when the search ends in
    rounding, and every difference keeps its relative accuracy.

    Args:
        rows: row of each off-diagonal entry, ascending.
        c: its coefficient.
        place: its threshold |W_ij| / c_ij, -inf for entries that may not move.
        own: the diagonal's paths.
        target: what each row's sum may be; shape (n,).
        active: the rows to look at, whose sums at multiplier 0 are too large.

    Returns:
        (thresholds minus multiplier, off the diagonal; the same for the two pieces, shape (2, n); the multiplier).
    """
    n = len(target)
    weight = c * c
    pieces = np.where((own.slope > 0.0) & (own.length > 0.0), own.place, 0.0)
    top = np.maximum(row_maxima(rows, place, n), pieces.max(axis=0)).clip(0.0)
    beyond = np.where(own.endless, own.place[0] - target / own.slope[0] ** 2, 0.0)
    highest = np.maximum(top, beyond * (1.0 + 8.0 * EPS))
    upper_half = active & (_Sums(rows, weight, place, own, own.place).at(0.5 * top)[0] > target)
    zero = np.where(upper_half, top, 0.0)
    low = np.where(upper_half, -0.5 * top, 0.0)
    bracket = _Bracket(low, np.where(upper_half, highest - top, 0.5 * top), active.copy())
    slack = np.asarray((np.bincount(rows, minlength=n) + 16.0) * EPS * np.abs(target), dtype=np.float64)
    place, own_place = place - zero[rows], own.place - zero
    for _ in range(_PASSES):
        bracket.close_in(_Sums(rows, weight, place, own, own_place), target, slack)
        if not bracket.open.any():
            break
        shift = np.where(bracket.open, bracket.low, 0.0)
        place, own_place, zero = place - shift[rows], own_place - shift, zero + shift
        bracket.low, bracket.high = bracket.low - shift, bracket.high - shift
    rest = np.where(active, bracket.high, 0.0)
    return place - rest[rows], own_place - rest, zero + rest


@dataclass(eq=False)
class _Bracket:
    """Multipliers at which the sums are too large (``low``), and small enough (``high``); rows not yet settled."""

    low: Array
    high: Array
    open: Mask

    def close_in(self, sums: _Sums, target: Array, slack: Array) -> None:
        """Until sums are within twice ``slack`` below the target, the brackets empty, or nothing more is gained."""
        at, going = self.low, self.open.copy()
        for step in range(_ROUNDS):
            sums.keep(going, self.low)
            value, slope, moment = sums.at(at)
            fits = value <= target
            self.high, self.low = np.where(fits & going, at, self.high), np.where(~fits & going, at, self.low)
            settled = going & fits & (value >= target - 2.0 * slack)
            self.open &= ~settled
            going &= ~settled
            newton = at + (value - (target - slack)) / slope
            # the same step without the difference of large numbers, for targets that are tiny beside ``at``
            other = (moment - (target - slack)) / slope
            newton = np.where(self._inside(newton), newton, other)
            at = np.where(self._inside(newton) & (step % 8 != 7), newton, 0.5 * (self.low + self.high))
            going &= self._inside(at)
            if not going.any():
                return

    def _inside(self, multiplier: Array) -> Mask:
        return np.asarray((multiplier > self.low) & (multiplier < self.high))


class _Sums:
    """The left sides of the rows' constraints as functions of the multiplier."""

    def __init__(self, rows: NDArray[np.intp], weight: Array, place: Array, own: Own, own_place: Array) -> None:
        self.rows, self.weight, self.place = rows, weight, place
        self.own_weight, self.own_place = own.slope**2, own_place
        self.length, self.floor = own.length, own.floor

    def at(self, multiplier: Array) -> tuple[Array, Array, Array]:
        """Values, minus their slopes to the right, and where that tangent meets multiplier 0; shapes (n,)."""
        n = len(multiplier)
        on = self.place > multiplier[self.rows]
        weight, place = np.where(on, self.weight, 0.0), np.where(on, self.place, 0.0)
        value = added(self.rows, weight * (place - multiplier[self.rows]), n)
        own = self.own_place - multiplier
        moving = (own > self.floor) & (own <= self.length)
        # a piece that is not there has length 0 and weight 0
        climb = self.own_weight * np.clip(own, self.floor, self.length)
        slope = added(self.rows, weight, n) + np.where(moving, self.own_weight, 0.0).sum(axis=0)
        tangent = added(self.rows, weight * place, n)
        tangent += np.where(moving, self.own_weight * self.own_place, climb).sum(axis=0)
        return value + climb.sum(axis=0), slope, tangent

    def keep(self, open_rows: Mask, low: Array) -> None:
        """Drop entries that matter no more, if they are many: finished rows, and entries that are 0 from ``low`` on."""
        live = open_rows[self.rows] & (self.place > low[self.rows])
        if 2 * np.count_nonzero(live) < len(live):
            self.rows, self.weight, self.place = self.rows[live], self.weight[live], self.place[live]
