"""Certificates: build, read, write, sign and check. Imports no condition and no engine.

:mod:`~certes.certificate.statement` is what is said, :mod:`~certes.certificate.envelope` how it is signed,
:mod:`~certes.certificate.document` the two files, :mod:`~certes.certificate.check` the numbered list of everything that
must hold before a certificate is believed.

Of assemblies: :mod:`~certes.certificate.assembly_statement`, :mod:`~certes.certificate.assembly` and
:mod:`~certes.certificate.assembly_check`, with :mod:`~certes.certificate.assembly_walk` and
:mod:`~certes.certificate.assembly_weights`, likewise.
"""

from certes.certificate.assembly import AssemblyBundle
from certes.certificate.assembly_check import AssemblyReport, verify_assembly
from certes.certificate.assembly_walk import ASSEMBLY_REASONS
from certes.certificate.check import REASONS, verify_certificate
from certes.certificate.document import Certificate, build, restated

__all__ = [
    "ASSEMBLY_REASONS",
    "REASONS",
    "AssemblyBundle",
    "AssemblyReport",
    "Certificate",
    "build",
    "restated",
    "verify_assembly",
    "verify_certificate",
]
