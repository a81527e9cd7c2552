"""The verb ``attest``: bind a certificate to the files of a model, or check that it is bound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certes_client.commands import Json

if TYPE_CHECKING:
    from certes.certificate.attestation import Attestation


def attest(
    certificate: Annotated[Path, typer.Argument(metavar="CERT", help="The certificate, or a folder with one.")],
    weights: Annotated[Path, typer.Option(metavar="FILE", help="The weight file that it is about.")],
    manifest: Annotated[
        Path | None, typer.Option(metavar="MODEL.sig", help="Signature of model-signing over a model with that file.")
    ] = None,
    sign: Annotated[Path | None, typer.Option(metavar="KEY.pem", help="Ed25519 private key to sign with.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the attestation is written.")] = Path(),
    check: Annotated[
        Path | None, typer.Option(metavar="ATTESTATION", help="Write nothing: check this one instead.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="PUB.pem", help="With --check: Ed25519 public key that must have signed.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Bind a certificate to a weight file, and to the model that was signed with it.

    The certificate is verified first. Exits 0 bound, 1 the certificate or the attestation does not hold, 2 bad input,
    4 internal error.
    """
    from certes import formats
    from certes.certificate.attestation import Attestation, read_manifest
    from certes.certificate.check import verify_certificate
    from certes.certificate.document import Certificate
    from certes.certificate.envelope import read_key
    from certes.errors import InputError

    from certes_client import certifying, options

    if check is None and key is not None:
        raise InputError("--key", "a public key", "--check ATTESTATION beside it, or --sign to sign", "conflict")
    if check is not None and sign is not None:
        raise InputError("--sign", "a private key", "none with --check", "conflict")
    private = None if sign is None else certifying._readable(sign)
    found, file = Certificate.read(certificate), formats.read(weights)
    bound = None if manifest is None else read_manifest(manifest)
    report = verify_certificate(found, file)
    if not report.valid:
        return _refused(f"{report.reason}: {report.detail}", as_json)
    if check is not None:
        try:
            made = Attestation.read(check)
            made.check(found, file, bound, None if key is None else read_key(key))
        except InputError as error:
            if error.slug in ("unreadable", "bad-key"):
                raise
            return _refused(f"{error.slug}: {error}", as_json)
        return _told(made, check, as_json)
    made = Attestation.of(found, file, bound)
    made = made if private is None else made.sign(private)
    folder = options.folder(out)
    try:
        path = made.write(folder)
    except OSError as error:
        given = f"{folder}: {error.strerror or error}"
        raise InputError("--out", given, "a directory that can be written", "unwritable") from error
    return _told(made, path, as_json)


def _refused(reason: str, as_json: bool) -> int:
    from certes_client import output

    if as_json:
        output.print_json({"valid": False, "detail": reason, "attestation": None})
    else:
        output.console().print(output.headline("invalid", "nothing is attested"))
        output.console().print(output.fields([("reason", reason)]))
    return 1


def _told(made: Attestation, path: Path, as_json: bool) -> int:
    from certes.words import printable
    from rich.text import Text

    from certes_client import output

    predicate = made.statement.predicate
    signed = [key for key, _ in made.envelope.signatures]
    answer: dict[str, Any] = {"valid": True, "attestation": str(path), "digest": made.digest, "signed_by": signed}
    if as_json:
        subjects = [{"name": entry.name, "sha256": entry.digest.sha256} for entry in made.statement.subject]
        output.print_json(answer | {"subject": subjects, "certificate": predicate.certificate.sha256})
        return 0
    screen = output.console()
    screen.print(output.headline("valid", f"{predicate.certificate.verdict.replace('_', ' ')}: {path.name}"))
    model = predicate.manifest
    rows = [("file", f"{entry.name}, sha256 {entry.digest.sha256}") for entry in made.statement.subject[:1]]
    if model is not None:
        rows.append(
            ("model", f"{model.model.name}, sha256 {model.model.digest.sha256}; the file in it: {model.resource}")
        )
    rows += [("certificate", predicate.certificate.sha256), ("signed by", ", ".join(signed) or "nobody")]
    screen.print(output.fields([(name, printable(text, 1000)) for name, text in rows]))
    screen.print(Text.assemble(("  attestation  ", "dim"), printable(str(path), 4000)), soft_wrap=True)
    return 0
