"""The one error tree. Every error says which field, what was given and what was expected."""

from __future__ import annotations


class CertesError(Exception):
    """Root of every error that Certes raises on purpose."""


class InputError(CertesError, ValueError):
    """Input that cannot be a question to Certes: a user's mistake, never a crash.

    Attributes:
        field: the offending field, as the user named it (``"W"``, ``"slope"``, ``"spec.step"``).
        given: what was given, in words.
        expected: what would have been accepted, in words.
        slug: stable machine-readable type (``"not-finite"``); the service turns it into the problem ``type``.
    """

    def __init__(self, field: str, given: str, expected: str, slug: str = "invalid-value") -> None:
        super().__init__(f"{field}: got {given}; expected {expected}")
        self.field = field
        self.given = given
        self.expected = expected
        self.slug = slug


class TooLargeError(InputError):
    """Input beyond a configured limit (HTTP 413).

    Attributes:
        limit: the limit that was exceeded, in the unit named by ``expected``.
    """

    def __init__(self, field: str, given: str, limit: int, unit: str = "bytes") -> None:
        super().__init__(field, given, f"at most {limit} {unit}", slug="too-large")
        self.limit = limit


class MissingExtraError(CertesError, ImportError):
    """A package is not installed; the message names the extra that brings it, or Certes itself (no extra)."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        wanted = f"'certes[{extra}]'" if extra else "certes"
        super().__init__(f"{purpose} needs the package {package!r}: pip install {wanted}")
        self.package = package
        self.extra = extra
