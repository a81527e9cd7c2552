"""What the service answers, typed. Each is also the mapping that came, under the names of the API."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from certes.certificate.envelope import Envelope
from certes.proofs import Verdict
from certes.verify.report import Check, Report

from certes_client.remote.errors import BadAnswer, ServiceError

Choice = TypeVar("Choice")
_DIGEST, _NAME = re.compile("[0-9a-f]{64}"), re.compile("[0-9A-Za-z_-]{1,80}")
_VERDICTS: dict[str, Verdict] = {
    "contracting": "contracting", "not_contracting": "not_contracting", "undecided": "undecided",
}  # fmt: skip
_STATES = ("queued", "running", "done", "failed", "cancelled")
#: No job leaves these any more.
ENDED = frozenset({"done", "failed", "cancelled"})


@dataclass(frozen=True)
class Answer(Mapping[str, Any]):
    """An object as it came: a statement of the service, which nobody has checked yet.

    Attributes:
        raw: every member.
    """

    raw: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.raw[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def number(self, name: str) -> float | None:
        """A member that is a number, or null.

        Raises:
            BadAnswer: something else.
        """
        value = self.raw.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise BadAnswer(f"the service answered with {name} {value!r}, which is no number"[:300])
        return None if value is None else float(value)

    def one_of(self, name: str, choices: Mapping[str, Choice]) -> Choice:
        """A member that is one of a few words.

        Raises:
            BadAnswer: something else.
        """
        value = self.raw.get(name)
        if not isinstance(value, str) or value not in choices:
            raise BadAnswer(f"the service answered with the {name} {value!r}"[:300])
        return choices[value]

    def objects(self, name: str) -> tuple[Answer, ...]:
        """A member that is a list of objects; none where it is missing or null.

        Raises:
            BadAnswer: something else.
        """
        found = self.raw.get(name)
        entries = () if found is None else found
        if not isinstance(entries, list | tuple) or not all(isinstance(entry, Mapping) for entry in entries):
            raise BadAnswer(f"the service answered with {name} that are no list of objects")
        return tuple(Answer(entry) for entry in entries)

    def text(self, name: str) -> str | None:
        """A member that is text, or null.

        Raises:
            BadAnswer: something else.
        """
        value = self.raw.get(name)
        if value is not None and not isinstance(value, str):
            raise BadAnswer(f"the service answered with {name} {value!r}, which is no text"[:300])
        return value

    def part(self, name: str) -> Mapping[str, Any] | None:
        """A member that is an object, or null.

        Raises:
            BadAnswer: something else.
        """
        value = self.raw.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise BadAnswer(f"the service answered with {name} {value!r}, which is no object"[:300])
        return value


class Concluded(Answer):
    """An answer with a verdict and, unless it is undecided, a certificate."""

    @property
    def verdict(self) -> Verdict:
        """What the service says.

        Raises:
            BadAnswer: no verdict.
        """
        said = self.raw.get("verdict")
        if not isinstance(said, str) or said not in _VERDICTS:
            raise BadAnswer(f"the service answered with the verdict {said!r}"[:300])
        return _VERDICTS[said]

    @property
    def rate(self) -> float | None:
        """The rate, continuous time, 1/(unit of tau)."""
        return self.number("rate")

    @property
    def factor(self) -> float | None:
        """The factor of a map, per step."""
        return self.number("factor")

    @property
    def reason(self) -> str | None:
        """Stable code of why it is undecided."""
        return self.text("reason")

    @property
    def detail(self) -> str:
        """The cause in words."""
        return self.text("detail") or ""

    @property
    def cached(self) -> bool:
        """Whether it was answered from memory."""
        return self.raw.get("cached") is True

    @property
    def digest(self) -> str | None:
        """Of the certificate; None: there is none.

        Raises:
            BadAnswer: a certificate without a digest.
        """
        link = self.part("certificate")
        return None if link is None else digest(link.get("digest"))

    @property
    def envelope(self) -> bytes | None:
        """The certificate file that is in the answer; None: there is none.

        Raises:
            BadAnswer: one that is no envelope.
        """
        link = self.part("certificate")
        if link is None or link.get("envelope") is None:
            return None
        from certes import strictjson
        from certes.errors import InputError

        try:
            return Envelope.from_bytes(strictjson.canonical(link["envelope"], "certificate")).to_bytes()
        except InputError as error:
            raise BadAnswer(f"the service answered with a certificate that is none: {error}") from error


class CertificateAnswer(Concluded):
    """Of ``POST /v1/certificates``."""

    @property
    def condition(self) -> str | None:
        """The condition that proves it."""
        return self.text("condition")


class ProjectionAnswer(Concluded):
    """Of ``POST /v1/projections``."""

    @property
    def distance(self) -> float | None:
        """From the given weights to the new ones."""
        return self.number("distance")

    @property
    def unchanged(self) -> bool:
        """Whether the given weights pass as they are."""
        return self.raw.get("unchanged") is True

    @property
    def result(self) -> CertificateAnswer:
        """The answer about the new weights."""
        return CertificateAnswer(self.part("result") or {})


class AssemblyAnswer(Concluded):
    """Of ``POST /v1/assemblies``."""

    @property
    def documents(self) -> tuple[str, ...]:
        """Digests of every certificate in it, the whole last.

        Raises:
            BadAnswer: no digests.
        """
        link = self.part("certificate") or {}
        found = link.get("documents", ())
        if not isinstance(found, list | tuple) or not all(isinstance(entry, Mapping) for entry in found):
            raise BadAnswer("the service answered with certificates that are no list of objects")
        return tuple(digest(entry.get("digest")) for entry in found)


class TrainingAnswer(AssemblyAnswer):
    """Of ``POST /v1/trainings``."""

    @property
    def assembly(self) -> Mapping[str, Any]:
        """Modules and couplings, as ``certes compose`` reads them."""
        return self.part("assembly") or {}

    @property
    def curve(self) -> tuple[Mapping[str, float], ...]:
        """The learning curve, an entry for each epoch.

        Raises:
            BadAnswer: no such list.
        """
        return tuple(entry.raw for entry in self.objects("curve"))


class VerificationAnswer(Answer):
    """Of ``POST /v1/verifications``: what the service's verifier says, which binds nobody."""

    @property
    def valid(self) -> bool:
        """Whether it says that everything holds."""
        return self.raw.get("valid") is True

    @property
    def report(self) -> Report:
        """As the library's own verifier reports.

        Raises:
            BadAnswer: no such report.
        """
        verdict, checks = self.raw.get("verdict"), self.raw.get("checks", ())
        if not isinstance(verdict, str) or verdict not in _VERDICTS or not isinstance(checks, list | tuple):
            raise BadAnswer("the service answered with something that is no report")
        try:
            found = tuple(
                Check(str(entry["name"]), entry["held"] is True, str(entry.get("detail", "")), entry.get("missing"))
                for entry in checks
            )
        except (TypeError, KeyError, AttributeError):
            raise BadAnswer("the service answered with something that is no report") from None
        reason = None if self.valid else self.text("reason") or "invalid"
        return Report(_VERDICTS[verdict], found, reason, self.text("detail") or "")


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        phase: what is being done.
        fraction: of the whole; None: not known.
        message: in words.
    """

    phase: str
    fraction: float | None
    message: str


class Job(Answer):
    """One question that is being answered, or was."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """A job as it came.

        Raises:
            BadAnswer: no job.
        """
        name, state = raw.get("id"), raw.get("state")
        if not isinstance(name, str) or _NAME.fullmatch(name) is None or state not in _STATES:
            raise BadAnswer("the service answered with something that is no job")
        return cls(raw)

    def __repr__(self) -> str:
        return f"<Job {self.id}: {self.state}>"  # the rest may be megabytes

    @property
    def id(self) -> str:
        """Its name."""
        return str(self.raw["id"])

    @property
    def state(self) -> str:
        """``queued``, ``running``, ``done``, ``failed`` or ``cancelled``."""
        return str(self.raw["state"])

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in ENDED

    @property
    def progress(self) -> Progress | None:
        """How far it is; None before the first word of it."""
        told = self.part("progress")
        if told is None:
            return None
        fraction = told.get("fraction")
        known = None if isinstance(fraction, bool) or not isinstance(fraction, int | float) else float(fraction)
        return Progress(str(told.get("phase", "")), known, str(told.get("message", "")))

    @property
    def outcome(self) -> Mapping[str, Any]:
        """What it came to.

        Raises:
            ServiceError: it failed or was cancelled. BadAnswer: it is done without an answer, or not done.
        """
        if self.state == "failed":
            problem = self.part("error") or {"detail": "the job failed, and the service does not say why"}
            status = problem.get("status")
            raise ServiceError(status if isinstance(status, int) else 500, problem)
        if self.state == "cancelled":
            detail = "The job was cancelled before it came to an answer."
            raise ServiceError(409, {"type": "urn:certes:error:cancelled", "detail": detail, "status": 409})
        answer = self.part("answer")
        if answer is None:
            raise BadAnswer(f"the job {self.id} is {self.state} and has no answer")
        return answer

    @property
    def told(self) -> tuple[Any, ...]:
        """What changes while it goes on."""
        return (self.state, self.raw.get("attempt"), self.progress)


class Health(Answer):
    """The service is up."""

    @property
    def status(self) -> str:
        """``ok``."""
        return str(self.raw.get("status"))

    @property
    def version(self) -> str:
        """Of Certes there."""
        return str(self.raw.get("version"))


def digest(value: object) -> str:
    """A sha256 in hex, before it becomes a part of an address or of a file's name.

    Raises:
        BadAnswer: anything else.
    """
    if not isinstance(value, str) or _DIGEST.fullmatch(value) is None:
        raise BadAnswer(f"the service answered with the digest {value!r}"[:200])
    return value


def name_of(job: str) -> str:
    """The name of a job, before it becomes a part of an address.

    Raises:
        InputError: no such name.
    """
    from certes.errors import InputError

    if _NAME.fullmatch(job) is None:
        raise InputError("job", repr(job)[:80], "the name of a job", "malformed")
    return job
