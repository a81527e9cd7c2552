"""Trainings: an architecture and data in, a certified assembly out.

The data are the arrays of a safetensors or .npz file (``inputs`` with ``labels`` or ``targets``, see
:meth:`certes.sequences.DataSet.of`), ``.ts`` files, or IDX files (:mod:`certes.uploads`). Arrays are checked before
there is a job. The other formats take a parser, which runs in the solver process: what is wrong with them fails
the job.

After an epoch the whole state goes out as a checkpoint, so that a job whose worker died ends with the same weights as
one that was left alone. A network that is not certified is a failed job.
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from certes import strictjson, uploads
from certes.certificate.assembly import AssemblyBundle
from certes.errors import InputError, TooLargeError
from certes.images import Order
from certes.sequences import DataSet
from certes.trainings import Architecture, Plan
from certes.uploads import unpacked
from certes.weights import Limits as FileLimits
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from certes_service.questions.base import Context, Plain, Solved, Spent, finite

if TYPE_CHECKING:
    from certes.nn.checkpoints import Checkpoint, Keeper
    from certes.nn.trainer import Trainer

    from certes_service.settings import Settings

#: Points of the learning curve that progress tells at most; the answer has them all.
_POINTS = 100
#: Epochs of one training: so many points has the curve of an answer.
MOST_EPOCHS = 10_000
#: A checkpoint follows the one before after so many seconds, and so many times what that one took.
_PAUSE, _PAUSE_TIMES = 1.0, 10.0


class TrainingOptions(BaseModel):
    """What is asked about a training, beside its architecture and plan.

    Attributes:
        seconds: time limit, within that of the service; the best epoch by then is the answer.
        keep: of the states of a run one in so many is kept for the gradient; 0: about one in sqrt(time).
        order: how the images of IDX files become sequences, see :func:`certes.images.ordered`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    seconds: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="time limit; the best epoch is the answer"
    )
    keep: int = Field(1, ge=0, le=2**31, description="of the states one in so many is kept; 0: one in sqrt(time)")
    order: Order = Field("rows", description="of IDX files: an image is read row by row, or pixel by pixel")


class TrainingFailed(InputError):
    """A training without a certified network: the job fails with the reason."""


def question(given: dict[str, Any], weights: bytes, name: str) -> TrainingQuestion:
    """A request's spec as a question.

    Raises:
        InputError: naming the entry.
    """
    strictjson.canonical(given, "spec")
    unknown = sorted(set(given) - {"architecture", "plan", *TrainingOptions.model_fields})
    if unknown:
        raise InputError(
            f"spec.{unknown[0][:60]}", "an unknown entry", "architecture, plan, seconds, keep, order", "unknown-field"
        )
    if not isinstance(given.get("architecture"), dict):
        expected = 'an object such as {"modules": [32, 32]}'
        raise InputError("spec.architecture", "none, or no object", expected, "missing-value")
    architecture = Architecture.parse(given["architecture"], "spec.architecture")
    plan = given.get("plan", {})
    if not isinstance(plan, dict):
        raise InputError("spec.plan", "no object", 'an object such as {"epochs": 60}', "wrong-type")
    try:
        how = Plan.parse(plan)
    except InputError as error:
        raise InputError(f"spec.{error.field}", error.given, error.expected, error.slug) from None
    try:
        options = TrainingOptions.model_validate(
            {key: given[key] for key in TrainingOptions.model_fields if key in given}
        )
    except ValidationError as error:
        from certes.spec import input_error

        raise input_error(error, "spec") from None
    return TrainingQuestion(architecture, how, options, weights, name)


@dataclass(frozen=True)
class TrainingQuestion(Plain):
    """One training.

    Attributes:
        architecture: what is trained.
        plan: how.
        options: what is asked besides.
        weights: bytes of the data, see :mod:`certes.uploads`.
        name: the file's name.
    """

    kind: ClassVar[str] = "training"
    trains: ClassVar[bool] = True

    architecture: Architecture
    plan: Plan
    options: TrainingOptions
    weights: bytes
    name: str

    @classmethod
    def rebuild(cls, parts: Mapping[str, Any], weights: bytes, name: str) -> Self:
        """From :meth:`parts`."""
        architecture, plan = Architecture.parse(parts["architecture"]), Plan.parse(parts["plan"])
        return cls(architecture, plan, TrainingOptions.model_validate(parts["options"]), weights, name)

    def parts(self) -> dict[str, Any]:
        """Architecture, plan and options."""
        return {
            "architecture": self.architecture.model_dump(mode="json"),
            "plan": dict(vars(self.plan)),
            "options": self.options.model_dump(mode="json"),
        }

    def check(self, settings: Settings) -> None:
        """Read the data, and refuse what is too large, before anything is computed."""
        states, most = sum(self.architecture.modules), settings.max_states
        if states > most:
            raise TooLargeError("spec.architecture.modules", f"{states} states", most, "states")
        if self.plan.epochs > MOST_EPOCHS:
            raise TooLargeError("spec.plan.epochs", f"{self.plan.epochs} epochs", MOST_EPOCHS, "epochs")
        if self.options.seconds is not None and self.options.seconds > settings.train_seconds:
            given, longest = f"{self.options.seconds:g} seconds", int(settings.train_seconds)
            raise TooLargeError("spec.seconds", given, longest, "seconds")
        limits = FileLimits(file_bytes=settings.max_body_bytes)
        files = unpacked(self.weights, self.name, limits)
        if files["data"].format == "arrays":
            self._fits(self._data(settings.max_body_bytes), settings.max_states)
            return
        if self.plan.jitter and (files["data"].format != "idx" or self.options.order == "permuted"):
            raise _no_images(self.plan.jitter)

    def _fits(self, data: DataSet, most: int) -> None:
        """Raise InputError if the data are too wide for a network of so many states, or not what the plan wants."""
        states = sum(self.architecture.modules)
        said = "targets" if data.train.regression else "labels"
        for name, count in (("inputs", data.train.inputs.shape[2]), (said, data.outputs)):
            if count * states > most**2:  # as many numbers as the largest recurrent matrix
                given = f"{count} {'features' if name == 'inputs' else 'outputs'} for {states} states"
                raise TooLargeError(f"data.{name}", given, most**2 // states, "of them")
        if self.plan.jitter and data.train.image is None:
            raise _no_images(self.plan.jitter)

    def undecided(self, reason: Spent, detail: str) -> Solved:
        """A solver that was ended has trained nothing."""
        raise _failed(reason, detail)

    def solve(self, context: Context) -> Solved:
        """Train, certify, and hand over what came of it.

        Raises:
            InputError: data or an architecture that cannot be. TrainingFailed: no certified network.
            MissingExtraError: torch is not installed. MemoryError: memory does not suffice, in the smallest parts.
        """
        from certes.nn.checkpoints import Carried
        from certes.nn.product import NotCertified
        from certes.nn.train import NotTrained, train
        from certes.nn.trainer import out_of_memory

        data, limit = self._data(context.limits.file_bytes), context.limit(self.options.seconds)
        self._fits(data, context.limits.states)
        with tempfile.TemporaryDirectory(prefix="certes-training-") as folder:
            try:
                made = train(
                    self.architecture,
                    data,
                    self.plan,
                    Path(folder),
                    checkpoint=lambda asked: _Paced(Carried(asked, context.resume, context.checkpoint)),
                    seconds=limit,
                    device=context.device,
                    keep=self.options.keep,
                    progress=lambda trainer: _told(context, trainer, self.plan),
                    draw=False,
                )
            except NotTrained as error:
                raise _failed(error.reason, str(error)) from error
            except NotCertified as error:
                raise _failed("not-certified", str(error)) from error
            except RuntimeError as error:
                if out_of_memory(error):
                    raise MemoryError(str(error)) from error
                raise
            bundle = AssemblyBundle.read(made.certificate)
            weights = (made.folder / "weights.safetensors").read_bytes()
            assembly = json.loads((made.folder / "assembly.json").read_text())
            curve = list(csv.DictReader((made.folder / "curve.csv").read_text().splitlines()))
        answer = _answer(made.report, curve, assembly)
        # cut short by anything but the question's own limit, in one go: another time there may be more of it
        whole = made.report["ended"] != "deadline" or limit == self.options.seconds
        states = made.report["states"]
        return Solved(answer, bundle.documents, bundle.proofs, bundle.root, weights, True, states, lasting=whole)

    def _data(self, most: int) -> DataSet:
        try:
            return uploads.read(self.weights, FileLimits(file_bytes=most), order=self.options.order, name=self.name)
        except TooLargeError:
            raise
        except InputError as error:
            if error.field in uploads.PARTS:
                raise
            field = error.field if error.field.startswith("data") else f"data.{error.field}"
            raise InputError(field, error.given, error.expected, error.slug) from None


class _Paced:
    """Keeps states now and then: where epochs are short or states are large, each would cost more than it saves.

    Args:
        keeper: keeps them.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper, self._due = keeper, 0.0

    def save(self, state: Checkpoint) -> None:
        """Keep a state, if it is time for one."""
        began = time.monotonic()
        if began >= self._due:
            self._keeper.save(state)
            took = time.monotonic() - began
            self._due = began + took + max(_PAUSE, _PAUSE_TIMES * took)

    def load(self) -> Checkpoint | None:
        """The last state that was kept."""
        return self._keeper.load()


def _told(context: Context, trainer: Trainer, plan: Plan) -> None:
    """An epoch is done: how far it is, and the curve so far, thinned out."""
    last = trainer.curve[-1]
    score = next((name for name in last if name.startswith("validation_") and name != "validation_loss"), "")
    said = f"epoch {trainer.epoch} of {plan.epochs}, loss {last['loss']:.4g}"
    if score:
        said += f", {score.replace('_', ' ')} {last[score]:.4f}"
    stride = max(1, -(-len(trainer.curve) // _POINTS))
    curve = [finite(dict(entry)) for entry in trainer.curve[::-stride][::-1]]
    context.on_progress({"phase": "training", "fraction": trainer.epoch / plan.epochs, "message": said, "curve": curve})


def _answer(report: Mapping[str, Any], curve: list[dict[str, str]], assembly: dict[str, Any]) -> dict[str, Any]:
    left_out = ("certificate", "figure", "architecture", "plan", "data")
    told = {name: finite(value) for name, value in report.items() if name not in left_out}
    points = [{name: float(value) for name, value in entry.items()} for entry in curve]
    return {"verdict": "contracting", **told, "curve": finite(points), "assembly": assembly, "weights": None}


def _no_images(jitter: int) -> InputError:
    return InputError("spec.plan.jitter", str(jitter), "0: the data are no images", "unsupported")


def _failed(reason: str, detail: str) -> TrainingFailed:
    expected = {
        "deadline": "more time, or fewer steps in an epoch",
        "memory": "a smaller batch, or keep 0",
        "diverged": "a smaller learning rate",
        "cancelled": "nothing: it was cancelled",
        "not-certified": "nothing you can do: please report it",
    }
    return TrainingFailed("training", detail, expected.get(reason, "another plan"), f"training-{reason}")
