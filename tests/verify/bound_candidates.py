"""Bounds on both sides of the truth, on top of proofs that hold: how far ``lure`` reaches, true or false by a hair.

The columns need no solver: a conic or norm bound from an eigenvector of the weights, which shows that no multipliers
bring the field of values inside the eigenvalue; a bound of the general kind from the slopes D = diag(gamma) G, at which
the Jacobian alone is no faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from certes.proofs import AbsoluteProof, BoundProof, Claims, ConicBound, LevelBound, LureBound, NormBound, SingularProof
from certes.systems import HopfieldNetwork, RateNetwork, System
from certes.verify.reduction import midpoint

from tests.verify.near_boundary import (
    Candidate,
    Generator,
    feasible,
    general,
    nudge,
    proof_of,
    recurrent,
    straddle,
    with_weight,
)

Array = np.ndarray[Any, Any]


def bounded(base: Candidate, family: str, value: float, proof: BoundProof) -> Candidate:
    return replace(base, family=family, claims=replace(base.claims, bound=LevelBound(value, proof)))


def _uniform(rng: Generator) -> Candidate | None:
    """A true Lur'e proof of a network with one time constant and slopes from 0."""
    for _ in range(20):
        found = feasible(rng, recurrent)
        if found is not None and found.system.uniform_tau and not found.system.slope.lower.any():
            return found
    return None


def _turned(system: System) -> Array:
    W = system.matrix("W")
    return system.slope.upper[:, None] * (W.T if system.form == "hopfield" else W)


def _leak(system: System) -> float:
    return (1.0 if system.step is None else system.step) / float(system.tau[0])


def _conic(rng: Generator, system: System) -> tuple[ConicBound, float, float] | None:
    """Columns of an eigenvector, the level at which they stop being a bound, and a level at which they are one."""
    values, vectors = np.linalg.eig(_turned(system))
    k = int(np.argmax(np.abs(values) + values.real))
    value, y, a = complex(values[k]), vectors[:, k], _leak(system)
    modulus, e = abs(value), 1.0 - a
    if modulus + value.real <= 1e-3:
        return None
    u = np.conj(value) / modulus * (1 - 2.0**-50)
    count = int(rng.integers(1, 3))  # the same column twice, turned
    y = np.column_stack([y * np.exp(1j * turn) * rng.uniform(0.5, 2.0) for turn in range(count)])
    points = np.full(count, u)
    if system.continuous:
        edge, safe = a * (1 - 0.5 * (modulus + value.real)), a * (1 - 0.45 * (modulus + value.real))
    else:
        root = math.sqrt(max(a * a * modulus**2 + 4 * e * e + 4 * a * e * value.real, 0.0))
        edge = 0.5 * (a * modulus + root)
        safe = 0.9 * edge + 0.1 * abs(e)
    proof = ConicBound(points.real.copy(), points.imag.copy(), y.real.copy(), y.imag.copy())
    return proof, edge, safe


def conic(rng: Generator) -> Iterator[Candidate]:
    base = _uniform(rng)
    found = None if base is None else _conic(rng, base.system)
    if base is None or found is None:
        return
    proof, edge, safe = found
    beyond = edge + (edge - safe)
    system, name = base.system, f"bound-conic-{base.system.form}-{'continuous' if base.system.continuous else 'map'}"
    some = list(straddle(lambda value: bounded(base, name, value, proof), safe, beyond, rng))
    yield from some
    for candidate in some[:3]:
        bound = candidate.claims.bound
        assert bound is not None
        bare = replace(candidate, proof=bound.proof)  # moves entries of the bound, not of the proof
        for moved in nudge(bare, rng, ("cosine", "sine", "real", "imaginary")):
            yield bounded(base, name, bound.level, moved.proof)

    def radius(factor: float) -> Candidate:
        wider = replace(proof, cosine=factor * proof.cosine, sine=factor * proof.sine)
        return bounded(base, "bound-points", safe, wider)

    yield from straddle(radius, 1.0, 1.5, rng)
    where = tuple(int(k) for k in rng.integers(system.size, size=2))
    weight = float(system.matrix("W")[where])

    def with_one(value: float) -> Candidate:
        changed = replace(base, system=with_weight(system, "W", where, value))
        return bounded(changed, "bound-weight", safe, proof)

    yield from straddle(with_one, weight, weight + float(rng.choice([-3.0, 3.0])), rng)


def norm(rng: Generator) -> Iterator[Candidate]:
    """Slopes [-g, g], on top of a singular proof with Q = I."""
    n = int(rng.integers(1, 5))
    slope, tau = rng.uniform(0.5, 1.0, n), np.full(n, rng.uniform(0.8, 1.25))
    W = rng.standard_normal((n, n)) * rng.uniform(0.1, 0.4) / math.sqrt(n)
    step = None if rng.random() < 0.5 else float(rng.choice([0.25, 0.5, 0.7]))
    form = RateNetwork if rng.random() < 0.5 else HopfieldNetwork
    system = form(W, slope=(-slope, slope), step=step, tau=tau)
    M, a = _turned(system), _leak(system)
    size = 1.01 * float(np.linalg.norm(M, 2)) + 1e-3
    claims = Claims(rate=0.99 * a * (1 - size)) if step is None else Claims(factor=abs(1 - a) + a * size * 1.01)
    base = Candidate("bound-norm", system, SingularProof(np.ones(n), size), claims)
    values, vectors = np.linalg.eig(M)
    k = int(np.argmax(np.abs(values)))
    modulus = abs(complex(values[k]))
    if base.failures() or modulus < 1e-3:
        return
    proof = NormBound(np.column_stack([vectors[:, k].real, vectors[:, k].imag]))
    edge = a * (1 - modulus) if step is None else abs(1 - a) + a * modulus
    safe = edge + (0.1 if step is None else -0.1) * a * modulus
    some = list(straddle(lambda value: bounded(base, "bound-norm", value, proof), safe, 2 * edge - safe, rng))
    yield from some
    for candidate in some[:3]:
        bound = candidate.claims.bound
        assert bound is not None
        for moved in nudge(replace(candidate, proof=bound.proof), rng, ("columns",)):
            yield bounded(base, "bound-norm", bound.level, moved.proof)


def lure(rng: Generator) -> Iterator[Candidate]:
    """Any system. At slopes gamma G the Jacobian J has S = (J + c) X X^T + (.)^T, and the channels gamma - gamma^2."""
    base = feasible(rng, recurrent if rng.random() < 0.5 else general)
    if base is None:
        return
    A, B, C, gap = midpoint(base.system)
    dual = bool(rng.random() < 0.5)
    if dual:
        A, B, C = A.T, C.T, B.T
    n, gamma = base.system.size, rng.uniform(0.2, 0.9, len(gap))
    X = np.eye(n) + 0.2 * rng.standard_normal((n, n))

    def columns(gamma: Array) -> LureBound:
        return LureBound(np.vstack([X, (gamma * gap)[:, None] * (C @ X)]), dual)

    J = A + (B * (gamma * gap)) @ C
    H = np.linalg.solve(X, J @ X)
    if base.system.continuous:
        edge = -0.5 * float(np.linalg.eigvalsh(H + H.T)[0])
        safe, beyond = edge + 1.0, edge - 1.0
    else:
        edge = float(np.linalg.svd(H)[1][-1])
        safe, beyond = 0.9 * edge, 1.1 * edge
    if edge < 1e-6:
        return
    proof = columns(gamma)
    some = list(straddle(lambda value: bounded(base, "bound-states", value, proof), safe, beyond, rng))
    yield from some
    for candidate in some[:3]:
        bound = candidate.claims.bound
        assert bound is not None
        for moved in nudge(replace(candidate, proof=bound.proof), rng, ("columns",)):
            yield bounded(base, "bound-states", bound.level, moved.proof)
    far = edge + 10.0 if base.system.continuous else 0.5 * edge
    one = np.zeros(len(gap))
    one[int(rng.integers(len(gap)))] = 1.0
    yield from straddle(
        lambda top: bounded(base, "bound-channels", far, columns(gamma + one * (top - gamma))), 0.5, 1.5, rng
    )


def misplaced(rng: Generator) -> Iterator[Candidate]:
    """True bounds that contradict the proof they stand beside, or stand beside a proof that carries none."""
    size = float(rng.uniform(0.1, 0.4))
    calm, half = RateNetwork(np.zeros((1, 1)), slope=(0.0, 1.0)), np.full(1, 0.5)
    one = np.ones((1, 1))
    bound = LevelBound(1.0 + size, ConicBound(np.ones(1), np.zeros(1), one, 0 * one))
    absolute = AbsoluteProof(half, np.zeros(1, np.int64), half, np.zeros(1, np.int64))
    yield Candidate("bound-unsupported", calm, absolute, Claims(rate=0.5, bound=bound))
    empty = LevelBound(0.75, ConicBound(np.ones(1), np.zeros(1), 0 * one, 0 * one))
    yield Candidate("bound-zero", calm, proof_of(one), Claims(rate=0.5, bound=empty))
    for value in (0.5, 0.25):
        yield Candidate("bound-behind", calm, proof_of(one), Claims(rate=0.5, bound=replace(bound, level=value)))
