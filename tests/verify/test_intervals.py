"""Interval operations enclose the exact results, judged in rational arithmetic."""

from fractions import Fraction

import numpy as np
from certes.verify.intervals import Box, frobenius_upper, reciprocal
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

NUMBERS = st.floats(-1e150, 1e150, allow_nan=False, allow_infinity=False, allow_subnormal=False)
RADII = st.floats(0, 1e140, allow_nan=False, allow_infinity=False, allow_subnormal=False)


def exact(matrix):
    return [[Fraction(float(x)) for x in row] for row in matrix]


def square(n, elements):
    return hnp.arrays(np.float64, (n, n), elements=elements)


def inside(box, values):
    return all(
        abs(Fraction(float(box.mid[i, j])) - values[i][j]) <= Fraction(float(box.rad[i, j]))
        for i in range(len(values))
        for j in range(len(values))
    )


@given(square(3, NUMBERS), square(3, NUMBERS), square(3, RADII), square(3, RADII), st.integers(0, 2**18 - 1))
def test_operations_enclose_every_corner(a, b, ra, rb, signs):
    bits = [1 if signs >> k & 1 else -1 for k in range(18)]
    A, B, RA, RB = map(exact, (a, b, ra, rb))
    X = [[A[i][j] + bits[3 * i + j] * RA[i][j] for j in range(3)] for i in range(3)]
    Y = [[B[i][j] + bits[9 + 3 * i + j] * RB[i][j] for j in range(3)] for i in range(3)]
    left, right = Box(a, ra), Box(b, rb)
    with np.errstate(all="ignore"):
        total, product, matrix = left + right, left * right, left @ right
    assert inside(total, [[X[i][j] + Y[i][j] for j in range(3)] for i in range(3)])
    if np.isfinite(product.rad).all():
        assert inside(product, [[X[i][j] * Y[i][j] for j in range(3)] for i in range(3)])
    if np.isfinite(matrix.rad).all():
        assert inside(matrix, [[sum(X[i][k] * Y[k][j] for k in range(3)) for j in range(3)] for i in range(3)])


@given(hnp.arrays(np.float64, 4, elements=st.floats(1e-150, 1e150)))
def test_reciprocal_and_norm(values):
    box = reciprocal(values)
    for x, mid, rad in zip(values, box.mid, box.rad, strict=True):
        assert abs(Fraction(float(mid)) - 1 / Fraction(float(x))) <= Fraction(float(rad))
    norm = Fraction(frobenius_upper(Box.exact(values.reshape(2, 2))))
    assert norm**2 >= sum(Fraction(float(x)) ** 2 for x in values)


def test_underflow_is_enclosed():
    tiny = Box.exact(np.array([[3e-160]]))
    product = tiny * tiny
    assert inside(product, [[Fraction(3e-160) ** 2]])
    assert product.rad[0, 0] > 0
