"""The verb ``repair``: project, refit, train on inside the stable set, certify, write, say it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certes_client.commands import Json

if TYPE_CHECKING:
    from certes.certificate.document import Certificate
    from certes.nn import Repair

#: Fields of errors -> options.
_OPTIONS = (
    "input",
    "bias",
    "readout",
    "readout-bias",
    "data",
    "rate",
    "seed",
    "epochs",
    "patience",
    "batch",
    "seconds",
)
_MORE = ("checkpoint", "device", "activation", "step", "form", "tau", "slope")


def repair(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The weights: safetensors, .pt, .onnx, .keras, .npz.")],
    data: Annotated[
        str, typer.Option(metavar="DATA", help="FILE.npz or FILE.safetensors (inputs, labels), or mnist-rows:FOLDER.")
    ],
    form: Annotated[str | None, typer.Option(metavar="rate|hopfield|torch-rnn", help="The network's dynamics.")] = None,
    tensor: Annotated[str | None, typer.Option(metavar="NAME", help="The recurrent tensor W.")] = None,
    activation: Annotated[str | None, typer.Option(metavar="NAME", help="tanh, relu, sigmoid, elu, ...")] = None,
    slope: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Certify for these slopes; the activation is still run.")
    ] = None,
    step: Annotated[
        str | None, typer.Option(metavar="H", help="The step at which the network is run, in the unit of tau.")
    ] = None,
    tau: Annotated[str | None, typer.Option(metavar="T", help="The time constant.")] = None,
    input: Annotated[str | None, typer.Option(metavar="NAME", help="The input matrix; none: a usual name.")] = None,
    bias: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="The bias; may be repeated; none: usual names.")
    ] = None,
    readout: Annotated[str | None, typer.Option(metavar="NAME", help="The readout; none: a usual name.")] = None,
    readout_bias: Annotated[str | None, typer.Option(metavar="NAME", help="Its bias; none: a usual name.")] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="RHO", help="The factor per step to reach; none: barely contracting.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Which data choose, and the order of the others.")] = 0,
    epochs: Annotated[int, typer.Option(metavar="N", help="Epochs of training at most; 0: none.")] = 40,
    patience: Annotated[int, typer.Option(metavar="N", help="Epochs without a better choice that end it.")] = 10,
    batch: Annotated[int, typer.Option(metavar="N", help="Sequences per step.")] = 128,
    learning_rate: Annotated[float, typer.Option(metavar="R", help="At the start; it falls to 0.")] = 3e-3,
    seconds: Annotated[
        float | None, typer.Option(metavar="N", help="Time limit; the best weights by then are the answer.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keeps the state after each epoch; run again to go on.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="cpu|cuda:0", help="Where torch computes.")] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(metavar="NEW.safetensors", help="The new weights; none: FILE-repaired.safetensors, here."),
    ] = None,
    sign: Annotated[Path | None, typer.Option(metavar="KEY.pem", help="Ed25519 private key to sign with.")] = None,
    as_json: Json = False,
) -> int:
    """Make a network contracting and keep what it can do.

    Projects the recurrent weights, refits the readout, trains on inside the stable set, and writes the best weights
    with their certificate. Exits 0 certified, 2 bad input, 3 undecided, 4 internal error.
    """
    from certes.errors import InputError

    settings: dict[str, Any] = {
        "rate": rate,
        "seed": seed,
        "epochs": epochs,
        "patience": patience,
        "batch": batch,
        "device": device,
    }
    settings |= {"learning_rate": learning_rate, "seconds": seconds, "checkpoint": checkpoint}
    roles = {"input": input, "biases": bias or (), "readout": readout, "readout_bias": readout_bias}
    system = (form, tensor, activation, slope, step, tau)
    try:
        return _run(file, data, system, roles, settings, out, sign, as_json)
    except InputError as error:
        name = error.field.replace("_", "-")
        if name not in (*_OPTIONS, *_MORE, "learning-rate"):
            raise
        raise InputError(f"--{name}", error.given, error.expected, error.slug) from error


def _run(
    file: Path,
    data: str,
    system: tuple[str | None, ...],
    names: dict[str, Any],
    settings: dict[str, Any],
    out: Path | None,
    key: Path | None,
    as_json: bool,
) -> int:
    from certes import formats
    from certes.cells import GatedNetwork
    from certes.errors import InputError
    from certes.nn import Classifier, Roles, read_data
    from certes.nn import repair as mend
    from certes.systems import UnsupportedCell

    from certes_client import certifying, options, output

    form, tensor, activation, slope, step, tau = system
    if step == "max":
        raise InputError("--step", "max", "the step at which the network is run", "invalid-value")
    private_key = None if key is None else certifying._readable(key)
    target = _target(file, out)
    stated = activation if slope is None else None
    given = options.SystemOptions(form, {"W": tensor}, stated, slope, step, tau, False)
    with output.Progress("repair").running() as progress:
        progress(f"reading {file.name}")
        _, weights, network = given.read(file)
        if isinstance(network, UnsupportedCell | GatedNetwork):
            raise InputError(
                "--form", network.detail, "a plain recurrent layer: rate, hopfield or torch-rnn", "not-applicable"
            )
        classifier = Classifier.of(weights, network, Roles.of(weights, network, **names), activation)
        progress("reading the data")
        given_data = read_data(data)
        original = None if formats.is_foreign(file) else file.read_bytes
        found = mend(classifier, given_data, name=target.name, original=original, progress=progress, **settings)
        certificate = found.result.certificate if found.data is not None else None
        if certificate is not None and private_key is not None:
            certificate = certificate.sign(private_key)
        path = None if certificate is None else _write(target, found, certificate)
    if as_json:
        answer = found.to_json()
        answer |= {"verdict": found.result.verdict, "weights": None if path is None else str(target)}
        answer["result"] = certifying.as_object(found.result, certificate, path)
        answer["certificate"] = answer["result"]["certificate"]
        output.print_json(answer)
    else:
        _summary(file, target, found, certificate, path)
    return certifying.EXIT["contracting" if path is not None else "undecided"]


def _target(file: Path, out: Path | None) -> Path:
    """The new file; checked before anything is computed.

    Raises:
        InputError: a folder, the given file itself, or a place that cannot be written.
    """
    from certes.errors import InputError

    from certes_client import options

    target = out if out is not None else Path(f"{file.stem}-repaired.safetensors")
    expected = "a new file NEW.safetensors"
    if target.is_dir() or target.suffix != ".safetensors":
        raise InputError("--out", str(target), expected, "invalid-value")
    if target.exists() and file.exists() and target.samefile(file):
        raise InputError("--out", f"{target}, the given weights", expected, "conflict")
    options.folder(target.parent)
    return target


def _write(target: Path, found: Repair, certificate: Certificate) -> Path:
    """The weights, then the certificate beside them, each at once or not at all; the certificate's path."""
    from certes.errors import InputError

    assert found.data is not None
    draft = target.with_name(target.name + ".part")
    try:
        draft.write_bytes(found.data)
        draft.replace(target)
        return certificate.write(target.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        given = f"{target}: {error.strerror}"
        raise InputError("--out", given, "a place that can be written", "unwritable") from error


def _summary(file: Path, target: Path, found: Repair, certificate: Certificate | None, path: Path | None) -> None:
    from certes import words
    from rich.text import Text

    from certes_client import output

    screen = output.console()
    name = words.printable(file.name)
    screen.print(output.headline(found.result.verdict, f"{name}: {words.system_line(found.system)}"))
    rows = [("accuracy", f"{_share(found.accuracy_before)} before")]
    if found.unchanged:
        rows.append(("", "the network passes as it is: nothing was changed"))
    elif found.accuracy is not None:
        rows.append(("", f"{_share(found.accuracy_projected)} with the recurrent weights projected"))
        rows.append(("", f"{_share(found.accuracy_refitted)} with the readout refitted"))
        rows.append(("", f"{_share(found.accuracy)} repaired: the new file, on data that chose nothing"))
        rows.append(("epochs", _epochs(found)))
        rows.append(("distance", f"{words.number(found.distance)} by the projection, weighted by the states seen"))
    if found.result.verdict == "contracting" and found.result.claims is not None:
        rows += words.claim_lines(found.result.claims)
    else:
        rows.append(("reason", words.reason_line(found.result.reason, found.result.detail, found.result.attempts)))
        rows.append(("", "no file was written"))
    screen.print(output.fields(rows))
    if certificate is not None and path is not None:
        signature = "signed" if certificate.signed else "unsigned (sign it with --sign KEY.pem)"
        command = f"certes verify {shlex.quote(str(path))} --weights {shlex.quote(str(target))}"
        for label, text in (("weights", target), ("certificate", path), ("", signature), ("check it", command)):
            # printed unwrapped, so that paths can be copied
            line = Text.assemble((f"  {label:<13}", "dim"), words.printable(str(text), 4000))
            screen.print(line, soft_wrap=True)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _epochs(found: Repair) -> str:
    why = {
        "epochs": "all of them",
        "patience": "nothing better came for long",
        "deadline": "the time limit came first",
        "cancelled": "it was cancelled",
        "diverged": "the numbers left their range",
        "not-needed": "none was needed",
    }[found.stopped]
    if found.best_epoch == 0:
        return f"{found.epochs} ({why}); nothing beat the refitted readout, which is kept"
    return f"{found.epochs} ({why}); the weights are those after epoch {found.best_epoch}"
