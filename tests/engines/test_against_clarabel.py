"""The best rate or factor of the condition ``lure`` is the optimum, as Clarabel sees it.

The judge is a semidefinite program written here anew (:mod:`tests.judges.semidefinite`), on the equations of the
network: a little behind the answer it must find metric and multipliers, a little beyond it there must be none. The
answer's own proof gives the coordinates in which the program is well conditioned, and nothing else.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from certes import Result, certify
from certes.proofs import LureProof
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from scipy.sparse.csgraph import connected_components

from tests.judges.semidefinite import Lure, margin

#: How far the answer may be from the optimum, relative to the rate (at least to ``LEAST``) or the factor.
TOLERANCE, LEAST = 1e-5, 0.05
#: The same for reducible systems, whose supremum need not be attained: the condition of the multipliers is capped.
TOLERANCE_OF_SUPREMA = 1e-4
#: What Clarabel's margins are good for; and what is asked of them where the optimum is attained.
NOISE, CLEAR = 1e-9, 1e-8

FORMS = {"rate": RateNetwork, "hopfield": HopfieldNetwork}
TIMES = {"continuous": None, "leaky": 0.4, "discrete": 1.0}
SLOPES = {
    "0 to 1": (0.0, 1.0),
    "per neuron": (0.0, None),
    "-1 to 1": (-1.0, 1.0),
    "shifted down": (-0.1, 1.1),
    "shifted up": (0.2, 1.0),
}
Kind = tuple[str, str, str, str]
KINDS: list[Kind] = [
    *itertools.product(FORMS, TIMES, SLOPES, ("one time constant", "time constants")),
    *itertools.product(["lure"], TIMES, SLOPES, ["no time constants"]),
]
EACH = 2


def random_matrix(rng: np.random.Generator, rows: int, columns: int, norm: float) -> np.ndarray:
    W = rng.normal(size=(rows, columns))
    if rng.random() < 0.25:
        W *= rng.random(W.shape) < 0.5
    return norm * W / max(float(np.linalg.norm(W, 2)), 1e-3)


def case(kind: Kind, number: int) -> System:
    """One of the cases of a kind: sizes from 3 to 8, some with zeros."""
    form, time, slopes, tau = kind
    rng = np.random.default_rng([KINDS.index(kind), number])
    n = 3 + (KINDS.index(kind) + number) % 6
    m = n if form != "lure" else n + int(rng.integers(-2, 3))
    low, high = SLOPES[slopes]
    slope = (low, rng.uniform(0.3, 1.0, m).tolist() if high is None else high)
    size = rng.uniform(0.3, 0.9) if low < 0.0 or time != "continuous" else rng.uniform(0.5, 1.4)
    if form == "lure":
        A = -np.eye(n) + random_matrix(rng, n, n, 0.3)
        B, C = random_matrix(rng, n, m, np.sqrt(size)), random_matrix(rng, m, n, np.sqrt(size))
        if time == "discrete":
            return LureSystem(np.eye(n) + A, B, C, slope=slope, discrete=True)
        return LureSystem(A, B, C, slope=slope, step=TIMES[time])
    times = rng.uniform(0.7, 2.0, n) if tau == "time constants" else 1.0
    return FORMS[form](random_matrix(rng, n, n, size), slope=slope, tau=times, step=TIMES[time])


def answer(system: System) -> Result:
    """What ``certify`` says, without the claims that follow from the proof (they cost more than the proof)."""
    lines: list[str] = []

    def proven() -> bool:
        return any("proven" in line for line in lines)

    return certify(system, condition="lure", refute=False, progress=lines.append, cancelled=proven)


def irreducible(form: Lure) -> bool:
    """Whether every state and every channel acts on every other one."""
    m = len(form.K)
    pattern = np.block([[form.A, form.B], [form.K, np.zeros((m, m))]]) != 0
    return int(connected_components(pattern, connection="strong", return_labels=False)) == 1


@pytest.mark.cases(10)
@pytest.mark.parametrize("kind", KINDS, ids=", ".join)
def test_the_answer_is_the_optimum(kind: Kind) -> None:
    for number in range(EACH):
        system = case(kind, number)
        result = answer(system)
        attempt, form = result.attempts[-1], Lure.of(system)
        best = attempt.rate if system.continuous else attempt.factor
        assert best is not None, attempt
        claimable = best > 0.0 if system.continuous else best < 1.0
        assert result.verdict == ("contracting" if claimable else "undecided"), attempt
        P, q = np.diag(system.tau), np.ones(len(system.slope.lower))
        if result.certificate is not None:
            proof = result.certificate.array_proof
            assert isinstance(proof, LureProof)
            P, q = proof.metric, proof.multipliers * (system.slope.upper - system.slope.lower) ** (2 * proof.dual)
            form = form.transposed if proof.dual else form
        attained = irreducible(form)
        near = TOLERANCE if attained else TOLERANCE_OF_SUPREMA
        near *= max(abs(best), LEAST) if system.continuous else -best
        seen = form.seen_from(P, q)
        assert margin(seen, best - near) > CLEAR, attempt
        assert margin(seen, best + near) < (-CLEAR if attained else NOISE), attempt


@pytest.mark.cases(10)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] == "hopfield"], ids=", ".join)
def test_what_is_proven_transposed_holds_as_it_stands(kind: Kind) -> None:
    """Hopfield networks are proven in the transposed system: the inequality of their own equations is solvable too."""
    system = case(kind, 0)
    result = answer(system)
    assert result.certificate is not None
    proof = result.certificate.array_proof
    assert isinstance(proof, LureProof)
    assert proof.dual
    q = 1.0 / (proof.multipliers * (system.slope.upper - system.slope.lower) ** 2)
    seen = Lure.of(system).seen_from(np.linalg.inv(proof.metric), q)
    best = result.rate if result.rate is not None else result.factor
    assert best is not None
    assert margin(seen, best * (1.0 - 1e-5 if system.continuous else 1.0 + 1e-5)) > 0
