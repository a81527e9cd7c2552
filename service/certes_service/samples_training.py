"""The worked example of ``POST /v1/trainings``. A test posts the request and compares the answer."""

from __future__ import annotations

from typing import Any

from certes_service.samples_assembly import ASSEMBLY

#: Sequences of which the last step says the class.
_UP, _DOWN = [[0.0], [0.0], [1.0]], [[0.0], [1.0], [-1.0]]
TRAINING_REQUEST: dict[str, Any] = {
    "spec": {
        "architecture": {"kind": "singular", "modules": [2, 2], "step": 0.5},
        "plan": {"epochs": 2, "batch": 4, "seed": 1},
    },
    "tensors": {
        "inputs": [_UP, _DOWN, _UP, _DOWN, _UP, _DOWN, _UP, _DOWN],
        "labels": {"dtype": "I32", "shape": [8], "data": "AAAAAAEAAAAAAAAAAQAAAAAAAAABAAAAAAAAAAEAAAA="},
    },
}
TRAINING: dict[str, Any] = {
    "verdict": "contracting",
    "task": "classification",
    "test_accuracy": 0.0,
    "test_loss": 1.1175507307052612,
    "validation_accuracy": 1.0,
    "validation_loss": 0.5775146484375,
    "epoch": 2,
    "epochs": 2,
    "ended": "finished",
    "notes": [],
    "guarantee": "euler",
    "rate": None,
    "factor": 0.5711387436294837,
    "gate": None,
    "largest_step": 1.0,
    "states": 4,
    "modules": 2,
    "couplings": 1,
    "parameters": 34,
    "curve": [
        {"epoch": 1.0, "loss": 0.7971542358398438, "validation_loss": 0.5795031785964966, "validation_accuracy": 1.0},
        {"epoch": 2.0, "loss": 0.7926875114440918, "validation_loss": 0.5775146484375, "validation_accuracy": 1.0},
    ],
    "assembly": {
        "file": "weights.safetensors",
        "modules": {
            "m0": {
                "form": "hopfield",
                "tensors": {"W": "m0.W"},
                "activation": "relu",
                "tau": [2.0, 2.0],
                "metric": [1.9843882, 2.0189576],
            },
            "m1": {
                "form": "hopfield",
                "tensors": {"W": "m1.W"},
                "activation": "relu",
                "tau": [2.0, 2.0],
                "metric": [2.0104935, 1.9808762],
            },
        },
        "couplings": [{"to": "m0", "from": "m1", "tensor": "m0<-m1"}, {"to": "m1", "from": "m0", "tensor": "m1<-m0"}],
        "step": 1.0,
        "mode": "whole",
    },
    "weights": ASSEMBLY["couplings"],
    "certificate": ASSEMBLY["certificate"],
    "cached": False,
}
