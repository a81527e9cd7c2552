"""What a network is trained to say: the class of each sequence, or numbers, of each sequence or of each of its steps.

Targets are learnt in units of their standard deviation; when training is over, the readout is scaled so that the
network answers in the units of the targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from certes.errors import InputError
from certes.nn.assembly import Assembly
from certes.sequences import Sequences

#: Sequences per batch where no gradient is needed.
_BATCH = 500


class Data(NamedTuple):
    """Sequences as tensors; ``lengths`` None: all as long as the array."""

    inputs: Tensor
    labels: Tensor
    lengths: Tensor | None

    @classmethod
    def of(cls, sequences: Sequences, device: torch.device) -> Data:
        """On a device; inputs in float32, targets in float64 and in their own units."""
        lengths = None if sequences.lengths is None else torch.from_numpy(sequences.lengths).to(device)
        inputs = torch.from_numpy(sequences.inputs).to(device, torch.float32)
        return cls(inputs, torch.from_numpy(sequences.labels).to(device), lengths)

    def take(self, index: Tensor) -> Data:
        """Some of them, no longer than their longest."""
        lengths, labels = (None if self.lengths is None else self.lengths[index]), self.labels[index]
        most = self.inputs.shape[1] if lengths is None or not len(lengths) else int(lengths.max())
        return Data(self.inputs[index, :most], labels[:, :most] if labels.ndim == 3 else labels, lengths)

    def steps(self) -> Tensor | None:
        """Which steps are no padding, shape (N, T); None: all."""
        if self.lengths is None:
            return None
        return torch.arange(self.inputs.shape[1], device=self.inputs.device)[None, :] < self.lengths[:, None]

    def batches(self) -> Iterator[Data]:
        """All of them, a few at a time."""
        for index in torch.split(torch.arange(len(self.labels), device=self.labels.device), _BATCH):
            yield self.take(index)


class Score(NamedTuple):
    """How well a network says it.

    Attributes:
        loss: mean over what is judged; of a regression, of squares in units of the targets' standard deviation.
        accuracy: share of the right classes.
        rmse: root of the mean square error, over all outputs, in the units of the targets.
        r2: 1 - squared errors over squared distances from the mean, mean over the outputs; None where none varies.
    """

    loss: float
    accuracy: float | None = None
    rmse: float | None = None
    r2: float | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Score:
        """From plain values; inverse of ``_asdict``. Raises KeyError, TypeError or ValueError."""
        accuracy, rmse, r2 = (
            None if given[name] is None else float(given[name]) for name in ("accuracy", "rmse", "r2")
        )
        return cls(float(given["loss"]), accuracy, rmse, r2)

    def better(self, than: Score) -> bool:
        """More accurate, and of equal ones the less loss; without an accuracy, the less loss."""
        return (self.accuracy or 0.0, -self.loss) > (than.accuracy or 0.0, -than.loss)


class Classification:
    """One class per sequence.

    Args:
        classes: number of classes.
        smoothing: of the labels, while training.
    """

    word = "classification"

    def __init__(self, classes: int, smoothing: float) -> None:
        self.outputs, self.every, self.smoothing = classes, False, smoothing

    def count(self, data: Data) -> int:
        """How many answers are judged."""
        return len(data.labels)

    def loss(self, network: Assembly, data: Data) -> Tensor:
        """Mean cross entropy."""
        logits = network(data.inputs, None, data.lengths)[0]
        return functional.cross_entropy(logits, data.labels, label_smoothing=self.smoothing)

    @torch.no_grad()
    def measured(self, network: Assembly, data: Data, *, settled: bool = False) -> Score:
        """Mean cross entropy without smoothing, and accuracy."""
        loss, right = 0.0, 0
        for part in data.batches():
            logits = network(part.inputs, None, part.lengths)[0]
            loss += float(functional.cross_entropy(logits, part.labels, reduction="sum"))
            right += int((logits.argmax(1) == part.labels).sum())
        return Score(loss / len(data.labels), accuracy=right / len(data.labels))

    def settle(self, network: Assembly) -> None:
        """Nothing: classes have no units."""


class Regression:
    """Numbers of the last step, or of every step.

    Args:
        shift: of the targets, what the network calls 0, shape (outputs,).
        scale: what it calls 1, positive.
        every: of every step.
    """

    word = "regression"

    def __init__(self, shift: Tensor, scale: Tensor, every: bool) -> None:
        self.shift, self.scale, self.every = shift.double(), scale.double(), every
        self.outputs = len(shift)

    @classmethod
    def of(cls, train: Sequences, device: torch.device) -> Self:
        """In units of the targets to learn from; one that never varies keeps its size."""
        data = Data.of(train, device)
        seen = _seen(data.labels, data)
        scale = seen.std(0, correction=0)
        least = 1e-12 * seen.abs().amax(0)  # rounding of a constant
        return cls(seen.mean(0), torch.where(scale > least, scale, torch.ones_like(scale)), train.every)

    def count(self, data: Data) -> int:
        """How many steps are judged."""
        if not self.every:
            return len(data.labels)
        return len(data.labels) * data.inputs.shape[1] if data.lengths is None else int(data.lengths.sum())

    def loss(self, network: Assembly, data: Data) -> Tensor:
        """Mean square error in units of the targets' standard deviation."""
        outputs = network(data.inputs, None, data.lengths)[0]
        wanted = ((data.labels - self.shift) / self.scale).to(outputs.dtype)
        return (_seen(outputs, data) - _seen(wanted, data)).square().mean()

    @torch.no_grad()
    def measured(self, network: Assembly, data: Data, *, settled: bool = False) -> Score:
        """Mean square error, its root in the targets' units, and R squared.

        Args:
            network: what is measured.
            data: on what.
            settled: whether it answers in the units of the targets already.
        """
        squares = torch.zeros_like(self.scale)
        for part in data.batches():
            found = network(part.inputs, None, part.lengths)[0].double()
            found = found if settled else self.shift + self.scale * found
            squares += (_seen(found, part) - _seen(part.labels, part)).square().sum(0)
        seen, count = _seen(data.labels, data), self.count(data)
        spread = (seen - seen.mean(0)).square().sum(0)
        varied = spread > (1e-12 * seen.abs().amax(0)).square() * count
        r2 = float((1.0 - squares[varied] / spread[varied]).mean()) if bool(varied.any()) else None
        loss = float((squares / self.scale.square()).mean()) / count
        return Score(loss, rmse=math.sqrt(float(squares.mean()) / count), r2=r2)

    @torch.no_grad()
    def settle(self, network: Assembly) -> None:
        """From now on the network answers in the units of the targets; to be done once."""
        assert network.readout is not None
        weight, bias = network.readout.weight, network.readout.bias
        weight.copy_(self.scale[:, None] * weight.double())
        bias.copy_(self.shift + self.scale * bias.double())


Task = Classification | Regression


def task_of(network: Assembly, train: Sequences, choice: Sequences, smoothing: float, device: torch.device) -> Task:
    """What is to be learnt from such sequences.

    Raises:
        InputError: the network has not the outputs for it.
    """
    task: Task
    if train.regression:
        task = Regression.of(train, device)
    else:
        task = Classification(int(max(train.labels.max(), choice.labels.max())) + 1, smoothing)
    outputs = 0 if network.readout is None else network.readout.out_features
    enough = outputs >= task.outputs if task.word == "classification" else outputs == task.outputs
    if not enough or network.every != task.every:
        given = f"{outputs} outputs at {'every' if network.every else 'the last'} step"
        expected = f"{task.outputs} at {'every' if task.every else 'the last'} step, for {task.word}"
        raise InputError("network", given, expected, "wrong-shape")
    return task


def moments(data: Data) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per feature over what is no padding; a feature that never varies keeps its size."""
    steps = data.steps()
    seen = data.inputs.reshape(-1, data.inputs.shape[-1]) if steps is None else data.inputs[steps]
    scale = seen.double().std(0, correction=0)
    scale = torch.where(scale > 1e-3 * scale.max().clamp_min(1e-12), scale, torch.ones_like(scale))
    return seen.double().mean(0).float(), scale.float()


def _seen(values: Tensor, data: Data) -> Tensor:
    """What is judged, one row per answer: shape (count, outputs)."""
    if values.ndim == 2:
        return values
    steps = data.steps()
    return values.reshape(-1, values.shape[-1]) if steps is None else values[steps]
