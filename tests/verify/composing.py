"""Assemblies with proofs made in plain numpy, and judges of them that share no code with the verifier.

Leaf metrics come from Clarabel; sigma, norms and vectors from whitened matrices R_i L_ij R_j^-1 with M_i = R_i^T R_i.
The judges put the whole together from the definitions of the forms, slope vertex by slope vertex, in floats or (numpy
arrays of rationals) exactly.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import cvxpy as cp
import numpy as np
from certes.assemblies import Assembly, Coupling, FlowProof, InterfaceProof, MapProof, WholeProof
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System, tensor
from certes.verify.composition import Node, euler_factor_squared, verify_flow, verify_maps
from certes.verify.interface import Interface, verify_interface
from certes.verify.report import Report
from flint import fmpq

from tests.judges import rational
from tests.judges.semidefinite import ACCURACY, Lure

Array = np.ndarray
Module = System | Assembly
ACTIVATIONS = ("relu", "tanh", "sigmoid", "leaky_relu:0.2", "gelu", (-1.0, 1.0))


def edge(to: str, source: str, weights: Any, inside: bool = False) -> Coupling:
    return Coupling(to, source, tensor("L", np.atleast_2d(np.asarray(weights, dtype=np.float64))), inside)


# leaves -------------------------------------------------------------------------------------------


@functools.cache
def _levels(n: int, m: int, continuous: bool) -> tuple[Any, ...]:
    A, B, K, level = cp.Parameter((n, n)), cp.Parameter((n, m)), cp.Parameter((m, n)), cp.Parameter()
    P, q, t = cp.Variable((n, n), symmetric=True), cp.Variable(m), cp.Variable()
    Q = cp.diag(q)
    if continuous:
        side = -(P @ B + K.T @ Q)
        block = cp.bmat([[-(P @ A) - (P @ A).T - level * P, side], [side.T, 2 * Q]])
    else:
        side = -K.T @ Q
        block = cp.bmat([[level * P, side, A.T @ P], [side.T, 2 * Q, B.T @ P], [P @ A, P @ B, P]])
    limits = [0.5 * (block + block.T) >> t * np.eye(block.shape[0]), P >> t * np.eye(n)]
    limits += [cp.trace(P) == n, q <= 1e3]
    return cp.Problem(cp.Maximize(t), limits), (A, B, K, level), (P, q, t)


@functools.cache
def _norms(n: int, m: int) -> tuple[Any, ...]:
    P, PA, PB, K = cp.Parameter((n, n)), cp.Parameter((n, n)), cp.Parameter((n, m)), cp.Parameter((m, n))
    q, square = cp.Variable(m), cp.Variable()
    Q = cp.diag(q)
    block = cp.bmat([[square * P, -K.T @ Q, PA.T], [-Q @ K, 2 * Q, PB.T], [PA, PB, P]])
    margin = 1e-4 * np.eye(2 * n + m)
    return cp.Problem(cp.Minimize(square), [0.5 * (block + block.T) >> margin, q <= 1e6]), (P, PA, PB, K), (q, square)


def _solve(problem: Any) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Solution may be inaccurate", category=UserWarning)
            problem.solve(solver="CLARABEL", **ACCURACY)
    except cp.SolverError:
        return False
    return problem.status in ("optimal", "optimal_inaccurate")


def lure_numbers(form: Lure, level: float) -> tuple[Array, Array] | None:
    """Metric and multipliers of a level with the largest margin, if Clarabel finds any."""
    problem, (A, B, K, square), (P, q, t) = _levels(*form.B.shape, form.continuous)
    A.value, B.value, K.value = form.A, form.B, form.K
    square.value = 2.0 * level if form.continuous else level * level
    if not _solve(problem) or not t.value > 1e-7:
        return None
    return np.tril(P.value) + np.tril(P.value, -1).T, q.value


def interface_proof(system: System, level: float, *, lipschitz: bool = True) -> InterfaceProof | None:
    """A proof at a rate or factor, with the best Lipschitz constant that a margin leaves."""
    form = Lure.of(system)
    found = lure_numbers(form, level)
    if found is None:
        return None
    metric, q = found
    if not lipschitz:
        return InterfaceProof(metric, q, np.zeros_like(q), level, 0.0)
    problem, (P, PA, PB, K), (other, square) = _norms(*form.B.shape)
    P.value, PA.value, PB.value, K.value = metric, metric @ form.A, metric @ form.B, form.K
    if not _solve(problem):
        return None
    return InterfaceProof(metric, q, other.value, level, float(np.sqrt(square.value)) * (1 + 1e-9))


def leaf(rng: np.random.Generator, size: int, continuous: bool) -> System:
    """A random network of any form, with slopes of any kind."""
    drawn = ACTIVATIONS[rng.integers(len(ACTIVATIONS))]
    slope = {"slope": drawn} if isinstance(drawn, tuple) else {"activation": drawn}
    gain = 10.0 ** rng.uniform(-1.0, 0.3) / np.sqrt(size)
    tau = rng.choice([0.5, 1.0, 3.0], size) if rng.random() < 0.5 else 1.0
    kind = rng.integers(3)
    if kind < 2:
        form = (RateNetwork, HopfieldNetwork)[kind]
        step = None if continuous else float(rng.choice([0.1, 0.3, 1.0])) * float(np.min(tau))
        return form(gain * rng.standard_normal((size, size)), tau=tau, step=step, **slope)
    m = int(rng.integers(1, size + 1))
    A = 0.3 * rng.standard_normal((size, size)) - (1.0 if continuous else 0.0) * np.eye(size)
    B, C = 0.5 * gain * rng.standard_normal((size, m)), rng.standard_normal((m, size))
    return LureSystem(A, B, C, discrete=not continuous, **slope)


# proof trees --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Made:
    """A module with its proof, and the proofs below it, which are read as proofs of the modules of the assembly."""

    module: Module
    proof: InterfaceProof | FlowProof | MapProof
    children: Sequence[Made] = field(default=())

    def verified(self) -> tuple[Report, Interface | None]:
        """Everything verified anew from the leaves, as a reader of certificates has to; at the Euler step if given."""
        if isinstance(self.module, System):
            return verify_interface(self.module, self.proof)
        below = []
        for module, child in zip(self.module.modules.values(), self.children, strict=True):
            report, interface = _known(child if child.module is module else replace(child, module=module))
            if interface is None:
                return report, None
            below.append(interface)
        verify = verify_flow if isinstance(self.proof, FlowProof) else verify_maps
        return verify(Node(self.module, below), self.proof)

    def metric(self, exact: bool = False) -> Array:
        """The metric the proof speaks of."""
        if isinstance(self.proof, InterfaceProof):
            return given(self.proof.metric, exact)
        parts = [child.metric(exact) for child in self.children]
        if isinstance(self.proof, FlowProof):
            scales = [powered(s, 2 * e, exact) for s, e in zip(self.proof.scale, self.proof.exponent, strict=True)]
        else:
            p = self.proof
            scales = [
                powered(b, int(f), exact) / powered(a, int(e), exact)
                for a, e, b, f in zip(p.right, p.right_exponent, p.left, p.left_exponent, strict=True)
            ]
        return block_diagonal([s * part for s, part in zip(scales, parts, strict=True)])


@functools.lru_cache(maxsize=4096)
def _known(made: Made) -> tuple[Report, Interface | None]:
    return made.verified()


def upper_root(square: Fraction) -> float:
    """A float not below the root."""
    root = float(np.sqrt(float(square)))
    while Fraction(root) ** 2 < square:
        root = float(np.nextafter(root, np.inf))
    return root


def powered(mantissa: float, exponent: int, exact: bool) -> Any:
    if not exact:
        return float(np.ldexp(mantissa, int(exponent)))
    return rational.exact(mantissa) * fmpq(2) ** int(exponent)


def given(array: Any, exact: bool) -> Array:
    """Floats as they are, or as rationals in an array of objects."""
    array = np.asarray(array, dtype=np.float64)
    if not exact:
        return array
    return np.array([rational.exact(x) for x in array.ravel()], dtype=object).reshape(array.shape)


def block_diagonal(parts: Sequence[Array]) -> Array:
    rows, columns = sum(p.shape[0] for p in parts), sum(p.shape[1] for p in parts)
    whole = np.zeros((rows, columns), dtype=parts[0].dtype) if parts[0].dtype != object else zeros((rows, columns))
    i = j = 0
    for part in parts:
        whole[i : i + part.shape[0], j : j + part.shape[1]] = part
        i, j = i + part.shape[0], j + part.shape[1]
    return whole


def zeros(shape: tuple[int, int]) -> Array:
    return np.full(shape, fmpq(0), dtype=object)


# judges -------------------------------------------------------------------------------------------


def equations(module: Module, exact: bool = False) -> tuple[Array, Array, Array]:
    """A, B, C of x' or x+ = A x + B phi(C x), straight from the definitions."""
    if isinstance(module, Assembly):
        parts = [equations(child, exact) for child in module.modules.values()]
        A, B, C = (block_diagonal([part[k] for part in parts]) for k in range(3))
        states = np.cumsum([0, *(part[0].shape[0] for part in parts)])
        channels = np.cumsum([0, *(part[1].shape[1] for part in parts)])
        order = list(module.modules)
        for one in module.couplings:
            head, tail = order.index(one.to), order.index(one.source)
            target, place = (C, channels) if one.inside else (A, states)
            target[place[head] : place[head + 1], states[tail] : states[tail + 1]] += given(one.matrix, exact)
    elif module.form == "lure":
        A, B, C = (given(module.matrix(role), exact) for role in "ABC")
    else:
        eye, W = given(np.eye(module.size), exact), given(module.matrix("W"), exact)
        pace = (1 / given(module.tau, exact))[:, None] * eye
        A, B, C = (-pace, pace, W) if module.form == "rate" else (-pace, pace @ W, eye)
    if module.step is None:
        return A, B, C
    h = given(module.step, exact)[()]
    return given(np.eye(len(A)), exact) + h * A, h * B, C


def leaves(module: Module) -> list[System]:
    return [module] if isinstance(module, System) else [x for child in module.modules.values() for x in leaves(child)]


def vertices(module: Module) -> Iterator[tuple[float, ...]]:
    ends = [
        sorted({float(a), float(b)}) for x in leaves(module) for a, b in zip(x.slope.lower, x.slope.upper, strict=True)
    ]
    return itertools.product(*ends)


def jacobians(module: Module) -> Array:
    """J at every vertex, shape (2^m, N, N)."""
    A, B, C = equations(module)
    D = np.array(list(vertices(module)))
    return A + np.einsum("ij,vj,jk->vik", B, D, C)


def seen_in(metric: Array, J: Array) -> Array:
    """R J R^-1 with metric = R^T R, J of shape (..., N, N)."""
    R = np.linalg.cholesky(metric).T
    return R @ J @ np.linalg.inv(R)


def true_rate(metric: Array, J: Array) -> float:
    """The best rate that holds at every vertex in a metric."""
    seen = seen_in(metric, J)
    return -float(np.linalg.eigvalsh(0.5 * (seen + np.swapaxes(seen, -1, -2)))[..., -1].max())


def true_norm(metric: Array, J: Array) -> float:
    """The largest norm of a vertex in a metric: the best factor, the best Lipschitz constant."""
    return float(np.linalg.norm(seen_in(metric, J), 2, axis=(-2, -1)).max())


def exactly(module: Module, metric: Array, level: float) -> bool:
    """Rational arithmetic: the metric is positive, and every vertex has the rate (or factor) in it. No tolerance."""
    A, B, C = equations(module, exact=True)
    if not rational.definite(metric.tolist()):
        return False
    c = rational.exact(level)
    for slopes in vertices(module):
        J = A + (B * given(slopes, True)[None, :]) @ C
        MJ = metric @ J
        left = -(MJ + MJ.T) - 2 * c * metric if module.continuous else c * c * metric - J.T @ MJ
        if not rational.semidefinite(left.tolist()):
            return False
    return True


# proofs of compositions ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Seen:
    """An assembly and its children in whitened coordinates."""

    assembly: Assembly
    children: Sequence[Made]
    levels: Array
    lipschitz: Array
    roots: Sequence[Array]

    @classmethod
    def of(cls, assembly: Assembly, children: Sequence[Made]) -> Seen | None:
        found = [_known(child)[1] for child in children]
        if any(interface is None for interface in found):
            return None
        levels = np.array([x.level for x in found])
        lipschitz = np.array([0.0 if x.lipschitz is None else x.lipschitz for x in found])
        return cls(assembly, children, levels, lipschitz, [np.linalg.cholesky(child.metric()).T for child in children])

    def ends(self, one: Coupling) -> tuple[int, int]:
        order = list(self.assembly.modules)
        return order.index(one.to), order.index(one.source)

    def hat(self, one: Coupling) -> Array:
        """R_i L_ij R_j^-1."""
        head, tail = self.ends(one)
        return self.roots[head] @ one.matrix @ np.linalg.inv(self.roots[tail])

    def inside(self, one: Coupling) -> tuple[float, Array]:
        """norm(B D C) <= nu and multipliers: Q above B^T M B by row sums."""
        head, tail = self.ends(one)
        system = self.children[head].module
        _, B, _ = equations(system)
        above = B.T @ self.children[head].metric() @ B
        q = np.abs(above).sum(axis=1) * (1 + 1e-6) + 1e-6
        norm = np.linalg.norm(
            np.sqrt(q)[:, None] * system.slope.bound[:, None] * one.matrix @ np.linalg.inv(self.roots[tail]), 2
        )
        return float(norm), q

    def norms(self) -> tuple[Array, Array]:
        """Of every coupling, and the multipliers."""
        norms, multipliers = [], []
        for one in self.assembly.couplings:
            if one.inside:
                norm, q = self.inside(one)
                multipliers.append(q)
            else:
                norm = float(np.linalg.norm(self.hat(one), 2))
            norms.append(norm * (1 + 1e-9))
        return np.array(norms), np.concatenate([np.zeros(0), *multipliers])


def flow_proof(
    seen: Seen, scale: Array, exponent: Array, *, exact: bool = False, below: float = 1e-3, level: float | None = None
) -> FlowProof:
    """The best rate for given scales, minus ``below``; all other numbers as good as they get."""
    edges, k = seen.assembly.couplings, len(seen.children)
    s = np.array([float(np.ldexp(a, 2 * int(e))) for a, e in zip(scale, exponent, strict=True)])
    cross: dict[tuple[int, int], Array] = {}
    for one in edges:
        if not one.inside:
            i, j = seen.ends(one)
            part = s[i] * seen.hat(one)
            key = (min(i, j), max(i, j))
            cross[key] = cross.get(key, 0.0) + (part if i < j else part.T)
    pairs = sorted(cross)
    sigma = np.array([max(float(np.linalg.norm(cross[p], 2)), 1e-12 * s.min()) for p in pairs]) * (1 + 1e-9)
    norms, multipliers = seen.norms()
    H = np.diag(2.0 * s * seen.levels)
    for (i, j), value in zip(pairs, sigma, strict=True):
        H[i, j] -= value
        H[j, i] -= value
    ratio = np.diag(seen.lipschitz).astype(float)
    for one, norm in zip(edges, norms, strict=True):
        i, j = seen.ends(one)
        ratio[i, j] += np.sqrt(s[i] / s[j]) * norm
        if one.inside:
            H[i, j] -= s[i] * norm
            H[j, i] -= s[i] * norm
    root = np.sqrt(s)
    best = float(np.linalg.eigvalsh(H / root[:, None] / root)[0]) / 2.0
    if exact:
        sizes = [len(r) for r in seen.roots]
        starts = np.cumsum([0, *sizes])
        G = np.diag(np.repeat(2.0 * seen.levels, sizes))
        for one in edges:
            i, j = seen.ends(one)
            part = np.sqrt(s[i] / s[j]) * seen.hat(one)
            G[starts[i] : starts[i + 1], starts[j] : starts[j + 1]] -= part
            G[starts[j] : starts[j + 1], starts[i] : starts[i + 1]] -= part.T
        best = float(np.linalg.eigvalsh(G)[0]) / 2.0
    c = best - below if level is None else level
    unit = 2.0 ** exponent.astype(float)
    relative = (H - 2.0 * c * np.diag(s)) / unit[:, None] / unit
    try:
        vector = np.abs(np.linalg.solve(relative, np.diag(relative) * np.ones(k)))
    except np.linalg.LinAlgError:
        vector = np.ones(k)
    bound = float(np.sqrt(ratio.sum(axis=0).max() * ratio.sum(axis=1).max())) * (1 + 1e-9)
    step = seen.assembly.step
    return FlowProof(
        scale=scale,
        exponent=exponent,
        exact=exact,
        pairs=np.array(pairs, dtype=np.int64).reshape(-1),
        sigma=sigma / np.array([unit[i] * unit[j] for i, j in pairs]) if pairs else np.zeros(0),
        vector=vector,
        norms=norms,
        multipliers=multipliers,
        level=c,
        lipschitz=bound if (seen.lipschitz > 0.0).all() else 0.0,
        factor=0.0 if step is None else upper_root(euler_factor_squared(c, bound, step)),
    )


def map_proof(seen: Seen, *, above: float = 1e-3, level: float | None = None) -> MapProof:
    """Perron vectors of T, and the factor that they give plus ``above``."""
    norms, multipliers = seen.norms()
    k = len(seen.children)
    T = np.diag(seen.levels)
    for one, norm in zip(seen.assembly.couplings, norms, strict=True):
        T[seen.ends(one)] += norm
    top = float(np.abs(np.linalg.eigvals(T)).max()) * (1 + 1e-7) + 1e-9
    r, l = (np.abs(np.linalg.solve(top * np.eye(k) - t, np.ones(k))) for t in (T, T.T))
    best = float(np.sqrt((T @ r / r).max() * (T.T @ l / l).max()))
    (right, right_exponent), (left, left_exponent) = np.frexp(r), np.frexp(l)
    number = best + above if level is None else level
    halves = right_exponent.astype(np.int64), left_exponent.astype(np.int64)
    return MapProof(right, halves[0], left, halves[1], norms, multipliers, number)


def whole_proof(assembly: Assembly, level: float) -> WholeProof | None:
    """The Lur'e inequality of the whole, by Clarabel."""
    A, B, C = equations(assembly)
    low, high = (np.concatenate([getattr(x.slope, end) for x in leaves(assembly)]) for end in ("lower", "upper"))
    found = lure_numbers(Lure(A + (B * low) @ C, B, (high - low)[:, None] * C, assembly.continuous), level)
    return None if found is None else WholeProof(*found, level)


# random assemblies --------------------------------------------------------------------------------


@functools.cache
def pool(continuous: bool, count: int = 36) -> tuple[Made, ...]:
    """Leaves with proofs, sizes 1 to 3."""
    rng = np.random.default_rng(5 + continuous)
    found: list[Made] = []
    while len(found) < count:
        system = leaf(rng, int(rng.integers(1, 4)), continuous)
        level = float(rng.uniform(0.02, 0.5)) if continuous else float(rng.uniform(0.4, 0.95))
        proof = interface_proof(system, level)
        if proof is not None and verify_interface(system, proof)[1] is not None:
            found.append(Made(system, proof))
    return tuple(found)


def couple(
    rng: np.random.Generator, children: dict[str, Made], strength: float, density: float
) -> tuple[Coupling, ...]:
    """Random edges, some of them inside phi, some zero, some between parts of the states only."""
    edges = []
    for to, source in itertools.permutations(children, 2):
        head, columns = children[to].module, children[source].module.size
        for inside in (False, True):
            if rng.random() > density * (0.4 if inside else 1.0):
                continue
            if inside and (isinstance(head, Assembly) or head.form == "hopfield"):
                continue
            rows = len(head.slope.lower) if inside and isinstance(head, System) else head.size
            weights = strength * rng.standard_normal((rows, columns)) / np.sqrt(rows + columns)
            if rng.random() < 0.2:
                weights[rng.integers(rows)] = 0.0
            if rng.random() < 0.05:
                weights[:] = 0.0
            edges.append(edge(to, source, weights, inside))
    return tuple(edges)


def random_children(rng: np.random.Generator, continuous: bool, most: int = 6) -> dict[str, Made]:
    """Two to four leaves of together at most ``most`` states."""
    drawn: list[Made] = []
    for _ in range(int(rng.integers(2, 5))):
        one = pool(continuous)[rng.integers(len(pool(continuous)))]
        if sum(made.module.size for made in drawn) + one.module.size <= most:
            drawn.append(one)
    return {f"m{k}": one for k, one in enumerate(drawn)}


def nested(rng: np.random.Generator, continuous: bool, most: int) -> Made | None:
    """A verified assembly of leaves, as a child for another one; one of maps may be an Euler step of a flow."""
    stepped = not continuous and rng.random() < 0.5
    children = random_children(rng, continuous or stepped, most)
    if len(children) < 2:
        return None
    edges = couple(rng, children, 0.1, 0.7)
    seen = Seen.of(Assembly({name: made.module for name, made in children.items()}, edges), list(children.values()))
    assert seen is not None
    if continuous or stepped:
        proof = best_flow(rng, seen)
        if stepped and proof.level > 0.0:
            step = float(rng.uniform(0.2, 1.5)) * proof.level / proof.lipschitz**2
            seen = replace(seen, assembly=replace(seen.assembly, step=step))
            proof = flow_proof(seen, proof.scale, proof.exponent, level=proof.level)
        found = Made(seen.assembly, proof, seen.children)
    else:
        found = Made(seen.assembly, map_proof(seen), seen.children)
    return found if found.verified()[1] is not None else None


def best_flow(rng: np.random.Generator, seen: Seen, **options: Any) -> FlowProof:
    """The best of a few scales, in which powers of four are split off at random."""
    k = len(seen.children)
    proofs = []
    for spread in (0.0, 0.0, 1.0, 2.0, 4.0):
        s = 2.0 ** (spread * rng.standard_normal(k))
        exponent = rng.integers(-3, 4, k)
        proofs.append(flow_proof(seen, s / 4.0**exponent, exponent, **options))
    return max(proofs, key=lambda proof: proof.level)


def assembled(rng: np.random.Generator, continuous: bool) -> Seen | None:
    """A random assembly of leaves and, now and then, of assemblies, with at most 6 states and 8 nonlinearities."""
    children = random_children(rng, continuous)
    if rng.random() < 0.4 and (inner := nested(rng, continuous, 3)) is not None:
        room = 6 - inner.module.size
        children = {"nest": inner} | {k: m for k, m in children.items() if m.module.size <= room // 2}
    if len(children) < 2 or sum(len(x.slope.lower) for m in children.values() for x in leaves(m.module)) > 8:
        return None
    edges = couple(rng, children, 10.0 ** rng.uniform(-2.0, 0.3), rng.choice([0.4, 0.8, 1.0]))
    return Seen.of(Assembly({name: made.module for name, made in children.items()}, edges), list(children.values()))
