"""``train``: from an architecture and data to a certified assembly in a folder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from certes.engines.monitor import time_limit
from certes.errors import CertesError, InputError
from certes.nn import parallel, product
from certes.nn.checkpoints import Checkpoint, Checkpoints, Keeper
from certes.nn.tasks import Score
from certes.nn.trainer import Chosen, Stop, Trainer
from certes.sequences import DataSet
from certes.trainings import Architecture, Plan

Progress = Callable[[Trainer], None]


class NotTrained(CertesError):
    """The training did not come to its end.

    Attributes:
        reason: ``deadline``, ``cancelled`` or ``diverged``.
    """

    def __init__(self, reason: Stop, epoch: int) -> None:
        self.reason = reason
        super().__init__(f"the training ended after {epoch} epochs: {reason}")


def train(
    architecture: Architecture,
    data: DataSet,
    plan: Plan,
    out: Path,
    *,
    checkpoint: Path | Callable[[dict[str, Any]], Keeper] | None = None,
    seconds: float | None = None,
    device: str = "cpu",
    keep: int = 1,
    key: bytes | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    draw: bool = True,
) -> product.Product:
    """Train an assembly, certify it, and write what came of it.

    Under torch's own launcher all processes train the one network (:mod:`certes.nn.parallel`), and the first writes.

    Args:
        architecture: what is trained.
        data: training and test data; a part of the former chooses the epoch.
        plan: how.
        out: folder of the result.
        checkpoint: folder that keeps the state after each epoch, from which the same question again goes on; or a
            function from the question (plain values) to whatever keeps it.
        seconds: time limit; the best epoch by then is the answer, if there is one.
        device: where torch computes; ``cuda`` under a launcher: the one of each process.
        keep: how many states of a run are kept in memory, see :class:`certes.nn.Assembly`.
        key: Ed25519 private key (PEM) that signs the certificate.
        progress: called after each epoch.
        cancelled: asked before each step.
        draw: whether the result has a figure (extra ``figures``).

    Raises:
        InputError: naming what cannot be. NotTrained: before the first epoch was over, or cancelled, or diverged.
        NotCertified: the trained network has no certificate.
    """
    limit, own = time_limit(seconds), _device(parallel.own_device(device))
    with parallel.launched(own):
        network = architecture.build(data.train.inputs.shape[2], data.outputs, plan.seed, keep)
        network.every = data.train.every
        trainer = Trainer(network, plan, *data.parts(plan.seed, plan.validation), own)
        states: Keeper | None = None
        if checkpoint is not None and parallel.rank() == 0:
            asked = question(architecture, plan, data)
            states = Checkpoints(checkpoint, asked) if isinstance(checkpoint, Path) else checkpoint(asked)
        state = parallel.first_says(None if states is None else states.load())
        if state is not None:
            trainer.restore(state.numbers, state.arrays)
        why = _run(trainer, states, limit, progress, cancelled)
        if trainer.chosen is None or why in ("cancelled", "diverged"):
            raise NotTrained(why or "deadline", trainer.epoch)
        trainer.choose()
        report = _report(trainer, trainer.chosen, data, why) | question(architecture, plan, data)
        return _written(out, lambda folder: product.write(network, folder, trainer.curve, report, key, draw=draw))


def _report(trainer: Trainer, chosen: Chosen, data: DataSet, why: Stop | None) -> dict[str, Any]:
    return {
        "task": trainer.task.word,
        **_scores("test", trainer.measured(data.test)),
        **_scores("validation", chosen.score),
        "epoch": chosen.epoch,
        "epochs": trainer.epoch,
        "ended": why or "finished",
        "notes": trainer.notes,
    }


def _written(out: Path, write: Callable[[Path], product.Product]) -> product.Product:
    """What the first process writes; every process certifies it, and goes on when it is written."""
    if parallel.rank() == 0:
        made = write(out)
    else:
        with tempfile.TemporaryDirectory() as folder:
            drafted = write(Path(folder))
        made = replace(drafted, folder=out, certificate=out / drafted.certificate.name)
    parallel.first_says(made.digest)
    return made


def _scores(prefix: str, score: Score) -> dict[str, float | None]:
    """Entries of a report: those of its task."""
    regression = score.accuracy is None
    names = ("rmse", "r2", "loss") if regression else ("accuracy", "loss")
    return {f"{prefix}_{name}": getattr(score, name) for name in names}


def question(architecture: Architecture, plan: Plan, data: DataSet) -> dict[str, Any]:
    """What is trained, as plain values: a state of another question is refused."""
    return {"architecture": architecture.model_dump(mode="json"), "plan": vars(plan), "data": data.digest}


def _run(
    trainer: Trainer,
    states: Keeper | None,
    seconds: float | None,
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> Stop | None:
    end = None if seconds is None else time.monotonic() + seconds

    def over() -> Stop | None:
        if cancelled is not None and cancelled():
            return "cancelled"
        return "deadline" if end is not None and time.monotonic() > end else None

    while not trainer.finished:
        if (why := trainer.advance(over)) is not None:
            return why
        if states is not None:
            states.save(Checkpoint(trainer.numbers(), trainer.arrays()))
        if progress is not None:
            progress(trainer)
    return None


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        given = f"{name}: {str(error).partition(chr(10))[0]}"[:200]
        raise InputError("device", given, "a device that torch has here", "unknown-value") from error
    return device
