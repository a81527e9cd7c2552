"""Attacks on the verifier: numbers at the ends of the range, malformed proofs, an arithmetic that was tampered with."""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import math
import platform
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse
from certes.proofs import (
    AbsoluteProof,
    Claims,
    InstabilityWitness,
    LureProof,
    ProductProof,
    Proof,
    SingularProof,
    StepClaim,
    SymmetricProof,
)
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from certes.verify import instability, verify_contraction, verify_instability
from certes.verify.intervals import Box
from certes.verify.report import Check

from tests.judges import rational
from tests.verify.families import CHEAP, candidates
from tests.verify.near_boundary import Candidate, extremes, proof_of

ZERO = np.zeros(2, np.int64)
HALF = np.full(2, 0.5)


def good() -> list[tuple[System, Proof, Claims]]:
    """One true question of every kind of proof, with every claim that it carries."""
    W = np.array([[-0.4, 0.1], [0.1, -0.5]])
    net, slope = RateNetwork(W, slope=(0.0, 1.0)), {"slope": (0.0, 1.0)}
    lure = LureProof(np.eye(2), np.ones(2), False, 0.5, 2.0, 0.01, 0.01)
    dual = replace(lure, dual=True)
    plain = Claims(rate=0.05, gain=200.0, metric_condition_log2=4.0)
    step = StepClaim(0.5, 0.99, replace(lure, metric=2 * np.eye(2), slack_state=0.0, slack_input=0.0))
    carried = replace(plain, margin=0.01, weight_radius=0.01)
    product = ProductProof(np.ones(2), -W, np.ones(2), 1e-12, 0.1, 2.0)
    singular = SingularProof(np.ones(2), 0.7)
    return [
        (net, lure, replace(carried, largest_step=step)),
        (HopfieldNetwork(W, **slope), dual, carried),
        (RateNetwork(W, step=0.5, **slope), step.proof, Claims(factor=0.99, margin=0.001)),
        (LureSystem(-np.eye(2), np.eye(2), W, **slope), lure, replace(plain, margin=0.01)),
        (net, SymmetricProof(True), Claims(rate=1.0)),
        (net, SymmetricProof(False), Claims(rate=0.9)),
        (net, product, replace(plain, margin=0.01, metric_condition_log2=5.0)),
        (net, singular, replace(plain, margin=0.01)),
        (RateNetwork(W, step=0.5, **slope), singular, Claims(factor=0.9)),
        (net, AbsoluteProof(HALF, ZERO, HALF, ZERO), plain),
    ]


QUESTIONS = pytest.mark.parametrize(("system", "proof", "claims"), good())


@QUESTIONS
def test_the_questions_are_true(system: System, proof: Proof, claims: Claims) -> None:
    assert rational.failures(system, proof, claims) == set()
    report = verify_contraction(system, proof, claims)
    assert report.valid, report


@QUESTIONS
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 5e-324, 1e-310])
def test_a_number_that_is_not_one_is_refused(system: System, proof: Proof, claims: Claims, bad: float) -> None:
    """NaN, infinities and subnormals in every array of the proof and every claim, first and last entry."""
    for name, array in proof.to_arrays().items():
        if array.dtype != np.float64 or (name == "metric_upper" and claims.gain is None):
            continue  # no obligation rests on metric_upper unless something that uses it is claimed
        for where in {0, array.size - 1}:
            changed = array.copy().reshape(-1)
            changed[where] = bad
            value = changed.reshape(array.shape) if array.ndim else float(changed[0])
            assert not verify_contraction(system, replace(proof, **{name: value}), claims).valid, name
    for entry in fields(claims):
        if isinstance(getattr(claims, entry.name), float) and entry.name != "largest_step":
            report = verify_contraction(system, proof, replace(claims, **{entry.name: bad}))
            assert not report.valid, entry.name


@QUESTIONS
@pytest.mark.parametrize("huge", [1e300, -1e300, 1.7e308, -1e160])
def test_huge_entries_are_refused_without_a_crash(system: System, proof: Proof, claims: Claims, huge: float) -> None:
    for name, array in proof.to_arrays().items():
        if array.dtype != np.float64 or name == "metric_upper":
            continue
        changed = array.copy().reshape(-1)
        changed[-1] = huge
        value = changed.reshape(array.shape) if array.ndim else float(changed[0])
        moved = replace(proof, **{name: value})
        accepted = verify_contraction(system, moved, claims).valid
        assert not (accepted and rational.failures(system, moved, claims)), name


@QUESTIONS
def test_wrong_shapes_are_refused(system: System, proof: Proof, claims: Claims) -> None:
    for name, array in proof.to_arrays().items():
        if not array.ndim:
            continue
        shapes = [array[:1], array[..., :1], np.concatenate([array, array]), array[..., None], array[:0], array.ravel()]
        for changed in shapes:
            if changed.shape != array.shape:
                report = verify_contraction(system, replace(proof, **{name: changed}), claims)
                assert not report.valid, (name, changed.shape)


@QUESTIONS
def test_a_claim_of_the_other_time_is_refused(system: System, proof: Proof, claims: Claims) -> None:
    assert not verify_contraction(system, proof, replace(claims, rate=None, factor=None)).valid
    assert not verify_contraction(system, proof, replace(claims, rate=0.01, factor=0.99)).valid
    assert not verify_contraction(system, proof, replace(claims, rate=claims.factor, factor=claims.rate)).valid


@QUESTIONS
def test_a_proof_of_another_network_is_refused(system: System, proof: Proof, claims: Claims) -> None:
    """The same proof for weights 30 times as large and of the other sign."""
    arrays = [np.array(entry.value) for entry in system.tensors.values()]
    arrays[-1] = -30.0 * arrays[-1]
    slope = (system.slope.lower, system.slope.upper)
    other = type(system)(*arrays, slope=slope, **({} if system.form == "lure" else {"step": system.step}))
    assert not verify_contraction(other, proof, claims).valid


@QUESTIONS
def test_claims_beyond_all_bounds_are_refused(system: System, proof: Proof, claims: Claims) -> None:
    level = {"rate": 1e9} if system.continuous else {"factor": 1e-9}
    beyond = [
        level,
        {"margin": -0.5},
        {"margin": 3.0},
        {"gain": 0.0},
        {"gain": -100.0},
        {"weight_radius": -0.01},
        {"weight_radius": 5.0},
        {"metric_condition_log2": -1.0},
        {"metric_condition_log2": 2.0**40},
    ]
    for change in beyond:
        report = verify_contraction(system, proof, replace(claims, **change))
        assert report.verdict == "undecided", change
        assert report.reason == "obligation-failed"


@pytest.mark.parametrize("step", [math.nan, math.inf, 0.0, -0.5, 5e-324, 1e308, 2.5])
def test_a_wrong_largest_step_is_refused(step: float) -> None:
    system, proof, claims = good()[0]
    assert claims.largest_step is not None
    moved = replace(claims, largest_step=replace(claims.largest_step, step=step))
    assert not verify_contraction(system, proof, moved).valid


@pytest.mark.parametrize("factor", [math.nan, math.inf, 0.0, -0.99, 1.0, 1.5, 0.5])
def test_a_wrong_factor_at_the_largest_step_is_refused(factor: float) -> None:
    system, proof, claims = good()[0]
    assert claims.largest_step is not None
    moved = replace(claims, largest_step=replace(claims.largest_step, factor=factor))
    assert not verify_contraction(system, proof, moved).valid


def test_a_map_given_as_such_has_no_largest_step() -> None:
    system = LureSystem(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)), slope=(0.0, 1.0), discrete=True)
    proof = proof_of(np.ones((1, 1)))
    assert verify_contraction(system, proof, Claims(factor=0.5)).valid
    assert not verify_contraction(system, proof, Claims(factor=0.5, largest_step=StepClaim(1.0, 0.5, proof))).valid


def test_four_blocks_with_a_negative_metric_are_refused() -> None:
    """With P = -1 the Lur'e blocks are positive definite for four systems that do not contract so."""
    one, zero, minus = np.ones((1, 1)), np.zeros((1, 1)), proof_of(-np.ones((1, 1)))
    questions = [
        (LureSystem(one, zero, zero, slope=(0.0, 1.0)), Claims(rate=0.5)),  # x' = +x
        (RateNetwork(zero, slope=(0.0, 1.0), step=0.1), Claims(factor=0.5)),  # rho < |1 - a|
        (RateNetwork(zero, slope=(0.0, 1.0)), Claims(rate=2.0)),  # c > 1
        (LureSystem(2 * one, zero, zero, slope=(0.0, 1.0), discrete=True), Claims(factor=0.5)),  # x+ = 2 x
    ]
    for system, claims in questions:
        report = verify_contraction(system, minus, claims)
        assert report.verdict == "undecided"
        assert report.failed is not None
        assert report.failed.name == "metric-positive"


def test_multipliers_must_be_positive() -> None:
    system, proof, claims = good()[0]
    for q in (-1.0, 0.0, -1e-300):
        assert not verify_contraction(system, replace(proof, multipliers=np.array([1.0, q])), claims).valid


def test_the_dual_flag_counts() -> None:
    """A proof of the transposed network is no proof of the network."""
    W = np.array([[0.0, 1.5], [0.0, 0.0]])
    metric, q = np.diag([1.0, 4.0]), np.array([1.0, 4.0])
    proof = LureProof(metric, q, False, 0.0, math.inf, 0.0, 0.0)
    rate = RateNetwork(W, slope=(0.0, 1.0))
    answers = {}
    for dual in (False, True):
        asked = replace(proof, dual=dual)
        answers[dual] = verify_contraction(rate, asked, Claims(rate=0.1)).valid
        assert answers[dual] == (not rational.failures(rate, asked, Claims(rate=0.1)))
    assert answers == {False: True, True: False}


def test_a_step_is_certified_with_one_unit_in_the_last_place_around_it() -> None:
    """x+ = (1 - h) x with h one unit away from the given float must still have the claimed factor."""
    zero = np.zeros((1, 1))
    for step in (0.1, 0.3, 0.7, 1.3, 1.9):
        proof = SingularProof(np.ones(1), 2.0**-60)
        system = RateNetwork(zero, slope=(0.0, 1.0), step=step)
        edge = max(abs(1.0 - step), 0.0)
        tight = edge * (1.0 + 2.0**-52)
        wide = edge + 8.0 * np.spacing(step)
        assert verify_contraction(system, proof, Claims(factor=float(wide))).valid
        for near in (np.nextafter(step, 0.0), step, np.nextafter(step, 3.0)):
            neighbour = RateNetwork(zero, slope=(0.0, 1.0), step=float(near))
            if verify_contraction(system, proof, Claims(factor=tight)).valid:
                assert not rational.failures(neighbour, proof, Claims(factor=tight))


def test_a_gain_with_exponents_beyond_int64_is_refused() -> None:
    """l / r = 2**(2**62 + 2**62) would wrap around to a condition number of one."""
    far = np.array([0, 2**62], np.int64)
    system = RateNetwork(np.zeros((2, 2)), slope=(0.0, 1.0))
    proof = AbsoluteProof(HALF, -far, HALF, far)
    assert not verify_contraction(system, proof, Claims(rate=0.5, gain=10.0)).valid
    assert not verify_contraction(system, proof, Claims(rate=0.5, metric_condition_log2=9.0)).valid


def three_cycle(first: float, slope: float) -> System:
    W = np.array([[0.0, first, 0.0], [0.0, 0.0, 2.0**539], [2.0**539, 0.0, 0.0]])
    return HopfieldNetwork(W, slope=(0.0, [1.0, slope, 1.0]))


def test_a_small_weight_times_a_small_slope_is_not_lost_before_it_is_scaled_up() -> None:
    """N_12 = 2**-1077 underflows, N_12 r_2 / r_1 = 2**223: the cycle has gain 2 and is unstable."""
    root = 2.0 ** (1 / 3)
    left, power = np.frexp([root * root, root, 1.0])
    left_power = power.astype(np.int64) + np.array([538, -539, 0])
    proof = AbsoluteProof(np.full(3, 0.5), np.array([0, 1300, 700]), left, left_power)
    system = three_cycle(2.0**-1000, 2.0**-77)
    assert rational.failures(system, proof, Claims(rate=0.25)) == {"rate"}
    assert not verify_contraction(system, proof, Claims(rate=0.25)).valid


@pytest.mark.parametrize("count", [1, 4])
def test_a_majorant_must_hold_in_every_row(count: int) -> None:
    """A sparse network that is calm but for one row at the end of a chunk."""
    size = 50
    W = scipy.sparse.csr_array(scipy.sparse.diags([0.4] * size))
    right, zero = np.full(size, 0.5), np.zeros(size, np.int64)
    proof = AbsoluteProof(right, zero, right, zero)
    assert verify_contraction(RateNetwork(W, slope=(0.0, 1.0)), proof, Claims(rate=0.5)).valid
    for row in (0, size // 2, size - 1):
        broken = W.tolil()
        broken[row, :count] = 3.0
        assert not verify_contraction(RateNetwork(broken.tocsr(), slope=(0.0, 1.0)), proof, Claims(rate=0.5)).valid


# the arithmetic itself -----------------------------------------------------------------------------------------------

_ROUND_UP = {"x86_64": 0x800, "AMD64": 0x800, "aarch64": 0x400000}
_ROUND_DOWN = {"x86_64": 0x400, "AMD64": 0x400, "aarch64": 0x800000}
_ROUND_ZERO = {"x86_64": 0xC00, "AMD64": 0xC00, "aarch64": 0xC00000}
_MODES = [table.get(platform.machine()) for table in (_ROUND_UP, _ROUND_DOWN, _ROUND_ZERO)]


@pytest.fixture
def libm() -> Iterator[ctypes.CDLL]:
    name = ctypes.util.find_library("m")
    if name is None or _MODES[0] is None or not sys.platform.startswith("linux"):
        pytest.skip("no way to set the rounding mode here")
    library = ctypes.CDLL(name)
    before = library.fegetround()
    yield library
    library.fesetround(before)


@pytest.mark.parametrize("mode", _MODES, ids=["up", "down", "zero"])
@pytest.mark.parametrize("index", range(len(good())))
def test_another_rounding_mode_is_refused(libm: ctypes.CDLL, mode: int, index: int) -> None:
    system, proof, claims = good()[index]
    witness_system, refutes = unstable()
    assert libm.fesetround(mode) == 0
    try:
        report, refusal = verify_contraction(system, proof, claims), verify_instability(witness_system, refutes)
    finally:
        libm.fesetround(0)
    for answer in (report, refusal):
        assert answer.verdict == "undecided"
        assert answer.failed is not None
        assert answer.failed.name == "arithmetic"
    assert verify_contraction(system, proof, claims).valid  # and the mode is back


@pytest.fixture
def flush_to_zero(libm: ctypes.CDLL) -> Iterator[None]:
    """Subnormal results and operands become zero in this thread, as after loading a library built with -ffast-math."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        pytest.skip("the control register is known here for x86 only")
    environment = ctypes.create_string_buffer(32)  # x87 state, then MXCSR in the last four bytes
    libm.fegetenv(environment)
    before = environment.raw
    control = int.from_bytes(before[28:32], "little") | 0x8040
    libm.fesetenv(ctypes.create_string_buffer(before[:28] + control.to_bytes(4, "little"), 32))
    yield
    libm.fesetenv(ctypes.create_string_buffer(before, 32))


TINIEST = 2.0**-1022


@pytest.mark.usefixtures("flush_to_zero")
def test_flushed_subnormals_hide_nothing() -> None:
    assert (np.full(4, TINIEST) * 0.5 == 0).all(), "the mode is not set"
    subnormal = np.frombuffer((1 << 40).to_bytes(8, "little") * 4).reshape(2, 2)
    for system, proof, claims in good():
        for name, array in proof.to_arrays().items():
            if array.shape == (2, 2):
                changed = np.array([[array[0, 0], subnormal[0, 1]], [subnormal[1, 0], array[1, 1]]])
                assert not verify_contraction(system, replace(proof, **{name: changed}), claims).valid
        if system.form != "lure":
            weights = np.diag(np.diag(system.matrix("W"))) + np.array([[0.0, subnormal[0, 1]], [subnormal[1, 0], 0.0]])
            weights[0, 1] = weights[1, 0] = subnormal[0, 1]
            other = type(system)(weights, slope=(0.0, 1.0), step=system.step)
            assert not verify_contraction(other, proof, claims).valid


@pytest.mark.usefixtures("flush_to_zero")
def test_a_product_of_huge_and_tiny_is_still_enclosed() -> None:
    """The rounding error of a tiny factor, taken alone, is flushed; times the huge factor it is not."""
    rng = np.random.default_rng(3)
    left, right = rng.standard_normal((4, 4)) * 2.0**900, rng.standard_normal((4, 4)) * 2.0**-1000
    product = Box.exact(left) @ Box.exact(right)
    for i, j in itertools.product(range(4), range(4)):
        truth = sum(Fraction(float(left[i, k])) * Fraction(float(right[k, j])) for k in range(4))
        assert abs(Fraction(float(product.mid[i, j])) - truth) <= Fraction(float(product.rad[i, j]))


@pytest.mark.usefixtures("flush_to_zero")
def test_a_flushed_product_is_not_lost_before_it_is_scaled_up() -> None:
    """2**-1022 times a mantissa of 1/2 is zero here; times r_2 / r_1 = 2**1300 it is 2**278 in the reals."""
    root = 2.0 ** (1 / 3)
    W = np.array([[0.0, TINIEST, 0.0], [0.0, 0.0, 2.0**511], [2.0**512, 0.0, 0.0]])
    left, power = np.frexp([root * root, root, 1.0])
    left_power = power.astype(np.int64) + np.array([511, -511, 0])
    proof = AbsoluteProof(np.full(3, 0.5), np.array([0, 1300, 700]), left, left_power)
    for form in (RateNetwork, HopfieldNetwork):
        assert not verify_contraction(form(W, slope=(0.0, 1.0)), proof, Claims(rate=0.25)).valid


@pytest.fixture(scope="module")
def false_questions() -> list[tuple[str, Candidate]]:
    """Made and judged before the mode is changed."""
    found = itertools.chain.from_iterable(candidates(99, unit, (*CHEAP, extremes)) for unit in range(4))
    return [(name, candidate) for name, candidate in found if candidate.failures()]


def test_no_false_yes_with_flushed_subnormals(
    false_questions: list[tuple[str, Candidate]], flush_to_zero: None
) -> None:
    assert len(false_questions) > 300
    for name, candidate in false_questions:
        assert not verify_contraction(candidate.system, candidate.proof, candidate.claims).valid, name


# witnesses -----------------------------------------------------------------------------------------------------------


def unstable() -> tuple[System, InstabilityWitness]:
    """x+ = diag(1.5, 0.5) x at slopes 1: modulus 1.5 > 1.2."""
    system = LureSystem(np.zeros((2, 2)), np.eye(2), np.diag([1.5, 0.5]), slope=(0.0, 1.0), discrete=True)
    one, start = np.ones(2), np.array([1e-3, 0.0])
    first = np.array([1.0, 0.0])
    return system, InstabilityWitness(0.0 * one, one, np.diag([-1.0, 1.0]), first, 1.2, 0.0 * one, start, -start, 20.0)


def test_the_witness_is_true() -> None:
    system, witness = unstable()
    assert rational.witness_failures(system, witness) == set()
    assert verify_instability(system, witness).verdict == "not_contracting"


@pytest.mark.parametrize("bad", [math.nan, math.inf, 5e-324])
def test_a_witness_with_a_number_that_is_not_one_is_refused(bad: float) -> None:
    system, witness = unstable()
    for name, array in witness.to_arrays().items():
        changed = array.copy().reshape(-1)
        changed[-1] = bad
        value = changed.reshape(array.shape) if array.ndim else float(changed[0])
        assert not verify_instability(system, replace(witness, **{name: value})).valid, name
        if array.ndim:
            assert not verify_instability(system, replace(witness, **{name: array[:1]})).valid, name


WRONG = {
    "slopes": {"slopes": np.array([1.5, 1.0])},
    "lyapunov": {"growth": 1.5},
    "direction": {"direction": np.array([0.0, 1.0])},
    "equilibrium": {"input": np.array([0.5, 0.0])},
    "parting": {"horizon": 1.0},
}


def test_every_obligation_of_a_witness_has_a_case() -> None:
    assert [obligation.__name__ for obligation in instability.OBLIGATIONS] == list(WRONG)


@pytest.mark.parametrize("name", WRONG)
def test_dropping_an_obligation_of_a_witness_lets_a_false_one_through(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, witness = unstable()
    wrong = replace(witness, **WRONG[name])
    if name in {"slopes", "lyapunov", "direction"}:
        assert rational.witness_failures(system, wrong) == {name}
    report = verify_instability(system, wrong)
    assert not report.valid
    assert report.failed is not None
    assert report.failed.name == name
    kept = [
        (lambda asked: Check("dropped", True)) if obligation.__name__ == name else obligation
        for obligation in instability.OBLIGATIONS
    ]
    monkeypatch.setattr(instability, "OBLIGATIONS", tuple(kept))
    assert verify_instability(system, wrong).valid


def test_witnesses_near_the_border_of_growth() -> None:
    """J = diag(s, 1/2), the growth claimed a few units in the last place to either side of s."""
    rng = np.random.default_rng(3)
    answers = {(truth, answer): 0 for truth in (True, False) for answer in (True, False)}
    for _ in range(400):
        n = int(rng.integers(1, 4))
        basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
        J = basis * np.array([rng.uniform(1.2, 2.0), 0.5, 0.25])[:n] @ basis.T
        system = LureSystem(np.zeros((n, n)), np.eye(n), J, slope=(0.0, 1.0), discrete=True)
        signs = basis * np.array([-1.0, 1.0, 1.0])[:n] @ basis.T
        signs = np.tril(signs) + np.tril(signs, -1).T
        edge = float(np.max(np.abs(np.linalg.eigvals(J))))
        growth = edge * (1.0 + float(rng.choice([-1.0, 1.0])) * 10.0 ** rng.uniform(-16, -9))
        start = basis[:, 0] * 1e-3
        none, one = np.zeros(n), np.ones(n)
        witness = InstabilityWitness(none, one, signs, basis[:, 0].copy(), growth, none, start, -start, 30.0)
        truth = not rational.witness_failures(system, witness)
        answer = verify_instability(system, witness).valid
        assert truth or not answer
        answers[truth, answer] += 1
    assert min(answers[True, True], answers[True, False], answers[False, False]) > 20, answers
