"""The largest Euler step: valid at every smaller step, and close to the largest there is.

Judges: for one time constant the region of the step, (2 - abs z - Re z) / (1 - Re z) on a grid of angles, maximised
over the multipliers by Nelder and Mead; else Clarabel; and Jacobians at all vertices of the slope box.
"""

from __future__ import annotations

import itertools

import certes
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from certes.proofs import StepClaim
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System

from tests.judges.semidefinite import Lure, margin

ANGLES = np.exp(1j * np.linspace(0.0, np.pi, 241))[:, None, None]


def random_weights(n: int, seed: int, size: float) -> np.ndarray:
    W = np.random.default_rng(seed).normal(size=(n, n))
    return size * W / np.linalg.norm(W, 2)


def jacobians(system: System):
    """J(D) of the flow at all vertices of the slope box, from the equations of the forms."""
    for corner in itertools.product(*zip(system.slope.lower, system.slope.upper, strict=True)):
        D = np.diag(corner)
        if system.form == "lure":
            yield system.matrix("A") + system.matrix("B") @ D @ system.matrix("C")
        else:
            W = system.matrix("W")
            inner = D @ W if system.form == "rate" else W @ D
            yield np.diag(1.0 / system.tau) @ (inner - np.eye(system.size))


def holds(system: System, claim: StepClaim, share: float) -> bool:
    """Whether one metric gives all Jacobians the interpolated factor at a share of the step."""
    P = np.linalg.inv(claim.proof.metric) if claim.proof.dual else claim.proof.metric
    worst = -np.inf
    for J in jacobians(system):
        M = np.eye(system.size) + share * claim.step * J
        worst = max(worst, scipy.linalg.eigvalsh(M.T @ P @ M, P)[-1])
    return bool(np.sqrt(worst) <= 1.0 - share * (1.0 - claim.factor) + 1e-9)


def claimed(system: System) -> StepClaim:
    result = certes.certify(system, condition="lure", refute=False)
    assert result.claims is not None, result.detail
    assert result.claims.largest_step is not None
    return result.claims.largest_step


def reach(A: np.ndarray) -> float:
    """The step that the field of values of A allows, in units of the time constant."""
    v = np.linalg.eigh(0.5 * (ANGLES * A + np.conj(ANGLES) * A.T))[1][:, :, -1]
    z = np.einsum("ki,ij,kj->k", v.conj(), A, v)
    room = np.where(z.real < 1.0, 1.0 - z.real, 1e-9)
    return float(((2.0 - abs(z) - z.real) / room).min())


def best_step(W: np.ndarray, function) -> float:
    """The largest step over diagonal scalings; a lower bound of it, as good as the search."""

    def value(d: np.ndarray) -> float:
        D = np.exp(np.append(d, 0.0))
        return -function(D[:, None] * W / D)

    x, best = np.zeros(len(W) - 1), np.inf
    for _ in range(6):
        found = scipy.optimize.minimize(
            value, x, method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-7, "maxfev": 1500}
        )
        gained, x, best = best - found.fun, found.x, min(best, found.fun)
        if gained < 1e-5:
            break
    return -best


def check_beyond(system: System, step: float) -> None:
    """A map whose step is too large is not certified, although nothing is refuted."""
    result = certes.certify(system.with_step(step), condition="lure", refute=False)
    assert (result.verdict, result.reason) == ("undecided", "margin")


@pytest.mark.cases(4)
@pytest.mark.parametrize(
    ("n", "seed", "size", "tau"), [(2, 1, 0.9, 1.0), (3, 2, 1.2, 2.0), (4, 3, 0.7, 0.1), (5, 4, 1.0, 1.0)]
)
@pytest.mark.parametrize("network", [RateNetwork, HopfieldNetwork])
def test_the_largest_step_is_the_region_s(network: type, n: int, seed: int, size: float, tau: float) -> None:
    system = network(random_weights(n, seed, size), "tanh", tau=tau)
    supremum = tau * best_step(system.matrix("W"), reach)
    claim = claimed(system)
    assert 0.99 * supremum <= claim.step <= supremum * (1.0 + 1e-4)  # the judge's angles are a grid
    assert all(holds(system, claim, share) for share in (0.01, 0.3, 0.7, 1.0))
    check_beyond(system, 1.001 * supremum)


@pytest.mark.parametrize("seed", [5, 6])
def test_slopes_of_both_signs(seed: int) -> None:
    system = RateNetwork(random_weights(4, seed, 0.9), slope=(-1.0, 1.0), tau=0.5)
    supremum = 0.5 * best_step(system.matrix("W"), lambda A: 2.0 / (1.0 + float(np.linalg.norm(A, 2))))
    claim = claimed(system)
    assert 0.99 * supremum <= claim.step <= supremum * (1.0 + 1e-6)
    assert all(holds(system, claim, share) for share in (0.01, 0.3, 0.7, 1.0))
    check_beyond(system, 1.001 * supremum)


def test_skew_coupling() -> None:
    """F(A) is the segment from -j to j: the step is 2 - 1 = 1, and beyond it slopes of 1 give abs(1 - h + j h) > 1."""
    system = RateNetwork([[0.0, -1.0], [1.0, 0.0]], "tanh")
    claim = claimed(system)
    assert 0.99 <= claim.step < 1.0
    assert all(holds(system, claim, share) for share in (0.01, 0.3, 0.7, 1.0))
    check_beyond(system, 1.0)


def general_systems() -> dict[str, System]:
    rng = np.random.default_rng(11)
    tau = rng.uniform(0.3, 2.0, 4)
    A, B, C = -np.eye(4) + 0.2 * rng.normal(size=(4, 4)), 0.4 * rng.normal(size=(4, 3)), 0.5 * rng.normal(size=(3, 4))
    return {
        "rate, time constants": RateNetwork(random_weights(4, 12, 0.8), "tanh", tau=tau),
        "hopfield, time constants": HopfieldNetwork(random_weights(4, 13, 1.0), "relu", tau=tau),
        "rate, shifted slopes": RateNetwork(random_weights(4, 14, 0.7), slope=(-0.1, 1.1), tau=0.5),
        "hopfield, shifted slopes, time constants": HopfieldNetwork(
            random_weights(3, 15, 0.7), slope=(0.2, 1.0), tau=tau[:3]
        ),
        "lure": LureSystem(A, B, C, slope=(0.0, 1.0)),
        "lure, slow": LureSystem(0.01 * A, 0.01 * B, C, slope=(0.0, 1.0)),
    }


@pytest.mark.cases(3)
@pytest.mark.parametrize("name", general_systems())
def test_one_metric_serves_all_smaller_steps(name: str) -> None:
    system = general_systems()[name]
    claim = claimed(system)
    assert all(holds(system, claim, share) for share in (1e-3, 0.1, 0.4, 0.8, 1.0))
    form = Lure.of(system.with_step(claim.step / 0.99))
    form = form.transposed if claim.proof.dual else form
    gap = (system.slope.upper - system.slope.lower) ** (2 * claim.proof.dual)
    assert (
        margin(form.seen_from(claim.proof.metric, claim.proof.multipliers * gap), 1.0) < -1e-8
    )  # no larger one exists


@pytest.mark.parametrize(
    "system",
    [
        RateNetwork(random_weights(4, 16, 0.9), "tanh", tau=3.0),
        RateNetwork([[0.0, -1.0], [1.0, 0.0]], "relu"),
        RateNetwork(random_weights(3, 17, 0.8), slope=(-1.0, 1.0)),
        general_systems()["rate, time constants"],
    ],
    ids=["rate", "skew", "norm", "time constants"],
)
def test_certifying_the_map_at_its_largest_step(system: System) -> None:
    result = certes.certify(system, condition="lure", step="max", refute=False)
    assert result.verdict == "contracting"
    assert result.certificate is not None
    assert result.factor is not None
    assert result.claims is not None
    assert result.claims.largest_step is not None
    step = result.certificate.statement.predicate.system.step
    assert step is not None
    assert step == pytest.approx(claimed(system).step, rel=2e-3)
    assert result.claims.largest_step.step >= step
    weights = {"W": system.matrix("W")}
    assert certes.verify(result.certificate, weights, exact=True).valid


@pytest.mark.parametrize("tau", [1.0, [0.5, 1.0, 2.0, 3.0]])
def test_without_a_step_the_answer_is_about_continuous_time(tau: object) -> None:
    system = RateNetwork(random_weights(4, 18, 0.9) + 1.5 * np.eye(4), "tanh", tau=tau)
    result = certes.certify(system, condition="lure", step="max", refute=False)
    assert result.verdict == "undecided"
    assert result.attempts[-1].factor is None
    assert result.attempts[-1].rate is not None
    assert result.attempts[-1].rate < 0.0
