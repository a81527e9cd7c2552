"""When a call is tried again, and after how long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Too many requests, or not now: the service says so before it does anything.
_ALWAYS = frozenset({429, 503})
#: Something in between gave up; of the service itself a 504 is the end of a job.
_BETWEEN = frozenset({502, 504})


@dataclass(frozen=True)
class Retry:
    """How stubborn a client is.

    Attributes:
        attempts: how often one call is sent at most, the first time included.
        first: seconds of the first pause; each following one is twice as long, by chance down to half of that.
        most: longest pause of one's own accord, in seconds; what the service asks for in ``Retry-After`` may be longer.
        patience: while a job is waited for: seconds without any answer after which the service is given up.
        longest: longest pause that the service may ask for; beyond it, its answer is the answer.
    """

    attempts: int = 6
    first: float = 0.25
    most: float = 20.0
    patience: float = 300.0
    longest: float = 600.0

    def pause(self, tried: int, asked: float | None, chance: float) -> float:
        """Seconds until the next attempt.

        Args:
            tried: attempts so far, at least 1.
            asked: what ``Retry-After`` said, in seconds; None: nothing.
            chance: uniform on [0, 1); spreads callers that failed together.
        """
        own = min(self.most, self.first * 2.0 ** min(tried - 1, 60)) * (0.5 + 0.5 * chance)
        return own if asked is None else asked + min(own, 1.0) * chance


def retryable(status: int, headers: Mapping[str, str], problem: bool) -> bool:
    """Whether the same call may have another answer a little later.

    Args:
        status: of the answer.
        headers: of the answer, names in lower case.
        problem: whether the answer is a problem of the service, and not of something in between.
    """
    if "content-location" in headers:
        return False  # it is how a job has ended: the same call would be told the same
    return status in _ALWAYS or (status in _BETWEEN and not problem)


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that ``Retry-After`` asks for (RFC 9110, section 10.2.3): a number, or a date.

    Args:
        value: of the header.
        now: the time; default: that of the clock.

    Returns:
        None if there is no header, or none that can be read.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) < 10 else math.inf
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
