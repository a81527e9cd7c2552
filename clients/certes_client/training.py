"""The verb ``train``: an architecture and data in, a certified assembly in a folder out."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certes_client.commands import Json
from certes_client.remote.option import Server

if TYPE_CHECKING:
    from certes.nn.product import Product
    from certes.nn.trainer import Trainer

    from certes_client.remote.training import Made


def train(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="FILE.npz or FILE.safetensors (inputs, and labels or targets), FILE.ts, or NAME[:FOLDER]: "
            "digits, digits-pixels, japanese-vowels, mnist-rows, mnist-pixels or mnist-permuted.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the result.")],
    kind: Annotated[
        str,
        typer.Option(
            metavar="KIND", help="adadiag, sparse, singular, svd, absolute, symmetric, lure, workspace or cascade."
        ),
    ] = "singular",
    modules: Annotated[str, typer.Option(metavar="4x32|32,16", help="States of the modules.")] = "4x32",
    activation: Annotated[str, typer.Option(metavar="NAME", help="phi.")] = "relu",
    form: Annotated[str, typer.Option(metavar="hopfield|rate", help="The network's dynamics.")] = "hopfield",
    topology: Annotated[str, typer.Option(metavar="NAME", help="all, ring, hub, random or none.")] = "all",
    couplings: Annotated[int | None, typer.Option(metavar="N", help="Pairs, for topology random.")] = None,
    step: Annotated[
        str, typer.Option(metavar="H|LOW,HIGH", help="Step over tau; two numbers: one per state, trained between them.")
    ] = "0.02,0.3",
    gate: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Let the input scale the step, between this share and 1.")
    ] = None,
    level: Annotated[float, typer.Option(metavar="L", help="Bound on the modules' weights, below 1.")] = 0.5,
    guarantee: Annotated[
        str, typer.Option(metavar="euler|continuous", help="Which of the two is certified: the map that is run, or x'.")
    ] = "euler",
    epochs: Annotated[int, typer.Option(metavar="N", help="At most.")] = 60,
    batch: Annotated[int, typer.Option(metavar="N", help="Sequences per step.")] = 32,
    learning_rate: Annotated[float, typer.Option(metavar="R", help="At its highest.")] = 5e-3,
    weight_decay: Annotated[float, typer.Option(metavar="D", help="Of AdamW.")] = 1e-4,
    clip: Annotated[float, typer.Option(metavar="C", help="Largest norm of the gradient.")] = 1.0,
    smoothing: Annotated[float, typer.Option(metavar="P", help="Of the labels; of no account to targets.")] = 0.05,
    noise: Annotated[float, typer.Option(metavar="S", help="Noise on standardised inputs while training.")] = 0.0,
    jitter: Annotated[int, typer.Option(metavar="N", help="Pixels by which images are moved while training.")] = 0,
    patience: Annotated[int, typer.Option(metavar="N", help="Epochs without a better choice that end it.")] = 1000,
    validation: Annotated[float, typer.Option(metavar="P", help="Part of the training data that chooses.")] = 0.2,
    seed: Annotated[int, typer.Option(metavar="N", help="Of everything that is drawn.")] = 0,
    seconds: Annotated[
        float | None, typer.Option(metavar="N", help="Time limit; the best epoch is the answer.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keeps the state after each epoch; run again to go on.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="cpu|cuda:0", help="Where torch computes.")] = "cpu",
    keep: Annotated[int, typer.Option(metavar="N", help="Keep one state in N for the gradient; 0: sqrt(time).")] = 1,
    sign: Annotated[Path | None, typer.Option(metavar="KEY.pem", help="Ed25519 private key to sign with.")] = None,
    server: Server = None,
    as_json: Json = False,
) -> int:
    """Train an assembly that is stable by construction; it is certified at the end, or there is no result.

    Test data choose nothing: the epoch is chosen by a part of the training data. Exits 0 certified, 2 bad input,
    3 not certified or not trained to the end of an epoch, 4 internal error.
    """
    from certes.errors import InputError

    given = {
        "kind": kind, "modules": _sizes(modules), "activation": activation, "form": form, "topology": topology,
        "couplings": couplings, "step": _steps(step), "gate": gate, "level": level, "guarantee": guarantee,
    }  # fmt: skip
    plan = {
        "epochs": epochs, "batch": batch, "learning_rate": learning_rate, "weight_decay": weight_decay, "clip": clip,
        "smoothing": smoothing, "noise": noise, "jitter": jitter, "patience": patience, "validation": validation,
        "seed": seed,
    }  # fmt: skip
    more = {"seconds": seconds, "checkpoint": checkpoint, "device": device, "keep": keep}
    try:
        if server is not None:
            return _run_there(server, data, given, plan, out, sign, more, as_json)
        return _run(data, given, plan, out, sign, more, as_json)
    except InputError as error:
        place, _, entry = error.field.partition(".")
        name = entry if place in ("architecture", "plan") and entry else error.field
        if name.partition(".")[0] not in {*given, *plan, *more, "out", "data"}:
            raise
        option = "DATA" if name == "data" else f"--{name.partition('.')[0].replace('_', '-')}"
        raise InputError(option, error.given, error.expected, error.slug) from error


def _run(
    data: str, given: dict[str, Any], plan: dict[str, Any], out: Path, key: Path | None, more: dict[str, Any],
    as_json: bool,
) -> int:  # fmt: skip
    from certes.nn.product import NotCertified
    from certes.nn.train import NotTrained
    from certes.nn.train import train as learn
    from certes.sequences import read_data
    from certes.trainings import Architecture, Plan

    from certes_client import certifying, output

    private_key = None if key is None else certifying._readable(key)
    architecture, how = Architecture.parse(given), Plan.parse(plan)
    with output.Progress("train").running() as progress:
        progress("reading the data")
        sequences = read_data(data)

        def told(trainer: Trainer) -> None:
            last = trainer.curve[-1]
            said = (
                f"accuracy {last['validation_accuracy']:.4f}" if "validation_accuracy" in last
                else f"error {last['validation_rmse']:.4g}"
            )  # fmt: skip
            progress(f"epoch {trainer.epoch} of {how.epochs}: loss {last['loss']:.4g}, validation {said}")

        progress("training")
        try:
            made = learn(architecture, sequences, how, out, key=private_key, progress=told, **more)
        except (NotTrained, NotCertified) as error:
            return _nothing(error, as_json)
    if os.environ.get("RANK", "0") != "0":
        pass  # of several processes under torch's launcher the first speaks
    else:
        _say(data, made, as_json)
    return certifying.EXIT["contracting"]


def _run_there(
    server: str, data: str, given: dict[str, Any], plan: dict[str, Any], out: Path, key: Path | None,
    more: dict[str, Any], as_json: bool,
) -> int:  # fmt: skip
    """The same by a service; needs no torch here."""
    from certes.trainings import Architecture, Plan

    from certes_client import certifying, output
    from certes_client.remote import training as remote

    private_key = None if key is None else certifying._readable(key)
    architecture, how = Architecture.parse(given), Plan.parse(plan)
    with output.Progress("train").running() as progress:
        try:
            made = remote.train(server, data, architecture, how, out, private_key, more, progress)
        except remote.NotTrained as error:
            return _nothing(error, as_json)
    _say(data, made, as_json)
    return certifying.EXIT["contracting"]


def _nothing(error: Exception, as_json: bool) -> int:
    """No result, and why."""
    from certes_client import certifying, output

    if as_json:
        output.print_json({"verdict": "undecided", "detail": str(error), "certificate": None})
    else:
        output.console(stderr=True).print(str(error), markup=False)
    return certifying.EXIT["undecided"]


def _say(data: str, made: Product | Made, as_json: bool) -> None:
    from certes_client import output

    if as_json:
        output.print_json({"verdict": "contracting", "folder": str(made.folder), **made.report})
    else:
        _summary(data, made)


def _summary(data: str, made: Product | Made) -> None:
    from certes import words
    from certes.trained import PAGE
    from rich.text import Text

    from certes_client import output

    report, screen = made.report, output.console()
    screen.print(output.headline("contracting", f"{report['modules']} modules, {report['states']} states: {data}"))
    level = ("rate", report["rate"]) if report["rate"] is not None else ("factor", report["factor"])
    gate = report["gate"]
    rows = [
        *_tested(report),
        (level[0], words.claimed(level[1], up=level[0] == "factor") + ("" if gate is None else ", the gate open")),
        *([] if gate is None else [("gated", words.gated(gate))]),
        ("parameters", f"{report['parameters']} trained, {report['couplings']} couplings"),
        *[("note", note) for note in report["notes"]],
    ]
    screen.print(output.fields(rows))
    command = f"certes verify {shlex.quote(str(made.certificate))} --weights {shlex.quote(str(made.folder))}"
    page = made.folder / PAGE
    places = (("folder", made.folder), ("certificate", made.certificate), ("report", page), ("check it", command))
    for label, text in places:
        line = Text.assemble((f"  {label:<13}", "dim"), words.printable(str(text), 4000))
        screen.print(line, soft_wrap=True)


def _tested(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How well the network does, on data that chose nothing and on those that chose."""
    chose = f"on those that chose epoch {report['epoch']} of {report['epochs']}"
    if report["task"] == "classification":
        test = f"{report['test_accuracy']:.4f} on data that chose nothing"
        return [("accuracy", test), ("", f"{report['validation_accuracy']:.4f} {chose}")]
    share = "" if report["test_r2"] is None else f", R squared {report['test_r2']:.4f}"
    test = f"{report['test_rmse']:.6g} (root mean square){share}, on data that chose nothing"
    return [("error", test), ("", f"{report['validation_rmse']:.6g} {chose}")]


def _sizes(text: str) -> list[int]:
    """``4x32`` or ``32,16``.

    Raises:
        InputError: neither.
    """
    from certes.errors import InputError

    try:
        if "x" in text:
            count, size = (int(part) for part in text.split("x"))
            return [size] * count if count <= 1000 else [0]
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError("--modules", repr(text)[:80], "4x32, or 32,16,8", "wrong-type") from None


def _steps(text: str) -> float | list[float]:
    from certes.errors import InputError

    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2):
        raise InputError("--step", repr(text)[:80], "0.1, or 0.02,0.3", "wrong-type")
    return parts[0] if len(parts) == 1 else parts
