"""Systems are validated once, where data enters, and the error names the field."""

import hashlib

import numpy as np
import pytest
import scipy.sparse as sp
from certes.errors import InputError
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, SparseMatrix

EYE = np.eye(3)


@pytest.mark.parametrize(
    ("arguments", "field", "slug"),
    [
        ({"W": np.full((2, 2), np.nan)}, "W", "not-finite"),
        ({"W": [[1.0, np.inf], [0, 0]]}, "W", "not-finite"),
        ({"W": np.ones((2, 3))}, "W", "not-square"),
        ({"W": np.ones(4)}, "W", "wrong-shape"),
        ({"W": np.ones((0, 0))}, "W", "wrong-shape"),
        ({"W": [[1.0], [1.0, 2.0]]}, "W", "wrong-type"),
        ({"W": "weights"}, "W", "wrong-type"),
        ({"W": np.ones((2, 2), dtype=np.int64)}, "W", "wrong-dtype"),
        ({"W": np.ones((2, 2), dtype=np.complex128)}, "W", "wrong-dtype"),
        ({"W": EYE, "activation": "swoosh"}, "activation", "unknown-activation"),
        ({"W": EYE, "activation": "leaky_relu:2"}, "activation", "unknown-activation"),
        ({"W": EYE, "activation": None}, "activation", "missing-value"),
        ({"W": EYE, "slope": (0, 1)}, "activation", "missing-value"),
        ({"W": EYE, "activation": None, "slope": (1, 0)}, "slope", "slope-order"),
        ({"W": EYE, "activation": None, "slope": (0, [1, 1])}, "slope", "wrong-shape"),
        ({"W": EYE, "activation": None, "slope": (0, np.nan)}, "slope", "not-finite"),
        ({"W": EYE, "activation": None, "slope": 1.0}, "slope", "wrong-type"),
        ({"W": EYE, "step": 0.0}, "step", "not-positive"),
        ({"W": EYE, "step": -0.1}, "step", "not-positive"),
        ({"W": EYE, "step": np.nan}, "step", "not-positive"),
        ({"W": EYE, "step": True}, "step", "wrong-type"),
        ({"W": EYE, "tau": 0}, "tau", "not-positive"),
        ({"W": EYE, "tau": [1, 2, -3]}, "tau", "not-positive"),
        ({"W": EYE, "tau": [1, 2]}, "tau", "wrong-shape"),
        ({"W": EYE, "bias": [1, 2]}, "bias", "wrong-shape"),
        ({"W": EYE, "input_matrix": np.ones((2, 5))}, "input_matrix", "wrong-shape"),
    ],
)
@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
def test_bad_input_names_the_field(form, arguments, field, slug):
    with pytest.raises(InputError) as caught:
        form(**{"activation": "tanh", **arguments})
    assert caught.value.field == field
    assert caught.value.slug == slug


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"A": np.ones((2, 3))}, "A"),
        ({"C": np.ones((2, 2))}, "C"),
        ({"A": sp.eye(3).tocsr()}, "A"),
        ({"discrete": True, "step": 0.1}, "step"),
    ],
)
def test_bad_lure_systems(arguments, field):
    given = {"A": -EYE, "B": np.ones((3, 1)), "C": np.ones((1, 3)), "slope": (0, 1)}
    with pytest.raises(InputError) as caught:
        LureSystem(**{**given, **arguments})
    assert caught.value.field == field


def test_weights_are_frozen_copies():
    given = np.eye(2)
    network = RateNetwork(given, activation="tanh")
    given[0, 0] = 7.0
    assert network.W[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        network.W[0, 0] = 2.0
    with pytest.raises(AttributeError):
        network.step = 0.1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_identity_of_a_tensor_is_its_bytes(dtype):
    given = np.arange(4, dtype=dtype).reshape(2, 2) / 8
    subject = RateNetwork(given, activation="relu").subjects[0]
    assert subject.sha256 == hashlib.sha256(given.tobytes()).hexdigest()
    assert (subject.name, subject.shape) == ("W", (2, 2))
    transposed = RateNetwork(np.asfortranarray(given), activation="relu").subjects[0]
    assert transposed == subject


def test_sparse_input_is_canonical():
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((6, 6)) * (rng.random((6, 6)) < 0.4)
    one = RateNetwork(sp.csr_array(dense), activation="tanh")
    other = RateNetwork(sp.csc_array(dense), activation="tanh")
    assert one.is_sparse
    assert one.subjects == other.subjects
    with pytest.raises(InputError, match="sparse"):
        one.matrix("W")
    with pytest.raises(InputError, match="duplicate"):
        SparseMatrix(np.ones(2), np.array([0, 0]), np.array([0, 2]), (1, 1))
    with pytest.raises(InputError, match="column index"):
        SparseMatrix(np.ones(1), np.array([3]), np.array([0, 1]), (1, 1))
    with pytest.raises(InputError, match="row pointers"):
        SparseMatrix(np.ones(1), np.array([0]), np.array([0, 2**31 - 1, -(2**31), 1], dtype=np.int32), (3, 3))
    with pytest.raises(InputError, match="signed integers"):
        SparseMatrix(np.ones(2), np.array([1, 0], dtype=np.uint64), np.array([0, 2]), (1, 2))
    empty_rows = SparseMatrix(np.ones(2), np.array([2, 0]), np.array([0, 0, 1, 1, 2]), (4, 4))
    assert empty_rows.nnz == 2


def test_with_step_changes_nothing_else():
    network = HopfieldNetwork(EYE, slope=(0, [1, 0.5, 0.25]), tau=[1, 2, 3])
    euler = network.with_step(0.1)
    assert network.continuous
    assert not euler.continuous
    assert euler.with_step(None).continuous
    assert euler.subjects == network.subjects
    assert not network.slope.uniform
    with pytest.raises(InputError):
        network.with_step(0.0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("form", [RateNetwork, HopfieldNetwork])
def test_with_weights_rounds_and_changes_nothing_else(form, dtype):
    network = form(EYE.astype(dtype), slope=(0, [1, 0.5, 0.25]), tau=[1, 2, 3], step=0.1, bias=[1, 2, 3])
    wanted = np.random.default_rng(0).standard_normal((3, 3))
    changed = network.with_weights(wanted)
    assert type(changed) is form
    assert np.array_equal(changed.matrix("W"), wanted.astype(dtype).astype(np.float64))
    assert changed.subjects[0].sha256 == hashlib.sha256(wanted.astype(dtype).tobytes()).hexdigest()
    assert changed.subjects[0].dtype == network.subjects[0].dtype == network.dtype
    assert changed.subjects == form(wanted.astype(dtype), slope=(0, 1)).subjects
    assert (changed.step, changed.tau.tolist(), changed.slope) == (network.step, network.tau.tolist(), network.slope)
    assert np.array_equal(network.matrix("W"), EYE)  # the old network is what it was
    assert not changed.matrix("W").flags.writeable
    wanted[0, 0] = 7.0
    assert changed.matrix("W")[0, 0] != 7.0


def test_with_weights_of_sparse_networks_takes_the_stored_entries():
    network = RateNetwork(sp.csr_array(np.diag([1.0, 2.0, 3.0])), activation="tanh")
    changed = network.with_weights(np.array([4.0, 5.0, 6.0]))
    assert changed.subjects == RateNetwork(sp.csr_array(np.diag([4.0, 5.0, 6.0])), activation="tanh").subjects
    with pytest.raises(InputError) as caught:
        network.with_weights(EYE)
    assert caught.value.slug == "wrong-shape"


@pytest.mark.parametrize(
    ("weights", "slug"),
    [(np.ones((2, 2)), "wrong-shape"), (np.full((3, 3), np.nan), "not-finite"), (1e5 * EYE, "not-finite")],
)
def test_with_weights_refuses(weights, slug):
    network = RateNetwork(EYE.astype(np.float16), activation="tanh")
    with pytest.raises(InputError) as caught:
        network.with_weights(weights)
    assert (caught.value.field, caught.value.slug) == ("W", slug)
