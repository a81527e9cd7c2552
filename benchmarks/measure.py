"""Timing of contenders, alternated within one run, so that a slow spell of the machine hits all of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Quartiles of a sample.

    Attributes:
        median, low, high: median, lower and upper quartile.
        count: size of the sample.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Quartiles of values, inclusive of the extremes."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))


@dataclass(frozen=True)
class Contender:
    """Something to be timed.

    Attributes:
        name: what it is.
        work: the timed call; takes what ``prepare`` returned.
        prepare: makes fresh input for each call, not timed (for work that overwrites its input).
    """

    name: str
    work: Callable[..., object]
    prepare: Callable[[], tuple[object, ...]] = tuple

    def seconds(self) -> float:
        """Wall-clock seconds of one call."""
        given = self.prepare()
        start = time.perf_counter()
        self.work(*given)
        return time.perf_counter() - start


@dataclass(frozen=True)
class Race:
    """Ours against the fastest of the others.

    Attributes:
        ours: seconds per call.
        other: seconds per call of the fastest other (smallest median).
        other_name: which one that was.
        ratio: ours / other, round by round.
        medians: name -> median seconds of every contender.
    """

    ours: Spread
    other: Spread
    other_name: str
    ratio: Spread
    medians: dict[str, float]


def race(ours: Contender, others: Sequence[Contender], rounds: int) -> Race:
    """Time all contenders once per round, in rotating order, after one round to warm up.

    Args:
        ours: what is judged.
        others: alternatives; the fastest one is what ours is compared with.
        rounds: number of timed rounds.
    """
    contenders = [ours, *others]
    times: list[list[float]] = [[] for _ in contenders]
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(-1, rounds):
            for place in range(len(contenders)):
                k = (place + turn) % len(contenders)
                seconds = contenders[k].seconds()
                if turn >= 0:
                    times[k].append(seconds)
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    medians = [statistics.median(sample) for sample in times]
    best = min(range(1, len(contenders)), key=medians.__getitem__)
    ratios = [mine / theirs for mine, theirs in zip(times[0], times[best], strict=True)]
    return Race(
        Spread.of(times[0]),
        Spread.of(times[best]),
        contenders[best].name,
        Spread.of(ratios),
        {contender.name: median for contender, median in zip(contenders, medians, strict=True)},
    )
