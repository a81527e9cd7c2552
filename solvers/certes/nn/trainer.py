"""Training of assemblies: one epoch at a time, resumable to the bit, the epoch chosen by a part of the training data.

The order of the sequences comes from (seed, epoch) alone, and everything else that the rest of a training depends on
can be taken out and put back; so a run that was killed ends with the same weights as one that was not (on a CPU, with
the same number of threads). Test data choose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from certes.errors import InputError
from certes.nn.assembly import Assembly
from certes.sequences import Sequences

Stop = Literal["deadline", "cancelled", "diverged"]
#: Sequences per batch where no gradient is needed.
_BATCH = 500
_MOMENTS = ("exp_avg", "exp_avg_sq")
#: Most parts into which a batch is cut where memory does not suffice.
_MOST_PARTS = 64


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        epochs: at most.
        batch: sequences per step.
        learning_rate: at its highest, after ``warmup``; it falls to 0 over half a cosine.
        warmup: share of all steps over which the learning rate rises.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        smoothing: of the labels.
        noise: standard deviation of Gaussian noise that is added to the inputs while training.
        patience: epochs without a better choice after which training ends.
        validation: share of the training data that chooses the epoch.
        seed: of everything that is drawn.

    Raises:
        InputError: naming the entry.
    """

    epochs: int = 60
    batch: int = 32
    learning_rate: float = 5e-3
    warmup: float = 0.1
    weight_decay: float = 1e-4
    clip: float = 1.0
    smoothing: float = 0.05
    noise: float = 0.0
    patience: int = 1000
    validation: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("patience", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**53:
                raise InputError(f"plan.{name}", repr(value), f"a whole number, at least {least}", "out-of-range")
        for name, low, high in (
            ("learning_rate", 0.0, 10.0), ("warmup", 0.0, 0.9), ("weight_decay", 0.0, 10.0), ("clip", 1e-6, 1e9),
            ("smoothing", 0.0, 0.5), ("noise", 0.0, 100.0), ("validation", 0.01, 0.5),
        ):  # fmt: skip
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                raise InputError(f"plan.{name}", repr(value), f"a number from {low:g} to {high:g}", "out-of-range")

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Plan:
        """From plain values.

        Raises:
            InputError: naming the entry.
        """
        unknown = [name for name in given if name not in cls.__dataclass_fields__]
        if unknown:
            expected = f"only {', '.join(cls.__dataclass_fields__)}"
            raise InputError(f"plan.{str(unknown[0])[:60]}", "an unknown entry", expected, "unknown-field")
        return cls(**given)


class Data(NamedTuple):
    """Sequences as tensors; ``lengths`` None: all as long as the array."""

    inputs: Tensor
    labels: Tensor
    lengths: Tensor | None

    @classmethod
    def of(cls, sequences: Sequences, device: torch.device) -> Data:
        """On a device, in float32."""
        lengths = None if sequences.lengths is None else torch.from_numpy(sequences.lengths).to(device)
        inputs = torch.from_numpy(sequences.inputs).to(device, torch.float32)
        return cls(inputs, torch.from_numpy(sequences.labels).to(device), lengths)

    def take(self, index: Tensor) -> Data:
        """Some of them, no longer than their longest."""
        lengths = None if self.lengths is None else self.lengths[index]
        most = self.inputs.shape[1] if lengths is None else int(lengths.max())
        return Data(self.inputs[index, :most], self.labels[index], lengths)


@dataclass(frozen=True)
class Chosen:
    """The best epoch so far, by the sequences that choose: most accurate, and of equal ones the least loss."""

    epoch: int
    accuracy: float
    loss: float
    state: dict[str, Tensor]


class Trainer:
    """The state of a training.

    Args:
        network: what is trained, in place; its inputs are standardised by the training data.
        plan: how.
        train: sequences to learn from.
        choice: sequences that choose the epoch.
        device: where.

    Attributes:
        epoch: how many are done.
        curve: one entry per epoch: ``epoch``, ``loss``, ``validation_loss``, ``validation_accuracy``.
        chosen: the best epoch, None before the first.
        notes: what happened on the way, in words.
    """

    def __init__(
        self, network: Assembly, plan: Plan, train: Sequences, choice: Sequences, device: torch.device | None = None
    ) -> None:
        self.device = device or torch.device("cpu")
        self.network, self.plan = network.to(self.device), plan
        self.train, self.choice = Data.of(train, self.device), Data.of(choice, self.device)
        network.standardise(*_moments(self.train))
        self.names = [name for name, _ in network.named_parameters()]
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, foreach=False
        )
        self.epoch, self.parts = 0, 1
        self.curve: list[dict[str, float]] = []
        self.chosen: Chosen | None = None
        self.notes: list[str] = []

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or nothing better has come for too long."""
        best = 0 if self.chosen is None else self.chosen.epoch
        return self.epoch >= self.plan.epochs or self.epoch - best >= self.plan.patience

    def advance(self, over: Callable[[], Stop | None] = lambda: None) -> Stop | None:
        """Train for one epoch.

        Args:
            over: asked before each step whether to stop, and why.

        Returns:
            None after a whole epoch; else why it does not count.
        """
        order = np.random.default_rng((self.plan.seed, 2, self.epoch)).permutation(len(self.train.labels))
        batches = torch.split(torch.from_numpy(order).to(self.device), self.plan.batch)
        total = 0.0
        for k, index in enumerate(batches):
            if (why := over()) is not None:
                return why
            total += len(index) * self._step(self.train.take(index), k, len(batches))
        if not math.isfinite(total):
            return "diverged"
        self.epoch += 1
        self._record(total / len(order))
        return None

    def _step(self, batch: Data, k: int, count: int) -> float:
        """One step of AdamW; the loss before it. A batch that is too large for the memory is taken in parts."""
        progress = (self.epoch + k / count) / self.plan.epochs
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.learning_rate * _schedule(progress, self.plan.warmup)
        batch = batch._replace(inputs=self._noisy(batch.inputs, k))
        while True:
            try:
                loss = self._gradients(batch)
                break
            except RuntimeError as error:
                if not _out_of_memory(error) or self.parts >= _MOST_PARTS:
                    raise
                self.parts *= 2
                self.notes.append(f"memory did not suffice for a batch: taken in {self.parts} parts from here on")
        _averaged(self.network)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.clip, foreach=False)
        self.optimiser.step()
        return loss

    def _gradients(self, batch: Data) -> float:
        self.optimiser.zero_grad(set_to_none=True)
        size, total = len(batch.labels), 0.0
        for index in torch.split(torch.arange(size, device=self.device), math.ceil(size / self.parts)):
            part = batch if self.parts == 1 else batch.take(index)
            loss = self._loss(part) * (len(part.labels) / size)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _loss(self, batch: Data) -> Tensor:
        logits = self.network(batch.inputs, None, batch.lengths)[0]
        return functional.cross_entropy(logits, batch.labels, label_smoothing=self.plan.smoothing)

    def _noisy(self, inputs: Tensor, k: int) -> Tensor:
        if not self.plan.noise:
            return inputs
        generator = torch.Generator().manual_seed((self.plan.seed * 1_000_003 + self.epoch) * 1_000_003 + k)
        noise = torch.randn(inputs.shape, generator=generator).to(inputs.device)
        return inputs + self.plan.noise * self.network.scale * noise

    def _record(self, loss: float) -> None:
        choice_loss, accuracy = measured(self.network, self.choice)
        entry = {"epoch": self.epoch, "loss": loss, "validation_loss": choice_loss, "validation_accuracy": accuracy}
        self.curve.append(entry)
        best = self.chosen
        if best is None or (accuracy, -choice_loss) > (best.accuracy, -best.loss):
            state = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
            self.chosen = Chosen(self.epoch, accuracy, choice_loss, state)

    def choose(self) -> None:
        """Put the weights of the best epoch into the network."""
        if self.chosen is not None:
            self.network.load_state_dict(self.chosen.state)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that the rest of the training depends on, but for :meth:`numbers`."""
        found = {f"now.{name}": value.detach().cpu().numpy() for name, value in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            state = self.optimiser.state.get(parameter, {})
            if state:
                found |= {f"adam.{name}.{key}": state[key].cpu().numpy() for key in _MOMENTS}
                found[f"adam.{name}.step"] = np.array([float(state["step"])])
        if self.chosen is not None:
            found |= {f"best.{name}": value.numpy() for name, value in self.chosen.state.items()}
        return found

    def numbers(self) -> dict[str, Any]:
        """Plain JSON values beside :meth:`arrays`."""
        best = self.chosen
        chosen = None if best is None else {"epoch": best.epoch, "accuracy": best.accuracy, "loss": best.loss}
        return {"epoch": self.epoch, "parts": self.parts, "curve": self.curve, "best": chosen, "notes": self.notes}

    def restore(self, numbers: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state; inverse of :meth:`arrays` and :meth:`numbers`.

        Raises:
            InputError: it does not fit this network.
        """
        try:
            self.network.load_state_dict(_taken(arrays, "now."))
            for name, parameter in self.network.named_parameters():
                if f"adam.{name}.step" in arrays:
                    state = {key: _as(arrays[f"adam.{name}.{key}"], parameter) for key in _MOMENTS}
                    state["step"] = torch.tensor(float(arrays[f"adam.{name}.step"][0]))
                    self.optimiser.state[parameter] = state
            self.epoch, self.parts = int(numbers["epoch"]), int(numbers["parts"])
            self.curve, self.notes = list(numbers["curve"]), list(numbers["notes"])
            best = numbers["best"]
            if best is not None:
                state = _taken(arrays, "best.")
                self.chosen = Chosen(int(best["epoch"]), float(best["accuracy"]), float(best["loss"]), state)
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            given = f"a state that does not fit this network ({str(error)[:200]})"
            raise InputError("checkpoint", given, "an empty folder, to start anew", "damaged-checkpoint") from error


@torch.no_grad()
def measured(network: Assembly, data: Data) -> tuple[float, float]:
    """Mean loss and accuracy on sequences."""
    loss, right = 0.0, 0
    for index in torch.split(torch.arange(len(data.labels), device=data.labels.device), _BATCH):
        part = data.take(index)
        logits = network(part.inputs, None, part.lengths)[0]
        loss += float(functional.cross_entropy(logits, part.labels, reduction="sum"))
        right += int((logits.argmax(1) == part.labels).sum())
    return loss / len(data.labels), right / len(data.labels)


def _moments(data: Data) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per feature over what is no padding; a feature that never varies keeps its size."""
    values = data.inputs
    if data.lengths is None:
        seen = values.reshape(-1, values.shape[-1])
    else:
        seen = values[torch.arange(values.shape[1], device=values.device)[None, :] < data.lengths[:, None]]
    scale = seen.double().std(0, correction=0)
    scale = torch.where(scale > 1e-3 * scale.max().clamp_min(1e-12), scale, torch.ones_like(scale))
    return seen.double().mean(0).float(), scale.float()


def _schedule(progress: float, warmup: float) -> float:
    """The learning rate over its highest: up in a line, down in half a cosine."""
    if progress < warmup:
        return 0.04 + 0.96 * progress / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / (1.0 - warmup)))


def _averaged(network: Assembly) -> None:
    """With several processes, the mean of their gradients."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    count = torch.distributed.get_world_size()
    for parameter in network.parameters():
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= count


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def _taken(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(np.array(array))
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _as(array: NDArray[Any], like: Tensor) -> Tensor:
    if array.shape != tuple(like.shape) or not np.isfinite(array).all():
        raise ValueError(f"shape {array.shape} for {tuple(like.shape)}, or a value that is not finite")
    return torch.from_numpy(np.array(array)).to(like.device, like.dtype)
