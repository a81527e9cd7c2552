"""A watch on a long computation: time limit, cancellation and progress, asked between two pieces of work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

import numpy as np

from certes.errors import InputError


class Monitor:
    """When to stop, and whom to tell.

    Attributes:
        cancelled: asked now and then whether to give up.
        report: called with a short line of text now and then, or None.
    """

    def __init__(
        self,
        seconds: float | None = None,
        cancelled: Callable[[], bool] | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        """Start the clock; ``seconds`` None: no time limit."""
        self.end = None if seconds is None else time.monotonic() + seconds
        self.cancelled = cancelled
        self.report = report

    @property
    def left(self) -> float | None:
        """Seconds left (not below 0), None for no limit."""
        return None if self.end is None else max(self.end - time.monotonic(), 0.0)

    @property
    def why(self) -> Literal["deadline", "cancelled"] | None:
        """Why to stop now, or None."""
        if self.cancelled is not None and self.cancelled():
            return "cancelled"
        return "deadline" if self.end is not None and time.monotonic() >= self.end else None

    @property
    def over(self) -> bool:
        """Whether to stop now."""
        return self.why is not None

    def say(self, line: str) -> None:
        """Report progress."""
        if self.report is not None:
            self.report(line)


def time_limit(seconds: object) -> float | None:
    """A time limit as users give it: a positive number of seconds, or None.

    Raises:
        InputError: anything else.
    """
    if seconds is None:
        return None
    number = isinstance(seconds, (int, float, np.floating, np.integer)) and not isinstance(seconds, bool)
    if not number or not 0 < float(seconds) < math.inf:  # type: ignore[arg-type]
        raise InputError("seconds", repr(seconds), "a positive number of seconds, or None", "not-positive")
    return float(seconds)  # type: ignore[arg-type]
