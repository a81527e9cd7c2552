"""What ``repair`` answers: the new weights with their certificate, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from certes.results import Result
from certes.systems import System
from certes.weights import WeightFile

Array = NDArray[np.float64]
Stopped = Literal["not-needed", "epochs", "patience", "deadline", "cancelled", "diverged"]


@dataclass(frozen=True, eq=False)
class Repair:
    """A repaired network, and what it cost.

    Attributes:
        file: the new weight file (its :attr:`data` are the bytes to write); the given one where nothing was certified.
        data: its bytes, or None where nothing was certified.
        system: the recurrent part of ``file``.
        weights: name -> values of every tensor that changed, rounded to the dtype of the file, as float64.
        result: the answer about ``system``; ``contracting``, or ``undecided`` with the reason.
        rate, factor: what was asked for, whichever fits.
        accuracy_before: of the given network, on the test data, as all but ``validation_accuracy``.
        accuracy_projected: with the recurrent weights projected, nothing else changed.
        accuracy_refitted: with the readout refitted as well.
        accuracy: of the weights of ``file``, rounded as they are.
        validation_accuracy: of the chosen weights on the data that choose.
        distance: of the projection, in the weighted norm.
        epochs: of training that were run, over all runs of one checkpoint.
        best_epoch: after which the chosen weights came; 0: training found nothing better than the refitted readout.
        curve: one entry per epoch: ``epoch``, ``loss``, ``validation_accuracy``.
        stopped: why training ended; ``not-needed``: the given network passes as it is and comes back bit for bit.
    """

    file: WeightFile
    data: bytes | None
    system: System
    weights: Mapping[str, Array]
    result: Result
    rate: float | None
    factor: float | None
    accuracy_before: float
    accuracy_projected: float | None = None
    accuracy_refitted: float | None = None
    accuracy: float | None = None
    validation_accuracy: float | None = None
    distance: float | None = None
    epochs: int = 0
    best_epoch: int = 0
    curve: tuple[Mapping[str, float], ...] = ()
    stopped: Stopped = "not-needed"

    @property
    def unchanged(self) -> bool:
        """The given network passes as it is."""
        return self.data is not None and not self.weights

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values under the Python names, without the weights; the result as :meth:`Result.to_json`."""
        names = (
            "rate", "factor", "accuracy_before", "accuracy_projected", "accuracy_refitted", "accuracy",
            "validation_accuracy", "distance", "epochs", "best_epoch", "stopped", "unchanged",
        )  # fmt: skip
        plain = {name: getattr(self, name) for name in names}
        plain |= {"changed": list(self.weights), "curve": [dict(entry) for entry in self.curve]}
        return plain | {"result": self.result.to_json()}
