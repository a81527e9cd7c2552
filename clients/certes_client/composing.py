"""The verb ``compose``: certify an assembly from its modules, ask what if, write certificates and a picture."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certes_client.commands import Json
from certes_client.remote.option import Server

if TYPE_CHECKING:
    from certes.certificate.assembly import AssemblyBundle
    from certes.composition.outcome import Composition

#: Fields of errors -> options.
_OPTIONS = ("without", "scale", "mode", "step", "seconds")
#: Factors of all couplings that are tried for an assembly that is undecided.
_WEAKER = (0.75, 0.5, 0.25, 0.1, 0.01)


def compose(
    file: Annotated[Path, typer.Argument(metavar="ASSEMBLY.yaml", help="Modules and couplings, in YAML or JSON.")],
    mode: Annotated[
        str | None,
        typer.Option(metavar="auto|interface|exact|whole|monolithic|all", help="Which proofs; none: as the file says."),
    ] = None,
    step: Annotated[
        str | None, typer.Option(metavar="H|none", help="Euler step of the whole; none: as it stands in the modules.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="What if this module were gone; may be repeated.")
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(metavar="TO/FROM=S", help="What if this coupling were S times itself; may be repeated."),
    ] = None,
    seconds: Annotated[float | None, typer.Option(metavar="N", help="Time limit.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the certificates, of every module and of the whole.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(metavar="FILE.svg|.png", help="Draw the assembly as a graph.")] = None,
    sign: Annotated[Path | None, typer.Option(metavar="KEY.pem", help="Ed25519 private key to sign with.")] = None,
    server: Server = None,
    as_json: Json = False,
) -> int:
    """Certify a network of networks from its modules.

    Says which module and which coupling limit it; with --without or --scale, what would change, answered from the
    modules' interfaces. Exits 0 contracting, 1 not contracting, 2 bad input, 3 undecided, 4 internal error.
    """
    from certes.errors import InputError

    try:
        asked = Question(file, mode, _step(step), tuple(without or ()), _factors(scale or ()), seconds, server)
        return run(asked, out, figure, sign, as_json)
    except InputError as error:
        if error.field not in _OPTIONS:
            raise
        raise InputError(f"--{error.field}", error.given, error.expected, error.slug) from error


@dataclass(frozen=True)
class Question:
    """Everything that decides the answer.

    Attributes:
        file: the description.
        mode: which proofs; None: as the file says, or interface where a change is asked about.
        step: Euler step; None: as the file says, 0: none.
        without: paths of modules to leave out.
        scale: (to, from) -> factor.
        seconds: time limit.
        server: address of a service that proves the modules; None: it is done here.
    """

    file: Path
    mode: str | None = None
    step: float | None = None
    without: tuple[str, ...] = ()
    scale: dict[tuple[str, str], float] | None = None
    seconds: float | None = None
    server: str | None = None

    def __post_init__(self) -> None:
        from certes.errors import InputError

        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InputError("seconds", f"{self.seconds}", "a positive number of seconds", "not-positive")

    @property
    def changes(self) -> bool:
        """Whether it is asked what would change."""
        return bool(self.without or self.scale)

    def answer(self, progress: Any) -> tuple[Composition, Composition | None]:
        """The composition asked about, and the one before the change, if one is asked about.

        Raises:
            InputError: naming the entry of the description, or the option.
        """
        from certes.composition.description import read, with_step

        limits = {"seconds": self.seconds, "progress": progress}
        described = read(self.file, **limits)
        if self.step is not None:
            described = with_step(described, self.step or None)
        mode: Any = self.mode or ("interface" if self.changes else None)
        if self.server is not None:
            from certes_client.remote import composing as remote

            described = remote.composed(self.server, described, mode, self.seconds, progress)
        found = described.compose(mode=mode, **limits, refute=not self.changes)
        if not self.changes:
            return found, None
        return found.what_if(without=self.without, scale=self.scale or {}, mode=mode), found


def run(question: Question, out: Path | None, figure: Path | None, key: Path | None, as_json: bool) -> int:
    """Answer a question on stdout; returns the exit code.

    Raises:
        InputError: anything about the input. MissingExtraError: a figure without its extra.
    """
    from certes_client import certifying, options, output

    target = None if out is None else options.folder(out)
    private_key = signing_key(key, target is not None)
    if figure is not None:
        _check_figure(figure)
    with output.Progress("compose").running() as progress:
        progress(f"reading {question.file.name}")
        found, before = question.answer(progress)
        path = bundle = None
        if target is not None and found.verdict == "contracting":
            progress("writing the certificates")
            bundle, path = written(found, target, private_key)
        if figure is not None:
            progress("drawing")
            _draw(found, question.file.stem, figure)
    if as_json:
        answer = as_object(found, bundle, path)
        answer["before"] = None if before is None else as_object(before, None, None)
        output.print_json(answer | {"figure": None if figure is None else str(figure)})
    else:
        summary(question.file.name, found, before)
        print_files(path, bundle, f"--weights {shlex.quote(str(question.file.parent))}", figure)
    return certifying.EXIT[found.verdict]


def written(
    found: Composition, target: Path, key: bytes | None, *, couplings: bool = True
) -> tuple[AssemblyBundle, Path]:
    """Make and write every certificate of an assembly.

    Raises:
        InputError: a folder that cannot be written.
    """
    from certes.composition.certificates import certified
    from certes.errors import InputError

    bundle = certified(found)
    if key is not None:
        bundle = bundle.sign(key)
    try:
        return bundle, bundle.write(target, couplings=couplings)
    except OSError as error:
        given = f"{target}: {error.strerror}"
        raise InputError("--out", given, "a directory that can be written", "unwritable") from error


def signing_key(key: Path | None, writes: bool) -> bytes | None:
    """The key to sign with, tried before anything is computed.

    Raises:
        InputError: no key, or nothing that would be signed.
    """
    from certes.errors import InputError

    from certes_client import certifying

    if key is not None and not writes:
        raise InputError("--sign", "no --out", "--out DIR: only certificates that are written are signed", "conflict")
    return None if key is None else certifying._readable(key)


def as_object(found: Composition, bundle: AssemblyBundle | None, path: Path | None) -> dict[str, Any]:
    """The answer as ``--json`` prints it; Python names."""
    from certes_client import certifying

    answer = found.to_json()
    if found.refutation is not None:
        answer["refutation"] = certifying.as_object(found.refutation, None, None)
    certificate = None
    if bundle is not None and path is not None:
        certificate = {"path": str(path), "digest": bundle.root, "documents": len(bundle.documents)}
        certificate["signed"] = bundle.signed
    return answer | {"certificate": certificate}


def summary(name: str, found: Composition, before: Composition | None = None) -> None:
    """The answer for a person."""
    from certes import words

    from certes_client import assembly_words, output

    screen = output.console()
    title = f"{words.printable(name)}: {assembly_words.assembly_line(found.assembly)}"
    screen.print(output.headline(found.verdict, title))
    rows = assembly_words.composition_lines(found)
    if found.verdict == "undecided":
        rows.append(("reason", f"{found.reason}: {words.printable(found.detail, 600)}"))
        lines = assembly_words.advice(found, _passing(found))
        rows += [("try next" if k == 0 else "", line) for k, line in enumerate(lines)]
    elif found.refutation is not None and found.refutation.witness is not None:
        from certes.composition.whole import flattened

        rows += words.witness_lines(found.refutation.witness, flattened(found.assembly))
    screen.print(output.fields(rows + assembly_words.proved_lines(found)))
    if before is not None:
        screen.print()
        screen.print(assembly_words.change_table(before, found))
    if len(found.assembly.modules) > 1 or found.root is None or found.assembly.depth > 1:
        screen.print()
        screen.print(assembly_words.modules_table(found))
    if found.edges:
        screen.print()
        screen.print(assembly_words.edges_table(found))
        if any(edge.slope > 1e-9 for edge in found.edges):
            screen.print(output.fields([("costs", "by how much the interface rate falls per relative growth")]))


def print_files(path: Path | None, bundle: AssemblyBundle | None, weights: str, figure: Path | None = None) -> None:
    """Where certificates and figure are; unwrapped, so that paths can be copied."""
    from certes import words
    from rich.text import Text

    from certes_client import output

    lines: list[tuple[str, str]] = []
    if path is not None and bundle is not None:
        signature = "signed" if bundle.signed else "unsigned (sign it with --sign KEY.pem)"
        lines += [("certificate", str(path)), ("", f"{len(bundle.documents)} documents, {signature}")]
        lines.append(("check it", f"certes verify {shlex.quote(str(path))} {weights}"))
    if figure is not None:
        lines.append(("figure", str(figure)))
    for label, text in lines:
        line = Text.assemble((f"  {label:<13}", "dim"), words.printable(text, 4000))
        output.console().print(line, soft_wrap=True)


def _passing(found: Composition) -> float | None:
    """A factor of all couplings at which the interface test holds, if the modules are certified."""
    if not found.module_levels or not found.edges:
        return None
    from certes.composition.changes import changed
    from certes.composition.compose import compose

    pairs = {(edge.to, edge.source) for edge in found.edges}
    for factor in _WEAKER:
        weaker = changed(found.assembly, (), dict.fromkeys(pairs, factor))
        if compose(weaker, mode="interface", refute=False, known=found).verdict == "contracting":
            return factor
    return None


def _check_figure(path: Path) -> None:
    from certes.figure.drawing import require, suffix

    suffix(path)
    require()


def _draw(found: Composition, title: str, path: Path) -> None:
    from certes.composition.picture import picture
    from certes.figure.assembly import draw_assembly

    draw_assembly(picture(found, title), path)


def _step(text: str | None) -> float | None:
    """The step; 0 for none."""
    from certes.errors import InputError

    if text is None or text == "none":
        return None if text is None else 0.0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError("--step", repr(text), "a positive number, or none", "not-positive")
    return value


def _factors(texts: Any) -> dict[tuple[str, str], float]:
    """``TO/FROM=S`` -> (TO, FROM): S."""
    from certes.errors import InputError

    found: dict[tuple[str, str], float] = {}
    for text in texts:
        pair, equals, number = text.rpartition("=")
        to, slash, source = pair.partition("/")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (equals and slash and to and source and math.isfinite(value)):
            raise InputError("--scale", repr(text), "TO/FROM=S, as in --scale v1/v2=1.2", "wrong-type")
        if (to, source) in found:
            raise InputError("--scale", f"{to}/{source} twice", "each coupling once", "duplicate-key")
        found[to, source] = value
    return found
