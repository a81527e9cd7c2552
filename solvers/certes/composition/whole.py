"""Assemblies as one system: the Lur'e inequality of all states, with the block metric or with the best one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.assemblies import Assembly, WholeProof
from certes.composition.blocks import Equations, best_norm, best_rate
from certes.conditions import by_name
from certes.conditions.base import Goal
from certes.engines.monitor import Monitor
from certes.inquiry import Inquiry
from certes.proofs import LureProof
from certes.systems import LureSystem
from certes.verify.report import Report
from certes.verify.whole import normal_form, verify_whole

Array = NDArray[np.float64]

#: Steps tried in the search for the largest one.
_STEPS = 16
#: Parts of the level that are given up in turn until the verifier accepts it.
_BACK_OFFS = (1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


@dataclass(frozen=True, eq=False)
class Whole:
    """A verified proof of an assembly as one system."""

    proof: WholeProof
    report: Report


def flattened(assembly: Assembly) -> LureSystem:
    """The assembly as one Lur'e system with entries rounded to float64 (1/tau, steps): for searches, not for proofs.

    It keeps the name of an activation that all networks share.
    """
    form = normal_form(assembly, shifted=False)
    A, B, C = (np.asarray(part.mid) for part in (form.A, form.B, form.C))  # type: ignore[union-attr]
    leaves = [system for _, system in assembly.leaves()]
    shared = {system.slope.activation for system in leaves}
    discrete = not assembly.continuous
    if len(shared) == 1 and (activation := shared.pop()) is not None:
        return LureSystem(A, B, C, activation=activation.name, discrete=discrete)
    lower, upper = (np.concatenate([getattr(s.slope, side) for s in leaves]) for side in ("lower", "upper"))
    return LureSystem(A, B, C, slope=(lower, upper), discrete=discrete)


def equations(assembly: Assembly) -> Equations:
    """The normal form of the whole in floats."""
    form = normal_form(assembly)
    A, B, C = (np.asarray(part.mid) for part in (form.A, form.B, form.C))  # type: ignore[union-attr]
    return Equations(A, B, C, np.broadcast_to(form.gap.mid, (B.shape[1],)))


def prove(assembly: Assembly, metric: Array, multipliers: Array) -> Whole | None:
    """The best verified rate (factor) in a given metric with free multipliers.

    Args:
        assembly: the assembly.
        metric: P, shape (N, N).
        multipliers: to start from, shape (m,).
    """
    whole = equations(assembly)
    try:
        best, q = (best_rate if assembly.continuous else best_norm)(whole, metric, multipliers)
    except (np.linalg.LinAlgError, ValueError):
        return None
    return _settled(assembly, metric, q, best)


def monolithic(assembly: Assembly, monitor: Monitor) -> Whole | None:
    """The best verified rate (factor) in any metric: the engine of ``lure`` on the whole."""
    system = flattened(assembly)
    left = monitor.left
    inquiry = Inquiry(
        system, Goal(None, seconds=None if left is None else max(left, 0.01), cancelled=monitor.cancelled)
    )
    inquiry.attempt(by_name("lure"))
    if not inquiry.proven:
        return None
    proven = inquiry.proven[0]
    level = proven.claims.rate if assembly.continuous else proven.claims.factor
    assert isinstance(proven.proof, LureProof)
    assert level is not None
    return _settled(assembly, proven.proof.metric, proven.proof.multipliers, level)


def largest_step(assembly: Assembly, metric: Array, multipliers: Array) -> tuple[float, Whole] | None:
    """The largest Euler step found at which the block metric proves the whole; every smaller one is proven too.

    Steps are doubled and halved from 0.01, then bisected.

    Args:
        assembly: in continuous time.
        metric: P, shape (N, N).
        multipliers: shape (m,).
    """
    best, low, high, step = None, 0.0, np.inf, 0.01
    for _ in range(_STEPS):
        stepped = Assembly(assembly.modules, assembly.couplings, step)
        found = prove(stepped, metric, multipliers * step)
        if found is not None:
            best, low = (step, found), step
        else:
            high = step
        if high == np.inf:
            step = 4.0 * step
        elif low == 0.0:
            step = 0.25 * step
        elif high < 1.02 * low:
            break
        else:
            step = float(np.sqrt(low * high))
    return best


def block_metric(roots: list[Array]) -> Array:
    """blkdiag of the metrics."""
    return np.asarray(scipy.linalg.block_diag(*roots))


def _settled(assembly: Assembly, metric: Array, q: Array, best: float) -> Whole | None:
    for back in _BACK_OFFS:
        level = best - back * max(best, 1e-3) if assembly.continuous else 1.0 - (1.0 - best) * (1.0 - back)
        if not (level > 0.0 if assembly.continuous else 0.0 < level < 1.0):
            return None
        proof = WholeProof(0.5 * (metric + metric.T), q, level)
        report = verify_whole(assembly, proof)
        if report.valid:
            return Whole(proof, report)
    return None
