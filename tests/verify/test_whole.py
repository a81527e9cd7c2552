"""The Lur'e inequality of a whole assembly: judged at all slope vertices, steps and nested steps included."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from certes.assemblies import Assembly, WholeProof
from certes.systems import LureSystem, RateNetwork
from certes.verify import whole
from certes.verify.intervals import Box
from certes.verify.reduction import dense
from certes.verify.report import Check
from certes.verify.whole import channels, normal_form, verify_whole

from tests.verify import composing
from tests.verify.composing import Made, edge

TOLERANCE = 1e-9


def holds(assembly: Assembly, proof: WholeProof) -> bool:
    if not np.linalg.eigvalsh(proof.metric)[0] > 0.0:
        return False
    J = composing.jacobians(assembly)
    if assembly.continuous:
        return 0.0 < proof.level <= composing.true_rate(proof.metric, J) + TOLERANCE
    return proof.level < 1.0 and composing.true_norm(proof.metric, J) <= proof.level * (1 + TOLERANCE)


def drawn(seed: int, count: int) -> Iterator[Assembly]:
    """Flows, maps, flows with a step, and maps with a stepped flow inside."""
    rng, found = np.random.default_rng(seed), 0
    while found < count:
        seen = composing.assembled(rng, bool(found % 2))
        if seen is None:
            continue
        found += 1
        assembly = seen.assembly
        if found % 4 == 0:
            assembly = replace(assembly, step=float(rng.uniform(0.05, 0.6)))
        yield assembly


def candidates(assembly: Assembly) -> Iterator[WholeProof]:
    """Clarabel's numbers at a few levels, and levels around the truth in that metric."""
    for level in (0.05, 0.2, 0.4) if assembly.continuous else (0.6, 0.9, 0.97):
        proof = composing.whole_proof(assembly, level)
        if proof is None:
            continue
        yield proof
        J = composing.jacobians(assembly)
        measure = composing.true_rate if assembly.continuous else composing.true_norm
        truth, worse = measure(proof.metric, J), 1 + 1e-8 if assembly.continuous else 1 - 1e-8
        for number in (truth, truth * worse, truth * worse**100, truth * worse ** (10**6)):
            yield replace(proof, level=number)


@pytest.mark.parametrize("count", [12, pytest.param(120, marks=pytest.mark.slow)])
def test_no_false_yes(count: int) -> None:
    counts: Counter[tuple[bool, bool]] = Counter()
    judged = 0
    for assembly in drawn(4, count):
        for proof in candidates(assembly):
            true, yes = holds(assembly, proof), verify_whole(assembly, proof).valid
            counts[true, yes] += 1
            assert true or not yes, (assembly, proof)
            if yes and sum(len(x.slope.lower) for x in composing.leaves(assembly)) <= 5:
                judged += 1
                assert composing.exactly(assembly, composing.given(proof.metric, True), proof.level)
    print(f"\nwhole, {judged} judged exactly: (true, accepted) -> count: {dict(counts)}")
    assert counts[True, True] >= count
    assert counts[False, False] >= count
    assert judged >= count / 4


def test_the_normal_form_encloses_the_exact_equations() -> None:
    """A, B, C against rationals, time constants, steps and couplings of every level included."""
    for assembly in drawn(6, 16):
        form = normal_form(assembly, shifted=False)
        for box, exact in zip((form.A, form.B, form.C), composing.equations(assembly, exact=True), strict=True):
            assert_encloses(dense(box), exact)
        low = np.concatenate([x.slope.lower for x in composing.leaves(assembly)])
        A, B, C = composing.equations(assembly, exact=True)
        assert_encloses(dense(normal_form(assembly).A), A + (B * composing.given(low, True)[None, :]) @ C)


def assert_encloses(box: Box, exact: np.ndarray) -> None:
    error = np.abs(composing.given(box.mid, True) - exact)
    assert (error <= composing.given(box.rad, True)).all()


def test_an_interface_rate_is_a_rate_of_the_whole() -> None:
    """Leaves proved by the Lur'e inequality and linear couplings: what the interfaces prove, the whole proves too."""
    rng, found = np.random.default_rng(12), 0
    for _ in range(80):
        seen = composing.assembled(rng, True)
        if seen is None or any(one.inside for one in seen.assembly.couplings):
            continue
        proof = composing.best_flow(rng, seen, below=1e-2)
        if Made(seen.assembly, proof, seen.children).verified()[1] is None:
            continue
        if any(isinstance(child.module, Assembly) and child.module.couplings for child in seen.children):
            continue
        found += 1
        found_whole = composing.whole_proof(seen.assembly, proof.level)
        assert found_whole is not None
        assert verify_whole(seen.assembly, found_whole).valid
    assert found >= 8


def tampered(p: WholeProof) -> Iterator[WholeProof]:
    for value in (np.nan, np.inf, -1.0, 0.0, 5e-324):
        metric = p.metric.copy()
        metric[0, 0] = value
        yield replace(p, metric=metric)
    lopsided = p.metric.copy()
    lopsided[0, -1] = np.nextafter(lopsided[0, -1], np.inf)
    yield replace(p, metric=lopsided)
    yield replace(p, metric=-p.metric)
    yield replace(p, metric=p.metric[1:, 1:])
    for value in (np.nan, np.inf, -1.0, 0.0, 1e-300):
        q = p.multipliers.copy()
        q[0] = value
        yield replace(p, multipliers=q)
    yield replace(p, multipliers=-p.multipliers)
    yield replace(p, multipliers=p.multipliers[1:])
    yield replace(p, multipliers=np.append(p.multipliers, 1.0))
    for level in (np.nan, np.inf, 0.0, -1.0, 1e300, 5e-324):
        yield replace(p, level=level)


def small(step: float | None = None, discrete: bool = False) -> Assembly:
    left = RateNetwork(np.array([[0.1, 0.4], [-0.3, 0.0]]), "tanh", tau=[1.0, 2.0], step=0.5 if discrete else None)
    right = LureSystem([[-0.5]], [[0.2]], [[0.4]], (-0.5, 1.0), discrete=discrete)
    edges = (edge("l", "r", [[0.1], [0.05]]), edge("r", "l", [[0.1, -0.1]]), edge("l", "r", [[0.2], [0.1]], True))
    return Assembly({"l": left, "r": right}, edges, step)


@pytest.mark.parametrize("assembly", [small(), small(step=0.3), small(discrete=True)])
def test_tampered_proofs_are_refused(assembly: Assembly) -> None:
    proof = composing.whole_proof(assembly, 0.1 if assembly.continuous else 0.97)
    assert proof is not None
    assert verify_whole(assembly, proof).valid
    for k, changed in enumerate(tampered(proof)):
        assert not verify_whole(assembly, changed).valid, k
    for k, one in enumerate(assembly.couplings):
        for share in (1e3, 1e150, -1e3):
            edges = (*assembly.couplings[:k], edge(one.to, one.source, share * one.matrix, one.inside))
            other = replace(assembly, couplings=(*edges, *assembly.couplings[k + 1 :]))
            assert not verify_whole(other, proof).valid or holds(other, proof)


def test_a_flow_is_not_a_map_and_a_step_counts() -> None:
    flow, slow, fast = small(), small(step=0.1), small(step=20.0)
    proof = composing.whole_proof(flow, 0.1)
    assert proof is not None
    for other in (slow, fast, small(discrete=True)):
        assert not verify_whole(other, proof).valid or holds(other, proof)
    stepped = composing.whole_proof(slow, 0.999)
    assert stepped is not None
    assert verify_whole(slow, stepped).valid
    assert not verify_whole(fast, stepped).valid
    unit = np.eye(3)
    for assembly, level in itertools.product((slow, fast), (0.5, 0.9)):
        negative = WholeProof(-unit, np.ones(3), level)
        assert not verify_whole(assembly, negative).valid


def test_a_step_inside_comes_before_the_coupling() -> None:
    inner = replace(small(), step=0.25)
    outer = Assembly({"in": inner, "r": small(discrete=True)}, (edge("in", "r", 0.05 * np.ones((3, 3))),))
    proof = composing.whole_proof(outer, 0.98)
    assert proof is not None
    assert verify_whole(outer, proof).valid
    assert holds(outer, proof)
    assert list(channels(outer)) == ["in/l", "in/r", "r/l", "r/r"]
    assert channels(outer)["r/l"] == (slice(3, 5), slice(3, 5))


ONE = np.ones((1, 1))
PLAIN = RateNetwork(0.01 * ONE, "relu")


@pytest.mark.parametrize(
    ("assembly", "level"),
    [
        (Assembly({"a": LureSystem(ONE, 0.01 * ONE, 0.01 * ONE, (0.0, 1.0))}), 0.5),
        (Assembly({"a": PLAIN}, step=0.1), 0.5),
        (Assembly({"a": PLAIN}), 1.5),
        (Assembly({"a": LureSystem(2.0 * ONE, 0.01 * ONE, 0.01 * ONE, (0.0, 1.0), discrete=True)}), 0.5),
    ],
)
def test_a_negative_metric_makes_the_first_block_positive_and_is_refused(assembly: Assembly, level: float) -> None:
    """x' = +x, a factor below abs(1 - h), a rate above 1, x+ = 2x: P > 0 is an obligation of its own."""
    report = verify_whole(assembly, WholeProof(-ONE, np.ones(1), level))
    assert report.failed is not None
    assert report.failed.name == "metric-positive"
    assert not verify_whole(assembly, WholeProof(ONE, np.ones(1), level)).valid


def test_a_negative_metric_of_a_flow_passes_all_other_obligations(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the obligation is for: without it, x' = +x would be contracting."""
    assembly = Assembly({"a": LureSystem(ONE, 0.01 * ONE, 0.01 * ONE, (0.0, 1.0))})
    asked = whole.definite_check
    monkeypatch.setattr(
        whole,
        "definite_check",
        lambda name, *rest: Check(name, True) if name == "metric-positive" else asked(name, *rest),
    )
    assert verify_whole(assembly, WholeProof(-ONE, np.ones(1), 0.5)).valid
