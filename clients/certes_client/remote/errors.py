"""What can go wrong between a client and a service; the exit code of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from certes.errors import CertesError, InputError
from certes.words import printable

BAD_INPUT, INTERNAL = 2, 4
#: Statuses that say that the question, its size or the caller's key is at fault.
_OURS = frozenset({400, 401, 403, 404, 409, 413, 415, 422, 501})
#: Problems of a job that was a question without fault: nothing was certified, and nothing is wrong with the input.
_THEIRS = ("training-", "internal")
_MEMBERS = ("field", "given", "expected", "limit")
PREFIX = "urn:certes:error:"


class RemoteError(CertesError):
    """Root of what goes wrong with a service.

    Attributes:
        exit_code: of the command line.
    """

    exit_code: int = INTERNAL
    _slug = "service"

    @property
    def told(self) -> tuple[str, int, dict[str, Any]]:
        """Slug, status and members of the problem that it is on the command line."""
        return self._slug, 502, {}


class ServiceError(RemoteError):
    """The service answered with a problem (RFC 9457).

    Attributes:
        status: HTTP status.
        problem: the problem object, or a stand-in if the answer was none.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"HTTP status {status}"))
        self.status = status
        self.problem = dict(problem)
        if status in _OURS and not self.slug.startswith(_THEIRS):
            self.exit_code = BAD_INPUT

    @property
    def slug(self) -> str:
        """The stable name of the problem; empty if it has none of Certes."""
        kind = str(self.problem.get("type", ""))
        return kind.removeprefix(PREFIX) if kind.startswith(PREFIX) else ""

    @property
    def told(self) -> tuple[str, int, dict[str, Any]]:
        """As the service told it."""
        members: dict[str, Any] = {name: self.problem[name] for name in _MEMBERS if name in self.problem}
        return self.slug or self._slug, self.status, members

    @property
    def about_input(self) -> InputError | None:
        """The error that the library would have raised, if it is about the question or its file."""
        found = [self.problem.get(name) for name in ("field", "given", "expected")]
        if self.exit_code != BAD_INPUT or self.status not in (400, 413, 422):
            return None
        if not all(isinstance(text, str) for text in found):
            return None
        field, given, expected = (printable(str(text), 1000) for text in found)
        return InputError(field.removeprefix("spec."), given, expected, self.slug or "invalid-value")


class Unreachable(RemoteError):
    """No answer came, however often it was tried."""

    _slug = "unreachable"


class TimedOut(RemoteError):
    """The time that the caller gave is over; what was asked may go on.

    Attributes:
        job: the job that goes on, if there is one: it can be waited for again.
    """

    _slug = "timed-out"

    def __init__(self, detail: str, job: str | None = None) -> None:
        super().__init__(detail)
        self.job = job


class BadAnswer(RemoteError):
    """What came is not what the service is documented to send."""

    _slug = "bad-answer"


class Untrusted(RemoteError):
    """The service said something that does not hold, or that it did not prove: nothing of it is reported."""

    _slug = "untrusted"
