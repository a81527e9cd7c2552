"""A training as a figure: the learning curve, and beside it the assembly that came of it (extra ``figures``).

Above the loss over the epochs, of the data that are learnt and of those that choose; below what the latter are judged
by: accuracy, or error in the units of the targets. The epoch that was chosen is marked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from certes.errors import InputError
from certes.figure.assembly import Panel, described
from certes.figure.drawing import DPI, WIDTH, Palette, Theme, saved
from certes.figure.graph import GraphPicture, describe, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches: least height, between the two halves, and around the axes of the curve.
_LEAST, _GUTTER = 2.7, 0.15
_LEFT, _RIGHT, _TOP, _BOTTOM, _BETWEEN = 0.52, 0.10, 0.22, 0.40, 0.10
#: Epochs up to which each is a dot as well.
_DOTTED = 25
#: Largest over least loss from which on the axis is logarithmic.
_WIDE = 8.0
#: Most modules of an assembly that is drawn beside the curve.
_DRAWN = 200
#: What the lower curve is, by its column.
_HEADLINES = {"validation_accuracy": "accuracy", "validation_rmse": "error (RMSE)"}


@dataclass(frozen=True, eq=False)
class TrainingPicture:
    """What is shown.

    Attributes:
        curve: one entry per epoch: ``epoch``, ``loss``, ``validation_loss`` and one of ``validation_accuracy`` and
            ``validation_rmse``.
        chosen: the epoch whose weights are the result.
        tested: the number on test data that belongs to the lower curve, or None.
        graph: the assembly, or None.

    Raises:
        InputError: no epoch, a value that is not finite, or another column.
    """

    curve: Sequence[Mapping[str, float]]
    chosen: int
    tested: float | None = None
    graph: GraphPicture | None = None

    def __post_init__(self) -> None:
        if not self.curve:
            raise InputError("curve", "no epoch", "at least one", "missing-value")
        names = ("epoch", "loss", "validation_loss", self.headline)
        if not all(math.isfinite(entry[name]) for entry in self.curve for name in names):
            raise InputError("curve", "a value that is not finite", "finite numbers", "not-finite")

    @property
    def headline(self) -> str:
        """The column of the lower curve."""
        found = next((name for name in _HEADLINES if all(name in entry for entry in self.curve)), None)
        if found is None:
            raise InputError("curve", "other columns", f"one of {', '.join(_HEADLINES)}", "unknown-field")
        return found

    def column(self, name: str) -> Any:
        """Values over the epochs, shape (epochs,)."""
        return np.array([entry[name] for entry in self.curve], dtype=np.float64)

    @property
    def caption(self) -> str:
        """The figure's caption."""
        what = _HEADLINES[self.headline]
        best = next((entry for entry in self.curve if entry["epoch"] == self.chosen), self.curve[-1])
        parts = [
            f"Left: loss of the training and the validation data, and {what} of the latter, over {len(self.curve)} "
            f"{'epoch' if len(self.curve) == 1 else 'epochs'}; epoch {self.chosen} was chosen "
            f"({what} {best[self.headline]:.4g})."
        ]
        if self.tested is not None:
            parts.append(f"Ring: {what} {self.tested:.4g} of that epoch's weights on test data, which chose nothing.")
        if self.drawn is not None:
            parts.append(f"Right: {describe(self.drawn)}")
        return " ".join(parts)

    @property
    def drawn(self) -> GraphPicture | None:
        """The assembly, unless it is too large to be read beside a curve."""
        return None if self.graph is None or sum(1 for _ in shown(self.graph, ())) > _DRAWN else self.graph


def render_training(picture: TrainingPicture, kind: Literal["svg", "png"], theme: Theme = "light") -> bytes:
    """The bytes of an image; an SVG has its title and the caption as its description.

    Raises:
        InputError: an unknown theme. MissingExtraError: matplotlib is not installed (extra ``figures``).
    """
    data = saved(lambda palette: _compose(picture, palette), picture.caption, kind, theme)
    return described(data, "Training of a certified assembly", picture.caption) if kind == "svg" else data


def _compose(picture: TrainingPicture, palette: Palette) -> Figure:
    from matplotlib.figure import Figure

    panel = None if picture.drawn is None else Panel(picture.drawn, (), palette)
    width = WIDTH if panel is None else 2.0 * WIDTH + _GUTTER
    height = math.ceil(max(_LEAST, 0.0 if panel is None else panel.height + 0.1) * DPI) / DPI
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=palette.paper)
    _draw_curve(figure, picture, palette)
    if panel is not None:
        panel.draw(figure, WIDTH + _GUTTER, 0.5 * (height - panel.height))
    return figure


def _draw_curve(figure: Figure, picture: TrainingPicture, palette: Palette) -> None:
    """Two plots over one another, of the same epochs."""
    wide, high = figure.get_size_inches()
    tall = 0.5 * (high - _TOP - _BOTTOM - _BETWEEN)
    across = (WIDTH - _LEFT - _RIGHT) / wide
    below = figure.add_axes((_LEFT / wide, _BOTTOM / high, across, tall / high))
    above = figure.add_axes((_LEFT / wide, (_BOTTOM + tall + _BETWEEN) / high, across, tall / high))
    epochs = picture.column("epoch")
    dots: dict[str, Any] = {"marker": "o", "markersize": 2.2} if len(epochs) <= _DOTTED else {}
    above.plot(
        epochs, picture.column("loss"), color=palette.conic, linewidth=1.0, dashes=(3, 1.2), label="training", **dots
    )
    solid: dict[str, Any] = {"color": palette.field, "linewidth": 1.2, **dots}
    above.plot(epochs, picture.column("validation_loss"), label="validation", **solid)
    below.plot(epochs, picture.column(picture.headline), **solid)
    _loss_axis(above, np.concatenate([picture.column("loss"), picture.column("validation_loss")]))
    if picture.tested is not None:
        ring: dict[str, Any] = {"markersize": 5.5, "markerfacecolor": palette.paper, "markeredgecolor": palette.norm}
        below.plot([picture.chosen], [picture.tested], "o", markeredgewidth=1.2, label="test", zorder=5, **ring)
        _legend(below, "lower right" if picture.headline == "validation_accuracy" else "upper right", palette)
    for axes in (above, below):
        _epoch_axis(axes, epochs, picture.chosen, palette)
    above.set_ylabel("loss", labelpad=2)
    above.tick_params(labelbottom=False)
    _legend(above, "upper right", palette)
    below.set_ylabel(_HEADLINES[picture.headline], labelpad=2)
    below.set_xlabel("epoch", labelpad=2)
    above.annotate(
        f"chosen: {picture.chosen}", (picture.chosen, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2.5),
        textcoords="offset points", ha=_side(picture.chosen, epochs), va="bottom", fontsize=7.5, color=palette.ink,
    )  # fmt: skip


def _side(chosen: int, epochs: Any) -> Literal["left", "center", "right"]:
    """Where a word over an epoch stays inside the plot."""
    share = 0.5 if len(epochs) < 2 else (chosen - epochs[0]) / (epochs[-1] - epochs[0])
    return "left" if share < 0.12 else "right" if share > 0.88 else "center"


def _loss_axis(axes: Axes, values: Any) -> None:
    """Logarithmic where the values are far apart."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

    low, high = float(values.min()), float(values.max())
    if low <= 0.0 or high / low < _WIDE:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        return
    axes.set_yscale("log")
    few = high / low < 100.0
    axes.yaxis.set_major_locator(LogLocator(10.0, subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if few:
        plain = ScalarFormatter()
        plain.set_scientific(False)
        axes.yaxis.set_major_formatter(plain)


def _epoch_axis(axes: Axes, epochs: Any, chosen: int, palette: Palette) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_facecolor(palette.paper)
    axes.grid(axis="y", color=palette.faint, linewidth=0.3, alpha=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    spare = 0.03 * max(float(epochs[-1] - epochs[0]), 1.0)
    axes.set_xlim(float(epochs[0]) - spare, float(epochs[-1]) + spare)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.axvline(chosen, color=palette.ink, linewidth=0.6, dashes=(1.0, 1.5), zorder=0.9)


def _legend(axes: Axes, place: Literal["upper right", "lower right"], palette: Palette) -> None:
    """Words on the paper's colour: no line runs through them."""
    box = axes.legend(loc=place, fontsize=7.5, handlelength=1.8, borderpad=0.25, labelspacing=0.3, borderaxespad=0.3)
    box.get_frame().set(facecolor=palette.paper, edgecolor="none", alpha=1.0)
