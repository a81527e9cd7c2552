"""A network that fails comes back as one that passes; what was interrupted ends with the same bits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
import torch
from certes.errors import InputError
from certes.nn import Classifier, DataSet, Repair, read_data, repair
from certes.nn.checkpoints import Checkpoint, Checkpoints
from certes.weights import read_weights, to_bytes

from tests.nn.problems import LEAKY, MNIST, TORCH, arrays, classifier, data_set, model, sequences, system_of

REPOSITORY = Path(__file__).parents[2]


def verified(found: Repair) -> certes.Report:
    """What the verifier says about the bytes of the new file."""
    assert found.data is not None
    assert found.result.certificate is not None
    return certes.verify(found.result.certificate, found.data)


def test_a_network_that_fails_passes_and_does_its_task() -> None:
    net, data = classifier(), data_set(count=1000)
    assert certes.certify(net.system, refute=False).verdict != "contracting"
    found = repair(net, data, epochs=25)
    assert found.result.verdict == "contracting"
    assert found.result.factor == found.factor == 1 - 0.01 * 0.5
    assert verified(found).valid
    assert found.accuracy is not None
    assert found.accuracy > max(found.accuracy_before + 0.2, 0.85)
    assert found.distance is not None
    assert found.distance > 0
    # everything that no part plays is as it was, and what changed is what was said
    assert found.data is not None
    new, old = read_weights(found.data), net.file
    assert list(new.tensors) == list(old.tensors)
    assert dict(new.metadata) == dict(old.metadata)
    for name, entry in new.tensors.items():
        assert (entry.dtype, entry.shape) == (old.tensors[name].dtype, old.tensors[name].shape)
        assert (entry.sha256 != old.tensors[name].sha256) == (name in found.weights)
    for name, values in found.weights.items():
        np.testing.assert_array_equal(new.tensors[name].floats(), values)


def test_the_accuracy_is_that_of_the_file_in_torchs_own_layer() -> None:
    held = arrays()
    names = {"rec.weight": "rnn.weight_hh_l0", "inp.weight": "rnn.weight_ih_l0", "inp.bias": "rnn.bias_ih_l0"}
    held = {names.get(name, name): value for name, value in held.items()} | {"rnn.bias_hh_l0": np.ones(6, np.float32)}
    file = read_weights(to_bytes(held))
    data = data_set(count=200)
    found = repair(Classifier.of(file, system_of(file, TORCH)), data, rate=0.9, epochs=5)
    assert verified(found).valid
    rnn = torch.nn.RNN(2, 6, batch_first=True)
    tensors = {name: torch.tensor(found.file.tensors[name].floats(), dtype=torch.float32) for name in found.file}
    rnn.load_state_dict({key[4:]: value for key, value in tensors.items() if key.startswith("rnn.")})
    with torch.no_grad():
        logits = (
            rnn(torch.from_numpy(data.test.inputs))[0][:, -1] @ tensors["readout.weight"].T + tensors["readout.bias"]
        )
    right = (logits.argmax(1).numpy() == data.test.labels).mean()
    assert found.accuracy == pytest.approx(float(right), abs=1e-12)


@pytest.mark.cases(3)
@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (LEAKY | {"form": "hopfield"}, {}),
        (LEAKY | {"activation": "sigmoid", "step": 1.5, "tau": 2.0}, {"gain": 12.0}),
        (LEAKY | {"activation": "gelu"}, {}),
        (LEAKY | {"activation": "leaky_relu:0.1"}, {}),
        (LEAKY, {"dtype": np.float16}),
        (LEAKY, {"dtype": np.float64}),
        (LEAKY, {"n": 1}),
        (LEAKY | {"step": 1.0, "activation": "relu"}, {"classes": 5}),
    ],
)
def test_every_kind_of_network(spec: dict[str, Any], options: dict[str, Any]) -> None:
    net = classifier(spec, **options)
    found = repair(net, data_set(), epochs=3)
    assert verified(found).valid
    assert found.data is not None
    assert {entry.dtype for entry in read_weights(found.data).tensors.values()} == {
        entry.dtype for entry in net.file.tensors.values()
    }


def test_what_passes_comes_back_bit_for_bit() -> None:
    net = classifier(gain=0.3)
    found = repair(net, data_set())
    assert found.unchanged
    assert found.stopped == "not-needed"
    assert found.data == to_bytes(arrays(gain=0.3), {"note": "kept"})
    assert verified(found).valid
    assert found.accuracy == found.accuracy_before
    again = classifier()
    mended = repair(again, data_set(), epochs=2)
    assert isinstance(mended.file, type(again.file))
    assert repair(Classifier.of(mended.file, mended.system), data_set(), epochs=2).unchanged  # idempotent


def test_no_epochs_is_projection_and_refit() -> None:
    found = repair(classifier(), data_set(), epochs=0)
    assert verified(found).valid
    assert (found.epochs, found.best_epoch, found.curve) == (0, 0, ())
    assert found.accuracy == found.accuracy_refitted
    assert set(found.weights) == {"rec.weight", "readout.weight", "readout.bias"}


def test_the_refitted_network_is_kept_where_training_finds_nothing_better() -> None:
    found = repair(classifier(), data_set(), epochs=2, learning_rate=1e-30)
    assert found.best_epoch == 0
    assert found.accuracy == found.accuracy_refitted
    assert found.epochs == 2
    assert set(found.weights) == {"rec.weight", "readout.weight", "readout.bias"}


@pytest.mark.slow
def test_the_best_epoch_is_chosen_by_data_that_are_not_tested_on() -> None:
    data = data_set(count=400)
    found = repair(classifier(), data, epochs=12, learning_rate=1e-2)
    chosen = [entry["validation_accuracy"] for entry in found.curve]
    assert max(chosen) > chosen[0], "training has to change something for this test to mean anything"
    assert found.best_epoch == 1 + int(np.argmax(chosen))
    assert found.validation_accuracy == max(chosen)
    flipped = DataSet(data.train, replace(data.test, labels=1 - data.test.labels))
    assert repair(classifier(), flipped, epochs=12, learning_rate=1e-2).data == found.data


def test_training_diverges_and_the_best_weights_stay() -> None:
    found = repair(classifier(LEAKY | {"activation": "relu"}), data_set(), epochs=30, learning_rate=1e30)
    assert found.stopped in ("diverged", "patience")
    assert verified(found).valid


@pytest.mark.slow
def test_time_limit_and_cancellation() -> None:
    found = repair(classifier(), data_set(), epochs=10**6, patience=10**6, seconds=2.0)
    assert found.stopped == "deadline"
    assert verified(found).valid
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 400

    found = repair(classifier(), data_set(), epochs=10**6, patience=10**6, cancelled=cancelled)
    assert found.stopped == "cancelled"
    assert verified(found).valid


@pytest.mark.slow
def test_one_class_and_the_least_data() -> None:
    inputs, labels = sequences(count=30)
    found = repair(classifier(), DataSet.of(inputs, 0 * labels), epochs=2)
    assert verified(found).valid
    assert found.accuracy == 1.0
    found = repair(classifier(), DataSet.of(inputs[:3], labels[:3]), epochs=2)
    assert verified(found).valid


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"epochs": -1}, "epochs"),
        ({"seed": -1}, "seed"),
        ({"patience": 0}, "patience"),
        ({"batch": 0}, "batch"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"seconds": 0.0}, "seconds"),
        ({"rate": 0.4}, "rate"),
        ({"rate": 1.0}, "rate"),
        ({"device": "abacus"}, "device"),
    ],
)
def test_refuses(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        repair(classifier(), data_set(), **options)
    assert caught.value.field == field


def test_refuses_data_of_another_shape() -> None:
    with pytest.raises(InputError, match="features"):
        repair(classifier(), data_set(features=3))
    with pytest.raises(InputError, match="label"):
        repair(classifier(), DataSet.of(sequences()[0], 2 * sequences()[1]))


def test_nothing_certified_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["certes.nn.repair"], "settle", lambda *args, **options: None)
    found = repair(classifier(), data_set(), epochs=1)
    assert found.result.verdict == "undecided"
    assert found.data is None
    assert found.accuracy is None


@pytest.mark.slow
def test_a_checkpoint_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 8, "patience": 8, "batch": 16}
    whole = repair(classifier(), data_set(), **options)
    asked = 0

    def cancelled() -> bool:  # every 7th time of the 6 times in an epoch
        nonlocal asked
        asked += (tmp_path / "state.json").exists()
        return asked % 7 == 6

    runs = 0
    while True:  # dies again and again, a little further each time
        found = repair(classifier(), data_set(), checkpoint=tmp_path, cancelled=cancelled, **options)
        runs += 1
        if found.stopped != "cancelled":
            break
        assert runs < 40
    assert runs > 3
    assert found.data == whole.data
    assert found.to_json() == whole.to_json()
    assert repair(classifier(), data_set(), checkpoint=tmp_path, **options).data == whole.data  # and once more


@pytest.mark.cases(2)
@pytest.mark.parametrize("options", [{"seed": 1}, {"epochs": 9}, {"rate": 0.9}, {"batch": 16}, {"learning_rate": 1e-3}])
def test_a_checkpoint_of_another_question_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    repair(classifier(), data_set(), epochs=1, checkpoint=tmp_path)
    with pytest.raises(InputError) as caught:
        repair(classifier(), data_set(), **({"epochs": 1} | options), checkpoint=tmp_path)
    assert caught.value.slug == "wrong-checkpoint"
    with pytest.raises(InputError, match="data"):
        repair(classifier(), data_set(seed=5), epochs=1, checkpoint=tmp_path)
    with pytest.raises(InputError, match="weights"):
        repair(classifier(seed=5), data_set(), epochs=1, checkpoint=tmp_path)


SCRIPT = """
    import sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from certes.nn import repair
    from tests.nn.problems import classifier, data_set
    def say(line):
        print(line, flush=True)
        if {pause}:
            import time; time.sleep(0.05)
    found = repair(classifier(), data_set(count=400), epochs=12, patience=12, checkpoint=sys.argv[1], progress=say)
    Path(sys.argv[2]).write_bytes(found.data)
"""


def process(folder: Path, out: Path, pause: bool) -> subprocess.Popen[str]:
    code = textwrap.dedent(SCRIPT.format(pause=pause))
    command = [sys.executable, "-c", code, str(folder), str(out)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    folder, out, straight = tmp_path / "state", tmp_path / "out", tmp_path / "straight"
    for stage in ("projecting", "epoch 1 ", "epoch 6 "):
        with process(folder, out, pause=True) as running:
            assert running.stdout is not None
            for line in running.stdout:
                if stage in line:
                    time.sleep(0.02)
                    running.send_signal(signal.SIGKILL)
                    break
        assert running.wait() == -signal.SIGKILL
    assert (folder / "state.json").exists()
    assert not out.exists()
    for where, path in ((folder, out), (tmp_path / "other", straight)):
        with process(where, path, pause=False) as running:
            running.communicate()
        assert running.returncode == 0
    assert out.read_bytes() == straight.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "spec", "accuracy"),
    [("mnist-rnn-tanh-64", TORCH, 0.847), ("mnist-leaky-tanh-128", LEAKY | {"step": 0.2}, 0.916)],
)
def test_trained_networks_keep_their_accuracy(name: str, spec: dict[str, Any], accuracy: float) -> None:
    found = repair(model(name, spec), read_data(MNIST))
    assert verified(found).valid
    assert found.accuracy_before == accuracy
    assert found.accuracy is not None
    assert found.accuracy >= accuracy


def test_a_forged_state_is_refused_or_harmless(tmp_path: Path) -> None:
    """With checksums that fit: what does not fit the network is an error, and the verifier judges the rest."""
    net, data = classifier(), data_set()
    repair(net, data, epochs=2, checkpoint=tmp_path)
    state = Checkpoints(tmp_path, json.loads((tmp_path / "state.json").read_text())["question"])
    held = state.load()
    assert held is not None

    def forged(numbers: dict[str, Any] | None = None, **arrays: Any) -> Repair:
        state.save(Checkpoint({**held.numbers, **(numbers or {})}, {**held.arrays, **arrays}))
        return repair(net, data, epochs=2, checkpoint=tmp_path)

    broken: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"training": {}}, {}),
        ({"start": {}}, {}),
        ({"start": {**held.numbers["start"], "more": 1}}, {}),
        ({}, {"start.W": np.eye(3)}),
        ({}, {"start.W": np.full((6, 6), np.nan)}),
        ({}, {"now.z": np.zeros((3, 5, 5))}),
        ({}, {"best.W": np.eye(3)}),
    ]
    for numbers, arrays_ in broken:
        with pytest.raises(InputError, match="checkpoint"):
            forged(numbers, **arrays_)
    unstable = 5.0 * np.eye(6)
    found = forged(**{"start.W": unstable, "best.W": unstable, "start.q": np.ones(6)})
    assert verified(found).valid
    assert float(np.abs(found.file.tensors["rec.weight"].floats()).max()) < 1.0


def test_bfloat16(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({k: torch.from_numpy(v).bfloat16() for k, v in arrays().items()}, tmp_path / "net.safetensors")
    file = read_weights(tmp_path / "net.safetensors")
    found = repair(Classifier.of(file, system_of(file, LEAKY)), data_set(), epochs=3)
    assert verified(found).valid
    assert found.file.tensors["rec.weight"].dtype == "BF16"


def test_no_time_at_all_is_no_silent_pass() -> None:
    found = repair(classifier(), data_set(), seconds=1e-9)
    assert (found.data is None) == (found.result.verdict != "contracting")
    if found.data is not None:
        assert verified(found).valid
