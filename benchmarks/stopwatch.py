"""Where the time goes: calls of named functions, timed from outside."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any


class Stopwatch:
    """Seconds spent under each label; a call within a call counts for the inner label only.

    Attributes:
        seconds: label -> seconds.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._within = [0.0]

    def timed(self, label: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, on the clock."""

        @functools.wraps(work)
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            self._within.append(0.0)
            try:
                return work(*arguments, **named)
            finally:
                spent = time.perf_counter() - start
                self.seconds[label] = self.seconds.get(label, 0.0) + spent - self._within.pop()
                self._within[-1] += spent

        return call

    @contextlib.contextmanager
    def watching(self, places: Sequence[tuple[Any, str, str]]) -> Iterator[None]:
        """Put functions on the clock for a while.

        Args:
            places: (module or class that the name is looked up in, name, label).

        Raises:
            AttributeError: a name that is not there.
        """
        originals = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
        try:
            for owner, name, label in places:
                setattr(owner, name, self.timed(label, getattr(owner, name)))
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)

    def shares(self, label: str) -> dict[str, float]:
        """Every label's share of the total, largest first; what ran under ``label`` alone is called "other"."""
        total = sum(self.seconds.values())
        named = {("other" if key == label else key): value / total for key, value in self.seconds.items()}
        return dict(sorted(named.items(), key=lambda entry: -entry[1]))
