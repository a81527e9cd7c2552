"""What a process counts and measures, for Prometheus. No label is ever a stranger's word.

Everything is in a registry of this process alone; ``GET /metrics`` of the service and the metrics port of a worker show
it. Seconds and numbers of states; a verdict is counted where its solver came to it, once, not where it was remembered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from certes_service.jobs.job import Job
from certes_service.questions.base import Solved
from certes_service.storage.errors import StorageError

#: Seconds for which a count of the queue is shown again: whoever asks often must not keep the database busy.
_FRESH = 5.0
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_SOLVE_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 3600.0)
_SIZES = (16, 64, 256, 1024)
_VERDICTS = frozenset({"contracting", "not_contracting", "undecided"})
_CONDITIONS = frozenset(
    {"absolute", "symmetric", "product", "triangular", "singular", "lure", "interface", "exact", "whole", "monolithic"}
)


class Metrics:
    """Counts of one process; also the observer of its jobs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        one: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("certes_requests", "Requests answered.", ("route", "method", "status"), **one)
        self.request_seconds = Histogram(
            "certes_request_seconds", "From the request to the end of its answer.", ("route",),
            buckets=_REQUEST_SECONDS, **one,
        )  # fmt: skip
        self.verdicts = Counter("certes_verdicts", "Answers that solvers came to.", ("kind", "verdict"), **one)
        self.solve_seconds = Histogram(
            "certes_solve_seconds", "Time of a solver for one question, by what decided it and the number of states.",
            ("condition", "states"), buckets=_SOLVE_SECONDS, **one,
        )  # fmt: skip
        self.refusals = Counter(
            "certes_verifier_refusals", "Proofs that a solver proposed and the verifier refused.", ("condition",), **one
        )
        self.jobs = Counter("certes_jobs", "Jobs that this process worked on, by how that ended.", ("state",), **one)
        self.job_seconds = Histogram(
            "certes_job_seconds", "From taking a job to its end here.", ("kind",), buckets=_SOLVE_SECONDS, **one
        )
        self.kills = Counter("certes_solvers_killed", "Solver processes that were killed.", ("reason",), **one)
        self.moved = Counter("certes_jobs_handed_over", "Jobs of dead workers that went to others.", **one)

    def watch_queue(self, depths: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Show how many jobs wait and run, counted when somebody looks.

        Args:
            depths: (queue, state) -> number of jobs.
        """
        self.registry.register(_Queue(depths))

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered; ``route``: the template of its path, not the path."""
        known = method if method in _METHODS else "other"
        self.requests.labels(route, known, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def solved(self, job: Job, solved: Solved, seconds: float) -> None:
        """A solver came to an answer."""
        answer = solved.answer
        verdict, condition = str(answer.get("verdict")), str(answer.get("condition") or answer.get("mode"))
        self.verdicts.labels(job.kind, verdict if verdict in _VERDICTS else "other").inc()
        decided = condition if condition in _CONDITIONS else "none"
        self.solve_seconds.labels(decided, _bucket(solved.states)).observe(seconds)
        for attempt in answer.get("attempts") or ():
            if attempt.get("outcome") == "refused":
                tried = str(attempt.get("condition"))
                self.refusals.labels(tried if tried in _CONDITIONS else "other").inc()

    def ended(self, job: Job, state: str, seconds: float) -> None:
        """A job ended here."""
        self.jobs.labels(state).inc()
        self.job_seconds.labels(job.kind).observe(seconds)

    def killed(self, reason: str) -> None:
        """A solver was killed."""
        self.kills.labels(reason).inc()

    def handed_over(self, count: int) -> None:
        """Jobs of dead workers went to others."""
        self.moved.inc(count)


class _Queue(Collector):
    """How many jobs wait and run."""

    def __init__(self, depths: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._depths = depths
        self._seen: tuple[float, Mapping[tuple[str, str], int]] | None = None

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The metric without values: registering must not ask the database."""
        yield self._empty()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The metric; without values while the database is away."""
        found = self._empty()
        if self._seen is None or time.monotonic() - self._seen[0] > _FRESH:
            try:
                self._seen = (time.monotonic(), self._depths())
            except StorageError:
                self._seen = None
        for (queue, state), count in (self._seen[1] if self._seen else {}).items():
            found.add_metric((queue, state), count)
        yield found

    @staticmethod
    def _empty() -> GaugeMetricFamily:
        return GaugeMetricFamily("certes_queue_depth", "Jobs of all processes.", labels=("queue", "state"))


def _bucket(states: int | None) -> str:
    """A number of states as a label of few values."""
    if states is None:
        return "unknown"
    low = 1
    for high in _SIZES:
        if states <= high:
            return f"{low}-{high}"
        low = high + 1
    return f"{low}-"
