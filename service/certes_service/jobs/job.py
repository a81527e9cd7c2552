"""A job: one question that is being answered, or was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

State = Literal["queued", "running", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
#: States that nothing leaves any more.
ENDED: frozenset[str] = frozenset({"done", "failed", "cancelled"})
#: The queue of each kind of question; every other kind is solved.
QUEUES: Mapping[str, str] = {"training": "train"}
SOLVE, TRAIN = "solve", "train"
#: A job says how urgent it is: 0 unless asked, higher goes first.
PRIORITIES = range(-9, 10)


def queue_of(kind: str) -> str:
    """The queue that a kind of question waits in."""
    return QUEUES.get(kind, SOLVE)


@dataclass(frozen=True)
class Job:
    """A row of the table of jobs.

    Attributes:
        id: its name, 32 hex digits.
        tenant: whose it is.
        kind: of question: ``certificate``, ``projection``, ``interconnection``, ``assembly``, ``training``.
        queue: ``solve`` or ``train``.
        question: digest of the question.
        request: what rebuilds the question, with the weights (JSON).
        weights: digest of the blob of the weights.
        name: name of the weights' file.
        state: queued, running, done, failed or cancelled.
        priority: higher goes first.
        deadline: when it is given up, in seconds since 1970; None: the limits of the service alone.
        created: when it was asked.
        started: when a worker first took it.
        finished: when it ended.
        owner: the worker that took it last.
        attempt: how many workers took it.
        progress: ``phase``, ``fraction`` (or null) and ``message``; None before the first.
        spent: seconds that attempts at it took so far; of trainings, which go on where an attempt left them.
        checkpoint: digest of the blob it would go on from.
        answer: what it came to; None before, and if it failed.
        error: members of the problem it ended in.
    """

    id: str
    tenant: str
    kind: str
    queue: str
    question: str
    request: dict[str, Any]
    weights: str | None
    name: str
    state: State
    priority: int
    deadline: float | None
    created: float
    started: float | None
    finished: float | None
    owner: str | None
    attempt: int
    spent: float
    progress: dict[str, Any] | None
    checkpoint: str | None
    answer: dict[str, Any] | None
    error: dict[str, Any] | None

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in ENDED

    @property
    def href(self) -> str:
        """Where it is read."""
        return f"/v1/jobs/{self.id}"

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Job:
        """The job in a row of the table."""
        values = {name: row[name] for name in cls.__dataclass_fields__}
        for name in ("request", "progress", "answer", "error"):
            values[name] = None if values[name] is None else json.loads(values[name])
        return cls(**values)

    def json(self, answer: dict[str, Any] | None = None) -> dict[str, Any]:
        """As it is told; ``answer`` replaces the stored one (the one with its certificate's envelope)."""
        return {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "name": self.name,
            "created": instant(self.created),
            "started": instant(self.started),
            "finished": instant(self.finished),
            "deadline": instant(self.deadline),
            "priority": self.priority,
            "attempt": self.attempt,
            "progress": self.progress,
            "answer": self.answer if answer is None else answer,
            "error": self.error,
            "href": self.href,
            "events": f"{self.href}/events",
        }


def instant(seconds: float | None) -> str | None:
    """A time as RFC 3339 has it, in milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
