"""Drawing an assembly as a graph, in the style of all figures (:mod:`certes.figure.drawing`; extra ``figures``).

Colours run from pale to dark blue (in a dark picture from dim to bright), so that lightness alone tells them apart,
and the further from the page, the faster a module contracts. What limits has a colour and a form of its own: a ring,
and dashes.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import escape

import numpy as np

from certes.figure.drawing import DPI, WIDTH, Palette, Theme, saved, suffix, write
from certes.figure.graph import GraphPicture, checked, describe, title
from certes.figure.scene import CURVED, Curve, Item, Scene, scene, second_radius

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

#: Inches around the graph, between parts, of a row of the legend, and of the colour bar with its numbers.
_PAD, _ROW, _BAR = 0.07, 0.165, 0.30
#: Width of a curve in points: of the weakest and of the strongest coupling; drawn without heads: of both.
_THIN, _THICK, _HAIR = 0.5, 2.0, 0.3
#: Most characters of a name that are drawn.
_LONGEST = 18
_FONTS = ("STIXGeneral", "DejaVu Sans")
_DARK = "#0d1117"
#: Characters that XML does not know.
_UNKNOWN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def draw_assembly(
    picture: GraphPicture,
    path: str | os.PathLike[str],
    theme: Theme = "light",
    expand: Collection[str] = frozenset(),
) -> None:
    """Draw an assembly into a file.

    Args:
        picture: what to show.
        path: ``.svg`` or ``.png``.
        theme: ``light`` or ``dark``.
        expand: paths of assemblies to unfold, as ``{"brain", "brain/v1"}``; all others stay folded.

    Raises:
        InputError: another suffix or theme, an unknown path, or a file that cannot be written.
        MissingExtraError: matplotlib is not installed (extra ``figures``).
    """
    target = Path(path)
    write(target, render_assembly(picture, suffix(target), theme, expand))


def render_assembly(
    picture: GraphPicture,
    kind: Literal["svg", "png"],
    theme: Theme = "light",
    expand: Collection[str] = frozenset(),
) -> bytes:
    """The bytes of an image; an SVG has its title and the caption as its description.

    Raises:
        InputError: an unknown theme or path. MissingExtraError: matplotlib is not installed (extra ``figures``).
    """
    open_paths = checked(picture, expand)
    caption = _printable(describe(picture, open_paths))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        data = saved(lambda palette: _compose(picture, open_paths, palette), caption, kind, theme)
    return described(data, _printable(title(picture)), caption) if kind == "svg" else data


def described(svg: bytes, heading: str, caption: str) -> bytes:
    """An SVG with what a screen reader reads."""
    opening = re.search(rb"<svg [^>]*>", svg)
    assert opening is not None
    tag = opening.group()[:-1] + b' role="img" aria-labelledby="title" aria-describedby="desc">'
    words = f'\n <title id="title">{escape(heading)}</title>\n <desc id="desc">{escape(caption)}</desc>'
    return svg[: opening.start()] + tag + words.encode() + svg[opening.end() :]


def _printable(text: str) -> str:
    """A text in one line, without characters that XML or a page cannot hold."""
    return " ".join(_UNKNOWN.sub("\ufffd", text).split())


def _short(name: str) -> str:
    printable = _printable(name) or "\ufffd"
    return printable if len(printable) <= _LONGEST else printable[: _LONGEST - 1] + "…"


def _compose(picture: GraphPicture, open_paths: Collection[str], palette: Palette) -> Figure:
    from matplotlib.figure import Figure

    panel = Panel(picture, open_paths, palette)
    figure = Figure(figsize=(WIDTH, panel.height), dpi=DPI, facecolor=palette.paper)
    panel.draw(figure)
    return figure


class Panel:
    """An assembly with its legend, :data:`WIDTH` inches wide, somewhere in a figure.

    Args:
        picture: what to show.
        open_paths: assemblies to unfold.
        palette: colours.

    Attributes:
        height: in inches.
    """

    def __init__(self, picture: GraphPicture, open_paths: Collection[str], palette: Palette) -> None:
        self.palette, self.columns = palette, 2
        self.plan = scene(picture, open_paths, WIDTH - 2.0 * _PAD, _measure())
        self.hues = _Hues(self.plan.items, picture.rates, palette)
        self.entries = _entries(self.plan, self.hues, palette)
        self.legend = _ROW * (-(-len(self.entries) // self.columns))
        below = self.legend + (_BAR if self.hues.norm is not None else 0.0) + _PAD
        self.height = float(np.ceil((self.plan.height + below + 2.0 * _PAD) * DPI) / DPI)

    def draw(self, figure: Figure, left: float = 0.0, bottom: float = 0.0) -> None:
        """Draw, the lower left corner so many inches from that of the figure."""
        from matplotlib.legend_handler import HandlerTuple

        plan, (wide, high) = self.plan, figure.get_size_inches()
        axes = figure.add_axes((left / wide, bottom / high, WIDTH / wide, self.height / high))
        axes.set_xlim(-_PAD, WIDTH - _PAD)
        axes.set_ylim(plan.height + _PAD - self.height, plan.height + _PAD)
        axes.set_axis_off()
        _draw_curves(axes, plan.curves, self.palette)
        for item in plan.items:
            _draw_item(axes, item, self.hues, plan.font, self.palette)
        _draw_labels(axes, plan, self.palette)
        if self.hues.norm is not None:
            _draw_bar(figure, self.hues, (left, bottom + self.legend + _PAD), self.palette)
        if self.entries:
            figure.legend(
                handles=self.entries,
                labels=[(entry[0] if isinstance(entry, tuple) else entry).get_label() for entry in self.entries],
                handler_map={tuple: HandlerTuple(ndivide=1)},
                loc="lower center",
                bbox_to_anchor=((left + 0.5 * WIDTH) / wide, bottom / high),
                ncols=min(self.columns, len(self.entries)),
                frameon=False,
                handlelength=2.2,
                handletextpad=0.6,
                columnspacing=1.6,
                labelspacing=0.35,
                borderpad=0.3,
            )


def _measure() -> Callable[[str, float], float]:
    """The width of a name as it is drawn, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    def measure(name: str, size: float) -> float:
        font = FontProperties(family=list(_FONTS), size=size)
        return float(text_to_path.get_text_width_height_descent(_short(name), font, False)[0]) / 72.0

    return measure


class _Hues:
    """Which colour a level has.

    Attributes:
        map: from slow (0) to fast (1).
        norm: level -> 0 to 1, for the colour bar; None: there are no two levels.
        word: rate or factor.
        levels: those that there are, ascending.
    """

    def __init__(self, items: Sequence[Item], continuous: bool, palette: Palette) -> None:
        from matplotlib.colors import LinearSegmentedColormap, Normalize

        dark = palette.paper == _DARK
        ends = ["#1b3d54", "#56b4e9", "#e3f3fd"] if dark else ["#dcecf7", "#4a9fd0", "#00344f"]
        self.word = "rate" if continuous else "factor"
        self.map: Colormap = LinearSegmentedColormap.from_list("certes", ends if continuous else ends[::-1])
        self.levels = sorted({item.node.level for item in items if item.node.level is not None})
        self.norm: Normalize | None = None
        if len(self.levels) > 1:
            self.norm = Normalize(self.levels[0], self.levels[-1])
        self.unproven = any(item.node.level is None for item in items)

    def of(self, level: float | None) -> tuple[float, float, float]:
        """Red, green and blue of a level; None: of the page."""
        if level is None:
            return 0.0, 0.0, 0.0
        red, green, blue, _ = self.map(0.5 if self.norm is None else float(self.norm(level)))
        return float(red), float(green), float(blue)


def _mixed(first: str, second: str, share: float) -> tuple[float, float, float]:
    """A colour between two, opaque."""
    from matplotlib.colors import to_rgb

    red, green, blue = (1.0 - share) * np.array(to_rgb(first)) + share * np.array(to_rgb(second))
    return float(red), float(green), float(blue)


def _dashes(curve: Curve) -> Any:
    """Dots for inside phi, dashes for limiting, both for both; in units of the line's width."""
    return _pattern(curve.edge.inside, curve.edge.limiting)


def _pattern(inside: bool, limiting: bool) -> Any:
    if inside and limiting:
        return 0, (4.0, 1.5, 1.0, 1.5)
    if inside:
        return 0, (1.0, 1.5)
    return (0, (4.0, 1.5)) if limiting else "solid"


def _draw_curves(axes: Axes, curves: Sequence[Curve], palette: Palette) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Outline

    strongest = max((curve.edge.strength for curve in curves), default=0.0) or 1.0
    plain = _mixed(palette.ink, palette.paper, 0.45)
    if len(curves) > CURVED:
        _draw_crowd(axes, curves, palette)
        return
    slim = 1.0 if len(curves) <= 60 else 0.6
    for curve in sorted(curves, key=lambda each: (each.edge.limiting, each.edge.strength)):
        width = slim * (_THIN + (_THICK - _THIN) * curve.edge.strength / strongest)
        color = palette.conic if curve.edge.limiting else plain
        start, control, end = curve.points
        length = min((3.0 + 2.4 * width) / 72.0, 0.6 * float(np.linalg.norm(end - start)))
        along = (end - control) / max(float(np.linalg.norm(end - control)), 1e-9)
        across = 0.36 * length * np.array([-along[1], along[0]])
        stop = end - 0.8 * length * along
        outline = Outline(np.array([start, control, stop]), [Outline.MOVETO, Outline.CURVE3, Outline.CURVE3])
        order = 2.0 if curve.edge.limiting else 1.0
        style = {"linewidth": width, "linestyle": _dashes(curve), "capstyle": "butt", "zorder": order}
        axes.add_artist(PathPatch(outline, facecolor="none", edgecolor=color, **style))
        tip = np.array([end, end - length * along + across, end - length * along - across])
        axes.add_artist(Polygon(tip, closed=True, facecolor=color, linewidth=0, zorder=order))


def _draw_crowd(axes: Axes, curves: Sequence[Curve], palette: Palette) -> None:
    """Straight hairlines, one path of each kind: thousands of couplings in little space."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    kinds: dict[tuple[bool, bool], list[Curve]] = {}
    for curve in curves:
        kinds.setdefault((curve.edge.limiting, curve.edge.inside), []).append(curve)
    for (limiting, inside), group in sorted(kinds.items()):
        ends = np.array([curve.points[[0, 2]] for curve in group]).reshape(-1, 2)
        outline = Outline(ends, [Outline.MOVETO, Outline.LINETO] * len(group))
        color = palette.conic if limiting else _mixed(palette.ink, palette.paper, 0.7)
        width, pattern = (1.0 if limiting else _HAIR), _pattern(inside, limiting)
        alpha = 1.0 if limiting else float(np.clip(1500.0 / len(group), 0.12, 0.5))
        style = {"linewidth": width, "linestyle": pattern, "zorder": 2.0 if limiting else 1.0}
        axes.add_artist(PathPatch(outline, facecolor="none", edgecolor=color, alpha=alpha, **style))


def _draw_item(axes: Axes, item: Item, hues: _Hues, font: float, palette: Palette) -> None:
    from matplotlib.patches import Circle

    node, (x, y) = item.node, item.centre
    if item.box:
        _draw_box(axes, item, hues, palette)
        return
    line = min(0.7, 20.0 * item.radius)
    order = 3.0
    if node.limiting:
        ring = second_radius(node, item.radius) + 0.026
        axes.add_artist(Circle((x, y), ring, facecolor="none", edgecolor=palette.conic, linewidth=1.1, zorder=order))
    if node.children:
        outer = second_radius(node, item.radius)
        axes.add_artist(
            Circle((x, y), outer, facecolor=palette.paper, edgecolor=palette.ink, linewidth=line, zorder=3.1)
        )
    shape = Circle((x, y), item.radius, edgecolor=palette.ink, linewidth=line, zorder=3.2)
    if node.level is None:
        shape.set(facecolor=palette.paper, hatch="//////", edgecolor=palette.ink)
    else:
        shape.set_facecolor(hues.of(node.level))
    axes.add_artist(shape)
    size = min(font, 0.95 * 72.0 * item.radius)
    if node.children and size >= 3.0:
        color = palette.ink if node.level is None else _legible(hues.of(node.level))
        axes.text(x, y, str(node.children), fontsize=size, color=color, ha="center", va="center_baseline", zorder=4)


def _draw_box(axes: Axes, item: Item, hues: _Hues, palette: Palette) -> None:
    """An unfolded assembly: its borders, and a dot in the colour of its level before its name."""
    from matplotlib.patches import Circle, FancyBboxPatch

    frames: list[tuple[float, Any, Any]] = [(0.0, _mixed(palette.ink, palette.paper, 0.5), "solid")]
    if item.node.limiting:
        frames.append((0.03, palette.conic, (0, (4.0, 1.5))))
    for inset, color, dashes in frames:
        low, size = item.centre - item.half + inset, 2.0 * (item.half - inset)
        style = f"round,pad=0,rounding_size={0.09 - inset}"
        shape = FancyBboxPatch((low[0], low[1]), size[0], size[1], boxstyle=style, facecolor="none")
        shape.set(edgecolor=color, linewidth=0.9, linestyle=dashes, zorder=0.8)
        if inset == 0.0:
            shape.set_facecolor(_mixed(palette.paper, palette.ink, 0.04))
        axes.add_artist(shape)
    x, y = item.centre[0] - item.half[0] + 0.13, item.centre[1] + item.half[1] - 0.09
    dot = Circle((x, y), 0.038, edgecolor=palette.ink, linewidth=0.5, zorder=3.2)
    if item.node.level is None:
        dot.set(facecolor=palette.paper, hatch="//////////")
    else:
        dot.set_facecolor(hues.of(item.node.level))
    axes.add_artist(dot)


def _legible(color: tuple[float, float, float]) -> str:
    """Black or white, whichever stands out."""
    return "#ffffff" if np.dot(color, (0.299, 0.587, 0.114)) < 0.5 else "#1a1a1a"


def _draw_labels(axes: Axes, plan: Scene, palette: Palette) -> None:
    from matplotlib.patheffects import withStroke

    for label in plan.labels:
        x, y = label.centre
        text = axes.text(x, y, _short(label.text), fontsize=plan.font, fontfamily=list(_FONTS), zorder=5)
        text.set(ha="center", va="center", rotation=label.angle, rotation_mode="anchor", parse_math=False)
        text.set_path_effects([withStroke(linewidth=1.4, foreground=palette.paper)])


def _draw_bar(figure: Figure, hues: _Hues, corner: tuple[float, float], palette: Palette) -> None:
    from matplotlib.cm import ScalarMappable

    assert hues.norm is not None
    (left, bottom), (wide, high) = corner, figure.get_size_inches()
    place = ((left + 0.42 * WIDTH) / wide, (bottom + 0.15) / high, 0.42 * WIDTH / wide, 0.07 / high)
    axes = figure.add_axes(place)
    bar = figure.colorbar(ScalarMappable(hues.norm, hues.map), cax=axes, orientation="horizontal")
    bar.outline.set(linewidth=0.5, edgecolor=palette.ink)
    ticks = [hues.levels[0], 0.5 * (hues.levels[0] + hues.levels[-1]), hues.levels[-1]]
    bar.set_ticks(ticks, labels=[f"{x:.3g}" for x in ticks])
    bar.ax.tick_params(length=2.0, width=0.5, pad=1.5, labelsize=7.0, colors=palette.ink)
    x, y = (left + 0.40 * WIDTH) / wide, (bottom + 0.185) / high
    figure.text(x, y, f"certified {hues.word}", ha="right", va="center", fontsize=7.5, color=palette.ink)


def _entries(plan: Scene, hues: _Hues, palette: Palette) -> list[Any]:
    """Handles of the legend: only what occurs."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    plain = _mixed(palette.ink, palette.paper, 0.45)
    kinds = sorted({(curve.edge.limiting, curve.edge.inside) for curve in plan.curves})
    words = {
        (False, False): "coupling, width: strength" if len(plan.curves) <= CURVED else "coupling",
        (False, True): r"coupling inside $\phi$",
        (True, False): "limiting coupling",
        (True, True): r"limiting, inside $\phi$",
    }
    found: list[Any] = []
    if len(hues.levels) == 1:
        label = f"certified {hues.word} {hues.levels[0]:.4g}"
        found.append(_disc(Line2D, label, facecolor=hues.of(hues.levels[0]), edgecolor=palette.ink))
    for limiting, inside in kinds:
        color = palette.conic if limiting else plain
        line = Line2D([], [], color=color, linewidth=1.2, linestyle=_pattern(inside, limiting))
        line.set_label(words[limiting, inside])
        found.append(line)
    circles = [item.node for item in plan.items if not item.box]
    if any(item.node.limiting for item in plan.items):
        found.append(_disc(Line2D, "limiting module", facecolor="none", edgecolor=palette.conic))
    if any(node.children for node in circles):
        label = "assembly, modules inside"
        outer = _disc(Line2D, label, facecolor=palette.paper, edgecolor=palette.ink)
        inner = _disc(Line2D, label, facecolor=_mixed(palette.ink, palette.paper, 0.6), edgecolor=palette.ink)
        outer.set(markersize=7.5, markeredgewidth=0.6)
        inner.set(markersize=4.5, markeredgewidth=0.6)
        found.append((outer, inner))
    if hues.unproven:
        label = f"no certified {hues.word}"
        found.append(Patch(facecolor=palette.paper, edgecolor=palette.ink, hatch="//////", linewidth=0.6, label=label))
    return found


def _disc(line: Any, label: str, *, facecolor: Any, edgecolor: Any) -> Any:
    """A round handle."""
    disc = line([], [], linestyle="none", marker="o", markersize=5.5, label=label)
    disc.set(markerfacecolor=facecolor, markeredgecolor=edgecolor, markeredgewidth=1.0)
    return disc
