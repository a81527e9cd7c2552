"""What follows from a proof: each claim held against vertices and perturbed weights, not against our own code."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from certes import claims as further
from certes.certificate.document import build
from certes.claims import extend
from certes.conditions import Goal, NothingFound, by_name
from certes.proofs import Claims, LureProof, Proof
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from certes.verify import verify_contraction

W4 = np.random.default_rng(31).normal(size=(4, 4))
W4 *= 0.9 / np.linalg.norm(W4, 2)
SYMMETRIC = 0.5 * (W4 + W4.T)
PRODUCT = -np.diag([1.0, 2.0, 0.5, 1.0]) @ (np.eye(4) + 0.2 * np.ones((4, 4))) @ np.diag([1.0, 0.3, 1.0, 2.0])
TAU = np.array([0.5, 1.0, 2.0, 3.0])
HALF = (0.0, [1.0, 0.5, 0.8, 0.6])


def proven(system: System, condition: str, target: float | None = None) -> tuple[Proof, Claims]:
    decision = by_name(condition).decide(system, Goal(target=target))
    assert not isinstance(decision, NothingFound), decision
    for candidate in decision:
        if verify_contraction(system, candidate.proof, candidate.claims).valid:
            return candidate.proof, candidate.claims
    raise AssertionError("refused")


def extended(system: System, condition: str = "lure", target: float | None = None) -> tuple[Proof, Claims]:
    proof, claims = extend(system, *proven(system, condition, target))
    assert verify_contraction(system, proof, claims).valid
    build(system, "contracting", condition, 1, proof, claims)  # a certificate can say all of it
    return proof, claims


def jacobians(system: System) -> list[np.ndarray]:
    n, T = system.size, np.diag(system.tau)
    found = []
    for corner in itertools.product(*zip(system.slope.lower, system.slope.upper, strict=True)):
        D = np.diag(corner)
        if system.form == "lure":
            J = system.matrix("A") + system.matrix("B") @ D @ system.matrix("C")
        else:
            W = system.matrix("W")
            J = np.linalg.inv(T) @ ((D @ W if system.form == "rate" else W @ D) - np.eye(n))
        found.append(np.eye(n) + system.step * J if system.step is not None else J)
    return found


def metric(proof: LureProof) -> np.ndarray:
    return np.linalg.inv(proof.metric) if proof.dual else proof.metric


# --- weight radius

RADIUS = [
    (RateNetwork(W4, "tanh"), 0.2),
    (RateNetwork(W4, slope=HALF, tau=TAU), 0.05),
    (RateNetwork(W4, slope=HALF, tau=2.0, step=0.5), 0.98),
    (RateNetwork(0.8 * W4, "relu", step=1.0), 0.95),
    (HopfieldNetwork(W4, "tanh"), 0.2),
    (HopfieldNetwork(W4, slope=HALF, tau=TAU), 0.05),
    (HopfieldNetwork(W4, slope=HALF, tau=2.0, step=0.5), 0.98),
    (HopfieldNetwork(0.8 * W4, "relu", step=1.0, tau=TAU + 1.0), 0.97),
]


def moved(system: System, by: np.ndarray) -> System:
    network = RateNetwork if system.form == "rate" else HopfieldNetwork
    slope = (system.slope.lower, system.slope.upper)
    return network(system.matrix("W") + by, slope=slope, step=system.step, tau=system.tau)


def worst_move(system: System, proof: LureProof, level: float) -> np.ndarray:
    """The rank-one change of W, norm 1, that costs the block most: from its weakest vector against the deduction."""
    P, q, g, n = proof.metric, proof.multipliers, system.slope.upper, system.size
    W, T = system.matrix("W"), np.diag(1.0 / system.tau)
    A, B, C = -T, T, W
    if proof.dual:
        A, B, C = -T, np.eye(n), (T @ W).T
    if system.step is not None:
        A, B, C = np.eye(n) + system.step * A, *((system.step * B, C) if not proof.dual else (B, system.step * C))
    if system.continuous:
        row = -(P @ B + C.T * (g * q))
        block = np.block([[-(P @ A + A.T @ P + 2 * level * P), row], [row.T, 2 * np.diag(q)]])
    else:
        row = -(A.T @ P @ B + C.T * (g * q))
        block = np.block([[level**2 * P - A.T @ P @ A, row], [row.T, 2 * np.diag(q) - B.T @ P @ B]])
    S = np.ones(n) if not proof.dual else (system.step or 1.0) / system.tau
    cost = np.concatenate([proof.slack_state * S**2, proof.slack_input * (g * q) ** 2])
    v = scipy.linalg.eigh(block, np.diag(cost))[1][:, 0]
    x, y = S * v[:n], g * q * v[n:]
    move = np.outer(y, x) / (np.linalg.norm(x) * np.linalg.norm(y))  # dC = (dW S)^T or dW: x^T dC^T G Q y > 0
    return move if not proof.dual else move.T


@pytest.mark.parametrize("case", range(len(RADIUS)))
def test_the_proof_survives_every_move_up_to_the_radius_and_not_much_more(case: int) -> None:
    system, target = RADIUS[case]
    proof, claims = extended(system, target=target)
    assert isinstance(proof, LureProof)
    assert claims.weight_radius is not None
    radius = claims.weight_radius
    assert radius > 1e-3
    bare, rng = replace(proof, slack_state=0.0, slack_input=0.0), np.random.default_rng(case)
    plain = Claims(rate=claims.rate, factor=claims.factor)
    random = [rng.normal(size=(4, 4)) for _ in range(20)]
    random += [np.outer(rng.normal(size=4), rng.normal(size=4)) for _ in range(20)]
    moves = [move / np.linalg.norm(move, 2) for move in random]
    worst = worst_move(system, proof, claims.rate or claims.factor or 0.0)
    for move in [*moves, worst, -worst]:
        assert verify_contraction(moved(system, 0.999 * radius * move), bare, plain).valid
    assert not verify_contraction(moved(system, 1.3 * radius * worst), bare, plain).valid


def test_room_in_the_rate_buys_radius() -> None:
    system = RateNetwork(W4, "tanh")
    radii = [extended(system, target=target)[1].weight_radius or 0.0 for target in (0.3, 0.2, 0.1)]
    assert radii == sorted(radii)
    assert radii[0] > 100 * (extended(system)[1].weight_radius or 0.0)


@pytest.mark.parametrize(
    "system",
    [RateNetwork(0.8 * W4, slope=(-0.1, 1.0)), LureSystem(-np.eye(4), 0.5 * np.eye(4), W4, slope=(0.0, 1.0))],
)
def test_no_radius_where_none_is_known(system: System) -> None:
    assert extended(system)[1].weight_radius is None


# --- the largest step

STEPS = [
    (RateNetwork(W4, "tanh"), "lure"),
    (RateNetwork(W4, "tanh", tau=2.0), "lure"),
    (RateNetwork(W4, slope=HALF, tau=0.5, step=0.1), "lure"),
    (HopfieldNetwork(W4, slope=HALF, tau=2.0), "lure"),
    (HopfieldNetwork(W4, "tanh", tau=2.0, step=0.3), "lure"),
    (RateNetwork(W4, "tanh", tau=TAU), "lure"),
    (HopfieldNetwork(W4, slope=(-0.1, 1.0), tau=TAU, step=0.1), "lure"),
    (LureSystem(-np.eye(4), 0.5 * np.eye(4), W4, slope=(0.1, 1.0)), "lure"),
    (RateNetwork(0.4 * W4, slope=HALF), "absolute"),
    (HopfieldNetwork(0.4 * W4, slope=HALF, step=0.5), "absolute"),
    (RateNetwork(0.8 * W4, slope=HALF), "singular"),
    (HopfieldNetwork(0.8 * W4, slope=HALF, tau=3.0), "singular"),
    (RateNetwork(SYMMETRIC, "tanh"), "symmetric"),
    (HopfieldNetwork(SYMMETRIC, "tanh", tau=0.1), "symmetric"),
    (RateNetwork(PRODUCT, "tanh"), "product"),
    (HopfieldNetwork(PRODUCT, "tanh", tau=2.0), "product"),
]


@pytest.mark.parametrize("case", range(len(STEPS)))
def test_every_step_up_to_the_largest_contracts_with_the_stated_factor(case: int) -> None:
    system, condition = STEPS[case]
    proof, claims = extended(system, condition)
    claim = claims.largest_step
    assert claim is not None
    assert system.step is None or claim.step >= system.step
    P = metric(claim.proof)
    for share in (1e-3, 0.1, 0.5, 1.0):
        for J in jacobians(system.with_step(share * claim.step)):
            factor = np.sqrt(scipy.linalg.eigvalsh(J.T @ P @ J, P)[-1])
            assert factor <= 1 - share * (1 - claim.factor) + 1e-9
    del proof


def test_the_largest_step_is_close_to_the_supremum_for_its_multipliers() -> None:
    proof, claims = extended(RateNetwork(W4, "tanh", tau=2.0))
    assert isinstance(proof, LureProof)
    assert claims.largest_step is not None
    root = np.sqrt(proof.multipliers)
    A, best = root[:, None] * W4 / root, np.inf
    for theta in np.linspace(0, np.pi, 400):
        turned = np.exp(1j * theta) * A
        v = np.linalg.eigh(0.5 * (turned + turned.conj().T))[1][:, -1]
        z = v.conj() @ A @ v
        best = min(best, (2 - abs(z) - z.real) / (1 - z.real))
    assert claims.largest_step.step >= 0.98 * 2.0 * best


def test_a_map_that_is_barely_certified_states_its_own_step() -> None:
    system = RateNetwork([[0.0, -1.0], [1.0, 0.0]], "tanh", step=0.997)
    proof, claims = extended(system)
    assert claims.largest_step is not None
    assert claims.largest_step.step >= 0.997
    assert claims.largest_step.factor < 1
    del proof


def test_a_lure_map_has_no_step() -> None:
    system = LureSystem(0.2 * np.eye(4), 0.3 * np.eye(4), W4, slope=(0.0, 1.0), discrete=True)
    assert extended(system)[1].largest_step is None


# --- gain, condition number, margin

ALL = [
    (RateNetwork(W4, slope=HALF, tau=TAU), "lure"),
    (HopfieldNetwork(W4, slope=HALF, tau=TAU), "lure"),
    (RateNetwork(W4, slope=(-0.2, 0.8), step=0.3, tau=2.0), "lure"),
    (HopfieldNetwork(W4, slope=(-0.2, 0.8), step=0.3, tau=TAU), "lure"),
    (LureSystem(-np.eye(4), 0.5 * W4, np.eye(4), slope=(0.0, 1.0)), "lure"),
    (LureSystem(-np.eye(4), 0.5 * W4, np.eye(4), slope=(0.0, 1.0), step=0.2), "lure"),
    (RateNetwork(0.4 * W4, "tanh", tau=TAU), "absolute"),
    (HopfieldNetwork(0.4 * W4, "tanh", step=0.4, tau=TAU), "absolute"),
    (RateNetwork(0.8 * W4, slope=(-1.0, 1.0), tau=TAU), "singular"),
    (HopfieldNetwork(0.8 * W4, "tanh", step=0.4), "singular"),
    (RateNetwork(PRODUCT, slope=(0.0, [1.0, 0.4, 1.0, 0.2])), "product"),
    (HopfieldNetwork(PRODUCT, "tanh", tau=2.0), "product"),
]


def steady_gains(system: System) -> list[float]:
    """Norm of the map from a constant input to the equilibrium, for every slope pattern held fixed."""
    gains = []
    slopes = itertools.product(*zip(system.slope.lower, system.slope.upper, strict=True))
    for corner, J in zip(slopes, jacobians(system), strict=True):
        D, T = np.diag(corner), np.diag(1 / system.tau)
        entry = system.matrix("B") @ D if system.form == "lure" else T @ D if system.form == "rate" else T
        entry = entry * system.step if system.step is not None else entry
        rest = -J if system.continuous else np.eye(system.size) - J
        gains.append(float(np.linalg.norm(np.linalg.solve(rest, entry), 2)))
    return gains


@pytest.mark.cases(4)
@pytest.mark.parametrize("case", range(len(ALL)))
def test_no_steady_state_moves_more_than_the_gain(case: int) -> None:
    system, condition = ALL[case]
    claims = extended(system, condition)[1]
    assert claims.gain is not None
    assert max(steady_gains(system)) <= claims.gain


def test_the_gain_is_the_one_of_the_theory() -> None:
    system = RateNetwork(W4, "sigmoid")
    proof, claims = extended(system, target=0.5)
    assert isinstance(proof, LureProof)
    expected = 0.25 / 0.5 * np.sqrt(np.linalg.cond(proof.metric))
    assert claims.gain == pytest.approx(expected, rel=1e-4)


@pytest.mark.cases(2)
@pytest.mark.parametrize("case", range(6))
def test_the_condition_number_of_the_metric_is_bounded(case: int) -> None:
    proof, claims = extended(*ALL[case])
    assert isinstance(proof, LureProof)
    assert claims.metric_condition_log2 is not None
    assert np.linalg.cond(proof.metric) <= 2.0**claims.metric_condition_log2 <= 2.1 * np.linalg.cond(proof.metric)


@pytest.mark.cases(4)
@pytest.mark.parametrize(("system", "condition"), [*ALL[:6], *ALL[8:], (RateNetwork(SYMMETRIC, "tanh"), "symmetric")])
def test_the_margin_is_about_half_of_what_there_is(system: System, condition: str) -> None:
    proof, claims = extended(system, condition)
    assert claims.margin > 0
    assert not verify_contraction(system, proof, replace(claims, margin=3 * claims.margin)).valid


# --- what is not verified is not claimed


def test_nothing_is_claimed_that_the_verifier_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    system = RateNetwork(W4, "tanh")
    proof, claims = proven(system, "lure")
    monkeypatch.setattr(further, "_accepts", lambda *_: False)
    assert extend(system, proof, claims) == (proof, claims)


@pytest.mark.parametrize("name", ["_gain", "_slacks", "_condition_log2"])
def test_an_exaggerated_number_is_dropped_and_the_others_stay(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    system = RateNetwork(W4, "tanh")
    before = extended(system, target=0.2)[1]
    original = getattr(further, name)
    scale = {"_gain": 0.5, "_slacks": 100.0, "_condition_log2": 0.1}[name]

    def exaggerated(*arguments: object) -> object:
        value = original(*arguments)
        return tuple(scale * entry for entry in value) if isinstance(value, tuple) else scale * value

    monkeypatch.setattr(further, name, exaggerated)
    after = extended(system, target=0.2)[1]
    assert after.rate == before.rate
    assert after.largest_step is not None
    assert (after.gain is None) == (name != "_slacks")
    assert (after.weight_radius is None) == (name == "_slacks")


def test_above_the_limit_only_gain_and_condition_are_added() -> None:
    system = RateNetwork(-0.5 * np.eye(further.LARGEST + 1), "tanh")
    claims = extended(system, "absolute")[1]
    assert claims.gain is not None
    assert claims.largest_step is None
    assert claims.margin == 0.0
