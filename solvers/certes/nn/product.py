"""What a training returns: a folder with weights, their certificate, the learning curve and a report; or no folder.

weights.safetensors     every tensor of the network, float32, and what its inputs are standardised by
assembly.json           modules and couplings, as ``certes compose`` reads them
DIGEST.assembly.json    the certificate of the whole, and those of its modules with their proofs beside it
curve.csv               epoch, loss, validation loss and accuracy
report.json             accuracy on test data, parameters, certified rate or factor, and how it was made
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from certes.composition.certificates import certified
from certes.composition.compose import compose
from certes.composition.description import read
from certes.composition.outcome import Composition
from certes.errors import CertesError, InputError
from certes.nn.assembly import Assembly
from certes.systems import HopfieldNetwork, RateNetwork
from certes.weights import write_weights

WEIGHTS, DESCRIPTION, CURVE, REPORT = "weights.safetensors", "assembly.json", "curve.csv", "report.json"


class NotCertified(CertesError):
    """The trained network was not certified: a defect, as it is stable by construction up to rounding.

    Attributes:
        composition: what was found.
    """

    def __init__(self, composition: Composition) -> None:
        super().__init__(f"the trained network is {composition.verdict}: {composition.reason}: {composition.detail}")
        self.composition = composition


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
) -> Product:
    """Export, certify and write.

    Args:
        network: the trained network.
        folder: made if missing.
        curve: one entry per epoch.
        report: what else the report says.
        key: an Ed25519 private key (PEM) that signs the certificate.

    Raises:
        NotCertified: nothing but weights and description is left in the folder then.
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(folder / WEIGHTS, tensors(network))
        (folder / DESCRIPTION).write_text(json.dumps(description(network), indent=1) + "\n")
        assembly = read(folder / DESCRIPTION).assembly
        found = compose(assembly, mode="interface" if assembly.continuous else "whole", metrics=network.metrics())
        if found.verdict != "contracting":
            raise NotCertified(found)
        bundle = certified(found)
        bundle = bundle if key is None else bundle.sign(key)
        path = bundle.write(folder, couplings=False)
        (folder / CURVE).write_text(curve_text(curve))
        whole = dict(report) | facts(network, found) | {"certificate": bundle.root}
        (folder / REPORT).write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        given = f"{folder}: {error.strerror or error}"
        raise InputError("out", given, "a folder that can be written", "unwritable") from error
    return Product(folder, path, bundle.root, whole, found)


def tensors(network: Assembly) -> dict[str, Any]:
    """Every tensor of the network by name, float32."""
    assembly = network.system()
    found: dict[str, Any] = {}
    for name, leaf in assembly.leaves():
        assert isinstance(leaf, HopfieldNetwork | RateNetwork)
        found[f"{name}.W"] = leaf.matrix("W").astype(np.float32)
    found |= {edge.name: edge.matrix.astype(np.float32) for edge in assembly.couplings}
    found |= {"input.weight": network.input.weight, "input.bias": network.input.bias}
    found |= {"input.shift": network.shift, "input.scale": network.scale}
    if network.readout is not None:
        found |= {"readout.weight": network.readout.weight, "readout.bias": network.readout.bias}
    return {
        name: value.detach().float().cpu().numpy() if isinstance(value, torch.Tensor) else value
        for name, value in found.items()
    }


def description(network: Assembly) -> dict[str, Any]:
    """The network as ``certes compose`` reads it."""
    assembly = network.system()
    modules = {}
    for name, leaf in assembly.leaves():
        assert isinstance(leaf, HopfieldNetwork | RateNetwork)
        tau = [float(value) for value in np.asarray(leaf.tau)]
        modules[name] = {
            "form": network.form, "tensors": {"W": f"{name}.W"}, "activation": network.activation, "tau": tau
        }  # fmt: skip
    edges = [{"to": edge.to, "from": edge.source, "tensor": edge.name} for edge in assembly.couplings]
    found: dict[str, Any] = {"file": WEIGHTS, "modules": modules, "couplings": edges}
    return found if assembly.step is None else found | {"step": assembly.step, "mode": "whole"}


def facts(network: Assembly, found: Composition) -> dict[str, Any]:
    """What is certified of the network, and how large it is."""
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    step = found.largest_step
    return {
        "guarantee": network.guarantee,
        "rate": found.rate,
        "factor": found.factor,
        "largest_step": None if step is None else step[0],
        "states": network.size,
        "modules": len(network.sizes),
        "couplings": len(network.skew.pairs),
        "parameters": trained,
    }


def curve_text(curve: Sequence[Mapping[str, float]]) -> str:
    """The learning curve as CSV."""
    stream = io.StringIO()
    names = list(curve[0]) if curve else ["epoch"]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dict(entry) for entry in curve)
    return stream.getvalue()
