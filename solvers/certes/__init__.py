"""Certes: stability certificates for recurrent neural networks that anyone can check.

    >>> import certes
    >>> result = certes.certify(certes.RateNetwork([[0.0, -1.5], [1.5, 0.0]], activation="tanh"))
    >>> result.verdict
    'contracting'
    >>> certes.verify(result.certificate, {"W": [[0.0, -1.5], [1.5, 0.0]]}).valid
    True

Importing Certes loads numpy and nothing heavier; solvers and file formats load when they are used.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import certes.verify  # noqa: F401  (made callable below)
from certes._version import __version__
from certes.assemblies import Assembly, Coupling
from certes.cells import GatedNetwork, GRUNetwork, LSTMNetwork
from certes.certify import certify
from certes.errors import CertesError, InputError, MissingExtraError, TooLargeError
from certes.projection import Keep, Projection, project
from certes.proofs import Claims, GatedWitness, InstabilityWitness
from certes.results import Attempt, Result
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System, UnsupportedCell
from certes.verify.report import Check, Report

if TYPE_CHECKING:
    from certes.certificate.assembly import AssemblyBundle
    from certes.certificate.assembly_weights import AssemblyWeights
    from certes.certificate.document import Certificate
    from certes.composition.compose import Inside, compose
    from certes.composition.feedback import feedback
    from certes.composition.outcome import Composition
    from certes.projection.interconnection import project_interconnection
    from certes.verify.contraction import verify_contraction as _verify_contraction
    from certes.verify.instability import verify_instability as _verify_instability
    from certes.weights import WeightFile


class _Verify(ModuleType):
    """The package :mod:`certes.verify`, which can also be called."""

    if TYPE_CHECKING:
        verify_contraction = staticmethod(_verify_contraction)
        verify_instability = staticmethod(_verify_instability)

    def __call__(
        self,
        certificate: Certificate | AssemblyBundle | str | os.PathLike[str],
        weights: str | os.PathLike[str] | bytes | WeightFile | System | Mapping[str, Any] | AssemblyWeights | None,
        *,
        key: bytes | str | os.PathLike[str] | None = None,
        exact: bool = False,
    ) -> Report:
        """Check a whole certificate against weights, see :func:`certes.certificate.check.verify_certificate`.

        That of an assembly is checked with everything in it, see
        :func:`certes.certificate.assembly_check.verify_assembly`.

        Args:
            certificate: a certificate, or the path of its file.
            weights: the weight file (path, bytes or read), a system, or arrays by role (``{"W": W}``); for an assembly
                the assembly, a mapping by path, or weight files and folders.
            key: an Ed25519 public key (PEM bytes or path) that must have signed; None: signatures are not checked.
            exact: also audit in exact rational arithmetic (extra ``exact``).

        Returns:
            A report; ``valid`` if and only if everything held.

        Raises:
            InputError: a file or key that cannot be read; ``exact`` for an assembly.
            MissingExtraError: ``exact`` without its package.
        """
        from certes.certificate.assembly import AssemblyBundle, is_assembly
        from certes.certificate.assembly_check import verify_assembly
        from certes.certificate.check import verify_certificate

        given: Any = weights
        if isinstance(certificate, AssemblyBundle) or is_assembly(certificate):
            if exact:
                expected = "the certificate of one network (there is no exact audit of compositions)"
                raise InputError("exact", "the certificate of an assembly", expected, "unsupported")
            one: Any = certificate
            return verify_assembly(one, given, key=key)
        return verify_certificate(certificate, given, key=key, exact=exact)


if TYPE_CHECKING:
    verify: _Verify
else:
    verify = sys.modules["certes.verify"]
    verify.__class__ = _Verify


#: Names that load scipy or a file format, and therefore load when they are used.
_LATER = {
    "Certificate": "certes.certificate.document",
    "Composition": "certes.composition.outcome",
    "Inside": "certes.composition.compose",
    "compose": "certes.composition.compose",
    "feedback": "certes.composition.feedback",
    "project_interconnection": "certes.projection.interconnection",
}


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'certes' has no attribute {name!r}")


__all__ = [
    "Assembly",
    "Attempt",
    "CertesError",
    "Certificate",
    "Check",
    "Claims",
    "Composition",
    "Coupling",
    "GRUNetwork",
    "GatedNetwork",
    "GatedWitness",
    "HopfieldNetwork",
    "InputError",
    "Inside",
    "InstabilityWitness",
    "Keep",
    "LSTMNetwork",
    "LureSystem",
    "MissingExtraError",
    "Projection",
    "RateNetwork",
    "Report",
    "Result",
    "System",
    "TooLargeError",
    "UnsupportedCell",
    "__version__",
    "certify",
    "compose",
    "feedback",
    "project",
    "project_interconnection",
    "verify",
]
