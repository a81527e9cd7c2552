"""What a training returns: a folder with weights, their certificate, the learning curve and a report; or no folder.

What is in it stands in :mod:`certes.trained`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from certes.assemblies import Coupling
from certes.composition.outcome import Composition
from certes.errors import InputError
from certes.nn.assembly import STEP, Assembly
from certes.systems import HopfieldNetwork, RateNetwork
from certes.trained import CURVE, DESCRIPTION, PAGE, REPORT, WEIGHTS, NotCertified, certify, clear, proven
from certes.weights import write_weights

__all__ = ["CURVE", "DESCRIPTION", "PAGE", "REPORT", "WEIGHTS", "NotCertified", "Product", "write"]


@dataclass(frozen=True)
class Product:
    """A finished training.

    Attributes:
        folder: where everything is.
        certificate: path of the certificate of the whole.
        digest: its name.
        report: what ``report.json`` says.
        composition: what was proven.
    """

    folder: Path
    certificate: Path
    digest: str
    report: dict[str, Any]
    composition: Composition


def write(
    network: Assembly,
    folder: Path,
    curve: Sequence[Mapping[str, float]],
    report: Mapping[str, Any],
    key: bytes | None = None,
    *,
    draw: bool = True,
) -> Product:
    """Export, certify and write; an earlier result in the folder makes way first: nothing speaks of other weights.

    Args:
        network: the trained network.
        folder: made if missing.
        curve: one entry per epoch.
        report: what else the report says.
        key: an Ed25519 private key (PEM) that signs the certificate.
        draw: whether there is a figure, if matplotlib is installed.

    Raises:
        NotCertified: nothing but weights and description is left in the folder then.
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clear(folder)
        write_weights(folder / WEIGHTS, tensors(network))
        (folder / DESCRIPTION).write_text(json.dumps(description(network), indent=1) + "\n")
        found = proven(folder)
        path, whole = certify(folder, found, curve, dict(report) | facts(network, found), key, draw=draw)
    except OSError as error:
        given = f"{folder}: {error.strerror or error}"
        raise InputError("out", given, "a folder that can be written", "unwritable") from error
    return Product(folder, path, whole["certificate"], whole, found)


def tensors(network: Assembly) -> dict[str, Any]:
    """Every tensor of the network by name, float32."""
    assembly = network.system()
    found: dict[str, Any] = {}
    for name, leaf in assembly.leaves():
        assert isinstance(leaf, HopfieldNetwork | RateNetwork)
        found[f"{name}.W"] = leaf.matrix("W").astype(np.float32)
    found |= {_tensor(edge): edge.matrix.astype(np.float32) for edge in assembly.couplings}
    found |= dict(zip(("input.weight", "input.bias"), network.entry(), strict=True))
    found |= {"input.shift": network.shift, "input.scale": network.scale}
    if network.readout is not None:
        found |= {"readout.weight": network.readout.weight, "readout.bias": network.readout.bias}
    if network.gate is not None:
        found |= {"gate.weight": network.gate.weight, "gate.bias": network.gate.bias}
    return {
        name: value.detach().float().cpu().numpy() if isinstance(value, torch.Tensor) else value
        for name, value in found.items()
    }


def description(network: Assembly) -> dict[str, Any]:
    """The network as ``certes compose`` reads it, with the metrics in which it contracts."""
    assembly, metrics = network.system(), network.metrics()
    modules = {}
    for name, leaf in assembly.leaves():
        assert isinstance(leaf, HopfieldNetwork | RateNetwork)
        tau = [float(value) for value in np.asarray(leaf.tau)]
        assert leaf.slope.activation is not None
        modules[name] = {
            "form": network.form, "tensors": {"W": f"{name}.W"}, "activation": leaf.slope.activation.name, "tau": tau,
            "metric": _plain(metrics[name]),
        } | ({} if leaf.step is None else {"step": leaf.step})  # fmt: skip
    edges = [
        {"to": edge.to, "from": edge.source, "tensor": _tensor(edge)} | ({"inside": True} if edge.inside else {})
        for edge in assembly.couplings
    ]
    found: dict[str, Any] = {"file": WEIGHTS, "modules": modules, "couplings": edges}
    if network.input_gate is not None:
        found["gate"] = {"least": network.input_gate.least, "weight": "gate.weight", "bias": "gate.bias"}
    return found if assembly.step is None else found | {"step": assembly.step, "mode": "whole"}


def _tensor(edge: Coupling) -> str:
    """The name of a coupling's tensor in the file."""
    return f"{edge.to}<-{edge.source}"


def _plain(metric: NDArray[np.float64]) -> list[Any]:
    """The diagonal of a metric that has nothing else, or its rows."""
    diagonal = np.diag(metric)
    return list((diagonal if np.array_equal(metric, np.diag(diagonal)) else metric).tolist())


def facts(network: Assembly, found: Composition) -> dict[str, Any]:
    """What is certified of the network, and how large it is; ``largest_step`` in units of the one that was trained.

    It says that every Euler step up to it contracts, and nothing of larger ones. ``rate`` and ``factor`` are those of
    the certificate; what follows for the network with its gate stands in ``gate``.
    """
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    # A step h' < h averages the identity and the map at h, which contracts in the same metric: every smaller one does.
    # Larger ones are not tried here: a search of them takes many times as long as the proof.
    step = (STEP, found.factor) if found.factor is not None else found.largest_step
    return {
        "guarantee": network.guarantee,
        "rate": found.rate,
        "factor": found.factor,
        "gate": found.gated,
        "largest_step": None if step is None else step[0],
        "states": network.size,
        "modules": len(network.sizes),
        "couplings": len(network.pairs),
        "parameters": trained,
    }
