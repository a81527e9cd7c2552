"""Exact matrices and exact answers about their definiteness, on python-flint.

A float64 is a rational number. Everything here starts from that number, so no bound and no rounding mode is involved.
Entries are ``flint.fmpq``, matrices ``flint.fmpq_mat``; both are typed Any, because the package ships no types.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.errors import MissingExtraError

Array = NDArray[np.float64]
Rational = Any
RationalMatrix = Any
#: Whether an obligation holds; None: undecided (too large, or a tie that the precision cannot break).
Answer = bool | None
#: Name, question and words of an obligation.
Step = tuple[str, Callable[[], Answer], str]

#: Working precisions (bits) of the ball arithmetic that is tried before exact elimination.
PRECISIONS = (256, 1024, 4096)
#: Largest size of an exact characteristic polynomial, which is what decides an exactly singular matrix.
EXACT_SIZE = 90


def flint() -> Any:
    """The module python-flint.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("flint")
    except ImportError as error:
        raise MissingExtraError("python-flint", "exact", "the exact audit") from error


def rational(value: float) -> Rational:
    """The rational number that a finite float is."""
    return flint().fmpq(*float(value).as_integer_ratio())


def matrix(values: Array) -> RationalMatrix:
    """A dense float matrix as rationals, shape kept."""
    make = flint().fmpq
    return flint().fmpq_mat(*values.shape, [make(*float(entry).as_integer_ratio()) for entry in values.ravel()])


def diagonal(entries: Iterable[Rational]) -> RationalMatrix:
    """The diagonal matrix of given rationals."""
    listed = list(entries)
    result = flint().fmpq_mat(len(listed), len(listed))
    for k, entry in enumerate(listed):
        result[k, k] = entry
    return result


def join(blocks: Sequence[Sequence[RationalMatrix]]) -> RationalMatrix:
    """One matrix from a table of blocks."""
    rows: list[list[Rational]] = []
    for line in blocks:
        tables = [block.tolist() for block in line]
        rows.extend([entry for part in parts for entry in part] for parts in zip(*tables, strict=True))
    return flint().fmpq_mat(rows)


def power_of_two(exponent: int) -> Rational:
    """2**exponent."""
    make = flint().fmpq
    return make(1 << exponent, 1) if exponent >= 0 else make(1, 1 << -exponent)


def _log2_floor(value: Rational) -> int:
    """floor(log2(value)) of a positive rational, or one less."""
    return int(value.p.bit_length()) - int(value.q.bit_length()) - 1


def equilibrate(given: RationalMatrix) -> RationalMatrix | None:
    """S given S, S a diagonal of powers of two that takes the diagonal into (1/2, 2]; None if an entry is not positive.

    Within 2**-40 of the border the larger scaling is taken, so that the answer does not hang on the rounding of the
    program that chose the scaling first.
    """
    size = given.nrows()
    border = 2 * (1 + power_of_two(-40))
    scales = []
    for k in range(size):
        entry = given[k, k]
        if not entry > 0:
            return None
        exponent = -(_log2_floor(entry) // 2) + 1
        while entry * power_of_two(2 * exponent) > border:
            exponent -= 1
        scales.append(power_of_two(exponent))
    scale = diagonal(scales)
    return scale * given * scale


def positive_definite(given: RationalMatrix) -> bool | None:
    """Whether a symmetric rational matrix is positive definite: True and False are proven, None is undecided.

    Ball arithmetic answers unless the matrix is singular or nearly so; then the characteristic polynomial answers
    (all roots real: positive definite iff the coefficients alternate strictly), up to ``EXACT_SIZE``.
    """
    scaled = equilibrate(given)
    if scaled is None:
        return False
    answer = definite_by_balls([[scaled[i, j] for j in range(i + 1)] for i in range(scaled.nrows())])
    if answer is not None or scaled.nrows() > EXACT_SIZE:
        return answer
    return all(term > 0 for term in _signed_coefficients(scaled))


def positive_semidefinite(given: RationalMatrix) -> bool | None:
    """Whether a symmetric rational matrix is positive semidefinite: True and False are proven, None is undecided."""
    if all(entry == 0 for entry in given.entries()):
        return True
    if positive_definite(given) is True:
        return True
    if given.nrows() > EXACT_SIZE:
        return None
    return all(term >= 0 for term in _signed_coefficients(given))


def _signed_coefficients(given: RationalMatrix) -> list[Rational]:
    """(-1)**(n-k) times coefficient k of the characteristic polynomial: elementary symmetric functions of its roots."""
    size = given.nrows()
    coefficients = given.charpoly().coeffs()
    coefficients += [0] * (size + 1 - len(coefficients))
    return [term if (size - k) % 2 == 0 else -term for k, term in enumerate(coefficients[:-1])]


def definite_by_balls(lower: Sequence[Sequence[Rational]]) -> bool | None:
    """L D L^T in ball arithmetic of growing precision on the lower triangle (rational or ball entries, row by row).

    True: every symmetric matrix in the balls is positive definite. False: none is. None: this precision cannot tell.
    """
    module = flint()
    for bits in PRECISIONS:
        with module.ctx.workprec(bits):
            answer = _eliminate([[module.arb(entry) for entry in row] for row in lower])
        if answer is not None:
            return answer
    return None


def _eliminate(rows: list[list[Any]]) -> bool | None:
    for k, pivot_row in enumerate(rows):
        pivot = pivot_row[k]
        if not pivot > 0:
            return False if pivot <= 0 else None
        for i in range(k + 1, len(rows)):
            row = rows[i]
            factor = row[k] / pivot
            for j in range(k + 1, i + 1):
                row[j] -= factor * rows[j][k]
    return True
