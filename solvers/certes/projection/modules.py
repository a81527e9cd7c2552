"""What an assembly needs to know of a module: its Lur'e equations, a metric, multipliers and a rate, verified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.conditions import by_name
from certes.conditions.base import Goal
from certes.conditions.uniform import UniformLeak, lure_proof
from certes.engines.monitor import Monitor
from certes.errors import InputError
from certes.inquiry import Inquiry, Proven
from certes.proofs import Claims, LureProof
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from certes.verify.contraction import verify_contraction
from certes.verify.reduction import midpoint

Array = NDArray[np.float64]

#: Without a rate asked for, the assembly is to reach this share of the slowest module's rate.
_DEFAULT = 0.5
#: A module's proof is taken at this share of the way from the wanted rate to its best one: at the best rate its
#: block is barely positive, and of a nilpotent W the metric degenerates; 2 % of the room buy a proof that stands
#: rounding.
_SHARE = 0.98
#: A condition number beyond which a metric measures nothing, and the shares at which a better one is looked for.
_DEGENERATE, _TAMED = 1e8, (0.98, 0.9, 0.75, 0.5)
#: Shares of that way at which a proof carried over to the Lur'e equations is tried.
_CARRIED = (1.0, 1.0 - 1e-6, 1.0 - 1e-4, 1.0 - 1e-3, 0.99, 0.9)


@dataclass(frozen=True, eq=False)
class Module:
    """A module with what is verified of it.

    Attributes:
        name: its name in the assembly.
        system: its Lur'e equations.
        metric: M_i, shape (n_i, n_i); the geometric mean of its eigenvalues is near 1, so that whitened distances of
            different modules, and distances in L itself, are comparable.
        multipliers: q, shape (m_i,).
        rate: c_i; :func:`certes.verify.contraction.verify_contraction` accepts the three numbers for ``system``.
    """

    name: str
    system: LureSystem
    metric: Array
    multipliers: Array
    rate: float


@dataclass(frozen=True)
class Unproven:
    """A module for which there is no proof, and why.

    Attributes:
        reason: stable code, see :class:`certes.results.Attempt`.
        detail: the reason in words; it names the module.
    """

    reason: str
    detail: str


def as_lure(system: System) -> LureSystem:
    """The same continuous-time network as x' = A x + B phi(C x + u), with 1 / tau rounded to float64."""
    if isinstance(system, LureSystem):
        return system
    pace, W = 1.0 / system.tau, system.matrix("W")
    eye, slope = np.eye(system.size), (system.slope.lower, system.slope.upper)
    B, C = (np.diag(pace), W) if system.form == "rate" else (pace[:, None] * W, eye)
    return LureSystem(-np.diag(pace), B, C, slope=slope)


def interfaces(
    modules: Mapping[str, System], rate: float | None, monitor: Monitor
) -> tuple[float, list[Module]] | Unproven:
    """The rate to reach, and every module with a proof above it.

    Args:
        modules: name -> network in continuous time.
        rate: the rate of the assembly, None: half of the slowest module's best rate.
        monitor: time limit, cancellation and progress.

    Raises:
        InputError: the rate is not below the best rate of every module.
    """
    best: dict[str, Proven] = {}
    for name, system in modules.items():
        monitor.say(f"module {name}: searching its best rate")
        found = _proven(name, system, None, monitor)
        if isinstance(found, Unproven):
            return found
        best[name] = found
    slowest = min(best, key=lambda name: best[name].claims.rate or 0.0)
    ceiling = best[slowest].claims.rate or 0.0
    wanted = _DEFAULT * ceiling if rate is None else rate
    if not wanted < ceiling:
        raise InputError("rate", repr(rate), f"a rate below {ceiling:.6g}, the best of the module {slowest!r}")
    carried: list[Module] = []
    for name, system in modules.items():
        monitor.say(f"module {name}: taking its metric")
        module = _module(name, system, best[name], wanted, monitor)
        if isinstance(module, Unproven):
            return module
        carried.append(module)
    return wanted, carried


def _proven(name: str, system: System, target: float | None, monitor: Monitor) -> Proven | Unproven:
    """A verified proof of the condition ``lure``, at the best rate or at a target."""
    left = monitor.left
    inquiry = Inquiry(
        system, Goal(target, seconds=None if left is None else max(left, 0.01), cancelled=monitor.cancelled)
    )
    inquiry.attempt(by_name("lure"))
    if inquiry.proven:
        return inquiry.proven[0]
    attempt = inquiry.attempts[-1]
    return Unproven(attempt.reason or "margin", f"module {name!r} is not proven contracting: {attempt.detail}")


def _module(name: str, system: System, best: Proven, wanted: float, monitor: Monitor) -> Module | Unproven:
    """The module with metric and multipliers of its Lur'e equations, a little below its best rate."""
    equations, top = as_lure(system), best.claims.rate or 0.0
    below = _proven(name, system, wanted + _SHARE * (top - wanted), monitor)
    tamed = _tamed(name, system, below, wanted, monitor)
    for proven in (tamed, below, best):
        if not isinstance(proven, Proven):
            continue
        assert isinstance(proven.proof, LureProof)
        room = (proven.claims.rate or 0.0) - wanted
        for metric, multipliers in _own(system, proven.proof, wanted):
            proof = lure_proof(metric, multipliers, dual=False)
            for share in _CARRIED:
                rate = wanted + share * room
                if rate > wanted and verify_contraction(equations, proof, Claims(rate=rate)).valid:
                    return Module(name, equations, *_centred(proof), rate)
    return Unproven("margin", f"module {name!r} is proven, but its metric was not accepted for its Lur'e equations")


def _tamed(name: str, system: System, below: Proven | Unproven, wanted: float, monitor: Monitor) -> Proven | None:
    """A proof with a usable metric where the multipliers ran away, as they do for reducible weights.

    They are taken from weights with a little of everything added, which are irreducible, and prove the system itself.
    """
    leak = UniformLeak.of(system)
    if leak is None or isinstance(below, Unproven) or np.linalg.cond(below.proof.to_arrays()["metric"]) < _DEGENERATE:
        return None
    W, slope = system.matrix("W"), (system.slope.lower, system.slope.upper)
    kind = RateNetwork if system.form == "rate" else HopfieldNetwork
    room = ((below.claims.rate or 0.0) - wanted) / _SHARE
    for added in 10.0 ** -np.arange(1.0, 8.0):
        near = _proven(name, kind(W + added * np.abs(W).max(), slope=slope, tau=system.tau), None, monitor)
        if isinstance(near, Unproven):
            continue
        assert isinstance(near.proof, LureProof)
        for share in _TAMED:
            rate = wanted + share * room
            proof = leak.proof(near.proof.multipliers, rate)
            if proof is not None and verify_contraction(system, proof, Claims(rate=rate)).valid:
                return Proven(near.condition, proof, Claims(rate=rate))
    return None


def _own(system: System, proof: LureProof, rate: float) -> Iterator[tuple[Array, Array]]:
    """Metric and multipliers of the system itself; a dual proof speaks of the transposed one.

    (A, B, C, P, Q) and (A^T, C^T, B^T, P^-1, (G Q G)^-1) have the same Schur complement up to congruence. A neuron
    without a nonlinearity (gap 0) has any multiplier that is large enough not to count.
    """
    if not proof.dual:
        yield proof.metric, proof.multipliers
        return
    try:
        metric = np.linalg.inv(proof.metric)
    except np.linalg.LinAlgError:
        return
    metric = 0.5 * (metric + metric.T)
    _, B, _, gap = midpoint(system)
    idle = 1e6 * np.maximum(np.einsum("ij,ik,kj->j", B, metric, B), 1e-12 * np.abs(metric).max()) / rate
    with np.errstate(divide="ignore", over="ignore"):
        multipliers = np.minimum(1.0 / (gap * gap * proof.multipliers), np.where(gap > 0.0, np.inf, idle))
    if np.isfinite(metric).all() and np.isfinite(multipliers).all():
        yield metric, multipliers


def _centred(proof: LureProof) -> tuple[Array, Array]:
    """Metric and multipliers times the power of two that brings the mean of log2 of the eigenvalues to 0."""
    _, logarithm = np.linalg.slogdet(proof.metric)
    scale = 2.0 ** -float(np.round(logarithm / np.log(2.0) / len(proof.metric)))
    return proof.metric * scale, proof.multipliers * scale
