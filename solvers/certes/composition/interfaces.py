"""Interfaces of networks: a metric, a rate (factor) and a Lipschitz constant, found by ``lure`` and verified.

Rate, factor and Lipschitz constant are proven in one stored metric of the network itself: proofs of the transposed
system (Hopfield networks) are carried over by inverting their metric, and proven anew. A little of the rate is given up
for a metric with room: at the best rate the block is singular and its metric may be badly conditioned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certes.assemblies import InterfaceProof
from certes.composition.blocks import Equations, best_norm, best_rate
from certes.conditions import by_name
from certes.conditions.base import Goal
from certes.conditions.uniform import UniformLeak
from certes.engines import conic, starts
from certes.engines.families import Norm
from certes.engines.monitor import Monitor
from certes.inquiry import Inquiry
from certes.proofs import LureProof
from certes.spec import SystemSpec
from certes.systems import HopfieldNetwork, RateNetwork, System
from certes.verify.interface import Interface, verify_interface
from certes.verify.reduction import midpoint

Array = NDArray[np.float64]

#: Share of the way from 0 (factor 1) to the best rate (factor) at which the metric is taken.
SHARE = 0.98
#: Condition of a metric that is of no use to couplings; what is then added to the weights (relative); shares of the
#: level that are tried.
_DEGENERATE = 1e8
_ADDED, _SHARES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5), (SHARE, 0.9)
#: Parts of the level that are given up in turn until the verifier accepts it.
_BACK_OFFS = (1e-9, 1e-7, 1e-5, 1e-4, 1e-3, 1e-2, 0.05)


@dataclass(frozen=True, eq=False)
class Offered:
    """A network with its verified interface.

    Attributes:
        system: the network.
        proof: what is stored.
        interface: what the verifier made of it.
        metric: M, shape (n, n), as floats.
    """

    system: System
    proof: InterfaceProof
    interface: Interface

    @property
    def metric(self) -> Array:
        """The metric."""
        return self.proof.metric


@dataclass(frozen=True)
class Refused:
    """A network without an interface, and why."""

    reason: str
    detail: str


def identity(system: System) -> str:
    """What a network is, as a digest: equal for equal dynamics and bytes of the weights, whatever they are named."""
    spec = SystemSpec.of(system).model_dump(mode="json")
    spec.pop("tensors")
    tensors = {role: [(s.dtype, s.shape, s.sha256) for s in entry.subjects] for role, entry in system.tensors.items()}
    return hashlib.sha256(repr((sorted(spec.items()), sorted(tensors.items()))).encode()).hexdigest()


def offer(system: System, *, quick: bool = False, monitor: Monitor | None = None) -> Offered | Refused:
    """The interface of a network.

    Args:
        system: the network; dense weights.
        quick: take the multipliers of the Perron scaling instead of the best ones (uniform leak, slopes from 0).
        monitor: time limit and cancellation.
    """
    watch = monitor or Monitor()
    found: Refused | LureProof | None = _quick(system) if quick else None
    if found is None:
        found = _best(system, watch)
    if isinstance(found, Refused):
        return found
    equations = Equations(*midpoint(system))
    for metric, multipliers in _own(system, found):
        if (offered := _proven(system, equations, metric, multipliers)) is not None:
            return offered
    return Refused("margin", "proven, but no metric of it was accepted for the network itself")


def offer_in(system: System, metric: Array) -> Offered | None:
    """The interface of a network in a given metric; None if nothing is proven in it.

    Args:
        system: the network; dense weights.
        metric: M, shape (n, n), positive definite.
    """
    equations = Equations(*midpoint(system))
    if metric.shape != equations.A.shape or len(equations.gap) != len(metric) or not np.isfinite(metric).all():
        return None
    tau = np.asarray(system.tau, dtype=np.float64) if isinstance(system, RateNetwork | HopfieldNetwork) else 1.0
    multipliers = np.diag(metric) / tau  # those of a diagonal metric in which the norm of the weights is small
    if not (multipliers > 0.0).all():
        return None
    return _proven(system, equations, 0.5 * (metric + metric.T), multipliers)


def _quick(system: System) -> LureProof | None:
    """Perron multipliers, and the metric by cyclic reduction a little behind their level."""
    leak = UniformLeak.of(system)
    if leak is None or isinstance(leak.family, Norm):
        return None
    q = np.exp(2.0 * starts.perron(np.abs(leak.weights)))
    best = conic.best_level(conic.scaled(leak.weights, q), leak.family)
    if best is None:
        return None
    number = leak.number(best)
    number = SHARE * number if system.continuous else 1.0 - SHARE * (1.0 - number)
    positive = number > 0.0 if system.continuous else 0.0 < number < 1.0
    return leak.proof(q, number) if positive else None


def _best(system: System, monitor: Monitor) -> LureProof | Refused:
    """A verified proof a little behind the best level."""
    left = monitor.left
    goal = Goal(None, seconds=None if left is None else max(left, 0.01), cancelled=monitor.cancelled)
    first = Inquiry(system, goal)
    first.attempt(by_name("lure"))
    if not first.proven:
        attempt = first.attempts[-1]
        return Refused(attempt.reason or "margin", f"not proven contracting: {attempt.detail}")
    claims = first.proven[0].claims
    level = claims.rate if system.continuous else claims.factor
    assert level is not None
    target = SHARE * level if system.continuous else 1.0 - SHARE * (1.0 - level)
    second = Inquiry(system, Goal(target, cancelled=monitor.cancelled))
    second.attempt(by_name("lure"))
    proof = (second.proven or first.proven)[0].proof
    assert isinstance(proof, LureProof)
    return _tamed(system, proof, level, monitor) or proof


def _tamed(system: System, proof: LureProof, level: float, monitor: Monitor) -> LureProof | None:
    """A proof with a usable metric where the multipliers ran away, as they do for reducible (triangular) weights.

    They are taken from weights with a little of everything added, which are irreducible, and prove the network itself.
    """
    leak = UniformLeak.of(system)
    if leak is None or not isinstance(system, RateNetwork | HopfieldNetwork):
        return None
    if np.linalg.cond(proof.metric) < _DEGENERATE:
        return None
    W = system.matrix("W")
    for added in _ADDED:
        if monitor.over:
            return None
        near = Inquiry(system.with_weights(W + added * np.abs(W).max()), Goal(None, cancelled=monitor.cancelled))
        near.attempt(by_name("lure"))
        for entry in near.proven[:1]:
            assert isinstance(entry.proof, LureProof)
            for share in _SHARES:
                number = share * level if system.continuous else 1.0 - share * (1.0 - level)
                found = leak.proof(entry.proof.multipliers, number)
                if found is not None and np.linalg.cond(found.metric) < _DEGENERATE:
                    return found
    return None


def _own(system: System, proof: LureProof) -> Iterator[tuple[Array, Array]]:
    """Metric and multipliers for the network itself; those of a proof of the transposed system are inverted."""
    if not proof.dual:
        yield proof.metric, proof.multipliers
        return
    gap = midpoint(system)[3]
    with np.errstate(all="ignore"):
        metric = np.linalg.inv(proof.metric)
        multipliers = 1.0 / (np.maximum(gap, 1e-300) ** 2 * proof.multipliers)
    if np.isfinite(metric).all() and np.isfinite(multipliers).all():
        yield 0.5 * (metric + metric.T), multipliers


def _proven(system: System, equations: Equations, metric: Array, multipliers: Array) -> Offered | None:
    """The best level and Lipschitz constant in a metric that the verifier accepts."""
    scale = 2.0 ** -float(np.round(np.linalg.slogdet(metric)[1] / np.log(2.0) / len(metric)))
    metric, multipliers = metric * scale, multipliers * scale
    try:
        norm, norm_q = best_norm(equations, metric, multipliers)
        level, q = best_rate(equations, metric, multipliers) if system.continuous else (norm, norm_q)
    except (np.linalg.LinAlgError, ValueError):
        return None
    for back in _BACK_OFFS:
        number = level * (1.0 - back) if system.continuous else 1.0 - (1.0 - level) * (1.0 - back)
        lipschitz = norm * (1.0 + back) if system.continuous and np.isfinite(norm) else 0.0
        proof = InterfaceProof(metric, q, norm_q if lipschitz else np.zeros_like(q), number, lipschitz)
        report, interface = verify_interface(system, proof)
        if report.valid and interface is not None:
            return Offered(system, proof, interface)
    return None
