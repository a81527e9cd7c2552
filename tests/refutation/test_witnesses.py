"""Who is refuted and who is not: closed forms, contracting networks, every form and activation; all replayed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from certes import refutation
from certes.activations import activation
from certes.engines.slopes import Linearisation, leading_mode
from certes.proofs import InstabilityWitness
from certes.refutation import inertia_numbers, place, points_of, refute
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from certes.verify.instability import verify_instability
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.refutation import plain

FORMS = {"rate": RateNetwork, "hopfield": HopfieldNetwork}


def refuted(system: System) -> InstabilityWitness:
    """The witness, verified; and its equilibrium and parting replayed by plain loops."""
    witness = refute(system)
    assert witness is not None
    report = verify_instability(system, witness)
    assert report.verdict == "not_contracting", report.detail
    replayed(system, witness)
    return witness


def replayed(system: System, witness: InstabilityWitness) -> None:
    name = None if system.slope.activation is None else system.slope.activation.name
    phi = (lambda s: witness.slopes * s) if name is None else (lambda s: plain.phi(name, s))

    def drift(x):
        if system.form == "lure":
            value = system.matrix("A") @ x + system.matrix("B") @ phi(system.matrix("C") @ x + witness.input)
            return value - x if system.discrete else value
        W = system.matrix("W")
        total = phi(W @ x + witness.input) if system.form == "rate" else W @ phi(x) + witness.input
        return (total - x) / system.tau

    middle = (witness.start + witness.start_other) / 2
    assert np.abs(drift(middle)).max() <= 1e-9 * (1 + np.abs(middle).max())
    if system.continuous:
        norm = np.linalg.norm(Linearisation.of(system).jacobian(witness.slopes), 2)
        steps = int(np.ceil(witness.horizon * 5 * (1 + norm)))
        ends = [plain.run_flow(drift, x, witness.horizon, steps) for x in (witness.start, witness.start_other)]
    else:
        step = 1.0 if system.step is None else system.step
        ends = [
            plain.run_map(lambda x: x + step * drift(x), x, int(witness.horizon))
            for x in (witness.start, witness.start_other)
        ]
    assert plain.parted(*ends, witness.start, witness.start_other) >= 10.0


# Closed forms


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["relu", "tanh", "hardtanh", "relu6", "elu", "softplus", "softsign", "leaky_relu:0.3"])
def test_one_neuron_is_unstable_beyond_weight_one(form, name):
    refuted(FORMS[form]([[1.1]], name))
    refuted(FORMS[form]([[1.1]], name, step=1.0))
    assert refute(FORMS[form]([[1.0]], name)) is None
    assert refute(FORMS[form]([[0.99]], name)) is None


@pytest.mark.parametrize("form", FORMS)
def test_a_sigmoid_needs_four_times_the_weight(form):
    assert refute(FORMS[form]([[3.99]], "sigmoid")) is None
    assert refuted(FORMS[form]([[4.2]], "sigmoid")).slopes[0] == pytest.approx(0.25, abs=1e-6)


def test_negative_slopes_of_gelu_and_silu_are_used():
    # W < 0 is harmless for slopes >= 0; gelu falls with slope -0.1289 and silu with -0.0998
    assert refute(RateNetwork([[-9.0]], "tanh")) is None
    assert refuted(RateNetwork([[-9.0]], "gelu")).slopes[0] < -0.12
    assert refuted(RateNetwork([[-12.0]], "silu")).slopes[0] < -0.09
    assert refute(RateNetwork([[-7.0]], "gelu")) is None
    assert refute(RateNetwork([[-9.9]], "silu")) is None


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_a_map_is_unstable_beyond_minus_one(name):
    assert refuted(RateNetwork([[-1.1]], name, step=1.0)).growth > 1.0
    assert refute(RateNetwork([[-0.99]], name, step=1.0)) is None
    assert refute(RateNetwork([[-1.1]], name)) is None  # in continuous time it is the strongest contraction of all


def test_an_euler_step_beyond_two_is_unstable_by_itself():
    refuted(RateNetwork([[0.0]], "relu", step=2.1))
    assert refute(RateNetwork([[0.0]], "relu", step=1.9)) is None


@pytest.mark.parametrize("w", [2.0, 2.2, 2.5, 2.87, 4.0, 50.0])
@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "softplus"])
def test_skew_coupling_never_gets_a_witness(w, name):
    # every fixed-slope Jacobian has abscissa -1: whatever happens beyond w = 3, no equilibrium shows it
    for form in FORMS.values():
        assert refute(form([[0.0, -w], [w, 0.0]], name)) is None
    assert refute(RateNetwork([[0.0, -w], [w, 0.0]], slope=(0.0, 1.0))) is None


def test_skew_coupling_as_a_map_is_refuted_beyond_one():
    refuted(RateNetwork([[0.0, -1.1], [1.1, 0.0]], "relu", step=1.0))
    assert refute(RateNetwork([[0.0, -0.99], [0.99, 0.0]], "relu", step=1.0)) is None


# Contracting networks


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 6),
    norm=st.floats(0.0, 0.97),
    form=st.sampled_from(sorted(FORMS)),
    name=st.sampled_from([name for name in plain.NAMES if name not in {"gelu", "silu"}]),
    step=st.sampled_from([None, 0.2, 1.0]),
)
def test_a_contracting_network_never_gets_a_witness(seed, size, norm, form, name, step):
    W = np.random.default_rng(seed).standard_normal((size, size))
    W *= norm / np.linalg.norm(W, 2)
    assert refute(FORMS[form](W, name, step=step), budget=40) is None


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), size=st.integers(2, 5), diagonal=st.floats(-3.0, 0.95))
def test_a_contracting_triangular_network_never_gets_a_witness(seed, size, diagonal):
    # hugely non-normal: computed eigenvalues of such a Jacobian may be off, no witness may come of it
    W = np.triu(1e3 * np.random.default_rng(seed).standard_normal((size, size)), 1) + diagonal * np.eye(size)
    assert refute(RateNetwork(W, "relu"), budget=40) is None


# Every form, activation and time domain


@pytest.mark.parametrize("step", [None, 0.3, 1.0])
@pytest.mark.parametrize("form", [*FORMS, "lure"])
@pytest.mark.parametrize("name", plain.NAMES)
def test_unstable_networks_of_every_kind_are_refuted(name, form, step):
    random = np.random.default_rng([len(name), len(form), 1 if step is None else int(10 * step)])
    gain = 1.0 / activation(name).upper
    W = gain * (2.5 * np.eye(5) + random.standard_normal((5, 5)))
    if form == "lure":
        A = -np.eye(5) + 0.1 * random.standard_normal((5, 5))
        A = A + np.eye(5) if step == 1.0 else A
        refuted(
            LureSystem(
                A, W[:, :3], np.eye(5)[:3], activation=name, discrete=step == 1.0, step=0.3 if step == 0.3 else None
            )
        )
    else:
        refuted(FORMS[form](W, name, step=step, tau=random.uniform(0.6, 2.0, 5)))


def test_slow_and_fast_time_constants():
    tau = [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0]
    W = np.random.default_rng(0).standard_normal((6, 6)) + 2.0 * np.eye(6)
    for form in FORMS.values():
        for name in ("tanh", "relu"):
            witness = refute(form(W, name, tau=tau))
            assert verify_instability(form(W, name, tau=tau), witness).verdict == "not_contracting"


def test_bare_slope_intervals_are_refuted_by_a_linear_member():
    witness = refuted(RateNetwork([[0.5, 0.0], [0.0, -1.5]], slope=([0.0, -1.0], [1.0, -0.5])))
    assert witness.slopes.tolist() == [1.0, -1.0]
    assert not witness.points.any()
    assert not witness.input.any()
    refuted(HopfieldNetwork([[1.2]], slope=(-1.0, 1.0), step=1.0))
    refuted(LureSystem([[0.5]], [[1.0, 1.0]], [[1.0], [1.0]], slope=([0.0, 0.1], [0.2, 0.4]), discrete=True))


def test_a_lure_system_without_an_equilibrium_elsewhere_is_refuted_at_the_origin():
    integrator = LureSystem(np.zeros((2, 2)), np.eye(2), np.eye(2), activation="tanh")
    assert not refuted(integrator).input.any()
    # the slopes found, gelu's largest, belong to no equilibrium here; those at the origin are unstable as well
    assert refuted(LureSystem([[0.0]], [[1.0]], [[1.0]], activation="gelu")).slopes.tolist() == [0.5]
    rising = LureSystem(np.zeros((2, 2)), np.eye(2), np.eye(2), activation="softplus")  # x' > 0: it rests nowhere
    assert refute(rising) is None


def test_an_unstable_linear_part_is_refuted_whatever_the_nonlinearity():
    refuted(LureSystem([[0.5, 1.0], [0.0, -1.0]], np.zeros((2, 1)), np.zeros((1, 2)), activation="tanh"))


def test_long_chains_are_refuted_through_one_component():
    chain = np.diag(np.full(29, 5.0), 1) + 1.01 * np.eye(30)
    refuted(RateNetwork(chain, "relu"))
    refuted(RateNetwork(chain + 0.5 * np.eye(30), "tanh", step=1.0))


def test_badly_scaled_weights():
    random = np.random.default_rng(8)
    S = 10.0 ** random.uniform(-6, 6, 6)
    W = S[:, None] * (random.standard_normal((6, 6)) + 2.0 * np.eye(6)) / S
    refuted(RateNetwork(W, "tanh", step=1.0))
    for scale in (1e-150, 1e30, 1e150, 1e300):
        for name in ("relu", "tanh"):
            system = RateNetwork(scale * random.standard_normal((4, 4)), name)
            witness = refute(system)  # an answer or none, never an exception, never NaN
            assert witness is None or np.isfinite(witness.lyapunov).all()
            assert witness is None or verify_instability(system, witness).verdict == "not_contracting"


def test_slow_instability_is_left_alone():
    # it would take a million steps to see two starts part: no evidence that anyone would run
    assert refute(RateNetwork([[1.00001]], "relu", step=1.0)) is None
    assert refute(RateNetwork([[1.00001]], "relu")) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_an_instability_of_a_thousandth_is_told(name):
    refuted(RateNetwork([[0.0, 1.001], [1.001, 0.0]], name))
    refuted(RateNetwork([[0.0, 1.001], [1.001, 0.0]], name, step=1.0))


def test_a_search_and_a_replay_are_stopped_from_outside():
    stable = RateNetwork(0.6 * np.random.default_rng(0).standard_normal((20, 20)) / np.sqrt(20), "tanh")
    slow = RateNetwork([[1.001]], "tanh")
    for system in (stable, slow):
        asked = []

        def stop(asked=asked):
            asked.append(1)
            return len(asked) > 30

        assert refute(system, stop=stop) is None
        assert len(asked) < 60  # asked often, and believed
    assert refute(slow, stop=lambda: False) is not None


def test_a_witness_that_does_not_part_is_not_given_out(monkeypatch):
    system = RateNetwork([[2.0]], "relu")
    assert refute(system) is not None
    monkeypatch.setattr(
        refutation, "trajectories", lambda evidence: iter([3.0 * evidence.starts, 9.0 * evidence.starts])
    )
    assert refute(system) is None


def test_sparse_weights_are_not_searched():
    assert refute(RateNetwork(scipy.sparse.csr_array(2.0 * np.eye(3)), "relu")) is None


def test_the_answer_is_deterministic_and_a_deadline_is_kept():
    W = np.random.default_rng(1).standard_normal((40, 40)) / np.sqrt(40) * 1.1
    first, second = refute(RateNetwork(W, "relu")), refute(RateNetwork(W, "relu"))
    for left, right in zip(first.to_arrays().values(), second.to_arrays().values(), strict=True):
        assert np.array_equal(left, right)
    assert refute(RateNetwork(0.9 * W / np.linalg.norm(W, 2), "relu"), seconds=0.0) is None


# The parts


@pytest.mark.parametrize("name", plain.SMOOTH)
def test_points_have_the_slopes_asked_for(name):
    entry = activation(name)
    wanted = np.linspace(entry.lower, entry.upper, 41)
    for inset in (1e-2, 1e-5):
        points = points_of(entry, wanted, inset)
        gap = entry.upper - entry.lower
        assert np.isfinite(points).all()
        assert np.abs(plain.slope(name, points) - wanted).max() <= 1.01 * inset * gap + 1e-6
        assert np.abs(points).max() < 1.2 / np.sqrt(inset)  # softsign is the slowest to get there
        inner = (wanted > entry.lower + 1.1 * inset * gap) & (wanted < entry.upper - 1.1 * inset * gap)
        assert np.abs(plain.slope(name, points) - wanted)[inner].max() <= 1e-6


@pytest.mark.parametrize("name", ["relu", "hardtanh", "relu6", "leaky_relu:0.3", "identity"])
def test_points_of_piecewise_linear_functions_are_inside_a_piece(name):
    entry = activation(name)
    points = points_of(entry, np.array([entry.lower, entry.upper]), 1e-2)
    for offset in (-0.4, 0.0, 0.4):
        shifted = plain.phi(name, points + offset) - plain.phi(name, points)
        assert np.allclose(shifted, offset * np.array([entry.lower, entry.upper]), atol=1e-7)


@pytest.mark.parametrize("form", [*FORMS, "lure"])
def test_places_are_equilibria(form):
    random = np.random.default_rng(2)
    points = random.standard_normal(3)
    if form == "lure":
        A, B, C = random.standard_normal((4, 4)), random.standard_normal((4, 3)), random.standard_normal((3, 4))
        for discrete in (False, True):
            x, u = place(LureSystem(A, B, C, activation="tanh", discrete=discrete), points)
            assert np.allclose(A @ x + B @ np.tanh(C @ x + u), x if discrete else 0.0, atol=1e-12)
    else:
        W = random.standard_normal((3, 3))
        x, u = place(FORMS[form](W, "tanh", tau=[1.0, 2.0, 3.0]), points)
        assert np.allclose(plain.field(form, W, "tanh", x, u), 0.0, atol=1e-14)


@given(st.integers(0, 10_000))
def test_the_numbers_have_the_inertia_of_the_jacobian(seed):
    """X has as many negative eigenvalues as J has eigenvalues beyond sigma (Ostrowski, Schneider 1962)."""
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 8))
    step = [None, 1.0][seed % 2]
    system = RateNetwork(2.0 * random.standard_normal((n, n)), slope=(0.0, 1.0), step=step)
    problem = Linearisation.of(system)
    mode = leading_mode(problem, random.uniform(0.0, 1.0, n))
    if mode.growth < problem.border + 1e-3:
        return
    found = inertia_numbers(problem, mode, exact=True)
    assert found is not None
    values = np.linalg.eigvals(problem.jacobian(mode.slopes))
    beyond = int(((values.real if problem.continuous else np.abs(values)) > found.growth).sum())
    assert int((np.linalg.eigvalsh(found.lyapunov) < 0).sum()) == beyond >= 1
    assert found.margin > 1e-8
