"""What else follows from a proof: metric bounds and gain, weight radius, largest certified Euler step, margin.

Everything here is proposed in floating point and kept only if :mod:`certes.verify` accepts it, each claim on its own:
a claim that fails costs nothing but itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes import steps
from certes.conditions.reference import reduced
from certes.engines.monitor import Monitor
from certes.engines.sdp import Inequality
from certes.proofs import AbsoluteProof, Claims, LevelBound, LureProof, ProductProof, Proof, SingularProof
from certes.systems import System
from certes.verify.contraction import verify_contraction

Array = NDArray[np.float64]

#: States up to which the claims that cost more than the proof itself are looked for.
LARGEST = 600

_SHAVES = (1e-2, 0.1, 0.5)


def extend(
    system: System, proof: Proof, claims: Claims, bound: LevelBound | None = None, monitor: Monitor | None = None
) -> tuple[Proof, Claims]:
    """Add every claim that can be verified to a verified proof.

    Args:
        system: the network.
        proof: a proof that :func:`certes.verify.contraction.verify_contraction` accepts with ``claims``.
        claims: rate or factor.
        bound: what no certificate of the condition ``lure`` reaches, if it is known.
        monitor: ends the search for further claims.

    Returns:
        The proof, with metric bounds and slacks filled in, and the claims, both accepted by the verifier. Above
        :data:`LARGEST` states only the metric's condition number and the gain are added.
    """
    monitor = Monitor() if monitor is None else monitor
    if bound is not None and _accepts(system, proof, replace(claims, bound=bound)):
        claims = replace(claims, bound=bound)
    kept = _with_gain(system, proof, claims)
    if system.size > LARGEST or system.is_sparse:
        return kept
    kept = _with_radius(system, *kept)
    kept = _with_step(system, *kept, monitor)
    return _with_margin(system, *kept)


def _accepts(system: System, proof: Proof, claims: Claims) -> bool:
    return verify_contraction(system, proof, claims).valid


def _with_gain(system: System, proof: Proof, claims: Claims) -> tuple[Proof, Claims]:
    """Bounds of the metric, its condition number as a power of two, and the incremental gain."""
    for bounded in _bounded(proof):
        log2 = _condition_log2(system, bounded)
        if log2 is None or not 0.0 <= log2 < 1 << 20:
            continue
        wider = replace(claims, metric_condition_log2=float(math.ceil(log2)))
        if not _accepts(system, bounded, wider):
            continue
        gain = _gain(system, claims, log2)
        full = replace(wider, gain=gain)
        return (bounded, full) if gain is not None and _accepts(system, bounded, full) else (bounded, wider)
    return proof, claims


def _bounded(proof: Proof) -> Iterator[Proof]:
    """The proof with metric bounds, tightest first (as it is, if its kind has none to fill in)."""
    if not isinstance(proof, LureProof):
        yield proof
        return
    lower, upper = _extremes(proof.metric)
    if not (lower > 0.0 and upper < math.inf):
        return
    for shave in (1e-6, 1e-3, 0.5):
        yield replace(proof, metric_lower=lower * (1 - shave), metric_upper=upper * (1 + shave))


def _extremes(metric: Array) -> tuple[float, float]:
    """The extreme eigenvalues of a metric; the least one through the inverse, each state in its own scale.

    A metric whose states differ by many orders of magnitude has a least eigenvalue far below the rounding of its
    largest one.
    """
    diagonal = np.diagonal(metric)
    if not (diagonal > 0.0).all():
        return 0.0, 0.0
    root = np.sqrt(diagonal)
    try:
        inverse = np.linalg.inv(metric / root[:, None] / root[None, :])
        unit = float(root.min())  # keeps the inverse in the float range
        inverse = inverse * (unit / root)[:, None] * (unit / root)[None, :]
        lower = unit * unit / float(np.linalg.eigvalsh(0.5 * (inverse + inverse.T))[-1])
        return lower, float(np.linalg.eigvalsh(metric)[-1])
    except np.linalg.LinAlgError:
        return 0.0, 0.0


def _condition_log2(system: System, proof: Proof) -> float | None:
    """log2 of the bound on the metric's condition number that the verifier derives; None: it derives none."""
    if isinstance(proof, LureProof | ProductProof):
        known = 0.0 < proof.metric_lower < proof.metric_upper < np.inf
        return math.log2(proof.metric_upper) - math.log2(proof.metric_lower) + 1e-9 if known else None
    if isinstance(proof, SingularProof):
        weighted = np.log2(proof.q) + np.log2(system.tau)
        return float(weighted.max() - weighted.min()) + 1e-9
    if isinstance(proof, AbsoluteProof):
        exponents = proof.left_exponent - proof.right_exponent
        if system.continuous:
            exponents = exponents + np.frexp(system.tau)[1]
        return float(int(exponents.max()) - int(exponents.min()) + 3)
    return None


def _gain(system: System, claims: Claims, log2: float) -> float | None:
    """norm(input map) sqrt(cond) / c, resp. / (1 - rho), rounded up; None beyond the float range."""
    decay = claims.rate if claims.rate is not None else 1.0 - (claims.factor or 0.0)
    bound = float(system.slope.bound.max())
    leak = (1.0 if system.step is None else system.step) / float(system.tau.min())
    if system.form == "lure":
        bound *= float(np.linalg.norm(system.matrix("B")))
        leak = 1.0 if system.step is None else system.step
    norm = leak if system.form == "hopfield" else leak * bound
    if log2 > 1900.0 or decay <= 0.0:
        return None
    gain = norm * 2.0 ** (0.5 * log2) / decay * (1.0 + 1e-9)
    return gain if np.isfinite(gain) else None


def _with_radius(system: System, proof: Proof, claims: Claims) -> tuple[Proof, Claims]:
    """The largest weight radius of a Lur'e proof: m1 m2 as large as the block allows."""
    fits = not system.slope.lower.any() and system.form != "lure"
    if not isinstance(proof, LureProof) or not fits or proof.dual != (system.form == "hopfield"):
        return proof, claims
    slacks = _slacks(system, proof, claims)
    if slacks is None:
        return proof, claims
    for shave in _SHAVES:
        m1, m2 = (float(slack * (1.0 - shave)) for slack in slacks)
        loosened = replace(proof, slack_state=m1, slack_input=m2)
        wider = replace(claims, weight_radius=math.sqrt(m1) * math.sqrt(m2) * (1.0 - 1e-12))
        if _accepts(system, loosened, wider):
            return loosened, wider
    return proof, claims


def _slacks(system: System, proof: LureProof, claims: Claims) -> tuple[float, float] | None:
    """m1, m2 with block >= diag(m1 S^2, m2 (G Q)^2) and the largest product; None if the block has no room.

    With m1 = mu e^t and m2 = mu e^-t the best mu at a given t is an eigenvalue, log-concave in t.
    """
    inequality = reduced(system)
    block = _block(inequality, proof, claims.rate if claims.rate is not None else claims.factor or 0.0)
    state = np.ones(system.size)
    if proof.dual:
        state = ((1.0 if system.step is None else system.step) / system.tau) ** 2
    channel = (inequality.gap * proof.multipliers) ** 2
    channel = np.maximum(channel, 1e-30 * max(float(channel.max()), 1e-200))
    n = system.size

    def room(t: float) -> float:
        root = np.sqrt(np.concatenate([np.exp(t) * state, np.exp(-t) * channel]))
        scaled = block / root[:, None] / root[None, :]
        return float(scipy.linalg.eigh(scaled, eigvals_only=True, subset_by_index=[0, 0])[0])

    diagonal = np.diagonal(block)
    if not (diagonal > 0).all():
        return None
    from scipy.optimize import minimize_scalar

    middle = 0.5 * (np.log(diagonal[:n] / state).mean() - np.log(diagonal[n:] / channel).mean())
    try:
        best = minimize_scalar(
            lambda t: -room(t), bounds=(middle - 15.0, middle + 15.0), method="bounded", options={"xatol": 1e-3}
        )
    except (np.linalg.LinAlgError, ValueError):
        return None
    mu, t = -float(best.fun), float(best.x)
    return (mu * math.exp(t), mu * math.exp(-t)) if mu > 0.0 else None


def _block(form: Inequality, proof: LureProof, level: float) -> Array:
    """The Lur'e block of order n + m in float64 (for a map, with the metric's own rows eliminated)."""
    P, q = proof.metric, proof.multipliers
    coupling = form.C.T * (form.gap * q)
    if form.continuous:
        row = -(P @ form.B + coupling)
        return np.block([[-(P @ form.A + form.A.T @ P + 2.0 * level * P), row], [row.T, 2.0 * np.diag(q)]])
    row = -(form.A.T @ P @ form.B + coupling)
    corner = level * level * P - form.A.T @ P @ form.A
    return np.block([[corner, row], [row.T, 2.0 * np.diag(q) - form.B.T @ P @ form.B]])


def _with_step(system: System, proof: Proof, claims: Claims, monitor: Monitor) -> tuple[Proof, Claims]:
    """The largest Euler step that can be proven, with a proof of its own; every smaller step follows."""
    if system.discrete:
        return proof, claims
    own = None
    if isinstance(proof, LureProof) and claims.factor is not None:
        own = steps.of_map(system, proof, claims.factor)
    for claim in steps.claims(system, own, monitor):
        wider = replace(claims, largest_step=claim)
        if _accepts(system, proof, wider):
            return proof, wider
    return proof, claims


def _with_margin(system: System, proof: Proof, claims: Claims) -> tuple[Proof, Claims]:
    """Half of what the deciding block has beyond zero, so that slightly different arithmetic accepts it too."""
    if isinstance(proof, AbsoluteProof):
        return proof, claims
    asked = 4.0  # an equilibrated matrix has a diagonal entry of at most 2: this must fail, and says by how much
    failed = verify_contraction(system, proof, replace(claims, margin=asked)).failed
    if failed is None or failed.missing is None or not np.isfinite(failed.missing):
        return proof, claims
    for share in (0.5, 0.25, 0.05):
        margin = share * (asked - failed.missing)
        if margin > 0.0 and _accepts(system, proof, replace(claims, margin=margin)):
            return proof, replace(claims, margin=margin)
    return proof, claims
