"""The shapes of jobs on the wire, for OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Instant = Annotated[str, Field(description="RFC 3339")]


class Progress(BaseModel):
    """How far a job is."""

    phase: str = Field(description="what is being done")
    fraction: Annotated[float, Field(ge=0, le=1)] | None = Field(description="of the whole; null: not known")
    message: str


class JobAnswer(BaseModel):
    """One question that is being answered, or was."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    kind: str = Field(description="certificate, projection, interconnection, assembly or training")
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    name: str = Field(description="of the weight file")
    created: Instant
    started: Instant | None
    finished: Instant | None
    deadline: Instant | None
    priority: Annotated[int, Field(ge=-9, le=9)]
    attempt: int = Field(description="how many workers took it")
    progress: Progress | None
    answer: dict[str, Any] | None = Field(description="as the call would have answered; null until it is done")
    error: dict[str, Any] | None = Field(description="the problem in which it ended (RFC 9457); null otherwise")
    href: str
    events: str = Field(description="where it is followed as it happens")


class JobsAnswer(BaseModel):
    """Jobs, the youngest first; without their answers."""

    jobs: list[JobAnswer]
    next: str | None = Field(description="`before` of the next page; null: there is none")
