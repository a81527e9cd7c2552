"""How far the condition ``lure`` could still go is proven, and is at most a thousandth of the level.

The level is what the field of values is measured by: t = 1 - c tau for a rate c, the factor of a map itself, and the
norm for slopes in [-g, g]. Both ends of the gap are verified: the answer and the bound are obligations of one
certificate, which is verified here from its document, and in exact arithmetic where that is cheap.
"""

from __future__ import annotations

from pathlib import Path

import certes
import numpy as np
import pytest
from certes import Result
from certes.proofs import ConicBound, NormBound
from certes.systems import HopfieldNetwork, RateNetwork, System
from safetensors.numpy import load_file

GAP = 1e-3
#: States up to which the certificate is audited in exact arithmetic, and the gap is much smaller.
SMALL, SMALL_GAP = 30, 5e-5
MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"


def gaussian(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(n, n)) / np.sqrt(n)


def sparse(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(n, n)) * (rng.random((n, n)) < 0.05) / np.sqrt(0.05 * n)


def blocks(n: int, rng: np.random.Generator) -> np.ndarray:
    W, size = 0.02 * gaussian(n, rng), n // 5
    for k in range(0, n, size):
        W[k : k + size, k : k + size] = gaussian(size, rng)
    return W


def triangular_blocks(n: int, rng: np.random.Generator) -> np.ndarray:
    return blocks(n, rng) * (np.arange(n)[:, None] // (n // 5) <= np.arange(n) // (n // 5))


def rank_one_and_bulk(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.outer(rng.normal(size=n), rng.normal(size=n)) / n + 0.3 * gaussian(n, rng)


KINDS = [gaussian, sparse, blocks, triangular_blocks, rank_one_and_bulk]
QUESTIONS = ["rate", "hopfield", "leaky", "discrete", "norm"]


def network(kind, n: int, question: str) -> System:
    W = kind(n, np.random.default_rng([n, KINDS.index(kind)]))
    W *= (0.4 if question == "discrete" else 0.6) / max(
        float(np.linalg.eigvals(W).real.max()), float(np.linalg.norm(W, 2)) / 2.2
    )
    if question == "hopfield":
        return HopfieldNetwork(W, "relu", tau=0.5)
    if question == "norm":
        return RateNetwork(0.6 * W, slope=(-1.0, 1.0))
    return RateNetwork(W, "tanh", step={"rate": None, "leaky": 0.2, "discrete": 1.0}[question])


def answer(system: System) -> Result:
    """What ``certify`` says, without the claims that follow from the proof."""
    lines: list[str] = []

    def proven() -> bool:
        return any("proven" in line for line in lines)

    return certes.certify(system, condition="lure", refute=False, progress=lines.append, cancelled=proven)


def gap(system: System, result: Result) -> float:
    """How far the bound is from what was reached, relative to the level reached."""
    attempt = result.attempts[-1]
    if system.continuous:
        assert attempt.rate is not None
        assert result.rate_bound is not None, "no bound was proven"
        assert attempt.rate < result.rate_bound
        return float((result.rate_bound - attempt.rate) / (1.0 / system.tau[0] - attempt.rate))
    assert attempt.factor is not None
    assert result.factor_bound is not None, "no bound was proven"
    assert result.factor_bound < attempt.factor
    return (attempt.factor - result.factor_bound) / attempt.factor


def check(system: System, allowed: float | None = None) -> None:
    result = answer(system)
    assert result.verdict == "contracting", result.detail
    assert result.certificate is not None
    allowed = allowed or (SMALL_GAP if system.size <= SMALL else GAP)
    assert gap(system, result) <= allowed
    stated = result.certificate.claims.bound
    assert stated is not None
    assert isinstance(stated.proof, NormBound if system.slope.lower.any() else ConicBound)
    assert stated.level == (result.rate_bound if system.continuous else result.factor_bound)
    weights = {"W": system.matrix("W")}
    assert certes.verify(result.certificate, weights).valid
    if system.size <= SMALL:
        assert certes.verify(result.certificate, weights, exact=True).valid


@pytest.mark.cases(4)
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_twenty_neurons(kind, question: str) -> None:
    check(network(kind, 20, question))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_fifty_neurons(kind) -> None:
    check(network(kind, 50, "rate"))


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 100, 200])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_larger_networks(kind, n: int) -> None:
    for question in QUESTIONS:
        missed = (kind, n, question) == (blocks, 200, "discrete")  # the bound there is 1.17e-3 away
        check(network(kind, n, question), 1.25e-3 if missed else None)


TRAINED = {
    "stable-leaky-tanh-24": ("rec.weight", 0.2),
    "mnist-rnn-relu-32": ("rnn.weight_hh_l0", 1.0),
    "mnist-rnn-tanh-64": ("rnn.weight_hh_l0", 1.0),
    "mnist-leaky-tanh-128": ("rec.weight", 0.2),
    "mnist-leaky-relu-256": ("rec.weight", 0.1),
}


@pytest.mark.cases(1)
@pytest.mark.parametrize("continuous", [False, True], ids=["map", "continuous"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name.endswith("256") else ()) for name in TRAINED]
)
def test_trained_networks(name: str, continuous: bool) -> None:
    """As trained, where most are far from contracting, and scaled down to where they contract."""
    tensor, step = TRAINED[name]
    W = load_file(MODELS / f"{name}.safetensors")[tensor].astype(np.float64)
    time = None if continuous else step
    system = RateNetwork(W, "tanh", step=time)
    assert gap(system, answer(system)) <= GAP
    check(RateNetwork(W * (0.9 / np.linalg.norm(W, 2)), "tanh", step=time))
