"""What a projection is: the question, what a stable set answers, and the result.

A *stable set* holds the weights that one condition certifies at a wanted rate or factor. Each has a file of its own in
this room and proposes weights; :mod:`.settle` rounds them, backs off until the verifier accepts, and only that counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from certes.engines.monitor import Monitor
from certes.errors import InputError
from certes.projection.keeping import Structure
from certes.results import Result
from certes.systems import Matrix, Network, SparseMatrix, System

Array = NDArray[np.float64]

Norm = Literal["frobenius", "weighted"]

#: How contracting the result is made when nobody says: rate 0.01 / tau, factor 1 - 0.01 min(a, 2 - a).
BARELY = 0.01


@dataclass(frozen=True, eq=False)
class Problem:
    """One question: these weights, that number, and what has to stay.

    Attributes:
        system: a rate or Hopfield network.
        number: rate or factor to reach.
        structure: what has to be kept.
        weighting: S, shape (n, n), positive semidefinite: the squared distance is tr(D S D^T), D = W' - W; None: S = I.
        seed: of the random starts.
        starts: how many starts, the first of which are not random.
        monitor: time limit, cancellation, progress.
    """

    system: Network
    number: float
    structure: Structure
    weighting: Array | None = None
    seed: int = 0
    starts: int = 1
    monitor: Monitor = field(default_factory=Monitor)

    @property
    def norm(self) -> Norm:
        """The norm of the distance."""
        return "frobenius" if self.weighting is None else "weighted"

    @property
    def plain(self) -> bool:
        """Whether nothing has to be kept and the norm is Frobenius."""
        return self.weighting is None and not self.structure.binding

    def distance(self, weights: Matrix) -> float:
        """The distance of other weights (dense, or sparse with the same pattern) from the given ones."""
        given = self.system.tensors["W"].value
        if isinstance(given, SparseMatrix):
            assert isinstance(weights, SparseMatrix)
            return _length(weights.data - given.data)
        assert isinstance(weights, np.ndarray)
        return self._measure(weights - given)

    @property
    def size(self) -> float:
        """The same norm of the given weights."""
        given = self.system.tensors["W"].value
        return _length(given.data) if isinstance(given, SparseMatrix) else self._measure(given)

    def _measure(self, difference: Array) -> float:
        return _length(difference, self.weighting)


@dataclass(frozen=True, eq=False)
class Proposal:
    """Weights that are, or nearly are, in a stable set.

    Attributes:
        weights: shape (n, n), float64, or sparse with the pattern of the given ones.
        condition: the condition that is meant to certify them.
        multipliers: q of the condition ``lure`` (None: the condition looks for its own proof).
        fixed_scaling_distance, distance_bound: see :class:`Projection`.
        scale, scale_multipliers: all weights times this number are in the set, with these multipliers (if known).
    """

    weights: Matrix
    condition: str
    multipliers: Array | None = None
    fixed_scaling_distance: float | None = None
    distance_bound: float | None = None
    scale: float | None = None
    scale_multipliers: Array | None = None


@dataclass(frozen=True)
class Nothing:
    """A stable set has nothing to propose.

    Attributes:
        reason: stable code (``"not-applicable"``, ``"infeasible"``, ``"deadline"``, ``"cancelled"``, ``"solver"``).
        detail: the reason in words.
    """

    reason: str
    detail: str


class StableSet(Protocol):
    """The weights that one condition certifies at a number."""

    @property
    def name(self) -> str:
        """Name of the condition."""
        ...

    def applies(self, problem: Problem) -> str | None:
        """None if it can answer such a question, else why not."""
        ...

    def nearest(self, problem: Problem) -> Proposal | Nothing:
        """The nearest weights it knows. Deterministic."""
        ...


@dataclass(frozen=True)
class SetAttempt:
    """What one stable set came to.

    Attributes:
        condition: its name.
        outcome: ``certified``, ``refused`` (proposed, but no rounding of it was certified) or ``nothing``.
        distance: of the certified weights.
        reason: stable code if not certified.
        detail: in words.
    """

    condition: str
    outcome: Literal["certified", "refused", "nothing"]
    distance: float | None = None
    reason: str | None = None
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Projection:
    """The nearest weights that pass, and what they cost.

    Attributes:
        system: the network with the new weights, rounded to the dtype of the given ones; the given network where
            nothing was certified, or where it passes as it is.
        distance: from the given weights to the new ones in ``norm``; 0 for unchanged; None if nothing was certified.
        result: the answer about ``system``: ``contracting`` with its certificate, or ``undecided`` with the reason.
        rate, factor: what was asked for, whichever fits the network.
        condition: the stable set that is nearest; None if nothing was certified.
        unchanged: the given weights pass as they are, and come back bit for bit.
        norm: ``frobenius``, or ``weighted``: sqrt(tr(D S D^T)).
        relative: ``distance`` over the same norm of the given weights.
        shrink_distance: the distance of the plain alternative, all movable weights times one number, certified
            likewise; None if that certifies nowhere.
        fixed_scaling_distance: the exact optimum over all weights that the *first* multipliers Q certify, where it was
            computed (``lure``, Frobenius norm, small networks). Better multipliers come closer: no bound.
        distance_bound: no weights closer than this (Frobenius) are certified by the condition ``lure`` at that rate or
            factor, with any multipliers; from a dual solution in float arithmetic; None where none was found.
        attempts: what each stable set came to.
    """

    system: Network
    distance: float | None
    result: Result
    rate: float | None = None
    factor: float | None = None
    condition: str | None = None
    unchanged: bool = False
    norm: Norm = "frobenius"
    relative: float | None = None
    shrink_distance: float | None = None
    fixed_scaling_distance: float | None = None
    distance_bound: float | None = None
    attempts: tuple[SetAttempt, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values under the Python names, without the weights; the result as :meth:`Result.to_json`."""
        plain: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "distance", "relative", "norm", "unchanged", "rate", "factor", "condition", "shrink_distance",
                "fixed_scaling_distance", "distance_bound",
            )
        }  # fmt: skip
        plain["attempts"] = [vars(attempt) for attempt in self.attempts]
        return plain | {"result": self.result.to_json()}


def number_to_reach(system: System, rate: float | None) -> float:
    """The rate or factor that a projection reaches.

    Args:
        system: the network.
        rate: what was asked for, or None.

    Raises:
        InputError: no such number is possible.
    """
    smallest, largest = float(system.tau.min()), float(system.tau.max())
    if system.step is None:
        number = BARELY / largest if rate is None else _typed(rate, "a positive rate")
        if not 0.0 < number < 1.0 / largest:
            expected = f"a rate between 0 and 1/tau = {1.0 / largest:.6g}"
            raise InputError("rate", f"{number:g}", expected)
        return number
    leaks = (system.step / largest, system.step / smallest)
    floor = max(abs(1.0 - leak) for leak in leaks)
    if not floor < 1.0:
        raise InputError(
            "step", f"{system.step:g}", f"a step below 2 tau = {2.0 * smallest:g}: no weights contract beyond"
        )
    if rate is None:
        return 1.0 - BARELY * min(leaks[0], 2.0 - leaks[1])
    number = _typed(rate, "a factor below 1")
    if not floor < number < 1.0:
        expected = f"a factor between abs(1 - step/tau) = {floor:.6g}, which no weights go below, and 1"
        raise InputError("rate", f"{number:g}", expected)
    return number


def _typed(rate: object, expected: str) -> float:
    number = isinstance(rate, (int, float, np.floating, np.integer)) and not isinstance(rate, bool)
    if not number or not math.isfinite(float(rate)):  # type: ignore[arg-type]
        raise InputError("rate", repr(rate), expected, "wrong-type")
    return float(rate)  # type: ignore[arg-type]


def _length(values: Array, weighting: Array | None = None) -> float:
    """The norm, also where squares would overflow or underflow: taken in units of a power of two, which is exact."""
    largest = float(np.abs(values).max(initial=0.0))
    if not 0.0 < largest < math.inf:
        return largest
    exponent = int(np.frexp(largest)[1])
    unit = np.ldexp(values, -exponent)
    if weighting is None:
        length = float(np.linalg.norm(unit))
    else:
        length = math.sqrt(max(float(np.sum((unit @ weighting) * unit)), 0.0))
    return float(np.ldexp(length, exponent))


def check_weighting(given: object, size: int) -> Array | None:
    """S, symmetrised and read-only.

    Raises:
        InputError: of another shape, not finite, not symmetric, or with a negative eigenvalue.
    """
    if given is None:
        return None
    try:
        matrix = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("weighting", "something that is no matrix", f"a matrix of shape {(size, size)}") from error
    if matrix.shape != (size, size):
        raise InputError("weighting", f"shape {matrix.shape}", f"shape {(size, size)}", "wrong-shape")
    if not np.isfinite(matrix).all():
        raise InputError("weighting", "a value that is not finite", "finite numbers", "not-finite")
    scale = float(np.abs(matrix).max())
    if not scale > 0.0:
        raise InputError("weighting", "a matrix of zeros", "a positive semidefinite matrix that is not 0")
    if float(np.abs(matrix - matrix.T).max()) > 1e-6 * scale:
        raise InputError("weighting", "a matrix that is not symmetric", "a symmetric matrix")
    matrix = 0.5 * (matrix + matrix.T)
    lowest = float(np.linalg.eigvalsh(matrix / scale)[0])
    if lowest < -1e-6:
        raise InputError("weighting", f"an eigenvalue of {lowest * scale:.3g}", "no negative eigenvalue")
    matrix.setflags(write=False)
    return matrix
