"""Weights are projected in the dtype in which they are stored, and the file keeps all else byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import certes
import ml_dtypes
import numpy as np
import pytest
from certes.systems import HopfieldNetwork, RateNetwork
from certes.weights import pack, read_weights, rewritten, to_bytes
from numpy.typing import NDArray

Array = NDArray[np.float64]

DTYPES = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32, "F64": np.float64}


def gaussian(n: int, scale: float) -> Array:
    return scale * np.random.default_rng(n).standard_normal((n, n)) / np.sqrt(n)


def from_file(W: NDArray[Any], **options: Any) -> tuple[Any, RateNetwork]:
    """A network whose weights lie in a file with other tensors, which is the only way for bfloat16."""
    whole = {"b": np.arange(3, dtype=np.float32), "rnn.W": W, "z": np.arange(4, dtype=np.int64)}
    file = read_weights(to_bytes(whole, {"by": "test"}), name="net.safetensors")
    return file, RateNetwork(file.matrix("rnn.W"), **options)


@pytest.mark.cases(3)
@pytest.mark.parametrize("condition", ["auto", "absolute", "symmetric", "singular", "lure"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_certificate_is_about_the_rounded_weights(dtype: str, condition: str, tmp_path: Path) -> None:
    W = gaussian(4, 3.0).astype(DTYPES[dtype])
    file, network = from_file(W, activation="tanh", step=0.2)
    found = certes.project(network, condition)
    assert found.result.verdict == "contracting", found.attempts
    new = found.system.matrix("W")
    assert found.system.dtype == network.dtype == dtype
    stored = new.astype(DTYPES[dtype])
    assert np.array_equal(stored.astype(np.float64), new)
    assert not np.array_equal(new, network.matrix("W"))
    if condition == "symmetric":
        assert np.array_equal(new, new.T)

    path = tmp_path / "new.safetensors"
    path.write_bytes(rewritten(file, {"rnn.W": new}))
    again = read_weights(path)
    assert again.get("rnn.W").raw() == stored.tobytes()
    assert again.get("b").raw() == file.get("b").raw()
    assert again.get("z").raw() == file.get("z").raw()
    assert again.metadata == file.metadata
    # the file is new, so a certificate that names its bytes is asked of the network read from it
    reread = RateNetwork(again.matrix("rnn.W"), "tanh", step=0.2)
    assert found.result.certificate is not None
    assert certes.verify(found.result.certificate, reread).valid
    assert not certes.verify(found.result.certificate, network).valid
    repeated = certes.project(reread, condition)
    assert repeated.unchanged
    assert repeated.system.subjects == reread.subjects


@pytest.mark.cases(2)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_costs_no_more_than_roundoff(dtype: str) -> None:
    """The distance of narrow weights is that of float64, but for a few roundoffs."""
    W = gaussian(6, 3.0).astype(DTYPES[dtype])
    _, narrow = from_file(W, activation="tanh")
    wide = RateNetwork(W.astype(np.float64), "tanh")
    roundoff = {"F16": 2.0**-11, "BF16": 2.0**-8, "F32": 2.0**-24, "F64": 0.0}[dtype]
    one, other = (certes.project(network, "lure", 0.1).distance for network in (narrow, wide))
    assert one is not None
    assert other is not None
    assert other * (1.0 - 1e-4) <= one <= other + (8.0 * roundoff + 1e-5) * float(np.linalg.norm(narrow.matrix("W")))


def test_half_precision_at_its_ends() -> None:
    """Largest values, and values that become subnormal when they shrink."""
    W = np.array([[6e4, -6e4], [6e4, 1.0]], dtype=np.float16)
    for form in (RateNetwork, HopfieldNetwork):
        found = certes.project(form(W, "tanh", step=1.0))
        assert found.result.verdict == "contracting"
        assert found.result.certificate is not None
        assert certes.verify(found.result.certificate, found.system).valid


def test_a_packed_file_is_read_by_the_library() -> None:
    import safetensors.numpy

    data = pack({"a": ("F32", [2], np.ones(2, "<f4").tobytes()), "é": ("F16", [], np.float16(3).tobytes())}, {"k": "v"})
    theirs = safetensors.numpy.load(data)
    assert theirs["a"].tolist() == [1.0, 1.0]
    assert theirs["é"] == 3
    assert read_weights(data).metadata == {"k": "v"}
