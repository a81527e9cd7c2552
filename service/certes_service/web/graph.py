"""An assembly as a graph in a page: circles are modules, arrows are couplings, what limits is marked.

The drawing follows the colours of the page by class names, so it needs no styles of its own; names come out of
strangers' files and are text, never markup.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from certes import words
from certes.assemblies import SEPARATOR
from certes.certificate.assembly import open_assembly
from certes.certificate.assembly_statement import AssemblyPredicate
from certes.certificate.document import Certificate
from certes.errors import InputError
from certes.figure.graph import GraphEdge, GraphNode, GraphPicture, describe, unfolded
from certes.figure.scene import Curve, Item, Scene, scene
from markupsafe import Markup, escape
from numpy.typing import NDArray

from certes_service.storage.store import Stored

#: Pixels of the page in an inch of the layout, and the width of the drawing in inches.
_SCALE, _WIDTH = 150.0, 4.4
#: Pixels around the drawing, and most characters of a name that are drawn.
_PAD, _LONGEST = 14.0, 18
#: Levels of assemblies that are drawn inside each other, and most modules in all.
_DEEPEST, _MOST = 4, 240
#: Width in inches of a letter per point of its size, on average in the fonts of systems.
_LETTER = 0.56 / 72.0
#: Width of a curve in pixels: of the weakest and of the strongest coupling.
_THIN, _THICK = 1.2, 4.0

Find = Callable[[str], "Stored | None"]


@dataclass(frozen=True)
class Graph:
    """What is drawn.

    Attributes:
        picture: modules and couplings.
        links: path of a module -> where its own certificate is.
        modules: (path, states, level in words, whether it limits, link) of every module, for a table.
    """

    picture: GraphPicture
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def modules(self) -> list[dict[str, Any]]:
        """Every module of every level: ``path``, ``states``, ``level`` in words, ``limiting``, ``href``."""
        return list(_rows(self.picture, self.links, ""))

    def svg(self) -> Markup:
        """The drawing, to be put into a page."""
        return _drawing(self.picture, self.links)

    @property
    def caption(self) -> str:
        """What is drawn, and what limits."""
        return words.printable(describe(self.picture, _unfolded(self.picture)), 1200)


def of_certificate(stored: Stored, find: Find, answer: Mapping[str, Any] | None = None) -> Graph:
    """The graph of an assembly's certificate, unfolded as far as the certificates inside are kept.

    Args:
        stored: the certificate.
        find: the certificate of a module by its digest, None if it may not be read; blocks.
        answer: what was answered when it was made: it knows how strong couplings are and which limits.
    """
    links: dict[str, str] = {}
    picture = _picture(open_assembly(stored.envelope)[1].predicate, find, links, "", _Room(_MOST))
    return Graph(picture if answer is None else _answered(picture, answer), links)


class _Room:
    """How many modules may still be drawn."""

    def __init__(self, left: int) -> None:
        self.left = left


def _picture(said: AssemblyPredicate, find: Find, links: dict[str, str], prefix: str, room: _Room) -> GraphPicture:
    continuous = said.claims.rate is not None
    rates = continuous or said.step is not None  # an Euler map of modules in continuous time
    room.left -= len(said.modules)
    nodes = []
    for module in said.modules:
        path = prefix + module.name
        stored = find(module.certificate) if room.left >= 0 else None
        if stored is not None:
            links[path] = f"/certificates/{module.certificate}"
        level, inner = _level(stored, rates), None
        if stored is not None and stored.kind == "assembly":
            inside = open_assembly(stored.envelope)[1].predicate
            if path.count(SEPARATOR) + 1 < _DEEPEST and len(inside.modules) <= room.left:
                inner = _picture(inside, find, links, path + SEPARATOR, room)
            children = len(inside.modules)
        else:
            children = 1 if module.kind == "assembly" else 0
        nodes.append(GraphNode(module.name, module.states, level, False, children, inner))
    slowest = _slowest(nodes, rates)
    nodes = [_limiting(node) if node.name == slowest else node for node in nodes]
    edges = tuple(GraphEdge(edge.to, edge.source, 1.0, edge.inside) for edge in said.couplings)
    level = said.claims.rate if continuous else said.claims.factor
    return GraphPicture(tuple(nodes), edges, level, continuous, modules_continuous=rates)


def _level(stored: Stored | None, continuous: bool) -> float | None:
    """What the certificate of a module says, if it speaks of the same kind of time."""
    if stored is None:
        return None
    try:
        if stored.kind == "assembly":
            said: Any = open_assembly(stored.envelope)[1].predicate
        else:
            said = Certificate.from_parts(stored.envelope, stored.proof).statement.predicate
    except InputError:
        return None
    level = said.claims.rate if continuous else said.claims.factor
    return None if level is None or not math.isfinite(level) else float(level)


def _slowest(nodes: list[GraphNode], continuous: bool) -> str | None:
    known = {node.name: node.level for node in nodes if node.level is not None}
    if len(known) < max(len(nodes), 2):
        return None
    return (min if continuous else max)(known, key=lambda name: known[name])


def _limiting(node: GraphNode) -> GraphNode:
    return GraphNode(node.name, node.size, node.level, True, node.children, node.inner)


def _answered(picture: GraphPicture, answer: Mapping[str, Any]) -> GraphPicture:
    """The same with the strengths, the levels and the limits that were answered."""
    levels, limiting = answer.get("modules") or {}, answer.get("limiting")
    known = {(edge["to"], edge["source"], edge["inside"]): edge for edge in answer.get("edges") or ()}
    nodes = tuple(
        GraphNode(node.name, node.size, levels.get(node.name, node.level), node.name == limiting,
                  node.children, node.inner)
        for node in picture.nodes
    )  # fmt: skip
    edges = tuple(
        GraphEdge(edge.to, edge.source, float(found["strength"]), edge.inside, bool(found["limiting"]))
        if (found := known.get((edge.to, edge.source, edge.inside)))
        else edge
        for edge in picture.edges
    )
    return replace(picture, nodes=nodes, edges=edges)


def _unfolded(picture: GraphPicture) -> frozenset[str]:
    return frozenset(unfolded(picture, set(_assemblies(picture, ""))))


def _assemblies(picture: GraphPicture, prefix: str) -> Iterator[str]:
    for node in picture.nodes:
        if node.inner is not None:
            yield prefix + node.name
            yield from _assemblies(node.inner, prefix + node.name + SEPARATOR)


def _rows(picture: GraphPicture, links: Mapping[str, str], prefix: str) -> Iterator[dict[str, Any]]:
    for node in picture.nodes:
        path = prefix + node.name
        level = None if node.level is None else words.claimed(node.level, up=not picture.rates)
        yield {
            "path": words.printable(path, 120),
            "states": node.size,
            "level": level,
            "limiting": node.limiting,
            "href": links.get(path),
        }
        if node.inner is not None:
            yield from _rows(node.inner, links, path + SEPARATOR)


def _drawing(picture: GraphPicture, links: Mapping[str, str]) -> Markup:
    plan = scene(picture, _unfolded(picture), _WIDTH, _measure)
    view = _View(plan)
    strongest = max((curve.edge.strength for curve in plan.curves), default=0.0) or 1.0
    parts = [_curve(curve, strongest, view) for curve in sorted(plan.curves, key=lambda each: each.edge.limiting)]
    shades = _shades(plan.items, picture.rates)
    parts += [_item(item, links.get(item.path), shades, view) for item in plan.items]
    parts += [_label(label.text, label.centre, label.angle, plan.font, view) for label in plan.labels]
    box = f"0 0 {view.width:.0f} {view.height:.0f}"
    return Markup(
        '<svg class="graph" viewBox="{}" width="{:.0f}" height="{:.0f}" role="group" aria-label="{}">{}</svg>'
    ).format(box, view.width, view.height, "Modules and couplings of the assembly", Markup("").join(parts))


def _measure(text: str, size: float) -> float:
    return len(_short(text)) * size * _LETTER


def _short(name: str) -> str:
    return words.printable(name, _LONGEST)


class _View:
    """From the layout's inches, y upwards, to the drawing's pixels, y downwards."""

    def __init__(self, plan: Scene) -> None:
        self._top = plan.height * _SCALE + _PAD
        self.width, self.height = plan.width * _SCALE + 2 * _PAD, plan.height * _SCALE + 2 * _PAD

    def __call__(self, point: NDArray[np.float64]) -> tuple[float, float]:
        return float(point[0]) * _SCALE + _PAD, self._top - float(point[1]) * _SCALE


def _shades(items: Any, continuous: bool) -> Callable[[float | None], int]:
    """Level -> 1 (slow) to 5 (fast); 0: none is certified."""
    levels = [item.node.level for item in items if item.node.level is not None]
    low, high = (min(levels), max(levels)) if levels else (0.0, 0.0)

    def shade(level: float | None) -> int:
        if level is None:
            return 0
        share = 0.5 if high == low else (level - low) / (high - low)
        return 1 + round(4 * (share if continuous else 1.0 - share))

    return shade


def _item(item: Item, link: str | None, shade: Callable[[float | None], int], view: _View) -> Markup:
    node, (x, y) = item.node, view(item.centre)
    said = f"{words.printable(item.path, 120)}, {node.size} states"
    if node.level is not None:
        said += f", certified at {node.level:.4g}"
    said += ", limits the whole" if node.limiting else ""
    width, height = 2.0 * item.half * _SCALE
    kind = "box" if item.box else f"module shade-{shade(node.level)}"
    if item.box:
        form = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="8" class="{}"/>').format(
            x - width / 2, y - height / 2, width, height, kind
        )
    else:
        form = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{}"/>').format(x, y, width / 2, kind)
        if node.children:
            form += Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="fold"/>').format(x, y, 0.8 * width / 2)
    if node.limiting and not item.box:
        form += Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="limit"/>').format(x, y, width / 2 + 4)
    body = Markup("<title>{}</title>{}").format(said, form)
    if link is None:
        return Markup("<g>{}</g>").format(body)
    return Markup('<a href="{}" aria-label="{}">{}</a>').format(link, said, body)


def _curve(curve: Curve, strongest: float, view: _View) -> Markup:
    width = _THIN + (_THICK - _THIN) * curve.edge.strength / strongest
    start, control, end = (np.array(view(point)) for point in curve.points)
    reach = float(np.linalg.norm(end - control)) or 1.0
    along = (end - control) / reach
    length = min(6.0 + 2.4 * width, 0.6 * float(np.linalg.norm(end - start)))
    across = 0.4 * length * np.array([-along[1], along[0]])
    stop, left, right = end - 0.8 * length * along, end - length * along + across, end - length * along - across
    kinds = ["coupling"] + [name for name in ("inside", "limiting") if getattr(curve.edge, name)]
    path = f"M{_xy(start)} Q{_xy(control)} {_xy(stop)}"
    said = f"{words.printable(curve.edge.source, 60)} to {words.printable(curve.edge.to, 60)}"
    return Markup(
        '<g class="{}"><title>{}</title><path d="{}" stroke-width="{:.1f}"/><polygon points="{}"/></g>'
    ).format(" ".join(kinds), said, path, width, f"{_xy(end)} {_xy(left)} {_xy(right)}")


def _label(text: str, centre: NDArray[np.float64], angle: float, font: float, view: _View) -> Markup:
    x, y = view(centre)
    turn = Markup(' transform="rotate({:.0f} {:.1f} {:.1f})"').format(-angle, x, y) if angle else Markup("")
    size = font / 72.0 * _SCALE
    return Markup('<text x="{:.1f}" y="{:.1f}" font-size="{:.1f}"{}>{}</text>').format(
        x, y + 0.35 * size, size, turn, escape(_short(text))
    )


def _xy(point: NDArray[np.float64]) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"
