"""Training inside a stable set: Adam on free parameters whose every value is stable, one epoch at a time.

What moves are (z, d) of :class:`certes.nn.parametrisations.Lure`, the input matrix, the bias and the readout. The order
of the sequences comes from (seed, epoch) alone and the whole state can be taken out and put back, so that a run that
was interrupted ends with the same bits as one that was not (on a CPU, with the same number of threads).
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
from torch.nn import functional

from certes.errors import InputError
from certes.nn.networks import Dynamics, Parameters, Run
from certes.nn.parametrisations import Lure
from certes.sequences import Sequences

Array = NDArray[np.float64]
Stop = Literal["deadline", "cancelled", "diverged"]

#: Largest norm of a gradient, of the explicit weights and of (z, d) each.
_CLIP = 1.0
#: Learning rate of (z, d) over that of the other weights: multipliers far apart make W move much for small (z, d).
_FREE = 0.3
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        seed: of the order of the sequences, and of which of them choose.
        epochs: at most; the learning rate falls to 0 over so many (half a cosine).
        patience: epochs without a better choice after which training ends.
        batch: sequences per step.
        learning_rate: at the start.
    """

    seed: int = 0
    epochs: int = 40
    patience: int = 10
    batch: int = 128
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("epochs", 0), ("patience", 1), ("batch", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(name, repr(value), f"a whole number, at least {least}", "out-of-range")
        rate = self.learning_rate
        number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
        if not number or not 0.0 < rate < math.inf:
            raise InputError("learning_rate", repr(rate), "a positive number", "not-positive")


@dataclass(frozen=True, eq=False)
class Chosen:
    """The best weights so far, by the sequences that choose.

    Attributes:
        parameters: explicit, W in float64 before any rounding.
        multipliers: q that belong to W, shape (n,).
        accuracy: on the sequences that choose.
        epoch: after which.
    """

    parameters: Parameters
    multipliers: Array
    accuracy: float
    epoch: int


class Trainer:
    """The state of a training.

    Args:
        dynamics: how the network is run.
        lure: the stable set.
        start: explicit weights to start from; W may lie on the border of the set or outside.
        multipliers: q to start from, shape (n,), or None.
        fixed: names of weights (``b``, ``v``) that stay as they are.
        settings: how to train.
        train, choice: sequences to learn from, and to choose by.

    Attributes:
        epoch: how many epochs are done.
        curve: one entry per epoch: ``epoch``, ``loss`` (mean over the epoch), ``validation_accuracy``.
        chosen: the best epoch's weights, or None before the first.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        lure: Lure,
        start: Parameters,
        multipliers: Array | None,
        fixed: tuple[str, ...],
        settings: Settings,
        train: Sequences,
        choice: Sequences,
    ) -> None:
        self.dynamics, self.settings = dynamics, settings
        self.lure = lure.to(dynamics.device)
        z, d = lure.start(start.W, multipliers)
        free = {"z": z, "d": d}
        whole = dynamics.run(start)
        explicit = {name: getattr(whole, name) for name in ("U", "b", "V", "v")}
        self.values: dict[str, Tensor] = {
            name: value.to(dynamics.device).clone().requires_grad_(name not in fixed)
            for name, value in (free | explicit).items()
        }
        explicit_moved = [name for name in explicit if name not in fixed]
        self.groups = (["z", "d"], explicit_moved)
        groups = [{"params": [self.values[name] for name in names]} for names in self.groups]
        self.optimiser = torch.optim.Adam(groups, foreach=False)
        self.train, self.choice = dynamics.inputs(train), dynamics.inputs(choice)
        self.epoch = 0
        self.curve: list[dict[str, float]] = []
        self.chosen: Chosen | None = None

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or nothing better has come for too long."""
        best = 0 if self.chosen is None else self.chosen.epoch
        return self.epoch >= self.settings.epochs or self.epoch - best >= self.settings.patience

    def advance(self, over: Callable[[], Stop | None]) -> Stop | None:
        """Train for one epoch.

        Args:
            over: asked before each step whether to stop, and why.

        Returns:
            None after a whole epoch; else why it does not count: what ``over`` said, or ``diverged``.
        """
        order = np.random.default_rng((self.settings.seed, 2, self.epoch)).permutation(len(self.train[1]))
        parts = torch.split(torch.from_numpy(order).to(self.dynamics.device), self.settings.batch)
        total = 0.0
        try:
            for k, part in enumerate(parts):
                if (why := over()) is not None:
                    return why
                total += len(part) * self._step(part, (self.epoch + k / len(parts)) / self.settings.epochs)
            with torch.no_grad():
                weights = self._weights()
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return "diverged"
        if not math.isfinite(total) or not all(bool(value.isfinite().all()) for value in (*weights, self.values["d"])):
            return "diverged"
        self.epoch += 1
        self._record(weights, total / len(order))
        return None

    def _step(self, part: Tensor, progress: float) -> float:
        """One step of Adam; the loss before it."""
        self.optimiser.zero_grad(set_to_none=True)
        inputs, labels = self.train[0][part], self.train[1][part]
        loss = functional.cross_entropy(self.dynamics.logits(self._weights(), inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        rate = self.settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
        for group, times in zip(self.optimiser.param_groups, (_FREE, 1.0), strict=True):
            torch.nn.utils.clip_grad_norm_(group["params"], _CLIP, foreach=False)
            group["lr"] = times * rate
        self.optimiser.step()
        return float(loss.detach())

    def _weights(self) -> Run:
        w = self.lure(self.values["z"], self.values["d"]).to(self.dynamics.dtype)
        return Run(w, *(self.values[name] for name in ("U", "b", "V", "v")))

    def _record(self, weights: Run, loss: float) -> None:
        """Note the epoch, and keep its weights if they are the best."""
        accuracy = self.dynamics.accuracy_of(weights, *self.choice)
        self.curve.append({"epoch": self.epoch, "loss": loss, "validation_accuracy": accuracy})
        if self.chosen is None or accuracy > self.chosen.accuracy:
            self.chosen = Chosen(self._explicit(), self._multipliers(), accuracy, self.epoch)

    def _explicit(self) -> Parameters:
        """The weights now, float64."""
        with torch.no_grad():
            w = self.lure(self.values["z"], self.values["d"])
        arrays = [value.detach().double().cpu().numpy().copy() for value in (w, *self._weights()[1:])]
        return Parameters(*arrays)

    def _multipliers(self) -> Array:
        d = self.values["d"].detach().cpu().numpy()
        # far apart, they serve nobody; settling then looks for others
        return np.asarray(np.exp(np.clip(2.0 * (d - d.mean()), -300.0, 300.0)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that the rest of the training depends on, but for :meth:`numbers`."""
        found = {f"now.{name}": value.detach().cpu().numpy() for name, value in self.values.items()}
        for name in (name for names in self.groups for name in names):
            state = self.optimiser.state.get(self.values[name], {})
            found |= {f"adam.{name}.{key}": state[key].cpu().numpy() for key in _MOMENTS if state}
            if state:
                found[f"adam.{name}.step"] = np.array([float(state["step"])])
        if self.chosen is not None:
            found |= {f"best.{name}": value for name, value in self.chosen.parameters.items()}
            found["best.q"] = self.chosen.multipliers
        return found

    def numbers(self) -> dict[str, Any]:
        """Plain JSON values beside :meth:`arrays`."""
        best = None if self.chosen is None else {"accuracy": self.chosen.accuracy, "epoch": self.chosen.epoch}
        return {"epoch": self.epoch, "curve": list(self.curve), "best": best}

    def restore(self, numbers: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state; inverse of :meth:`arrays` and :meth:`numbers`.

        Raises:
            InputError: arrays of other shapes than this network has.
        """
        try:
            self._restore(numbers, arrays)
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            given = f"a state that does not fit this network ({error})"
            raise InputError("checkpoint", given, "an empty folder, to start anew", "damaged-checkpoint") from error

    def _restore(self, numbers: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        for name in (name for names in self.groups for name in names):
            value = self.values[name]
            with torch.no_grad():
                value.copy_(_as(arrays[f"now.{name}"], value))
            if f"adam.{name}.step" in arrays:
                state = {key: _as(arrays[f"adam.{name}.{key}"], value) for key in _MOMENTS}
                state["step"] = torch.tensor(float(arrays[f"adam.{name}.step"][0]), dtype=torch.float32)
                self.optimiser.state[value] = state
        self.epoch, self.curve = int(numbers["epoch"]), list(numbers["curve"])
        self.chosen = None
        if (best := numbers["best"]) is not None:
            explicit = taken(arrays, "best", self._explicit())
            self.chosen = Chosen(explicit, np.array(arrays["best.q"]), float(best["accuracy"]), int(best["epoch"]))


def taken(arrays: Mapping[str, NDArray[Any]], prefix: str, like: Parameters) -> Parameters:
    """Explicit weights ``PREFIX.W``, ... of a state.

    Raises:
        KeyError: one is missing.
        ValueError: one has another shape than ``like``, or is not finite.
    """
    found = []
    for name, value in like.items():
        array = np.array(arrays[f"{prefix}.{name}"], dtype=np.float64)
        if array.shape != value.shape or not np.isfinite(array).all():
            raise ValueError(f"{prefix}.{name} of shape {array.shape}, or not finite")
        found.append(array)
    return Parameters(*found)


def _as(array: NDArray[Any], like: Tensor) -> Tensor:
    """An array as a tensor like another one.

    Raises:
        ValueError: of another shape, or not finite.
    """
    if array.shape != tuple(like.shape) or not np.isfinite(array).all():
        raise ValueError(f"shape {array.shape} for {tuple(like.shape)}, or a value that is not finite")
    return torch.from_numpy(np.array(array)).to(like.device, like.dtype)
