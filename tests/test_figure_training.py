"""The figure of a training: what is in it, that nothing sticks out or covers another, its caption, and its limits."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from certes.errors import InputError
from certes.figure.drawing import _PALETTES, _STYLE, DPI
from certes.figure.graph import GraphEdge, GraphNode, GraphPicture
from certes.figure.training import TrainingPicture, _compose, render_training

GRAPH = GraphPicture(
    tuple(GraphNode(f"m{k}", 8 * (k + 1), 0.02 * (k + 1)) for k in range(4)),
    tuple(GraphEdge(f"m{i}", f"m{j}", 1.0) for i in range(4) for j in range(4) if i != j),
    level=0.9625, continuous=False, modules_continuous=True,
)  # fmt: skip


def curve(epochs: int = 12, word: str = "validation_accuracy", scale: float = 1.0) -> list[dict[str, float]]:
    falls = [scale * float(np.exp(-0.3 * k)) for k in range(epochs)]
    return [
        {"epoch": k + 1, "loss": 1.1 * x + 0.01, "validation_loss": x, word: 1.0 - 0.8 * x} for k, x in enumerate(falls)
    ]


def drawn(picture: TrainingPicture, theme: str = "light") -> Any:
    """The figure as it is drawn, with its boxes in pixels."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = _compose(picture, _PALETTES[theme])
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
    return figure


def words(figure: Any) -> list[tuple[str, Any]]:
    """Every word that is seen, with its box."""
    texts = list(figure.texts)
    for axes in (axes for axes in figure.axes if axes.axison):
        texts += [axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis, view in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            seen = [tick for tick in axis.get_major_ticks() if min(view) <= tick.get_loc() <= max(view)]
            texts += [label for tick in seen for label in (tick.label1, tick.label2) if label.get_visible()]
    return [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]


@pytest.mark.parametrize("epochs", [1, 2, 12, 300])
@pytest.mark.parametrize("chosen", ["first", "middle", "last"])
@pytest.mark.parametrize("graph", [None, GRAPH])
def test_nothing_sticks_out_or_covers_another(epochs: int, chosen: str, graph: GraphPicture | None) -> None:
    best = {"first": 1, "middle": (epochs + 1) // 2, "last": epochs}[chosen]
    figure = drawn(TrainingPicture(curve(epochs, scale=40.0), best, 0.7, graph))
    width, height = figure.get_size_inches() * DPI
    boxes = words(figure)
    assert {"epoch", "loss", "accuracy", f"chosen: {best}"} <= {name for name, _ in boxes}
    for k, (name, box) in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= width, name
        assert 0 <= box.y0 < box.y1 <= height, name
        for other, there in boxes[:k]:
            assert not box.overlaps(there), (name, other)


def test_what_is_drawn() -> None:
    picture = TrainingPicture(curve(), 7, 0.91, GRAPH)
    figure = drawn(picture)
    below, above = figure.axes[:2]
    found = [line.get_xydata() for line in above.get_lines()]
    for name, line in zip(("loss", "validation_loss"), found, strict=False):
        assert np.array_equal(line, np.column_stack([picture.column("epoch"), picture.column(name)]))
    lines = [line.get_xydata() for line in below.get_lines()]
    assert np.array_equal(lines[0][:, 1], picture.column("validation_accuracy"))
    assert lines[1].tolist() == [[7.0, 0.91]]
    assert [line.get_xdata()[0] for line in (above.get_lines()[-1], below.get_lines()[-1])] == [7, 7]
    assert "certified rate" in [name for name, _ in words(figure)], (
        "of modules in continuous time, though the whole is a map"
    )
    assert "certified factor 0.9625" in picture.caption


def test_of_errors_in_units() -> None:
    picture = TrainingPicture(curve(word="validation_rmse"), 3, 12.5)
    assert drawn(picture).axes[0].get_ylabel() == "error (RMSE)"
    assert "error (RMSE) 12.5" in picture.caption


def test_svg_is_described_and_the_same_again() -> None:
    picture = TrainingPicture(curve(), 7, 0.91, GRAPH)
    for theme in ("light", "dark"):
        svg = render_training(picture, "svg", theme)
        assert svg == render_training(picture, "svg", theme)
        root = ET.fromstring(svg)
        assert root.find("{http://www.w3.org/2000/svg}desc").text == picture.caption  # type: ignore[union-attr]
        assert len(svg) < 300_000
    assert render_training(picture, "svg", "light") != render_training(picture, "svg", "dark")
    assert not re.search(rb"<script|href=\"http", svg)


def test_large_assemblies_are_left_out() -> None:
    nodes = tuple(GraphNode(f"m{k}", 4, 0.1) for k in range(300))
    picture = TrainingPicture(curve(), 7, None, GraphPicture(nodes))
    assert picture.drawn is None
    assert "Right" not in picture.caption
    assert render_training(picture, "png")[:4] == b"\x89PNG"


@pytest.mark.parametrize(("entries", "slug"), [
    ([], "missing-value"),
    ([{"epoch": 1, "loss": 1.0, "validation_loss": float("nan"), "validation_rmse": 1.0}], "not-finite"),
    ([{"epoch": 1, "loss": 1.0, "validation_loss": 1.0}], "unknown-field"),
])  # fmt: skip
def test_curves_that_cannot_be(entries: Any, slug: str) -> None:
    with pytest.raises(InputError) as caught:
        TrainingPicture(entries, 1)
    assert caught.value.slug == slug
