"""What ``certes verify --server`` adds: a second verifier, elsewhere, that has to say the same."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from certes import formats
from certes.certificate.assembly import COUPLINGS_SUFFIX, AssemblyBundle
from certes.certificate.assembly_check import AssemblyReport
from certes.certificate.assembly_weights import weight_files
from certes.certificate.document import Certificate
from certes.certificate.envelope import read_key
from certes.errors import CertesError, InputError
from certes.verify.report import Report
from certes.words import printable

from certes_client.remote.errors import Untrusted
from certes_client.remote.option import connected


def agree(url: str, report: Report, certificate: Certificate, weights: Path, key: Path | None, *, exact: bool) -> None:
    """Ask the service's verifier too.

    Args:
        url: the service.
        report: of the verifier here, which is what counts.
        certificate: what was verified.
        weights: the file.
        key: that had to have signed.
        exact: whether it was audited exactly.

    Raises:
        Untrusted: it says something else. RemoteError: no answer.
    """
    pem = None if key is None else read_key(key)
    sent = formats.converted(weights) if formats.is_foreign(weights) else weights
    with connected(url) as client:
        found = client.verify(certificate.document, certificate.proof, sent, key=pem, exact=exact).report
    _same((report.valid, report.verdict, report.reason), (found.valid, found.verdict, found.reason))


def agree_on_assembly(
    url: str, report: AssemblyReport, bundle: AssemblyBundle, weights: Path, key: Path | None
) -> None:
    """As :func:`agree`, of an assembly: the service is sent every certificate, every proof and every weight file.

    Args:
        url: the service.
        report: of the verifier here, which is what counts.
        bundle: what was verified.
        weights: a weight file, or the folder that was searched.
        key: that had to have signed the whole.

    Raises:
        Untrusted: it says something else. RemoteError: no answer.
    """
    try:
        _ = bundle.statement
    except InputError:  # no envelope, or no statement: there is nothing that two verifiers could agree on
        return
    pem = None if key is None else read_key(key)
    with connected(url) as client:
        found = client.verify_assembly(bundle, _files(weights, bundle), key=pem)
        path = found.text("path")
    there = found.report
    _same(
        (report.valid, report.verdict, report.reason, report.path),
        (there.valid, there.verdict, there.reason, path),
    )


def _files(weights: Path, bundle: AssemblyBundle) -> dict[str, bytes]:
    """The weight files by name; couplings that lie beside the certificate are in the bundle."""
    found: dict[str, bytes] = {}
    for path in weight_files(weights):
        if path.name.removesuffix(COUPLINGS_SUFFIX) in bundle.couplings:
            continue
        if not formats.is_foreign(path):
            found[path.name] = path.read_bytes()
            continue
        with contextlib.suppress(CertesError):  # as in the verifier here: it may be no weight file at all
            found[path.stem + ".safetensors"] = formats.converted(path)
    return found


def _same(here: tuple[Any, ...], there: tuple[Any, ...]) -> None:
    """Raise Untrusted unless both verifiers say the same."""
    if here != there:
        mine, said = (_words(outcome) for outcome in (here, there))
        raise Untrusted(f"the service says that the certificate is {said}; the verifier here says {mine}"[:500])


def _words(outcome: tuple[Any, ...]) -> str:
    valid, verdict, reason, *path = outcome
    where = f" at {path[0]}" if path and path[0] else ""
    return printable(f"valid: {verdict}" if valid else f"not valid ({reason}{where})")
