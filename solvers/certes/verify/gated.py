"""When does a proof show that a gated cell contracts over its box of inputs? The numbered obligations.

Let X be the declared box of inputs, S the box of states of the proof, F the cell's map, r > 0. For x, y in S and one
input in X, the segment between them lies in S, so each entry of F(x) - F(y) is a mean of the entries of the Jacobian
along it applied to x - y, and

    |F(x) - F(y)|_i <= sup over S, X of (sum_j |J_ij| r_j)  max_j |x_j - y_j| / r_j

    1. range      0 < rho < 1, and nothing else is claimed
    2. shapes     a box X is declared; lower <= upper; 0 < r <= 1; a whole number of steps
    3. starts     the box of starts holds c = 0 and every |h| <= 1; LSTM: and F maps it into itself
    4. invariant  F maps S x X into S
    5. entry      F maps the box of starts into S in the stated number of steps
    6. rate       sup over S, X of sum_j |J_ij| r_j <= rho r_i in every row i

4 keeps every trajectory in S, so 6 gives max_i |x_i - y_i| / r_i <= rho^t its first value for every two trajectories
that start in S, and by 5 for every two that start in the box of starts, from that step on. 4 for a GRU: h+ lies between
n and h, so it is enough that n stays in S. Nothing is said of trajectories that start elsewhere.

3 forbids a box of starts so small that hardly anything is said. It holds what torch starts with, and every fixed point
under every admissible input: a GRU's has h = n, an LSTM's |h| < 1 and c = i g / (1 - f), and f c + i g <= c at the
upper end of an interval that is mapped into itself says i g / (1 - f) <= c there (the lower end likewise). So no cell
is both proven here and refuted by :mod:`~certes.verify.gated_instability`.

The rows of J, D for a derivative (p' = p (1 - p) of a gate, 1 - y^2 of a tanh), d_ij = 1 if i = j:

    GRU     z d_ij + (1 - z) Dn (r U_n + q Dr U_r)_ij + (h - n) Dz U_z,ij                  q = U_n h + c_n
    LSTM c  f on c_i;    (c Df U_f + g Di U_i + i Dg U_g)_ij on h_j
    LSTM h  o Dt times row c, t = tanh(c+);    t Do U_o,ij on h_j besides

The sum of absolute values is convex in each of z, Dn, r, q Dr, (h - n) Dz (resp. o Dt, c Df, g Di, i Dg, t Do) while
the others are held, so its supremum over a box of those is attained at a corner; every gate that appears beside its own
slope is cut into pieces first. Everything is enclosed outwards, entry by entry, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from certes.cells import GatedNetwork
from certes.proofs import Claims, GatedProof
from certes.verify.arithmetic import is_normal, rounds_to_nearest
from certes.verify.elementary import (
    Interval,
    exact,
    hull,
    joined,
    logistic,
    logistic_slope,
    tanh,
    tanh_slope,
)
from certes.verify.intervals import Box, U, upward
from certes.verify.question import arrays_of
from certes.verify.report import Check, Report, judged

Array = NDArray[np.float64]

#: Most steps from the box of starts into the invariant box.
MOST_STEPS = 500
#: Pieces that a gate is cut into where it appears beside its own slope.
PIECES = {"gru": 4, "lstm": 2}


@dataclass(frozen=True, eq=False)
class GatedQuestion:
    """Does ``proof`` show that ``cell`` contracts over its box, and do ``claims`` follow?"""

    cell: GatedNetwork
    proof: GatedProof
    claims: Claims

    @property
    def states(self) -> Interval:
        """The invariant box."""
        return Interval(self.proof.lower, self.proof.upper)


def admissible(cell: GatedNetwork) -> Interval:
    """The declared box of inputs."""
    assert cell.inputs is not None  # an obligation of its own
    return Interval(*cell.inputs)


@dataclass(frozen=True, eq=False)
class Gates:
    """Everything inside a cell, enclosed, each of shape (n,).

    Attributes:
        values: GRU: r, z, n; LSTM: i, f, g, o.
        inner: GRU: q = U_n h + c_n; LSTM: c.
    """

    values: tuple[Interval, ...]
    inner: Interval


def _affine(matrix: Array, offset: Array, vector: Interval) -> Interval:
    found = Box.exact(matrix) @ vector.box[:, None]
    return Interval.of(Box(found.mid[:, 0], found.rad[:, 0])) + exact(offset)


def gates(cell: GatedNetwork, states: Interval, inputs: Interval) -> Gates:
    """The gates over boxes of states and inputs."""
    n = cell.size
    driven = _affine(cell.stacked("W"), cell.stacked("b"), inputs)
    fed = _affine(cell.stacked("U"), cell.stacked("c"), states[-n:])
    parts = [slice(k * n, (k + 1) * n) for k in range(cell.gates)]
    if cell.form == "gru":
        both, inner = logistic(driven[: 2 * n] + fed[: 2 * n]), fed[parts[2]]
        reset, update = both[parts[0]], both[parts[1]]
        return Gates((reset, update, tanh(driven[parts[2]] + reset * inner)), inner)
    enter, forget, new, leave = (driven[part] + fed[part] for part in parts)
    three = logistic(joined(enter, forget, leave))
    return Gates((three[parts[0]], three[parts[1]], tanh(new), three[parts[2]]), states[:n])


def image(cell: GatedNetwork, states: Interval, inputs: Interval) -> Interval:
    """A box around F(states x inputs)."""
    inside = gates(cell, states, inputs)
    if cell.form == "gru":
        _, update, new = inside.values
        ends = (exact(update.lower), exact(update.upper))  # affine in z: extremes at its ends
        return hull(*[(exact(np.ones(cell.size)) - end) * new + end * states for end in ends])
    enter, forget, new, leave = inside.values
    inner = forget * inside.inner + enter * new
    seen = leave * tanh(inner)  # real numbers in [-1, 1], whatever the rounding adds
    return joined(inner, Interval(np.clip(seen.lower, -1.0, 1.0), np.clip(seen.upper, -1.0, 1.0)))


@dataclass(frozen=True, eq=False)
class Corner:
    """A corner of the box of coefficients, for the rows of one part of the state (row i has its own corner's entry i).

    Attributes:
        part: 0 for the first n rows, 1 for the second.
        own: coefficient of state i of the first part, shape (n,).
        terms: (gate whose recurrent rows are multiplied, coefficient of shape (n,)).
    """

    part: int
    own: Box
    terms: tuple[tuple[int, Box], ...]


def _pieces(whole: Interval, count: int) -> list[Interval]:
    """Intervals that cover ``whole``: neighbours share an end."""
    width = whole.upper - whole.lower
    cuts = [whole.lower + width * (k / count) for k in range(1, count)]
    ends = [whole.lower, *[np.clip(cut, whole.lower, whole.upper) for cut in cuts], whole.upper]
    return [Interval(np.minimum(a, b), np.maximum(a, b)) for a, b in pairwise(ends)]


def _ends(*given: Interval) -> Iterator[tuple[Box, ...]]:
    """Every choice of one end of each interval."""
    for chosen in product(*[(part.lower, part.upper) for part in given]):
        yield tuple(Box.exact(end) for end in chosen)


def corners(cell: GatedNetwork, states: Interval, inputs: Interval) -> Iterator[Corner]:
    """Corners whose rows bound those of every Jacobian over the boxes."""
    inside = gates(cell, states, inputs)
    yield from (_gru_corners if cell.form == "gru" else _lstm_corners)(inside, states, PIECES[cell.form])


def _gru_corners(inside: Gates, states: Interval, count: int) -> Iterator[Corner]:
    reset, update, new = inside.values
    one, apart, steep = Box.exact(1.0), states - new, tanh_slope(new)
    for z, r in product(_pieces(update, count), _pieces(reset, count)):
        moved, pulled = apart * logistic_slope(z), inside.inner * logistic_slope(r)
        for kept, slope, through, turned, shifted in _ends(z, steep, r, pulled, moved):
            fresh = (one - kept) * slope
            yield Corner(0, kept, ((2, fresh * through), (0, fresh * turned), (1, shifted)))


def _lstm_corners(inside: Gates, states: Interval, count: int) -> Iterator[Corner]:
    enter, forget, new, leave = inside.values
    out = tanh(forget * inside.inner + enter * new)
    steep = tanh_slope(out)
    for f, i, g in product(*[_pieces(gate, count) for gate in (forget, enter, new)]):
        kept = Box.exact(f.upper)  # nonnegative, and alone on its column: its upper end is the worst
        inner = (inside.inner * logistic_slope(f), g * logistic_slope(i), i * tanh_slope(g))
        for by_f, by_i, by_g in _ends(*inner):
            yield Corner(0, kept, ((1, by_f), (0, by_i), (2, by_g)))
        for o in _pieces(leave, count):
            for seen, by_f, by_i, by_g, by_o in _ends(o * steep, *inner, out * logistic_slope(o)):
                terms = ((1, seen * by_f), (0, seen * by_i), (2, seen * by_g), (3, by_o))
                yield Corner(1, seen * kept, terms)


def row_sums(cell: GatedNetwork, states: Interval, inputs: Interval, weights: Array) -> Array:
    """Upper bounds of sup over the boxes of sum_j |J_ij| r_j, one per row; shape of ``weights``, entries in (0, 1]."""
    n = cell.size
    matrices = [cell.gate("U", k) for k in range(cell.gates)]
    hidden = weights[-n:]
    spread = [upward(np.abs(matrix) @ hidden, 4 * n) for matrix in matrices]
    sums = np.zeros((cell.parts, n))
    for corner in corners(cell, states, inputs):
        rows = np.zeros((n, n))
        slack = _doubt(corner.own) * weights[:n]
        for gate, coefficient in corner.terms:
            rows += coefficient.mid[:, None] * matrices[gate]
            slack = slack + _doubt(coefficient) * spread[gate]
        if cell.form == "gru":
            rows[np.diag_indices(n)] += corner.own.mid
        else:
            slack = slack + np.abs(corner.own.mid) * weights[:n]
        total = upward(np.abs(rows) @ hidden + slack, 8 * n)
        sums[corner.part] = np.maximum(sums[corner.part], total)
    return np.asarray(sums.ravel())


def _doubt(coefficient: Box) -> Array:
    """Radius of a coefficient, and at most 12 roundings of each entry of a row that it is a summand of."""
    return np.asarray(coefficient.rad + 16.0 * U * np.abs(coefficient.mid))


def claim_range(question: GatedQuestion) -> Check:
    """0 < rho < 1, and no other claim."""
    claims = question.claims
    held = claims.factor is not None and 0 < claims.factor < 1 and claims == Claims(factor=claims.factor)
    return Check("range", held, f"factor 0 < {claims.factor!r} < 1, and no other claim")


def shapes(question: GatedQuestion) -> Check:
    """A box of inputs; lower <= upper; 0 < r <= 1; a whole number of steps."""
    cell, proof = question.cell, question.proof
    vectors = (proof.start_lower, proof.start_upper, proof.lower, proof.upper, proof.weights)
    held = cell.inputs is not None and all(vector.shape == (cell.states,) for vector in vectors)
    held = held and bool((proof.lower <= proof.upper).all() and (proof.start_lower <= proof.start_upper).all())
    held = held and bool((proof.weights > 0.0).all() and (proof.weights <= 1.0).all())
    held = held and proof.steps in range(MOST_STEPS + 1)
    detail = f"declared inputs; boxes of {cell.states} states; 0 < r <= 1; at most {MOST_STEPS} whole steps"
    return Check("shapes", bool(held), detail)


def starts(question: GatedQuestion) -> Check:
    """The box of starts holds what torch starts with and every fixed point."""
    cell, proof = question.cell, question.proof
    n, box = cell.size, Interval(proof.start_lower, proof.start_upper)
    held = bool((box.lower[-n:] <= -1.0).all() and (box.upper[-n:] >= 1.0).all())
    detail = "the box of starts holds every |h| <= 1"
    if cell.form == "lstm":
        held = held and bool((box.lower <= 0.0).all() and (box.upper >= 0.0).all())
        held = held and bool(image(cell, box, admissible(cell)).within(box).all())
        detail += " and c = 0, and the cell maps it into itself"
    return Check("starts", held, detail)


def invariant(question: GatedQuestion) -> Check:
    """No trajectory leaves the box under an admissible input."""
    cell, states = question.cell, question.states
    inputs = admissible(cell)
    found = gates(cell, states, inputs).values[2] if cell.form == "gru" else image(cell, states, inputs)
    return Check("invariant", bool(found.within(states).all()), "the cell maps the box of states into itself")


def entry(question: GatedQuestion) -> Check:
    """From the box of starts into the invariant box in the stated number of steps."""
    cell, proof = question.cell, question.proof
    reached, inputs = Interval(proof.start_lower, proof.start_upper), admissible(cell)
    for _ in range(int(proof.steps)):
        reached = image(cell, reached, inputs)
    held = bool(reached.within(question.states).all())
    return Check("entry", held, f"every start is in the box of states after {proof.steps:.0f} steps")


def rate(question: GatedQuestion) -> Check:
    """sup of sum_j |J_ij| r_j <= rho r_i in every row."""
    cell, weights, factor = question.cell, question.proof.weights, question.claims.factor or 0.0
    sums = row_sums(cell, question.states, admissible(cell), weights)
    room = factor * weights * (1.0 - 8.0 * U)  # below rho r: normal (a bound is 2^-1016 at least), and rounded twice
    held = bool((sums <= room).all())
    excess = float(np.max(sums / weights)) - factor
    return Check("rate", held, "sum_j |J_ij| r_j <= rho r_i in every row", None if held else excess)


OBLIGATIONS: tuple[Callable[[GatedQuestion], Check], ...] = (claim_range, shapes, starts, invariant, entry, rate)


def numbers(cell: GatedNetwork, *arrays: Array) -> Check | None:
    """A failed check unless the arithmetic is the assumed one and every number is finite and not subnormal."""
    if not rounds_to_nearest(cell.size):
        return Check("arithmetic", False, "this process does not round to nearest (a library changed the mode)")
    box = () if cell.inputs is None else cell.inputs
    if not is_normal(*[cell.stacked(role) for role in cell.tensors], *box, *arrays):
        return Check("inputs", False, "weights, box and proof are finite, and no entry is subnormal")
    return None


def verify_gated(cell: GatedNetwork, proof: GatedProof, claims: Claims) -> Report:
    """Verify that ``proof`` shows ``cell`` contracting over its box of inputs with all of ``claims``.

    Args:
        cell: the cell as given, with its declared box.
        proof: boxes of states, weights of the norm.
        claims: the factor, and nothing else.

    Returns:
        A report with verdict ``contracting`` if and only if every obligation held; checking stops at the first that
        does not.
    """
    return judged("contracting", _checks(GatedQuestion(cell, proof, claims)))


def _checks(question: GatedQuestion) -> Iterator[Check]:
    stated = [question.claims.factor] if question.claims.factor is not None else []
    if type(question.proof) is not GatedProof:
        yield Check("condition", False, "a gated cell is proven by a proof of kind gated")
    elif (failed := numbers(question.cell, *arrays_of(question.proof), np.array(stated))) is not None:
        yield failed
    else:
        for obligation in OBLIGATIONS:
            yield obligation(question)
