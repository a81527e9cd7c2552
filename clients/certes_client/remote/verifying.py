"""What ``certes verify --server`` adds: a second verifier, elsewhere, that has to say the same."""

from __future__ import annotations

from pathlib import Path

from certes import formats
from certes.certificate.document import Certificate
from certes.certificate.envelope import read_key
from certes.verify.report import Report

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
    here = (report.valid, report.verdict, report.reason)
    if (found.valid, found.verdict, found.reason) != here:
        said = "valid" if found.valid else f"not valid ({found.reason})"
        mine = "valid" if report.valid else f"not valid ({report.reason})"
        raise Untrusted(f"the service says that the certificate is {said}; the verifier here says {mine}"[:500])
