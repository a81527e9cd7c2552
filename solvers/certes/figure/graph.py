"""What the picture of an assembly shows, as values: its modules, its couplings, what limits it; and its caption.

Nothing is drawn here, and nothing is decided: whoever fills a :class:`GraphPicture` has verified the numbers in it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from certes.assemblies import SEPARATOR
from certes.errors import InputError
from certes.figure.pictures import rounded

#: Modules that a caption names before it says how many more there are.
_NAMED = 3


@dataclass(frozen=True)
class GraphNode:
    """A module.

    Attributes:
        name: in its assembly.
        size: number of states (units).
        level: certified rate or factor; None: none is certified.
        limiting: whether the level of the whole is held down by it.
        children: number of modules inside an assembly; 0: a network.
        inner: what is inside an assembly, for when it is unfolded.

    Raises:
        InputError: naming ``nodes.NAME``.
    """

    name: str
    size: int
    level: float | None = None
    limiting: bool = False
    children: int = 0
    inner: GraphPicture | None = None

    def __post_init__(self) -> None:
        field = f"nodes.{self.name}"
        if not self.name or SEPARATOR in self.name:
            raise InputError("nodes", f"the name {self.name!r}", f"a name without {SEPARATOR!r}", "wrong-type")
        if self.size < 1:
            raise InputError(field, f"{self.size} states", "at least 1", "out-of-range")
        if self.level is not None and not math.isfinite(self.level):
            raise InputError(field, f"level {self.level!r}", "a finite rate or factor, or None", "not-finite")
        if self.children < 0:
            raise InputError(field, f"{self.children} modules inside", "0 or more", "out-of-range")
        if self.inner is not None and self.children == 0:
            object.__setattr__(self, "children", len(self.inner.nodes))


@dataclass(frozen=True)
class GraphEdge:
    """A coupling.

    Attributes:
        to, source: names of the modules at its head and its tail.
        strength: at least 0, for instance its norm from metric to metric; only ratios are drawn.
        inside: whether it enters the argument of phi.
        limiting: whether the level of the whole is held down by it.
    """

    to: str
    source: str
    strength: float
    inside: bool = False
    limiting: bool = False


@dataclass(frozen=True)
class GraphPicture:
    """An assembly as a graph.

    Attributes:
        nodes: the modules, in their order.
        edges: the couplings; at most one of a kind from one module to another.
        level: certified rate or factor of the whole; None: none is certified.
        continuous: whether the level of the whole is a rate, else a factor per step.
        title: one line; empty: "Assembly of k modules".
        caption: the figure's caption; empty: :func:`describe` writes it.
        modules_continuous: whether the levels of the modules are rates; None: as that of the whole.

    Raises:
        InputError: naming ``nodes`` or ``edges.TO.SOURCE``.
    """

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...] = ()
    level: float | None = None
    continuous: bool = True
    title: str = ""
    caption: str = ""
    modules_continuous: bool | None = None

    @property
    def rates(self) -> bool:
        """Whether the levels of the modules are rates."""
        return self.continuous if self.modules_continuous is None else self.modules_continuous

    def __post_init__(self) -> None:
        if not self.nodes:
            raise InputError("nodes", "none", "at least one module", "missing-value")
        names = {node.name for node in self.nodes}
        if len(names) < len(self.nodes):
            raise InputError("nodes", "two modules of one name", "different names", "duplicate-key")
        seen: set[tuple[str, str, bool]] = set()
        for edge in self.edges:
            field, key = f"edges.{edge.to}.{edge.source}", (edge.to, edge.source, edge.inside)
            for end in (edge.to, edge.source):
                if end not in names:
                    raise InputError(field, f"an unknown module {end!r}", "one of the nodes", "unknown-module")
            if edge.to == edge.source or key in seen:
                expected = "one coupling of a kind between two modules"
                raise InputError(field, "a coupling to itself, or one given twice", expected, "conflict")
            if not 0.0 <= edge.strength < math.inf:
                raise InputError(field, f"strength {edge.strength!r}", "a finite number, at least 0", "out-of-range")
            seen.add(key)


def unfolded(picture: GraphPicture, expand: Collection[str], prefix: str = "") -> Iterator[str]:
    """Paths of the assemblies that are drawn unfolded: asked for, and all around them unfolded too.

    A path that is asked for brings the ones around it: ``brain/v1`` unfolds ``brain``.
    """
    for node in picture.nodes:
        path = prefix + node.name
        if node.inner is not None and any(each == path or each.startswith(path + SEPARATOR) for each in expand):
            yield path
            yield from unfolded(node.inner, expand, path + SEPARATOR)


def checked(picture: GraphPicture, expand: Collection[str]) -> frozenset[str]:
    """The paths of the assemblies to unfold.

    Raises:
        InputError: one text instead of a set, or a path that leads to no assembly whose inside is known.
    """
    if isinstance(expand, str):
        raise InputError("expand", f"the text {expand!r}", "a set of paths", "wrong-type")
    found = frozenset(unfolded(picture, expand))
    for path in expand:
        if path not in found:
            expected = "the path of an assembly whose inside is known, as brain/v1"
            raise InputError("expand", repr(path), expected, "unknown-module")
    return found


def shown(picture: GraphPicture, open_paths: Collection[str], prefix: str = "") -> Iterator[tuple[str, GraphNode]]:
    """Path and node of every module that is drawn as a circle."""
    for node in picture.nodes:
        path = prefix + node.name
        if path in open_paths and node.inner is not None:
            yield from shown(node.inner, open_paths, path + SEPARATOR)
        else:
            yield path, node


def title(picture: GraphPicture) -> str:
    """The title given, or one in words."""
    return picture.title or f"Assembly of {_counted(len(picture.nodes), 'module')}"


def describe(picture: GraphPicture, open_paths: Collection[str] = ()) -> str:
    """The caption given, or one in words: what is drawn, what it means, what limits the whole."""
    if picture.caption:
        return picture.caption
    word = "rate" if picture.rates else "factor"
    circles = [node for _, node in shown(picture, open_paths)]
    size = sum(node.size for node in picture.nodes)
    couplings = _counted(len(picture.edges), "coupling")
    parts = [f"Assembly of {_counted(len(picture.nodes), 'module')} (n = {size}) with {couplings}."]
    if picture.level is not None:
        parts.append(f"The whole contracts with the certified {_number(picture.level, picture.continuous)}.")
    units = _range([node.size for node in circles])
    parts.append(f"Circles: modules, area by number of units ({units}),{_colours(circles, picture, word)}.")
    if picture.edges:
        strengths = _range([edge.strength for edge in picture.edges])
        parts.append(f"Arrows: couplings, width by strength ({strengths}).")
    if any(edge.inside for edge in picture.edges):
        parts.append("Dotted: couplings inside phi.")
    parts += _pairs(picture)
    folded = [node for node in circles if node.children]
    if folded:
        parts.append(f"Double circles: assemblies, folded, with the number of modules inside ({_names(folded)}).")
    if open_paths:
        parts.append(f"Boxes: assemblies, unfolded ({', '.join(sorted(open_paths)[:_NAMED])}).")
    return " ".join(parts + _limits(picture))


def _colours(circles: list[GraphNode], picture: GraphPicture, word: str) -> str:
    levels = [node.level for node in circles if node.level is not None]
    if not levels:
        return f" none with a certified {word}"
    text = f" colour by certified {word} ({_range(levels)})"
    without = len(circles) - len(levels)
    return text + (f"; hatched: {without} without one" if without else "")


def _pairs(picture: GraphPicture) -> list[str]:
    ordered = {(edge.to, edge.source) for edge in picture.edges}
    both = sum((source, to) in ordered for to, source in ordered) // 2
    return [f"{_counted(both, 'pair')} coupled in both directions."] if both else []


def _limits(picture: GraphPicture) -> list[str]:
    parts = []
    nodes = [node for node in picture.nodes if node.limiting]
    edges = [f"{edge.to} <- {edge.source}" for edge in picture.edges if edge.limiting]
    if nodes:
        parts.append(f"Ringed: limiting, {_names(nodes)}.")
    if edges:
        more = f" and {len(edges) - _NAMED} more" if len(edges) > _NAMED else ""
        parts.append(f"Dashed: limiting, {', '.join(edges[:_NAMED])}{more}.")
    return parts


def _names(nodes: list[GraphNode]) -> str:
    more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    return ", ".join(node.name for node in nodes[:_NAMED]) + more


def _number(level: float, continuous: bool) -> str:
    return f"{'rate' if continuous else 'factor'} {rounded(level, up=not continuous)}"


def _range(values: list[int] | list[float]) -> str:
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
