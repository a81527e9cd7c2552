"""What a training returns: a folder with weights, their certificate, the learning curve and a report; or no folder.

weights.safetensors     every tensor of the network, float32, and what its inputs are standardised by
assembly.json           modules and couplings, as ``certes compose`` reads them
DIGEST.assembly.json    the certificate of the whole, and those of its modules with their proofs beside it
curve.csv               epoch, loss, validation loss, and accuracy or root mean square error
report.svg              the curve beside the assembly (extra ``figures``); report-dark.svg: on a dark page
report.html             the report for people
report.json             accuracy or error on test data, parameters, certified rate or factor, and how it was made
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from certes.composition.certificates import certified
from certes.composition.description import read
from certes.composition.outcome import Composition
from certes.errors import CertesError, InputError, MissingExtraError
from certes.nn.assembly import STEP, Assembly
from certes.nn.page import FIGURES, page
from certes.systems import HopfieldNetwork, RateNetwork
from certes.weights import write_weights

WEIGHTS, DESCRIPTION, CURVE, REPORT = "weights.safetensors", "assembly.json", "curve.csv", "report.json"
PAGE = "report.html"


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
        _clear(folder)
        write_weights(folder / WEIGHTS, tensors(network))
        (folder / DESCRIPTION).write_text(json.dumps(description(network), indent=1) + "\n")
        described = read(folder / DESCRIPTION)  # with its metrics: whoever composes it anew proves what is proven here
        found = described.compose(mode="interface" if described.assembly.continuous else "whole")
        if found.verdict != "contracting":
            raise NotCertified(found)
        bundle = certified(found)
        bundle = bundle if key is None else bundle.sign(key)
        path = bundle.write(folder, couplings=False)
        (folder / CURVE).write_text(curve_text(curve))
        whole = dict(report) | facts(network, found) | {"certificate": bundle.root}
        caption = _draw(folder, curve, whole, found) if draw else None
        whole["figure"] = None if caption is None else FIGURES["light"]
        (folder / PAGE).write_text(page(whole, path.name, _files(path.name, caption is not None), caption))
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
    """The network as ``certes compose`` reads it, with the metrics in which it contracts."""
    assembly, metrics = network.system(), network.metrics()
    modules = {}
    for name, leaf in assembly.leaves():
        assert isinstance(leaf, HopfieldNetwork | RateNetwork)
        tau = [float(value) for value in np.asarray(leaf.tau)]
        modules[name] = {
            "form": network.form, "tensors": {"W": f"{name}.W"}, "activation": network.activation, "tau": tau,
            "metric": _plain(metrics[name]),
        }  # fmt: skip
    edges = [{"to": edge.to, "from": edge.source, "tensor": edge.name} for edge in assembly.couplings]
    found: dict[str, Any] = {"file": WEIGHTS, "modules": modules, "couplings": edges}
    return found if assembly.step is None else found | {"step": assembly.step, "mode": "whole"}


def _plain(metric: NDArray[np.float64]) -> list[Any]:
    """The diagonal of a metric that has nothing else, or its rows."""
    diagonal = np.diag(metric)
    return list((diagonal if np.array_equal(metric, np.diag(diagonal)) else metric).tolist())


def facts(network: Assembly, found: Composition) -> dict[str, Any]:
    """What is certified of the network, and how large it is; ``largest_step`` in units of the one that was trained.

    It says that every Euler step up to it contracts, and nothing of larger ones.
    """
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    # A step h' < h averages the identity and the map at h, which contracts in the same metric: every smaller one does.
    # Larger ones are not tried here: a search of them takes many times as long as the proof.
    step = (STEP, found.factor) if found.factor is not None else found.largest_step
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


def _clear(folder: Path) -> None:
    """Remove what speaks of an earlier result; certificates of modules may be those of the next one, and can stay."""
    try:
        known = json.loads((folder / REPORT).read_text())["certificate"]
    except (OSError, ValueError, KeyError, TypeError):
        known = ""
    old = [f"{known}.assembly.json"] if isinstance(known, str) and re.fullmatch("[0-9a-f]{64}", known) else []
    for name in (REPORT, PAGE, CURVE, *FIGURES.values(), *old):
        (folder / name).unlink(missing_ok=True)


def _draw(folder: Path, curve: Sequence[Mapping[str, float]], report: dict[str, Any], found: Composition) -> str | None:
    """Draw the figure; its caption. Without matplotlib the report gets a note."""
    from certes.composition.picture import picture
    from certes.figure.drawing import Theme
    from certes.figure.training import TrainingPicture, render_training

    tested = report.get("test_accuracy", report.get("test_rmse"))
    graph = picture(found) if len(found.assembly.modules) > 1 else None
    shown = TrainingPicture(curve, int(report["epoch"]), tested, graph)
    try:
        themes: tuple[Theme, ...] = ("light", "dark")
        for theme in themes:
            (folder / FIGURES[theme]).write_bytes(render_training(shown, "svg", theme))
    except MissingExtraError as error:
        report["notes"] = [*report["notes"], f"no figure: {error}"]
        return None
    return shown.caption


def _files(certificate: str, figure: bool) -> dict[str, str]:
    found = {
        WEIGHTS: "every tensor, float32, and what inputs are standardised by",
        DESCRIPTION: "modules and couplings, as certes compose reads them",
        certificate: "the certificate of the whole; those of its modules and their proofs are beside it",
        CURVE: "the learning curve",
        REPORT: "this page, for programs",
    }
    return found | ({", ".join(FIGURES.values()): "the figure"} if figure else {})
