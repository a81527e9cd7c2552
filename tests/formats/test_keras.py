"""Keras' two layouts, written by hand: the converted weights compute Keras' equations, other mathematics is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes import formats
from certes.errors import InputError, TooLargeError
from certes.formats.contents import Contents
from certes.guess import guess
from certes.recognise import recognise
from certes.weights import Limits, WeightFile, read_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.problems import (
    STATES,
    keras_archive,
    keras_config,
    keras_h5,
    keras_outputs,
    keras_weights,
    module,
    outputs,
)

h5py = pytest.importorskip("h5py")
pytest.importorskip("torch")

from certes.formats import keras as reader  # noqa: E402

KINDS = ("rnn", "gru", "lstm")
GROUPS = {"rnn": "simple_rnn", "gru": "gru", "lstm": "lstm"}
RECOGNISED = {"rnn": "torch-rnn", "gru": "gru", "lstm": "lstm"}


def contents(data: bytes, limits: Limits | None = None) -> Contents:
    """The reader in this process: the files are our own."""
    return reader.read(io.BytesIO(data), Path("/nonexistent"), limits or Limits())


def file_of(data: bytes) -> WeightFile:
    return read_weights(contents(data).safetensors())


def arrays(file: WeightFile) -> dict[str, Any]:
    return {name: entry.floats() for name, entry in file.tensors.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_the_one_that_keras_describes(kind: str) -> None:
    for seed in range(3):
        weights = keras_weights(kind, seed)
        config = keras_config((kind, "memory"))
        files = [
            file_of(keras_archive(config, {GROUPS[kind]: weights})),
            file_of(keras_archive(config, {GROUPS[kind]: weights}, "_layer_checkpoint_dependencies")),
            file_of(keras_h5(config, {"memory": weights})),
            file_of(keras_h5(config, {"memory": weights}, end="")),
        ]
        assert len({file.sha256 for file in files}) == 1  # one network, whatever the layout
        inputs = np.random.default_rng(seed).standard_normal((7, 2))
        theirs, ours = keras_outputs(kind, weights, inputs), outputs(module(kind, arrays(files[0])), inputs)
        assert np.abs(theirs - ours).max() < 1e-12
        assert np.abs(theirs).max() > 0.05
        assert recognise(files[0]).kind == RECOGNISED[kind]


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_activation_is_told(activation: str) -> None:
    weights, inputs = keras_weights("rnn"), np.random.default_rng(0).standard_normal((7, 2))
    file = file_of(keras_archive(keras_config(("rnn", "memory"), activation=activation), {"simple_rnn": weights}))
    found = guess(file)
    assert found.spec is not None
    assert found.spec["activation"] == activation
    ours = outputs(module("rnn", arrays(file), activation), inputs)
    assert np.abs(keras_outputs("rnn", weights, inputs, activation) - ours).max() < 1e-12


def test_without_biases() -> None:
    config = keras_config(("rnn", "memory"), use_bias=False)
    file = file_of(keras_archive(config, {"simple_rnn": keras_weights("rnn", biased=False)}))
    assert set(file.tensors) == {"weight_ih_l0", "weight_hh_l0"}


def test_layers_are_told_apart_by_their_class_and_number() -> None:
    """Keras numbers the layers of a class in the order of the model, whatever they are called."""
    config = keras_config(("rnn", "z"), ("gru", "m"), ("rnn", "a"))
    first, second, gru = keras_weights("rnn", 1), keras_weights("rnn", 2), keras_weights("gru", 3)
    file = file_of(keras_archive(config, {"simple_rnn": first, "gru": gru, "simple_rnn_1": second}))
    assert (file.tensors["z.weight_hh_l0"].floats() == first[1].T).all()
    assert (file.tensors["a.weight_hh_l0"].floats() == second[1].T).all()
    assert file.tensors["m.weight_hh_l0"].shape == (3 * STATES, STATES)
    assert file.sha256 == file_of(keras_h5(config, {"z": first, "m": gru, "a": second})).sha256


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "sigmoid": ("rnn", {"activation": "sigmoid"}, "unsupported"),
    "linear": ("rnn", {"activation": "linear"}, "unsupported"),
    "custom": ("rnn", {"activation": {"class_name": "function", "config": "tanh"}}, "unsupported"),
    "relu gru": ("gru", {"activation": "relu"}, "unsupported"),
    "hard": ("lstm", {"recurrent_activation": "hard_sigmoid"}, "unsupported"),
    "resets before": ("gru", {"reset_after": False}, "unsupported"),
    "backwards": ("lstm", {"go_backwards": True}, "unsupported"),
    "units": ("rnn", {"units": 4}, "wrong-shape"),
    "no units": ("rnn", {"units": None}, "wrong-shape"),
    "true units": ("rnn", {"units": True}, "wrong-shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_mathematics_is_refused(name: str) -> None:
    kind, options, slug = REFUSED[name]
    config, weights = keras_config((kind, "memory"), **options), keras_weights(kind)
    for data in (keras_archive(config, {GROUPS[kind]: weights}), keras_h5(config, {"memory": weights})):
        with pytest.raises(InputError) as refused:
            contents(data)
        assert refused.value.slug == slug


def test_a_layer_that_does_not_say_what_it_computes_is_refused() -> None:
    for key in ("reset_after", "activation", "recurrent_activation"):  # nothing is taken for granted
        config = keras_config(("gru", "memory"))
        del config["config"]["layers"][1]["config"][key]
        with pytest.raises(InputError, match="resets before" if key == "reset_after" else "activation None"):
            contents(keras_archive(config, {"gru": keras_weights("gru")}))


def test_a_class_of_somebody_else_is_refused() -> None:
    for change in ({"module": "mine"}, {"registered_name": "mine>SimpleRNN"}, {"module": "kerasish"}):
        config = keras_config(("rnn", "memory"))
        config["config"]["layers"][1] |= change
        with pytest.raises(InputError, match="somebody else"):
            contents(keras_archive(config, {"simple_rnn": keras_weights("rnn")}))


def test_weights_alone_and_models_without_memory_are_refused() -> None:
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/simple_rnn/cell/vars/0"] = np.zeros((2, 3))
    for data, slug in (
        (weights.getvalue(), "no-weights"),
        (keras_archive(keras_config(), {}), "no-weights"),
        (keras_archive(keras_config(("rnn", "a"), ("rnn", "a")), {}), "duplicate-key"),
        (keras_archive(keras_config(("rnn", "a")), {}), "no-weights"),
        (keras_h5(keras_config(("rnn", "a")), {}), "no-weights"),
        (keras_archive([], {}), "no-weights"),  # type: ignore[arg-type]
        (keras_archive({"config": {"layers": [3]}}, {}), "unreadable"),
    ):
        with pytest.raises(InputError) as refused:
            contents(data)
        assert refused.value.slug == slug


def _changed(change: Any) -> bytes:
    """An .h5 model whose recurrent weights were replaced by something else."""
    data = io.BytesIO(keras_h5(keras_config(("rnn", "a")), {"a": keras_weights("rnn")}))
    with h5py.File(data, "r+") as file:
        place = "model_weights/a/a/cell/recurrent_kernel:0"
        del file[place]
        change(file, place)
    return data.getvalue()


def _soft(file: Any, place: str) -> None:
    file["other"] = np.zeros((3, 3), np.float32)
    file[place] = h5py.SoftLink("/other")


def _virtual(file: Any, place: str) -> None:
    layout = h5py.VirtualLayout((3, 3), np.float32)
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (3, 3))
    file.create_virtual_dataset(place, layout)


def _bomb(file: Any, place: str) -> None:
    file.create_dataset(place, (2**17, 2**17), np.float32, chunks=(2**10, 2**10), compression="gzip")


def _integers(file: Any, place: str) -> None:
    file[place] = np.zeros((3, 3), np.int32)


def _outside(file: Any, place: str) -> None:
    file[place] = h5py.ExternalLink("/etc/hostname", "/x")


def _stored_outside(file: Any, place: str) -> None:
    file.create_dataset(place, (3, 3), np.float32, external=[("/etc/hostname", 0, 36)])


@pytest.mark.parametrize("change", [_soft, _virtual, _bomb, _integers, _outside, _stored_outside])
def test_what_leads_out_of_the_file_or_is_too_large_is_refused(change: Any) -> None:
    with pytest.raises(InputError) as refused:
        contents(_changed(change))
    assert isinstance(refused.value, TooLargeError) == (change is _bomb)


def test_archives_are_unpacked_within_limits() -> None:
    data = keras_archive(keras_config(("rnn", "a")), {"simple_rnn": keras_weights("rnn")})
    with pytest.raises(TooLargeError):
        contents(data, Limits(file_bytes=1000))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (17 * 2**20))
        archive.writestr("model.weights.h5", b"")
    assert len(bomb.getvalue()) < 2**16
    with pytest.raises(TooLargeError):
        contents(bomb.getvalue())
    with pytest.raises(InputError, match="without one"):
        empty = io.BytesIO()
        zipfile.ZipFile(empty, "w").close()
        contents(empty.getvalue())


WHOLE = keras_archive(keras_config(("rnn", "a")), {"simple_rnn": keras_weights("rnn")})


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, len(WHOLE) - 1))
def test_a_file_that_was_cut_is_refused(position: int) -> None:
    with pytest.raises((InputError, OSError)):  # h5py says OSError; the child tells it as an InputError
        contents(WHOLE[:position])


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    path.write_bytes(WHOLE)
    file = formats.read(path)
    assert (file.name, file.sha256) == ("net.safetensors", file_of(WHOLE).sha256)
    older = tmp_path / "net.h5"
    data = bytearray(keras_h5(keras_config(("rnn", "a")), {"a": keras_weights("rnn")}))
    older.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError) as refused:
        formats.read(older)
    assert refused.value.slug == "unreadable"
