"""Candidates on both sides of the truth: proofs that hold by a hair, or fail by one.

``straddle`` takes a family of candidates over one number (a rate, a weight, a metric's entry, a claim), finds by
bisection in exact arithmetic the two neighbouring floats between which the truth changes, and hands back candidates a
few units in the last place and 1e-16 to 1e-7 to either side of it. Everything follows from one seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from certes.proofs import (
    AbsoluteProof,
    Claims,
    LureProof,
    ProductProof,
    Proof,
    SingularProof,
    StepClaim,
    SymmetricProof,
)
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System

from tests.judges.rational import failures

Generator = np.random.Generator


@dataclass(frozen=True, eq=False)
class Candidate:
    """A question to the verifier; ``family`` says how it was made."""

    family: str
    system: System
    proof: Proof
    claims: Claims

    def failures(self) -> set[str]:
        return failures(self.system, self.proof, self.claims)


Make = Callable[[float], Candidate]


def straddle(make: Make, inside: float, outside: float, rng: Generator) -> Iterator[Candidate]:
    """Candidates around the float where the truth changes between ``inside`` (true) and ``outside`` (false)."""
    if make(inside).failures() or not make(outside).failures():
        return
    true, false = inside, outside
    while (middle := 0.5 * (true + false)) not in (true, false):
        if make(middle).failures():
            false = middle
        else:
            true = middle
    away = math.copysign(math.inf, outside - inside)
    ulp = abs(false - true)
    for count in (-7, -2, 0, 1, 2, 4):
        yield make(true + math.copysign(count * ulp, count * away))
    for side in (-1.0, 1.0) * 3:
        distance = 10.0 ** rng.uniform(-16, -7) * max(abs(true), abs(false))
        yield make(true + side * math.copysign(distance, away))


def nudge(candidate: Candidate, rng: Generator, names: tuple[str, ...]) -> Iterator[Candidate]:
    """The same proof with one entry of one array moved by a few units in the last place."""
    for name in names:
        array = np.array(getattr(candidate.proof, name))
        where = tuple(int(rng.integers(k)) for k in array.shape)
        symmetric = array.ndim == 2 and np.array_equal(array, array.T)
        moved = array[where] * (1.0 + int(rng.integers(-4, 5)) * 2.0**-52)
        array[where] = moved
        if symmetric:
            array[where[::-1]] = moved
        yield replace(candidate, proof=replace(candidate.proof, **{name: array}))


# bases -----------------------------------------------------------------------------------------------------


def _scales(rng: Generator, size: int) -> tuple[np.ndarray, float]:
    """A change of units per state (metric's condition up to 1e12) and one of the whole proof (up to 1e+-100)."""
    units = 10.0 ** rng.uniform(-3, 3, size) if rng.random() < 0.4 else np.ones(size)
    whole = 10.0 ** rng.choice([-100.0, 0.0, 0.0, 100.0])
    return units, float(whole)


def _slopes(rng: Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    kind = rng.integers(4)
    if kind == 0:
        return np.zeros(size), rng.uniform(0.3, 1.0, size)
    if kind == 1:
        return rng.uniform(-0.2, 0.1, size), rng.uniform(0.5, 1.0, size)
    return np.zeros(size), np.full(size, 1.0 if kind == 2 else 0.7)


def recurrent(rng: Generator, strength: float = 0.7) -> tuple[System, LureProof]:
    """A small rate or hopfield network, continuous or a map, with a metric and multipliers near feasible ones."""
    n = int(rng.integers(1, 6))
    rate, continuous = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    W = rng.standard_normal((n, n)) * rng.uniform(0.1, strength) / math.sqrt(n)
    low, high = _slopes(rng, n)
    tau = rng.uniform(0.8, 1.25, n) if rng.random() < 0.4 else np.ones(n)
    step = None if continuous else float(rng.choice([0.25, 0.5, 0.7]))
    a = 1.0 / tau if step is None else step / tau
    units, whole = _scales(rng, n)
    q = rng.uniform(0.8, 1.25, n)
    W = W * units[:, None] / units
    if n > 1 and rng.random() < 0.3:
        W = W.astype(np.float32).astype(np.float64)
    weight = (q / a if rate else q) / units**2 * whole
    mixed = rng.standard_normal((n, n)) * 0.05
    metric = np.diag(weight) + np.sqrt(weight[:, None] * weight) * (mixed + mixed.T)
    multipliers = (q if rate else q / a) / (high - low) / units**2 * whole
    if not rate:  # the dual proof speaks of inverse units
        metric, multipliers = metric * units[:, None] ** 2 * units**2, multipliers * units**4
    metric = np.tril(metric) + np.tril(metric, -1).T
    form = RateNetwork if rate else HopfieldNetwork
    system = form(W, slope=(low, high), step=step, tau=tau)
    return system, LureProof(metric, multipliers, not rate, 0.0, math.inf, 0.0, 0.0)


def general(rng: Generator) -> tuple[System, LureProof]:
    """A Lur'e system with its own numbers of states and nonlinearities; continuous, a map, or an Euler map."""
    n, m = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    low, high = _slopes(rng, m)
    B = rng.standard_normal((n, m)) * 0.3
    C = rng.standard_normal((m, n)) * 0.3
    A = rng.standard_normal((n, n)) * 0.2
    kind = int(rng.integers(3))
    if kind == 0:
        system = LureSystem(A - np.eye(n), B, C, slope=(low, high))
    elif kind == 1:
        system = LureSystem(A + 0.2 * np.eye(n), B, C, slope=(low, high), discrete=True)
    else:
        system = LureSystem(A - np.eye(n), B, C, slope=(low, high), step=0.4)
    mixed = rng.standard_normal((n, n)) * 0.05
    whole = _scales(rng, n)[1]
    metric = (np.eye(n) + mixed + mixed.T) * whole
    return system, LureProof(metric, rng.uniform(0.3, 1.0, m) * whole, bool(rng.integers(2)), 0.0, math.inf, 0.0, 0.0)


def claim(system: System, level: float) -> Claims:
    return Claims(rate=level) if system.continuous else Claims(factor=level)


def feasible(rng: Generator, make: Callable[[Generator], tuple[System, LureProof]]) -> Candidate | None:
    """A Lur'e candidate that is exactly true, at a level well inside."""
    for _ in range(12):
        system, proof = make(rng)
        for level in (0.2, 0.02) if system.continuous else (0.9, 0.99):
            found = Candidate("lure", system, proof, claim(system, level))
            if not found.failures():
                return found
    return None


def _level_ends(candidate: Candidate) -> tuple[float, float]:
    given = candidate.claims.rate if candidate.system.continuous else candidate.claims.factor
    return given, 4.0 if candidate.system.continuous else 1e-3


def with_weight(system: System, role: str, where: tuple[int, int], value: float) -> System:
    """The same system with one weight replaced."""
    arrays = {key: np.array(system.matrix(key)) for key in system.tensors}
    arrays[role][where] = value
    slope = (system.slope.lower, system.slope.upper)
    if system.form == "lure":
        return LureSystem(*(arrays[key] for key in "ABC"), slope=slope, discrete=system.discrete, step=system.step)
    return type(system)(arrays["W"], slope=slope, step=system.step, tau=system.tau)


# families --------------------------------------------------------------------------------------------------


def lure_level(rng: Generator) -> Iterator[Candidate]:
    base = feasible(rng, recurrent if rng.random() < 0.7 else general)
    if base is None:
        return
    inside, outside = _level_ends(base)
    name = f"lure-{base.system.form}-{'continuous' if base.system.continuous else 'map'}-level"

    def make(level: float) -> Candidate:
        return replace(base, family=name, claims=claim(base.system, level))

    found = list(straddle(make, inside, outside, rng))
    yield from found
    for candidate in found[:3]:
        yield from nudge(candidate, rng, ("metric", "multipliers"))


def lure_number(rng: Generator) -> Iterator[Candidate]:
    """One weight, one entry of the metric or one multiplier is driven over the edge."""
    base = feasible(rng, recurrent if rng.random() < 0.7 else general)
    if base is None:
        return
    proof, system = base.proof, base.system
    what = rng.integers(3)
    if what == 0:
        role = str(rng.choice(list(system.tensors)))
        where = tuple(int(rng.integers(k)) for k in system.matrix(role).shape)
        start = float(system.matrix(role)[where])

        def make(value: float) -> Candidate:
            return replace(base, family="lure-weight", system=with_weight(system, role, where, value))

    elif what == 1:
        i, j = (int(k) for k in rng.integers(system.size, size=2))
        start = float(proof.metric[i, j])

        def make(value: float) -> Candidate:
            metric = np.array(proof.metric)
            metric[i, j] = metric[j, i] = value
            return replace(base, family="lure-metric", proof=replace(proof, metric=metric))

    else:
        k = int(rng.integers(len(proof.multipliers)))
        start = float(proof.multipliers[k])

        def make(value: float) -> Candidate:
            multipliers = np.array(proof.multipliers)
            multipliers[k] = value
            return replace(base, family="lure-multiplier", proof=replace(proof, multipliers=multipliers))

    size = max(abs(start), 1e-3)
    for outside in (start + 50.0 * size, start - 50.0 * size, 0.0):
        if make(outside).failures():
            yield from straddle(make, start, outside, rng)
            return


def _slack(base: Candidate, rng: Generator) -> Candidate | None:
    """Slacks for a weight radius, halved until the block allows them."""
    proof = base.proof
    state, entry = float(np.diag(proof.metric).min()), 1.0 / float(proof.multipliers.max())
    for _ in range(12):
        state, entry = state * 0.4, entry * 0.4
        found = replace(base, proof=replace(proof, slack_state=state, slack_input=entry))
        if not found.failures():
            return found
    return None


def radius(rng: Generator) -> Iterator[Candidate]:
    base = feasible(rng, recurrent)
    if base is None or base.system.slope.lower.any() or (base := _slack(base, rng)) is None:
        return
    proof = base.proof
    product = math.sqrt(proof.slack_state) * math.sqrt(proof.slack_input)

    def claimed(value: float) -> Candidate:
        return replace(base, family="radius-claim", claims=replace(base.claims, weight_radius=value))

    def slack(value: float) -> Candidate:
        claims = replace(base.claims, weight_radius=0.9 * product)
        return replace(base, family="radius-slack", claims=claims, proof=replace(proof, slack_state=value))

    yield from straddle(claimed, 0.5 * product, 2.0 * product, rng)
    yield from straddle(slack, proof.slack_state, 1e3 * proof.slack_state, rng)
    yield from straddle(slack, proof.slack_state, 0.0, rng)
    negative = replace(proof, slack_state=-proof.slack_state, slack_input=-proof.slack_input)
    yield replace(claimed(0.5 * product), family="radius-negative", proof=negative)
    yield replace(claimed(0.5 * product), family="radius-wrong-side", proof=replace(proof, dual=not proof.dual))


def bounds(rng: Generator) -> Iterator[Candidate]:
    """Bounds of the metric, and the gain and condition number that rest on them."""
    base = feasible(rng, recurrent if rng.random() < 0.7 else general)
    if base is None:
        return
    eigenvalues = np.linalg.eigvalsh(base.proof.metric)
    low, high = max(0.9 * eigenvalues[0], 0.1 * base.proof.metric.max() * 1e-9), 1.1 * eigenvalues[-1]
    proof = replace(base.proof, metric_lower=float(low), metric_upper=float(high))
    system = base.system
    level = base.claims.rate if system.continuous else 1.0 - base.claims.factor
    entry = np.linalg.norm(system.matrix("B"), 2) if system.form == "lure" else 1.0
    generous = 100.0 * (1.0 + entry) * math.sqrt(high / low) / level
    bits = float(math.ceil(math.log2(high / low)) + 1)
    claims = replace(base.claims, gain=generous, metric_condition_log2=bits)

    def lower(value: float) -> Candidate:
        return Candidate("metric-lower", system, replace(proof, metric_lower=value), claims)

    def upper(value: float) -> Candidate:
        return Candidate("metric-upper", system, replace(proof, metric_upper=value), claims)

    def gained(value: float) -> Candidate:
        return Candidate("gain", system, proof, replace(claims, gain=value))

    def condition(value: float) -> Candidate:
        return Candidate("metric-condition", system, proof, replace(claims, metric_condition_log2=value))

    yield from straddle(lower, proof.metric_lower, 4.0 * float(eigenvalues[-1]), rng)
    yield from straddle(upper, proof.metric_upper, 0.25 * float(eigenvalues[0]), rng)
    yield from straddle(gained, generous, 0.0, rng)
    yield from straddle(condition, bits + 1.0, -1.0, rng)


def margins(rng: Generator) -> Iterator[Candidate]:
    base = feasible(rng, recurrent if rng.random() < 0.7 else general)
    if base is None:
        return

    def make(value: float) -> Candidate:
        return replace(base, family="margin", claims=replace(base.claims, margin=value))

    yield from straddle(make, 0.0, 2.5, rng)


def largest_step(rng: Generator) -> Iterator[Candidate]:
    """A network's own proof, and beside it a proof for its Euler map at the largest step."""
    for _ in range(12):
        system, proof = recurrent(rng)
        if not system.continuous:
            break
    else:
        return
    base = Candidate("largest-step", system.with_step(None), proof, Claims())
    step, part = system.step, Candidate("lure", system, proof, Claims(factor=0.95))
    whole = singular_base(rng, base.system)
    if part.failures() or whole is None:
        return

    def make(factor: float) -> Candidate:
        claims = replace(whole.claims, largest_step=StepClaim(step, factor, proof))
        return Candidate("largest-step", base.system, whole.proof, claims)

    yield from straddle(make, 0.95, 1e-3, rng)


def symmetric(rng: Generator) -> Iterator[Candidate]:
    n = int(rng.integers(1, 6))
    W = rng.standard_normal((n, n))
    W = (W + W.T) * rng.uniform(0.1, 0.3)
    g, tau = float(rng.choice([1.0, 0.7, 0.3])), float(rng.choice([1.0, 1.0, 0.3]))
    form = RateNetwork if rng.random() < 0.5 else HopfieldNetwork
    negative = bool(rng.random() < 0.4)
    if negative:
        W = -(W @ W.T + 0.1 * np.eye(n))
        W = np.tril(W) + np.tril(W, -1).T
        W *= 10.0 ** rng.choice([-100.0, 0.0, 100.0])
    low = rng.choice([0.0, 0.1]) * np.ones(n)
    claims = Claims(rate=1.0 / tau if negative and tau == 1.0 else 1e-3)
    base = Candidate("symmetric", form(W, slope=(low, g), tau=tau), SymmetricProof(negative), claims)

    def level(value: float) -> Candidate:
        return replace(base, family="symmetric-level", claims=replace(claims, rate=value))

    where = int(rng.integers(n))

    def weight(value: float) -> Candidate:
        return replace(base, family="symmetric-weight", system=with_weight(base.system, "W", (where, where), value))

    yield from straddle(level, claims.rate, 8.0 / tau, rng)
    yield from straddle(weight, float(W[where, where]), 20.0 * float(np.abs(W).max()) + 20.0, rng)
    if n > 1:
        broken = np.array(W)
        broken[0, n - 1] *= 1.0 + 2.0**-52
        yield replace(base, family="symmetric-broken", system=form(broken, slope=(low, g), tau=tau))
        wild = np.tril(W) + 40.0 * np.triu(np.ones((n, n)), 1)
        yield replace(base, family="symmetric-broken", system=form(wild, slope=(low, g), tau=tau))


def product(rng: Generator) -> Iterator[Candidate]:
    n = int(rng.integers(1, 5))
    outer, inner = rng.uniform(0.5, 2.0, n), rng.uniform(0.5, 2.0, n)
    core = rng.standard_normal((n, n)) * 0.3
    core = core @ core.T + 0.5 * np.eye(n)
    core = np.tril(core) + np.tril(core, -1).T
    W = -outer[:, None] * core * inner + rng.standard_normal((n, n)) * 0.02
    form = RateNetwork if rng.random() < 0.5 else HopfieldNetwork
    side = inner if form is RateNetwork else outer
    eigenvalues = np.linalg.eigvalsh(side[:, None] * core * side)
    rest = float(np.linalg.norm(W + outer[:, None] * core * inner)) * 1.01 + 1e-3
    low, high = float(0.9 * eigenvalues[0]), float(1.1 * eigenvalues[-1])
    proof = ProductProof(outer, core, inner, rest, low, high)
    base = Candidate("product", form(W, slope=(0.0, 0.7)), proof, Claims(rate=1e-3))
    k = int(rng.integers(n))

    def numbered(name: str) -> Make:
        return lambda value: replace(base, family=f"product-{name}", proof=replace(proof, **{name: value}))

    def rate(value: float) -> Candidate:
        return replace(base, family="product-rate", claims=Claims(rate=value))

    def entry(value: float) -> Candidate:
        changed = np.array(core)
        changed[k, k] = value
        return replace(base, family="product-core", proof=replace(proof, core=changed))

    yield from straddle(rate, 1e-3, 2.0, rng)
    yield from straddle(numbered("residual"), rest, 0.0, rng)
    yield from straddle(numbered("residual"), rest, 1e6, rng)
    yield from straddle(numbered("metric_lower"), low, 2.0 * high, rng)
    yield from straddle(numbered("metric_upper"), high, 0.5 * low, rng)
    yield from straddle(entry, float(core[k, k]), -1.0, rng)
    # +S is as good a factorisation as -S for every obligation but the sign of a factor
    flipped = replace(proof, outer=-outer)
    yield replace(base, family="product-sign", system=form(-W, slope=(0.0, 0.7)), proof=flipped)


def singular_base(rng: Generator, system: System) -> Candidate | None:
    """A ``singular`` proof of a given rate or hopfield network, if one is near."""
    bound = np.maximum(np.abs(system.slope.lower), np.abs(system.slope.upper))
    W = system.matrix("W")
    W = bound[:, None] * W if system.form == "rate" else W * bound
    # undo the units as well as the weights show them
    units = np.ones(system.size)
    for _ in range(30):
        size = np.abs(W) * units / units[:, None] + 1e-300
        np.fill_diagonal(size, 1e-300)
        units = units * np.sqrt(size.sum(axis=1) / size.sum(axis=0)) ** 0.5
    q = units**-2.0
    norm = float(np.linalg.norm(W * units / units[:, None], 2))
    norm = norm * 1.05 + 1e-3
    leak = 1.0 / system.tau if system.step is None else system.step / system.tau
    if norm >= 0.99:
        return None
    if system.continuous:
        claims = Claims(rate=0.9 * (1.0 - norm) * float(leak.min()))
    else:
        claims = Claims(factor=min(0.999, 1.01 * float(np.max(np.abs(1.0 - leak) + leak * norm))))
    found = Candidate("singular", system, SingularProof(q, norm), claims)
    return None if found.failures() else found


def singular(rng: Generator) -> Iterator[Candidate]:
    system, _ = recurrent(rng, 0.5)
    base = singular_base(rng, system)
    if base is None:
        return
    proof = base.proof
    whole = 10.0 ** rng.choice([-100.0, 0.0, 100.0])
    base = replace(base, proof=replace(proof, q=proof.q * whole))
    k = int(rng.integers(system.size))
    where = (k, int(rng.integers(system.size)))

    def norm(value: float) -> Candidate:
        return replace(base, family="singular-norm", proof=replace(base.proof, norm=value))

    def level(value: float) -> Candidate:
        return replace(base, family="singular-level", claims=claim(system, value))

    def weight(value: float) -> Candidate:
        return replace(base, family="singular-weight", system=with_weight(system, "W", where, value))

    def scale(value: float) -> Candidate:
        q = np.array(base.proof.q)
        q[k] = value
        return replace(base, family="singular-q", proof=replace(base.proof, q=q))

    def margin(value: float) -> Candidate:
        return replace(base, family="singular-margin", claims=replace(base.claims, margin=value))

    def gained(value: float) -> Candidate:
        return replace(base, family="singular-gain", claims=replace(base.claims, gain=value))

    yield from straddle(norm, proof.norm, 1e-6, rng)
    yield from straddle(norm, proof.norm, 2.0, rng)
    yield from straddle(level, *_level_ends(base), rng)
    yield from straddle(weight, float(system.matrix("W")[where]), 1e4, rng)
    yield from straddle(scale, float(base.proof.q[k]), 1e12 * float(base.proof.q[k]), rng)
    yield from straddle(margin, 0.0, 2.5, rng)
    yield from straddle(gained, 1e12, 0.0, rng)


def absolute(rng: Generator) -> Iterator[Candidate]:
    n = int(rng.integers(1, 6))
    W = rng.standard_normal((n, n)) * rng.uniform(0.05, 0.35)
    if rng.random() < 0.4:
        W = np.tril(W) + 1e-9 * W
    low, high = _slopes(rng, n)
    tau = rng.uniform(0.5, 2.0, n) if rng.random() < 0.4 else np.ones(n)
    step = None if rng.random() < 0.5 else float(rng.choice([0.25, 0.4, 1.0]))
    units = rng.integers(-300, 300, n) if rng.random() < 0.3 else np.zeros(n, dtype=np.int64)
    W = np.ldexp(W, units[:, None] - units)
    form = RateNetwork if rng.random() < 0.5 else HopfieldNetwork
    given: object = W
    if rng.random() < 0.4:
        import scipy.sparse

        given = scipy.sparse.csr_array(W)
    system = form(given, slope=(low, high), step=step, tau=tau)
    right, right_power = np.frexp(rng.uniform(0.6, 1.4, n))
    left, left_power = np.frexp(rng.uniform(0.6, 1.4, n))
    proof = AbsoluteProof(right, right_power.astype(np.int64) + units, left, left_power.astype(np.int64) - units)
    base = Candidate("absolute", system, proof, claim(system, 1e-4 if step is None else 0.99999))
    k = int(rng.integers(n))

    def level(value: float) -> Candidate:
        return replace(base, family="absolute-level", claims=claim(system, value))

    def mantissa(value: float) -> Candidate:
        changed = np.array(right)
        changed[k] = value
        return replace(base, family="absolute-vector", proof=replace(proof, right=changed))

    def gained(value: float) -> Candidate:
        return replace(base, family="absolute-gain", claims=replace(base.claims, gain=value))

    def bits(value: float) -> Candidate:
        return replace(base, family="absolute-bits", claims=replace(base.claims, metric_condition_log2=value))

    yield from straddle(level, *_level_ends(base), rng)
    yield from straddle(mantissa, float(right[k]), 0.5, rng)
    yield from straddle(mantissa, float(right[k]), 1.0 - 2.0**-53, rng)
    if not units.any():
        yield from straddle(gained, 1e9, 0.0, rng)
    yield from straddle(bits, 3000.0, -1.0, rng)
    negative = np.array(right)
    negative[k] = -negative[k]
    yield replace(base, family="absolute-sign", proof=replace(proof, right=negative))
    yield replace(base, family="absolute-sign", proof=replace(proof, left=-left, right=-right))


def integer_singular(rng: Generator) -> Iterator[Candidate]:
    """A Lur'e system whose block is an exactly singular integer matrix V^T V, and its neighbours."""
    n, m = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    size = n + m
    V = np.zeros((size, size))
    V[:m, n:] = np.diag(2.0 ** rng.integers(0, 2, m))  # orthogonal columns: the block's corner 2 Q is diagonal
    V[:, :n] = rng.integers(-2, 3, (size, n))
    V[m + n - 1, :n] = 0.0
    V[m : m + n - 1, :n][:, 0] = 0.0  # rank n - 1 below: singular
    block = V.T @ V
    q = np.diag(block)[n:] / 2.0
    C = rng.integers(-2, 3, (m, n)).astype(float)
    rate = 0.5
    A = -block[:n, :n] / 2.0 - rate * np.eye(n)
    B = -block[:n, n:] - C.T * q
    whole = 2.0 ** float(rng.choice([-330, 0, 330]))
    proof = LureProof(np.eye(n) * whole, q * whole, bool(rng.integers(2)), 0.0, math.inf, 0.0, 0.0)
    for moved in (0.0, -(2.0**-52), 2.0**-52, -(2.0**-46), -1e-13, 1e-13, -1e-10, -1e-8):
        shifted = A + moved * np.abs(A).max(initial=1.0) * np.eye(n)
        parts = (shifted.T, C.T, B.T) if proof.dual else (shifted, B, C)
        system = LureSystem(*parts, slope=(0.0, 1.0))
        yield Candidate("integer-singular", system, proof, Claims(rate=rate))


def gram_singular(rng: Generator) -> Iterator[Candidate]:
    """W = -V^T V with integers V of one row too few: exactly singular, exact in float64, and no entry has a radius."""
    n = int(rng.integers(2, 6))
    V = rng.integers(-999, 1000, (n - 1, n)).astype(float)
    gram = V.T @ V * 2.0 ** float(rng.choice([-300, 0, 300]))
    form = RateNetwork if rng.random() < 0.5 else HopfieldNetwork
    for moved in (0.0, -(2.0**-53), -(2.0**-51), 2.0**-52, 2.0**-45, 1e-11):
        W = -gram
        W[n - 1, n - 1] *= 1.0 + moved
        yield Candidate("gram-singular", form(W, slope=(0.0, 1.0)), SymmetricProof(True), Claims(rate=0.5))


def extremes(rng: Generator) -> Iterator[Candidate]:
    """Subnormal entries, entries at both ends of the float range, metrics of condition 1e12 and worse."""
    base = feasible(rng, recurrent)
    if base is None:
        return
    system, proof = base.system, base.proof
    n = system.size
    for tiny in (5e-324, 1e-310, 2.3e-308, 1e-300):
        changed = np.array(proof.metric)
        changed[0, n - 1] = changed[n - 1, 0] = tiny
        yield replace(base, family="extreme-metric", proof=replace(proof, metric=changed))
        yield replace(base, family="extreme-weight", system=with_weight(system, "W", (0, n - 1), tiny))
    for factor in (1e-320, 1e-290, 1e-150, 1e150, 1e280, 1e307):
        if math.log10(proof.metric.max()) + math.log10(factor) > 307.5:
            continue
        scaled = replace(proof, metric=proof.metric * factor, multipliers=proof.multipliers * factor)
        yield replace(base, family="extreme-scale", proof=scaled)
    where = (int(rng.integers(n)), int(rng.integers(n)))
    for value in (1e300, -1e300, 1e160, -1e160):
        yield replace(base, family="extreme-weight", system=with_weight(system, "W", where, value))
    if n > 1:
        basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
        metric = basis * np.geomspace(1.0, 10.0 ** rng.uniform(10, 15), n) @ basis.T
        metric = np.tril(metric) + np.tril(metric, -1).T
        calm = RateNetwork(np.zeros((n, n)), slope=(0.0, 0.0))

        def make(value: float) -> Candidate:
            moved = metric - value * np.outer(basis[:, 0], basis[:, 0])
            moved = np.tril(moved) + np.tril(moved, -1).T
            multipliers = np.full(n, 1e40)
            return Candidate(
                "extreme-condition", calm, replace(proof_of(moved), multipliers=multipliers), Claims(rate=0.5)
            )

        yield from straddle(make, -10.0, 1e6, rng)


def proof_of(metric: np.ndarray) -> LureProof:
    return LureProof(metric, np.ones(len(metric)), False, 0.0, math.inf, 0.0, 0.0)


def hopeless(rng: Generator) -> Iterator[Candidate]:
    """One obligation is violated grossly, all others hold: what a dropped obligation would let through."""
    size = float(rng.uniform(0.1, 1.0))
    one, none = np.ones((1, 1)), np.zeros((1, 1))
    quiet = {"slope": (0.0, 1.0)}
    minus = proof_of(-one)
    # P = -1: x' = +x; rho < |1 - a|; c > 1; A = 2
    yield Candidate("P=-1", LureSystem(size * one, none, none, **quiet), minus, Claims(rate=0.5 * size))
    yield Candidate("P=-1", LureSystem(2 * one, none, none, discrete=True, **quiet), minus, Claims(factor=0.5))
    slow = RateNetwork(none, step=0.1, **quiet)
    yield Candidate("P=-1", slow, minus, Claims(factor=0.5))
    yield Candidate("P=-1", RateNetwork(none, **quiet), minus, Claims(rate=1.0 + size))
    grows = LureSystem(size * one, none, none, **quiet)
    yield Candidate("range", grows, proof_of(one), Claims(rate=-1.5 * size))
    jumps = LureSystem((1.0 + size) * one, none, none, discrete=True, **quiet)
    yield Candidate("range", jumps, proof_of(one), Claims(factor=1.5 + size))
    yield Candidate("range", jumps, proof_of(one), Claims(factor=-1.5 - size))
    calm = RateNetwork(none, **quiet)
    yield Candidate("range", calm, proof_of(one), Claims(rate=0.5, factor=0.5))
    # an asymmetric metric, of which a Cholesky reads one triangle; the weights cancel what the coupling reads
    for metric in (np.array([[1.0, 30.0 * size], [0.0, 1.0]]), np.array([[1.0, 0.0], [30.0 * size, 1.0]])):
        for W in (-metric, -metric.T):
            yield Candidate("asymmetric", RateNetwork(W, **quiet), proof_of(metric), Claims(rate=0.4))
    # symmetric, c tau >= 1
    strong = RateNetwork(np.array([[-9.0]]), **quiet)
    yield Candidate("symmetric-rate", strong, SymmetricProof(False), Claims(rate=1.0 + size))
    yield Candidate("symmetric-rate", strong, SymmetricProof(True), Claims(rate=1.0 + size))
    # claims the condition does not carry
    product_proof = ProductProof(np.ones(1), one, np.ones(1), 0.0, 0.5, 2.0)
    negative = RateNetwork(-one, **quiet)
    yield Candidate("supported", negative, product_proof, Claims(rate=0.5, weight_radius=size))
    half = AbsoluteProof(np.full(1, 0.5), np.zeros(1, np.int64), np.full(1, 0.5), np.zeros(1, np.int64))
    yield Candidate("supported", calm, half, Claims(rate=0.5, margin=size))
    # a vector that is not positive turns a sum of its row's terms negative
    zero, swap = np.zeros(2, np.int64), np.array([[0.0, 1.0 + size], [1.0 + size, 0.0]])
    signs = AbsoluteProof(np.array([-0.5, 0.5]), zero, np.full(2, 0.5), zero)
    yield Candidate("absolute-sign", RateNetwork(swap, **quiet), signs, Claims(rate=0.5))
    yield Candidate("supported", calm, half, Claims(rate=0.5, weight_radius=size))
    # the largest step of a network whose own proof is good
    step = StepClaim(2.5, 0.9, proof_of(one))
    yield Candidate("largest-step", calm, SymmetricProof(False), Claims(rate=0.5, largest_step=step))
