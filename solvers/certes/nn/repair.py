"""``repair``: a network that fails comes back as one that passes and does its task.

1. *Project* the recurrent weights, weighted by the second moment of the observed states: what the network computes
   changes least.
2. *Refit* the readout on the projected network's last states.
3. *Train on* inside the stable set, and keep the weights that are best on data set aside for choosing.

Then the weights are rounded to the dtypes of the file and certified as they stand in the new file. Test data are
measured on and choose nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from certes.engines.monitor import Monitor
from certes.engines.threads import one_blas_thread
from certes.errors import InputError
from certes.nn.checkpoints import Checkpoint, Checkpoints
from certes.nn.networks import Classifier, Dynamics, Parameters
from certes.nn.outcome import Repair, Stopped
from certes.nn.parametrisations import Lure
from certes.nn.readout import refit
from certes.nn.training import Chosen, Settings, Trainer, taken
from certes.projection.base import number_to_reach
from certes.projection.project import project
from certes.projection.settle import certified, settle
from certes.proofs import LureProof, SingularProof
from certes.results import Result
from certes.sequences import DataSet
from certes.spec import SystemSpec
from certes.systems import HopfieldNetwork, RateNetwork, System
from certes.weights import WeightFile, read_weights, rewritten

Array = NDArray[np.float64]

#: Share of the time limit that the projection may use.
_PROJECTING = 0.4
#: Weight of directions that no state showed, relative to the mean of the second moment.
_UNSEEN = 1e-6


def repair(
    network: Classifier,
    data: DataSet,
    *,
    rate: float | None = None,
    seed: int = 0,
    epochs: int = Settings.epochs,
    patience: int = Settings.patience,
    batch: int = Settings.batch,
    learning_rate: float = Settings.learning_rate,
    seconds: float | None = None,
    checkpoint: Path | str | None = None,
    name: str | None = None,
    original: Callable[[], bytes] | None = None,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Repair:
    """Project, refit, train on inside the stable set, certify.

    Args:
        network: the classifier that is to pass.
        data: what it is meant to do.
        rate: the factor per step to reach; None: barely contracting, as :func:`certes.project`.
        seed: of which training data choose, and of their order.
        epochs: of training at most; 0: project and refit only.
        patience: epochs without a better choice after which training ends.
        batch: sequences per step.
        learning_rate: at the start; it falls to 0 over ``epochs``.
        seconds: time limit; the best weights by then are the answer. None: none, and the answer is deterministic for
            given libraries and number of threads.
        checkpoint: a folder that holds the state after each epoch. A run with the folder of one that was interrupted
            goes on from there and ends with the same bits (on a CPU). A state of another question is refused.
        name: name of the new file, for its certificate; None: that of the given one.
        original: gives the bytes of the given file; asked only if it passes as it is: then they are the new file's.
            None: that file is written anew, with the same tensors and possibly another header.
        device: where torch computes (``"cpu"``, ``"cuda:0"``).
        progress: called with a short line of text now and then.
        cancelled: asked now and then whether to stop; the best weights by then are the answer.

    Returns:
        The repair. ``result.verdict`` is ``undecided`` if no weights were certified: never a silent pass.

    Raises:
        InputError: a system that has no stable set to train in, data that do not fit, a number that no weights reach, a
            checkpoint of another question, or a device that is not there.
    """
    settings = Settings(seed, epochs, patience, batch, float(learning_rate))
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InputError("seconds", repr(seconds), "a positive number of seconds, or None", "not-positive")
    data.check(network.features, network.classes)
    number = number_to_reach(network.system, rate)
    files = _Files(name or network.file.name, original)
    work = _Work(network, data, number, settings, _device(device), Monitor(seconds, cancelled, progress), files)
    question = _question(network, data, number, settings, device)
    with one_blas_thread():
        return work.run(None if checkpoint is None else Checkpoints(checkpoint, question))


def _question(network: Classifier, data: DataSet, number: float, settings: Settings, device: str) -> dict[str, Any]:
    """Everything that the weights depend on."""
    spec = SystemSpec.of(network.system).model_dump(mode="json")
    roles = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(network.roles).items()}
    return {
        "weights": network.file.sha256,
        "data": data.digest,
        "system": spec,
        "activation": network.activation,
        "roles": roles,
        "number": number,
        "device": device,
        **vars(settings),
    }


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device, dtype=torch.float64)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(
            "device", f"{name!r} ({reason})", "cpu, or a device that torch has here", "no-device"
        ) from error
    return device


@dataclass(frozen=True)
class _Files:
    """The new file's name, and where the given one's bytes come from."""

    name: str
    original: Callable[[], bytes] | None

    def given(self, file: WeightFile) -> bytes:
        """The given file.

        Raises:
            InputError: it is no longer what it was.
        """
        if self.original is None:
            return rewritten(file, {})
        try:
            data = self.original()
        except OSError as error:
            raise InputError("weights", str(error), "a file that does not change", "file-changed") from error
        if hashlib.sha256(data).hexdigest() != file.sha256:
            given = "other bytes than at first reading"
            raise InputError("weights", given, "a file that does not change", "file-changed")
        return data


@dataclass(frozen=True, eq=False)
class _Start:
    """Where training starts: projected and refitted, and what that came to."""

    parameters: Parameters
    multipliers: Array | None
    condition: str
    before: float
    projected: float
    refitted: float
    choice: float
    distance: float

    def numbers(self) -> dict[str, Any]:
        """Plain JSON values."""
        names = ("condition", "before", "projected", "refitted", "choice", "distance")
        return {name: getattr(self, name) for name in names}

    def arrays(self) -> dict[str, Array]:
        """The rest."""
        found = {f"start.{name}": value for name, value in self.parameters.items()}
        return found if self.multipliers is None else found | {"start.q": self.multipliers}

    @classmethod
    def restored(cls, state: Checkpoint, given: Parameters) -> _Start:
        """Inverse of both; ``given`` has the shapes.

        Raises:
            InputError: something is missing, or does not fit the network.
        """
        try:
            explicit = taken(state.arrays, "start", given)
            return cls(explicit, state.arrays.get("start.q"), **state.numbers["start"])
        except (KeyError, TypeError, ValueError) as error:
            said = f"a state that does not fit this network ({error})"
            raise InputError("checkpoint", said, "an empty folder, to start anew", "damaged-checkpoint") from error


class _Work:
    """One repair."""

    def __init__(
        self,
        network: Classifier,
        data: DataSet,
        number: float,
        settings: Settings,
        device: torch.device,
        monitor: Monitor,
        files: _Files,
    ) -> None:
        assert isinstance(network.system, (RateNetwork, HopfieldNetwork))
        self.network, self.data, self.number, self.settings, self.monitor = network, data, number, settings, monitor
        self.system: RateNetwork | HopfieldNetwork = network.system
        self.files = files
        self.given = network.parameters()
        self.dynamics: Dynamics = network.dynamics(device)
        self.lure = Lure(network.system, number)
        self.train, self.choice = data.parts(settings.seed)

    def run(self, checkpoints: Checkpoints | None) -> Repair:
        """All stages."""
        state = None if checkpoints is None else checkpoints.load()
        start = self._start() if state is None else _Start.restored(state, self.given)
        if isinstance(start, Repair):
            return start
        trainer = self._trainer(start)
        if state is not None:
            trainer.restore(state.numbers.get("training", {}), state.arrays)
        elif checkpoints is not None:
            checkpoints.save(_state(start, trainer))
        stopped = self._train(start, trainer, checkpoints)
        return self._finish(start, trainer, stopped)

    # stages 1 and 2

    def _start(self) -> _Start | Repair:
        """Project and refit; a repair where the projection ends it."""
        monitor, dynamics, test = self.monitor, self.dynamics, self.data.test
        monitor.say("measuring the given network")
        before = dynamics.accuracy(self.given, test)
        monitor.say("projecting the recurrent weights")
        found = project(
            self.system,
            self.lure.condition,
            self.number,
            weighting=self._weighting(),
            seconds=None if monitor.left is None else max(_PROJECTING * monitor.left, 0.01),
            progress=monitor.say,
            cancelled=monitor.cancelled,
        )
        if found.unchanged or found.result.verdict != "contracting" or found.distance is None:
            return self._as_it_is(before, found.result)
        projected = replace(self.given, W=found.system.matrix("W"))
        accuracy = dynamics.accuracy(projected, test)
        monitor.say(f"refitting the readout (projected: accuracy {accuracy:.4f})")
        states = dynamics.last_states(projected, self.train)
        bias = self.network.roles.readout_bias is not None
        V, v = refit(states, self.train.labels, projected.V, projected.v, bias=bias)
        refitted = replace(projected, V=V, v=v)
        return _Start(
            refitted,
            _multipliers(found.result),
            str(found.condition),
            before,
            accuracy,
            dynamics.accuracy(refitted, test),
            dynamics.accuracy(refitted, self.choice),
            found.distance,
        )

    def _weighting(self) -> Array | None:
        """The second moment of what W multiplies; None where it is no number, or nothing moves."""
        moment = self.dynamics.second_moment(self.given, self.train)
        mean = float(np.trace(moment)) / len(moment)
        if not np.isfinite(moment).all() or not mean > 0.0:
            return None
        return np.asarray(moment + _UNSEEN * mean * np.eye(len(moment)))

    def _as_it_is(self, before: float, result: Result) -> Repair:
        """The given file: it passes, or nothing was certified."""
        found = None
        if result.verdict == "contracting":
            found = self._certify(self.given, str(result.condition), _multipliers(result))
        if found is None:
            file = self.network.file
            if result.verdict == "contracting":
                result = Result("undecided", reason="margin", detail="the weights were not certified in their file")
            return Repair(file, None, self.system, {}, result, *self._asked(), accuracy_before=before)
        return Repair(*found, *self._asked(), before, before, before, before, distance=0.0)

    def _asked(self) -> tuple[float | None, float | None]:
        return (self.number, None) if self.system.continuous else (None, self.number)

    # stage 3

    def _trainer(self, start: _Start) -> Trainer:
        fixed = [] if self.network.roles.biases else ["b"]
        fixed += [] if self.network.roles.readout_bias is not None else ["v"]
        return Trainer(
            self.dynamics,
            self.lure,
            start.parameters,
            start.multipliers,
            tuple(fixed),
            self.settings,
            self.train,
            self.choice,
        )

    def _train(self, start: _Start, trainer: Trainer, checkpoints: Checkpoints | None) -> Stopped:
        while not trainer.finished:
            best = start.choice if trainer.chosen is None else max(start.choice, trainer.chosen.accuracy)
            self.monitor.say(
                f"training inside the stable set: epoch {trainer.epoch + 1} of at most {self.settings.epochs}, "
                f"best validation accuracy {best:.4f}"
            )
            why = trainer.advance(lambda: self.monitor.why)
            if why is not None:
                return why
            if checkpoints is not None:
                checkpoints.save(_state(start, trainer))
        return "epochs" if trainer.epoch >= self.settings.epochs else "patience"

    # the answer

    def _finish(self, start: _Start, trainer: Trainer, stopped: Stopped) -> Repair:
        """Certify the chosen weights; where that fails, the refitted network."""
        self.monitor.say("rounding, verifying and certifying")
        refitted = Chosen(start.parameters, np.ones(self.system.size), start.choice, 0)
        chosen = [(refitted, start.condition, start.multipliers)]
        if trainer.chosen is not None and trainer.chosen.accuracy > start.choice:
            chosen.insert(0, (trainer.chosen, self.lure.condition, trainer.chosen.multipliers))
        for best, condition, q in chosen:
            found = self._certify(best.parameters, condition, q)
            if found is not None:
                file, data, system, weights, result = found
                break
        else:
            detail = "no rounding of the repaired weights was certified"
            file, data, system, weights = self.network.file, None, self.system, {}
            result, best = Result("undecided", reason="margin", detail=detail), refitted
        return Repair(
            file,
            data,
            system,
            weights,
            result,
            *self._asked(),
            start.before,
            start.projected,
            start.refitted,
            None if data is None else self._measure(file, system),
            best.accuracy,
            start.distance,
            trainer.epoch,
            best.epoch,
            tuple(trainer.curve),
            stopped,
        )

    def _certify(
        self, parameters: Parameters, condition: str, q: Array | None
    ) -> tuple[WeightFile, bytes, System, dict[str, Array], Result] | None:
        """Round the weights, and certify the recurrent ones as they stand in the new file."""
        settled = settle(self.system, parameters.W, self.number, condition, q)
        if settled is None:
            return None
        weights = self.network.tensors(replace(parameters, W=settled.system.matrix("W")))
        # an accuracy that the file states is that of the network it was
        said = {key: text for key, text in self.network.file.metadata.items() if "accuracy" not in key}
        data = self.files.given(self.network.file) if not weights else rewritten(self.network.file, weights, said)
        file = read_weights(data, name=self.files.name)
        system = SystemSpec.of(self.system).system(file)
        assert isinstance(system, System)
        inquiry = certified(system, self.number, condition, q, Monitor())
        return None if inquiry is None else (file, data, system, weights, inquiry.contracting())

    def _measure(self, file: WeightFile, system: System) -> float:
        exported = Classifier.of(file, system, self.network.roles, self.network.activation)
        return self.dynamics.accuracy(exported.parameters(), self.data.test)


def _state(start: _Start, trainer: Trainer) -> Checkpoint:
    numbers = {"start": start.numbers(), "training": trainer.numbers()}
    return Checkpoint(numbers, start.arrays() | trainer.arrays())


def _multipliers(result: Result) -> Array | None:
    """The q of a proof that has some; shape (n,)."""
    proof = None if result.certificate is None else result.certificate.array_proof
    if isinstance(proof, LureProof):
        return np.array(proof.multipliers)
    return np.array(proof.q) if isinstance(proof, SingularProof) else None
