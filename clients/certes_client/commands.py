"""The verbs ``certify``, ``verify``, ``figure`` and ``inspect``. Each returns its exit code."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from certes_client.remote.option import Server

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def certify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The weights: safetensors, .pt, .onnx, .keras, .npz.")],
    form: Annotated[
        str | None, typer.Option(metavar="rate|hopfield|lure|torch-rnn|gru|lstm", help="The network's dynamics.")
    ] = None,
    tensor: Annotated[str | None, typer.Option(metavar="NAME", help="The recurrent tensor W.")] = None,
    A: Annotated[str | None, typer.Option("--A", metavar="NAME", help="lure: the tensor A.")] = None,
    B: Annotated[str | None, typer.Option("--B", metavar="NAME", help="lure: the tensor B.")] = None,
    C: Annotated[str | None, typer.Option("--C", metavar="NAME", help="lure: the tensor C.")] = None,
    activation: Annotated[
        str | None, typer.Option(metavar="NAME", help="tanh, relu, sigmoid, leaky_relu:0.1, ...")
    ] = None,
    slope: Annotated[str | None, typer.Option(metavar="LOW,HIGH", help="Slopes, instead of an activation.")] = None,
    step: Annotated[
        str | None,
        typer.Option(metavar="H|max", help="Euler step, in the unit of tau; none: continuous time; max: the largest."),
    ] = None,
    tau: Annotated[
        str | None, typer.Option(metavar="T", help="Time constants: a number, numbers with commas, or a tensor.")
    ] = None,
    discrete: Annotated[bool, typer.Option("--discrete", help="lure: the system is given as a map.")] = False,
    inputs: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="gru, lstm: the box of inputs, as --inputs=-1,1.")
    ] = None,
    condition: Annotated[str, typer.Option(metavar="auto|NAME", help="Which theorem to use.")] = "auto",
    rate: Annotated[
        str, typer.Option(metavar="best|C", help="The rate (or, for a map, the factor) to reach.")
    ] = "best",
    backend: Annotated[
        str, typer.Option(metavar="auto|cvxpy-clarabel|cvxpy-scs", help="Solver of the condition lure.")
    ] = "auto",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the certificate is written.")] = Path(),
    sign: Annotated[Path | None, typer.Option(metavar="KEY.pem", help="Ed25519 private key to sign with.")] = None,
    seconds: Annotated[float | None, typer.Option(metavar="N", help="Time limit of the solver.")] = None,
    server: Server = None,
    as_json: Json = False,
) -> int:
    """Certify or refute a network.

    Exits 0 contracting, 1 not contracting, 2 bad input, 3 undecided, 4 internal error.
    """
    from certes_client import certifying, options

    tensors = {"W": tensor, "A": A, "B": B, "C": C}
    system = options.SystemOptions(form, tensors, activation, slope, step, tau, discrete, inputs)
    question = certifying.Question(file, system, condition, options.rate(rate), backend, seconds)
    return certifying.run(question, options.folder(out), sign, as_json, server)


def verify(
    certificate: Annotated[Path, typer.Argument(metavar="CERT", help="The certificate, or a folder with one.")],
    weights: Annotated[
        Path,
        typer.Option(metavar="FILE|DIR", help="The weights it is meant to be about; for an assembly, also a folder."),
    ],
    exact: Annotated[bool, typer.Option("--exact", help="Also audit in exact rational arithmetic.")] = False,
    key: Annotated[
        Path | None, typer.Option(metavar="PUB.pem", help="Ed25519 public key that must have signed.")
    ] = None,
    server: Server = None,
    as_json: Json = False,
) -> int:
    """Check a certificate against weights, offline.

    Needs no server and no solver; with a server, its verifier has to say the same. Exits 0 valid, 1 invalid, 2 bad
    input, 4 internal error.
    """
    from certes_client import verifying

    return verifying.run(certificate, weights, key, exact, as_json, server)


def figure(
    certificate: Annotated[Path, typer.Argument(metavar="CERT", help="The certificate, or a folder with one.")],
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The weights; none: the file named, beside CERT or here.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FIGURE.svg|.png", help="The image; none: the certificate's digest.svg.")
    ] = None,
    dark: Annotated[bool, typer.Option("--dark/--light", help="On a dark or on a light ground.")] = False,
    server: Server = None,
    as_json: Json = False,
) -> int:
    """Draw what a certificate proves, for a paper's column.

    Verifies it first. Prints the caption. Exits 0 drawn, 2 bad input or a certificate that does not hold, 4 internal
    error.
    """
    from certes_client import figuring

    return figuring.run(certificate, weights, out, "dark" if dark else "light", as_json, server)


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The weights: safetensors, .pt, .onnx, .keras, .npz.")],
    as_json: Json = False,
) -> int:
    """Show what is in a weight file.

    Its tensors, what network it looks like, and the command to certify it.
    """
    from certes import formats
    from certes.recognise import recognise
    from certes.words import printable
    from rich.table import Table
    from rich.text import Text

    from certes_client import output

    weights = formats.read(file)
    found = recognise(weights)
    command = _suggestion(file, found.spec)
    if as_json:
        tensors = [
            {"name": entry.name, "dtype": entry.dtype, "shape": list(entry.shape), "sha256": entry.sha256}
            for entry in weights.tensors.values()
        ]
        answer: dict[str, Any] = {"file": str(file), "sha256": weights.sha256, "metadata": dict(weights.metadata)}
        answer |= {"tensors": tensors, "recognised": found.kind, "detail": found.detail}
        output.print_json(answer | {"candidates": list(found.candidates), "command": command})
        return 0
    target = output.console()
    table = Table("tensor", "dtype", "shape", box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for entry in weights.tensors.values():
        shape = " x ".join(str(k) for k in entry.shape) or "scalar"
        table.add_row(Text(printable(entry.name)), Text(printable(entry.dtype)), Text(shape))
    target.print(Text.assemble((printable(file.name), "bold"), f"  sha256 {weights.sha256}"), soft_wrap=True)
    for key, value in weights.metadata.items():
        target.print(Text(f"  {printable(key)}: {printable(value)}", style="dim"))
    target.print()
    target.print(table)
    target.print()
    target.print(output.fields([("recognised", found.kind), ("", found.detail)]))
    if command is not None:
        target.print(Text.assemble(("  certify it   ", "dim"), printable(command, 2000)), soft_wrap=True)
        target.print(output.fields([("", "fill in what stands in capitals")]))
    return 0


def _suggestion(file: Path, spec: dict[str, Any] | None) -> str | None:
    """The command to try; what only the user knows stands in capitals."""
    from certes.cells import CELLS

    if spec is None:
        return None
    words = ["certes", "certify", shlex.quote(str(file)), "--form", spec["form"]]
    name = spec.get("tensors", {}).get("U" if spec["form"] in CELLS else "W")
    if name is not None:
        words += ["--tensor", shlex.quote(name)]
    if spec["form"] in CELLS:
        return " ".join([*words, "--inputs=LOW,HIGH"])
    words += ["--activation", "NAME"]
    return " ".join(words + ([] if spec["form"] == "torch-rnn" else ["--step", "H"]))
