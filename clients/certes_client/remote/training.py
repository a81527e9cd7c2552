"""What ``certes train --server`` does: the service trains; what it made is proven here, from its weights alone."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certes import trained, uploads, words
from certes.composition.outcome import Composition
from certes.errors import CertesError, InputError
from certes.sequences import read_data
from certes.systems import HopfieldNetwork, RateNetwork
from certes.trainings import Architecture, Plan

from certes_client.remote.answers import TrainingAnswer
from certes_client.remote.errors import BadAnswer, ServiceError, Untrusted
from certes_client.remote.option import connected, told

_FAILED = "training-"
#: What a report says that nobody can prove: how well the network does, and how it was made.
_SCORES = tuple(f"{on}_{name}" for on in ("test", "validation") for name in ("accuracy", "rmse", "r2", "loss"))


class NotTrained(CertesError):
    """The service came to no certified network, and says why."""


@dataclass(frozen=True)
class Made:
    """A training whose result is in a folder.

    Attributes:
        folder: where everything is.
        certificate: path of the certificate of the whole.
        report: what ``report.json`` says.
    """

    folder: Path
    certificate: Path
    report: dict[str, Any]


def train(
    url: str,
    data: str,
    architecture: Architecture,
    plan: Plan,
    out: Path,
    key: bytes | None,
    more: Mapping[str, Any],
    progress: Callable[[str], None],
) -> Made:
    """Let a service train, and fill the folder that a training here would have filled.

    Args:
        url: the service.
        data: as :func:`certes.sequences.read_data` takes it, of files that can be sent.
        architecture: what is trained.
        plan: how.
        out: folder of the result.
        key: Ed25519 private key (PEM) that signs the certificate.
        more: seconds, keep, and what only a training here can have: checkpoint, device.
        progress: told how far it is.

    Raises:
        InputError: naming what cannot be. NotTrained: no result. RemoteError: no answer, or one that does not hold.
    """
    files, order = _files(data, more)
    digest = read_data(data).digest
    spec: dict[str, Any] = {"architecture": architecture.model_dump(mode="json"), "plan": dict(vars(plan))}
    spec |= {"keep": more.get("keep", 1)} | ({} if more.get("seconds") is None else {"seconds": more["seconds"]})
    spec |= {} if order is None else {"order": order}
    _folder(out)
    with connected(url) as client, tempfile.TemporaryDirectory(dir=out, prefix=".part-") as name:
        draft = Path(name)
        progress("asking the service")
        try:
            found = client.train(spec, files.pop("data"), others=files, progress=told(progress))
        except ServiceError as error:
            if not error.slug.startswith(_FAILED):
                raise
            raise NotTrained(words.printable(str(error.problem.get("given") or error), 1000)) from error
        if found.digest is None:
            raise Untrusted("the service says that it has trained a network, and has no certificate for it")
        progress("fetching the weights")
        client.save_weights(found.digest, draft / trained.WEIGHTS)
        progress("verifying what it made")
        composition = _proven(draft, found, architecture)
        report, curve = _report(found), _curve(found)
        trained.clear(out)
        for part in (trained.WEIGHTS, trained.DESCRIPTION):
            (draft / part).replace(out / part)
    question = {"architecture": spec["architecture"], "plan": spec["plan"], "data": digest}
    report |= question | _facts(found, composition, architecture)
    path, whole = trained.certify(out, composition, curve, report, key, draw=True)
    return Made(out, path, whole)


def _files(data: str, more: Mapping[str, Any]) -> tuple[dict[str, Path], str | None]:
    """The files that are sent, by part, and the order of pixels, where there are any.

    Raises:
        InputError: something that only a training here can have.
    """
    for option, usual in (("checkpoint", None), ("device", "cpu")):
        if more.get(option) not in (usual, None):
            expected = "none with --server: the service has its own"
            raise InputError(f"--{option}", str(more[option]), expected, "conflict")
    return uploads.parts(data)


def _folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        given = f"{out}: {error.strerror}"
        raise InputError("out", given, "a folder that can be written", "unwritable") from error


def _proven(draft: Path, found: TrainingAnswer, architecture: Architecture) -> Composition:
    """What is proven of the weights that came, as the description says that they are run.

    Raises:
        Untrusted: nothing, or of another network than the one that was asked for.
    """
    try:
        (draft / trained.DESCRIPTION).write_text(json.dumps(dict(found.assembly), indent=1, allow_nan=False) + "\n")
        composition = trained.proven(draft)
    except trained.NotCertified as error:
        raise Untrusted(f"the service says that its network is certified, and it is not: {error}") from error
    except (InputError, ValueError) as error:
        raise Untrusted(f"the service sent a network that cannot be read: {error}") from error
    leaves = [leaf for _, leaf in composition.assembly.leaves()]
    if sorted(leaf.size for leaf in leaves) != sorted(_sizes(architecture)) or not all(
        isinstance(leaf, HopfieldNetwork | RateNetwork)
        and leaf.form == architecture.form
        and leaf.slope.activation is not None
        and leaf.slope.activation.name == _activation(architecture)
        for leaf in leaves
    ):
        raise Untrusted("the service trained another network than the one that was asked for")
    if (composition.assembly.step is not None) != (architecture.guarantee == "euler"):
        raise Untrusted(f"the service was asked for the guarantee {architecture.guarantee}, and sent the other")
    least = None if composition.gate is None else composition.gate.least
    if least != architecture.gate:
        raise Untrusted(f"the service was asked for the gate {architecture.gate}, and sent {least}")
    return composition


def _sizes(architecture: Architecture) -> tuple[int, ...]:
    return tuple(architecture.modules)


def _activation(architecture: Architecture) -> str:
    from certes.activations import activation

    return activation(architecture.activation).name


def _facts(found: TrainingAnswer, composition: Composition, architecture: Architecture) -> dict[str, Any]:
    """What is certified, as it was proven here; the rest is the service's word."""
    assembly = composition.assembly
    largest = None if composition.largest_step is None else composition.largest_step[0]
    if composition.factor is not None:  # every step up to the trained one, see certes.nn.product.facts
        largest = assembly.step
    return {
        "guarantee": architecture.guarantee,
        "rate": composition.rate,
        "factor": composition.factor,
        "gate": composition.gated,
        "largest_step": largest,
        "states": assembly.size,
        "modules": len(assembly.modules),
        "couplings": len({frozenset((edge.to, edge.source)) for edge in assembly.couplings}),
        "parameters": _whole(found, "parameters"),
    }


def _report(found: TrainingAnswer) -> dict[str, Any]:
    task, notes = found.text("task"), found.raw.get("notes") or []
    if task not in ("classification", "regression") or not isinstance(notes, list):
        raise BadAnswer("the service answered with a report that is none")
    needed = ("test_accuracy", "validation_accuracy") if task == "classification" else ("test_rmse", "validation_rmse")
    scores = {name: found.number(name) for name in _SCORES if name in found.raw}
    if any(scores.get(name) is None for name in needed):
        raise BadAnswer(f"the service answered with a report without {' and '.join(needed)}")
    if task == "regression":
        scores.setdefault("test_r2", None)
    ordered = {name: scores[name] for name in found.raw if name in scores} | scores
    return {
        "task": task,
        **ordered,
        "epoch": _whole(found, "epoch"),
        "epochs": _whole(found, "epochs"),
        "ended": words.printable(found.text("ended") or ""),
        "notes": [words.printable(str(note), 1000) for note in notes],
    }


def _whole(found: TrainingAnswer, name: str) -> int:
    value = found.number(name)
    if value is None or not value.is_integer():
        raise BadAnswer(f"the service answered with {name} {value!r}, which is no whole number")
    return int(value)


def _curve(found: TrainingAnswer) -> list[dict[str, float]]:
    headline = "accuracy" if found.text("task") == "classification" else "rmse"
    needed, points = {"epoch", "loss", "validation_loss", f"validation_{headline}"}, []
    for entry in found.curve:
        values = entry.values()
        if not needed <= set(entry) or not all(isinstance(x, int | float) and math.isfinite(x) for x in values):
            raise BadAnswer("the service answered with a learning curve that lacks numbers")
        points.append({name: int(value) if name == "epoch" else value for name, value in entry.items()})
    if not points:
        raise BadAnswer("the service answered with a learning curve of no epoch")
    return points
