"""A composition as the graph that :mod:`certes.figure` draws: modules with their levels, couplings by strength."""

from __future__ import annotations

from collections.abc import Mapping

from certes.assemblies import Assembly
from certes.composition.edges import whitened
from certes.composition.outcome import Composed, Composition
from certes.figure.graph import GraphEdge, GraphNode, GraphPicture


def picture(composition: Composition, title: str = "") -> GraphPicture:
    """The graph of a composition; assemblies inside it can be unfolded.

    Strengths are norms from metric to metric, or without metrics (a module is not certified) all alike.

    Args:
        composition: the answer of :func:`certes.compose`.
        title: one line; empty: a general one.
    """
    run = composition.gated or {"rate": composition.rate, "factor": composition.factor}  # whatever a gate does
    level = run["rate"] if run["rate"] is not None else run["factor"]
    children = {} if composition.root is None else composition.root.children
    limiting = None if composition.mode == "whole" else composition.limiting  # which speaks of the modules as parts
    nodes = tuple(
        _node(name, module, children.get(name), composition.module_levels.get(name), name == limiting)
        for name, module in composition.assembly.modules.items()
    )
    edges = tuple(
        GraphEdge(edge.to, edge.source, edge.strength, edge.inside, edge.limiting) for edge in composition.edges
    ) or _plain(composition.assembly)
    rates = _in_continuous_time(composition.assembly)
    return GraphPicture(nodes, edges, level, composition.assembly.continuous, title, modules_continuous=rates)


def _in_continuous_time(assembly: Assembly) -> bool:
    """Whether the modules are, though the whole may be run as its Euler map: their levels are rates then."""
    return next(iter(assembly.modules.values())).continuous


def _node(name: str, module: object, node: Composed | None, level: float | None, limiting: bool) -> GraphNode:
    if not isinstance(module, Assembly):
        return GraphNode(name, module.size, level, limiting)  # type: ignore[attr-defined]
    return GraphNode(name, module.size, level, limiting, len(module.modules), _inner(module, node))


def _inner(assembly: Assembly, node: Composed | None) -> GraphPicture:
    """What is inside an assembly."""
    children: Mapping[str, Composed] = {} if node is None else node.children
    levels = {name: child.interface.level for name, child in children.items()}
    slowest = None
    if levels:
        continuous = next(iter(children.values())).interface.continuous
        slowest = (min if continuous else max)(levels, key=lambda name: levels[name])
    nodes = tuple(
        _node(name, module, children.get(name), levels.get(name), name == slowest)
        for name, module in assembly.modules.items()
    )
    edges = _plain(assembly)
    if children:
        seen = whitened(assembly, [child.interface for child in children.values()])
        edges = tuple(
            GraphEdge(coupling.to, coupling.source, edge.norm, coupling.inside)
            for coupling, edge in zip(assembly.couplings, seen, strict=True)
        )
    level = None if node is None else node.interface.level
    return GraphPicture(nodes, edges, level, assembly.continuous, modules_continuous=_in_continuous_time(assembly))


def _plain(assembly: Assembly) -> tuple[GraphEdge, ...]:
    return tuple(GraphEdge(edge.to, edge.source, 1.0, edge.inside) for edge in assembly.couplings)
