"""An assembly's picture in inches: circles, boxes, curves and labels, none on top of another; nothing is drawn here.

Each assembly is laid out on its own, what is unfolded inside it first; then curves are led around circles, and labels
are put where they cover no circle, no box and no other label. y points upwards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from certes.assemblies import SEPARATOR
from certes.figure.graph import GraphEdge, GraphNode, GraphPicture, shown
from certes.figure.labels import Label, Obstacles, place_labels
from certes.figure.layout import Layout, layout, separated

Array = NDArray[np.float64]

#: Most modules that are labelled, and most couplings of one assembly that are drawn as curves with heads.
LABELLED, CURVED = 60, 800
#: Largest and smallest radius, in inches; the former shrinks with the number of modules.
_LARGEST, _SMALLEST, _SHRINK = 0.26, 0.010, 0.60
#: How often circles are made smaller until they fit.
_SHRINKS = 8
#: Inches between things, around what is inside a box, and above it for the box's name.
_GAP, _INSET, _HEADER = 0.05, 0.09, 0.15
#: Inches from a limiting module to the outside of its ring.
_RING = 0.032
#: More modules than this are pushed apart once, and what then still overlaps, overlaps.
_PUSHED = 200
#: A circle whose modules had to move further than this, in inches, is none: smaller modules are better.
_BENT = 0.06
#: Least room for an arrow, half of it: between layers, and around a box.
_ARROW, _BESIDE_BOX = 0.06, 0.12
#: How far curves bend, as shares of their length: alone, and of two between the same modules.
_BENDS = (0.0, 0.2, -0.2, 0.35, -0.35, 0.5, -0.5, 0.7, -0.7)
_PAIRED = (0.2, 0.3, 0.42, 0.12, 0.55)
#: Points of a curve by which crossings are judged, and by which it is cut at the borders of modules.
_SAMPLES, _FINE = 25, 401


@dataclass(frozen=True, eq=False)
class Item:
    """A module: a circle, or a box around what is inside.

    Attributes:
        path: names from the outermost assembly inwards.
        node: what is shown.
        centre: (x, y).
        half: half width and half height; of a circle the radius, twice.
        box: whether it is unfolded.
    """

    path: str
    node: GraphNode
    centre: Array
    half: Array
    box: bool

    @property
    def radius(self) -> float:
        """Of a circle."""
        return float(self.half[0])


@dataclass(frozen=True, eq=False)
class Curve:
    """A coupling: a quadratic Bezier curve from the border of its tail to the border of its head
    (where there are very many, straight from centre to centre).

    Attributes:
        edge: what is shown.
        points: start, control point, end, shape (3, 2).
    """

    edge: GraphEdge
    points: Array

    def sampled(self, count: int = _SAMPLES) -> Array:
        """Points of the curve, shape (count, 2)."""
        t = np.linspace(0.0, 1.0, count)[:, None]
        start, control, end = self.points
        return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * control + t * t * end)


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything of a picture in its place.

    Attributes:
        items: boxes before what is inside them.
        curves: couplings.
        labels: names of modules; none where there are too many, or no room.
        width, height: the smallest x and y are 0.
        font: size of the labels in points.
        apart: whether no two modules overlap; of very many, some may.
    """

    items: Sequence[Item]
    curves: Sequence[Curve]
    labels: Sequence[Label]
    width: float
    height: float
    font: float
    apart: bool

    def moved(self, offset: Array) -> Scene:
        """The same, elsewhere."""
        return replace(
            self,
            items=[replace(item, centre=item.centre + offset) for item in self.items],
            curves=[replace(curve, points=curve.points + offset) for curve in self.curves],
            labels=[replace(label, centre=label.centre + offset) for label in self.labels],
        )


@dataclass(frozen=True)
class _Style:
    """What all levels of one picture share.

    ``measure`` gives the width in inches of a text at a size in points; ``unit`` the radius of a module of one state.
    """

    open_paths: Collection[str]
    measure: Callable[[str, float], float]
    font: float
    labelled: bool
    unit: float

    @property
    def line(self) -> float:
        """Height of a line of text."""
        return 1.05 * self.font / 72.0

    def radius(self, node: GraphNode) -> float:
        return max(self.unit * float(np.sqrt(node.size)), _SMALLEST)


def scene(
    picture: GraphPicture, open_paths: Collection[str], width: float, measure: Callable[[str, float], float]
) -> Scene:
    """Put everything in its place.

    Args:
        picture: what is shown.
        open_paths: paths of the assemblies to unfold, as :func:`certes.figure.graph.checked` gives them.
        width: of the whole, inches.
        measure: width in inches of a text at a font size in points.
    """
    nodes = [node for _, node in shown(picture, open_paths)]
    largest = float(np.clip(_SHRINK / np.sqrt(len(nodes)), _SMALLEST, _LARGEST))
    unit = largest / float(np.sqrt(max(node.size for node in nodes)))
    font = 7.5 if len(nodes) <= 14 else 6.5 if len(nodes) <= 30 else 5.5
    for _ in range(_SHRINKS):
        found = _fitted(picture, "", width, _Style(open_paths, measure, font, len(nodes) <= LABELLED, unit))
        if found.apart and found.width <= width + 1e-6:
            break
        unit *= 0.8
    return replace(found.moved(np.array([0.5 * (width - found.width), 0.0])), width=width)


def _fitted(picture: GraphPicture, prefix: str, width: float, style: _Style) -> Scene:
    """One assembly, at most so wide (where that is possible) with all that sticks out."""
    inner = {
        prefix + node.name: _fitted(node.inner, prefix + node.name + SEPARATOR, _share(picture, node, width), style)
        for node in picture.nodes
        if prefix + node.name in style.open_paths and node.inner is not None
    }
    pairs = {(edge.to, edge.source) for edge in picture.edges}
    places = {node.name: k for k, node in enumerate(picture.nodes)}
    plan = layout(len(picture.nodes), sorted((places[to], places[source]) for to, source in pairs))
    target = width
    for _ in range(5):
        found = _arranged(picture, prefix, plan, inner, target, style)
        if not found.apart or found.width <= width + 1e-6:
            break
        target -= found.width - width + 0.01
    return found


def _share(picture: GraphPicture, node: GraphNode, width: float) -> float:
    """Width for what is inside a module."""
    inside = 1 if node.inner is None else len(node.inner.nodes)
    most = 0.55 * width if len(picture.nodes) > 1 else width - 2.0 * _INSET
    return float(np.clip(0.62 * np.sqrt(inside) + 0.5, 0.8, max(most, 0.8)))


def _arranged(
    picture: GraphPicture, prefix: str, plan: Layout, inner: dict[str, Scene], width: float, style: _Style
) -> Scene:
    boxes = [prefix + node.name in inner for node in picture.nodes]
    halves = np.array([_half(node, inner.get(prefix + node.name), style) for node in picture.nodes])
    centres, apart = _centres(plan, halves, boxes, width, style)
    items = [
        Item(prefix + node.name, node, centre, half if boxed else np.full(2, style.radius(node)), boxed)
        for node, centre, half, boxed in zip(picture.nodes, centres, halves, boxes, strict=True)
    ]
    curves = list(_curves(picture.edges, items))
    labels: list[Label] = []
    if style.labelled:
        obstacles = Obstacles(centres, halves, np.array(boxes), _points(curves))
        texts = [(k, item) for k, item in enumerate(items) if not item.box]
        labels = place_labels(
            [(k, item.node.name, style.measure(item.node.name, style.font)) for k, item in texts],
            style.line,
            obstacles,
            middle=centres.mean(axis=0),
            outwards=plan.kind not in ("layers", "grid"),
            radial=plan.kind in ("circle", "star") and len(plan.order) > 14,
        )
    labels += [_heading(item, style) for item in items if item.box]
    apart = apart and all(below.apart for below in inner.values())
    everything = Scene(items, curves, labels, 0.0, 0.0, style.font, apart)
    for item in items:
        if item.box:
            corner = item.centre - item.half + _INSET
            below = inner[item.path].moved(corner)
            everything = replace(
                everything,
                items=[*everything.items, *below.items],
                curves=[*everything.curves, *below.curves],
                labels=[*everything.labels, *below.labels],
            )
    return _cropped(everything)


def _half(node: GraphNode, inside: Scene | None, style: _Style) -> Array:
    """Half width and half height of a module with what is drawn around it."""
    if inside is not None:
        heading = style.measure(node.name, style.font) + 0.12 + _GAP
        width = max(inside.width, heading) + 2.0 * _INSET
        return 0.5 * np.array([width, inside.height + 2.0 * _INSET + _HEADER])
    return np.full(2, outer_radius(node, style.radius(node)))


def _points(curves: Sequence[Curve]) -> Array:
    return np.concatenate([curve.sampled() for curve in curves]) if curves else np.zeros((0, 2))


def _heading(item: Item, style: _Style) -> Label:
    width = style.measure(item.node.name, style.font)
    left, top = item.centre[0] - item.half[0] + 0.2, item.centre[1] + item.half[1] - 0.5 * _HEADER - 0.015
    return Label(item.node.name, np.array([left + 0.5 * width, top]), width, style.line, 0.0)


def _centres(plan: Layout, halves: Array, boxes: Sequence[bool], width: float, style: _Style) -> tuple[Array, bool]:
    """Centres of the modules, and whether nothing overlaps; the frame grows, in height, until that is so."""
    largest = halves.max(axis=0)
    room = 2.0 * style.line if style.labelled and plan.kind not in ("circle", "star") else 0.0
    wide = max(width - 2.0 * largest[0] - 0.1, 0.2)
    frame = np.array(_frame(plan, halves, wide, room))
    between = np.array([_ARROW if plan.columns > 1 and plan.kind == "layers" else 0.0, 0.0])
    clear = halves + between + _BESIDE_BOX * np.array(boxes)[:, None]
    for attempt in range(1 if len(halves) > _PUSHED else 6 if plan.kind == "layers" else 40):
        label = np.array([0.0, 0.5 * room * 0.8**attempt])
        apart = separated(plan.positions * frame, clear + label, (float(frame[0]), float(frame[1])), _GAP)
        if apart is not None:
            bent = plan.kind in ("circle", "star") and not any(boxes) and _moved(apart, plan.positions * frame) > _BENT
            return apart, not bent
        frame = np.array([min(1.1 * frame[0], max(wide, frame[0])), 1.12 * frame[1] + 0.05])
    return plan.positions * frame, len(halves) > _PUSHED


def _moved(now: Array, before: Array) -> float:
    return float(np.linalg.norm(now - before, axis=1).max())


def _frame(plan: Layout, halves: Array, wide: float, room: float) -> tuple[float, float]:
    """Width and height of the rectangle of the centres."""
    count, largest = len(halves), halves.max(axis=0)
    if plan.kind == "line":
        return (0.0, 0.0) if count == 1 else (min(wide, 1.0 + float(halves[:, 0].sum())), 0.0)
    if plan.kind in ("circle", "star"):
        around = float(2.0 * halves.max(axis=1).sum()) + 0.34 * count
        middle = next((half.max() for k, half in enumerate(halves) if k not in plan.order), 0.0)
        spokes = 2.0 * (middle + float(largest.max()) + 0.36) if plan.kind == "star" else 1.1
        across = min(max(around / np.pi, spokes), wide)
        return across, across
    if plan.kind in ("layers", "grid"):
        step = 2.0 * float(largest[1]) + room + 0.16
        return min(wide, 0.9 * (plan.columns - 1) + 2.0 * float(largest[0])), step * (plan.rows - 1)
    return wide, float(np.clip(0.5 + 0.012 * count, 0.55, 1.0)) * wide


def _curves(edges: Sequence[GraphEdge], items: Sequence[Item]) -> Iterator[Curve]:
    """The couplings as curves around what stands between."""
    places = {item.node.name: k for k, item in enumerate(items)}
    ordered = {(edge.to, edge.source) for edge in edges}
    kinds: dict[tuple[str, str], int] = {}
    for edge in edges:
        head, tail = items[places[edge.to]], items[places[edge.source]]
        if len(edges) > CURVED:
            yield Curve(edge, np.array([tail.centre, 0.5 * (tail.centre + head.centre), head.centre]))
            continue
        paired = (edge.source, edge.to) in ordered
        twin = kinds.get((edge.to, edge.source), 0)
        kinds[edge.to, edge.source] = twin + 1
        bends = _PAIRED if paired else _BENDS
        tried = [_curve(edge, tail, head, bend + 0.18 * twin) for bend in bends]
        others = [item for item in items if item is not head and item is not tail]
        crossed = [_crossings(curve, others) for curve in tried]
        yield tried[int(np.argmin(crossed))]


def _curve(edge: GraphEdge, tail: Item, head: Item, bend: float) -> Curve:
    """The piece outside the two modules of a curve from centre to centre."""
    between = head.centre - tail.centre
    control = 0.5 * (head.centre + tail.centre) + bend * np.array([-between[1], between[0]])
    whole = Curve(edge, np.array([tail.centre, control, head.centre]))
    points = whole.sampled(_FINE)
    outside = np.flatnonzero(~(_within(tail, points, 0.0) | _within(head, points, 0.012)))
    if not len(outside):
        return whole
    start, end = outside[0] / (_FINE - 1), outside[-1] / (_FINE - 1)
    first, last = points[outside[0]], points[outside[-1]]
    middle = (1 - start) * (1 - end) * tail.centre + end * start * head.centre
    return Curve(edge, np.array([first, middle + (start + end - 2 * start * end) * control, last]))


def _within(item: Item, points: Array, gap: float) -> NDArray[np.bool_]:
    """Which points lie in a module, or nearer than ``gap``."""
    if item.box:
        return np.asarray((np.abs(points - item.centre) < item.half + gap).all(axis=1))
    radius = outer_radius(item.node, item.radius) + gap
    return np.asarray(np.linalg.norm(points - item.centre, axis=1) < radius)


def second_radius(node: GraphNode, radius: float) -> float:
    """Of a circle, with the second circle of an assembly."""
    return radius + (0.12 * radius + 0.012 if node.children else 0.0)


def outer_radius(node: GraphNode, radius: float) -> float:
    """Of a circle with all that is drawn around it: the second one of an assembly, the ring of a limiting module."""
    return second_radius(node, radius) + (_RING if node.limiting else 0.0)


def _crossings(curve: Curve, others: Sequence[Item]) -> int:
    """Samples of a curve that lie in or very near other modules."""
    if not others:
        return 0
    centres, halves = np.array([item.centre for item in others]), np.array([item.half for item in others])
    offset = np.abs(curve.sampled()[:, None, :] - centres[None, :, :])
    boxes = np.array([item.box for item in others])
    in_box = (offset < halves + 0.02).all(axis=2)
    in_circle = (offset**2).sum(axis=2) < (halves[:, 0] + 0.03) ** 2
    return int(np.where(boxes, in_box, in_circle).sum())


def _cropped(given: Scene) -> Scene:
    """The scene moved to 0, with its width and height."""
    low, high = [], []
    for item in given.items:
        half = item.half if item.box else np.full(2, outer_radius(item.node, item.radius))
        low.append(item.centre - half)
        high.append(item.centre + half)
    for curve in given.curves:
        points = curve.sampled()
        low.append(points.min(axis=0) - 0.02)
        high.append(points.max(axis=0) + 0.02)
    for label in given.labels:
        corners = label.corners()
        low.append(corners.min(axis=0))
        high.append(corners.max(axis=0))
    start, end = np.min(low, axis=0), np.max(high, axis=0)
    return replace(given.moved(-start), width=float(end[0] - start[0]), height=float(end[1] - start[1]))
