"""Do modules with verified interfaces, coupled like this, contract as a whole? docs/theory.md section 13.

M_i is the metric of module i (a network, or an assembly verified before), c_i or rho_i its rate or factor, K_i its
Lipschitz constant, s_i > 0 a scale. Every coupling and every module is looked at once, whatever the proof says of it.

Continuous time, linear couplings L_ij (as they stand in x'), couplings inside phi C_ij:

    exact    diag(2 s_i (c_i - c) M_i) - (S M L + L^T M S) > 0, one N x N block; no couplings inside phi
    sparse   per pair  [[sigma_ij M_i, s_i M_i L_ij + s_j L_ji^T M_j], [., sigma_ij M_j]] > 0,
             H v > 0 for some v > 0, where H_ii = 2 s_i (c_i - c) and -H_ij collects sigma_ij and what couplings
             inside phi add: H is symmetric with nonpositive off-diagonal entries, so H > 0

gives rate c in the metric diag(s_i M_i). Maps: T_ij = rho_i delta_ij + norm_ij with T r <= p r, T^T l <= q l gives the
factor sqrt(p q) in diag(l_i / r_i M_i). Norms of couplings, metric of the tail to metric of the head:

    linear   [[nu M_j, L^T M_i], [., nu M_i]] > 0
    inside   [[nu^2 M_j, (G C)^T Q], [., Q]] > 0 and [[Q, B_i^T M_i], [., M_i]] > 0: norm(B_i D C) <= nu for all
             slopes abs(D) <= G = max(abs(a), abs(b))

Lipschitz constant of the whole: K^2 >= norm_1(T) norm_inf(T), T_ij = K_i delta_ij + sqrt(s_i/s_j) norm_ij. The Euler
map of the whole with step h has the factor rho if rho^2 >= 1 - 2 h c + h^2 K^2.

The test that forgets the interfaces, of all states and nonlinearities at once, is :mod:`certes.verify.whole`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from certes.assemblies import Assembly, Coupling, FlowProof, MapProof
from certes.systems import System
from certes.verify.arithmetic import is_normal, rounds_to_nearest
from certes.verify.attained import unshifted
from certes.verify.definite import assemble
from certes.verify.interface import Interface
from certes.verify.intervals import Box, diagonal, reciprocal, upward
from certes.verify.question import arrays_of, definite_check
from certes.verify.reduction import times
from certes.verify.report import Check, Report, judged

Array = NDArray[np.float64]

#: Exponents beyond this are refused: exact rationals would grow without bound.
_LARGEST_EXPONENT = 4000


@dataclass(frozen=True, eq=False)
class Node:
    """One composition step.

    Attributes:
        assembly: modules and couplings.
        children: the verified interfaces of the modules, in their order.
    """

    assembly: Assembly
    children: Sequence[Interface]

    @property
    def places(self) -> dict[str, int]:
        """Name -> position of the module."""
        return {name: k for k, name in enumerate(self.assembly.modules)}


def verify_flow(node: Node, proof: FlowProof) -> tuple[Report, Interface | None]:
    """Verify the rate (and Lipschitz constant) of an assembly of modules in continuous time; with a step, its factor.

    Returns:
        The report, and the interface of the assembly (a map, if it has a step) if and only if the report is valid.
    """
    report = judged("contracting", _flow(node, proof))
    if not report.valid or report.verdict != "contracting":
        return report, None
    blocks = []
    with np.errstate(all="ignore"):  # an entry beyond the range is infinite or NaN, and proves nothing to a parent
        for child, scale, exponent in zip(node.children, proof.scale, proof.exponent, strict=True):
            factor = Box.exact(float(scale)) * _power(2 * int(exponent))
            blocks += [block * factor for block in child.blocks]
    if node.assembly.step is not None:
        return report, Interface(tuple(blocks), False, proof.factor, proof.factor)
    return report, Interface(tuple(blocks), True, proof.level, proof.lipschitz if proof.lipschitz > 0.0 else None)


def verify_maps(node: Node, proof: MapProof) -> tuple[Report, Interface | None]:
    """Verify the factor of an assembly of maps; as :func:`verify_flow`."""
    report = judged("contracting", _maps(node, proof))
    if not report.valid or report.verdict != "contracting":
        return report, None
    blocks = []
    with np.errstate(all="ignore"):
        for k, child in enumerate(node.children):
            ratio = Box.exact(proof.left[k : k + 1]) * reciprocal(proof.right[k : k + 1])
            factor = ratio * _power(int(proof.left_exponent[k]) - int(proof.right_exponent[k]))
            blocks += [block * Box(factor.mid[0], factor.rad[0]) for block in child.blocks]
    return report, Interface(tuple(blocks), False, proof.level, proof.level)


def euler_factor_squared(rate: float, lipschitz: float, step: float) -> Fraction:
    """The largest 1 - 2 h c + h^2 K^2 over one unit in the last place around a step h, exactly."""
    h, ulp = Fraction(step), Fraction(float(np.spacing(step)))
    c, k = Fraction(rate), Fraction(lipschitz)
    return max(1 - 2 * end * c + end * end * k * k for end in (h - ulp, h + ulp))


def _moderate(exponents: NDArray[np.int64]) -> bool:
    """Compared, not made positive: the modulus of the least integer is that integer again."""
    return bool(((exponents >= -_LARGEST_EXPONENT) & (exponents <= _LARGEST_EXPONENT)).all())


def _power(exponent: int) -> Box:
    """2^exponent; what underflows is enclosed, what overflows is infinite (and proves nothing)."""
    if exponent < -1000:
        return Box(np.asarray(0.0), np.asarray(2.0**-1000))
    return Box.exact(np.inf if exponent > 1023 else np.ldexp(1.0, exponent))


def _common(node: Node, arrays: tuple[Array, ...], continuous: bool) -> Iterator[Check]:
    """Arithmetic, finite numbers, and interfaces that belong to the modules."""
    yield Check("arithmetic", rounds_to_nearest(64), "this process rounds to nearest")
    weights = tuple(edge.matrix for edge in node.assembly.couplings)
    yield Check("inputs", is_normal(*weights, *arrays), "couplings and proof are finite, and no entry is subnormal")
    modules = list(node.assembly.modules.values())
    fits = len(modules) == len(node.children)
    for module, child in zip(modules, node.children, strict=False):
        fits = fits and child.starts[-1] == module.size and child.continuous == continuous == module.continuous
    yield Check("interfaces", fits, "one verified interface per module, of its size and kind of time")


def _flow(node: Node, proof: FlowProof) -> Iterator[Check]:
    yield from _common(node, arrays_of(proof), True)
    modules, edges = len(node.children), node.assembly.couplings
    shaped = proof.scale.shape == proof.exponent.shape == proof.vector.shape == (modules,)
    shaped = shaped and proof.norms.shape == (len(edges),) and proof.pairs.shape == (2 * len(proof.sigma),)
    yield Check("shapes", shaped, "scales and vector (k,), norms (e,), two indices per sigma")
    positive = bool((proof.scale > 0.0).all()) and _moderate(proof.exponent)
    yield Check("scales", positive, f"s > 0, exponents up to {_LARGEST_EXPONENT}")
    ranged = 0.0 < proof.level < np.inf and 0.0 <= proof.lipschitz < np.inf
    yield Check("range", ranged, f"rate {proof.level!r} > 0, Lipschitz {proof.lipschitz!r}")
    if proof.exact:
        yield Check("no-inside", not any(edge.inside for edge in edges), "no couplings inside phi in the exact test")
        yield definite_check("exact", _whole_block(node, proof), f"the N x N block at rate {proof.level!r}")
    else:
        yield from _sparse(node, proof)
    if proof.lipschitz > 0.0:
        yield from _norms(node, proof.norms, proof.multipliers, frozenset({True}))  # those inside phi are shown
        yield _lipschitz(node, proof)
    yield _euler(node.assembly.step, proof)


def _weighted(node: Node, proof: FlowProof, head: int, tail: int, matrix: Array, rows: Sequence[int]) -> Box:
    """s_head / 2^(e_head + e_tail) M_head L, for the leaf blocks ``rows`` of the head."""
    child = node.children[head]
    factor = Box.exact(float(proof.scale[head])) * _power(int(proof.exponent[head]) - int(proof.exponent[tail]))
    starts = child.starts
    parts = [(child.blocks[k] * factor) @ Box.exact(matrix[starts[k] : starts[k + 1]]) for k in rows]
    return Box(np.vstack([part.mid for part in parts]), np.vstack([part.rad for part in parts]))


def _whole_block(node: Node, proof: FlowProof) -> Box:
    """diag(2 s_i (c_i - c) M_i) - (S M L + L^T M S), rows and columns of module i over 2^exponent_i."""
    places = list(node.assembly.places.values())
    size = node.assembly.size
    mid, rad = np.zeros((size, size)), np.zeros((size, size))
    for k, (child, place) in enumerate(zip(node.children, places, strict=True)):
        room = Box.exact(2.0 * float(proof.scale[k])) * (Box.exact(child.level) - Box.exact(proof.level))
        for start, block in zip(child.starts, child.blocks, strict=False):
            at = slice(place.start + start, place.start + start + block.mid.shape[0])
            scaled = block * room
            mid[at, at], rad[at, at] = scaled.mid, scaled.rad
    whole = Box(mid, rad)
    products_mid, products_rad = np.zeros((size, size)), np.zeros((size, size))
    order = node.places
    for edge in node.assembly.couplings:
        head, tail = order[edge.to], order[edge.source]
        product = _weighted(node, proof, head, tail, edge.matrix, range(len(node.children[head].blocks)))
        products_mid[places[head], places[tail]], products_rad[places[head], places[tail]] = product.mid, product.rad
    products = Box(products_mid, products_rad)
    return whole - (products + products.T)


def _sparse(node: Node, proof: FlowProof) -> Iterator[Check]:
    """Every linearly coupled pair bounded, every inner coupling bounded, and H v > 0."""
    order, edges = node.places, node.assembly.couplings
    linear: dict[tuple[int, int], dict[bool, Coupling]] = {}
    for edge in edges:
        if not edge.inside:
            head, tail = order[edge.to], order[edge.source]
            linear.setdefault((min(head, tail), max(head, tail)), {})[head < tail] = edge
    listed = [(int(i), int(j)) for i, j in proof.pairs.reshape(-1, 2)]
    complete = len(set(listed)) == len(listed) and set(listed) == set(linear)
    yield Check("pairs", complete, "exactly the pairs that are coupled linearly, each once")
    yield Check("sigma", bool((proof.sigma > 0.0).all()), "sigma > 0")
    yield Check("vector", bool((proof.vector > 0.0).all()), "v > 0")
    for pair, sigma in zip(listed, proof.sigma, strict=True):
        yield _pair(node, proof, pair, linear[pair], float(sigma))
    yield from _norms(node, proof.norms, proof.multipliers, frozenset({False}))
    yield _rows(node, proof, listed)


def _pair(node: Node, proof: FlowProof, pair: tuple[int, int], found: dict[bool, Coupling], sigma: float) -> Check:
    """[[sigma M_i, X], [X^T, sigma M_j]] > 0 on the leaf blocks that the couplings touch; relative to 2^(e_i + e_j)."""
    i, j = pair
    up, down = found.get(True), found.get(False)  # L_ij, L_ji
    rows = _touched(node.children[i], [up.matrix if up else None, down.matrix.T if down else None])
    columns = _touched(node.children[j], [up.matrix.T if up else None, down.matrix if down else None])
    name = f"couplings of {list(node.assembly.modules)[i]} and {list(node.assembly.modules)[j]}"
    if not rows or not columns:
        return Check("pair", True, f"{name}: zero")
    inner, outer = _states(node.children[i], rows), _states(node.children[j], columns)
    cross = Box.exact(np.zeros((len(inner), len(outer))))
    if up is not None:
        cross = cross + _weighted(node, proof, i, j, up.matrix[:, outer], rows)
    if down is not None:
        cross = cross + _weighted(node, proof, j, i, down.matrix[:, inner], columns).T
    bound = Box.exact(sigma)
    first, second = _metric(node.children[i], rows) * bound, _metric(node.children[j], columns) * bound
    return definite_check("pair", assemble([[first], [cross.T, second]]), f"{name}: sigma {sigma!r}")


def _touched(child: Interface, matrices: Sequence[Array | None]) -> list[int]:
    """Leaf blocks in whose rows one of the matrices has a nonzero."""
    used = np.zeros(child.starts[-1], dtype=np.bool_)
    for matrix in matrices:
        if matrix is not None:
            used |= (matrix != 0.0).any(axis=1)
    starts = child.starts
    return [k for k in range(len(child.blocks)) if used[starts[k] : starts[k + 1]].any()]


def _states(child: Interface, blocks: Sequence[int]) -> NDArray[np.int64]:
    starts = child.starts
    return np.concatenate([np.arange(starts[k], starts[k + 1]) for k in blocks])


def _metric(child: Interface, blocks: Sequence[int]) -> Box:
    """The metric on some of its leaf blocks, dense."""
    sizes = [child.blocks[k].mid.shape[0] for k in blocks]
    total, position = sum(sizes), 0
    mid, rad = np.zeros((total, total)), np.zeros((total, total))
    for k, size in zip(blocks, sizes, strict=True):
        at = slice(position, position + size)
        mid[at, at], rad[at, at] = child.blocks[k].mid, child.blocks[k].rad
        position += size
    return Box(mid, rad)


def _rows(node: Node, proof: FlowProof, listed: Sequence[tuple[int, int]]) -> Check:
    """H v > 0 row by row, in exact rationals."""
    v = [Fraction(float(value)) for value in proof.vector]
    scale = [Fraction(float(value)) for value in proof.scale]
    level, order = Fraction(proof.level), node.places
    rows = [2 * scale[k] * (Fraction(child.level) - level) * v[k] for k, child in enumerate(node.children)]
    terms = [(i, j, Fraction(float(sigma))) for (i, j), sigma in zip(listed, proof.sigma, strict=True)]
    for edge, norm in zip(node.assembly.couplings, proof.norms, strict=True):
        if edge.inside:
            head, tail = order[edge.to], order[edge.source]
            shift = int(proof.exponent[head]) - int(proof.exponent[tail])
            terms.append((head, tail, scale[head] * Fraction(2) ** shift * Fraction(float(norm))))
    for i, j, size in terms:
        rows[i] -= size * v[j]
        rows[j] -= size * v[i]
    worst = min(range(len(rows)), key=lambda k: rows[k])
    detail = f"H v > 0; least in the row of {list(node.assembly.modules)[worst]}"
    return Check("interface-matrix", rows[worst] > 0, detail)


def _norms(node: Node, norms: Array, multipliers: Array, shown: frozenset[bool]) -> Iterator[Check]:
    """An upper bound of the norm of every coupling, but for the kinds (inside phi: True) that need none any more."""
    order, modules = node.places, node.assembly.modules
    yield Check("norms", bool((norms >= 0.0).all()), "norms >= 0")
    position = 0
    for edge, norm in zip(node.assembly.couplings, norms, strict=True):
        head = modules[edge.to]
        count = len(head.slope.lower) if edge.inside and isinstance(head, System) else 0
        own, position = multipliers[position : position + count], position + count
        if edge.inside in shown:
            continue
        child, tail = node.children[order[edge.to]], node.children[order[edge.source]]
        if edge.inside:
            assert isinstance(head, System)
            yield from _inside_norm(edge, head, child, tail, float(norm), own)
        else:
            yield _linear_norm(edge, child, tail, float(norm))
    yield Check("multipliers", position == len(multipliers), "multipliers for every coupling inside phi")


def _linear_norm(edge: Coupling, head: Interface, tail: Interface, norm: float) -> Check:
    detail = f"{edge.name}: norm <= {norm!r}"
    rows, columns = _touched(head, [edge.matrix]), _touched(tail, [edge.matrix.T])
    if not rows:
        return Check("coupling-norm", True, f"{edge.name}: zero")
    inner, outer = _states(head, rows), _states(tail, columns)
    first, second, bound = _metric(tail, columns), _metric(head, rows), Box.exact(norm)
    product = second @ Box.exact(edge.matrix[np.ix_(inner, outer)])
    return definite_check("coupling-norm", assemble([[first * bound], [product, second * bound]]), detail)


def _inside_norm(
    edge: Coupling, system: System, head: Interface, tail: Interface, norm: float, multipliers: Array
) -> Iterator[Check]:
    detail = f"{edge.name}: norm <= {norm!r}"
    columns = _touched(tail, [edge.matrix.T])
    if not columns:
        yield Check("coupling-norm", True, f"{edge.name}: zero")
        return
    yield Check("coupling-multipliers", multipliers.shape == system.slope.lower.shape, f"{edge.name}: one per neuron")
    q, bound = Box.exact(multipliers), Box.exact(norm)
    scaled = Box.exact(edge.matrix[:, _states(tail, columns)]) * Box.exact(system.slope.bound)[:, None]
    corner = diagonal(q)
    first = assemble([[_metric(tail, columns) * (bound * bound)], [scaled * q[:, None], corner]])
    yield definite_check("coupling-norm", first, detail)
    form, metric = unshifted(system), head.blocks[0]
    second = assemble([[corner], [times(metric, form.B), metric]])
    yield definite_check("coupling-channel", second, f"{edge.name}: multipliers above the input matrix")


def _lipschitz(node: Node, proof: FlowProof) -> Check:
    """K^2 >= norm_1(T) norm_inf(T), rounded upwards."""
    known = [child.lipschitz for child in node.children]
    if any(value is None for value in known):
        return Check("lipschitz", False, "every module has a Lipschitz constant")
    own = np.array([0.0 if value is None else value for value in known])
    rows, columns, order = own.copy(), own.copy(), node.places
    for edge, norm in zip(node.assembly.couplings, proof.norms, strict=True):
        head, tail = order[edge.to], order[edge.source]
        if norm == 0.0:
            continue
        ratio = np.sqrt(upward(np.asarray(proof.scale[head] / proof.scale[tail])))
        shift = int(proof.exponent[head]) - int(proof.exponent[tail])
        size = np.ldexp(upward(upward(ratio) * norm), shift)  # infinite, or off by less than ``upward`` adds below
        rows[head] += size
        columns[tail] += size
    bound = upward(rows.max(keepdims=True), len(proof.norms)) * upward(columns.max(keepdims=True), len(proof.norms))
    held = Fraction(proof.lipschitz) ** 2 >= Fraction(float(upward(bound)[0])) if np.isfinite(bound).all() else False
    return Check("lipschitz", held, f"norm of every Jacobian of the whole <= {proof.lipschitz!r}")


def _euler(step: float | None, proof: FlowProof) -> Check:
    """The factor of the Euler map, if the assembly has a step; no factor if it has none."""
    if step is None:
        return Check("euler", proof.factor == 0.0, "no step, no factor")
    held = 0.0 < proof.factor < 1.0 and proof.lipschitz > 0.0
    held = held and Fraction(proof.factor) ** 2 >= euler_factor_squared(proof.level, proof.lipschitz, step)
    return Check("euler", held, f"factor {proof.factor!r} at step {step!r}")


def _maps(node: Node, proof: MapProof) -> Iterator[Check]:
    yield from _common(node, arrays_of(proof), False)
    modules, edges = len(node.children), node.assembly.couplings
    vectors = (proof.right, proof.right_exponent, proof.left, proof.left_exponent)
    shaped = all(part.shape == (modules,) for part in vectors) and proof.norms.shape == (len(edges),)
    yield Check("shapes", shaped, "vectors (k,), norms (e,)")
    exponents = np.concatenate([proof.right_exponent, proof.left_exponent])
    positive = bool((proof.right > 0.0).all() and (proof.left > 0.0).all())
    yield Check("vectors", positive and _moderate(exponents), f"r, l > 0, exponents up to {_LARGEST_EXPONENT}")
    yield Check("range", 0.0 < proof.level < 1.0, f"factor 0 < {proof.level!r} < 1")
    yield from _norms(node, proof.norms, proof.multipliers, frozenset())
    above = _quotient(node, proof.norms, proof.right, proof.right_exponent, transposed=False)
    beside = _quotient(node, proof.norms, proof.left, proof.left_exponent, transposed=True)
    held = Fraction(proof.level) ** 2 >= above * beside
    yield Check("perron", held, f"factor {proof.level!r} >= sqrt(p q)")


def _quotient(node: Node, norms: Array, mantissa: Array, exponent: NDArray[np.int64], *, transposed: bool) -> Fraction:
    """max_i (T v)_i / v_i, or of T^T, in exact rationals."""
    order = node.places
    v = [Fraction(float(m)) for m in mantissa]
    rows = [Fraction(child.level) for child in node.children]
    for edge, norm in zip(node.assembly.couplings, norms, strict=True):
        i, j = order[edge.to], order[edge.source]
        if transposed:
            i, j = j, i
        rows[i] += Fraction(float(norm)) * v[j] / v[i] * Fraction(2) ** (int(exponent[j]) - int(exponent[i]))
    return max(rows)
