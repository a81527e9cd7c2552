"""Verified positive definiteness against exact rational elimination."""

from fractions import Fraction

import numpy as np
import pytest
from certes.verify import arithmetic
from certes.verify.definite import assemble, missing_margin, positive_definite
from certes.verify.intervals import Box


def exactly_positive(matrix):
    """LDL^T in rationals: positive definite iff every pivot is positive."""
    rows = [[Fraction(float(x)) for x in row] for row in matrix]
    size = len(rows)
    for k in range(size):
        if rows[k][k] <= 0:
            return False
        for i in range(k + 1, size):
            factor = rows[i][k] / rows[k][k]
            for j in range(k, size):
                rows[i][j] -= factor * rows[k][j]
    return True


def near_singular(rng, size):
    basis = rng.standard_normal((size, size - 1))
    integers = np.round(basis * 8) / 8  # products of eighths: the Gram matrix is exact, and exactly singular
    gram = integers @ integers.T
    gram[np.arange(size), np.arange(size)] *= 1 + rng.choice([-1, 0, 1]) * 10.0 ** rng.uniform(-16, -9)
    scale = 10.0 ** rng.choice([0, 0, -100, 100, -140])
    spread = 2.0 ** rng.integers(-60, 60, size)
    return gram * scale * spread[:, None] * spread


def test_never_accepts_a_matrix_that_is_not_positive_definite():
    rng = np.random.default_rng(7)
    counts = {(truth, answer): 0 for truth in (True, False) for answer in (True, False)}
    for _ in range(3000):
        matrix = near_singular(rng, int(rng.integers(2, 6)))
        counts[exactly_positive(matrix), positive_definite(Box.exact(matrix))] += 1
    assert counts[False, True] == 0
    assert min(counts[True, True], counts[False, False], counts[True, False]) > 100, counts  # the cases were hard


def test_never_accepts_with_a_diagonal_block_given_as_vector():
    """[[D, .], [K, K D^-1 K^T + E]] is positive definite iff E is; D holds powers of two, so all is exact."""
    rng = np.random.default_rng(8)
    counts = {(truth, answer): 0 for truth in (True, False) for answer in (True, False)}
    for _ in range(2000):
        head, size = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        diagonal = 2.0 ** rng.integers(-9, 9, head)
        coupling = np.round(rng.standard_normal((size, head)) * 8) / 8
        rest = (coupling / diagonal) @ coupling.T
        rest[np.arange(size), np.arange(size)] += rng.choice([-1, 1, 1]) * 10.0 ** rng.uniform(-16, -9) + 1e-300
        spread = 2.0 ** rng.integers(-40, 40, head + size)
        diagonal = diagonal * spread[:head] ** 2
        coupling = coupling * spread[head:, None] * spread[:head]
        rest = rest * spread[head:, None] * spread[head:]
        matrix = np.block([[np.diag(diagonal), coupling.T], [coupling, rest]])
        parts = [[Box.exact(diagonal)], [Box.exact(coupling), Box.exact(rest)]]
        swapped = [[Box.exact(rest)], [Box.exact(coupling.T), Box.exact(diagonal)]]
        answers = {positive_definite(assemble(parts)), positive_definite(assemble(swapped))}
        counts[exactly_positive(matrix), answers.pop()] += 1
        assert not answers  # the order of the blocks does not matter
    assert counts[False, True] == 0
    assert min(counts[True, True], counts[False, False], counts[True, False]) > 50, counts


def test_radius_counts_at_its_sharp_end():
    """[[1, -x], [-x, 1]] with x in [1 - 2r, 1] is positive definite for x < 1 only: radii are paid in full."""
    for r in 10.0 ** np.arange(-12, -1.0):
        middle = np.array([[1.0, r - 1.0], [r - 1.0, 1.0]])
        reach = np.array([[0.0, r], [r, 0.0]])
        assert positive_definite(Box.exact(middle))
        assert not positive_definite(Box(middle, reach))
        assert positive_definite(Box(middle, 0.99 * reach))
        assert positive_definite(Box(middle, np.zeros((2, 2))), margin=0.99 * r)
        assert not positive_definite(Box(middle, np.zeros((2, 2))), margin=1.01 * r)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_finite(bad):
    for place in [(0, 0), (1, 0), (1, 1)]:
        matrix = np.eye(2)
        matrix[place] = bad
        assert not positive_definite(Box.exact(matrix))
        assert not positive_definite(Box(np.eye(2), np.abs(matrix)))
        assert not positive_definite(Box.exact(np.eye(2)), margin=bad)
    assert not positive_definite(Box.exact(np.eye(2)), margin=-1.0)


def test_blocks_equal_the_dense_matrix():
    rng = np.random.default_rng(1)
    full = rng.standard_normal((5, 9))
    full = full @ full.T
    blocks = assemble([[Box.exact(full[:2, :2])], [Box.exact(full[2:, :2]), Box.exact(full[2:, 2:])]])
    np.testing.assert_array_equal(blocks.mid, full)
    np.testing.assert_array_equal(blocks.rad, 0 * full)
    assert positive_definite(blocks)
    shifted = full - 1.001 * np.linalg.eigvalsh(full)[0] * np.eye(5)
    parts = [[Box.exact(shifted[:2, :2])], [Box.exact(shifted[2:, :2]), Box.exact(shifted[2:, 2:])]]
    assert not positive_definite(assemble(parts))
    assert missing_margin(assemble(parts)) > 0 > missing_margin(blocks)


@pytest.mark.parametrize("size", [5, 60, 200])
def test_accepts_margins_down_to_1e_8(size):
    rng = np.random.default_rng(size)
    orthogonal = np.linalg.qr(rng.standard_normal((size, size)))[0]
    eigenvalues = np.concatenate([[2e-8], rng.uniform(0.5, 1.5, size - 1)])
    matrix = (orthogonal * eigenvalues) @ orthogonal.T
    matrix = (matrix + matrix.T) / 2
    assert positive_definite(Box.exact(matrix))
    spread = 2.0 ** rng.integers(-300, 300, size)
    assert positive_definite(Box.exact(matrix * spread[:, None] * spread))


def test_arithmetic_is_the_assumed_one():
    assert arithmetic.rounds_to_nearest(4)
    assert arithmetic.rounds_to_nearest(400)
    assert arithmetic.is_normal(np.array([0.0, 1.0, 2.0**-1022]))
    for bad in (np.nan, np.inf, 2.0**-1023, -5e-324):
        assert not arithmetic.is_normal(np.ones(2), np.array([1.0, bad]))
