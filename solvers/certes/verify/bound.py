"""When do columns show that no certificate of the condition ``lure`` reaches a level? The numbered obligations.

    1. shapes     the numbers fit the system, the system is one this kind of bound speaks of, some column is not zero
    2. points     conic: |u_k| <= 1, exactly
    3. columns    conic, norm: one inequality for every neuron i (below)
       states     lure: S > 0, by one Cholesky
       channels   lure: one inequality for every nonlinearity i

A bound says: no P > 0 and diagonal Q > 0 make the Lur'e block positive definite at a rate >= level (a factor <= level),
for the system with exactly its step and time constants. Such P, Q would serve the level itself. With leak 1 / tau,
resp. a = step / tau and e = 1 - a, and M = diag(g) W (rate) or diag(g) W^T (hopfield: the transposed system has the
same levels), they would give the following, and a weighted sum over i with the entries q_i > 0 of Q contradicts it:

    conic   one tau, slopes [0, g]: t Q - Re(h Q M) > 0 for every h = c0 + r0 u, |u| <= 1 (Re: Hermitian part), where
            c0 = r0 = 1/2, t = 1 - c tau, resp. c0 = e, r0 = rho, t = (rho^2 - e^2) / a;
            bound: sum_k Re(h_k conj(y_ik) (M y_k)_i) - t |y_ik|^2 >= 0
    norm    one tau, slopes [-g, g]: s^2 Q - M^T Q M > 0, s = 1 - c tau, resp. (rho - |e|) / a;
            bound: sum_k (M y_k)_i^2 - s^2 y_ik^2 >= 0
    lure    any system, normal form A, B, C (transposed if ``dual``), G = diag(gap): the block itself, applied to the
            columns [x_k; v_k]; with X = [x_k], V = [v_k], D = A X + B V,
            S = D X^T + X D^T + 2 c X X^T, resp. D D^T - rho^2 X X^T;
            bound: S > 0 and sum_k (G C x_k)_i v_ik - v_ik^2 >= 0

A row of zeros satisfies its inequality as 0 >= 0. States that stay at 0 (rows of X that are zero, and that no entry of
A or B drives) are left out of S. Nothing outpaces the leak: if slope 0 is allowed, J = -T^-1 (a map: I - diag(a)) is
among the Jacobians, so no certificate has a rate >= 1 / tau_i or a factor <= |1 - a_i|, whatever the columns.

Sources: duality of semidefinite programs (S. Boyd, L. Vandenberghe, Convex Optimization, 2004, section 5.8), applied to
the inequality of A. Gokhale, A. Proskurnikov, Y. Kawano, F. Bullo (arXiv 2604.00119).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certes.proofs import BoundProof, ConicBound, LevelBound, LureBound, NormBound
from certes.systems import System
from certes.verify.intervals import Array, Box, U, upward
from certes.verify.question import arrays_of, definite_check, inputs
from certes.verify.reduction import NormalForm, Operator, dense, enclose, premultiply
from certes.verify.report import Check, Report, judged

Mask = NDArray[np.bool_]
Obligation = Callable[[System, float, Any], Check]


def _leaks(system: System) -> list[Fraction]:
    """1 / tau (continuous) or step / tau (map), exact, one per distinct time constant."""
    step = Fraction(1.0 if system.step is None else system.step)
    return [step / Fraction(float(tau)) for tau in np.unique(system.tau)]


def beyond_leak(system: System, value: float) -> bool:
    """Whether slope 0, which the slopes must allow, alone keeps every certificate from the level."""
    if system.form == "lure" or bool((system.slope.lower > 0).any() or (system.slope.upper < 0).any()):
        return False
    asked = Fraction(value)
    return any(asked >= leak if system.continuous else asked <= abs(1 - leak) for leak in _leaks(system))


def _box(value: Fraction) -> Box:
    """A rational number as a box of shape (1,); with an infinite radius, which proves nothing, beyond the floats."""
    try:
        mid = np.array([float(value)])
    except OverflowError:
        mid = np.array([np.inf])
    return Box(mid, upward(U * np.abs(mid)))


def _weighted(system: System, columns: Array) -> Box:
    """M Y = diag(g) W Y (rate) or diag(g) W^T Y (hopfield); Y of shape (n, r)."""
    weights = Box.exact(system.matrix("W"))
    product = (weights.T if system.form == "hopfield" else weights) @ Box.exact(columns)
    return product * Box.exact(system.slope.upper)[:, None]


def _occupied(columns: Array) -> Mask:
    """The rows that are not all zero."""
    return np.asarray((columns != 0).any(axis=1))


def _every_row(name: str, terms: Box, occupied: Mask, detail: str) -> Check:
    """Every row of terms (n, r) has a sum >= 0; rows that are not occupied are 0 exactly."""
    sums = terms @ Box.exact(np.ones((terms.mid.shape[1], 1)))
    # a sum that overflowed compares as inf >= inf: it shows nothing
    held = (np.isfinite(sums.rad) & (sums.mid >= sums.rad))[:, 0] | ~occupied
    return Check(name, bool(held.all()), detail)


def conic_shapes(system: System, value: float, proof: ConicBound) -> Check:
    """One tau, slopes [0, g], weights W; points (r,), columns (n, r), not all zero."""
    held = system.form != "lure" and system.uniform_tau and not system.slope.lower.any()
    count = proof.cosine.shape[0]
    held = held and proof.sine.shape == (count,) and proof.real.shape == proof.imaginary.shape == (system.size, count)
    held = held and bool(proof.real.any() or proof.imaginary.any())
    return Check("bound-shapes", held, "one time constant, slopes [0, g]; points (r,); columns (n, r), not all zero")


def conic_points(system: System, value: float, proof: ConicBound) -> Check:
    """cosine^2 + sine^2 <= 1, as exact rationals."""
    pairs = zip(proof.cosine.tolist(), proof.sine.tolist(), strict=True)
    held = all(Fraction(cosine) ** 2 + Fraction(sine) ** 2 <= 1 for cosine, sine in pairs)
    return Check("bound-points", held, "|u_k| <= 1")


def conic_columns(system: System, value: float, proof: ConicBound) -> Check:
    """sum_k Re(h_k conj(y_ik) (M y_k)_i) - t |y_ik|^2 >= 0 for every neuron i."""
    asked, leak = Fraction(value), _leaks(system)[0]
    if system.continuous:
        c0, r0, t = Fraction(1, 2), Fraction(1, 2), 1 - asked / leak
    else:
        c0, r0, t = 1 - leak, asked, (asked**2 - (1 - leak) ** 2) / leak
    h_real = _box(c0) + _box(r0) * Box.exact(proof.cosine)
    h_imaginary = _box(r0) * Box.exact(proof.sine)
    real, imaginary = Box.exact(proof.real), Box.exact(proof.imaginary)
    m_real, m_imaginary = _weighted(system, proof.real), _weighted(system, proof.imaginary)
    terms = h_real[None, :] * (real * m_real + imaginary * m_imaginary)
    terms = terms - h_imaginary[None, :] * (real * m_imaginary - imaginary * m_real)
    terms = terms - _box(t) * (real * real + imaginary * imaginary)
    occupied = _occupied(proof.real) | _occupied(proof.imaginary)
    return _every_row("bound-columns", terms, occupied, "sum Re(h conj(y_i) (M y)_i) - t |y_i|^2 >= 0 for every i")


def norm_shapes(system: System, value: float, proof: NormBound) -> Check:
    """One tau, slopes [-g, g], weights W; columns (n, r), not all zero."""
    held = system.form != "lure" and system.uniform_tau and bool((system.slope.lower == -system.slope.upper).all())
    held = held and proof.columns.shape[0] == system.size and bool(proof.columns.any())
    return Check("bound-shapes", held, "one time constant, slopes [-g, g]; columns (n, r), not all zero")


def norm_columns(system: System, value: float, proof: NormBound) -> Check:
    """sum_k (M y_k)_i^2 - s^2 y_ik^2 >= 0 for every neuron i."""
    asked, leak = Fraction(value), _leaks(system)[0]
    s = 1 - asked / leak if system.continuous else (asked - abs(1 - leak)) / leak
    columns, image = Box.exact(proof.columns), _weighted(system, proof.columns)
    terms = image * image - _box(s**2) * (columns * columns)
    return _every_row(
        "bound-columns", terms, _occupied(proof.columns), "sum (M y)_i^2 - s^2 y_i^2 >= 0 for every neuron i"
    )


def _form(system: System, proof: LureBound) -> tuple[NormalForm, Array, Array]:
    """The normal form (transposed if dual), X and V."""
    form = enclose(system)
    return form.dual if proof.dual else form, proof.columns[: system.size], proof.columns[system.size :]


def _drives(operator: Operator, target: Mask, source: Mask) -> bool:
    """Whether any entry from ``source`` to ``target`` may differ from 0."""
    entries = dense(operator)
    return bool((entries.mid[target][:, source] != 0).any() or (entries.rad[target][:, source] != 0).any())


def lure_shapes(system: System, value: float, proof: LureBound) -> Check:
    """Columns (n + m, r), some state not zero; states that are zero stay so."""
    rows = system.size + len(system.slope.lower)
    held = proof.columns.shape[0] == rows and bool(proof.columns[: system.size].any())
    if held:
        form, X, V = _form(system, proof)
        moving, acting = _occupied(X), _occupied(V)
        held = not (_drives(form.A, ~moving, moving) or _drives(form.B, ~moving, acting))
    return Check("bound-shapes", held, "columns (n + m, r), some state not zero; states that are zero are not driven")


def lure_states(system: System, value: float, proof: LureBound) -> Check:
    """S > 0 on the states that are not zero (on the others it vanishes)."""
    form, X, V = _form(system, proof)
    moving, asked = _occupied(X), Box.exact(value)
    drive = premultiply(form.A, Box.exact(X)) + premultiply(form.B, Box.exact(V))
    drive, state = Box(drive.mid[moving], drive.rad[moving]), Box.exact(X[moving])
    if system.continuous:
        half = (drive + state * asked) @ state.T
    else:
        half = drive @ drive.T - (state * asked) @ (state * asked).T
    return definite_check("bound-states", half + half.T, "S > 0")


def lure_channels(system: System, value: float, proof: LureBound) -> Check:
    """sum_k (G C x_k)_i v_ik - v_ik^2 >= 0 for every nonlinearity i."""
    form, X, V = _form(system, proof)
    seen, given = premultiply(form.C, Box.exact(X)) * form.gap[:, None], Box.exact(V)
    terms = seen * given - given * given
    return _every_row("bound-channels", terms, _occupied(V), "sum (G C x)_i v_i - v_i^2 >= 0 for every i")


OBLIGATIONS: dict[type[BoundProof], tuple[Obligation, ...]] = {
    ConicBound: (conic_shapes, conic_points, conic_columns),
    NormBound: (norm_shapes, norm_columns),
    LureBound: (lure_shapes, lure_states, lure_channels),
}


def verify_bound(system: System, bound: LevelBound) -> Report:
    """Verify that no certificate of the condition ``lure`` has a rate >= the level, resp. a factor <= the level.

    This is a statement about what can be proven by that condition, and no yes or no about contraction.

    Args:
        system: the network as given, dense weights.
        bound: the level and its proof.

    Returns:
        A report whose ``valid`` says whether the bound is proven; its verdict is ``undecided`` either way. Checking
        stops at the first obligation that does not hold.
    """
    return judged("undecided", _checks(system, bound.level, bound.proof))


def _checks(system: System, value: float, proof: BoundProof) -> Iterator[Check]:
    if type(proof) not in OBLIGATIONS or system.is_sparse:
        yield Check("bound-kind", False, "dense weights, and a bound of kind conic, norm or lure")
    elif (failed := inputs(system, (*arrays_of(proof), np.array([value])))) is not None:
        yield failed
    else:
        shapes, *rest = OBLIGATIONS[type(proof)]
        yield shapes(system, value, proof)
        if beyond_leak(system, value):
            yield Check("bound-leak", True, "beyond the leak, which nothing outpaces")
            return
        for obligation in rest:
            yield obligation(system, value, proof)
