"""The learning curve of a training, drawn for a page: loss, and how well the sequences that choose are answered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

#: Of a chart: width, height, and the room for its words at the left, right, top and bottom.
_WIDTH, _HEIGHT = 420.0, 210.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 12.0, 14.0, 30.0

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: what it shows.
        drawing: the picture, with a text for those who do not see it.
        legend: (class of a line, its name).
    """

    title: str
    drawing: Markup
    legend: tuple[tuple[str, str], ...]


def charts(curve: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts of a learning curve; none before the first epoch.

    Args:
        curve: entries with ``epoch``, ``loss``, ``validation_loss``, ``validation_accuracy`` or ``validation_rmse``.
    """
    if not curve:
        return []
    found = [_chart("Loss", {"train": _points(curve, "loss"), "choose": _points(curve, "validation_loss")})]
    for name, title in (("validation_accuracy", "Accuracy"), ("validation_rmse", "RMSE")):
        points = _points(curve, name)
        if points:
            found.append(_chart(title, {"choose": points}))
    return found


def _points(curve: Sequence[Mapping[str, Any]], name: str) -> Points:
    """(epoch, value) where there is a number."""
    found = []
    for entry in curve:
        epoch, value = entry.get("epoch"), entry.get(name)
        if isinstance(epoch, int | float) and isinstance(value, int | float) and math.isfinite(value):
            found.append((float(epoch), float(value)))
    return found


_NAMES = {"train": "on the data to learn from", "choose": "on the data that choose the epoch"}


def _chart(title: str, lines: Mapping[str, Points]) -> Chart:
    known = {kind: points for kind, points in lines.items() if points}
    values = [value for points in known.values() for _, value in points]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low < 1e-9 * max(abs(high), 1.0):
        low, high = low - 0.5 * max(abs(low), 1.0), high + 0.5 * max(abs(high), 1.0)
    last = max((points[-1][0] for points in known.values()), default=1.0)
    first = min((points[0][0] for points in known.values()), default=1.0)
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(point: tuple[float, float]) -> tuple[float, float]:
        share = (point[0] - first) / (last - first) if last > first else 0.5
        return _LEFT + wide * share, _TOP + tall * (high - point[1]) / (high - low)

    drawn = Markup("").join(_line(kind, [place(point) for point in points]) for kind, points in known.items())
    said = "; ".join(
        f"{_NAMES[kind]}: {points[-1][1]:.4g} after epoch {points[-1][0]:.0f}" for kind, points in known.items()
    )
    drawing = Markup(
        '<svg class="chart" viewBox="0 0 {0:.0f} {1:.0f}" role="img" aria-label="{2}">'
        '<path class="axis" d="M{3} {4} V{5} H{6}"/>'
        '<text x="{7}" y="{8}" class="end">{9}</text><text x="{7}" y="{5}" class="end">{10}</text>'
        '<text x="{3}" y="{11}">{12:.0f}</text><text x="{6}" y="{11}" class="end">epoch {13:.0f}</text>{14}</svg>'
    ).format(
        _WIDTH, _HEIGHT, f"{title}. {said}", _LEFT, _TOP, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _LEFT - 8, _TOP + 8,
        f"{high:.3g}", f"{low:.3g}", _HEIGHT - 9, first, last, drawn,
    )  # fmt: skip
    return Chart(title, drawing, tuple((kind, _NAMES[kind]) for kind in known))


def _line(kind: str, places: Sequence[tuple[float, float]]) -> Markup:
    if len(places) == 1:
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(kind, *places[0])
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return Markup('<polyline class="{}" points="{}"/>').format(kind, path)
