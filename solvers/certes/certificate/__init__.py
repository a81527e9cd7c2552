"""Certificates: build, read, write, sign and check. Imports no condition and no engine.

:mod:`~certes.certificate.statement` is what is said, :mod:`~certes.certificate.envelope` how it is signed,
:mod:`~certes.certificate.document` the two files, :mod:`~certes.certificate.check` the numbered list of everything that
must hold before a certificate is believed.
"""

from certes.certificate.check import REASONS, verify_certificate
from certes.certificate.document import Certificate, build, restated

__all__ = ["REASONS", "Certificate", "build", "restated", "verify_certificate"]
