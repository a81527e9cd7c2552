"""Plane geometry of the one picture (docs/theory.md section 3): the conics, and the field of values of a real matrix.

F(A) = { v* A v : norm(v) = 1 } is convex (Toeplitz 1918, Hausdorff 1919). Its supporting line with outward normal
e^(i phi) is Re(e^(-i phi) z) = lambda_max(Re(e^(-i phi) A)), and it touches F(A) in v* A v for a top eigenvector v
(C. R. Johnson, SIAM J. Numer. Anal. 15, 1978). For a real A the lower half of F(A) mirrors the upper one.

All conics of the picture have their focus in 0 and their axis on the real line: abs z + e Re z <= p with the
eccentricity e = 1 (parabola), abs e < 1 (ellipse), 0 (disk).
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]
Points = NDArray[np.complex128]

#: Orders from which on Lanczos replaces the dense eigensolver.
LANCZOS = 200
#: Supporting lines that come this close to the closest one count as closest, relative.
NEAR = 0.995
#: By how much the distance drops between two lines that count as different, relative, and the angle between them.
_APART, _ANGLE = 1e-4, math.radians(5.0)


@dataclass(frozen=True)
class Conic:
    """The convex region abs z + ``eccentricity`` Re z <= ``parameter``."""

    parameter: float
    eccentricity: float

    @classmethod
    def of_rate(cls, level: float) -> Conic:
        """(abs z + Re z) / 2 <= 1 - level; the level is the rate in units of 1 / tau."""
        return cls(2.0 * (1.0 - level), 1.0)

    @classmethod
    def of_factor(cls, factor: float, leak: float) -> Conic:
        """rho abs z + e Re z <= (rho^2 - e^2) / a for the factor rho and the leak a = step / tau, e = 1 - a."""
        e = 1.0 - leak
        return cls((factor * factor - e * e) / (leak * factor), e / factor)

    @property
    def name(self) -> str:
        """What the curve is called."""
        return {0.0: "disk", 1.0: "parabola"}.get(self.eccentricity, "ellipse")

    def use(self, z: Points) -> Array:
        """abs z + e Re z for points z: at most ``parameter`` inside."""
        return np.asarray(np.abs(z) + self.eccentricity * z.real)

    def slant(self, normals: Array) -> Array:
        """s >= 0 with: the supporting line of normal e^(i phi) lies at distance ``parameter`` / s (0: at infinity)."""
        cosine, sine = np.cos(normals), np.sin(normals)
        root = np.sqrt(np.maximum(1.0 - (self.eccentricity * sine) ** 2, 0.0))
        return np.maximum(self.eccentricity * cosine + root, 0.0)

    def boundary(self, reach: float, count: int = 721) -> Points:
        """The curve, from below to above, as far as abs z <= ``reach``; a whole ellipse is closed. Shape (count,)."""
        if self.parameter <= 0.0:  # rate 1 / tau: the parabola has folded up
            return np.linspace(-reach, 0.0, count).astype(np.complex128)
        last = math.pi
        if self.eccentricity > 0.0:
            last = math.acos(float(np.clip((self.parameter / reach - 1.0) / self.eccentricity, -1.0, 1.0)))
        angles = np.linspace(-last, last, count)
        radius = self.parameter / np.maximum(1.0 + self.eccentricity * np.cos(angles), self.parameter / (2.0 * reach))
        return np.asarray(radius * np.exp(1j * angles))


@dataclass(frozen=True)
class Contact:
    """A point of F(A) that is closest to a conic, and the supporting line there; the conic's own is parallel to it.

    A conic is strictly convex, so that no flat part of F(A) is closest as a whole.

    Attributes:
        point: z.
        normal: phi; the line is Re(e^(-i phi) (w - z)) = 0.
    """

    point: complex
    normal: float


@dataclass(frozen=True, eq=False)
class Outline:
    """The boundary of F(A) by its supporting lines.

    Attributes:
        normals: angles of the outward normals in [0, pi], ascending, shape (k,).
        distances: of the supporting lines from 0, shape (k,).
        points: where they touch, shape (k,); the convex hull of these and their conjugates lies in F(A).
    """

    normals: Array
    distances: Array
    points: Points

    @property
    def polygon(self) -> Points:
        """The whole boundary, counterclockwise, shape (2 k,)."""
        return np.concatenate([self.points, self.points[::-1].conj()])


def _separate(share: Array, wide: int) -> list[int]:
    """Where a curve peaks near 1; peaks that are not ``wide`` apart or have no valley between them count once.

    Those that count once do so at the highest, or in the middle of equally high ones.
    """
    from scipy.signal import find_peaks  # brings all of scipy.stats with it

    groups: list[list[int]] = []
    for peak in find_peaks(share, height=NEAR)[0].tolist():
        last = groups[-1][-1] if groups else -len(share)
        if peak - last < wide or (last >= 0 and share[last:peak].min() > max(share[last], share[peak]) - _APART):
            groups[-1].append(peak)
        else:
            groups.append([peak])
    return [_centre(share, group) for group in groups]


def _centre(share: Array, group: list[int]) -> int:
    top = max(float(share[k]) for k in group)
    high = [k for k in group if share[k] > top - 1e-3 * _APART]
    return (high[0] + high[-1]) // 2


class FieldOfValues:
    """F(A) of a real matrix A, shape (n, n).

    Args:
        matrix: A, finite.
    """

    def __init__(self, matrix: Array) -> None:
        self.matrix = matrix
        self._symmetric = 0.5 * (matrix + matrix.T)
        self._skew = 0.5 * (matrix - matrix.T)
        self._start: NDArray[Any] = np.ones(len(matrix), dtype=np.complex128)  # Lanczos goes on from the last vector

    def outline(self, count: int | None = None) -> Outline:
        """Supporting lines at ``count`` equally spaced normals from 0 to pi (default: fewer for larger matrices)."""
        if count is None:
            count = 181 if len(self.matrix) <= 2 * LANCZOS else 91
        normals = np.linspace(0.0, math.pi, count)
        found = [self._touch(float(normal)) for normal in normals]
        return Outline(normals, np.array([value for value, _ in found]), np.array([point for _, point in found]))

    def contacts(self, conic: Conic, outline: Outline) -> tuple[Contact, ...]:
        """Where F(A) is closest to a conic around it: the distances of supporting lines over the conic's peak there.

        Args:
            conic: the conic.
            outline: of this field of values.

        Returns:
            Contacts with normals in [0, pi]; for each other than 0 and pi there is another one at the conjugate.
        """
        share = conic.slant(outline.normals) * outline.distances
        top, last = float(share.max()), len(share) - 1
        if top <= 1e-9 * float(np.abs(outline.points).max()):
            return ()  # zero, or the negative half-line of a parabola
        ring = np.concatenate([share[:0:-1], share, share[-2::-1]]) / top  # with the mirror images on either side
        spacing = float(outline.normals[1])
        centres = {abs(k - last) for k in _separate(ring, round(_ANGLE / spacing))}
        found = []
        for k in sorted(k for k in centres if k <= last):
            normal, point = float(outline.normals[k]), complex(outline.points[k].real)  # at 0 and pi, by symmetry
            if 0 < k < last:
                normal = self._sharpest(conic, normal - spacing, normal + spacing)
                point = self._touch(normal)[1]
            found.append(Contact(point, normal))
        return tuple(found)

    def _sharpest(self, conic: Conic, low: float, high: float) -> float:
        """The normal between two others at which the line comes closest to the conic's."""
        from scipy.optimize import minimize_scalar

        def spare(normal: float) -> float:
            return -float(conic.slant(np.array(normal))) * self._touch(normal)[0]

        return float(minimize_scalar(spare, bounds=(low, high), method="bounded", options={"xatol": 1e-5}).x)

    def _touch(self, normal: float) -> tuple[float, complex]:
        """Distance of a supporting line from 0, and the point where it touches."""
        value, vector = self._top(math.cos(normal), math.sin(normal))
        return value, complex(np.vdot(vector, self.matrix @ vector))

    def _top(self, cosine: float, sine: float) -> tuple[float, Points]:
        """The largest eigenvalue of Re(e^(-i phi) A), and a unit eigenvector."""
        size = len(self.matrix)
        if size > LANCZOS:
            with contextlib.suppress(scipy.sparse.linalg.ArpackError):  # zero, or too many equal eigenvalues
                return self._lanczos(cosine, sine)
        hermitian = cosine * self._symmetric - 1j * sine * self._skew
        values, vectors = scipy.linalg.eigh(hermitian, subset_by_index=(size - 1, size - 1))
        return float(values[0]), np.asarray(vectors[:, 0], dtype=np.complex128)

    def _lanczos(self, cosine: float, sine: float) -> tuple[float, Points]:
        size = len(self.matrix)

        def product(vector: Points) -> Points:
            parts = np.column_stack([vector.real, vector.imag])
            even, odd = cosine * (self._symmetric @ parts), sine * (self._skew @ parts)
            return np.asarray(even[:, 0] + odd[:, 1] + 1j * (even[:, 1] - odd[:, 0]))

        operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=product, dtype=np.complex128)
        values, vectors = scipy.sparse.linalg.eigsh(operator, k=1, which="LA", v0=self._start, ncv=24, tol=1e-7)
        self._start = vectors[:, 0] + 1e-3 / math.sqrt(size)  # not blind to the other eigenvectors
        return float(values[0]), np.asarray(vectors[:, 0])
