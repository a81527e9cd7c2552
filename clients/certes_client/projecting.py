"""The verb ``project``: the nearest weights that are certified, in a new file with the certificate beside it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certes_client.commands import Json
from certes_client.remote.option import Server

if TYPE_CHECKING:
    from certes.projection import Keep, Projection
    from certes.projection.files import CertifiedFile
    from certes.spec import SystemSpec
    from certes.weights import WeightFile

    from certes_client.options import SystemOptions

#: Fields of errors -> options, where the names differ.
_OPTIONS = {
    "system": "--form",
    "keep.mask": "--mask",
    "keep.rank": "--rank",
    "keep": "--mask, --keep-zeros, --keep-diagonal, --rank",
}
_SAME = ("condition", "rate", "weighting", "states", "sequences", "input", "seed", "starts", "seconds", "step")


def project(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The weights: safetensors, .pt, .onnx, .keras, .npz.")],
    form: Annotated[str | None, typer.Option(metavar="rate|hopfield|torch-rnn", help="The network's dynamics.")] = None,
    tensor: Annotated[str | None, typer.Option(metavar="NAME", help="The recurrent tensor W.")] = None,
    activation: Annotated[
        str | None, typer.Option(metavar="NAME", help="tanh, relu, sigmoid, leaky_relu:0.1, ...")
    ] = None,
    slope: Annotated[str | None, typer.Option(metavar="LOW,HIGH", help="Slopes, instead of an activation.")] = None,
    step: Annotated[
        str | None, typer.Option(metavar="H", help="Euler step, in the unit of tau; none: continuous time.")
    ] = None,
    tau: Annotated[
        str | None, typer.Option(metavar="T", help="Time constants: a number, numbers with commas, or a tensor.")
    ] = None,
    condition: Annotated[
        str,
        typer.Option(metavar="auto|absolute|symmetric|singular|lure", help="The stable set; auto: the nearest of all."),
    ] = "auto",
    rate: Annotated[
        float | None,
        typer.Option(metavar="C", help="The rate (or, for a map, the factor) to reach; none: barely contracting."),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Which weights may move (1): a tensor, or FILE.npy, or FILE:NAME."),
    ] = None,
    keep_zeros: Annotated[bool, typer.Option("--keep-zeros", help="Weights that are 0 stay 0.")] = False,
    keep_diagonal: Annotated[bool, typer.Option("--keep-diagonal", help="The diagonal stays.")] = False,
    rank: Annotated[int | None, typer.Option(metavar="R", help="The new weights have at most this rank.")] = None,
    weighting: Annotated[
        str | None, typer.Option(metavar="NAME", help="Tensor S, (n, n): the distance is sqrt(tr(D S D^T)).")
    ] = None,
    states: Annotated[
        str | None, typer.Option(metavar="FILE", help="Observed states, (..., n): S is their second moment.")
    ] = None,
    sequences: Annotated[
        str | None, typer.Option(metavar="FILE", help="Inputs, (N, T, features): S from running the network on them.")
    ] = None,
    input: Annotated[
        str | None, typer.Option(metavar="NAME", help="--sequences: the input matrix; torch-rnn: known.")
    ] = None,
    bias: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="--sequences: the bias; may be repeated; torch-rnn: known.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the random starts.")] = 0,
    starts: Annotated[int, typer.Option(metavar="N", help="Starts of lure; the first is not random.")] = 1,
    seconds: Annotated[
        float | None, typer.Option(metavar="N", help="Time limit; the nearest weights by then are the answer.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="NEW.safetensors", help="The new weights; none: FILE-projected.safetensors, here."),
    ] = None,
    sign: Annotated[Path | None, typer.Option(metavar="KEY.pem", help="Ed25519 private key to sign with.")] = None,
    server: Server = None,
    as_json: Json = False,
) -> int:
    """Move the recurrent weights as little as it takes to certify them.

    Writes the whole file with the new weights, and their certificate beside it; nothing if no weights are certified.
    Exits 0 certified, 2 bad input, 3 not certified, 4 internal error.
    """
    from certes_client import options

    system = options.SystemOptions(form, {"W": tensor}, activation, slope, step, tau, False)
    kept = {"mask": mask, "zeros": keep_zeros, "diagonal": keep_diagonal, "rank": rank}
    data = _Weighting(weighting, states, sequences, input, tuple(bias or ()))
    search = {"condition": condition, "rate": rate, "seed": seed, "starts": starts, "seconds": seconds}
    return run(Question(file, system, kept, data, search), out, sign, as_json, server)


@contextlib.contextmanager
def _options() -> Iterator[None]:
    """Errors of the library with the field under its name on the command line."""
    from certes.errors import InputError

    try:
        yield
    except InputError as error:
        option = _OPTIONS.get(error.field, f"--{error.field}" if error.field in _SAME else None)
        if option is None:
            raise
        raise InputError(option, error.given, error.expected, error.slug) from error


@dataclass(frozen=True)
class _Weighting:
    """What the distance is measured in; texts of the options, at most one of the first three."""

    weighting: str | None = None
    states: str | None = None
    sequences: str | None = None
    input: str | None = None
    biases: tuple[str, ...] = ()

    def matrix(self, spec: SystemSpec, weights: WeightFile, system: Any) -> Any:
        """S, or None.

        Raises:
            InputError: naming the option.
        """
        from certes.projection.moments import moment_of_sequences, moment_of_states

        from certes_client import arrays

        if self.weighting is not None:
            return arrays.floats("--weighting", self.weighting, weights)
        if self.states is not None:
            return moment_of_states(system, arrays.from_file("--states", self.states, ("states",)))
        if self.sequences is None:
            return None
        inputs = arrays.from_file("--sequences", self.sequences, ("inputs", "sequences"))
        return moment_of_sequences(self._driven(spec, weights, system), inputs)

    def _driven(self, spec: SystemSpec, weights: WeightFile, system: Any) -> Any:
        """The network with its input matrix and its bias."""
        from certes_client import arrays

        drive, bias = system.input_matrix, system.bias
        if self.input is not None:
            drive = arrays.floats("--input", self.input, weights)
        if self.biases:
            bias = sum(arrays.floats("--bias", name, weights) for name in self.biases)
        return spec.with_tensors({"W": system.tensors["W"]}, input_matrix=drive, bias=bias)

    def check(self) -> None:
        """Raise InputError unless the options fit each other."""
        from certes.errors import InputError

        given = [name for name in ("weighting", "states", "sequences") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"--{given[1]}", f"--{given[0]} as well", "one of the two", "conflict")
        if self.sequences is None and (self.input is not None or self.biases):
            option = "--input" if self.input is not None else "--bias"
            raise InputError(option, "no --sequences", "--sequences, to run the network on", "conflict")


@dataclass(frozen=True)
class Question:
    """Everything that decides the answer.

    Attributes:
        file: the weights.
        system: what the network is.
        keep: mask (text), zeros, diagonal, rank.
        weighting: what the distance is measured in.
        search: condition, rate, seed, starts, seconds, as :func:`certes.project` takes them.
    """

    file: Path
    system: SystemOptions
    keep: dict[str, Any] = field(default_factory=dict)
    weighting: _Weighting = field(default_factory=_Weighting)
    search: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise InputError for what is wrong whatever is in the file."""
        from certes.errors import InputError

        if self.system.step_choice == "max":
            expected = "the step at which the network is run: the largest depends on the weights, which move"
            raise InputError("--step", "max", expected, "invalid-value")
        if self.system.form == "lure":
            expected = "rate, hopfield or torch-rnn: one square W to move"
            raise InputError("--form", "lure", expected, "not-applicable")
        self.weighting.check()

    def kept(self, weights: WeightFile) -> Keep:
        """What has to stay."""
        from certes.projection import Keep

        from certes_client import arrays

        text = self.keep.get("mask")
        return Keep(**self.keep | {"mask": None if text is None else arrays.named("--mask", text, weights)})


def run(question: Question, out: Path | None, key: Path | None, as_json: bool, server: str | None = None) -> int:
    """Answer a question on stdout; returns the exit code.

    Raises:
        InputError: anything about the input. RemoteError: ``server`` did not answer, or not truly.
    """
    import certes
    from certes.cells import GatedNetwork
    from certes.errors import InputError
    from certes.projection.files import certified_file
    from certes.systems import UnsupportedCell

    from certes_client import certifying, output

    question.check()
    private_key = None if key is None else certifying._readable(key)
    target = _target(question.file, out)
    with output.Progress("project").running() as progress:
        progress(f"reading {question.file.name}")
        spec, weights, system = question.system.read(question.file)
        if isinstance(system, UnsupportedCell | GatedNetwork):
            expected = "a plain recurrent layer: rate, hopfield or torch-rnn"
            raise InputError("--form", system.detail, expected, "not-applicable")
        with _options():
            weighting = question.weighting.matrix(spec, weights, system)
            kept = question.kept(weights)
            if server is None:
                found = certes.project(system, keep=kept, weighting=weighting, progress=progress, **question.search)
            else:
                from certes_client.remote.projecting import Question as Asked

                asked = Asked(question.file, spec, weights, system, kept, weighting, question.search)
                found = asked.answer(server, progress)
        written = certified_file(found, spec, weights, lambda: _bytes_of(question.file, weights), target.name)
        if written is not None and private_key is not None:
            written = replace(written, certificate=written.certificate.sign(private_key))
        path = None if written is None else _write(target, written)
    if as_json:
        output.print_json(as_object(found, written, target, path))
    else:
        _summary(question, found, written, target, path)
    return certifying.EXIT["contracting" if path is not None else "undecided"]


def _target(file: Path, out: Path | None) -> Path:
    """The new file; checked before anything is computed. It may be the given one if ``--out`` says so.

    Raises:
        InputError: a folder, something that is no file, or a place that cannot be written.
    """
    from certes import formats
    from certes.errors import InputError
    from certes.projection.files import projected_name

    from certes_client import options

    target = out if out is not None else Path(projected_name(file.name))
    try:
        odd = target.exists() and not target.is_file()
        itself = target.exists() and file.exists() and target.samefile(file)
    except OSError as error:
        given = f"{target}: {error.strerror}"
        raise InputError("--out", given, "a file that can be written", "unwritable") from error
    if odd or (target.suffix != ".safetensors" and (formats.is_foreign(target) or not itself)):
        raise InputError("--out", str(target), "a file NEW.safetensors", "invalid-value")
    if not target.name.isascii() and target.name.encode("utf-8", "replace").decode() != target.name:
        raise InputError("--out", repr(target.name), "a name in UTF-8, which a certificate can state", "invalid-value")
    options.folder(target.parent)
    return target


def _bytes_of(file: Path, weights: WeightFile) -> bytes:
    from certes import formats
    from certes.errors import InputError

    try:
        content = formats.as_safetensors(file, weights)
        return content if isinstance(content, bytes) else content.read_bytes()
    except OSError as error:
        raise InputError(
            "weights", f"{file.name}: {error.strerror}", "a readable safetensors file", "unreadable"
        ) from error


def _write(target: Path, written: CertifiedFile) -> Path:
    """The new file and its certificate, each at once or not at all; returns the certificate's path.

    In this order: the weights under another name, the proof, the certificate, and last the weights' own name. Where
    there is a new file, there is its certificate; and a full disk is noticed before anything has its name. Killed in
    between, a certificate is left that no file fits yet: it says nothing false, and the next run overwrites it.
    """
    import os
    import tempfile

    from certes.errors import InputError

    draft: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
        draft = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(written.data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.chmod(0o644)
        path = written.certificate.write(target.parent)
        draft.replace(target)
        return path
    except OSError as error:
        given = f"{target}: {error.strerror}"
        raise InputError("--out", given, "a place that can be written", "unwritable") from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)  # renamed, if all went well


def as_object(found: Projection, written: CertifiedFile | None, target: Path, path: Path | None) -> dict[str, Any]:
    """The answer as ``--json`` prints it; Python names."""
    from certes.certificate.document import PROOF_SUFFIX

    answer = {"verdict": found.result.verdict} | found.to_json()
    if written is None or path is None:
        return answer | {"out": None, "certificate": None}
    certificate = written.certificate
    proof = path.with_name(certificate.statement.predicate.proof.sha256 + PROOF_SUFFIX)
    answer["result"]["certificate"] = {"digest": certificate.digest}  # about the file, not about arrays in memory
    answer["out"] = {"path": str(target), "sha256": written.sha256, "changed": list(written.changed)}
    link = {"path": str(path), "digest": certificate.digest, "proof": str(proof), "signed": certificate.signed}
    return answer | {"certificate": link}


def _summary(
    question: Question, found: Projection, written: CertifiedFile | None, target: Path, path: Path | None
) -> None:
    from certes import words
    from rich.text import Text

    from certes_client import certifying, output

    screen = output.console()
    name = words.printable(question.file.name if written is None else target.name)
    screen.print(output.headline(found.result.verdict, f"{name}: {words.system_line(found.system)}"))
    rows = words.projection_lines(found)
    if written is not None:
        rows += certifying.proven_lines(found.result)
    else:
        rows.append(("reason", f"{found.result.reason}: no stable set has weights that are certified"))
    rows += words.set_lines(found)
    if written is None:
        lines = words.projection_advice(found, chosen=question.search.get("condition", "auto") != "auto")
        rows += [("try next" if k == 0 else "", line) for k, line in enumerate(lines)]
        rows.append(("", "no file was written"))
    screen.print(output.fields(rows))
    if written is None or path is None:
        return
    signature = "signed" if written.certificate.signed else "unsigned (sign it with --sign KEY.pem)"
    what = "unchanged, byte for byte the given file" if found.unchanged else f"new: {', '.join(written.changed)}"
    command = f"certes verify {shlex.quote(str(path))} --weights {shlex.quote(str(target))}"
    for label, text in (
        ("weights", target),
        ("", what),
        ("certificate", path),
        ("", signature),
        ("check it", command),
    ):
        # printed unwrapped, so that paths can be copied
        screen.print(Text.assemble((f"  {label:<13}", "dim"), words.printable(str(text), 4000)), soft_wrap=True)
