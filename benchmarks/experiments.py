"""What training comes to: test accuracy of certified assemblies, mean of three seeds. `make experiments`.

Every network is trained by `certes.nn.train` as it stands and certified for the guarantee in its row; a network without
a certificate ends the run. The epoch is chosen by a part of the training data. Writes the tables in docs/training.md.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from certes.certificate.assembly_check import verify_assembly
from certes.nn.train import train
from certes.sequences import read_data
from certes.trainings import Architecture, Plan

from benchmarks import report

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "examples" / "data"


@dataclass(frozen=True)
class Experiment:
    """One row: data, what is trained, how, and what was hoped for."""

    name: str
    data: str
    architecture: dict[str, Any]
    plan: dict[str, Any] = field(default_factory=dict)
    floor: float | None = None
    aim: float | None = None
    keep: int = 1


VOWELS = f"japanese-vowels:{DATA / 'japanese-vowels'}"
_SMALL = {"kind": "singular", "modules": [32] * 4, "step": [0.02, 0.3], "level": 0.5}
ROWS = f"mnist-rows:{DATA / 'mnist'}"
_ROWS = {"kind": "singular", "modules": [64] * 4, "step": [0.05, 0.5], "level": 0.9}
_LONG = {
    "epochs": 80, "batch": 128, "learning_rate": 1e-2, "weight_decay": 1e-2, "validation": 0.1, "jitter": 2
}  # fmt: skip
PIXELS = f"mnist-pixels:{DATA / 'mnist'}"
_PIXELS = {"kind": "cascade", "form": "rate", "modules": [672, 64], "step": 1.0, "level": 0.5}
_SHORT = _LONG | {"epochs": 20, "learning_rate": 5e-3}
_HALF, _SHORTER = {"modules": [672, 32]}, _SHORT | {"epochs": 10}
EXPERIMENTS = {
    "vowels": [
        Experiment("JapaneseVowels, singular 4x32", VOWELS, _SMALL, {}, 0.970, 0.980),
        Experiment("JapaneseVowels, AdaDiag 4x32", VOWELS, _SMALL | {"kind": "adadiag"}, {}, 0.970, 0.980),
        Experiment("JapaneseVowels, SVD combo 4x32", VOWELS, _SMALL | {"kind": "svd"}, {}, 0.970, 0.980),
        Experiment("JapaneseVowels, sparse combo 4x32", VOWELS, _SMALL | {"kind": "sparse"}, {}, 0.970, 0.980),
        Experiment("JapaneseVowels, workspace 4x32", VOWELS, _SMALL | {"kind": "workspace"}, {}, 0.970, 0.980),
        Experiment("JapaneseVowels, singular 4x32, continuous time only", VOWELS, _SMALL | {"guarantee": "continuous"}),
    ],
    "rows": [
        Experiment("MNIST rows, singular 4x64", ROWS, _ROWS, _LONG, 0.93, 0.97),
        Experiment("MNIST rows, singular 4x64, continuous time only", ROWS, _ROWS | {"guarantee": "continuous"}, _LONG),
    ],
    "pixels": [
        Experiment("MNIST pixels, cascade 672+64", PIXELS, _PIXELS, _SHORT, aim=0.93),
        Experiment("MNIST pixels, cascade 672+32, half the epochs", PIXELS, _PIXELS | _HALF, _SHORTER, aim=0.93),
        Experiment(
            "MNIST pixels, cascade 672+32, half the epochs, continuous time only",
            PIXELS,
            _PIXELS | _HALF | {"guarantee": "continuous"},
            _SHORTER,
        ),
    ],
}


def run(experiment: Experiment, seeds: int) -> list[str]:
    """Train with each seed; the cells of a row."""
    data = read_data(experiment.data)
    accuracy, factors, took = [], [], []
    parameters = 0
    for seed in range(seeds):
        folder = Path(tempfile.mkdtemp(prefix="certes-experiment-"))
        try:
            began = time.perf_counter()
            plan = Plan.parse(experiment.plan | {"seed": seed})
            made = train(Architecture.parse(experiment.architecture), data, plan, folder, keep=experiment.keep)
            took.append(time.perf_counter() - began)
            if not verify_assembly(made.certificate, folder).valid:
                raise AssertionError(f"{experiment.name}, seed {seed}: the certificate does not hold")
            accuracy.append(float(made.report["test_accuracy"]))
            level = made.report["factor"] if made.report["factor"] is not None else made.report["rate"]
            factors.append(float(level))
            parameters = made.report["parameters"]
            print(f"{experiment.name}, seed {seed}: {accuracy[-1]:.4f}, {level:.4f}", file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(folder)
    mean = statistics.fmean(accuracy)
    euler = experiment.architecture.get("guarantee", "euler") == "euler"
    outcome = "-" if experiment.aim is None else (
        "aim met" if mean >= experiment.aim else "floor met" if mean >= (experiment.floor or 1.0) else "missed"
    )  # fmt: skip
    spread = f"{min(accuracy):.4f} to {max(accuracy):.4f}"
    worst = f"factor {max(factors):.4f}" if euler else f"rate {min(factors):.4f}"
    floor = "-" if experiment.floor is None else f"{experiment.floor:g}"
    aim = "" if experiment.aim is None else f"{floor} / {experiment.aim:g}"
    cells = [experiment.name, f"{mean:.4f} ({spread})", aim, outcome, worst, str(parameters)]
    return [*cells, f"{statistics.fmean(took):.0f} s"]


def main() -> int:
    """Run the experiments named (default: all), and write their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(EXPERIMENTS)} (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="fewer or more than three write no table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    heads = ["network", "test accuracy", "floor / aim", "outcome", "certified, the worst", "parameters", "training"]
    for name in options.names or EXPERIMENTS:
        rows = [run(one, options.seeds) for one in EXPERIMENTS[name]]
        lines = ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]
        text = "\n".join([*lines, "", f"Machine: {report.machine_line(report.machine())}"])
        print(text)
        if options.seeds == 3:
            report.write_markdown(ROOT / "docs" / "training.md", name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
