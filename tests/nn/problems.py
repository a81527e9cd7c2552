"""Small networks and data with known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from certes.nn import Classifier, DataSet
from certes.spec import SystemSpec
from certes.systems import System
from certes.weights import WeightFile, read_weights, to_bytes

MODELS = Path(__file__).parents[2] / "examples" / "models"
MNIST = "mnist-rows:" + str(Path(__file__).parents[2] / "examples" / "data" / "mnist")
LEAKY = {"form": "rate", "tensors": {"W": "rec.weight"}, "activation": "tanh", "step": 0.5}
TORCH = {"form": "torch-rnn", "activation": "tanh"}


def system_of(file: WeightFile, spec: dict[str, Any]) -> System:
    found = SystemSpec.parse(spec).system(file)
    assert isinstance(found, System)
    return found


def model(name: str, spec: dict[str, Any]) -> Classifier:
    file = read_weights(MODELS / f"{name}.safetensors")
    return Classifier.of(file, system_of(file, spec))


def arrays(
    n: int = 6, features: int = 2, classes: int = 2, gain: float = 3.0, seed: int = 0, dtype: Any = np.float32
) -> dict[str, Any]:
    """A random network; far from contracting for gain 3."""
    rng = np.random.default_rng(seed)
    found = {
        "rec.weight": gain * rng.standard_normal((n, n)) / np.sqrt(n),
        "inp.weight": rng.standard_normal((n, features)),
        "inp.bias": 0.1 * rng.standard_normal(n),
        "readout.weight": rng.standard_normal((classes, n)) / np.sqrt(n),
        "readout.bias": np.zeros(classes),
        "other": np.arange(3.0),
    }
    return {name: value.astype(dtype) for name, value in found.items()}


def classifier(spec: dict[str, Any] | None = None, **options: Any) -> Classifier:
    file = read_weights(to_bytes(arrays(**options), {"note": "kept"}), name="net.safetensors")
    return Classifier.of(file, system_of(file, spec or LEAKY))


def sequences(count: int = 120, steps: int = 5, features: int = 2, seed: int = 0) -> tuple[Any, Any]:
    """Which of two channels has the larger sum: a task that a stable network can learn."""
    inputs = np.random.default_rng(seed).standard_normal((count, steps, features)).astype(np.float32)
    total = inputs.sum(axis=1)
    return inputs, (total[:, 0] > total[:, -1]).astype(np.int64)


def data_set(**options: Any) -> DataSet:
    return DataSet.of(*sequences(**options))
