"""Regression: numbers of the last step or of every step, in the units of the targets; the judge runs the files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from certes.certificate.assembly_check import verify_assembly
from certes.errors import InputError
from certes.nn import product
from certes.nn.tasks import Data, Regression, Score
from certes.nn.train import train
from certes.nn.trainer import Plan, Trainer
from certes.sequences import DataSet, Sequences
from certes.weights import read_weights

from tests.nn.test_train import ARCHITECTURE, problem, ramps

PLAN = Plan(epochs=12, learning_rate=2e-2)


def sums(*, outputs: int = 1) -> DataSet:
    """Of the last step only: the mean of the first feature, and multiples of it."""
    data = problem(240)

    def part(given: Sequences) -> Sequences:
        mean = given.inputs[:, -8:, 0].mean(1, dtype=np.float64)
        return Sequences(given.inputs, 300.0 + 20.0 * mean[:, None] * np.arange(1, outputs + 1))

    return DataSet(part(data.train), part(data.test))


def answers(folder: Path, inputs: Any) -> Any:
    """What the network in a folder says at every step, from its files and in float64."""
    file = read_weights(folder / product.WEIGHTS)
    about = json.loads((folder / product.DESCRIPTION).read_text())
    names = list(about["modules"])
    sizes = [len(about["modules"][name]["tau"]) for name in names]
    first = dict(zip(names, np.concatenate([[0], np.cumsum(sizes)[:-1]]), strict=True))
    n = sum(sizes)
    leak = about["step"] / np.concatenate([about["modules"][name]["tau"] for name in names])
    W, G = np.zeros((n, n)), np.zeros((n, n))
    for name, size in zip(names, sizes, strict=True):
        rows = slice(first[name], first[name] + size)
        W[rows, rows] = file.get(f"{name}.W").floats()
    for edge in about["couplings"]:
        block = file.get(edge["tensor"]).floats()
        to, source = first[edge["to"]], first[edge["from"]]
        G[to : to + block.shape[0], source : source + block.shape[1]] = block
    tensor = {name: file.get(name).floats() for name in file.tensors}
    x, said = np.zeros((len(inputs), n)), []
    for u in np.moveaxis((inputs - tensor["input.shift"]) / tensor["input.scale"], 1, 0):
        drive = u @ tensor["input.weight"].T + tensor["input.bias"]
        x = x + leak * (-x + np.maximum(x, 0.0) @ W.T + drive) + about["step"] * x @ G.T
        said.append(x @ tensor["readout.weight"].T + tensor["readout.bias"])
    return np.stack(said, axis=1)


def judged(wanted: Any, found: Any) -> tuple[float, float]:
    """Root mean square error and R squared, by their definitions."""
    squares = (wanted - found) ** 2
    spread = (wanted - wanted.mean(0)) ** 2
    return float(np.sqrt(squares.mean())), float((1.0 - squares.sum(0) / spread.sum(0)).mean())


@pytest.mark.parametrize("outputs", [1, 3])
def test_numbers_of_the_last_step(tmp_path: Path, outputs: int) -> None:
    data = sums(outputs=outputs)
    made = train(ARCHITECTURE, data, PLAN, tmp_path / "out")
    assert verify_assembly(made.certificate, made.folder).valid
    rmse, r2 = judged(data.test.labels, answers(made.folder, data.test.inputs.astype(float))[:, -1])
    assert made.report["test_rmse"] == pytest.approx(rmse, rel=1e-3)
    assert made.report["test_r2"] == pytest.approx(r2, abs=1e-4)
    assert r2 > 0.85
    assert made.report["task"] == "regression"
    assert "test_accuracy" not in made.report
    curve = (made.folder / product.CURVE).read_text().splitlines()
    assert curve[0] == "epoch,loss,validation_loss,validation_rmse"
    losses = [float(line.split(",")[2]) for line in curve[1:]]
    assert made.report["epoch"] == 1 + int(np.argmin(losses)), "the least validation loss chooses"
    assert made.report["validation_loss"] == min(losses)


def test_numbers_of_every_step(tmp_path: Path) -> None:
    data = ramps(200)
    made = train(ARCHITECTURE, data, PLAN, tmp_path / "out")
    assert verify_assembly(made.certificate, made.folder).valid
    found = answers(made.folder, data.test.inputs.astype(float))
    assert data.test.lengths is not None
    seen = np.arange(found.shape[1])[None, :] < data.test.lengths[:, None]
    rmse, r2 = judged(data.test.labels[seen], found[seen])
    assert made.report["test_rmse"] == pytest.approx(rmse, rel=1e-3)
    assert made.report["test_r2"] == pytest.approx(r2, abs=1e-4)
    assert r2 > 0.6


@pytest.mark.slow
def test_padding_and_test_targets_change_nothing(tmp_path: Path) -> None:
    """Whatever stands after the end of a sequence, and whatever is to be said of those to test on."""
    data = ramps()

    def spoiled(given: Sequences) -> Sequences:
        assert given.lengths is not None
        after = np.arange(given.inputs.shape[1])[None, :, None] >= given.lengths[:, None, None]
        inputs, labels = np.where(after, np.float32(9.0), given.inputs), np.where(after, 1e6, given.labels)
        return Sequences(inputs, labels, given.lengths)

    other = DataSet(spoiled(data.train), spoiled(data.test))
    turned = DataSet(data.train, replace(data.test, labels=data.test.labels[::-1].copy()))
    made = [
        train(ARCHITECTURE, given, Plan(epochs=3), tmp_path / str(k)) for k, given in enumerate((data, other, turned))
    ]
    one, two, three = ((each.folder / product.WEIGHTS).read_bytes() for each in made)
    assert one == two
    assert made[0].report["test_rmse"] == made[1].report["test_rmse"]
    assert one == three
    assert made[0].report["test_rmse"] != made[2].report["test_rmse"]


def test_units_do_not_matter(tmp_path: Path) -> None:
    """Targets in units 1024 times smaller: the same recurrent weights, and a readout 1024 times larger."""
    data = sums(outputs=2)
    small = DataSet(*(replace(part, labels=1024.0 * part.labels) for part in (data.train, data.test)))
    made = [train(ARCHITECTURE, given, Plan(epochs=3), tmp_path / name) for given, name in ((data, "a"), (small, "b"))]
    one, two = (read_weights(each.folder / product.WEIGHTS) for each in made)
    for name in one.tensors:
        factor = 1024.0 if name.startswith("readout") else 1.0
        assert np.array_equal(factor * one.get(name).floats(), two.get(name).floats()), name
    assert made[1].report["test_rmse"] == pytest.approx(1024.0 * made[0].report["test_rmse"], rel=1e-9)
    assert made[1].report["test_r2"] == pytest.approx(made[0].report["test_r2"], abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -7e29])
def test_targets_that_never_vary(tmp_path: Path, value: float) -> None:
    data = sums()
    flat = DataSet(*(replace(part, labels=np.full_like(part.labels, value)) for part in (data.train, data.test)))
    made = train(ARCHITECTURE, flat, Plan(epochs=2), tmp_path / "out")
    assert made.report["test_r2"] is None, "there is nothing to explain"
    assert json.loads((made.folder / product.REPORT).read_text()) == made.report
    assert verify_assembly(made.certificate, made.folder).valid


def test_resumed_with_the_same_bits(tmp_path: Path) -> None:
    data, seen = ramps(), []

    def cut() -> bool:
        seen.append(0)
        return len(seen) > 9

    whole = train(ARCHITECTURE, data, Plan(epochs=5, noise=0.1), tmp_path / "whole")
    with pytest.raises(Exception, match="cancelled"):
        train(ARCHITECTURE, data, Plan(epochs=5, noise=0.1), tmp_path / "a", checkpoint=tmp_path / "s", cancelled=cut)
    again = train(ARCHITECTURE, data, Plan(epochs=5, noise=0.1), tmp_path / "a", checkpoint=tmp_path / "s")
    assert (whole.folder / product.WEIGHTS).read_bytes() == (again.folder / product.WEIGHTS).read_bytes()
    assert whole.report == again.report


def test_smoothing_is_of_no_account(tmp_path: Path) -> None:
    made = [train(ARCHITECTURE, sums(), Plan(epochs=2, smoothing=s), tmp_path / f"{s}") for s in (0.0, 0.3)]
    one, two = ((each.folder / product.WEIGHTS).read_bytes() for each in made)
    assert one == two


def test_a_batch_in_parts_has_the_gradient_of_the_whole() -> None:
    data = ramps()
    net = ARCHITECTURE.build(2, 2, 0)
    net.every = True
    trainer = Trainer(net, Plan(), data.train, data.test)
    batch = trainer.train.take(torch.arange(11))
    found = []
    for parts in (1, 2, 4, 11):
        trainer.parts = parts
        loss = trainer._gradients(batch, trainer.task.count(batch))
        found.append((loss, *(p.grad.clone() for p in net.parameters() if p.grad is not None)))
    for loss, *grads in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        for one, two in zip(grads, found[0][1:], strict=True):
            assert torch.allclose(one, two, rtol=1e-3, atol=1e-6)
    assert trainer.task.count(batch) == int(batch.lengths.sum())  # type: ignore[union-attr]


def test_loss_by_hand() -> None:
    """Of a network that says one number whatever it is told."""
    data = DataSet.of(np.zeros((10, 4, 2)), targets=np.arange(20.0).reshape(10, 2), seed=0)
    net = ARCHITECTURE.build(2, 2, 0)
    with torch.no_grad():
        net.readout.weight.zero_()  # type: ignore[union-attr]
        net.readout.bias.copy_(torch.tensor([0.5, -1.0]))  # type: ignore[union-attr]
    train_targets, test_targets = data.train.labels, data.test.labels
    mean, scale = train_targets.mean(0), train_targets.std(0)
    task = Regression.of(data.train, torch.device("cpu"))
    wanted = (test_targets - mean) / scale
    there = Data.of(data.test, torch.device("cpu"))
    loss = float(task.loss(net, there).detach())
    assert loss == pytest.approx(float(((wanted - [0.5, -1.0]) ** 2).mean()), rel=1e-6)
    score = task.measured(net, there)
    rmse, r2 = judged(test_targets, mean + scale * np.array([0.5, -1.0]))
    assert score == Score(pytest.approx(loss, rel=1e-6), None, pytest.approx(rmse, rel=1e-9),
                          pytest.approx(r2, rel=1e-9))  # fmt: skip
    task.settle(net)
    assert task.measured(net, there, settled=True).rmse == pytest.approx(rmse, rel=1e-6)


def test_scores_are_compared() -> None:
    assert Score(1.0, accuracy=0.9).better(Score(0.5, accuracy=0.8))
    assert Score(0.4, accuracy=0.8).better(Score(0.5, accuracy=0.8))
    assert not Score(0.5, accuracy=0.8).better(Score(0.5, accuracy=0.8))
    assert Score(0.4, rmse=9.0).better(Score(0.5, rmse=1.0))
    assert Score.parse(Score(0.4, rmse=9.0)._asdict()) == Score(0.4, rmse=9.0)


@pytest.mark.parametrize(("data", "outputs", "every"), [
    (problem(), 1, False), (problem(), 2, True), (ramps(), 2, False), (ramps(), 3, True), (sums(), 0, False),
])  # fmt: skip
def test_networks_with_other_outputs(data: DataSet, outputs: int, every: bool) -> None:
    net = ARCHITECTURE.build(2, outputs, 0)
    net.every = every
    with pytest.raises(InputError) as caught:
        Trainer(net, Plan(), data.train, data.test)
    assert caught.value.field == "network"
