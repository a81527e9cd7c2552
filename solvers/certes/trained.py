"""The folder that a training returns, as files; nothing here needs torch.

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
from pathlib import Path
from typing import Any

from certes.composition.certificates import certified
from certes.composition.description import read
from certes.composition.outcome import Composition
from certes.errors import CertesError, MissingExtraError
from certes.trained_page import FIGURES, page

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


def proven(folder: Path) -> Composition:
    """What is proven of the weights and the description in a folder, as they are read back.

    The description carries the metrics: whoever composes it anew proves what is proven here.

    Raises:
        NotCertified: it is not contracting.
    """
    described = read(folder / DESCRIPTION)
    found = described.compose(mode="interface" if described.assembly.step is None else "whole")
    if found.verdict != "contracting":
        raise NotCertified(found)
    return found


def certify(
    folder: Path,
    found: Composition,
    curve: Sequence[Mapping[str, float]],
    report: Mapping[str, Any],
    key: bytes | None,
    *,
    draw: bool,
) -> tuple[Path, dict[str, Any]]:
    """Write everything that speaks of the weights in a folder; returns the certificate's path and the report.

    Args:
        folder: with weights and description.
        found: what is proven of them.
        curve: one entry per epoch.
        report: what the report says.
        key: an Ed25519 private key (PEM) that signs the certificate.
        draw: whether there is a figure, if matplotlib is installed.
    """
    bundle = certified(found)
    bundle = bundle if key is None else bundle.sign(key)
    path = bundle.write(folder, couplings=False)
    (folder / CURVE).write_text(curve_text(curve))
    whole = dict(report) | {"certificate": bundle.root}
    caption = _draw(folder, curve, whole, found) if draw else None
    whole["figure"] = None if caption is None else FIGURES["light"]
    (folder / PAGE).write_text(page(whole, path.name, _files(path.name, caption is not None), caption))
    (folder / REPORT).write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")
    return path, whole


def curve_text(curve: Sequence[Mapping[str, float]]) -> str:
    """The learning curve as CSV."""
    stream = io.StringIO()
    names = list(curve[0]) if curve else ["epoch"]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dict(entry) for entry in curve)
    return stream.getvalue()


def clear(folder: Path) -> None:
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
