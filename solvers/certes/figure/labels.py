"""Names beside the circles of a picture, where they cover no circle, no box and no other name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Inches between a circle and its name; further away if there is no room.
_GAPS = (0.02, 0.05, 0.09)
#: Directions that are tried after the outward one, in degrees: below, above, right, left, and between.
_DIRECTIONS = (270, 90, 0, 180, 315, 225, 45, 135, 292, 248, 68, 112)
#: Name and circle are kept apart by at least this, in inches.
_CLEAR = 0.008


@dataclass(frozen=True, eq=False)
class Label:
    """A text in its place.

    Attributes:
        text: as it is written.
        centre: of its rectangle.
        width, height: of its rectangle before it is turned.
        angle: in degrees, counterclockwise.
    """

    text: str
    centre: Array
    width: float
    height: float
    angle: float

    def corners(self) -> Array:
        """Of the turned rectangle, shape (4, 2)."""
        x, y = 0.5 * self.width, 0.5 * self.height
        return self.centre + np.array([[-x, -y], [x, -y], [x, y], [-x, y]]) @ self._axes()

    def within(self, points: Array) -> Array:
        """Points in the frame of the rectangle: shape (..., 2), the rectangle is abs <= (width, height) / 2."""
        return np.asarray((points - self.centre) @ self._axes().T)

    def _axes(self) -> Array:
        turn = np.deg2rad(self.angle)
        return np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])

    def distance(self, points: Array) -> Array:
        """Distance of points to the rectangle, shape (...)."""
        beyond = np.maximum(np.abs(self.within(points)) - 0.5 * np.array([self.width, self.height]), 0.0)
        return np.asarray(np.linalg.norm(beyond, axis=-1))

    def overlaps(self, other: Label) -> bool:
        """Whether two rectangles have a common point: no side of either separates them."""
        reach = self.width + self.height + other.width + other.height
        if np.abs(self.centre - other.centre).max() > 0.5 * reach:
            return False
        for first, second in ((self, other), (other, self)):
            corners = first.within(second.corners())
            half = 0.5 * np.array([first.width, first.height])
            if (corners.min(axis=0) > half).any() or (corners.max(axis=0) < -half).any():
                return False
        return True


@dataclass(frozen=True, eq=False)
class Obstacles:
    """What names keep clear of.

    Attributes:
        centres, halves: of circles and boxes, shapes (k, 2); of a circle the radius, twice.
        boxes: which of them are boxes, shape (k,).
        points: of curves, shape (m, 2): crossed if there is no better place.
    """

    centres: Array
    halves: Array
    boxes: NDArray[np.bool_]
    points: Array

    def blocks(self, label: Label) -> bool:
        """Whether a circle or a box is in the way."""
        circles = self.centres[~self.boxes]
        if (label.distance(circles) < self.halves[~self.boxes, 0] + _CLEAR).any():
            return True
        corners = label.corners()
        low, high = corners.min(axis=0), corners.max(axis=0)
        centres, halves = self.centres[self.boxes], self.halves[self.boxes]
        return bool(((low < centres + halves) & (high > centres - halves)).all(axis=1).any())

    def crossed(self, label: Label) -> int:
        """Points of curves under a label."""
        return int((label.distance(self.points) < 0.005).sum())


def place_labels(
    texts: Sequence[tuple[int, str, float]],
    height: float,
    obstacles: Obstacles,
    *,
    middle: Array,
    outwards: bool,
    radial: bool,
) -> list[Label]:
    """A place for each name; a name without room is left out.

    Args:
        texts: index of the circle, name, its width in inches.
        height: of a line.
        obstacles: circles, boxes and curves.
        middle: of the picture: outwards is away from it.
        outwards: try that first; else below.
        radial: turn names into the direction outwards, for many on a circle.
    """
    found: list[Label] = []
    for index, text, width in texts:
        centre, radius = obstacles.centres[index], float(obstacles.halves[index, 0])
        outward = centre - middle if outwards else np.zeros(2)
        best, least = None, 10**9
        for label in _candidates(text, centre, radius, outward, (width, height), radial):
            if obstacles.blocks(label) or any(label.overlaps(other) for other in found):
                continue
            crossed = obstacles.crossed(label)
            if crossed < least:
                best, least = label, crossed
            if crossed == 0:
                break
        if best is not None:
            found.append(best)
    return found


def _candidates(
    text: str, centre: Array, radius: float, outward: Array, size: tuple[float, float], radial: bool
) -> Iterator[Label]:
    angle = float(np.degrees(np.arctan2(outward[1], outward[0]))) if np.linalg.norm(outward) > 1e-6 else 270.0
    for gap in _GAPS:
        if radial:
            along = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
            turned = angle if abs(angle) <= 90.5 else angle - 180.0 * np.sign(angle)
            yield Label(text, centre + (radius + gap + 0.5 * size[0]) * along, *size, float(turned))
        for direction in (*((angle,) if not radial else ()), *_DIRECTIONS):
            yield _beside(text, centre, radius + gap, direction, size)


def _beside(text: str, centre: Array, distance: float, direction: float, size: tuple[float, float]) -> Label:
    """An upright label that touches a circle of the given radius in the given direction."""
    along = np.array([np.cos(np.deg2rad(direction)), np.sin(np.deg2rad(direction))])
    along[np.abs(along) < 1e-9] = 0.0
    half = 0.5 * np.array(size)
    low, high = 0.0, float(half.sum()) + 1e-9
    for _ in range(30):  # the least shift that brings the rectangle out of the circle
        shift = 0.5 * (low + high)
        nearest = np.maximum(np.abs((distance + shift) * along) - half, 0.0)
        low, high = (low, shift) if float(np.linalg.norm(nearest)) >= distance else (shift, high)
    return Label(text, centre + (distance + high) * along, *size, 0.0)
