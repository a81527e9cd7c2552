"""What is handed to a solver process: a question and all that it needs, as JSON and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from certes_service.questions.base import Attachment, Limits, Question
from certes_service.solving.protocol import Message

if TYPE_CHECKING:
    from certes_service.settings import Settings


@dataclass(frozen=True)
class Task:
    """One question for a solver process.

    Attributes:
        kind: of the question.
        parts: the question, but for weights and name.
        weights: bytes of the weight file.
        name: of that file.
        limits: that the solver is held to.
        attachments: digest -> stored certificate.
        resume: checkpoint to go on from.
        device: where training computes.
        spent: seconds that earlier attempts took.
    """

    kind: str
    parts: Mapping[str, Any]
    weights: bytes = field(repr=False)
    name: str
    limits: Limits
    attachments: Mapping[str, Attachment] = field(default_factory=dict, repr=False)
    resume: bytes | None = field(default=None, repr=False)
    device: str = "cpu"
    spent: float = 0.0

    @classmethod
    def of(
        cls,
        kind: str,
        request: Mapping[str, Any],
        weights: bytes,
        name: str,
        attached: Mapping[str, Attachment],
        settings: Settings,
        resume: bytes | None = None,
        device: str = "cpu",
        spent: float = 0.0,
    ) -> Self:
        """From what is kept of a job: ``request`` has the question's ``parts``."""
        return cls(kind, request["parts"], weights, name, Limits.of(settings), dict(attached), resume, device, spent)

    @classmethod
    def asking(cls, question: Question, settings: Settings, attached: Mapping[str, Attachment] | None = None) -> Self:
        """A question as it is, on the CPU; its own attachments (of a verification) come along."""
        request = {"parts": question.parts()}
        return cls.of(
            question.kind,
            request,
            question.weights,
            question.name,
            {**(attached or {}), **question.attached()},
            settings,
        )

    def message(self, seconds: float) -> Message:
        """As it travels."""
        blobs = {"weights": self.weights}
        if self.resume is not None:
            blobs["resume"] = self.resume
        for digest, entry in self.attachments.items():
            blobs[f"envelope {digest}"] = entry.envelope
            blobs[f"proof {digest}"] = entry.proof
            if entry.weights is not None:
                blobs[f"weights {digest}"] = entry.weights
        header = {
            "type": "task",
            "kind": self.kind,
            "parts": dict(self.parts),
            "name": self.name,
            "limits": asdict(self.limits),
            "attachments": list(self.attachments),
            "device": self.device,
            "spent": self.spent,
            "seconds": seconds,
        }
        return Message(header, blobs)

    @classmethod
    def read(cls, message: Message) -> tuple[Self, float]:
        """The task that a message is, and its time limit."""
        header, blobs = message.header, message.blobs
        attachments = {
            digest: Attachment(blobs[f"envelope {digest}"], blobs[f"proof {digest}"], blobs.get(f"weights {digest}"))
            for digest in header["attachments"]
        }
        limits = Limits(**header["limits"])
        task = cls(
            header["kind"],
            header["parts"],
            blobs["weights"],
            header["name"],
            limits,
            attachments,
            blobs.get("resume"),
            header["device"],
            float(header["spent"]),
        )
        return task, float(header["seconds"])
