"""What ``certes figure`` does: verify a certificate, make its picture, draw it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from certes import formats, words
from certes.certificate.check import verify_certificate
from certes.certificate.document import Certificate
from certes.certificate.statement import Statement
from certes.errors import CertesError, InputError
from certes.figure.drawing import Theme, draw, require, suffix
from certes.figure.pictures import picture
from certes.systems import System
from certes.weights import WeightFile
from rich.text import Text

from certes_client import output


def run(
    path: Path, weights: Path | None, out: Path | None, theme: Theme, as_json: bool, server: str | None = None
) -> int:
    """Draw the picture of a certificate that holds; returns the exit code.

    Args:
        path: the certificate, or a folder with one.
        weights: the weight file; None: the one that the certificate names, beside it or in the working directory.
        out: the image; None: the certificate's name with ``.svg``, in the working directory.
        theme: ``light`` or ``dark``.
        as_json: print one JSON object.
        server: address of a service that has the certificate and draws; None: it is drawn here.

    Raises:
        InputError: anything about the input; a certificate that does not hold is refused with the verifier's reason.
        MissingExtraError: matplotlib is not installed. RemoteError: the service did not draw.
    """
    certificate = Certificate.read(path)
    target = Path(f"{certificate.digest}.svg") if out is None else out
    kind = suffix(target)
    if server is None:
        require()
    elif kind != "svg":
        raise InputError("--out", str(target), "a file FIGURE.svg: a service draws no other", "unsupported")
    with output.Progress("figure").running() as progress:
        progress("verifying the certificate")
        file = _named_file(path, certificate.statement) if weights is None else formats.read(weights)
        report = verify_certificate(certificate, file)
        if not report.valid:
            expected = "a certificate that holds: nothing else is drawn"
            raise InputError("certificate", f"{report.reason}: {report.detail}", expected, str(report.reason))
        progress("tracing the field of values")
        system = certificate.statement.predicate.system.system(file)
        if not isinstance(system, System):
            raise InputError("certificate", "a gated cell", "a network with a figure: cells have none", "no-figure")
        shown = picture(system, certificate.array_proof, certificate.claims)
        progress("drawing")
        if server is None:
            draw(shown, target, theme)
        else:
            from certes_client.remote import figuring as remote

            remote.save(server, certificate.digest, target, theme)
    if as_json:
        output.print_json({"figure": str(target), "digest": certificate.digest, "caption": shown.caption})
    else:
        written = words.printable(str(target), 4000)
        output.console().print(Text.assemble(("  figure       ", "dim"), written), soft_wrap=True)
        output.console().print(output.fields([("caption", shown.caption)]))
    return 0


def _named_file(path: Path, statement: Statement) -> WeightFile:
    """The weight file that a certificate names, found by its name and recognised by its digest.

    Raises:
        InputError: it names none, or the file is neither beside the certificate nor in the working directory.
    """
    subject = statement.file_subject()
    if subject is None:
        raise InputError(
            "--weights", "nothing, and the certificate names no file", "the weight file", "missing-weights"
        )
    for candidate in _places(path, subject.name):
        try:
            found = formats.read(candidate)
        except CertesError:
            if not formats.is_foreign(candidate):
                raise
            continue  # of that name, and no weight file, or one that needs a library that is not here
        if found.sha256 == subject.digest.sha256:
            return found
    given = f"nothing, and no {words.printable(subject.name)!r} of that digest beside the certificate or here"
    raise InputError("--weights", given, "the weight file", "missing-weights")


def _places(path: Path, name: str) -> Iterator[Path]:
    """Files of a name beside a certificate and in the working directory; a name with a folder in it is no name.

    First those of that very name, then those of other formats that convert to a file of that name.
    """
    if name != Path(name).name:
        return
    beside = path if path.is_dir() else path.parent
    folders = dict.fromkeys((beside.resolve(), Path.cwd()))
    stem = name.removesuffix(".safetensors")
    foreign = [] if stem == name else [stem + suffix for suffix in (*formats.SUFFIXES, ".bin")]
    for entry in (name, *foreign):
        for folder in folders:
            if (folder / entry).is_file() and (entry == name or formats.is_foreign(folder / entry)):
                yield folder / entry
