"""PyTorch checkpoints: weights are read bit for bit, and what a pickle asks to be run is not."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
from certes import formats
from certes.errors import InputError, TooLargeError
from certes.formats.contents import Contents
from certes.recognise import recognise
from certes.spec import SystemSpec
from certes.systems import RateNetwork
from certes.weights import Limits, read_weights
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from certes.formats import pytorch as reader  # noqa: E402

HERE = Path("/nonexistent")


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def contents(data: bytes, limits: Limits | None = None) -> Contents:
    """The reader in this process: the files are our own."""
    return reader.read(io.BytesIO(data), HERE, limits or Limits())


def rnn(**options: Any) -> Any:
    torch.manual_seed(0)
    return torch.nn.RNN(2, 3, **options)


class Bomb:
    """Unpickling it would leave a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("wrapped", ["", "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("legacy", [False, True])
def test_every_bit_is_kept_wherever_the_state_dict_is(wrapped: str, legacy: bool) -> None:
    state = rnn().state_dict()
    given = {"epoch": 3, wrapped: state, "optimizer": {"lr": 0.1}} if wrapped else state
    found = contents(saved(given, _use_new_zipfile_serialization=not legacy))
    assert {name: raw.data for name, raw in found.tensors.items()} == {
        name: value.numpy().tobytes() for name, value in state.items()
    }
    assert recognise(read_weights(found.safetensors())).kind == "torch-rnn"


def test_the_equation_is_what_torch_runs() -> None:
    module = rnn(nonlinearity="relu").double()
    file = read_weights(contents(saved(module.state_dict())).safetensors())
    system = SystemSpec.parse({"form": "torch-rnn", "activation": "relu"}).system(file)
    assert isinstance(system, RateNetwork)
    inputs, x = np.random.default_rng(0).standard_normal((9, 2)), np.zeros(3)
    with torch.no_grad():
        expected = module(torch.from_numpy(inputs))[0].numpy()
    for u, y in zip(inputs, expected, strict=True):
        x = np.maximum(system.matrix("W") @ x + system.input_matrix @ u + system.bias, 0)
        assert np.abs(x - y).max() < 1e-12


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64", "bool", "uint8"])
def test_dtypes_and_views(dtype: str) -> None:
    base = torch.arange(12).reshape(3, 4).to(getattr(torch, dtype))
    state = {"a": base.T, "b": base[:, 1:3], "c": base, "d": torch.zeros((), dtype=base.dtype), "e": base[:0]}
    file = read_weights(contents(saved(state)).safetensors())
    for name, value in state.items():
        assert file.tensors[name].shape == tuple(value.shape)
        raw = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        assert file.tensors[name].raw() == raw


@pytest.mark.parametrize(
    ("value", "slug"),
    [
        ([1, 2], "no-weights"),
        ({}, "no-weights"),
        ({"epoch": 1}, "no-weights"),
        (torch.zeros(2), "no-weights"),
        ({0: torch.zeros(2)}, "no-weights"),
        ({"W": torch.zeros(2, 2, dtype=torch.complex64)}, "wrong-dtype"),
        ({"W": torch.eye(2).to_sparse()}, "wrong-dtype"),
        ({"W": torch.zeros(2, 2).to(torch.float8_e4m3fn)}, "wrong-dtype"),
    ],
)
def test_what_holds_no_weights_is_refused(value: Any, slug: str) -> None:
    with pytest.raises(InputError) as refused:
        contents(saved(value))
    assert refused.value.slug == slug


def test_a_view_that_promises_more_than_there_is_is_refused() -> None:
    huge = torch.zeros(1).expand(2**20, 2**20)
    with pytest.raises(TooLargeError):
        contents(saved({"W": huge}))
    with pytest.raises(TooLargeError):
        contents(saved({f"W{k}": torch.zeros(1) for k in range(5)}), Limits(tensors=4))


WHOLE = saved({"W": torch.eye(4), "v": torch.arange(3.0)})


@settings(max_examples=100, deadline=None)
@given(position=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_refused_or_changes_the_digest(position: int, bit: int, cut: bool) -> None:
    damaged = bytearray(WHOLE[:position] if cut else WHOLE)
    if not cut:
        damaged[position] ^= 1 << bit
    try:
        found = contents(bytes(damaged))
    except Exception:  # the library raises whatever it likes; the child tells it as an InputError
        return
    assert not cut
    whole = contents(WHOLE)
    assert (found.safetensors() == whole.safetensors()) == (dict(found.tensors) == dict(whole.tensors))


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    """For real: through the door that the command line uses, and in this process as a bare pickle."""
    marker = tmp_path / "unpickled"
    bomb = Bomb(marker)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"W": bomb}, 2))
        archive.writestr("archive/version", "3\n")
    path = tmp_path / "zip.pt"
    path.write_bytes(zipped.getvalue())
    bare = pickle.dumps(bomb, 2)
    for ask in (lambda: formats.read(path), lambda: contents(bare), lambda: contents(zipped.getvalue())):
        with pytest.raises(InputError) as refused:
            ask()
        assert refused.value.slug == "pickle"
        assert "weights_only=False" not in str(refused.value)  # no advice to run it
        assert not marker.exists()
    pickle.loads(pickle.dumps(bomb))
    assert marker.exists()  # it would have been noticed


def test_a_certificate_of_a_checkpoint_holds_for_it_and_for_what_it_converts_to(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(saved({name: 0.3 * value for name, value in rnn().state_dict().items()}))
    file = formats.read(path)
    assert file.name == "net.safetensors"
    assert file.sha256 == read_weights(contents(path.read_bytes()).safetensors()).sha256
    made = formats.as_safetensors(path, file)
    assert isinstance(made, bytes)
    assert read_weights(made).sha256 == file.sha256
    found = certes.certify(SystemSpec.parse({"form": "torch-rnn", "activation": "tanh"}).system(file))
    assert found.certificate is not None
    assert certes.verify(found.certificate, path).valid
    assert certes.verify(found.certificate, made).valid
    other = contents(saved(rnn().state_dict())).safetensors()
    assert certes.verify(found.certificate, other).reason == "wrong-weights"
