"""When does a witness show that a network does not contract, in any norm? The numbered obligations.

    1. slopes      D = phi'(s), enclosed; or, for a bare slope interval, D inside it (phi_i(s) = D_i s is in the class)
    2. lyapunov    -((J - sigma I)^T X + X (J - sigma I)) > 0, resp. sigma^2 X - J^T X J > 0 (map), for J = A + B D C
    3. direction   v^T X v < 0
    4. equilibrium the stored input makes the midpoint of both starts an equilibrium at which phi has arguments s
    5. parting     from the two starts, under that input, the simulated trajectories part

1 to 3 are rigorous: if all eigenvalues of J - sigma I lay in the open left half plane, 2 would force X > 0, against 3;
and an eigenvalue on the axis contradicts 2. So J has an eigenvalue beyond sigma >= 0 (map: |.| > sigma >= 1). The input
u that puts the equilibrium at s exists exactly in the reals; near it trajectories leave it at an exponential rate, so
no norm, constant or varying and bounded above and below, contracts. 4 and 5 tie the stored, rounded input and starts to
that statement, in float64: they are evidence anyone can replay, to a relative accuracy of 1e-6.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from certes.activations import DERIVATIVE_ERROR
from certes.proofs import InstabilityWitness
from certes.systems import System
from certes.verify.contraction import inputs
from certes.verify.intervals import Box
from certes.verify.question import definite_check, is_symmetric
from certes.verify.reduction import dense, enclose
from certes.verify.report import Check, Report

Array = NDArray[np.float64]

_NEAR = 1e-6  # relative accuracy asked of the equilibrium
_PART = 10.0  # how much farther apart the two trajectories must end
_MOST_STEPS = 200_000
_STATED = 1e-9  # accuracy asked of the stated slopes, which nothing else rests on
_KINK = 1e-9  # distance from a kink of a piecewise linear activation


@dataclass(frozen=True, eq=False)
class Evidence:
    """Does ``witness`` refute ``system``?"""

    system: System
    witness: InstabilityWitness


def _fits(evidence: Evidence) -> bool:
    system, witness = evidence.system, evidence.witness
    n, m = system.size, len(system.slope.lower)
    vectors = ((witness.points, m), (witness.slopes, m), (witness.direction, n), (witness.input, m))
    starts = ((witness.start, n), (witness.start_other, n))
    return all(vector.shape == (size,) for vector, size in vectors + starts) and witness.lyapunov.shape == (n, n)


def _slope_box(evidence: Evidence) -> Box:
    """D: the derivative at the points, enclosed, or the given slopes, exact."""
    entry = evidence.system.slope.activation
    if entry is None:
        return Box.exact(evidence.witness.slopes)
    slopes = np.asarray(entry.derivative(evidence.witness.points), dtype=np.float64)
    return Box(slopes, np.full(slopes.shape, 0.0 if entry.attained == "ends" else DERIVATIVE_ERROR))


def slopes(evidence: Evidence) -> Check:
    """The slopes are attained: phi'(s), away from kinks if phi is piecewise linear; or inside a bare interval."""
    system, witness = evidence.system, evidence.witness
    entry = system.slope.activation
    if entry is None:
        held = (witness.slopes >= system.slope.lower).all() and (witness.slopes <= system.slope.upper).all()
        return Check("slopes", bool(held), "slopes inside their intervals")
    if not (np.abs(entry.derivative(witness.points) - witness.slopes) <= _STATED).all():
        return Check("slopes", False, f"the stated slopes are {entry.name}'(s)")
    if entry.attained == "interior":
        return Check("slopes", True, f"slopes {entry.name}'(s)")
    away = _KINK * np.maximum(1.0, np.abs(witness.points))
    left, right = entry.derivative(witness.points - away), entry.derivative(witness.points + away)
    return Check("slopes", bool((left == right).all()), f"slopes {entry.name}'(s) away from kinks")


def _jacobian(evidence: Evidence) -> Box:
    form = enclose(_unshifted(evidence.system))
    scaled = dense(form.B) * _slope_box(evidence)[None, :]
    return dense(form.A) + scaled @ dense(form.C)


def _unshifted(system: System) -> System:
    """The same system with slope interval [0, upper], so that its normal form is not shifted and D enters as it is."""
    plain = copy.copy(system)
    zero = np.zeros_like(system.slope.lower)
    object.__setattr__(plain, "slope", replace(system.slope, lower=zero))
    return plain


def lyapunov(evidence: Evidence) -> Check:
    """X is symmetric and certifies that no eigenvalue of J lies on the border sigma."""
    witness, continuous = evidence.witness, evidence.system.continuous
    least = 0.0 if continuous else 1.0
    if not (is_symmetric(witness.lyapunov) and least <= witness.growth < np.inf):
        return Check("lyapunov", False, "X symmetric, sigma >= 0 (continuous) or 1 (map)")
    X, J, sigma = Box.exact(witness.lyapunov), _jacobian(evidence), Box.exact(witness.growth)
    if continuous:
        product = X @ J
        decay = (X * sigma + X * sigma) - (product + product.T)
        return definite_check("lyapunov", decay, "-((J - sigma I)^T X + X (J - sigma I)) > 0")
    image = J.T @ (X @ J)
    image = Box((image.mid + image.mid.T) / 2, image.rad + np.abs(image.mid - image.mid.T))
    return definite_check("lyapunov", X * (sigma * sigma) - image, "sigma^2 X - J^T X J > 0")


def direction(evidence: Evidence) -> Check:
    """v^T X v < 0."""
    v = Box.exact(evidence.witness.direction[:, None])
    value = v.T @ (Box.exact(evidence.witness.lyapunov) @ v)
    return Check("direction", bool((value.mid + value.rad < 0).all()), "v^T X v < 0")


def _phi(evidence: Evidence) -> Callable[[Array], Array]:
    entry, given = evidence.system.slope.activation, evidence.witness.slopes
    return entry.function if entry is not None else lambda s: given * s


def _arguments(evidence: Evidence, state: Array) -> Array:
    """What phi is applied to."""
    system, witness = evidence.system, evidence.witness
    if system.form == "rate":
        return np.asarray(system.matrix("W") @ state + witness.input)
    return state if system.form == "hopfield" else np.asarray(system.matrix("C") @ state + witness.input)


def _field(evidence: Evidence, state: Array) -> Array:
    """x' of a differential equation, also of the one whose Euler map is run; for a given map, x+ - x."""
    system, witness, phi = evidence.system, evidence.witness, _phi(evidence)
    value = phi(_arguments(evidence, state))
    if system.form == "rate":
        return np.asarray((value - state) / system.tau)
    if system.form == "hopfield":
        return np.asarray((system.matrix("W") @ value + witness.input - state) / system.tau)
    drift = np.asarray(system.matrix("A") @ state + system.matrix("B") @ value)
    return drift - state if system.discrete else drift


def equilibrium(evidence: Evidence) -> Check:
    """At x = (start + start_other) / 2: x' = 0 and phi's arguments are s, to a relative 1e-6."""
    witness = evidence.witness
    centre = (witness.start + witness.start_other) / 2.0
    rest = np.abs(_field(evidence, centre)).max()
    held = rest <= _NEAR * (1.0 + np.abs(centre).max())
    if evidence.system.slope.activation is not None:
        offset = np.abs(_arguments(evidence, centre) - witness.points)
        held = held and bool((offset <= _NEAR * (1.0 + np.abs(witness.points))).all())
    return Check(
        "equilibrium", bool(held), "the input makes the midpoint of the starts an equilibrium with arguments s"
    )


def _advance(evidence: Evidence, state: Array, step: float) -> Array:
    """One step of the map, or of the classical Runge-Kutta method."""
    system = evidence.system
    first = _field(evidence, state)
    if not system.continuous:
        return state + (first if system.step is None else system.step * first)
    second = _field(evidence, state + step / 2 * first)
    third = _field(evidence, state + step / 2 * second)
    fourth = _field(evidence, state + step * third)
    return state + step / 6 * (first + 2 * second + 2 * third + fourth)


def parting(evidence: Evidence) -> Check:
    """Simulated in float64, the two trajectories end at least 10 times as far apart as they started."""
    system, witness = evidence.system, evidence.witness
    horizon = witness.horizon
    if not 0 < horizon < np.inf:
        return Check("parting", False, "a positive horizon")
    step = min(0.05 / (1.0 + float(np.linalg.norm(_jacobian(evidence).mid, 2))), horizon) if system.continuous else 1.0
    if not horizon / step <= _MOST_STEPS:
        return Check("parting", False, f"at most {_MOST_STEPS} steps of simulation")
    count = int(np.ceil(horizon / step))
    one, other = witness.start, witness.start_other
    initial = float(np.linalg.norm(one - other))
    for _ in range(count):
        one, other = _advance(evidence, one, horizon / count), _advance(evidence, other, horizon / count)
    final = float(np.linalg.norm(one - other))
    return Check("parting", initial > 0 and final >= _PART * initial, f"distance {initial:.3g} grows to {final:.3g}")


OBLIGATIONS: tuple[Callable[[Evidence], Check], ...] = (slopes, lyapunov, direction, equilibrium, parting)


def verify_instability(system: System, witness: InstabilityWitness) -> Report:
    """Verify that ``witness`` shows ``system`` not contracting.

    Args:
        system: the network as given, dense weights.
        witness: slopes, a Lyapunov matrix, a direction, an input and two starts.

    Returns:
        A report with verdict ``not_contracting`` if and only if every obligation held.
    """
    evidence = Evidence(system, witness)
    checks: list[Check] = []
    arrays = tuple(np.asarray(array, dtype=np.float64) for array in witness.to_arrays().values())
    if (failed := inputs(system, arrays)) is not None:
        checks.append(failed)
    elif system.is_sparse or not _fits(evidence):
        checks.append(Check("shapes", False, "dense weights; s, D, u (m,); v and starts (n,); X (n, n)"))
    else:
        with np.errstate(all="ignore"):
            for obligation in OBLIGATIONS:
                checks.append(obligation(evidence))
                if not checks[-1].held:
                    break
    if checks[-1].held:
        return Report("not_contracting", tuple(checks))
    return Report(
        "undecided", tuple(checks), "obligation-failed", f"{checks[-1].name}: not proven: {checks[-1].detail}"
    )
