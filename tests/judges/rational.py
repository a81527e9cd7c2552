"""A brute judge in rational arithmetic: which obligations of a proof are false?

Written from the mathematics, not from the verifier: no blocks where a Schur complement will do, no interval, no shift
of the origin of a matrix product, plain Gaussian elimination on lists of rationals. For n up to about 5.

``failures`` lists every obligation that does not hold, so that a candidate is known to violate one thing only.
``contracts`` asks the question behind the proofs: does every vertex Jacobian contract in a given metric?
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
from certes.proofs import (
    AbsoluteProof,
    Claims,
    InstabilityWitness,
    LureProof,
    ProductProof,
    Proof,
    SingularProof,
    SymmetricProof,
)
from certes.systems import SparseMatrix, System
from flint import arb, ctx, fmpq, fmpq_mat

Q = fmpq
Rows = list[list[fmpq]]


def exact(value: float) -> fmpq:
    return fmpq(*float(value).as_integer_ratio())


def rows(array: np.ndarray) -> Rows:
    return [[exact(x) for x in line] for line in np.atleast_2d(array)]


def times(left: Rows, right: Rows) -> Rows:
    product: Rows = (fmpq_mat(left) * fmpq_mat(right)).tolist()
    return product


def flip(given: Rows) -> Rows:
    return [list(line) for line in zip(*given, strict=True)]


def combine(*terms: tuple[fmpq | int, Rows]) -> Rows:
    """A linear combination of matrices."""
    total = terms[0][0] * fmpq_mat(terms[0][1])
    for factor, matrix in terms[1:]:
        total += factor * fmpq_mat(matrix)
    rows: Rows = total.tolist()
    return rows


def diag(entries: list[fmpq]) -> Rows:
    return [[entry if i == j else Q(0) for j in range(len(entries))] for i, entry in enumerate(entries)]


def definite(given: Rows) -> bool:
    """Positive definite: every leading minor positive, by elimination without fractions (Bareiss, 1968)."""
    work = fmpq_mat(given).numer_denom()[0].tolist()  # times a common denominator, which is positive
    before = 1
    for k in range(len(work)):
        pivot, rest = work[k][k], work[k][k + 1 :]
        if not pivot > 0:
            return False
        for line in work[k + 1 :]:
            first = line[k]
            line[k + 1 :] = [(pivot * x - first * y) // before for x, y in zip(line[k + 1 :], rest, strict=True)]
        before = pivot
    return True


def semidefinite(given: Rows) -> bool:
    """Positive semidefinite, by elimination: a zero pivot must come with a zero row."""
    work = [list(line) for line in given]
    for k in range(len(work)):
        if work[k][k] < 0 or (work[k][k] == 0 and any(entry != 0 for entry in work[k][k + 1 :])):
            return False
        if work[k][k] == 0:
            continue
        for i in range(k + 1, len(work)):
            factor = work[i][k] / work[k][k]
            for j in range(k + 1, len(work)):
                work[i][j] -= factor * work[k][j]
    return True


# the network --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=16)  # one system is asked about again and again, with other claims
def dense(system: System, role: str = "W") -> Rows:
    value = system.tensors[role].value
    if isinstance(value, SparseMatrix):
        full = np.zeros(value.shape)
        for i in range(value.shape[0]):
            for k in range(value.indptr[i], value.indptr[i + 1]):
                full[i, value.indices[k]] = value.data[k]
        value = full
    return rows(value)


def leak(system: System) -> list[fmpq]:
    return [exact(1.0 if system.step is None else system.step) / exact(tau) for tau in system.tau]


def jacobian(system: System, slopes: list[fmpq]) -> Rows:
    """d x' / d x (or d x+ / d x) at these slopes, straight from the definition of the form."""
    n = system.size
    one = diag([Q(1)] * n)
    if system.form == "lure":
        A, B, C = (dense(system, role) for role in "ABC")
        J = combine((1, A), (1, times(B, times(diag(slopes), C))))
        return J if system.step is None else combine((1, one), (exact(system.step), J))
    W = dense(system)
    inner = times(diag(slopes), W) if system.form == "rate" else times(W, diag(slopes))
    drift = times(diag(leak(system)), combine((1, inner), (-1, one)))
    return drift if system.step is None else combine((1, one), (1, drift))


def vertices(system: System) -> list[list[fmpq]]:
    ends = [sorted({exact(a), exact(b)}) for a, b in zip(system.slope.lower, system.slope.upper, strict=True)]
    return [list(choice) for choice in itertools.product(*ends)]


def contracts(system: System, metric: Rows, claims: Claims, inverse: bool = False) -> bool:
    """-(P J + J^T P + 2 c P) >= 0 (map: rho^2 P - J^T P J >= 0) at every vertex J; ``inverse``: P^-1 is the metric."""
    if not definite(metric):
        return False
    for slopes in vertices(system):
        J = jacobian(system, slopes)
        J = flip(J) if inverse else J
        if claims.factor is not None:
            rho = exact(claims.factor)
            left = combine((rho * rho, metric), (-1, times(flip(J), times(metric, J))))
        else:
            PJ = times(metric, J)
            left = combine((-1, PJ), (-1, flip(PJ)), (-2 * exact(claims.rate), metric))
        if not semidefinite(left):
            return False
    return True


def metric_of(system: System, proof: Proof) -> tuple[Rows, bool] | None:
    """The metric a proof speaks of, and whether its inverse is the metric of the system; None: irrational."""
    if isinstance(proof, LureProof):
        return rows(proof.metric), proof.dual
    if isinstance(proof, SingularProof):
        a = leak(system)
        return diag([exact(q) / k for q, k in zip(proof.q, a, strict=True)]), False
    if isinstance(proof, ProductProof):
        side = diag([exact(x) for x in (proof.inner if system.form == "rate" else proof.outer)])
        return times(side, times(rows(proof.core), side)), system.form == "hopfield"
    if isinstance(proof, AbsoluteProof):
        r, l = absolute_vectors(proof)
        scale = [exact(tau) if system.continuous else Q(1) for tau in system.tau]
        return diag([b / a * t for a, b, t in zip(r, l, scale, strict=True)]), False
    if isinstance(proof, SymmetricProof) and proof.negative:
        return combine((-1, dense(system))), system.form == "hopfield"
    return None


# the obligations ----------------------------------------------------------------------------------


def absolute_vectors(proof: AbsoluteProof) -> tuple[list[fmpq], list[fmpq]]:
    def build(mantissa: np.ndarray, exponent: np.ndarray) -> list[fmpq]:
        return [exact(m) * Q(2) ** int(e) for m, e in zip(mantissa, exponent, strict=True)]

    return build(proof.right, proof.right_exponent), build(proof.left, proof.left_exponent)


def extreme_jacobian(system: System) -> Rows:
    """Entry by entry the largest |J_ij| over the slopes; on the diagonal, in continuous time, the largest J_ii."""
    n = system.size
    result = diag([Q(0)] * n)
    low, high = ([exact(x) for x in side] for side in (system.slope.lower, system.slope.upper))
    corners = [jacobian(system, low), jacobian(system, high)]  # each entry of J depends on one slope only
    for i in range(n):
        for j in range(n):
            ends = [corner[i][j] for corner in corners]
            result[i][j] = max(ends) if i == j and system.continuous else max(abs(end) for end in ends)
    return result


def failures(system: System, proof: Proof, claims: Claims) -> set[str]:
    """Names of all obligations that are false."""
    try:
        failed = _range(system, claims) | _KINDS[type(proof)](system, proof, claims)
    except (ValueError, OverflowError):  # NaN or infinity among the numbers
        return {"not-finite"}
    if failed & {"range", "shapes"}:
        return failed
    return failed | _claims(system, proof, claims)


def _range(system: System, claims: Claims) -> set[str]:
    given, other = (claims.rate, claims.factor) if system.continuous else (claims.factor, claims.rate)
    limit = math.inf if system.continuous else 1.0
    return set() if other is None and given is not None and 0 < given < limit else {"range"}


def level(claims: Claims) -> fmpq:
    return exact(claims.rate if claims.rate is not None else claims.factor)


def _absolute(system: System, proof: AbsoluteProof, claims: Claims) -> set[str]:
    r, l = absolute_vectors(proof)
    if len(r) != system.size or not all(x > 0 for x in (*r, *l)):
        return {"shapes"}
    if _range(system, claims):
        return set()
    N, n = extreme_jacobian(system), range(system.size)
    weight = l if not system.continuous else [x * exact(tau) for x, tau in zip(l, system.tau, strict=True)]
    right = [sum((N[i][j] * r[j] for j in n), start=Q(0)) / r[i] for i in n]
    left = [sum((N[i][j] * weight[i] for i in n), start=Q(0)) / weight[j] for j in n]
    if system.continuous:
        return set() if all(a + b + 2 * level(claims) <= 0 for a, b in zip(right, left, strict=True)) else {"rate"}
    return set() if max(right) * max(left) <= level(claims) ** 2 else {"rate"}


def _symmetric(system: System, proof: SymmetricProof, claims: Claims) -> set[str]:
    failed = _hypotheses(system)
    W = dense(system)
    if flip(W) != W:
        failed.add("symmetric-weights")
    if _range(system, claims):
        return failed
    scaled = level(claims) * exact(system.tau[0])
    block = symmetric_block(system, proof, claims)
    if not above(block, claims.margin):
        failed.add("definite")
    if not (scaled <= 1 if proof.negative else scaled < 1):
        failed.add("symmetric-rate")
    return failed


def symmetric_block(system: System, proof: SymmetricProof, claims: Claims) -> Rows:
    W = dense(system)
    if proof.negative:
        return combine((-1, W))
    room = 1 - level(claims) * exact(system.tau[0])
    return combine((room, diag([Q(1)] * system.size)), (-exact(max(system.slope.upper)), W))


def _hypotheses(system: System) -> set[str]:
    held = system.continuous and len({*system.tau}) == 1 and min(system.slope.lower) >= 0
    return set() if held else {"hypotheses"}


def _product(system: System, proof: ProductProof, claims: Claims) -> set[str]:
    failed = _hypotheses(system)
    S = rows(proof.core)
    if flip(S) != S or not all(x > 0 for x in (*proof.outer, *proof.inner)) or not above(S, claims.margin):
        failed.add("factors")
    outer, inner = (diag([exact(x) for x in side]) for side in (proof.outer, proof.inner))
    E = combine((1, dense(system)), (1, times(outer, times(S, inner))))
    if not semidefinite(combine((exact(proof.residual) ** 2, diag([Q(1)] * system.size)), (-1, times(flip(E), E)))):
        failed.add("residual")
    failed |= _bounded(metric_of(system, proof)[0], proof)
    if _range(system, claims):
        return failed
    spare = 1 - level(claims) * exact(system.tau[0])
    lost = exact(max(system.slope.upper)) * exact(proof.residual)
    if not (spare >= 0 and spare**2 * exact(proof.metric_lower) >= lost**2 * exact(proof.metric_upper)):
        failed.add("product-rate")
    return failed


def _bounded(metric: Rows, proof: LureProof | ProductProof) -> set[str]:
    low, high = proof.metric_lower, proof.metric_upper
    one = diag([Q(1)] * len(metric))
    held = 0 < low < high < math.inf and definite(combine((1, metric), (-exact(low), one)))
    held = held and definite(combine((exact(high), one), (-1, metric)))
    return set() if held else {"metric-bounds"}


def _singular(system: System, proof: SingularProof, claims: Claims) -> set[str]:
    if not all(q > 0 for q in proof.q) or not proof.norm > 0:
        return {"norm"}
    failed = set()
    K, q = scaled_weights(system), diag([exact(x) for x in proof.q])
    if claims.margin:
        held = above(singular_block(system, proof), claims.margin)
    else:
        held = definite(combine((exact(proof.norm) ** 2, q), (-1, times(flip(K), times(q, K)))))
    if not held:
        failed.add("norm")
    if _range(system, claims):
        return failed
    s = exact(proof.norm)
    if system.continuous:
        held = all(level(claims) * exact(tau) <= 1 - s for tau in system.tau)
    else:
        held = all(level(claims) >= abs(1 - a) + a * s for a in leak(system))
    return failed if held else failed | {"singular-rate"}


def scaled_weights(system: System) -> Rows:
    pairs = zip(system.slope.lower, system.slope.upper, strict=True)
    bound = diag([max(abs(exact(a)), abs(exact(b))) for a, b in pairs])
    W = dense(system)
    return times(bound, W) if system.form == "rate" else times(W, bound)


def singular_block(system: System, proof: SingularProof) -> Rows:
    q = diag([exact(x) for x in proof.q])
    corner, side = combine((exact(proof.norm), q)), times(q, scaled_weights(system))
    return stack([[corner, flip(side)], [side, corner]])


def stack(blocks: list[list[Rows]]) -> Rows:
    return [[x for part in line for x in part[k]] for line in blocks for k in range(len(line[0]))]


def lure_parts(system: System, proof: LureProof) -> tuple[Rows, Rows, Rows, list[fmpq], list[fmpq]]:
    """A, B, C after the shift and transposition, G Q, and what each state's slack is multiplied with."""
    low, high = ([exact(x) for x in side] for side in (system.slope.lower, system.slope.upper))
    A = jacobian(system, low)  # the shift: the Jacobian at the lower slopes
    n, m = system.size, len(low)
    if system.form == "lure":
        h = exact(1.0 if system.step is None else system.step)
        B, C = combine((h, dense(system, "B"))), dense(system, "C")
    elif system.form == "rate":
        B, C = diag(leak(system)), dense(system)
    else:
        B, C = times(diag(leak(system)), dense(system)), diag([Q(1)] * n)
    where = [Q(1)] * n
    if proof.dual:
        A, B, C = flip(A), flip(C), flip(B)
        where = leak(system) if system.form != "lure" else where
    GQ = [(b - a) * exact(q) for a, b, q in zip(low, high, proof.multipliers, strict=True)]
    assert len(GQ) == m
    return A, B, C, GQ, where


def lure_block(system: System, proof: LureProof, claims: Claims) -> Rows:
    A, B, C, GQ, where = lure_parts(system, proof)
    P, v = rows(proof.metric), level(claims)
    taken = diag([exact(proof.slack_state) * s * s for s in where])
    corner = diag([2 * exact(q) - exact(proof.slack_input) * g * g for q, g in zip(proof.multipliers, GQ, strict=True)])
    PA, PB, CG = times(P, A), times(P, B), times(flip(C), diag(GQ))
    if system.continuous:
        side = combine((-1, PB), (-1, CG))
        return stack([[combine((-1, PA), (-1, flip(PA)), (-2 * v, P), (-1, taken)), side], [flip(side), corner]])
    kept = combine((v * v, P), (-1, taken))
    side = combine((-1, CG))
    return stack([[kept, side, flip(PA)], [flip(side), corner, flip(PB)], [PA, PB, P]])


def _lure_definite(system: System, proof: LureProof, claims: Claims) -> bool:
    """The block by Schur complements: first the metric (map), then the multipliers, then what is left of the state."""
    A, B, C, GQ, where = lure_parts(system, proof)
    P, v = rows(proof.metric), level(claims)
    taken = diag([exact(proof.slack_state) * s * s for s in where])
    corner = diag([2 * exact(q) - exact(proof.slack_input) * g * g for q, g in zip(proof.multipliers, GQ, strict=True)])
    PA, PB, CG = times(P, A), times(P, B), times(flip(C), diag(GQ))
    if system.continuous:
        first = combine((-1, PA), (-1, flip(PA)), (-2 * v, P), (-1, taken))
        side = combine((1, PB), (1, CG))
        if not all(corner[k][k] > 0 for k in range(len(GQ))):
            return False
        scaled = [[x / corner[k][k] for k, x in enumerate(line)] for line in side]
        return definite(combine((1, first), (-1, times(scaled, flip(side)))))
    if not definite(P):
        return False
    first = combine((v * v, P), (-1, taken), (-1, times(flip(A), PA)))
    side = combine((1, times(flip(A), PB)), (1, CG))
    corner = combine((1, corner), (-1, times(flip(B), PB)))
    return definite(stack([[first, combine((-1, side))], [flip(combine((-1, side))), corner]]))


def _lure(system: System, proof: LureProof, claims: Claims) -> set[str]:
    P, n = rows(proof.metric), system.size
    if proof.metric.shape != (n, n) or proof.multipliers.shape != system.slope.lower.shape or flip(P) != P:
        return {"shapes"}
    failed = set() if definite(P) else {"metric-positive"}
    slacks = proof.slack_state >= 0 and proof.slack_input >= 0
    if not slacks:
        failed.add("slacks")
    if claims.gain is not None or claims.metric_condition_log2 is not None:
        failed |= _bounded(P, proof)
    if claims.weight_radius is not None:
        right_form = (system.form, proof.dual) in {("rate", False), ("hopfield", True)}
        small = exact(claims.weight_radius) ** 2 <= exact(proof.slack_state) * exact(proof.slack_input)
        if not (right_form and small and claims.weight_radius >= 0 and not any(system.slope.lower)):
            failed.add("weight-radius")
    if _range(system, claims):
        return failed
    if claims.margin:
        held = above(lure_block(system, proof, claims), claims.margin)
    else:
        held = _lure_definite(system, proof, claims)
    return failed if held else failed | {"block-positive"}


_KINDS = {
    AbsoluteProof: _absolute,
    SymmetricProof: _symmetric,
    ProductProof: _product,
    SingularProof: _singular,
    LureProof: _lure,
}


def condition_number(system: System, proof: Proof) -> fmpq | None:
    """The bound of the metric's condition number that a proof carries."""
    if isinstance(proof, LureProof | ProductProof):
        return exact(proof.metric_upper) / exact(proof.metric_lower) if proof.metric_lower > 0 else None
    if isinstance(proof, SingularProof | AbsoluteProof):
        entries = [line[k] for k, line in enumerate(metric_of(system, proof)[0])]
        return max(entries) / min(entries)
    return None


def _claims(system: System, proof: Proof, claims: Claims) -> set[str]:
    failed = set()
    condition = condition_number(system, proof)
    bits = claims.metric_condition_log2
    if bits is not None and (condition is None or bits < 0 or not _bits_at_most(condition, exact(bits))):
        failed.add("metric-condition")
    if claims.gain is not None:
        decay = exact(claims.rate) if claims.rate is not None else 1 - exact(claims.factor)
        room = None if condition is None else (exact(claims.gain) * decay) ** 2 / condition
        if room is None or claims.gain < 0 or not _input_norm_at_most(system, room):
            failed.add("gain")
    if claims.largest_step is not None:
        claim = claims.largest_step
        if system.discrete or failures(system.with_step(claim.step), claim.proof, Claims(factor=claim.factor)):
            failed.add("largest-step")
    if claims.weight_radius is not None and not isinstance(proof, LureProof):
        failed.add("supported")
    if claims.margin and isinstance(proof, AbsoluteProof):
        failed.add("supported")
    return failed | _bound(system, proof, claims)


def _bound(system: System, proof: Proof, claims: Claims) -> set[str]:
    from tests.judges.bounds import bound_failures

    if claims.bound is None:
        return set()
    own, other = level(claims), exact(claims.bound.level)
    failed = set() if isinstance(proof, LureProof | SingularProof) else {"supported"}
    if not (own < other if system.continuous else own > other):
        failed.add("bound")
    return failed | bound_failures(system, claims.bound)


def _bits_at_most(value: fmpq, bits: fmpq) -> bool:
    """value <= 2**bits, by value**d <= 2**n if bits = n/d has a small d, else by a logarithm of 1000 bits."""
    if bits.q <= 64:
        return value ** int(bits.q) <= Q(2) ** int(bits.p)
    with ctx.workprec(1000):
        return bool(arb(value).log_base(2) <= arb(bits))


def _input_norm_at_most(system: System, squared: fmpq) -> bool:
    """Whether the map from input to x' (or next state) has norm^2 <= squared for all slopes: all vertices are tried."""
    for slopes in vertices(system):
        D = diag(slopes)
        if system.form == "lure":
            h = exact(1.0 if system.step is None else system.step)
            E = combine((h, times(dense(system, "B"), D)))
        else:
            E = times(diag(leak(system)), D) if system.form == "rate" else diag(leak(system))
        if not semidefinite(combine((squared, diag([Q(1)] * system.size)), (-1, times(E, flip(E))))):
            return False
    return True


# margins ------------------------------------------------------------------------------------------


def equilibrated(given: Rows) -> Rows | None:
    """Scaled by powers of two to a diagonal in [1/2, 2]; None if a diagonal entry is not positive."""
    scales = []
    for k, line in enumerate(given):
        if not line[k] > 0:
            return None
        scale = Q(1)
        exponent = (int(line[k].q).bit_length() - int(line[k].p).bit_length()) // 2 + 2
        scale = Q(2) ** exponent
        while line[k] * scale * scale > 2:
            scale /= 2
        scales.append(scale)
    return [[x * scales[i] * scales[j] for j, x in enumerate(line)] for i, line in enumerate(given)]


def above(block: Rows, margin: float) -> bool:
    """Equilibrated block > margin I."""
    if not margin:
        return margin == 0 and definite(block)
    scaled = equilibrated(block)
    return scaled is not None and definite(combine((1, scaled), (-exact(margin), diag([Q(1)] * len(scaled)))))


def ratio(value: fmpq) -> float:
    """The nearest float, by Python's exact division of integers."""
    return int(value.p) / int(value.q)


def signed_margin(block: Rows) -> float:
    """The eigenvalue of the equilibrated block nearest to zero, to about 1e-10 relative; -inf: it has no scaling."""
    scaled = equilibrated(block)
    if scaled is None:
        return -math.inf
    try:
        inverse = fmpq_mat(scaled).inv()
    except ZeroDivisionError:
        return 0.0
    size = len(scaled)
    entries = inverse.entries()
    largest = max(abs(entry) for entry in entries)
    normal = np.array([ratio(entry / largest) for entry in entries])
    nearest = ratio(1 / largest) / np.linalg.norm(normal.reshape(size, size), 2)
    return float(nearest if definite(scaled) else -nearest)


# instability --------------------------------------------------------------------------------------


def witness_failures(system: System, witness: InstabilityWitness) -> set[str]:
    """False obligations of a witness over a bare slope interval (exact slopes)."""
    failed = set()
    X = rows(witness.lyapunov)
    ends = zip(system.slope.lower, witness.slopes, system.slope.upper, strict=True)
    if not all(a <= d <= b for a, d, b in ends):
        failed.add("slopes")
    J = jacobian(system, [exact(d) for d in witness.slopes])
    sigma = exact(witness.growth)
    least = 0 if system.continuous else 1
    if system.continuous:
        XJ = times(X, J)
        block = combine((2 * sigma, X), (-1, XJ), (-1, flip(XJ)))
    else:
        block = combine((sigma * sigma, X), (-1, times(flip(J), times(X, J))))
    if flip(X) != X or sigma < least or not definite(block):
        failed.add("lyapunov")
    v = [[exact(x)] for x in witness.direction]
    if not times(flip(v), times(X, v))[0][0] < 0:
        failed.add("direction")
    return failed
