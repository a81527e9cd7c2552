"""The composition verifier never says yes wrongly: random assemblies, tampered proofs, judged at all slope vertices."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
from certes.assemblies import Assembly, Coupling, FlowProof, InterfaceProof, MapProof
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork
from certes.verify.composition import Node, euler_factor_squared, verify_flow, verify_maps
from certes.verify.interface import Interface
from certes.verify.intervals import Box
from certes.verify.whole import verify_whole
from hypothesis import given
from hypothesis import strategies as st

from tests.verify import composing
from tests.verify.composing import Made, Seen, edge

# By hand: modules x' = -x + relu(u), M = 1, rate 0.5, norm of the Jacobian <= 1.2 --------------------------------


def unit() -> Made:
    proof = InterfaceProof(np.eye(1), np.ones(1), np.full(1, 9.0), 0.5, 1.2)
    return Made(RateNetwork(np.zeros((1, 1)), "relu"), proof)


def by_hand(edges: tuple[Coupling, ...], names: tuple[str, ...] = ("a", "b"), **changed: object) -> Made:
    k = len(names)
    numbers: dict[str, object] = {
        "scale": np.ones(k),
        "exponent": np.zeros(k, np.int64),
        "exact": False,
        "pairs": np.zeros(0, np.int64),
        "sigma": np.zeros(0),
        "vector": np.ones(k),
        "norms": np.zeros(len(edges)),
        "multipliers": np.zeros(0),
        "level": 0.1,
        "lipschitz": 0.0,
        "factor": 0.0,
    }
    children = [unit() for _ in names]
    assembly = Assembly({name: child.module for name, child in zip(names, children, strict=True)}, edges)
    return Made(assembly, FlowProof(**(numbers | changed)), children)  # type: ignore[arg-type]


def refused(made: Made, name: str) -> None:
    report, interface = made.verified()
    assert interface is None
    assert report.failed is not None
    assert report.failed.name == name


PAIR = {"pairs": np.array([0, 1]), "sigma": np.array([0.0301])}
LINEAR = (edge("a", "b", 0.02), edge("b", "a", 0.01))


def test_the_plain_pair_is_accepted() -> None:
    assert by_hand(LINEAR, **PAIR).verified()[1] is not None


def test_a_negative_vector_proves_nothing() -> None:
    """With v < 0 the rows of H v turn their sign: strong symmetric excitation would pass."""
    strong = (edge("a", "b", 100.0), edge("b", "a", 100.0))
    for vector in ([-1e6, -1e6], [-1e6, 1.0], [1.0, -1e6], [0.0, 1.0]):
        refused(by_hand(strong, pairs=np.array([0, 1]), sigma=np.array([201.0]), vector=np.array(vector)), "vector")


def test_names_that_look_alike_do_not_hide_a_coupling() -> None:
    """The linear edge a <- "b (inside)" was called like the edge a <- b inside phi, whose norm then went unproven."""
    names = ("a", "b", "a (inside)", "b (inside)")
    edges = (edge("a", "b", 100.0, True), edge("b", "a", 100.0, True))
    edges += (edge("a", "b (inside)", 1e-3), edge("b", "a (inside)", 1e-3))
    numbers = {"pairs": np.array([0, 3, 1, 2]), "sigma": np.full(2, 0.01), "multipliers": np.ones(2)}
    refused(by_hand(edges, names, **numbers), "coupling-norm")
    edges = (edge("a", "b", 1e-3, True), edge("a", "b (inside)", 0.1))
    numbers = {"pairs": np.array([0, 3]), "sigma": np.full(1, 0.11), "multipliers": np.full(1, 2.0)}
    fine = by_hand(edges, names, **numbers, norms=np.array([0.01, 0.11]), lipschitz=1.5)
    assert fine.verified()[1] is not None
    refused(replace(fine, proof=replace(fine.proof, norms=np.array([0.01, 0.0]), lipschitz=1.3)), "coupling-norm")


def test_extreme_scales_do_not_hide_a_coupling_from_the_lipschitz_constant() -> None:
    """s_a / s_b = 2^-980 against L = 2^489: a coupling of 1/2 in the metric, taken for 2^-411 before."""
    numbers = {
        "scale": np.array([2.0**510, 2.0**-510]),
        "exponent": np.array([-500, 500]),
        "pairs": np.array([0, 1]),
        "sigma": np.array([0.5001]),
        "vector": np.array([1.0, 2.0**510]),
        "norms": np.array([2.0**489 * 1.0001]),
        "level": 1e-6,
    }
    edges = (edge("a", "b", 2.0**489),)
    assert by_hand(edges, **numbers, lipschitz=1.71).verified()[1] is not None
    refused(by_hand(edges, **numbers, lipschitz=1.2001), "lipschitz")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("exponent", [[2000, 0], [0, 2000], [4000, -4000], [-4000, 4000]])
def test_the_ends_of_the_range_of_exponents_are_answered(exponent: list[int]) -> None:
    numbers = PAIR | {"exponent": np.array(exponent), "lipschitz": 1.3, "norms": np.array([0.03, 0.02])}
    refused(by_hand(LINEAR, **numbers), "pair")
    zero = (edge("a", "b", 0.0),)
    numbers = PAIR | {"sigma": np.full(1, 0.01), "exponent": np.array(exponent), "lipschitz": 1.3}
    assert by_hand(zero, **numbers).verified()[1] is not None


LEAST = np.iinfo(np.int64).min


@pytest.mark.parametrize("exponent", [4001, -4001, 10**9, -(10**9), LEAST, LEAST + 1, np.iinfo(np.int64).max])
def test_exponents_out_of_range_are_refused_at_once(exponent: int) -> None:
    """The modulus of the least integer is negative; exact rationals of such exponents would never end."""
    inside = (edge("a", "b", 0.01, True),)
    for exponents in ([exponent, 0], [0, exponent]):
        numbers = {"exponent": np.array(exponents), "norms": np.full(1, 0.1), "multipliers": np.full(1, 2.0)}
        refused(by_hand(inside, **numbers), "scales")
    child = Interface((Box.exact(np.eye(1)),), False, 0.5, 0.5)
    maps = RateNetwork(np.zeros((1, 1)), "relu", step=1.0)
    node = Node(Assembly({"a": maps, "b": maps}, (edge("a", "b", 0.1),)), [child, child])
    one, zero, large = np.ones(2), np.zeros(2, np.int64), np.array([exponent, 0])
    for right, left in ((large, zero), (zero, large)):
        report, _ = verify_maps(node, MapProof(one, right, one, left, np.full(1, 0.11), np.zeros(0), 0.9))
        assert report.failed is not None
        assert report.failed.name == "vectors"


# Random assemblies, on both sides of the truth -------------------------------------------------------------------

#: The true margin that floats can judge.
TOLERANCE = 1e-9


@functools.cache
def assemblies(continuous: bool, seed: int, count: int) -> list[Seen]:
    rng = np.random.default_rng(seed)
    drawn = (composing.assembled(rng, continuous) for _ in itertools.count())
    return list(itertools.islice((seen for seen in drawn if seen is not None), count))


def flow_candidates(rng: np.random.Generator, seen: Seen) -> Iterator[Made]:
    """Rates a little below and above the best of the proof, and of the truth in its metric; likewise K and factor."""
    exact = bool(rng.random() < 0.4) and not any(one.inside for one in seen.assembly.couplings)
    best = composing.best_flow(rng, seen, exact=exact, below=0.0)
    fixed = functools.partial(composing.flow_proof, seen, best.scale, best.exponent, exact=exact)
    J = composing.jacobians(seen.assembly)
    truth = composing.true_rate(Made(seen.assembly, best, seen.children).metric(), J)
    rates = [best.level - below for below in (1e-1, 1e-3, 1e-6, -1e-9, -1e-6, -1e-3)]
    for level in [*rates, truth * (1 + 1e-8), truth * 1.01, abs(truth) * 2.0]:
        proof = fixed(level=level)
        yield Made(seen.assembly, proof, seen.children)
    yield Made(seen.assembly, replace(fixed(level=rates[1]), vector=np.ones(len(seen.children))), seen.children)
    proof = fixed(level=best.level - 1e-4)
    if proof.level > 0.0 and proof.lipschitz > 0.0:
        metric = Made(seen.assembly, proof, seen.children).metric()
        for constant in (proof.lipschitz * (1 - 1e-6), composing.true_norm(metric, J) * (1 - 1e-8)):
            yield Made(seen.assembly, replace(proof, lipschitz=constant), seen.children)
        for share in (0.5, 1.0, 1.99, 2.01):
            stepped = replace(seen.assembly, step=share * proof.level / proof.lipschitz**2)
            whole = composing.flow_proof(replace(seen, assembly=stepped), best.scale, best.exponent, level=proof.level)
            true = composing.true_norm(metric, composing.jacobians(stepped))
            for factor in (whole.factor, whole.factor * (1 - 1e-9), true * (1 - 1e-8)):
                yield Made(stepped, replace(whole, factor=factor), seen.children)


def map_candidates(rng: np.random.Generator, seen: Seen) -> Iterator[Made]:
    best = composing.map_proof(seen, above=0.0)
    truth = composing.true_norm(Made(seen.assembly, best, seen.children).metric(), composing.jacobians(seen.assembly))
    factors = [best.level + above for above in (1e-1, 1e-3, 1e-6, -1e-6, -1e-3)]
    for level in [*factors, truth * (1 - 1e-8), truth * 0.99, truth * 0.5, min(0.999, best.level)]:
        yield Made(seen.assembly, composing.map_proof(seen, level=level), seen.children)
    yield Made(seen.assembly, replace(best, right=np.ones_like(best.right), level=factors[1]), seen.children)


def holds(made: Made) -> bool:
    """At every slope vertex, in floats: every number that the proof speaks of."""
    assembly, proof, J = made.module, made.proof, composing.jacobians(made.module)
    metric = made.metric()
    if isinstance(proof, MapProof):
        return 0.0 < proof.level < 1.0 and composing.true_norm(metric, J) <= proof.level * (1 + TOLERANCE)
    assert isinstance(assembly, Assembly)
    flow = composing.jacobians(replace(assembly, step=None))
    fine = proof.level > 0.0 and composing.true_rate(metric, flow) >= proof.level - TOLERANCE
    if proof.lipschitz > 0.0:
        fine = fine and composing.true_norm(metric, flow) <= proof.lipschitz * (1 + TOLERANCE)
    if assembly.step is not None:
        fine = fine and proof.factor < 1.0 and composing.true_norm(metric, J) <= proof.factor * (1 + TOLERANCE)
    return fine


def exactly_holds(made: Made) -> bool:
    """Likewise in rationals, without a tolerance: the rate or factor of the module as it stands."""
    assembly, proof = made.module, made.proof
    level = proof.factor if isinstance(proof, FlowProof) and not assembly.continuous else proof.level
    fine = composing.exactly(assembly, made.metric(exact=True), level)
    if isinstance(proof, FlowProof) and not assembly.continuous:
        fine = fine and composing.exactly(replace(assembly, step=None), made.metric(exact=True), proof.level)
    return fine


def show(title: str, counts: Counter[tuple[bool, bool]]) -> None:
    words = [
        f"{'true' if true else 'false'} {'accepted' if yes else 'refused'} {counts[true, yes]}"
        for true, yes in itertools.product((True, False), (True, False))
    ]
    print(f"\n{title}: " + ", ".join(words))


@pytest.mark.parametrize("count", [15, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("continuous", [True, False])
def test_no_false_yes(continuous: bool, count: int) -> None:
    rng = np.random.default_rng(11)
    counts: Counter[tuple[bool, bool]] = Counter()
    judged = kinds = 0
    for seen in assemblies(continuous, 7, count):
        kinds += any(isinstance(child.module, Assembly) for child in seen.children)
        for made in (flow_candidates if continuous else map_candidates)(rng, seen):
            true, yes = holds(made), made.verified()[1] is not None
            counts[true, yes] += 1
            assert true or not yes, (made.module, made.proof)
            small = sum(len(x.slope.lower) for x in composing.leaves(made.module)) <= 5
            if yes and small and counts[True, True] % 4 == 0:
                judged += 1
                assert exactly_holds(made), (made.module, made.proof)
    show(f"{'flows' if continuous else 'maps'}, {judged} accepted ones also judged exactly, {kinds} nested", counts)
    assert counts[True, True] >= count
    assert counts[False, False] >= 2 * count
    assert judged >= count / 5
    assert kinds >= count / 20


# Tampering -------------------------------------------------------------------------------------------------------


def specimen() -> Made:
    """All forms, all kinds of couplings, numbers as tight as they get."""
    modules = {
        "rate": RateNetwork(np.array([[0.2, -0.5], [0.4, 0.1]]), "tanh", tau=[1.0, 0.5]),
        "hopfield": HopfieldNetwork(np.array([[0.3, 0.6], [-0.2, 0.1]]), "relu"),
        "lure": LureSystem([[-1.0, 0.2], [0.0, -1.5]], [[0.3], [0.2]], [[0.5, -1.0]], (-1.0, 1.0)),
    }
    proofs = [composing.interface_proof(module, 0.3) for module in modules.values()]
    children = [Made(module, proof) for module, proof in zip(modules.values(), proofs, strict=True) if proof]
    edges = (
        edge("rate", "hopfield", [[0.04, 0.02], [-0.04, 0.08]], True),
        edge("lure", "rate", [[0.02, 0.04]], True),
        edge("hopfield", "lure", [[0.04, 0.0], [0.08, -0.04]]),
        edge("lure", "hopfield", [[-0.04, 0.08], [0.0, 0.04]]),
        edge("rate", "lure", [[0.01, 0.02], [0.04, 0.0]]),
    )
    seen = Seen.of(Assembly(modules, edges), children)
    assert seen is not None
    scale, exponent = np.array([1.0, 0.2, 6.0]), np.array([0, 1, -1])
    return Made(seen.assembly, composing.flow_proof(seen, scale, exponent, below=1e-7), children)


@functools.cache
def the_specimen() -> Made:
    return specimen()


def put(array: np.ndarray, place: int, value: float) -> np.ndarray:
    changed = array.copy()
    changed[place] = value
    return changed


def tampered(p: FlowProof) -> Iterator[tuple[str, FlowProof]]:
    """Each of these makes one obligation false."""
    for value in (0.0, -1.0, np.nan, np.inf, 1e308, 1e-308, 5e-324, -p.scale[0]):
        yield f"scale {value}", replace(p, scale=put(p.scale, 0, value))
    for value in (10, -10, 600, -600, 4000, -4000, 10**9, -(10**9)):
        yield f"exponent {value}", replace(p, exponent=put(p.exponent, 0, value))
    yield "a scale is missing", replace(p, scale=p.scale[:-1])
    yield "an exponent is missing", replace(p, exponent=p.exponent[:-1])
    yield "a pair is missing", replace(p, pairs=p.pairs[2:], sigma=p.sigma[1:])
    yield "a pair without its sigma", replace(p, sigma=p.sigma[1:])
    yield "a pair twice", replace(p, pairs=np.tile(p.pairs[:2], 2), sigma=np.repeat(p.sigma[:1], 2))
    yield "one pair more", replace(p, pairs=np.append(p.pairs, p.pairs[:2]), sigma=np.append(p.sigma, p.sigma[:1]))
    yield "an idle pair more", replace(p, pairs=np.append(p.pairs, [0, 1]), sigma=np.append(p.sigma, 1e-9))
    yield "a pair reversed", replace(p, pairs=np.concatenate([p.pairs[1::-1], p.pairs[2:]]))
    for value in (-1, -3, 3, 10**9, np.iinfo(np.int64).min):
        yield f"a pair of {value}", replace(p, pairs=put(p.pairs, 0, value))
    yield "odd pairs", replace(p, pairs=p.pairs[1:])
    for k, name in itertools.product(range(len(p.sigma)), ("small", "zero", "negative", "nan", "inf")):
        values = {"small": p.sigma[k] * (1 - 1e-8), "zero": 0.0, "negative": -p.sigma[k], "nan": np.nan, "inf": np.inf}
        yield f"sigma {k} {name}", replace(p, sigma=put(p.sigma, k, values[name]))
    for k, value in itertools.product(range(len(p.vector)), (0.0, -1.0, -1e300, np.nan, np.inf, 1e-300, 1e300)):
        yield f"vector {k} {value}", replace(p, vector=put(p.vector, k, value))
    yield "a negative vector", replace(p, vector=-p.vector)
    yield "a vector too short", replace(p, vector=p.vector[1:])
    for k, share in itertools.product(range(len(p.norms)), (1 - 1e-8, 0.5, 0.0, -1.0, np.nan)):
        yield f"norm {k} times {share}", replace(p, norms=put(p.norms, k, share * p.norms[k]))
    yield "norms too short", replace(p, norms=p.norms[:-1])
    yield "norms in another order", replace(p, norms=np.roll(p.norms, 1))
    yield "multipliers swapped", replace(p, multipliers=p.multipliers[::-1])
    for k, share in itertools.product(range(len(p.multipliers)), (0.5, 1.01, 0.0, -1.0, np.nan)):
        yield f"multiplier {k} times {share}", replace(p, multipliers=put(p.multipliers, k, share * p.multipliers[k]))
    yield "a multiplier missing", replace(p, multipliers=p.multipliers[:-1])
    yield "a multiplier more", replace(p, multipliers=np.append(p.multipliers, 1.0))
    for value in (p.level + 2e-7, 0.31, 1.0, 1e300, 0.0, -p.level, np.nan, np.inf):
        yield f"level {value}", replace(p, level=value)
    for share in (1 - 1e-8, 0.5, 1e-300, -1.0, np.nan, np.inf):
        yield f"lipschitz times {share}", replace(p, lipschitz=p.lipschitz * share)
    yield "exact, with couplings inside phi", replace(p, exact=True)
    for value in (0.5, -0.5, np.nan):
        yield f"factor {value} without a step", replace(p, factor=value)


def test_the_specimen_is_accepted() -> None:
    made = the_specimen()
    report, interface = made.verified()
    assert interface is not None, report.detail
    assert holds(made)


@pytest.mark.parametrize("name", [name for name, _ in tampered(the_specimen().proof)])
def test_a_tampered_proof_is_refused(name: str) -> None:
    made = the_specimen()
    changed = dict(tampered(made.proof))[name]
    assert replace(made, proof=changed).verified()[1] is None


def test_tampered_couplings_and_children_are_refused() -> None:
    made = the_specimen()
    assembly = made.module
    assert isinstance(assembly, Assembly)
    for k, one in enumerate(assembly.couplings):
        for share in (1.01, -1.0, 1e150, 1e300):
            changed = edge(one.to, one.source, one.matrix * share, one.inside)
            edges = (*assembly.couplings[:k], changed, *assembly.couplings[k + 1 :])
            other = replace(made, module=replace(assembly, couplings=edges))
            assert other.verified()[1] is None or holds(other)
            if share > 1.0:
                assert other.verified()[1] is None
    hidden = (*assembly.couplings, edge("hopfield", "rate", 1e-3 * np.eye(2)))
    for norms in (made.proof.norms, np.append(made.proof.norms, 1.0)):
        proof = replace(made.proof, norms=norms)
        assert Made(replace(assembly, couplings=hidden), proof, made.children).verified()[1] is None
    for order in itertools.permutations(range(3)):
        children = [made.children[k] for k in order]
        assert (replace(made, children=children).verified()[1] is not None) == (order == (0, 1, 2))


def test_interfaces_of_the_other_kind_of_time_or_of_another_size_are_refused() -> None:
    made = the_specimen()
    found = [child.verified()[1] for child in made.children]
    children = [x for x in found if x is not None]
    one = Interface((Box.exact(np.eye(1)),), True, 0.3, 1.0)
    others = [[replace(children[0], continuous=False), *children[1:]], children[:2], [*children, one]]
    for wrong in (*others, [one, *children[1:]], [one, one, one]):
        report, interface = verify_flow(Node(made.module, wrong), made.proof)
        assert interface is None
        assert report.failed is not None
        assert report.failed.name == "interfaces"
    unknown = [replace(children[0], lipschitz=None), *children[1:]]
    assert verify_flow(Node(made.module, unknown), made.proof)[1] is None
    assert verify_flow(Node(made.module, unknown), replace(made.proof, lipschitz=0.0))[1] is not None


FIELDS = ("scale", "exponent", "pairs", "sigma", "vector", "norms", "multipliers", "level", "lipschitz", "exact")
STRANGE = [0.0, -1.0, 1e-308, 1e308, 1e-160, 1e160, 0.5, 2.0, 1.0, 0.999999, 1.000001, 1e-3, 1e3]


@given(st.integers(0, 11), st.lists(st.tuples(st.sampled_from(FIELDS), st.integers(0, 9), st.sampled_from(STRANGE))))
def test_random_tampering_is_refused_or_true(number: int, changes: list[tuple[str, int, float]]) -> None:
    seen = assemblies(True, 7, 12)[number]
    proof = composing.flow_proof(seen, np.ones(len(seen.children)), np.zeros(len(seen.children), np.int64), below=1e-4)
    for name, place, factor in changes:
        value = getattr(proof, name)
        if name == "exact":
            value = not value
        elif isinstance(value, float):
            value = value * factor
        elif len(value):
            at = place % len(value)
            with np.errstate(over="ignore"):
                scaled = float(value[at]) * np.float64(factor)
            value = put(value, at, scaled if value.dtype.kind == "f" else int(np.clip(scaled, -(2.0**62), 2.0**62)))
        proof = replace(proof, **{name: value})
    made = Made(seen.assembly, proof, seen.children)
    if made.verified()[1] is not None:
        assert holds(made)


# Vertex inequalities of the whole, feedback, steps ---------------------------------------------------------------


def vertex_margin(J: np.ndarray, rate: float) -> float:
    """Largest t with -(P J + J^T P + 2 c P) >= t I at every vertex, trace P = N, P >= 0, by Clarabel."""
    n = J.shape[-1]
    P, t = cp.Variable((n, n), symmetric=True), cp.Variable()
    limits = [-(P @ one) - (P @ one).T - 2.0 * rate * P >> t * np.eye(n) for one in J]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate", category=UserWarning)
        cp.Problem(cp.Maximize(t), [*limits, P >> 0, cp.trace(P) == n]).solve(solver="CLARABEL")
    return float(t.value)


@pytest.mark.slow
def test_nothing_is_accepted_where_no_metric_exists() -> None:
    counts: Counter[tuple[bool, bool]] = Counter()
    rng = np.random.default_rng(3)
    for seen in assemblies(True, 7, 40):
        J = composing.jacobians(seen.assembly)
        if len(J) > 32:
            continue
        best = composing.best_flow(rng, seen, below=0.0).level
        kinds = (False,) if any(one.inside for one in seen.assembly.couplings) else (False, True)
        for level in (best - 1e-3, best + 0.05, best + 0.3):
            if level <= 0.0:
                continue
            feasible = vertex_margin(J, level) > -1e-7
            proofs = [composing.best_flow(rng, seen, exact=exact, level=level) for exact in kinds]
            accepted = any(Made(seen.assembly, proof, seen.children).verified()[1] is not None for proof in proofs)
            whole = composing.whole_proof(seen.assembly, level)
            accepted = accepted or (whole is not None and verify_whole(seen.assembly, whole).valid)
            counts[feasible, accepted] += 1
            assert feasible or not accepted
    show("vertex inequalities of the whole", counts)
    assert counts[True, True] >= 5
    assert counts[False, False] >= 5


def test_feedback_in_the_metric_is_free_and_in_the_inverse_metric_is_not() -> None:
    """L_ij = B_ij - M_i^-1 B_ji^T M_j costs nothing; L = B - M B^T M^-1 (as published code has it) is refused."""
    rng = np.random.default_rng(8)
    chains = [RateNetwork(np.array(W), "relu") for W in ([[0.0, 6.0], [0.0, 0.0]], [[0.2, 0.0], [5.0, 0.1]])]
    proofs = [composing.interface_proof(chain, 0.2) for chain in chains]
    pair = [Made(chain, proof) for chain, proof in zip(chains, proofs, strict=True) if proof is not None]
    broken = 0
    for _ in range(20):
        M, N = (made.metric() for made in pair)
        B = 3.0 * rng.standard_normal((len(M), len(N)))
        right = (edge("a", "b", B), edge("b", "a", -np.linalg.solve(N, B.T @ M)))
        wrong = (edge("a", "b", B), edge("b", "a", -N @ B.T @ np.linalg.inv(M)))
        for edges, fine in ((right, True), (wrong, False)):
            seen = Seen.of(Assembly({"a": pair[0].module, "b": pair[1].module}, edges), pair)
            assert seen is not None
            least = float(seen.levels.min())
            for exact, below in itertools.product((False, True), (1e-6, 0.9 * least)):
                one, zero = np.ones(2), np.zeros(2, np.int64)
                proof = composing.flow_proof(seen, one, zero, exact=exact, level=least - below)
                pretended = replace(proof, sigma=np.full(1, 1e-9 * least), vector=np.ones(2))  # not used by ``exact``
                assert (Made(seen.assembly, pretended, pair).verified()[1] is not None) == fine, (exact, below)
                if fine:
                    continue
                assert (Made(seen.assembly, proof, pair).verified()[1] is not None) == fine, (exact, below)
        broken += np.linalg.eigvals(composing.jacobians(seen.assembly)).real.max() > 0.0
    print(f"\nfeedback in the inverse metric: {broken} of 20 have an unstable vertex")
    assert broken >= 5


def test_the_norm_of_the_couplings_has_to_be_scaled() -> None:
    """K = max K_i + norm(Lhat) is false where the s_i differ; with S^1/2 Lhat S^-1/2 it is true.

    Family: two leaves of the pool, a coupling that a random scale makes as strong as the rates allow. In 800 cases the
    unscaled number is smaller than the norm of some Jacobian in some 250; the verifier refuses it in each. The step
    h < 2 c / K^2 itself was not broken by it, here or by search: what is lost in K is paid by the rate.
    """
    rng = np.random.default_rng(9)
    leaves = composing.pool(True)
    zero = np.zeros(2, np.int64)
    cases = broken = steps = 0
    while cases < 800:
        pair = [leaves[k] for k in rng.choice(len(leaves), 2, replace=False)]
        root = 2.0 ** rng.uniform(1.0, 4.0)
        L = rng.standard_normal((pair[0].module.size, pair[1].module.size))
        assembly = Assembly({"a": pair[0].module, "b": pair[1].module}, (edge("a", "b", L),))
        seen = Seen.of(assembly, pair)
        assert seen is not None
        norm = root * np.linalg.norm(seen.hat(assembly.couplings[0]), 2)
        strength = rng.uniform(0.5, 1.9) * np.sqrt(seen.levels.prod()) / norm
        seen = Seen.of(replace(assembly, couplings=(edge("a", "b", strength * L),)), pair)
        assert seen is not None
        proof = composing.flow_proof(seen, np.array([root * root, 1.0]), zero, below=1e-6)
        cases += 1
        made = Made(seen.assembly, proof, pair)
        metric, J = made.metric(), composing.jacobians(seen.assembly)
        true = composing.true_norm(metric, J)
        unscaled = float(seen.lipschitz.max() + np.linalg.norm(seen.hat(seen.assembly.couplings[0]), 2))
        assert true <= proof.lipschitz
        for constant in (unscaled, proof.lipschitz):
            h = 1.98 * proof.level / constant**2
            claimed = np.sqrt(1.0 - 2.0 * h * proof.level + (h * constant) ** 2)
            breaks = composing.true_norm(metric, np.eye(len(metric)) + h * J) > claimed * (1 + 1e-9)
            assert not (breaks and constant == proof.lipschitz)
            steps += breaks
        if true > unscaled * (1 + 1e-9):
            broken += 1
            assert replace(made, proof=replace(proof, lipschitz=unscaled)).verified()[1] is None
            if broken % 10 == 0:
                assert made.verified()[1] is not None
    print(
        f"\nthe unscaled constant is false in {broken} of {cases} cases and breaks {steps} steps; the scaled one none"
    )
    assert broken >= 150


def test_strong_symmetric_excitation_is_not_accepted() -> None:
    edges = (edge("a", "b", 3.0), edge("b", "a", 3.0))
    for vector in ([1.0, 1.0], [1.0, 1e-3], [1e300, 1e-300]):
        refused(
            by_hand(edges, pairs=np.array([0, 1]), sigma=np.array([6.001]), vector=np.array(vector)), "interface-matrix"
        )


# One obligation each ---------------------------------------------------------------------------------------------


def test_a_pair_without_weights_does_not_lend_room_to_others() -> None:
    """sigma < 0 on a pair whose coupling is zero, so that nothing else asks: it would add to the rows of H v."""
    edges = (edge("a", "b", 3.0), edge("b", "a", 3.0), edge("a", "c", 0.0), edge("b", "c", 0.0))
    numbers = {"pairs": np.array([0, 1, 0, 2, 1, 2]), "sigma": np.array([6.001, -100.0, -100.0])}
    refused(by_hand(edges, ("a", "b", "c"), **numbers), "sigma")


def test_slopes_below_zero_count_inside_phi() -> None:
    """norm(B D C) with slopes in [-1, 0.2] is that of the lower end."""
    module = RateNetwork(np.zeros((1, 1)), slope=(-1.0, 0.2))
    proof = InterfaceProof(np.eye(1), np.ones(1), np.full(1, 9.0), 0.4, 0.0)
    assembly = Assembly({"a": module, "b": module}, (edge("a", "b", 0.5, True),))
    for norm, fine in ((0.51, True), (0.49, False), (0.11, False)):
        made = by_hand(assembly.couplings, multipliers=np.full(1, 1.01), norms=np.array([norm]))
        children = [Made(module, proof)] * 2
        assert (replace(made, module=assembly, children=children).verified()[1] is not None) == fine, norm


def map_by_hand(**changed: object) -> tuple[Node, MapProof]:
    """x+ = relu(0) / 2 ...: factors 0.5 and 0.3, a <- b of 0.4, b <- a of 0.1; T has the Perron root 0.6236."""
    module = RateNetwork(np.zeros((1, 1)), "relu", step=1.0)
    children = [Interface((Box.exact(np.eye(1)),), False, level, level) for level in (0.5, 0.3)]
    node = Node(Assembly({"a": module, "b": module}, (edge("a", "b", 0.4), edge("b", "a", 0.1))), children)
    T = np.array([[0.5, 0.4001], [0.1001, 0.3]])
    r, l = (np.abs(np.linalg.eig(t)[1][:, np.argmax(np.linalg.eig(t)[0])]) for t in (T, T.T))
    zero = np.zeros(2, np.int64)
    numbers = {
        "right": r,
        "right_exponent": zero,
        "left": l,
        "left_exponent": zero,
        "norms": np.array([0.4001, 0.1001]),
    }
    level = float(np.linalg.eigvals(T).max()) + 1e-9
    return node, MapProof(**(numbers | {"multipliers": np.zeros(0), "level": level} | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"level": 0.6235}, "perron"),
        ({"right": np.ones(2)}, "perron"),
        ({"left": np.ones(2)}, "perron"),
        ({"right_exponent": np.array([0, 3])}, "perron"),
        ({"left_exponent": np.array([0, 3])}, "perron"),
        ({"right": np.array([-1.0, 1.0]), "left": np.array([-1.0, 1.0])}, "vectors"),
        ({"right": np.array([-1.0, 1.0])}, "vectors"),
        ({"left": np.array([1.0, -1.0])}, "vectors"),
        ({"right": np.array([0.0, 1.0])}, "vectors"),
        ({"right": np.ones(3)}, "shapes"),
        ({"norms": np.array([0.39, 0.1001])}, "coupling-norm"),
        ({"norms": np.array([0.4001, -0.1001])}, "norms"),
        ({"norms": np.array([0.4001])}, "shapes"),
        ({"multipliers": np.ones(1)}, "multipliers"),
        ({"level": 1.0}, "range"),
        ({"level": -0.7}, "range"),
        ({"level": np.nan}, "inputs"),
    ],
)
def test_a_tampered_composition_of_maps_is_refused(changed: dict[str, object], name: str) -> None:
    assert verify_maps(*map_by_hand())[1] is not None
    report, interface = verify_maps(*map_by_hand(**changed))
    assert interface is None
    assert report.failed is not None
    assert report.failed.name == name


@pytest.mark.parametrize("continuous", [True, False])
def test_the_metric_handed_on_encloses_the_exact_one(continuous: bool) -> None:
    rng = np.random.default_rng(2)
    for seen in assemblies(continuous, 7, 12):
        proof = composing.best_flow(rng, seen, below=1e-2) if continuous else composing.map_proof(seen)
        made = Made(seen.assembly, proof, seen.children)
        interface = made.verified()[1]
        if interface is None:
            continue
        exact = made.metric(exact=True)
        for start, block in zip(interface.starts, interface.blocks, strict=False):
            at = slice(start, start + len(block.mid))
            error = np.abs(composing.given(block.mid, True) - exact[at, at])
            assert (error <= composing.given(block.rad, True)).all()
        assert (interface.level, interface.continuous) == (proof.level, continuous)


def test_the_factor_of_an_euler_step() -> None:
    """1 - 2 h c + h^2 K^2 at both ends of one ulp; what is handed on is the factor that was shown."""
    for c, K, h in ((0.1, 1.3, 0.01), (0.1, 1.3, 0.1), (0.5, 1.0, 1.0), (0.25, 2.0, 0.0625)):
        ends = (Fraction(h) - Fraction(np.spacing(h)), Fraction(h) + Fraction(np.spacing(h)))
        squares = [1 - 2 * x * Fraction(c) + (x * Fraction(K)) ** 2 for x in ends]
        assert euler_factor_squared(c, K, h) == max(squares)
    made = by_hand(LINEAR, **PAIR, norms=np.array([0.0201, 0.0101]), lipschitz=1.3)
    stepped = replace(made, module=replace(made.module, step=0.05))
    best = composing.upper_root(euler_factor_squared(0.1, 1.3, 0.05))
    for factor, fine in ((best, True), (np.nextafter(best, 0.0), False), (1.0, False), (0.0, False), (-best, False)):
        interface = replace(stepped, proof=replace(made.proof, factor=float(factor))).verified()[1]
        assert (interface is not None) == fine, factor
        if interface is not None:
            assert (interface.level, interface.continuous) == (best, False)
    refused(replace(stepped, proof=replace(made.proof, lipschitz=0.0, factor=best)), "euler")
