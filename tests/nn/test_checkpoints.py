"""A folder holds a whole state or none, of one question; damage is noticed."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from certes.errors import InputError
from certes.nn import checkpoints
from certes.nn.checkpoints import Checkpoint, Checkpoints

QUESTION = {"seed": 1, "weights": "ab"}


def state(value: float) -> Checkpoint:
    arrays = {"x": np.array([value, np.pi]), "y": np.array([value], dtype=np.float32)}
    return Checkpoint({"epoch": int(value), "curve": [{"loss": value / 3}]}, arrays)


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path / "new", QUESTION)
    assert folder.load() is None
    for value in (1.0, 2.0):
        folder.save(state(value))
    found = Checkpoints(tmp_path / "new", QUESTION).load()
    assert found is not None
    assert found.numbers == state(2.0).numbers
    for name, array in state(2.0).arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)
    assert len(os.listdir(tmp_path / "new")) == 2  # older tensors are gone


@pytest.mark.parametrize("call", range(1, 5))
def test_a_death_at_any_write_leaves_a_whole_state(tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Checkpoints(tmp_path, QUESTION)
    folder.save(state(1.0))
    left = call
    replace = Path.replace

    def dies(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with contextlib.suppress(KeyboardInterrupt):
        folder.save(state(2.0))
    found = folder.load()
    assert found is not None
    assert found.numbers["epoch"] == (1 if call <= 2 else 2)
    np.testing.assert_array_equal(found.arrays["x"], state(found.numbers["epoch"]).arrays["x"])


def test_another_question_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, QUESTION).save(state(1.0))
    for other in (QUESTION | {"seed": 2}, QUESTION | {"more": 0}, {"seed": 1}):
        with pytest.raises(InputError, match="another question") as caught:
            Checkpoints(tmp_path, other).load()
        assert caught.value.slug == "wrong-checkpoint"


def test_damage_is_noticed(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path, QUESTION)
    folder.save(state(1.0))
    text = (tmp_path / checkpoints.STATE).read_text()
    tensors = next(tmp_path.glob("*.safetensors"))
    data = tensors.read_bytes()

    def refused() -> None:
        with pytest.raises(InputError) as caught:
            folder.load()
        assert caught.value.slug == "damaged-checkpoint"

    body = json.loads(text)
    body["numbers"]["epoch"] = 5
    for damaged in (text[:-5], "[]", json.dumps(body), "\x00", text.replace("0.3", "0.4")):
        (tmp_path / checkpoints.STATE).write_text(damaged)
        refused()
    (tmp_path / checkpoints.STATE).write_text(text)
    tensors.write_bytes(data[:-1] + b"\x00")
    refused()
    tensors.unlink()
    refused()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="checkpoint"):
        Checkpoints(tmp_path / "file" / "folder", QUESTION)
