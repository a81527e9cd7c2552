"""When is it proven that no constant quadratic metric serves a network? The numbered obligations.

    1. shapes      slopes (k, m); columns (n, r), each belonging to one row of the slopes
    2. slopes      every D_k lies in the closed slope box
    3. separating  S = sum_k (J_k Z_k + Z_k J_k^T) > 0, resp. sum_k (J_k Z_k J_k^T - Z_k) > 0 (map), with
                   J_k = A + B D_k C and Z_k the sum of y y^T over the columns y of pattern k

Then no P >= 0 but P = 0 has P J_k + J_k^T P <= 0 (map: J_k^T P J_k <= P) for all k: the sum of the traces of
(P J_k + J_k^T P) Z_k would not be positive, and it is trace(P S) > 0 (theorem of the alternative for linear matrix
inequalities; S. Boyd, L. El Ghaoui, E. Feron, V. Balakrishnan, "Linear Matrix Inequalities in System and Control
Theory", SIAM 1994, section 2.2). This is about constant quadratic metrics and the whole slope box. The network may
contract in another norm, so the verdict is ``undecided`` even when everything held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from certes.proofs import NoMetricProof
from certes.systems import System
from certes.verify.attained import inside, jacobian, reflected, unshifted
from certes.verify.intervals import Box
from certes.verify.question import arrays_of, definite_check, inputs
from certes.verify.report import Check, Report, judged


@dataclass(frozen=True, eq=False)
class Alternative:
    """Does ``proof`` show that no constant quadratic metric serves ``system``?"""

    system: System
    proof: NoMetricProof


def shapes(alternative: Alternative) -> Check:
    """Slopes (k, m); columns (n, r); for each column the row of its slopes."""
    system, proof = alternative.system, alternative.proof
    rows, channels = proof.slopes.shape
    states, count = proof.columns.shape
    fits = channels == len(system.slope.lower) and states == system.size and proof.pattern.shape == (count,)
    fits = fits and bool(((proof.pattern >= 0) & (proof.pattern < rows)).all())
    return Check("shapes", fits, "slopes (k, m); columns (n, r); pattern (r,), entries in [0, k)")


def slopes(alternative: Alternative) -> Check:
    """Every D_k lies in the closed slope box."""
    return inside(alternative.system, alternative.proof.slopes)


def _separator(alternative: Alternative) -> Box:
    """S of the module docstring, enclosed."""
    system, proof = alternative.system, alternative.proof
    form = unshifted(system)
    total = Box.exact(np.zeros((system.size, system.size)))
    for k in np.unique(proof.pattern):
        Y = Box.exact(proof.columns[:, proof.pattern == k])
        image = jacobian(form, Box.exact(proof.slopes[k])) @ Y
        if system.continuous:
            moved = image @ Y.T
            total = total + (moved + moved.T)
        else:
            total = total + (image @ image.T - Y @ Y.T)
    return reflected(total)


def separating(alternative: Alternative) -> Check:
    """S > 0: with it, a metric that serves all patterns has trace(P S) <= 0 < trace(P S)."""
    words = "sum (J Z + Z J^T) > 0" if alternative.system.continuous else "sum (J Z J^T - Z) > 0"
    return definite_check("separating", _separator(alternative), words)


OBLIGATIONS: tuple[Callable[[Alternative], Check], ...] = (shapes, slopes, separating)


def verify_no_metric(system: System, proof: NoMetricProof) -> Report:
    """Verify that no constant quadratic metric contracts, or even does not expand, at all slopes of ``system``.

    Args:
        system: the network as given, dense weights.
        proof: slope patterns and the matrices of the theorem of the alternative.

    Returns:
        A report that is valid if and only if every obligation held. Its verdict is always ``undecided``.
    """
    return judged("undecided", _checks(Alternative(system, proof)))


def _checks(alternative: Alternative) -> Iterator[Check]:
    if (failed := inputs(alternative.system, arrays_of(alternative.proof))) is not None:
        yield failed
    elif alternative.system.is_sparse:
        yield Check("shapes", False, "dense weights")
    else:
        for obligation in OBLIGATIONS:
            yield obligation(alternative)
