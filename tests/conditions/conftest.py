"""Judges of the conditions that share no code with them: Jacobians written out from the definitions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from certes.conditions import Condition, Decision, Goal
from certes.conditions.base import Candidate
from certes.systems import SparseMatrix, System
from certes.verify import verify_contraction
from hypothesis import strategies as st
from numpy.typing import NDArray

Array = NDArray[np.float64]


def dense(system: System) -> Array:
    weights = system.tensors["W"].value
    if not isinstance(weights, SparseMatrix):
        return weights
    full = np.zeros(weights.shape)
    for i in range(weights.shape[0]):
        for k in range(weights.indptr[i], weights.indptr[i + 1]):
            full[i, weights.indices[k]] = weights.data[k]
    return full


def jacobian(system: System, slopes: Array) -> Array:
    """The Jacobian of a rate or hopfield network, of x' or of the map, for one slope pattern."""
    weights, size = dense(system), system.size
    inner = np.diag(slopes) @ weights if system.form == "rate" else weights @ np.diag(slopes)
    flow = np.diag(1.0 / system.tau) @ (inner - np.eye(size))
    return flow if system.step is None else np.eye(size) + system.step * flow


def patterns(system: System, seed: int = 0, samples: int = 40) -> Iterator[Array]:
    """Every vertex of the slope box for up to six neurons, else sampled vertices; and some points inside."""
    lower, upper = system.slope.lower, system.slope.upper
    rng = np.random.default_rng(seed)
    if system.size <= 6:
        for bits in itertools.product((0, 1), repeat=system.size):
            yield np.where(np.array(bits) == 1, upper, lower)
    else:
        for _ in range(samples):
            yield np.where(rng.random(system.size) < 0.5, upper, lower)
    for _ in range(5):
        yield lower + (upper - lower) * rng.random(system.size)


def excess(system: System, metric: Array, number: float) -> float:
    """How much the claim is violated in this metric over the patterns: the rate or factor reached, minus the claim.

    At most 0 (up to rounding) if the claim holds. The metric enters through its Cholesky factor, so that the numbers
    are those of a norm, whatever its condition.
    """
    root = np.linalg.cholesky(metric).T
    worst = -np.inf
    for slopes in patterns(system):
        seen = root @ jacobian(system, slopes) @ np.linalg.inv(root)
        if system.step is None:
            worst = max(worst, float(np.linalg.eigvalsh((seen + seen.T) / 2)[-1]) + number)
        else:
            worst = max(worst, float(np.linalg.norm(seen, 2)) - number)
    return worst


def number(candidate: Candidate) -> float:
    claims = candidate.claims
    return claims.rate if claims.rate is not None else float(claims.factor or 0.0)


def verified(system: System, decision: Decision, depth: int = 10) -> Candidate | None:
    """The first candidate that the verifier accepts."""
    if not isinstance(decision, tuple):
        return None
    for candidate in decision[:depth]:
        if verify_contraction(system, candidate.proof, candidate.claims).valid:
            return candidate
    return None


def best(condition: Condition, system: System) -> float | None:
    """The best verified rate or factor."""
    found = verified(system, condition.decide(system, Goal()))
    return None if found is None else number(found)


class Judge:
    """The functions of this file, so that tests need not import it."""

    jacobian = staticmethod(jacobian)
    patterns = staticmethod(patterns)
    excess = staticmethod(excess)
    number = staticmethod(number)
    verified = staticmethod(verified)
    best = staticmethod(best)
    dense = staticmethod(dense)


@pytest.fixture(scope="session")
def judge() -> type[Judge]:
    return Judge


SLOPES = [(0.0, 1.0), (0.0, 0.25), (0.01, 1.0), (-0.13, 1.13), (-1.0, 1.0)]


@pytest.fixture(scope="session")
def any_network() -> Callable[..., st.SearchStrategy[System]]:
    """A strategy for small random networks: form, slopes, tau, step."""
    from certes.systems import HopfieldNetwork, RateNetwork

    @st.composite
    def networks(draw: st.DrawFn, size: int = 5, uniform: bool = False, continuous: bool | None = None) -> System:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        n = draw(st.integers(1, size))
        weights = rng.standard_normal((n, n)) * draw(st.sampled_from([0.1, 0.3, 1.0])) / np.sqrt(n)
        weights[rng.random((n, n)) < draw(st.sampled_from([0.0, 0.5, 0.8]))] = 0.0
        form = draw(st.sampled_from([RateNetwork, HopfieldNetwork]))
        if uniform or draw(st.booleans()):
            tau, slope = draw(st.sampled_from([1.0, 0.3])), draw(st.sampled_from(SLOPES))
        else:
            tau = rng.uniform(0.5, 3.0, n)
            low = rng.uniform(-0.5, 0.2, n)
            slope = (low, low + rng.uniform(0.0, 1.0, n))
        stepped = draw(st.booleans()) if continuous is None else not continuous
        step = draw(st.sampled_from([0.2, 1.0 * float(np.min(tau))])) if stepped else None
        return form(weights, slope=slope, tau=tau, step=step)

    return networks
