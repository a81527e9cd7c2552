"""What is guessed of a file is a description that can be certified, and follows what the file says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from certes.guess import guess
from certes.spec import SystemSpec
from certes.systems import System
from certes.weights import read_weights, to_bytes
from hypothesis import given
from hypothesis import strategies as st

MODELS = Path(__file__).parents[1] / "examples" / "models"
SQUARE = np.eye(3)


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_example_models(path: Path) -> None:
    found = guess(read_weights(path))
    gated = any(kind in path.name for kind in ("gru", "lstm"))
    assert (found.spec is None) == gated
    if found.spec is not None:
        assert found.spec["activation"] in path.name, "the name of the file says so"
        assert set(found.reasons) <= {"form", "activation", "step"}
        assert isinstance(SystemSpec.parse(found.spec).system(read_weights(path)), System)


@pytest.mark.parametrize(
    ("name", "metadata", "activation", "step", "form"),
    [
        ("net.safetensors", {}, "tanh", None, "rate"),
        ("my-relu.safetensors", {}, "relu", None, "rate"),
        ("prelude.safetensors", {}, "tanh", None, "rate"),  # relu and elu in it are not words of it
        ("leaky_relu.safetensors", {"activation": "Sigmoid"}, "sigmoid", None, "rate"),
        ("relu.safetensors", {"activation": "nonsense", "step": "0.25", "form": "hopfield"}, "relu", 0.25, "hopfield"),
        ("a.safetensors", {"step": "nan", "alpha": "0.5", "form": "lure"}, "tanh", 0.5, "rate"),
        ("a.safetensors", {"step": "-1"}, "tanh", None, "rate"),
    ],
)
def test_metadata_and_names(
    name: str, metadata: dict[str, str], activation: str, step: float | None, form: str
) -> None:
    found = guess(read_weights(to_bytes({"W": SQUARE}, metadata), name=name))
    assert found.spec is not None
    assert (found.spec["activation"], found.spec.get("step"), found.spec["form"]) == (activation, step, form)


def test_torch_has_two_activations_and_its_own_step() -> None:
    data = to_bytes({"rnn.weight_hh_l0": SQUARE}, {"activation": "sigmoid", "step": "0.5", "form": "hopfield"})
    found = guess(read_weights(data, name="net.safetensors"))
    assert found.spec == {"form": "torch-rnn", "tensors": {"W": "rnn.weight_hh_l0"}, "activation": "tanh"}


def test_lure() -> None:
    file = read_weights(to_bytes({"A": -np.eye(3), "B": np.ones((3, 2)), "C": np.ones((2, 3))}))
    found = guess(file)
    assert found.spec is not None
    assert found.spec["form"] == "lure"
    assert isinstance(SystemSpec.parse(found.spec).system(file), System)
    unfit = guess(read_weights(to_bytes({"A": -np.eye(3), "B": np.ones((3, 2)), "C": np.ones((3, 3))})))
    assert unfit.spec is not None
    assert unfit.spec["form"] == "rate"


def test_nothing() -> None:
    assert guess(read_weights(to_bytes({"v": np.ones(3)}))).spec is None


@given(
    st.dictionaries(st.sampled_from(["activation", "step", "alpha", "form", "phi"]), st.text(max_size=30)), st.text()
)
def test_whatever_a_file_says_the_guess_is_a_description(metadata: dict[str, str], name: str) -> None:
    file = read_weights(to_bytes({"W": SQUARE}, metadata), name=name)
    found = guess(file)
    assert found.spec is not None
    SystemSpec.parse(found.spec).system(file)
