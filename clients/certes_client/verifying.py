"""What ``certes verify`` does: check a certificate offline and say what was checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from certes import words
from certes.certificate.assembly import is_assembly
from certes.certificate.check import verify_certificate
from certes.certificate.document import Certificate
from certes.errors import InputError
from certes.verify.report import Report

from certes_client import output, verifying_assemblies

VALID, INVALID = 0, 1


def run(path: Path, weights: Path, key: Path | None, exact: bool, as_json: bool, server: str | None = None) -> int:
    """Check a certificate, of a network or of an assembly; returns the exit code.

    Raises:
        InputError: a file that cannot be read. MissingExtraError: ``exact`` without its extra. RemoteError: a
            ``server`` whose verifier does not say the same.
    """
    if is_assembly(path):
        return verifying_assemblies.run(path, weights, key, exact, as_json, server)
    with output.Progress("verify").running() as progress:
        progress("exact audit" if exact else "checking the obligations")
        certificate = _opened(path)
        # what is shown below is what was verified: the same bytes, not the file read once more
        report = verify_certificate(path if certificate is None else certificate, weights, key=key, exact=exact)
        if server is not None and certificate is not None:
            from certes_client.remote import verifying as remote

            progress("asking the service")
            remote.agree(server, report, certificate, weights, key, exact=exact)
    if as_json:
        output.print_json(as_object(report, certificate, exact))
    else:
        _summary(path, report, certificate, key)
    return VALID if report.valid else INVALID


def _opened(path: Path) -> Certificate | None:
    """The certificate, for what it says of itself; None if it cannot be read as one."""
    try:
        return Certificate.read(path)
    except InputError:
        return None


def as_object(report: Report, certificate: Certificate | None, exact: bool) -> dict[str, Any]:
    """The report as ``--json`` prints it."""
    checks = [
        {"name": check.name, "held": check.held, "detail": check.detail, "missing": check.missing}
        for check in report.checks
    ]
    answer: dict[str, Any] = {"valid": report.valid, "verdict": report.verdict, "reason": report.reason}
    answer |= {"detail": report.detail, "checks": checks, "exact": exact}
    if certificate is None:
        return answer | {"digest": None, "signed": None, "condition": None, "claims": None}
    claims = certificate.statement.predicate.claims.model_dump() if report.valid else None
    about = {"digest": certificate.digest, "signed": certificate.signed, "condition": certificate.condition}
    return answer | about | {"claims": claims}


def _summary(path: Path, report: Report, certificate: Certificate | None, key: Path | None) -> None:
    target = output.console()
    rows: list[tuple[str, str]] = []
    if report.valid and certificate is not None:
        target.print(output.headline("valid", words.proven_line(report.verdict, certificate.condition)))
        rows.append(("about", words.printable(words.statement_line(certificate.statement))))
        rows += words.claim_lines(certificate.claims, certificate)
        growth = certificate.statement.predicate.claims.growth
        if growth is not None:
            rows.append(("growth", words.growth_line(growth, certificate.condition)))
        checked = [check.name for check in report.checks if check.detail != "not claimed"]
        rows.append(("checked", f"{len(checked)} obligations: {', '.join(checked)}"))
        rows.append(("signature", _signature(certificate, key)))
        rows.append(("digest", certificate.digest))
    else:
        target.print(output.headline("invalid", words.printable(path.name)))
        rows.append(("reason", str(report.reason)))
        rows.append(("", words.printable(report.detail, 1000)))
        held = [check.name for check in report.checks if check.held]
        rows.append(("held before", ", ".join(held) or "nothing"))
    target.print(output.fields(rows))


def _signature(certificate: Certificate, key: Path | None) -> str:
    if not certificate.signed:
        return "unsigned: nobody vouches for who made it; what it says has been verified all the same"
    if key is None:
        return "signed, but NOT CHECKED: name the key that must have signed with --key PUB.pem"
    return f"signed by the key of {key.name}"
