"""Before and after a projection: numbers of the recurrent matrix, its entries as images, its eigenvalues."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from certes import words
from certes.errors import InputError
from certes.weights import WeightFile
from markupsafe import Markup
from numpy.typing import NDArray

Array = NDArray[np.float64]
Points = NDArray[np.complex128]

#: Largest matrix whose eigenvalues are computed for a page, and whose entries are shown.
LARGEST = 512
#: Pixels of the drawing of eigenvalues: width and height, and around what is drawn.
_SIDE, _PAD = 320.0, 18.0
#: Red and blue of negative and positive entries: apart in lightness on a light and on a dark page.
_NEGATIVE, _POSITIVE = (200, 72, 60), (58, 120, 200)


@dataclass(frozen=True)
class Comparison:
    """What one matrix was and is.

    Attributes:
        tensor: its name.
        rows: (what, before, after), numbers as text.
        before, after: the entries as images, ``data:`` addresses; None: too large.
        eigenvalues: drawing of both spectra; None: too large, or not square.
    """

    tensor: str
    rows: tuple[tuple[str, str, str], ...]
    before: str | None
    after: str | None
    eigenvalues: Markup | None


def compare(before: WeightFile, after: WeightFile, changed: Sequence[str]) -> Comparison | None:
    """Compare the first matrix that was changed; None if there is none that both files have.

    Args:
        before: the file that was given.
        after: the file that was made of it.
        changed: names of the tensors that are not as they were.
    """
    for name in changed:
        try:
            old, new = (file.get(name).floats() for file in (before, after))
        except InputError:
            continue
        if old.ndim == 2 and old.shape == new.shape and old.size:
            return _compared(name, old, new)
    return None


def _compared(name: str, old: Array, new: Array) -> Comparison:
    shown = max(old.shape) <= LARGEST
    square = old.shape[0] == old.shape[1]
    rows = [_row("Frobenius norm", np.linalg.norm(old), np.linalg.norm(new))]
    drawing = None
    if shown:
        rows.append(_row("spectral norm", np.linalg.norm(old, 2), np.linalg.norm(new, 2)))
    if shown and square:
        first, last = (np.asarray(np.linalg.eigvals(matrix), dtype=np.complex128) for matrix in (old, new))
        rows.append(_row("spectral radius", np.abs(first).max(), np.abs(last).max()))
        rows.append(_row("largest real part", first.real.max(), last.real.max()))
        drawing = _eigenvalues(first, last)
    moved = int((old != new).sum())
    rows.append(("entries that moved", "", f"{moved} of {old.size}, by at most {np.abs(new - old).max():.3g}"))
    scale = float(max(np.abs(old).max(), np.abs(new).max()))
    first_image, last_image = (_image(old, scale), _image(new, scale)) if shown else (None, None)
    return Comparison(words.printable(name, 120), tuple(rows), first_image, last_image, drawing)


def _row(name: str, old: float | np.floating, new: float | np.floating) -> tuple[str, str, str]:
    return name, f"{float(old):.4g}", f"{float(new):.4g}"


def _image(matrix: Array, scale: float) -> str:
    """A PNG of the entries: colour by sign, opacity by size, so that it fits a light and a dark page."""
    share = np.sqrt(np.abs(matrix) / (scale or 1.0))
    pixels = np.empty((*matrix.shape, 4), dtype=np.uint8)
    pixels[..., :3] = np.where((matrix < 0)[..., None], _NEGATIVE, _POSITIVE)
    pixels[..., 3] = np.round(255 * np.clip(share, 0.0, 1.0)).astype(np.uint8)
    rows = np.zeros((matrix.shape[0], 1 + 4 * matrix.shape[1]), dtype=np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = pixels.reshape(matrix.shape[0], -1)
    head = struct.pack(">IIBBBBB", matrix.shape[1], matrix.shape[0], 8, 6, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in parts)
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _eigenvalues(old: Points, new: Points) -> Markup:
    """Rings: before; dots: after; the axes through 0 and the unit circle for scale."""
    both = np.concatenate([old, new])
    reach = max(float(np.abs(both.real).max()), float(np.abs(both.imag).max()), 1.0)
    unit = (_SIDE / 2 - _PAD) / reach
    middle = _SIDE / 2

    def marks(points: Points, radius: float, kind: str) -> Markup:
        return Markup("").join(
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{}"/>').format(
                middle + unit * point.real, middle - unit * point.imag, radius, kind
            )
            for point in points
        )

    radius = 4.0 if len(old) <= 80 else 2.5
    said = "Eigenvalues of the recurrent matrix: rings before, dots after; the circle has radius 1"
    axes = Markup(
        '<path d="M0 {0} H{1} M{0} 0 V{1}" class="axis"/><circle cx="{0}" cy="{0}" r="{2:.1f}" class="axis"/>'
    )
    return Markup(
        '<svg class="spectrum" viewBox="0 0 {0:.0f} {0:.0f}" role="img" aria-label="{1}">{2}{3}{4}</svg>'
    ).format(
        _SIDE, said, axes.format(middle, _SIDE, unit), marks(old, radius, "before"), marks(new, 0.75 * radius, "after")
    )
