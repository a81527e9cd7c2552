"""The verifier of gated cells: its bounds against sampled Jacobians, closed forms, trajectories, and tampering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from certes.cells import GRUNetwork, LSTMNetwork
from certes.conditions import gated as condition
from certes.engines.monitor import Monitor
from certes.proofs import Claims, GatedProof, SingularProof
from certes.verify import gated
from certes.verify.elementary import Interval
from certes.verify.gated import admissible, image, row_sums, verify_gated
from certes.verify.intervals import Box
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.judges import cells as judge
from tests.verify.gated_cases import bistable, calm, cell_of, points

KINDS = ("gru", "lstm")


def proof_of(cell: object) -> tuple[GatedProof, float]:
    found = condition.find(cell, Monitor())  # type: ignore[arg-type]
    assert found is not None
    return found.proof, found.factor


@pytest.fixture(scope="module", params=KINDS)
def proven(request: pytest.FixtureRequest):
    weights, cell = calm(request.param)
    proof, factor = proof_of(cell)
    assert verify_gated(cell, proof, Claims(factor=factor)).verdict == "contracting"
    return request.param, weights, cell, proof, factor


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_sampled_jacobians_lie_below_the_majorant(kind: str, seed: int) -> None:
    """Complex steps through the judge's own formulas: no row, in any weighted norm, sums up to more."""
    random = np.random.default_rng(seed)
    n, inputs = int(random.integers(1, 5)), int(random.integers(1, 4))
    weights = judge.random_cell(random, kind, n, inputs, scale=3.0 * random.random(), bias=2.0 * random.random())
    low = random.uniform(-2.0, 1.0, inputs)
    box = (low, low + random.uniform(0.0, 2.0, inputs))
    cell = cell_of(kind, weights, box)
    size = cell.states
    lower = random.uniform(-1.5, 0.5, size)
    upper = lower + random.uniform(0.0, 1.5, size)
    r = 2.0 ** random.uniform(-8, 0, size)
    bounds = row_sums(cell, Interval(lower, upper), admissible(cell), r)
    over = image(cell, Interval(lower, upper), admissible(cell))
    for _ in range(200):  # 10,000 Jacobians in all
        state, given_ = points(random, lower, upper), points(random, *box)
        rows = np.abs(judge.derivative(kind, weights, state, given_)) @ r
        assert (rows <= bounds * (1 + 1e-12) + 1e-300).all()
        after = judge.step(kind, weights, state, given_)
        assert (over.lower - 1e-14 <= after).all()
        assert (after <= over.upper + 1e-14).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_majorant_is_tight_at_a_point(kind: str) -> None:
    """Over a single state and input the bound is the Jacobian's own row sum, up to rounding."""
    random = np.random.default_rng(3)
    weights = judge.random_cell(random, kind, 4, 2)
    at, given_ = random.uniform(-1, 1, 4 * (1 + (kind == "lstm"))), random.uniform(-1, 1, 2)
    cell = cell_of(kind, weights, (given_, given_))
    r = random.uniform(0.1, 1.0, len(at))
    found = row_sums(cell, Interval(at, at), admissible(cell), r)
    assert np.allclose(found, np.abs(judge.derivative(kind, weights, at, given_)) @ r, rtol=1e-10)


def test_our_step_is_the_step_of_torch() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    for kind, module in (("gru", torch.nn.GRU(3, 4).double()), ("lstm", torch.nn.LSTM(3, 4).double())):
        names = {"W": "weight_ih_l0", "U": "weight_hh_l0", "b": "bias_ih_l0", "c": "bias_hh_l0"}
        weights = {role: getattr(module, name).detach().numpy() for role, name in names.items()}
        u, h, c = torch.randn(1, 3).double(), torch.randn(1, 4).double(), torch.randn(1, 4).double()
        state = h.numpy()[0] if kind == "gru" else np.concatenate([c.numpy()[0], h.numpy()[0]])
        after = module(u, h)[1] if kind == "gru" else torch.cat(module(u, (h, c))[1][::-1], dim=1)
        ours = judge.step(kind, weights, state, u.numpy()[0])
        assert np.allclose(ours, after.detach().numpy()[0], atol=1e-14)
        jacobian = torch.autograd.functional.jacobian(
            lambda s, kind=kind, module=module, u=u: (
                module(u, s[None])[1][0]
                if kind == "gru"
                else torch.cat(module(u, (s[None, 4:], s[None, :4]))[1][::-1], dim=1)[0]
            ),
            torch.tensor(state),
        )
        assert np.allclose(judge.derivative(kind, weights, state, u.numpy()[0]), jacobian.numpy(), atol=1e-13)


def test_a_gru_without_weights_forgets_at_its_update_gate() -> None:
    """h+ = (1 - z) n + z h with constant z, n: the factor is z = sig(b_z), exactly."""
    b = np.array([0.3, -0.2, 0.7, 1.1, 0.4, -0.4])
    cell = GRUNetwork(np.zeros((6, 1)), np.zeros((6, 2)), b, inputs=(-5, 5))
    proof, factor = proof_of(cell)
    z = judge.sigmoid(1.1)
    assert abs(factor - z) < 1e-6
    assert verify_gated(cell, proof, Claims(factor=z + 1e-6)).valid
    assert not verify_gated(cell, proof, Claims(factor=z - 1e-9)).valid


def test_a_scalar_gru_at_its_border() -> None:
    """U_n = u, r = 1 (its bias is huge), z = 1/2: h+ = tanh(u h) / 2 + h / 2 contracts iff u < 1."""

    def cell(u: float) -> GRUNetwork:
        return GRUNetwork(np.zeros((3, 1)), [[0.0], [0.0], [u]], [60.0, 0.0, 0.0], inputs=(0, 0))

    for u in (0.1, 0.5, 0.99):
        assert abs(proof_of(cell(u))[1] - (0.5 + 0.5 * u)) < 1e-6
    proof, factor = proof_of(cell(1.01))
    assert factor > 1.0
    for claimed in (0.5, 0.999, 1.0 - 1e-15):
        assert not verify_gated(cell(1.01), proof, Claims(factor=claimed)).valid


def test_an_lstm_without_weights_forgets_at_its_forget_gate() -> None:
    """c+ = f c + i g with constant gates: the factor comes as close to f = sig(b_f) as the norm allows."""
    b = np.array([0.2, 0.9, 0.5, -0.3])
    cell = LSTMNetwork(np.zeros((4, 1)), np.zeros((4, 1)), b, inputs=(-1, 1))
    proof, factor = proof_of(cell)
    f = judge.sigmoid(0.9)
    assert f < factor < f + 1e-4
    assert verify_gated(cell, proof, Claims(factor=factor)).valid
    assert not verify_gated(cell, proof, Claims(factor=f - 1e-6)).valid


def test_pairs_of_trajectories_approach_each_other(proven) -> None:
    """1,000 pairs under common random inputs: every step, in the stored norm, by the certified factor."""
    kind, weights, _, proof, factor = proven
    random = np.random.default_rng(5)
    for _ in range(1000):
        x, y = points(random, proof.lower, proof.upper), points(random, proof.lower, proof.upper)
        before = np.max(np.abs(x - y) / proof.weights)
        for _ in range(4):
            given_ = points(random, -np.ones(2), np.ones(2))
            x, y = judge.step(kind, weights, x, given_), judge.step(kind, weights, y, given_)
            after = np.max(np.abs(x - y) / proof.weights)
            assert after <= factor * before * (1 + 1e-12) + 1e-15
            before = after
        for state in (x, y):
            assert (proof.lower <= state).all()
            assert (state <= proof.upper).all()


def test_every_start_enters_the_box(proven) -> None:
    kind, weights, _, proof, _ = proven
    assert proof.steps > 0
    random = np.random.default_rng(6)
    for _ in range(200):
        x = points(random, proof.start_lower, proof.start_upper)
        for _ in range(int(proof.steps)):
            x = judge.step(kind, weights, x, points(random, -np.ones(2), np.ones(2)))
        assert (proof.lower <= x).all()
        assert (x <= proof.upper).all()


Change = Callable[[GatedProof], dict[str, object]]
TAMPERED: dict[str, tuple[Change, set[str]]] = {
    "box too small above": (lambda p: {"upper": p.upper - 0.5 * (p.upper - p.lower)}, {"invariant"}),
    "box too small below": (lambda p: {"lower": p.lower + 0.5 * (p.upper - p.lower)}, {"invariant"}),
    "box upside down": (lambda p: {"lower": p.upper, "upper": p.lower}, {"shapes"}),
    "box that is wide": (lambda p: {"upper": p.upper + 50.0, "lower": p.lower - 50.0}, {"rate", "invariant"}),
    "box not finite": (lambda p: {"upper": p.upper * np.inf}, {"inputs"}),
    "box of another size": (lambda p: {"upper": p.upper[:-1]}, {"shapes"}),
    "start from farther away": (lambda p: {"start_upper": p.start_upper + 100.0}, {"entry", "starts"}),
    "start from farther below": (lambda p: {"start_lower": p.start_lower - 100.0}, {"entry", "starts"}),
    "start upside down": (lambda p: {"start_lower": p.start_upper + 1.0}, {"shapes"}),
    "start from less": (lambda p: {"start_upper": 0.999 * p.start_upper}, {"starts"}),
    "start from less below": (lambda p: {"start_lower": 0.999 * p.start_lower}, {"starts"}),
    "one step fewer": (lambda p: {"steps": p.steps - 1.0}, {"entry"}),
    "start from the invariant box": (
        lambda p: {"start_lower": p.lower, "start_upper": p.upper, "steps": 0.0},
        {"starts"},
    ),
    "fewer steps": (lambda p: {"steps": 0.0}, {"entry"}),
    "half a step": (lambda p: {"steps": p.steps + 0.5}, {"shapes"}),
    "steps without end": (lambda p: {"steps": 1e9}, {"shapes"}),
    "steps not a number": (lambda p: {"steps": float("nan")}, {"inputs"}),
    "negative steps": (lambda p: {"steps": -1.0}, {"shapes"}),
    "one weight smaller": (lambda p: {"weights": np.r_[p.weights[:-1], p.weights[-1] * 1e-3]}, {"rate"}),
    "a weight of zero": (lambda p: {"weights": np.r_[p.weights[:-1], 0.0]}, {"shapes"}),
    "a negative weight": (lambda p: {"weights": -p.weights}, {"shapes"}),
    "weights beyond one": (lambda p: {"weights": 2.0 * p.weights / p.weights.max()}, {"shapes"}),
    "a weight not finite": (lambda p: {"weights": p.weights * np.nan}, {"inputs"}),
    "subnormal weights": (lambda p: {"weights": np.full_like(p.weights, 1e-310)}, {"inputs"}),
    "weights at the end of the range": (lambda p: {"weights": p.weights * 2.0**-1000}, {"rate"}),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_proofs_are_refused(proven, name: str) -> None:
    _, _, cell, proof, factor = proven
    change, obligations = TAMPERED[name]
    report = verify_gated(cell, replace(proof, **change(proof)), Claims(factor=factor))
    assert report.verdict == "undecided"
    assert report.failed is not None
    assert report.failed.name in obligations


def test_an_lstm_starts_from_every_state_that_it_can_rest_in() -> None:
    """c = 0 alone is too little: entered, but left by the map, and it may miss a fixed point."""
    _, cell = calm("lstm")
    proof, factor = proof_of(cell)
    n, claims = cell.size, Claims(factor=factor)
    nothing = np.r_[np.zeros(n), np.ones(n)]
    narrow = replace(proof, start_lower=-nothing, start_upper=nothing)
    assert verify_gated(cell, narrow, claims).failed.name == "starts"
    wide = np.r_[np.zeros(n), -np.ones(n)]
    assert verify_gated(cell, replace(proof, start_lower=wide), claims).failed.name == "starts"
    b = np.array([0.0, 0.0, 2.0, 0.0])  # g > 0 whatever h is: c > 1 is never left, and does not hold c = 0
    pulled = LSTMNetwork(np.zeros((4, 1)), np.full((4, 1), 0.01), b, inputs=(0, 0))
    proof, factor = proof_of(pulled)
    above = replace(proof, start_lower=np.array([0.5, -1.0]), start_upper=np.array([1.5, 1.0]))
    assert image(pulled, Interval(above.start_lower, above.start_upper), admissible(pulled)).lower[0] > 0.5
    report = verify_gated(pulled, above, Claims(factor=factor))
    assert report.failed is not None
    assert report.failed.name == "starts"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), wide=st.booleans())
@pytest.mark.parametrize("kind", KINDS)
def test_row_sums_are_bounds_in_exact_arithmetic(kind: str, seed: int, wide: bool) -> None:
    """Rows whose terms cancel to the last bits, summed as rational numbers at an end of each coefficient."""
    random, n = np.random.default_rng(seed), 3
    weights = judge.random_cell(random, kind, n, 1, scale=float(random.choice([1e-3, 1e6])))
    weights["U"][n : 2 * n] = -weights["U"][:n] * (1 + 2.0**-52 * random.integers(-3, 4, (n, n)))
    cell = cell_of(kind, weights)
    part = int(random.integers(cell.parts))

    def some(near: float) -> Box:
        mid = near * (1 + 2.0**-52 * random.integers(-3, 4, n))
        return Box(mid, np.abs(mid) * (2.0**-40 if wide else 0.0))

    common = random.uniform(0.1, 1.0)
    terms = ((0, some(common)), (1, some(common)), (2, Box.exact(np.zeros(n))))
    corner = gated.Corner(part, some(random.uniform(0.1, 1.0)), terms)
    r = 2.0 ** random.uniform(-4, 0, cell.states)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gated, "corners", lambda *_: iter([corner]))
        bounds = row_sums(cell, Interval(-r, r), admissible(cell), r).reshape(cell.parts, n)[part]
    for i in range(n):
        ends = [[Fraction(float(box.mid[i])) + sign * Fraction(float(box.rad[i])) for sign in (-1, 1)]
                for box in [corner.own] + [box for _, box in terms]]  # fmt: skip
        for own, *chosen in product(*ends):
            total = Fraction(0)
            if kind == "lstm":
                total += abs(own) * Fraction(float(r[i]))
            for j in range(n):
                entry = own if kind == "gru" and i == j else Fraction(0)
                for (gate, _), value in zip(terms, chosen, strict=True):
                    entry += value * Fraction(float(cell.gate("U", gate)[i, j]))
                total += abs(entry) * Fraction(float(r[-n:][j]))
            assert total <= Fraction(float(bounds[i]))


def test_another_rounding_mode_is_refused(monkeypatch: pytest.MonkeyPatch, proven) -> None:
    _, _, cell, proof, factor = proven
    monkeypatch.setattr(gated, "rounds_to_nearest", lambda _: False)
    assert verify_gated(cell, proof, Claims(factor=factor)).failed.name == "arithmetic"


@pytest.mark.parametrize(
    "claims",
    [
        Claims(),
        Claims(factor=0.0),
        Claims(factor=1.0),
        Claims(factor=-0.5),
        Claims(factor=float("nan")),
        Claims(rate=0.1),
        Claims(factor=0.99, rate=0.1),
        Claims(factor=0.99, gain=5.0),
        Claims(factor=0.99, weight_radius=1e-9),
        Claims(factor=0.99, margin=1e-9),
        Claims(factor=0.99, metric_condition_log2=3.0),
    ],
)
def test_no_other_claim_is_carried(proven, claims: Claims) -> None:
    _, _, cell, proof, _ = proven
    report = verify_gated(cell, proof, claims)
    assert not report.valid
    assert report.failed is not None
    assert report.failed.name in ("range", "inputs")


def test_a_smaller_factor_is_refused(proven) -> None:
    _, _, cell, proof, factor = proven
    assert not verify_gated(cell, proof, Claims(factor=factor - 1e-7)).valid


def test_hypotheses_are_part_of_what_is_proven(proven) -> None:
    """No box, a wider box, other weights, another kind of proof: nothing holds."""
    kind, weights, cell, proof, factor = proven
    claims = Claims(factor=factor)
    undeclared = cell_of(kind, weights, None)
    assert verify_gated(undeclared, proof, claims).failed.name == "shapes"
    assert not verify_gated(cell.with_inputs((-4, 4)), proof, claims).valid
    assert not verify_gated(cell_of(kind, {**weights, "U": 2 * weights["U"]}), proof, claims).valid
    other = SingularProof(np.ones(3), 0.5)
    assert verify_gated(cell, other, claims).failed.name == "condition"  # type: ignore[arg-type]
    broken = cell_of(kind, {**weights, "b": weights["b"] + 1e-310 * (weights["b"] > 0)})
    assert verify_gated(broken, proof, claims).valid  # adding it changes nothing: the sum is what it was
    weights = {**weights, "b": np.where(np.arange(len(weights["b"])) == 0, 1e-310, weights["b"])}
    assert verify_gated(cell_of(kind, weights), proof, claims).failed.name == "inputs"


@pytest.mark.parametrize("kind", KINDS)
def test_an_unstable_cell_is_never_proven(kind: str) -> None:
    """Whatever box and weights are offered, a saddle inside the box forbids a factor below 1."""
    _, cell = bistable(kind)
    random = np.random.default_rng(7)
    proof, _ = proof_of(cell)
    for _ in range(8):
        r = 2.0 ** random.uniform(-6, 0, cell.states)
        assert not verify_gated(cell, replace(proof, weights=r), Claims(factor=1.0 - 1e-12)).valid


def _leaves_its_box(kind: str) -> tuple[object, tuple[GatedProof, Claims]]:
    """Unit 0 reads unit 1, and nothing else is read: a box that is 100 high in h_1 alone is left by the other unit."""
    k, n = len(judge.ORDER[kind]), 2
    weights = {"W": np.zeros((k * n, 1)), "U": np.zeros((k * n, n)), "b": np.zeros(k * n), "c": np.zeros(k * n)}
    weights["U"][2 * n, 1] = 0.3
    cell = cell_of(kind, weights)
    proof, factor = proof_of(cell)
    upper = proof.upper.copy()
    upper[-1] = 100.0
    return cell, (replace(proof, upper=upper), Claims(factor=factor))


@pytest.mark.parametrize("obligation", [entry.__name__ for entry in gated.OBLIGATIONS])
def test_no_obligation_is_implied_by_the_others(monkeypatch: pytest.MonkeyPatch, obligation: str, proven) -> None:
    """Dropped, a false claim passes: each of them is needed."""
    kind, _, cell, proof, factor = proven
    false = {
        "claim_range": (proof, Claims(factor=factor, gain=1e-9)),
        "shapes": (replace(proof, steps=float(gated.MOST_STEPS + 1)), Claims(factor=factor)),
        "starts": (
            replace(proof, start_lower=proof.lower, start_upper=proof.upper, steps=0.0),
            Claims(factor=factor),
        ),
        "invariant": None,
        "entry": (replace(proof, steps=0.0), Claims(factor=factor)),
        "rate": (proof, Claims(factor=0.01)),
    }[obligation]
    if false is None:
        cell, false = _leaves_its_box(kind)
    assert not verify_gated(cell, *false).valid
    kept = tuple(entry for entry in gated.OBLIGATIONS if entry.__name__ != obligation)
    monkeypatch.setattr(gated, "OBLIGATIONS", kept)
    assert verify_gated(cell, *false).valid


@pytest.mark.parametrize(("kind", "dropped"), [("gru", 0), ("gru", 1), ("gru", 2)] + [("lstm", k) for k in range(4)])
def test_dropping_a_term_of_the_majorant_is_noticed(monkeypatch: pytest.MonkeyPatch, kind: str, dropped: int) -> None:
    """The tests on Jacobians can fail: without one term the bound at a point lies below some row there."""
    random = np.random.default_rng(2)
    weights = judge.random_cell(random, kind, 3, 2, scale=2.0)
    whole = gated.corners

    def fewer(*given_: object):
        for corner in whole(*given_):  # type: ignore[arg-type]
            yield replace(corner, terms=tuple(term for k, term in enumerate(corner.terms) if k != dropped))

    at, given_ = random.uniform(-1, 1, 3 * (1 + (kind == "lstm"))), random.uniform(-1, 1, 2)
    cell, r = cell_of(kind, weights, (given_, given_)), np.ones(len(at))
    rows = np.abs(judge.derivative(kind, weights, at, given_)) @ r
    assert (rows <= row_sums(cell, Interval(at, at), admissible(cell), r)).all()
    monkeypatch.setattr(gated, "corners", fewer)
    assert (rows > row_sums(cell, Interval(at, at), admissible(cell), r) * (1 + 1e-9)).any()
