"""Training of assemblies: one epoch at a time, resumable to the bit, the epoch chosen by a part of the training data.

The order of the sequences comes from (seed, epoch) alone, and everything else that the rest of a training depends on
can be taken out and put back; so a run that was killed ends with the same weights as one that was not (on a CPU, with
the same number of threads). Test data choose nothing. What is learnt, classes or numbers, is :mod:`certes.nn.tasks`;
several processes that train one network are :mod:`certes.nn.parallel`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certes.errors import InputError
from certes.nn import parallel
from certes.nn.assembly import Assembly
from certes.nn.tasks import Data, Score, moments, task_of
from certes.nn.variation import Variation
from certes.sequences import Sequences
from certes.trainings import Plan

Stop = Literal["deadline", "cancelled", "diverged"]
_STOPS: tuple[Stop | None, ...] = (None, "deadline", "cancelled", "diverged")
_MOMENTS = ("exp_avg", "exp_avg_sq")
#: Most parts into which a batch is cut where memory does not suffice.
_MOST_PARTS = 64


@dataclass(frozen=True)
class Chosen:
    """The best epoch so far, by the sequences that choose: see :meth:`certes.nn.tasks.Score.better`."""

    epoch: int
    score: Score
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
        task: what is learnt.
        epoch: how many are done.
        curve: one entry per epoch: ``epoch``, ``loss``, ``validation_loss``, and ``validation_accuracy`` or, of a
            regression, ``validation_rmse``.
        chosen: the best epoch, None before the first.
        notes: what happened on the way, in words.

    Raises:
        InputError: the network has not the outputs for such labels or targets.
    """

    def __init__(
        self, network: Assembly, plan: Plan, train: Sequences, choice: Sequences, device: torch.device | None = None
    ) -> None:
        self.device = device or torch.device("cpu")
        self.network, self.plan = network.to(self.device), plan
        self.task = task_of(network, train, choice, plan.smoothing, self.device)
        self.train, self.choice = Data.of(train, self.device), Data.of(choice, self.device)
        network.standardise(*moments(self.train))
        parallel.alike(network)
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, foreach=False
        )
        self._varied = Variation(plan.seed, plan.noise, plan.jitter, train.image)
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
            why = _STOPS[parallel.any_says(_STOPS.index(over()), self.device)]
            if why is not None:
                return why
            batch = self.train.take(index)
            total += self.task.count(batch) * self._step(batch, k, len(batches))
        score = parallel.first_says(self.task.measured(self.network, self.choice))
        if not (math.isfinite(total) and math.isfinite(score.loss)):
            return "diverged"
        self.epoch += 1
        self._record(total / self.task.count(self.train), score)
        return None

    def _step(self, batch: Data, k: int, count: int) -> float:
        """One step of AdamW; the loss before it. A batch that is too large for the memory is taken in parts."""
        progress = (self.epoch + k / count) / self.plan.epochs
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.learning_rate * _schedule(progress, self.plan.warmup)
        size = self.task.count(batch)
        own = batch._replace(inputs=self._varied(batch.inputs, self.network.scale, self.epoch, k))
        if parallel.count() > 1:
            own = own.take(parallel.share(torch.arange(len(batch.labels), device=self.device)))
        while True:
            try:
                loss = self._gradients(own, size)
                break
            except RuntimeError as error:
                if not out_of_memory(error) or self.parts >= _MOST_PARTS:
                    raise
                self.parts *= 2
                self.notes.append(f"memory did not suffice for a batch: taken in {self.parts} parts from here on")
        loss = parallel.added(self.network, loss, self.device)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.clip, foreach=False)
        self.optimiser.step()
        return loss

    def _gradients(self, own: Data, size: int) -> float:
        """Gradients of the loss of a batch of ``size`` answers, as far as these sequences make it."""
        self.optimiser.zero_grad(set_to_none=True)
        count, total = len(own.labels), 0.0
        if not count:  # more processes than sequences
            return total
        for index in torch.split(torch.arange(count, device=self.device), math.ceil(count / self.parts)):
            part = own if self.parts == 1 else own.take(index)
            loss = self._loss(part) * (self.task.count(part) / size)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _loss(self, batch: Data) -> Tensor:
        return self.task.loss(self.network, batch)

    def _record(self, loss: float, score: Score) -> None:
        entry = {"epoch": self.epoch, "loss": loss, "validation_loss": score.loss}
        self.curve.append(entry | {f"validation_{name}": value for name, value in _headline(score).items()})
        if self.chosen is None or score.better(self.chosen.score):
            state = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
            self.chosen = Chosen(self.epoch, score, state)

    def choose(self) -> None:
        """Put the weights of the best epoch into the network, which then answers in the units of the targets."""
        if self.chosen is not None:
            self.network.load_state_dict(self.chosen.state)
            self.task.settle(self.network)

    def measured(self, sequences: Sequences) -> Score:
        """How well the network does on sequences after :meth:`choose`."""
        return self.task.measured(self.network, Data.of(sequences, self.device), settled=True)

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
        chosen = None if best is None else {"epoch": best.epoch, **best.score._asdict()}
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
                self.chosen = Chosen(int(best["epoch"]), Score.parse(best), _taken(arrays, "best."))
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            given = f"a state that does not fit this network ({str(error)[:200]})"
            raise InputError("checkpoint", given, "an empty folder, to start anew", "damaged-checkpoint") from error


def _headline(score: Score) -> dict[str, float]:
    """The number that is shown beside the loss."""
    return {name: value for name, value in (("accuracy", score.accuracy), ("rmse", score.rmse)) if value is not None}


def _schedule(progress: float, warmup: float) -> float:
    """The learning rate over its highest: up in a line, down in half a cosine."""
    if progress < warmup:
        return 0.04 + 0.96 * progress / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / (1.0 - warmup)))


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says with it that memory does not suffice; on a CPU that has no type of its own."""
    said = ("not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)


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
