"""Interfaces of networks: never a rate, factor or Lipschitz constant that a slope vertex contradicts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from certes.assemblies import InterfaceProof
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from certes.verify.interface import verify_interface

from tests.verify import composing
from tests.verify.composing import Made

TOLERANCE = 1e-9


def accepted(system: System, proof: InterfaceProof) -> bool:
    report, interface = verify_interface(system, proof)
    assert (interface is not None) == report.valid
    return interface is not None


def holds(system: System, proof: InterfaceProof) -> bool:
    """At every slope vertex; a factor or rate out of range is no statement."""
    if not np.linalg.eigvalsh(proof.metric)[0] > 0.0:
        return False
    J = composing.jacobians(system)
    if system.continuous:
        fine = proof.level > 0.0 and composing.true_rate(proof.metric, J) >= proof.level - TOLERANCE
    else:
        fine = 0.0 < proof.level < 1.0 and composing.true_norm(proof.metric, J) <= proof.level * (1 + TOLERANCE)
    if proof.lipschitz > 0.0:
        fine = fine and composing.true_norm(proof.metric, J) <= proof.lipschitz * (1 + TOLERANCE)
    return bool(fine and proof.lipschitz >= 0.0)


def candidates(made: Made) -> Iterator[InterfaceProof]:
    """The proof itself, and numbers around the truth in its metric."""
    system, proof, J = made.module, made.proof, composing.jacobians(made.module)
    assert isinstance(proof, InterfaceProof)
    truth = composing.true_rate(proof.metric, J) if system.continuous else composing.true_norm(proof.metric, J)
    worse = 1 + 1e-8 if system.continuous else 1 - 1e-8
    for level in (proof.level, truth, truth * worse, truth * worse**1000, truth * 2.0, truth / 2.0):
        yield replace(proof, level=level)
    norm = composing.true_norm(proof.metric, J)
    for constant in (norm * (1 - 1e-8), norm * (1 + 1e-6), proof.lipschitz * (1 - 1e-4), 0.0, norm / 2.0):
        yield replace(proof, lipschitz=constant)


@pytest.mark.parametrize("continuous", [True, False])
def test_no_false_yes(continuous: bool) -> None:
    counts: Counter[tuple[bool, bool]] = Counter()
    for made in composing.pool(continuous):
        for proof in candidates(made):
            true, yes = holds(made.module, proof), accepted(made.module, proof)
            counts[true, yes] += 1
            assert true or not yes, (made.module, proof)
            if yes:
                assert composing.exactly(made.module, composing.given(proof.metric, True), proof.level)
    print(f"\ninterfaces, {'flows' if continuous else 'maps'}: (true, accepted) -> count: {dict(counts)}")
    assert counts[True, True] >= 60
    assert counts[False, False] >= 90


def put(array: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    changed = array.copy()
    changed[place] = value
    return changed


def tampered(p: InterfaceProof) -> Iterator[InterfaceProof]:
    n = len(p.metric)
    for value in (np.nan, np.inf, -1.0, 0.0, 5e-324, 1e308):
        yield replace(p, metric=put(p.metric, (0, 0), value))
    yield replace(p, metric=-p.metric)
    yield replace(p, metric=np.zeros((n, n)))
    yield replace(p, metric=p.metric[:-1, :-1])
    yield replace(p, metric=np.hstack([p.metric, p.metric]))
    if n > 1:
        yield replace(p, metric=put(p.metric, (0, 1), np.nextafter(p.metric[0, 1], np.inf)))
        yield replace(p, metric=np.tril(p.metric) + np.triu(p.metric, 1) * (1 + 1e-12))
        yield replace(p, metric=np.ones((n, n)))
    for name in ("multipliers", "lipschitz_multipliers"):
        q = getattr(p, name)
        for value in (0.0, -q[0], np.nan, np.inf, 1e-300):
            yield replace(p, **{name: put(q, (0,), value)})
        yield replace(p, **{name: -q})
        yield replace(p, **{name: q[1:]})
        yield replace(p, **{name: np.append(q, 1.0)})
    for level in (0.0, -p.level, np.nan, np.inf, 1e300, 1e150, 5e-324):
        yield replace(p, level=level)
    for constant in (-1.0, np.nan, np.inf, 1e-300, 5e-324):
        yield replace(p, lipschitz=constant)


@pytest.mark.parametrize("continuous", [True, False])
def test_tampered_proofs_are_refused(continuous: bool) -> None:
    for made in composing.pool(continuous)[:8]:
        assert isinstance(made.module, System)
        assert accepted(made.module, made.proof)
        for k, proof in enumerate(tampered(made.proof)):
            yes = accepted(made.module, proof)
            assert not yes or (proof.metric.size > 1 and holds(made.module, proof)), k


ONE = np.ones((1, 1))


@pytest.mark.parametrize(
    ("system", "level"),
    [
        (LureSystem(ONE, 0.01 * ONE, 0.01 * ONE, (0.0, 1.0)), 0.5),
        (RateNetwork(0.01 * ONE, "relu", step=0.1), 0.5),
        (RateNetwork(0.01 * ONE, "relu"), 1.5),
        (LureSystem(2.0 * ONE, 0.01 * ONE, 0.01 * ONE, (0.0, 1.0), discrete=True), 0.5),
    ],
)
def test_a_negative_metric_makes_the_first_block_positive_and_is_refused(system: System, level: float) -> None:
    """x' = +x, a factor below abs(1 - a), a rate above 1, x+ = 2x: P > 0 is an obligation of its own."""
    proof = InterfaceProof(-ONE, np.ones(1), np.ones(1), level, 0.0)
    report, interface = verify_interface(system, proof)
    assert interface is None
    assert report.failed is not None
    assert report.failed.name == "metric-positive"
    assert not accepted(system, replace(proof, metric=ONE))


def test_the_metric_of_another_form_is_refused_or_true() -> None:
    """rate and hopfield with the same weights need different metrics; nor does another network's proof serve."""
    W = np.array([[0.0, 6.0], [0.0, 0.0]])
    forms = [RateNetwork(W, "relu"), HopfieldNetwork(W, "relu"), RateNetwork(W.T, "relu"), HopfieldNetwork(W.T, "relu")]
    found = [composing.interface_proof(system, 0.2) for system in forms]
    for system in forms:
        proofs = [proof for proof in found if proof is not None]
        for proof in proofs:
            yes = accepted(system, proof)
            assert not yes or holds(system, proof)
            inverse = np.linalg.inv(proof.metric)
            flipped = replace(proof, metric=0.5 * (inverse + inverse.T))
            assert not accepted(system, flipped) or holds(system, flipped)
        assert accepted(system, proofs[forms.index(system)])
    assert sum(accepted(forms[0], proof) for proof in proofs) < len(proofs)
    pool = [made for made in composing.pool(True) if made.module.size == 2]
    for made, other in itertools.pairwise(pool):
        assert isinstance(made.module, System)
        fits = other.proof.multipliers.shape == made.proof.multipliers.shape
        yes = accepted(made.module, other.proof)
        assert not yes or (fits and holds(made.module, other.proof))


def test_sparse_weights_are_refused() -> None:
    system = RateNetwork(scipy.sparse.csr_matrix(0.1 * np.eye(2)), "relu")
    proof = InterfaceProof(np.eye(2), np.ones(2), np.ones(2), 0.5, 0.0)
    assert not accepted(system, proof)
    assert accepted(RateNetwork(0.1 * np.eye(2), "relu"), proof)


def test_an_unclaimed_lipschitz_constant_is_unknown() -> None:
    made = composing.pool(True)[0]
    assert isinstance(made.module, System)
    _, known = verify_interface(made.module, made.proof)
    _, unknown = verify_interface(made.module, replace(made.proof, lipschitz=0.0))
    assert known is not None
    assert unknown is not None
    assert known.lipschitz == made.proof.lipschitz
    assert unknown.lipschitz is None
    assert (known.level, known.continuous, known.starts) == (made.proof.level, True, [0, made.module.size])
