"""The picture of an assembly: what it is given, where things stand, how they are drawn, and what it says in words."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.composition import topologies
from certes.composition.topologies import Pair
from certes.errors import InputError, MissingExtraError
from certes.figure import GraphEdge, GraphNode, GraphPicture, draw_assembly, render_assembly
from certes.figure.assembly import _Hues, _measure, _mixed
from certes.figure.drawing import _PALETTES
from certes.figure.graph import checked, describe, title
from certes.figure.labels import Label
from certes.figure.layout import layout, separated
from certes.figure.scene import Scene, outer_radius, scene

SVG = "{http://www.w3.org/2000/svg}"
WIDTH = 3.26


def names(k: int) -> list[str]:
    return [f"m{i}" for i in range(k)]


def graph(nodes: Sequence[str], pairs: Sequence[Pair], seed: int = 0, **more: Any) -> GraphPicture:
    rng = np.random.default_rng(seed)
    modules = tuple(GraphNode(name, int(rng.integers(8, 65)), float(rng.uniform(0.1, 0.9))) for name in nodes)
    edges = tuple(GraphEdge(to, source, float(rng.uniform(0.1, 2.0))) for to, source in pairs)
    return GraphPicture(modules, edges, **more)


def nested() -> GraphPicture:
    inner = graph(["l4", "l23", "l5"], topologies.ring(["l4", "l23", "l5"]))
    brain = GraphPicture(
        (GraphNode("v1", 90, 0.3, limiting=True, inner=inner), GraphNode("v2", 60, 0.5, children=7)),
        (GraphEdge("v1", "v2", 1.0), GraphEdge("v2", "v1", 1.0, inside=True)),
    )
    return GraphPicture(
        (GraphNode("brain", 150, 0.25, inner=brain), GraphNode("body", 40, None)),
        (GraphEdge("brain", "body", 0.5, limiting=True),),
        level=0.2,
    )


PICTURES: dict[str, Callable[[], tuple[GraphPicture, frozenset[str]]]] = {
    "one": lambda: (graph(["a"], []), frozenset()),
    "two": lambda: (graph(["a", "b"], [("a", "b"), ("b", "a")]), frozenset()),
    "ring": lambda: (graph(names(8), topologies.ring(names(8))), frozenset()),
    "large ring": lambda: (graph(names(50), topologies.ring(names(50), both=True)), frozenset()),
    "hub": lambda: (graph(names(6), topologies.hub(names(6), "m2")), frozenset()),
    "all": lambda: (graph(names(9), topologies.all_to_all(names(9))), frozenset()),
    "hierarchy": lambda: (graph(names(4), topologies.hierarchy(names(4))), frozenset()),
    "chain": lambda: (graph(names(12), topologies.chain(names(12))), frozenset()),
    "random": lambda: (graph(names(40), topologies.random_pairs(names(40), 70, seed=3)), frozenset()),
    "sixty": lambda: (graph(names(60), topologies.random_pairs(names(60), 60, seed=3, both=True)), frozenset()),
    "apart": lambda: (graph(names(20), []), frozenset()),
    "folded": lambda: (nested(), frozenset()),
    "unfolded": lambda: (nested(), frozenset({"brain"})),
    "unfolded twice": lambda: (nested(), frozenset({"brain", "brain/v1"})),
}


def placed(name: str) -> Scene:
    picture, expand = PICTURES[name]()
    return scene(picture, checked(picture, expand), WIDTH, _measure())


# --- layouts ---


def arrows(k: int, pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    place = {name: i for i, name in enumerate(names(k))}
    return [(place[to], place[source]) for to, source in pairs]


@pytest.mark.parametrize(
    ("kind", "k", "build"),
    [
        ("line", 2, topologies.all_to_all),
        ("circle", 7, topologies.ring),
        ("circle", 40, lambda each: topologies.ring(each, both=True)),
        ("circle", 20, topologies.all_to_all),
        ("star", 12, lambda each: topologies.hub(each, "m5")),
        ("layers", 5, topologies.hierarchy),
        ("springs", 30, lambda each: topologies.random_pairs(each, 60, seed=0)),
        ("grid", 30, lambda _: ()),
        ("circle", 6, lambda _: ()),
    ],
)
def test_layout_by_shape(kind: str, k: int, build: Callable[[list[str]], Sequence[Pair]]) -> None:
    plan = layout(k, arrows(k, build(names(k))))
    assert plan.kind == kind
    assert plan.positions.shape == (k, 2)
    assert plan.positions.min() >= -1e-12
    assert plan.positions.max() <= 1.0 + 1e-12
    assert np.array_equal(plan.positions, layout(k, arrows(k, build(names(k)))).positions)


def test_shuffled_ring_stands_in_its_order() -> None:
    order = np.random.default_rng(1).permutation(15).tolist()
    plan = layout(15, [(order[i], order[i - 1]) for i in range(15)])
    steps = [np.linalg.norm(plan.positions[order[i]] - plan.positions[order[i - 1]]) for i in range(15)]
    assert np.allclose(steps, np.sin(np.pi / 15))


def test_two_rings_are_no_ring() -> None:
    pairs = [(i, (i + 1) % 5) for i in range(5)] + [(5 + i, 5 + (i + 1) % 5) for i in range(5)]
    assert layout(10, pairs).kind == "springs"


def test_layers_are_longest_paths() -> None:
    """a -> b -> c -> d and a -> d: d is three layers after a, whatever the shortcut."""
    plan = layout(4, [(1, 0), (2, 1), (3, 2), (3, 0)])
    assert np.allclose(plan.positions[:, 0], [0.0, 1 / 3, 2 / 3, 1.0])


def test_layers_uncross() -> None:
    """Two parallel chains, given crossed: barycentres set them straight."""
    plan = layout(6, [(3, 0), (2, 1), (5, 2), (4, 3)])
    heights = plan.positions[:, 1]
    assert heights[0] == heights[3] == heights[4]
    assert heights[1] == heights[2] == heights[5]


def test_separated() -> None:
    rng = np.random.default_rng(0)
    extents = np.full((30, 2), 0.1)
    found = separated(rng.random((30, 2)), extents, (3.0, 3.0), 0.05)
    assert found is not None
    offset = np.abs(found[:, None] - found[None])
    assert ((offset >= 0.25 - 1e-8).any(axis=2) | np.eye(30, dtype=bool)).all()
    assert found.min() >= 0.0
    assert found.max() <= 3.0
    assert separated(np.zeros((30, 2)), extents, (0.5, 0.5), 0.05) is None, "no room"


# --- scenes ---


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_lies_on_anything(name: str) -> None:
    found = placed(name)
    circles = [(item, outer_radius(item.node, item.radius)) for item in found.items if not item.box]
    for k, (item, radius) in enumerate(circles):
        for other, other_radius in circles[:k]:
            assert np.linalg.norm(item.centre - other.centre) > radius + other_radius
        for label in found.labels:
            assert label.distance(item.centre) > radius, f"{label.text} on {item.path}"
    for k, label in enumerate(found.labels):
        assert not any(label.overlaps(other) for other in found.labels[:k])
    for box in (item for item in found.items if item.box):
        for item in found.items:
            gap = np.abs(item.centre - box.centre)
            if item.path.startswith(box.path + "/"):
                assert (gap + item.half <= box.half).all(), "inside its box"
            elif not box.path.startswith(item.path):
                assert (gap > box.half + item.half).any(), "outside"


@pytest.mark.parametrize("name", PICTURES)
def test_everything_is_on_the_page(name: str) -> None:
    found = placed(name)
    points = [label.corners() for label in found.labels] + [curve.sampled() for curve in found.curves]
    points += [item.centre + np.array([[-1, -1], [1, 1]]) * item.half for item in found.items]
    whole = np.concatenate(points)
    assert whole.min() > -1e-9
    assert whole[:, 0].max() < WIDTH + 1e-9
    assert whole[:, 1].max() < found.height + 1e-9


@pytest.mark.parametrize("name", [each for each in PICTURES if each != "sixty"])
def test_every_module_has_its_name(name: str) -> None:
    found = placed(name)
    assert sorted(label.text for label in found.labels) == sorted(item.node.name for item in found.items)


def test_most_of_sixty_have_their_names() -> None:
    assert len(placed("sixty").labels) >= 54


def test_radius_follows_size() -> None:
    picture = GraphPicture((GraphNode("a", 4, 0.1), GraphNode("b", 64, 0.1), GraphNode("c", 16, 0.1)))
    radii = {item.path: item.radius for item in scene(picture, frozenset(), WIDTH, _measure()).items}
    assert radii["b"] == pytest.approx(2 * radii["c"]) == pytest.approx(4 * radii["a"])


def test_feedback_pair_is_two_curves() -> None:
    there, back = placed("two").curves
    middle = [curve.sampled(3)[1] for curve in (there, back)]
    assert np.linalg.norm(middle[0] - middle[1]) > 0.1


def test_curves_lead_around_modules() -> None:
    found = placed("hierarchy")
    for curve in found.curves:
        for item in found.items:
            if item.path not in (curve.edge.to, curve.edge.source):
                assert (np.linalg.norm(curve.sampled() - item.centre, axis=1) > item.radius).all()


def test_curves_end_at_the_borders() -> None:
    for name in ("ring", "unfolded"):
        found = placed(name)
        for curve in found.curves:
            for end, which in ((curve.edge.source, 0), (curve.edge.to, 2)):
                item = next(each for each in found.items if each.node.name == end)
                offset = np.abs(curve.points[which] - item.centre)
                outer = outer_radius(item.node, item.radius)
                beyond = np.max(offset - item.half) if item.box else np.linalg.norm(offset) - outer
                assert -1e-9 < beyond < 0.03


def test_labels_as_rectangles() -> None:
    flat, upright = Label("a", np.zeros(2), 2.0, 0.2, 0.0), Label("b", np.array([0.0, 0.5]), 2.0, 0.2, 90.0)
    assert flat.overlaps(upright)
    assert not flat.overlaps(Label("c", np.array([0.0, 1.2]), 2.0, 0.2, 90.0))
    assert not Label("d", np.array([0.9, 0.6]), 1.0, 0.2, 45.0).overlaps(Label("e", np.zeros(2), 1.0, 0.2, 45.0))
    assert flat.distance(np.array([1.0, 0.4])) == pytest.approx(0.3)
    assert upright.distance(np.array([0.4, 0.5])) == pytest.approx(0.3)


# --- images ---


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", PICTURES)
def test_images(name: str) -> None:
    picture, expand = PICTURES[name]()
    svg = render_assembly(picture, "svg", "light", expand)
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(3.4 * 72)
    assert root.attrib["role"] == "img"
    by_id = {element.attrib.get("id"): element for element in root.iter()}
    assert by_id[root.attrib["aria-labelledby"]].text == title(picture)
    assert by_id[root.attrib["aria-describedby"]].text == describe(picture, expand)
    assert not root.findall(f".//{SVG}text"), "text is drawn as paths"
    assert b"dc:date" not in svg
    if len(picture.nodes) >= 40:  # drawn once: what follows is the same for small ones
        return
    assert render_assembly(picture, "svg", "light", expand) == svg, "the same bytes again"
    assert render_assembly(picture, "svg", "dark", expand) != svg


def test_png(tmp_path: Path) -> None:
    from PIL import Image

    draw_assembly(nested(), tmp_path / "a.png", "dark", {"brain"})
    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] == 1020
        assert image.info["Description"] == describe(nested(), {"brain"})
        assert image.convert("RGB").getpixel((1, 1)) == (0x0D, 0x11, 0x17)
    with pytest.raises(InputError, match=r"\.svg or \.png"):
        draw_assembly(nested(), tmp_path / "a.pdf")
    with pytest.raises(InputError, match="light or dark"):
        draw_assembly(nested(), tmp_path / "a.svg", "sepia")  # type: ignore[arg-type]


def fills(svg: bytes) -> set[str]:
    return set(re.findall(r"fill: (#[0-9a-f]{6})", svg.decode()))


def hexed(color: Sequence[float]) -> str:
    from matplotlib.colors import to_hex

    return str(to_hex(color))


def lightness(color: Sequence[float]) -> float:
    return float(np.dot(color, (0.299, 0.587, 0.114)))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_follow_levels(theme: Any) -> None:
    levels = (0.1, 0.4, 0.7)
    picture = GraphPicture(tuple(GraphNode(name, 8, c) for name, c in zip("abc", levels, strict=True)))
    hues = _Hues(scene(picture, frozenset(), WIDTH, _measure()).items, True, _PALETTES[theme])
    shades = [lightness(hues.of(level)) for level in levels]
    assert shades == sorted(shades, reverse=theme == "light"), "the faster, the further from the page"
    assert min(abs(np.diff(shades))) > 0.15, "told apart without colours"
    assert {hexed(hues.of(level)) for level in levels} <= fills(render_assembly(picture, "svg", theme))
    factors = _Hues(scene(picture, frozenset(), WIDTH, _measure()).items, False, _PALETTES[theme])
    assert lightness(factors.of(0.1)) == pytest.approx(shades[2]), "a small factor is fast"


def test_what_limits_stands_out() -> None:
    """A ring for the module, dashes for the coupling, in the accent colour; dots inside phi."""
    plain = graph(["a", "b", "c"], topologies.ring(["a", "b", "c"]))
    accent = _PALETTES["light"].conic
    assert accent not in render_assembly(plain, "svg").decode()
    modules = (GraphNode("a", 8, 0.1, limiting=True), *plain.nodes[1:])
    ringed = render_assembly(GraphPicture(modules, plain.edges), "svg").decode()
    assert f"stroke: {accent}" in ringed
    dashed = render_assembly(
        GraphPicture(plain.nodes, (GraphEdge("a", "c", 1.0, limiting=True), *plain.edges[1:])), "svg"
    ).decode()
    assert re.search(rf"stroke-dasharray: [^;]+;[^\"]*stroke: {accent}", dashed)
    dotted = render_assembly(GraphPicture(plain.nodes, (GraphEdge("a", "c", 1.0, inside=True),)), "svg").decode()
    assert "stroke-dasharray" in dotted
    assert "stroke-dasharray" not in render_assembly(plain, "svg").decode()


def test_widths_follow_strength() -> None:
    nodes = tuple(GraphNode(name, 8, 0.1) for name in "abc")

    def widths(*strengths: float) -> list[float]:
        pairs = zip(topologies.ring(["a", "b", "c"]), strengths, strict=True)
        svg = render_assembly(GraphPicture(nodes, tuple(GraphEdge(*pair, s) for pair, s in pairs)), "svg").decode()
        color = hexed(_mixed(_PALETTES["light"].ink, _PALETTES["light"].paper, 0.45))
        curves = re.findall(rf"stroke: {color}; stroke-width: ([0-9.]+); stroke-linejoin", svg)
        return sorted(float(width) for width in curves)

    assert widths(0.0, 1.0, 2.0) == pytest.approx([0.5, 1.25, 2.0])
    assert widths(0.0, 10.0, 20.0) == pytest.approx([0.5, 1.25, 2.0]), "ratios only"


def test_names_are_escaped() -> None:
    """Markup, mathematics and characters that XML does not know, in names and titles."""
    nasty = "<script>alert('$x_1$')<\\script>&amp;\" ]]> <!-- \x00\x1b]0;\ufffe"
    nodes = (GraphNode(nasty, 4, 0.5), GraphNode("日本語 \U0001f9e0", 4, 0.6), GraphNode("\x07", 3, 0.5))
    picture = GraphPicture(nodes, (GraphEdge(nasty, "\x07", 1.0, limiting=True),), title="<b>&\x00</b>")
    svg = render_assembly(picture, "svg")
    root = ET.fromstring(svg)
    assert not root.findall(f".//{SVG}script")
    assert root.find(f"{SVG}title") is not None
    assert root.findtext(f"{SVG}title") == "<b>&\ufffd</b>"
    assert "script" in (root.findtext(f"{SVG}desc") or "")
    assert b"\x00" not in svg
    assert b"\x1b" not in svg


def test_folding() -> None:
    picture = nested()
    assert {item.path for item in placed("folded").items} == {"brain", "body"}
    assert {item.path for item in placed("unfolded").items} == {"brain", "body", "brain/v1", "brain/v2"}
    assert checked(picture, {"brain/v1"}) == {"brain", "brain/v1"}, "what is around it unfolds too"
    assert [item.path for item in placed("unfolded twice").items if item.box] == ["brain", "brain/v1"]
    assert picture.nodes[0].children == 2, "counted from what is inside"
    for path in ("body", "brain/v2", "nobody", "brain/"):
        with pytest.raises(InputError) as refused:
            checked(picture, {path})
        assert refused.value.slug == "unknown-module"
    with pytest.raises(InputError, match="set of paths"):
        checked(picture, "brain")


def test_caption() -> None:
    words = describe(nested(), frozenset({"brain"}))
    assert words.startswith("Assembly of 2 modules (n = 190) with 1 coupling. The whole contracts with the certified")
    for part in (
        "rate 0.2",
        "40 to 90",
        "(0.3 to 0.5)",
        "hatched: 1",
        "Double circles",
        "(v1, v2)",
        "Boxes",
        "(brain)",
    ):
        assert part in words
    assert "Dashed: limiting, brain <- body." in words
    assert describe(GraphPicture(nested().nodes, caption="As given.")) == "As given."
    factor = GraphPicture((GraphNode("a", 1, 0.5),), level=0.123456, continuous=False)
    assert "factor 0.1235" in describe(factor), "rounded upwards: it says no more than is certified"
    assert "rate 0.1234" in describe(GraphPicture((GraphNode("a", 1, 0.5),), level=0.123456))
    pairs = graph(names(5), topologies.all_to_all(names(5)))
    assert "10 pairs coupled in both directions" in describe(pairs)


@pytest.mark.slow
def test_thousand_modules() -> None:
    """Without names, couplings as hairlines; what limits is still to be seen."""
    pairs = topologies.random_pairs(names(1000), 5000, seed=1)
    plain = graph(names(1000), pairs)
    edges = (GraphEdge(*pairs[0], 1.0, limiting=True), *plain.edges[1:])
    picture = GraphPicture(plain.nodes, edges, level=0.1)
    assert not scene(picture, frozenset(), WIDTH, _measure()).labels
    svg = render_assembly(picture, "svg")
    assert ET.fromstring(svg).tag == f"{SVG}svg"
    assert len(svg) < 1_500_000
    assert _PALETTES["light"].conic in svg.decode()


# --- input ---


@pytest.mark.parametrize(
    ("make", "slug"),
    [
        (lambda: GraphNode("", 1), "wrong-type"),
        (lambda: GraphNode("a/b", 1), "wrong-type"),
        (lambda: GraphNode("a", 0), "out-of-range"),
        (lambda: GraphNode("a", 1, float("nan")), "not-finite"),
        (lambda: GraphNode("a", 1, children=-1), "out-of-range"),
        (lambda: GraphPicture(()), "missing-value"),
        (lambda: GraphPicture((GraphNode("a", 1), GraphNode("a", 2))), "duplicate-key"),
        (lambda: GraphPicture((GraphNode("a", 1),), (GraphEdge("a", "b", 1.0),)), "unknown-module"),
        (lambda: GraphPicture((GraphNode("a", 1),), (GraphEdge("a", "a", 1.0),)), "conflict"),
        (lambda: GraphPicture((GraphNode("a", 1), GraphNode("b", 1)), (GraphEdge("a", "b", 1.0),) * 2), "conflict"),
        (lambda: GraphPicture((GraphNode("a", 1), GraphNode("b", 1)), (GraphEdge("a", "b", -1.0),)), "out-of-range"),
    ],
)
def test_refusals(make: Callable[[], object], slug: str) -> None:
    with pytest.raises(InputError) as refused:
        make()
    assert refused.value.slug == slug


def test_importing_loads_no_matplotlib() -> None:
    code = "import certes.figure, sys; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError) as refused:
        render_assembly(nested(), "svg")
    assert refused.value.extra == "figures"
