"""The shapes of what an operator's tools ask, for OpenAPI."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    """The service is up."""

    status: Literal["ok"]
    version: str


class Ready(BaseModel):
    """The service can do its work."""

    status: Literal["ready"]
    parts: list[str] = Field(description="what was asked")
