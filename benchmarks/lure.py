"""Verification of a Lur'e proof against a bare LAPACK Cholesky of the same 2n x 2n matrix.

The alternative proves nothing: it is the least that any check of the block must do. Ours verifies P > 0, encloses the
block with every rounding, shifts it and factorises it; then, in a row of its own, every further claim.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import scipy.linalg.lapack
from certes.verify.contraction import verify_contraction

from benchmarks.measure import Contender, race
from benchmarks.problems import Array, Dense
from benchmarks.report import Row

#: (n, rounds, aim for the proof alone)
FULL = ((200, 101, None), (1000, 15, 2.0))
QUICK = ((20, 3, None), (40, 3, None))
BECAUSE = "the two factorisations and the enclosure of the block cost more than the bare factorisation twice"


def _checked(problem: Dense, every_claim: bool) -> Contender:
    proof = problem.full_proof if every_claim else problem.proof
    claims = problem.full_claims if every_claim else problem.claims

    def work() -> None:
        report = verify_contraction(problem.system, proof, claims)
        if not report.valid:
            raise AssertionError(report.detail)

    return Contender("verify", work)


def _copy(matrix: Array) -> tuple[Array]:
    return (matrix.copy(order="F"),)


def _factorise(matrix: Array) -> None:
    _, info = scipy.linalg.lapack.dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
    if info != 0:
        raise AssertionError("the block is not positive definite")


def rows(quick: bool) -> Iterator[Row]:
    """Two rows per size: the proof alone, and with all claims."""
    for size, rounds, aim in QUICK if quick else FULL:
        problem = Dense.random(size)
        matrix = problem.matrix()
        column_major = np.asfortranarray(matrix)
        cholesky = [
            Contender("np.linalg.cholesky", partial(np.linalg.cholesky, matrix)),
            Contender("LAPACK dpotrf", _factorise, partial(_copy, column_major)),
        ]
        for every_claim in (False, True):
            result = race(_checked(problem, every_claim), cholesky, rounds)
            what = "verify a lure proof, all claims" if every_claim else "verify a lure proof"
            yield Row.of_race(what, f"n = {size}", result, None if every_claim else aim, BECAUSE)
