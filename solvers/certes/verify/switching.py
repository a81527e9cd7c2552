"""When does switching between slopes show that a network does not contract, in any norm? The numbered obligations.

    1. slopes     in every mode D_k = phi'(s_k), enclosed; or, for a bare slope interval, D_k inside it
    2. schedule   durations > 0 (maps: whole numbers); a ramp where the arguments of phi cannot jump, and only there
    3. orbit      with arguments s(t) of phi the network has a bounded periodic orbit
    4. lyapunov   sigma^2 X - M^T X M > 0, M = R_k exp(J_k t_k) ... R_1 exp(J_1 t_1) (maps: powers of J_k), sigma >= 1
    5. direction  v^T X v < 0
    6. input      in float64, the midpoint of the starts lies on that orbit, whose input is as large as stated
    7. parting    from the two starts, under that periodic input, the simulated trajectories part

Let s(t) run through s_1, ..., s_k, each held for its duration t_k, over and over.

*Rate form*, T x' = -x + phi(W x + u). T x' = -x + phi(s(t)) is a stable linear equation with a bounded periodic
right-hand side, so it has one periodic solution x(t). With the input u(t) = s(t) - W x(t), which is bounded and
periodic too, x(t) is a solution of the network, and the network's linearisation along it is z' = J(D(t)) z exactly,
with J(D) = T^-1 (D W - I) and D(t) = phi'(s(t)). The same with steps for its Euler map, if no step / tau reaches 2.

*Lure form*, x' = A x + B phi(C x + u): the same with u = s - C x, where x' = A x + B phi(s(t)) (or x+ = the same) has a
periodic solution as soon as the flow of A over one period does not have the eigenvalue 1.

*Hopfield form*, T x' = -x + W phi(x) + u. Here s = x, and u = T x' + x - W phi(x) steers the state along any path whose
velocity is bounded. The Euler map jumps from point to point. In continuous time the state goes from s_k to s_(k+1) on a
straight line, in a short time, the ramp. It meets a kink of phi at single instants at most, which changes nothing in
the linearisation (phi is Lipschitz). Over the ramp abs(J(D)) <= N entry by entry, whatever the slopes, so the flow of
the linearisation is the identity up to exp(N ramp) - I, entry by entry: that is R_k. In the other forms R_k = I.

M is the derivative of the map over one period at the periodic orbit. If all its eigenvalues had modulus < sigma, 4
would force X > 0, against 5, and 4 leaves none of modulus sigma. So M has an eigenvalue of modulus > sigma >= 1, and
the derivatives of the flow along that orbit grow without bound, under one bounded periodic input. In a norm, constant
or varying with state and time, that is bounded above and below and in which trajectories under equal inputs do not
part, they would stay bounded. So the network contracts in none. This speaks of networks whose input may be that input;
a network whose inputs are known to be smaller is not refuted.

1 to 5 are rigorous. 6 and 7 tie the stored, rounded starts to the statement, in float64, and anyone can replay them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from certes.proofs import SwitchingWitness
from certes.systems import System
from certes.verify.attained import attained, beyond, jacobian, negative, slope_box, unshifted
from certes.verify.exponential import exponential, power
from certes.verify.intervals import Box
from certes.verify.motion import MOST_STEPS, NEAR, PART, Motion, longest_step
from certes.verify.question import arrays_of, definite_check, inputs, leak_bounds
from certes.verify.reduction import NormalForm, dense
from certes.verify.report import Check, Report, judged

Array = NDArray[np.float64]

#: Most modes of a schedule, and fewest time steps that a ramp or a mode is integrated with.
_MOST_MODES, _FEWEST_STEPS = 1000, 4


@dataclass(frozen=True, eq=False)
class Switching:
    """Does ``witness`` refute ``system``?"""

    system: System
    witness: SwitchingWitness

    @property
    def steered(self) -> bool:
        """Whether the arguments of phi are the state itself, which the input steers."""
        return self.system.form == "hopfield"

    @property
    def ramped(self) -> bool:
        """Whether the arguments of phi cannot jump."""
        return self.steered and self.system.continuous


def _fits(case: Switching) -> bool:
    witness, n, m = case.witness, case.system.size, len(case.system.slope.lower)
    modes = len(witness.durations)
    tables = witness.points.shape == witness.slopes.shape == (modes, m) and witness.lyapunov.shape == (n, n)
    vectors = all(vector.shape == (n,) for vector in (witness.direction, witness.start, witness.start_other))
    return tables and vectors and 1 <= modes <= _MOST_MODES


def slopes(case: Switching) -> Check:
    """The slopes are attained: phi'(s), away from kinks if phi is piecewise linear; or inside a bare interval.

    A bare interval: mode k has the points k, so that one piecewise linear function of the class has all the slopes.
    """
    witness = case.witness
    if case.system.slope.activation is None:
        own = np.broadcast_to(np.arange(len(witness.points), dtype=np.float64)[:, None], witness.points.shape)
        if not np.array_equal(witness.points, own):
            return Check("slopes", False, "with a bare slope interval the points of mode k are k, from 0")
    return attained(case.system, witness.points, witness.slopes)


def schedule(case: Switching) -> Check:
    """Durations > 0, whole numbers of steps for a map; a ramp > 0 for a hopfield flow, 0 otherwise."""
    times, ramp = case.witness.durations, case.witness.ramp
    held = bool((times > 0).all() and np.isfinite(times).all()) and (0.0 < ramp < np.inf if case.ramped else ramp == 0)
    if not case.system.continuous:
        held = held and bool((times <= MOST_STEPS).all() and (times == np.round(times)).all())
    return Check("schedule", held, "positive durations (whole numbers of steps for a map), a ramp where one is needed")


def _flow(case: Switching, matrix: Box, duration: float) -> Box:
    """exp(J t), or J^t of a map."""
    if case.system.continuous:
        return exponential(matrix * Box.exact(duration))
    return power(matrix, int(duration))


def orbit(case: Switching) -> Check:
    """A bounded periodic orbit with the arguments s(t) exists."""
    system = case.system
    if system.form == "lure":
        form, closing = unshifted(system), Box.exact(np.eye(system.size))
        for duration in case.witness.durations:
            closing = _flow(case, dense(form.A), float(duration)) @ closing
        open_ = Box.exact(np.eye(system.size)) - closing
        return definite_check("orbit", open_.T @ open_, "the linear part does not have the period for a period")
    stable = case.steered or system.continuous or all(leak < 2 for leak in leak_bounds(system)[1])
    return Check("orbit", stable, "a periodic orbit exists (maps of rate form: step / tau below 2)")


def _bound(form: NormalForm, system: System) -> Array:
    """N with abs(J(D)) <= N entry by entry for all slopes D, shape (n, n)."""
    A, B, C = (Box.exact(dense(part).magnitude) for part in (form.A, form.B, form.C))
    return (A + (B * Box.exact(system.slope.bound)[None, :]) @ C).magnitude


def monodromy(case: Switching) -> Box:
    """M of the module docstring, enclosed: the derivative of the map over one period."""
    system, witness, form = case.system, case.witness, unshifted(case.system)
    one = Box.exact(np.eye(system.size))
    change = one
    if case.ramped:
        grown = exponential(Box.exact(_bound(form, system)) * Box.exact(witness.ramp)) - one
        change = Box(one.mid, grown.magnitude)
    D, product = slope_box(system, witness.points, witness.slopes), one
    for k, duration in enumerate(witness.durations):
        product = _flow(case, jacobian(form, Box(D.mid[k], D.rad[k])), float(duration)) @ product
        product = change @ product if case.ramped else product
    return product


def lyapunov(case: Switching) -> Check:
    """X is symmetric and certifies that no eigenvalue of M has modulus sigma >= 1."""
    words = f"sigma^2 X - M^T X M > 0 at sigma = {case.witness.growth!r} per period"
    return beyond("lyapunov", case.witness.lyapunov, case.witness.growth, monodromy(case), words)


def direction(case: Switching) -> Check:
    """v^T X v < 0."""
    return negative(case.witness.lyapunov, case.witness.direction)


def _phi(case: Switching) -> Callable[[Array], Array]:
    """The activation; or the member of a bare class that has slope D_j from j - 1/2 to j + 1/2, and phi(0) = 0."""
    if (entry := case.system.slope.activation) is not None:
        return entry.function
    first, changes = case.witness.slopes[0], np.diff(case.witness.slopes, axis=0)

    def member(s: Array) -> Array:
        value = first[:, None] * s
        for k, change in enumerate(changes):
            value = value + change[:, None] * np.maximum(s - (k + 0.5), 0.0)
        return np.asarray(value)

    return member


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of the period: ``count`` steps of length ``step`` (of a map: of one) under one law of the input.

    ``motion`` takes the reference orbit from the first column of the states, and its input from that.
    """

    motion: Motion
    count: int
    step: float


def _pieces(case: Switching) -> Iterator[Piece]:
    """One period. The reference state, column 0, sees the points: u = s - C x, or steers itself along the path."""
    system, witness, phi = case.system, case.witness, _phi(case)
    longest = longest_step(float(np.linalg.norm(_bound(unshifted(system), system), 2)))
    targets = np.roll(witness.points, -1, axis=0)
    for points, target, duration in zip(witness.points, targets, witness.durations, strict=True):
        if not case.steered:
            yield _piece(case, Motion(system, phi, _clamp(system, points[:, None])), duration, longest)
            continue
        still = Motion(system, phi, _steer(system, phi, 0.0 * points[:, None]))
        last = witness.ramp if case.ramped else 1.0
        across = last if system.step is None else system.step
        moving = Motion(system, phi, _steer(system, phi, (target - points)[:, None] / across))
        yield _piece(case, still, duration if case.ramped else duration - 1.0, longest)
        yield _piece(case, moving, last, longest)


def _piece(case: Switching, motion: Motion, duration: float, longest: float) -> Piece:
    if not case.system.continuous:
        return Piece(motion, int(duration), 1.0)
    if not duration / longest <= MOST_STEPS:
        return Piece(motion, MOST_STEPS + 1, longest)
    count = max(_FEWEST_STEPS, int(np.ceil(duration / longest)))
    return Piece(motion, count, duration / count)


def _clamp(system: System, points: Array) -> Callable[[Array], Array]:
    """u = s - W x along the reference: phi sees s there (lure: C for W)."""
    weights = system.matrix("W" if system.form == "rate" else "C")
    return lambda states: points - weights @ states[:, :1]


def _steer(system: System, phi: Callable[[Array], Array], velocity: Array) -> Callable[[Array], Array]:
    """u = T x' + x - W phi(x) along the reference, at a given x'."""
    tau, weights = system.tau[:, None], system.matrix("W")
    return lambda states: tau * velocity + states[:, :1] - weights @ phi(states[:, :1])


def _centre(witness: SwitchingWitness) -> Array:
    return (witness.start[:, None] + witness.start_other[:, None]) / 2.0


def steps_of(case: Switching) -> int:
    """Time steps that the replay of one period takes."""
    return sum(piece.count for piece in _pieces(case))


def measured_input(case: Switching) -> tuple[float, Array]:
    """The largest modulus of an entry of the input, in float64, and where the orbit is after one period."""
    state, largest = _centre(case.witness), 0.0
    for piece in _pieces(case):
        for _ in range(piece.count):
            largest = max(largest, float(np.abs(piece.motion.input(state)).max()))
            state = piece.motion.advance(state, piece.step)
            if case.system.continuous:
                largest = max(largest, float(np.abs(piece.motion.input(state)).max()))
    return largest, state


def input_size(case: Switching) -> Check:
    """The midpoint of the starts lies on the periodic orbit, and no input entry is larger than stated."""
    if not steps_of(case) <= MOST_STEPS:
        return Check("input", False, f"at most {MOST_STEPS} steps of simulation")
    centre, (largest, end) = _centre(case.witness), measured_input(case)
    near = NEAR * (1.0 + np.abs(centre).max())
    held = bool(np.abs(end - centre).max() <= near)
    if case.steered:
        held = held and bool(np.abs(case.witness.points[0][:, None] - centre).max() <= near)
    held = held and largest <= case.witness.largest_input * (1.0 + NEAR) < np.inf
    return Check("input", held, f"the orbit closes, under a periodic input of entries up to {largest:.6g}")


def parting(case: Switching) -> Check:
    """Simulated in float64, the two trajectories end at least 10 times as far apart as they started."""
    witness, pieces = case.witness, list(_pieces(case))
    if not (witness.periods >= 1.0 and Fraction(witness.periods).denominator == 1):
        return Check("parting", False, "a whole number of periods")
    if not witness.periods * steps_of(case) <= MOST_STEPS:
        return Check("parting", False, f"at most {MOST_STEPS} steps of simulation")
    states = np.column_stack([_centre(witness), witness.start, witness.start_other])
    initial = float(np.linalg.norm(states[:, 1] - states[:, 2]))
    for _ in range(int(witness.periods)):
        states[:, :1] = _centre(witness)  # the input repeats itself, also if rounding moves the reference
        for piece in pieces:
            for _ in range(piece.count):
                states = piece.motion.advance(states, piece.step)
    final = float(np.linalg.norm(states[:, 1] - states[:, 2]))
    held = 0 < initial < np.inf and final >= PART * initial
    return Check("parting", held, f"distance {initial:.3g} grows to {final:.3g}")


OBLIGATIONS: tuple[Callable[[Switching], Check], ...] = (
    slopes,
    schedule,
    orbit,
    lyapunov,
    direction,
    input_size,
    parting,
)


def verify_switching(system: System, witness: SwitchingWitness) -> Report:
    """Verify that ``witness`` shows ``system`` not contracting.

    Args:
        system: the network as given, dense weights.
        witness: modes and durations, a Lyapunov matrix, a direction, and two starts.

    Returns:
        A report with verdict ``not_contracting`` if and only if every obligation held.
    """
    return judged("not_contracting", _checks(Switching(system, witness)))


def _checks(case: Switching) -> Iterator[Check]:
    if (failed := inputs(case.system, arrays_of(case.witness))) is not None:
        yield failed
    elif case.system.is_sparse or not _fits(case):
        yield Check("shapes", False, "dense weights; s, D (k, m); durations (k,); v, starts (n,); X (n, n)")
    else:
        for obligation in OBLIGATIONS:
            yield obligation(case)
