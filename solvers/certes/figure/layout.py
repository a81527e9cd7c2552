"""Where the modules of an assembly stand: by the shape of the graph, the same for the same graph, numpy only.

A star (hub) and a ring stand on a circle, as does a small or nearly complete graph; a graph without cycles in layers
by longest path from its sources (Sugiyama, Tagawa and Toda 1981, with barycentres for the order inside a layer); any
other by springs (Fruchterman and Reingold 1991) from a fixed start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Kind = Literal["line", "circle", "star", "layers", "springs", "grid"]

#: Up to this many modules any graph with cycles stands on a circle; up to this many without couplings too.
_FEW, _LOOSE = 8, 12
#: Share of coupled pairs from which a graph counts as complete, and the most modules that a circle takes.
_COMPLETE, _ROUND = 0.8, 60
#: Most layers, and most modules in one, that stay legible.
_LAYERS = 14
#: Steps of the springs, fewer for more modules; the start is seeded.
_STEPS, _MANY_STEPS, _SEED = 400, 60, 20220701
#: Pull to the middle, and how evenly positions are spread afterwards (0: not, 1: by their ranks alone).
_GRAVITY, _EVEN = 0.6, 0.5
#: Rounds of pushing apart, fewer for more modules.
_PUSHES, _MANY_PUSHES, _MANY = 300, 25, 200


@dataclass(frozen=True, eq=False)
class Layout:
    """Positions of modules.

    Attributes:
        kind: what they were placed by.
        positions: shape (k, 2), y upwards, inside the unit square and filling it (a line: only its width).
        order: the circle's order of modules; else their own.
        rows: modules in the fullest layer (layers), rows (grid), else 1.
        columns: layers, or columns.
    """

    kind: Kind
    positions: Array
    order: Sequence[int]
    rows: int = 1
    columns: int = 1


def layout(count: int, arrows: Sequence[tuple[int, int]]) -> Layout:
    """Place ``count`` modules.

    Args:
        count: k, at least 1.
        arrows: (to, from) as positions.
    """
    directed = np.zeros((count, count), dtype=np.bool_)
    for to, source in arrows:
        directed[to, source] = True
    linked = directed | directed.T
    degrees = linked.sum(axis=0)
    hub = _hub(linked, degrees)
    if count <= 2:
        return _line(count)
    if hub is not None:
        return _star(count, hub)
    layers = _layers(directed) if arrows else None
    if layers is not None and max(layers) < _LAYERS and int(np.bincount(layers).max()) <= _LAYERS:
        return _layered(linked, layers)
    round_trip = _cycle(linked, degrees)
    if round_trip is not None and count <= _ROUND:
        return Layout("circle", _circle(count, round_trip), round_trip)
    complete = degrees.sum() >= _COMPLETE * count * (count - 1) and count <= _ROUND
    if (not arrows and count <= _LOOSE) or (arrows and (complete or count <= _FEW)):
        return Layout("circle", _circle(count, range(count)), range(count))
    return _springs(linked) if arrows else _grid(count)


def separated(positions: Array, extents: Array, frame: tuple[float, float], gap: float) -> Array | None:
    """Push rectangles apart until none overlap, inside a frame with a corner at 0; None if some still do.

    Args:
        positions: centres, shape (k, 2).
        extents: half widths and half heights, shape (k, 2).
        frame: width and height for the centres.
        gap: least distance of rectangles.
    """
    found, room = positions.copy(), np.array(frame)
    least = [np.add.outer(half, half) + gap for half in extents.T]
    before = np.tri(len(found), k=-1)
    for _ in range(_PUSHES if len(found) <= _MANY else _MANY_PUSHES):
        offset = [np.subtract.outer(axis, axis) for axis in found.T]
        lack = [np.maximum(least[axis] - np.abs(offset[axis]), 0.0) for axis in (0, 1)]
        overlaps = (lack[0] > 1e-9) & (lack[1] > 1e-9)
        np.fill_diagonal(overlaps, False)
        if not overlaps.any():
            return found
        flat = ((lack[0] <= lack[1]) & (least[0] <= room[0])) | (least[1] > room[1])
        for axis, chosen in ((0, overlaps & flat), (1, overlaps & ~flat)):
            side = np.where(offset[axis] == 0.0, 2.0 * before - 1.0, np.sign(offset[axis]))
            push = np.where(chosen, 0.5 * (lack[axis] + 0.05 * gap) * side, 0.0)
            found[:, axis] += push.sum(axis=1) / np.maximum(0.5 * chosen.sum(axis=1), 1.0)
        found = np.clip(found, 0.0, room)
    return None


def _line(count: int) -> Layout:
    positions = np.array([[0.5, 0.5]]) if count == 1 else np.array([[0.0, 0.5], [1.0, 0.5]])
    return Layout("line", positions, range(count))


def _hub(linked: Mask, degrees: NDArray[np.int64]) -> int | None:
    """The module that all others are coupled to, and to nothing else."""
    count = len(degrees)
    if count < 4 or count > _ROUND:
        return None
    centre = int(np.argmax(degrees))
    others = np.delete(degrees, centre)
    return centre if degrees[centre] == count - 1 and (others == 1).all() else None


def _star(count: int, hub: int) -> Layout:
    order = [k for k in range(count) if k != hub]
    positions = np.full((count, 2), 0.5)
    positions[order] = _circle(count - 1, range(count - 1))
    return Layout("star", positions, order)


def _circle(count: int, order: Sequence[int]) -> Array:
    """The first one on top, clockwise."""
    angles = 0.5 * np.pi - 2.0 * np.pi * np.arange(count) / count
    positions = np.empty((count, 2))
    positions[list(order)] = 0.5 + 0.5 * np.column_stack([np.cos(angles), np.sin(angles)])
    return positions


def _cycle(linked: Mask, degrees: NDArray[np.int64]) -> list[int] | None:
    """The modules in the order of the ring that they form, if they do."""
    if not (degrees == 2).all():
        return None
    order = [0]
    while len(order) < len(degrees):
        following = [int(k) for k in np.flatnonzero(linked[order[-1]]) if int(k) not in order[-2:]]
        if not following or following[0] in order:
            return None
        order.append(following[0])
    return order


def _layers(directed: Mask) -> list[int] | None:
    """Longest path to each module from a module that listens to none; None if there is a cycle."""
    depth = [0] * len(directed)
    waiting = directed.sum(axis=1).tolist()
    ready = [k for k, number in enumerate(waiting) if number == 0]
    for source in ready:
        for to in np.flatnonzero(directed[:, source]).tolist():
            depth[to] = max(depth[to], depth[source] + 1)
            waiting[to] -= 1
            if waiting[to] == 0:
                ready.append(to)
    return depth if len(ready) == len(directed) else None


def _layered(linked: Mask, depth: Sequence[int]) -> Layout:
    """Layers from left to right, the order inside a layer by barycentres of what is next to it."""
    groups: list[list[int]] = [[] for _ in range(max(depth) + 1)]
    for module, layer in enumerate(depth):
        groups[layer].append(module)
    height = np.zeros(len(depth))
    for group in groups:
        height[group] = _spread(len(group))
    for _ in range(8):
        for group in groups:
            near = [float(np.mean(height[linked[k]])) if linked[k].any() else float(height[k]) for k in group]
            group[:] = [k for _, k in sorted(zip(near, group, strict=True), key=lambda pair: (-pair[0], pair[1]))]
            height[group] = _spread(len(group))
    across = np.array(depth) / max(len(groups) - 1, 1)
    positions = np.column_stack([across, height])
    return Layout("layers", positions, range(len(depth)), max(map(len, groups)), len(groups))


def _spread(count: int) -> Array:
    return np.array([0.5]) if count == 1 else np.linspace(1.0, 0.0, count)


def _springs(linked: Mask) -> Layout:
    """Linked modules attract with the force d^2, all repel with 1/d, and a little gravity holds the parts together."""
    count = len(linked)
    positions = np.random.default_rng(_SEED).standard_normal((count, 2))
    steps = _STEPS if count <= _MANY else _MANY_STEPS
    heat = 0.1 * np.sqrt(count)
    pull = linked.astype(np.float64)
    for step in range(steps):
        across, down = (np.subtract.outer(axis, axis) for axis in positions.T)
        distance = np.maximum(np.sqrt(across * across + down * down), 1e-3)
        force = 1.0 / (distance * distance) - pull * distance
        move = (force.sum(axis=1) - _GRAVITY)[:, None] * positions - force @ positions
        size = np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-9)
        positions = positions + move / size * np.minimum(size, heat * (1.0 - step / steps) + 1e-3)
    return Layout("springs", _filling(positions), range(count))


def _filling(positions: Array) -> Array:
    """Turned so that the longest direction lies flat, stretched into the unit square, dense parts thinned out."""
    centred = positions - positions.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    axes = axes * np.where(axes[np.argmax(np.abs(axes), axis=0), [0, 1]] < 0.0, -1.0, 1.0)
    turned = centred @ axes
    ranks = np.argsort(np.argsort(turned, axis=0, kind="stable"), axis=0) / max(len(turned) - 1, 1)
    share = (turned - turned.min(axis=0)) / np.maximum(np.ptp(turned, axis=0), 1e-9)
    return np.asarray(_EVEN * ranks + (1.0 - _EVEN) * share)


def _grid(count: int) -> Layout:
    columns = int(np.ceil(np.sqrt(1.6 * count)))
    rows = -(-count // columns)
    place = np.arange(count)
    across = (place % columns) / max(columns - 1, 1)
    down = 1.0 - (place // columns) / max(rows - 1, 1) if rows > 1 else np.full(count, 0.5)
    return Layout("grid", np.column_stack([across, down]), range(count), rows, columns)
