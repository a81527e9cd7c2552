"""Training: certified at its end or no result; resumed to the bit after a kill; deterministic; several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from certes.certificate.assembly_check import verify_assembly
from certes.composition.outcome import Composition
from certes.errors import InputError
from certes.nn import product
from certes.nn.architecture import Architecture
from certes.nn.product import NotCertified
from certes.nn.train import NotTrained, train
from certes.nn.trainer import Plan, Trainer
from certes.sequences import DataSet, Sequences
from certes.weights import read_weights

ARCHITECTURE = Architecture.parse({"kind": "singular", "modules": [6, 5], "step": [0.05, 0.3]})


def problem(count: int = 120, seed: int = 0, *, ragged: bool = False) -> DataSet:
    """Up or down: a question about order in time, easy enough for ten states."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    lengths = rng.integers(8, 17, count) if ragged else np.full(count, 16)
    ramp = np.linspace(-1.0, 1.0, 16)[None, :] * np.where(labels, 1.0, -1.0)[:, None]
    inputs = (ramp + 0.3 * rng.standard_normal((count, 16)))[:, :, None].astype(np.float32)
    inputs = np.concatenate([inputs, 3.0 + 0.1 * rng.standard_normal(inputs.shape).astype(np.float32)], axis=2)
    for one, length in zip(inputs, lengths, strict=True):
        one[length:] = 0.0
    found = Sequences(inputs, labels.astype(np.int64), lengths.astype(np.int64) if ragged else None)
    return DataSet(found.take(np.arange(count - 30)), found.take(np.arange(count - 30, count)))


def ramps(count: int = 120, seed: int = 0) -> DataSet:
    """The sum of the first feature so far and a tenth of it, at every step of sequences of several lengths."""
    data = problem(count, seed, ragged=True)

    def part(given: Sequences) -> Sequences:
        sums = np.cumsum(given.inputs[:, :, :1].astype(np.float64), axis=1)
        return Sequences(given.inputs, np.concatenate([40.0 + sums, -0.1 * sums], axis=2), given.lengths)

    return DataSet(part(data.train), part(data.test))


@pytest.mark.cases(4)
@pytest.mark.parametrize("kind", ["singular", "adadiag", "sparse", "workspace"])
@pytest.mark.parametrize("guarantee", ["euler", "continuous"])
def test_what_comes_out_is_certified_and_learnt(tmp_path: Path, kind: str, guarantee: str) -> None:
    given = {"kind": kind, "modules": [8, 6], "step": [0.05, 0.3], "guarantee": guarantee, "density": 0.3}
    made = train(Architecture.parse(given), problem(240), Plan(epochs=12, learning_rate=2e-2), tmp_path / "out")
    assert made.report["test_accuracy"] > 0.75
    assert verify_assembly(made.certificate, tmp_path / "out").valid
    kept = json.loads((tmp_path / "out" / product.REPORT).read_text())
    assert kept == made.report
    assert (kept["factor"] is None) is (guarantee == "continuous")
    curve = (tmp_path / "out" / product.CURVE).read_text().splitlines()
    assert curve[0].split(",")[:2] == ["epoch", "loss"]
    assert len(curve) == 1 + kept["epochs"]
    file = read_weights(tmp_path / "out" / product.WEIGHTS)
    assert {entry.dtype for entry in file.tensors.values()} == {"F32"}


@pytest.mark.slow
def test_the_command_line_reads_what_was_written(tmp_path: Path) -> None:
    made = train(ARCHITECTURE, problem(), Plan(epochs=1), tmp_path / "out")
    command = [sys.executable, "-m", "certes_client", "verify", str(made.certificate), "--weights", str(made.folder)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["valid"] is True
    again = subprocess.run(
        [sys.executable, "-m", "certes_client", "compose", str(made.folder / product.DESCRIPTION), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert json.loads(again.stdout)["states"] == 11


def test_sequences_of_several_lengths(tmp_path: Path) -> None:
    """The last state of each is its own last: padding changes nothing."""
    data = problem(ragged=True)
    net = ARCHITECTURE.build(2, 2, 0)
    inputs, lengths = torch.from_numpy(data.train.inputs), torch.from_numpy(np.asarray(data.train.lengths))
    whole = net(inputs, None, lengths)[0]
    spoiled = inputs.clone()
    for one, length in zip(spoiled, lengths, strict=True):
        one[int(length) :] = 1e3
    assert torch.allclose(whole, net(spoiled, None, lengths)[0])
    alone = net(inputs[:1, : int(lengths[0])])[0]
    assert torch.allclose(whole[:1], alone, atol=1e-6)
    made = train(ARCHITECTURE, data, Plan(epochs=2), tmp_path / "out")
    assert verify_assembly(made.certificate, made.folder).valid
    moments = read_weights(made.folder / product.WEIGHTS)
    assert abs(moments.get("input.shift").floats()[1] - 3.0) < 0.1, "padding does not count"


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    made = [train(ARCHITECTURE, problem(), Plan(epochs=3, seed=4, noise=0.1), tmp_path / name) for name in "ab"]
    one, two = ((entry.folder / product.WEIGHTS).read_bytes() for entry in made)
    assert one == two
    other = train(ARCHITECTURE, problem(), Plan(epochs=3, seed=5, noise=0.1), tmp_path / "c")
    assert (other.folder / product.WEIGHTS).read_bytes() != one


KILLED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from certes.nn.train import train
from certes.nn.trainer import Plan
from tests.nn.test_train import ARCHITECTURE, problem
def slow(trainer):
    print(trainer.epoch, flush=True)
    time.sleep(0.15)
train(ARCHITECTURE, problem(), Plan(epochs=8, noise=0.1), Path(sys.argv[1]), checkpoint=Path(sys.argv[2]),
      progress=slow if len(sys.argv) > 3 else None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [("4",), pytest.param(("2", "5"), marks=pytest.mark.slow)])
def test_killed_and_resumed_ends_with_the_same_bits(tmp_path: Path, epochs: tuple[str, ...]) -> None:
    def run(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", KILLED, *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)

    train(ARCHITECTURE, problem(), Plan(epochs=8, noise=0.1), tmp_path / "whole", checkpoint=tmp_path / "state-whole")
    for wanted in epochs:
        killed = run(tmp_path / "killed", tmp_path / "state", "slowly")
        assert killed.stdout is not None
        for line in killed.stdout:
            if line.strip() == wanted:
                break
        time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(20) == -signal.SIGKILL
        assert not (tmp_path / "killed" / product.WEIGHTS).exists()
    resumed = run(tmp_path / "killed", tmp_path / "state")
    assert resumed.wait(120) == 0
    one, two = ((tmp_path / name / product.WEIGHTS).read_bytes() for name in ("whole", "killed"))
    assert one == two
    assert (tmp_path / "whole" / product.CURVE).read_text() == (tmp_path / "killed" / product.CURVE).read_text()


def test_a_state_of_another_question_is_refused(tmp_path: Path) -> None:
    train(ARCHITECTURE, problem(), Plan(epochs=1), tmp_path / "a", checkpoint=tmp_path / "state")
    with pytest.raises(InputError) as caught:
        train(ARCHITECTURE, problem(), Plan(epochs=2), tmp_path / "b", checkpoint=tmp_path / "state")
    assert caught.value.slug == "wrong-checkpoint"


def test_test_data_choose_nothing(tmp_path: Path) -> None:
    """Other labels to test on: the same weights."""
    data = problem()
    turned = DataSet(data.train, Sequences(data.test.inputs, 1 - data.test.labels))
    made = [train(ARCHITECTURE, given, Plan(epochs=4), tmp_path / name) for given, name in ((data, "a"), (turned, "b"))]
    assert (made[0].folder / product.WEIGHTS).read_bytes() == (made[1].folder / product.WEIGHTS).read_bytes()
    assert made[0].report["test_accuracy"] == pytest.approx(1.0 - made[1].report["test_accuracy"])


def test_what_is_not_certified_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with the parametrisation: an error with the reason, and neither certificate nor report."""
    from certes.nn import skew

    monkeypatch.setattr(skew.Skew, "_shrink", lambda self, gamma: torch.full((), 300.0))
    with pytest.raises(NotCertified) as caught:
        train(ARCHITECTURE, problem(), Plan(epochs=1), tmp_path / "out")
    assert isinstance(caught.value.composition, Composition)
    assert caught.value.composition.verdict != "contracting"
    assert not list((tmp_path / "out").glob("*.certificate.json"))
    assert not (tmp_path / "out" / product.REPORT).exists()


def test_ends_that_are_no_result(tmp_path: Path) -> None:
    with pytest.raises(NotTrained) as caught:
        train(ARCHITECTURE, problem(), Plan(), tmp_path / "a", cancelled=lambda: True)
    assert caught.value.reason == "cancelled"
    with pytest.raises(NotTrained) as caught:
        train(ARCHITECTURE, problem(), Plan(epochs=10_000), tmp_path / "b", seconds=1e-6)
    assert caught.value.reason == "deadline"
    made = train(ARCHITECTURE, problem(), Plan(epochs=10_000), tmp_path / "c", seconds=2.0)
    assert made.report["ended"] == "deadline", "the best epoch by then is the answer"


@pytest.mark.slow
def test_memory_that_does_not_suffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is taken in parts, which changes the weights by rounding only, and is said."""
    plain = train(ARCHITECTURE, problem(), Plan(epochs=2), tmp_path / "plain")
    real = Trainer._loss

    def full(self: Trainer, batch: Any) -> torch.Tensor:
        if len(batch.labels) > 9:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, batch)

    monkeypatch.setattr(Trainer, "_loss", full)
    made = train(ARCHITECTURE, problem(), Plan(epochs=2), tmp_path / "parts")
    assert "4 parts" in made.report["notes"][-1]
    one, two = (read_weights(entry.folder / product.WEIGHTS).get("m0.W").floats() for entry in (plain, made))
    assert np.abs(one - two).max() < 1e-4


@pytest.mark.parametrize(("change", "field"), [
    ({"modules": []}, "architecture.modules"), ({"modules": [0]}, "architecture.modules.0"),
    ({"step": 2.0}, "architecture.step"), ({"level": 1.0}, "architecture.level"),
    ({"kind": "lstm"}, "architecture.kind"), ({"x": 1}, "architecture.x"),
    ({"activation": "swoosh"}, "architecture.activation"), ({"topology": "random"}, "architecture.couplings"),
    ({"modules": [3], "step": 1.0, "level": 0.99, "activation": "gelu"}, "architecture.step"),
])  # fmt: skip
def test_architectures_that_cannot_be(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        Architecture.parse({"modules": [3, 3], **change})
    assert caught.value.field.startswith(field)


@pytest.mark.parametrize(("name", "value"), [
    ("epochs", 0), ("batch", True), ("learning_rate", -1.0), ("validation", 0.9), ("seed", -1), ("clip", float("nan")),
])  # fmt: skip
def test_plans_that_cannot_be(name: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        Plan.parse({name: value})
    assert caught.value.field == f"plan.{name}"
    with pytest.raises(InputError):
        Plan.parse({"nonsense": 1})


PARALLEL = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from certes.nn.train import train
from certes.nn.trainer import Plan
from tests.nn.test_train import ARCHITECTURE, problem, ramps
out = Path(sys.argv[1])
for name, data in (("classes", problem(99)), ("numbers", ramps(99)), ("again", ramps(99))):  # one after another
    made = train(ARCHITECTURE, data, Plan(epochs=3, batch=9, noise=0.1), out / name, checkpoint=out / f"{name}-state")
    assert made.folder == out / name and made.certificate.exists(), made
assert not torch.distributed.is_initialized()
print("done", made.digest)
"""


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    """By torch's own launcher and gloo: each takes its share of a batch, and the network is that of one process.

    Of nine sequences, five and four; of the last batch's one, one and none; of sequences of several lengths, unlike
    numbers of steps.
    """
    (tmp_path / "run.py").write_text(PARALLEL)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--local-addr=127.0.0.1"]
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    for name, how in (("one", []), ("two", launcher)):
        done = subprocess.run(
            [sys.executable, *how, str(tmp_path / "run.py"), str(tmp_path / name)],
            capture_output=True, text=True, check=False, timeout=240, env=env,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    assert len({line.split()[1] for line in done.stdout.splitlines() if line.startswith("done")}) == 1
    for name in ("classes", "numbers"):
        one, two = (read_weights(tmp_path / count / name / product.WEIGHTS) for count in ("one", "two"))
        drawn = next(ARCHITECTURE.build(2, 2, 0).system().leaves())[1].matrix("W")
        for entry in one.tensors:
            assert np.abs(one.get(entry).floats() - two.get(entry).floats()).max() < 2e-3, entry
        assert np.abs(one.get("m0.W").floats() - drawn).max() > 1e-2, "trained"
        curves = [(tmp_path / count / name / product.CURVE).read_text().splitlines() for count in ("one", "two")]
        for here, there in zip(*(np.array([line.split(",") for line in c[1:]], float) for c in curves), strict=True):
            assert here == pytest.approx(there, rel=1e-2)
        assert len(list((tmp_path / "two" / f"{name}-state").glob("state-*"))) == 1


def test_training_ends_early_where_nothing_better_comes(tmp_path: Path) -> None:
    """Without a learning rate no epoch is better than the first."""
    made = train(ARCHITECTURE, problem(), Plan(epochs=50, learning_rate=0.0, patience=3), tmp_path / "out", draw=False)
    assert (made.report["epoch"], made.report["epochs"], made.report["ended"]) == (1, 4, "finished")


def test_the_learning_rate_rises_and_falls() -> None:
    net = ARCHITECTURE.build(2, 2, 0)
    plan = Plan(epochs=10, batch=45, learning_rate=0.5, warmup=0.2)
    trainer = Trainer(net, plan, problem().train, problem().test)
    rates: list[float] = []
    trainer.optimiser.step = lambda: rates.append(trainer.optimiser.param_groups[0]["lr"])  # type: ignore[assignment,method-assign,misc]
    while not trainer.finished:
        trainer.advance()
    assert len(rates) == 20
    assert rates[:5] == pytest.approx([0.02, 0.14, 0.26, 0.38, 0.5])
    assert rates[12] == pytest.approx(0.25), "half way down"
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 0.01


def test_gradients_are_clipped() -> None:
    net = ARCHITECTURE.build(2, 2, 0)
    trainer = Trainer(net, Plan(epochs=1, clip=1e-3), problem().train, problem().test)
    norms: list[float] = []

    def noted() -> None:
        norms.append(float(torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm()))

    trainer.optimiser.step = noted  # type: ignore[assignment,method-assign]
    trainer.advance()
    assert max(norms) == pytest.approx(1e-3, rel=1e-3)


def test_weights_that_are_not_finite_are_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the loss shows it, or only the sequences that choose do, after the last step."""
    for last in (False, True):
        seen: list[int] = []

        def spoilt(self: Trainer, batch: Any, k: int, count: int, last: bool = last, seen: list[int] = seen) -> float:
            seen.append(k)
            if not last or k == count - 1:
                with torch.no_grad():
                    self.network.input.weight.fill_(float("nan"))
            return 1.0 if last else float("nan")

        monkeypatch.setattr(Trainer, "_step", spoilt)
        with pytest.raises(NotTrained) as caught:
            train(ARCHITECTURE, problem(), Plan(epochs=3), tmp_path / f"{last}")
        assert caught.value.reason == "diverged"
        assert not (tmp_path / f"{last}").exists()
