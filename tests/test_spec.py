"""Systems in words: every mistake names its field; a spec and its system give each other back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from certes import strictjson
from certes.errors import InputError, TooLargeError
from certes.spec import SystemSpec
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System
from certes.weights import read_weights, to_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

RATE: dict[str, Any] = {"form": "rate", "tensors": {"W": "w"}, "activation": "tanh"}
LURE: dict[str, Any] = {"form": "lure", "tensors": {"A": "a", "B": "b", "C": "c"}, "activation": "relu"}
BARE: dict[str, Any] = {"form": "rate", "tensors": {"W": "w"}}


@pytest.mark.parametrize(
    ("given", "field", "slug"),
    [
        ({}, "spec.form", "missing-value"),
        ({**RATE, "form": "elman"}, "spec.form", "unknown-value"),
        ({**RATE, "form": "gru"}, "spec.activation", "conflict"),
        ({**RATE, "form": None}, "spec.form", "unknown-value"),
        ({**RATE, "more": 1}, "spec.more", "unknown-field"),
        ({**RATE, "tensors": {}}, "spec.tensors", "missing-value"),
        ({**RATE, "tensors": {"W": "w", "V": "v"}}, "spec.tensors", "unknown-role"),
        ({**RATE, "tensors": {"W": 3}}, "spec.tensors.W", "wrong-type"),
        ({**RATE, "tensors": {"W": ""}}, "spec.tensors.W", "wrong-type"),
        ({**RATE, "tensors": "w"}, "spec.tensors", "wrong-type"),
        ({**LURE, "tensors": {"A": "a"}}, "spec.tensors", "missing-value"),
        (BARE, "spec.activation", "missing-value"),
        ({**RATE, "slope": [0, 1]}, "spec.activation", "missing-value"),
        ({**RATE, "activation": 3}, "spec.activation", "wrong-type"),
        ({**RATE, "step": 0}, "spec.step", "not-positive"),
        ({**RATE, "step": -0.1}, "spec.step", "not-positive"),
        ({**RATE, "step": float("nan")}, "spec.step", "not-finite"),
        ({**RATE, "step": float("inf")}, "spec.step", "not-finite"),
        ({**RATE, "step": "0.2"}, "spec.step", "wrong-type"),
        ({**RATE, "step": True}, "spec.step", "wrong-type"),
        ({**RATE, "step": [0.2]}, "spec.step", "wrong-type"),
        ({**RATE, "step": 10**5000}, "spec.step", "wrong-type"),
        ({**RATE, "tau": 0.0}, "spec.tau", "not-positive"),
        ({**RATE, "tau": [1.0, -1.0]}, "spec.tau.1", "not-positive"),
        ({**RATE, "tau": [1.0, "x"]}, "spec.tau.1", "wrong-type"),
        ({**RATE, "tau": {"a": 1}}, "spec.tau", "wrong-type"),
        ({**BARE, "slope": [0]}, "spec.slope", "wrong-type"),
        ({**BARE, "slope": [0, 1, 2]}, "spec.slope", "wrong-type"),
        ({**BARE, "slope": "0,1"}, "spec.slope", "wrong-type"),
        ({**BARE, "slope": [0, float("nan")]}, "spec.slope.1", "not-finite"),
        ({**BARE, "slope": [0, [1, None]]}, "spec.slope.1.1", "wrong-type"),
        ({**RATE, "discrete": True}, "spec.discrete", "conflict"),
        ({**RATE, "discrete": 1}, "spec.discrete", "wrong-type"),
        ({**LURE, "discrete": True, "step": 0.1}, "spec.step", "conflict"),
        ({**LURE, "tau": 2.0}, "spec.tau", "conflict"),
        ({"form": "torch-rnn", "activation": "tanh", "step": 0.5}, "spec.step", "conflict"),
        ({"form": "torch-rnn", "activation": "tanh", "tau": 1.0}, "spec.tau", "conflict"),
        ({"form": "torch-rnn", "activation": "gelu"}, "spec.activation", "unknown-activation"),
        ({"form": "torch-rnn"}, "spec.activation", "missing-value"),
    ],
)
def test_mistakes_name_their_field(given: dict[str, Any], field: str, slug: str) -> None:
    with pytest.raises(InputError) as caught:
        SystemSpec.parse(given)
    assert (caught.value.field, caught.value.slug) == (field, slug), str(caught.value)
    assert caught.value.given
    assert caught.value.expected
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        (b"", "malformed-json"),
        (b"[1]", "wrong-type"),
        (b'{"form": "rate", "form": "lure"}', "duplicate-key"),
        (b'{"form": "rate", "step": NaN}', "not-finite"),
        (b'{"form": "rate", "step": -Infinity}', "not-finite"),
        (b'{"form": "rate", "step": 1e400}', "not-finite"),
        (b'{"form": "rate", "step": ' + b"1" * 5000 + b"}", "malformed-json"),
        (b"[" * 1000, "json-depth"),
        (b'{"a":' * 100_000, "json-depth"),
        (b'{"form": "\xff"}', "malformed-json"),
        (b'{"form": "rate"} x', "malformed-json"),
        (b"{'form': 'rate'}", "malformed-json"),
    ],
)
def test_json_that_is_none(text: bytes, slug: str) -> None:
    with pytest.raises(InputError) as caught:
        SystemSpec.from_json(text)
    assert (caught.value.field, caught.value.slug) == ("spec", slug)


def test_json_has_a_size() -> None:
    with pytest.raises(TooLargeError):
        strictjson.parse(b"[" + b" " * 100 + b"]", "spec", max_bytes=100)


def test_brackets_in_strings_are_not_depth() -> None:
    text = json.dumps({"a": "[" * 100, 'b"\\': "{\\" * 50}).encode()
    assert strictjson.parse(text, "x", max_depth=1) == json.loads(text)


FILE = read_weights(
    to_bytes(
        {
            "w": np.eye(3) / 2,
            "a": -np.eye(3),
            "b": np.ones((3, 2)),
            "c": np.ones((2, 3)),
            "u": np.ones((3, 5)),
            "v": np.ones(3),
        }
    )
)

SYSTEMS: list[System] = [
    RateNetwork(np.eye(3), "tanh"),
    RateNetwork(np.eye(3), "leaky_relu:0.2", step=0.1, tau=2.0),
    RateNetwork(np.eye(3), slope=(-1.0, [1.0, 2.0, 3.0]), tau=[1.0, 2.0, 3.0]),
    RateNetwork(np.eye(3), slope=([0.0, 0.1, 0.2], 1), step=1),
    HopfieldNetwork(np.eye(3), "sigmoid", tau=[1.0, 1.0, 2.0]),
    LureSystem(np.eye(3), np.ones((3, 2)), np.ones((2, 3)), slope=(0.0, [1.0, 2.0])),
    LureSystem(np.eye(3), np.ones((3, 2)), np.ones((2, 3)), activation="gelu", discrete=True),
    LureSystem(np.eye(3), np.ones((3, 2)), np.ones((2, 3)), activation="gelu", step=0.25),
]


@pytest.mark.parametrize("system", SYSTEMS, ids=range(len(SYSTEMS)))
def test_system_to_spec_and_back(system: System) -> None:
    spec = SystemSpec.of(system)
    assert SystemSpec.from_json(spec.model_dump_json().encode()) == spec
    again = spec.with_tensors(system.tensors)
    assert type(again) is type(system)
    assert (again.step, again.discrete, again.continuous) == (system.step, system.discrete, system.continuous)
    for one, other in (
        (again.tau, system.tau),
        (again.slope.lower, system.slope.lower),
        (again.slope.upper, system.slope.upper),
    ):
        assert np.array_equal(one, other)
    assert (again.slope.activation is None) == (system.slope.activation is None)
    assert again.subjects == system.subjects
    assert SystemSpec.of(again) == spec


@settings(max_examples=100)
@given(
    tau=st.floats(min_value=5e-324, max_value=1.7e308), step=st.none() | st.floats(min_value=5e-324, max_value=1.7e308)
)
def test_every_number_survives(tau: float, step: float | None) -> None:
    spec = SystemSpec.of(RateNetwork(np.eye(2), "relu", tau=tau, step=step))
    again = SystemSpec.from_json(strictjson.canonical(spec.model_dump()))
    assert (again.tau if again.tau is not None else 1.0, again.step) == (tau, step)


def test_numpy_and_tuples_are_welcome() -> None:
    spec = SystemSpec.parse(
        {**BARE, "slope": (np.float32(0.0), np.array([1, 2])), "tau": np.array([1.0, 2.0]), "step": np.float64(0.5)}
    )
    assert spec.slope == [0.0, [1.0, 2.0]]
    assert (spec.tau, spec.step) == ([1.0, 2.0], 0.5)


def test_system_from_a_file() -> None:
    spec = SystemSpec.parse({**RATE, "step": 0.2, "input_tensor": "u", "bias_tensor": "v"})
    system = spec.system(FILE)
    assert isinstance(system, RateNetwork)
    assert system.file == FILE.file
    assert system.input_matrix is not None
    assert system.input_matrix.shape == (3, 5)
    assert np.array_equal(system.matrix("W"), np.eye(3) / 2)
    assert isinstance(SystemSpec.parse(LURE).system(FILE), LureSystem)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({**RATE, "tensors": {"W": "nope"}}, "tensors.W"),
        ({**RATE, "tensors": {"W": "u"}}, "W"),
        ({**RATE, "tensors": {"W": "v"}}, "v"),
        ({**LURE, "tensors": {"A": "a", "B": "c", "C": "b"}}, "A"),
        ({**RATE, "input_tensor": "nope"}, "spec.input_tensor"),
        ({**RATE, "bias_tensor": "u"}, "bias"),
        ({**RATE, "tau": [1.0, 2.0]}, "tau"),
        ({**RATE, "activation": "swish"}, "activation"),
        ({**BARE, "slope": [1.0, 0.0]}, "slope"),
        ({**BARE, "slope": [0.0, [1.0, 2.0]]}, "slope"),
    ],
)
def test_specs_that_do_not_fit_the_file(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        SystemSpec.parse(given).system(FILE)
    assert caught.value.field == field, str(caught.value)


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(field=st.sampled_from([*SystemSpec.model_fields, "more"]), value=values)
def test_any_value_is_taken_or_refused_by_name(field: str, value: Any) -> None:
    try:
        SystemSpec.parse({**RATE, field: value}).system(FILE)
    except InputError as caught:
        error: InputError | None = caught
    else:
        error = None
    assert error is None or (error.field and len(str(error)) < 1000)
