"""Drawing a picture for a paper's column: 3.4 inches wide, 8 point, unit aspect, light or dark, SVG or PNG.

Matplotlib's object interface only: no global state but its parameters, which are set aside while a figure is made, so
that a user's own style never changes one. Text becomes paths in an SVG (the same glyphs everywhere), identifiers
are seeded and nothing is dated: the same picture gives the same bytes with the same matplotlib. Colours after Okabe and
Ito, which people with any common colour blindness tell apart; no two things differ in colour alone.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError, MissingExtraError
from certes.figure.pictures import FieldPicture, FrequencyPicture, Picture, SpectrumPicture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Theme = Literal["light", "dark"]
Array = NDArray[np.float64]
Points = NDArray[np.complex128]

#: Inches and dots per inch.
WIDTH = 3.4
DPI = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.48, 0.08, 0.08, 0.40
_ROW = 0.165
#: Height of the plot over its width, at least and at most.
_FLATTEST, _TALLEST = 0.62, 1.05


@dataclass(frozen=True)
class Palette:
    """Colours of a theme: the page, what is written, what stands back, and three that mean something."""

    paper: str
    ink: str
    faint: str
    field: str
    conic: str
    norm: str


_PALETTES: dict[str, Palette] = {
    "light": Palette("#ffffff", "#1a1a1a", "#b9b9b9", "#0072b2", "#d55e00", "#009e73"),
    "dark": Palette("#0d1117", "#e6e6e6", "#4d545d", "#56b4e9", "#e69f00", "#2fbf94"),
}
_STYLE: dict[str, Any] = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.linewidth": 0.5,
    "axes.unicode_minus": True,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.visible": False,
    "legend.fontsize": 7.5,
    "path.simplify": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "certes",
}


def draw(picture: Picture, path: str | os.PathLike[str], theme: Theme = "light") -> None:
    """Draw a picture into a file.

    Args:
        picture: what to show.
        path: ``.svg`` or ``.png``.
        theme: ``light`` or ``dark``.

    Raises:
        InputError: another suffix or theme, or a file that cannot be written.
        MissingExtraError: matplotlib is not installed (extra ``figures``).
    """
    target = Path(path)
    write(target, render(picture, suffix(target), theme))


def write(target: Path, data: bytes) -> None:
    """Write an image.

    Raises:
        InputError: a file that cannot be written.
    """
    try:
        target.write_bytes(data)
    except OSError as error:
        raise InputError("--out", f"{target}: {error.strerror}", "a file that can be written", "unwritable") from error


def require() -> None:
    """Raise MissingExtraError unless matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("matplotlib", "figures", "a figure") from error


def suffix(path: Path) -> Literal["svg", "png"]:
    """The kind of file that a path asks for.

    Raises:
        InputError: neither of the two.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("svg", "png"):
        raise InputError("--out", repr(path.name), "a name that ends in .svg or .png", "unknown-value")
    return "svg" if kind == "svg" else "png"


def render(picture: Picture, kind: Literal["svg", "png"], theme: Theme = "light") -> bytes:
    """The bytes of an image, the caption among its metadata.

    Raises:
        InputError: an unknown theme. MissingExtraError: matplotlib is not installed (extra ``figures``).
    """
    return saved(lambda palette: _compose(picture, palette), picture.caption, kind, theme)


def saved(compose: Callable[[Palette], Figure], caption: str, kind: Literal["svg", "png"], theme: Theme) -> bytes:
    """The bytes of the figure that ``compose`` makes of a theme's colours, in the style of all figures.

    Raises:
        InputError: an unknown theme. MissingExtraError: matplotlib is not installed (extra ``figures``).
    """
    if theme not in _PALETTES:
        raise InputError("theme", repr(theme), "light or dark", "unknown-value")
    require()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    palette = _PALETTES[theme]
    stream = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        ink = {"text.color": palette.ink, "axes.labelcolor": palette.ink, "axes.edgecolor": palette.ink}
        ink |= {"xtick.color": palette.ink, "ytick.color": palette.ink}
        parameters: Any = matplotlib.rcParams
        parameters.update({**_STYLE, **ink})
        figure = compose(palette)
        if kind == "svg":
            about = {"Creator": "certes", "Date": None, "Description": caption}
            vector: Any = FigureCanvasSVG(figure)
            vector.print_svg(stream, metadata=about)
        else:
            raster: Any = FigureCanvasAgg(figure)
            raster.print_png(stream, metadata={"Software": "certes", "Description": caption})
    return stream.getvalue()


def _compose(picture: Picture, palette: Palette) -> Figure:
    if isinstance(picture, FieldPicture):
        return _draw_field(picture, palette)
    if isinstance(picture, FrequencyPicture):
        return _draw_frequency(picture, palette)
    return _draw_spectrum(picture, palette)


def _canvas(ratio: float, entries: int, columns: int, palette: Palette) -> tuple[Figure, Axes]:
    """A figure whose plot is ``ratio`` times as high as wide, with room for a legend below."""
    from matplotlib.figure import Figure

    plot = WIDTH - _LEFT - _RIGHT
    rows = -(-entries // columns)
    below = _BOTTOM + _ROW * rows + 0.05
    height = round((_TOP + ratio * plot + below) * DPI) / DPI
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=palette.paper)
    axes = figure.add_axes((_LEFT / WIDTH, below / height, plot / WIDTH, ratio * plot / height))
    axes.set_facecolor(palette.paper)
    return figure, axes


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="lower center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=columns,
        frameon=False,
        handlelength=1.6,
        handletextpad=0.6,
        columnspacing=1.6,
        labelspacing=0.35,
        borderpad=0.3,
    )


def _window(points: Points, margin: float = 0.08) -> tuple[float, float, float, float, float]:
    """(left, right, low, high, height over width) of a plot with unit aspect, points well inside."""
    left, right = float(points.real.min()), float(points.real.max())
    low, high = float(points.imag.min()), float(points.imag.max())
    width, height = max(right - left, 1e-300), high - low
    ratio = float(np.clip(height / width, _FLATTEST, _TALLEST))
    width = (1.0 + 2.0 * margin) * max(width, height / ratio)
    middle, centre = 0.5 * (left + right), 0.5 * (low + high)
    height = ratio * width
    return middle - width / 2, middle + width / 2, centre - height / 2, centre + height / 2, ratio


def _plane(axes: Axes, window: tuple[float, ...], palette: Palette) -> None:
    """A piece of the complex plane with unit aspect and its two axes."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(window[0], window[1])
    axes.set_ylim(window[2], window[3])
    axes.set_aspect("equal", adjustable="box")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.axhline(0.0, color=palette.faint, linewidth=0.5, zorder=0.5)
    axes.axvline(0.0, color=palette.faint, linewidth=0.5, zorder=0.5)
    axes.set_xlabel(r"Re $z$", labelpad=2)
    axes.set_ylabel(r"Im $z$", labelpad=1)


def _dot_size(points: Points) -> float:
    """Smaller dots for more of them."""
    return float(np.clip(32.0 / np.sqrt(len(points)), 1.2, 2.8))


def _dots(axes: Axes, points: Points, label: str, palette: Palette) -> None:
    size = _dot_size(points)
    axes.plot(
        points.real, points.imag, "o", markersize=size, color=palette.ink, markeredgewidth=0, label=label, zorder=4
    )


def _draw_field(picture: FieldPicture, palette: Palette) -> Figure:
    conic, polygon = picture.conic, picture.outline.polygon
    window = _field_window(picture)
    reach = 10.0 * float(np.max(np.abs(window[:4])))
    curve = conic.boundary(reach)
    tangents = _tangents(picture, window)
    entries = 4 + (2 if tangents else 0) + (picture.norm is not None)
    figure, axes = _canvas(window[4], entries, 2, palette)
    _plane(axes, window, palette)
    if picture.norm is None:
        axes.fill(curve.real, curve.imag, facecolor=palette.conic, alpha=0.08, linewidth=0, zorder=0.6)
    else:
        disk = picture.norm * np.exp(2j * np.pi * np.arange(361) / 360)
        label = r"all $u^{*\!}A_Q v$, $|u| = |v| = 1$"
        axes.fill(disk.real, disk.imag, facecolor=(palette.field, 0.10), linewidth=0, label=label, zorder=1)
    label = f"{conic.name}, {picture.level}"
    axes.plot(curve.real, curve.imag, color=palette.conic, linewidth=1.1, label=label, zorder=2)
    axes.fill(
        polygon.real,
        polygon.imag,
        facecolor=(palette.field, 0.22),
        edgecolor=palette.field,
        linewidth=0.9,
        joinstyle="round",
        label=r"field of values $F(A_Q)$",
        zorder=3,
    )
    _dots(axes, picture.eigenvalues, f"eigenvalues of ${_math(picture.matrix)}$", palette)
    axes.plot([0.0], [0.0], "+", markersize=5, markeredgewidth=0.9, color=palette.conic, label="focus 0", zorder=5)
    for k, line in enumerate(tangents):
        label = "supporting line" if k == 0 else "_"
        axes.plot(line.real, line.imag, color=palette.ink, linewidth=0.6, dashes=(3, 2), label=label, zorder=3.5)
    if tangents:
        places = _mirrored([contact.point for contact in picture.contacts])
        axes.plot(
            places.real,
            places.imag,
            "o",
            markersize=5.5,
            markerfacecolor="none",
            markeredgecolor=palette.conic,
            markeredgewidth=1.0,
            label="closest point",
            zorder=6,
        )
    _legend(figure, axes, 2)
    return figure


def _math(name: str) -> str:
    """The name of a matrix as mathematics."""
    return re.sub(r"\^(\w)", r"^{\\mathsf{\1}}", name)


def _field_window(picture: FieldPicture) -> tuple[float, float, float, float, float]:
    """Around the field of values and the near end of the conic; around the whole conic if that is not much more."""
    conic = picture.conic
    around = conic.parameter * np.array([0.0, 1.0 / (1.0 + conic.eccentricity), 0.6j, -0.6j])
    shown = np.concatenate([picture.outline.polygon, around])
    if picture.norm is not None:
        shown = np.append(shown, picture.norm * np.array([1, -1, 1j, -1j]))
    if conic.eccentricity < 1.0:
        whole = conic.boundary(np.inf)
        if max(np.ptp(whole.real), np.ptp(whole.imag)) <= 1.8 * max(np.ptp(shown.real), np.ptp(shown.imag)):
            shown = np.concatenate([shown, whole])
    return _window(shown)


def _mirrored(points: Sequence[complex]) -> Points:
    """Points and their conjugates, each once."""
    given = np.array(points)
    off = given[np.abs(given.imag) > 1e-9 * np.abs(given).max()]
    return np.concatenate([given, off.conj()])


def _tangents(picture: FieldPicture, window: tuple[float, ...]) -> list[Points]:
    """Pieces of the lines through the closest points and of their mirror images, shorter where there are many."""
    half = (window[1] - window[0]) * float(np.clip(0.4 / max(len(picture.contacts), 1), 0.1, 0.2))
    lines = []
    for contact in picture.contacts:
        along = 1j * np.exp(1j * contact.normal) * half
        line = np.array([contact.point - along, contact.point + along])
        lines += [line] if np.sin(contact.normal) <= 1e-9 else [line, line.conj()]
    return lines


def _draw_spectrum(picture: SpectrumPicture, palette: Palette) -> Figure:
    both = np.concatenate([picture.eigenvalues, picture.steepest, [0.0]])
    if not picture.continuous:
        both = np.concatenate([both, [1, -1, 1j, -1j]])
    window = _window(both)
    figure, axes = _canvas(window[4], 3 if len(picture.steepest) else 2, 2, palette)
    _plane(axes, window, palette)
    if picture.continuous:
        axes.axvspan(window[0], 0.0, facecolor=palette.conic, alpha=0.07, linewidth=0, zorder=0.6)
        axes.axvline(0.0, color=palette.conic, linewidth=1.1, label="border of stability", zorder=2)
    else:
        circle = np.exp(2j * np.pi * np.arange(361) / 360)
        axes.fill(circle.real, circle.imag, facecolor=palette.conic, alpha=0.07, linewidth=0, zorder=0.6)
        axes.plot(circle.real, circle.imag, color=palette.conic, linewidth=1.1, label="unit circle", zorder=2)
    if len(picture.steepest):
        axes.plot(
            picture.steepest.real,
            picture.steepest.imag,
            "o",
            markersize=_dot_size(picture.steepest) + 2.0,
            markerfacecolor="none",
            markeredgecolor=palette.field,
            markeredgewidth=0.7,
            label="eigenvalues, steepest slopes",
            zorder=3,
        )
    _dots(axes, picture.eigenvalues, f"eigenvalues {picture.place}", palette)
    _legend(figure, axes, 2)
    return figure


def _draw_frequency(picture: FrequencyPicture, palette: Palette) -> Figure:
    from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, NullLocator

    figure, axes = _canvas(_FLATTEST, 2, 1, palette)
    low, high = min(0.0, float(picture.values.min())), max(1.0, float(picture.values.max()))
    axes.set_ylim(low - 0.05 * (high - low), high + 0.12 * (high - low))
    axes.set_xlim(float(picture.frequencies[0]), float(picture.frequencies[-1]))
    if picture.continuous:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=7))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(r"$\omega$ (radians per unit of time)", labelpad=2)
    else:
        axes.xaxis.set_major_locator(FixedLocator([np.pi * k / 4 for k in range(5)]))
        axes.xaxis.set_major_formatter(FixedFormatter(["0", r"$\pi/4$", r"$\pi/2$", r"$3\pi/4$", r"$\pi$"]))
        axes.set_xlabel(r"$\omega$ (radians per step)", labelpad=2)
    axes.set_ylabel(r"$\lambda_{\max}$", labelpad=2)
    axes.axhline(
        1.0, color=palette.conic, linewidth=1.1, label=f"border of the inequality at {picture.level}", zorder=2
    )
    axes.axhline(0.0, color=palette.faint, linewidth=0.5, zorder=0.5)
    label = r"$\lambda_{\max}(\mathrm{Re}\, Q^{1/2} G(\omega)\, Q^{-1/2})$"
    axes.plot(picture.frequencies, picture.values, color=palette.field, linewidth=1.1, label=label, zorder=3)
    _legend(figure, axes, 1)
    return figure
