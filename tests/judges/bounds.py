"""A brute judge of bounds on what ``lure`` can prove, in rational arithmetic.

Whatever its kind, a bound becomes weighted complex columns (x, v) for the Lur'e block itself: conic columns with
v = (t / h) x, norm columns with v = s x + G C x. For every P and Q the block then has the value -<P, S> - 2 <q, d>:

    d_i = sum w Re((G C x)_i conj(v_i)) - w |v_i|^2
    S = sum w Re((A x + B v) x* + x (A x + B v)* + 2 c x x*), for a map sum w Re((A x + B v)(A x + B v)* - rho^2 x x*)

so S >= 0 (by elimination) and d >= 0 leave no room for a positive definite block.
"""

from __future__ import annotations

import numpy as np
from certes.proofs import ConicBound, LevelBound, LureBound, NormBound
from certes.systems import System
from flint import fmpq

from tests.judges.rational import Q, Rows, combine, dense, diag, exact, flip, leak, rows, semidefinite, times

Complex = tuple[fmpq, fmpq]
Column = tuple[fmpq, list[Complex], list[Complex]]


def form_of(system: System, dual: bool) -> tuple[Rows, Rows, Rows, list[fmpq]]:
    """A, B, C and the gap after the shift to slopes from 0, transposed if dual."""
    one = diag([Q(1)] * system.size)
    lower, upper = ([exact(x) for x in side] for side in (system.slope.lower, system.slope.upper))
    if system.form == "lure":
        A, B, C = (dense(system, role) for role in "ABC")
        if system.step is not None:
            A, B = combine((1, one), (exact(system.step), A)), combine((exact(system.step), B))
    else:
        a, W = diag(leak(system)), dense(system)
        A = combine((-1, a)) if system.continuous else combine((1, one), (-1, a))
        B, C = (a, W) if system.form == "rate" else (times(a, W), one)
    A = combine((1, A), (1, times(B, times(diag(lower), C))))
    gap = [b - a for a, b in zip(lower, upper, strict=True)]
    return (flip(A), flip(C), flip(B), gap) if dual else (A, B, C, gap)


def product(left: Complex, right: Complex) -> Complex:
    return left[0] * right[0] - left[1] * right[1], left[0] * right[1] + left[1] * right[0]


def applied(matrix: Rows, x: list[Complex]) -> list[Complex]:
    return [
        (sum((a * p for a, (p, _) in zip(line, x, strict=True)), start=Q(0)),
         sum((a * q for a, (_, q) in zip(line, x, strict=True)), start=Q(0)))
        for line in matrix
    ]  # fmt: skip


def _conic(system: System, level: fmpq, proof: ConicBound) -> list[Column]:
    a = leak(system)[0]
    c0, r0, t = (
        (Q(1, 2), Q(1, 2), 1 - level / a) if system.continuous else (1 - a, level, (level**2 - (1 - a) ** 2) / a)
    )
    scale = a if system.form == "hopfield" else Q(1)
    found = []
    for k in range(len(proof.cosine)):
        y = [(exact(p), exact(q)) for p, q in zip(proof.real[:, k], proof.imaginary[:, k], strict=True)]
        h = c0 + r0 * exact(proof.cosine[k]), r0 * exact(proof.sine[k])
        size = h[0] ** 2 + h[1] ** 2
        if size == 0:  # v alone
            found.append((t * scale * scale, [(Q(0), Q(0))] * len(y), y))
            continue
        alpha = t * scale * h[0] / size, -t * scale * h[1] / size
        found.append((size / t, y, [product(alpha, entry) for entry in y]))
    return found


def _norm(system: System, level: fmpq, proof: NormBound, C: Rows) -> list[Column]:
    a, g = leak(system)[0], [exact(x) for x in system.slope.upper]
    s = 1 - level / a if system.continuous else level - abs(1 - a)
    if not system.continuous:
        s = (s if a <= 1 else -s) / a
    s = s * a if system.form == "hopfield" else s
    found = []
    for column in proof.columns.T:
        y = [(exact(entry), Q(0)) for entry in column]
        seen = applied(C, y)
        v = [(s * p + gain * r, Q(0)) for (p, _), (r, _), gain in zip(y, seen, g, strict=True)]
        found.append((Q(1), y, v))
    return found


def _speaks(system: System, proof: object) -> bool:
    """Whether this kind of bound is about such a system, and has the right shapes."""
    n, m = system.size, len(system.slope.lower)
    if isinstance(proof, LureBound):
        return proof.columns.shape[0] == n + m
    if system.form == "lure" or len(set(system.tau)) > 1:
        return False
    if isinstance(proof, NormBound):
        return proof.columns.shape[0] == n and bool((system.slope.lower == -system.slope.upper).all())
    assert isinstance(proof, ConicBound)
    count = len(proof.cosine)
    shapes = len(proof.sine) == count and proof.real.shape == proof.imaginary.shape == (n, count)
    return shapes and not any(system.slope.lower)


def outpaced(system: System, level: fmpq) -> bool:
    """Whether the slopes may be 0 and the bare leak is no faster than the level."""
    if system.form == "lure" or any(system.slope.lower > 0) or any(system.slope.upper < 0):
        return False
    return any(level >= a if system.continuous else level <= abs(1 - a) for a in leak(system))


def bound_failures(system: System, bound: LevelBound) -> set[str]:
    """What keeps the bound from being proven by its columns."""
    proof, level = bound.proof, exact(bound.level)
    if not _speaks(system, proof):
        return {"bound-shapes"}
    if outpaced(system, level):
        return set()
    dual = proof.dual if isinstance(proof, LureBound) else system.form == "hopfield"
    A, B, C, gap = form_of(system, dual)
    if isinstance(proof, LureBound):
        n, parts = system.size, np.asarray(proof.columns)
        table = [[(entry, Q(0)) for entry in line] for line in flip(rows(parts))]
        columns: list[Column] = [(Q(1), line[:n], line[n:]) for line in table]
    elif isinstance(proof, ConicBound):
        columns = _conic(system, level, proof)
    else:
        columns = _norm(system, level, proof, C)
    S, d = diag([Q(0)] * len(A)), [Q(0)] * len(C)
    some = False
    for weight, x, v in columns:
        some = some or any(entry != (0, 0) for entry in (*x, *v))
        moved = [(p + r, q + s) for (p, q), (r, s) in zip(applied(A, x), applied(B, v), strict=True)]
        for i, (p, q) in enumerate(applied(C, x)):
            d[i] += weight * (gap[i] * (p * v[i][0] + q * v[i][1]) - v[i][0] ** 2 - v[i][1] ** 2)
        for part in (0, 1):
            one, other = [[entry[part]] for entry in x], [[entry[part]] for entry in moved]
            if system.continuous:
                outer = times(other, flip(one))
                S = combine((1, S), (weight, outer), (weight, flip(outer)), (2 * weight * level, times(one, flip(one))))
            else:
                S = combine((1, S), (weight, times(other, flip(other))), (-weight * level**2, times(one, flip(one))))
    failed = set() if some else {"bound-zero"}
    if not semidefinite(S):
        failed.add("bound-states")
    if any(entry < 0 for entry in d):
        failed.add("bound-channels")
    return failed
