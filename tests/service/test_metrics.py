"""What is counted, exactly once, and under which labels: a stranger's word never becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from certes_service.jobs.job import Job
from certes_service.operations.metrics import Metrics
from certes_service.questions.base import Solved
from certes_service.storage.errors import StorageError

JOB = Job(
    id="0" * 32, tenant="one", kind="certificate", queue="solve", question="d" * 64, request={}, weights=None,
    name="net.safetensors", state="running", priority=0, deadline=None, created=1.0, started=2.0, finished=None,
    owner="worker", attempt=1, progress=None, checkpoint=None, answer=None, error=None, spent=0.0,
)  # fmt: skip
STRANGE = 'strange"} 1\n'


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def labels(metrics: Metrics) -> set[str]:
    """All values of all labels."""
    return {
        said
        for family in metrics.registry.collect()
        for sample in family.samples
        for name, said in sample.labels.items()
        if name != "le"
    }


def test_requests(metrics: Metrics) -> None:
    metrics.request("/v1/jobs", "GET", 200, 0.02)
    metrics.request("/v1/jobs", "BREW", 405, 0.02)
    assert value(metrics, "certes_requests_total", route="/v1/jobs", method="GET", status="200") == 1
    assert value(metrics, "certes_requests_total", route="/v1/jobs", method="other", status="405") == 1
    assert value(metrics, "certes_request_seconds_count", route="/v1/jobs") == 2
    assert value(metrics, "certes_request_seconds_sum", route="/v1/jobs") == pytest.approx(0.04)


def test_a_verdict_is_counted_once(metrics: Metrics) -> None:
    metrics.solved(JOB, Solved({"verdict": "contracting", "condition": "lure", "mode": "whole"}, states=16), 0.25)
    assert value(metrics, "certes_verdicts_total", kind="certificate", verdict="contracting") == 1
    assert value(metrics, "certes_solve_seconds_count", condition="lure", states="1-16") == 1
    assert value(metrics, "certes_solve_seconds_sum", condition="lure", states="1-16") == 0.25
    metrics.solved(JOB, Solved({"verdict": "undecided", "condition": None, "mode": "interface"}, states=17), 0.25)
    assert value(metrics, "certes_verdicts_total", kind="certificate", verdict="undecided") == 1
    assert value(metrics, "certes_solve_seconds_count", condition="interface", states="17-64") == 1


@pytest.mark.parametrize(
    ("states", "label"),
    [(None, "unknown"), (1, "1-16"), (16, "1-16"), (17, "17-64"), (256, "65-256"), (1024, "257-1024"), (1025, "1025-")],
)
def test_numbers_of_states(metrics: Metrics, states: int | None, label: str) -> None:
    metrics.solved(JOB, Solved({"verdict": "contracting", "condition": "lure"}, states=states), 1.0)
    assert value(metrics, "certes_solve_seconds_count", condition="lure", states=label) == 1


def test_no_label_is_a_strangers_word(metrics: Metrics) -> None:
    attempts = [{"condition": STRANGE, "outcome": "refused"}]
    answer = {"verdict": STRANGE, "condition": STRANGE, "mode": STRANGE, "attempts": attempts}
    metrics.solved(JOB, Solved(answer), 1.0)
    metrics.request("none", STRANGE, 404, 1.0)
    assert not any("strange" in label for label in labels(metrics))
    assert value(metrics, "certes_verdicts_total", kind="certificate", verdict="other") == 1
    assert value(metrics, "certes_solve_seconds_count", condition="none", states="unknown") == 1
    assert value(metrics, "certes_verifier_refusals_total", condition="other") == 1


def test_proofs_that_the_verifier_refused(metrics: Metrics) -> None:
    """The alarm that a solver says yes wrongly: each of its proofs, and nothing else that was tried."""
    attempts = [
        {"condition": "lure", "outcome": outcome} for outcome in ("refused", "infeasible", "certified", "refused")
    ]
    metrics.solved(JOB, Solved({"verdict": "undecided", "attempts": attempts}), 1.0)
    metrics.solved(JOB, Solved({"verdict": "undecided", "attempts": None}), 1.0)
    assert value(metrics, "certes_verifier_refusals_total", condition="lure") == 2


def test_jobs(metrics: Metrics) -> None:
    metrics.ended(JOB, "done", 2.0)
    metrics.ended(replace(JOB, kind="training"), "failed", 3.0)
    assert value(metrics, "certes_jobs_total", state="done") == 1
    assert value(metrics, "certes_jobs_total", state="failed") == 1
    assert value(metrics, "certes_job_seconds_sum", kind="training") == 3.0
    metrics.killed("deadline")
    assert value(metrics, "certes_solvers_killed_total", reason="deadline") == 1
    metrics.handed_over(3)
    assert value(metrics, "certes_jobs_handed_over_total") == 3


def test_the_queue_is_counted_when_somebody_looks_but_not_each_time(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("certes_service.operations.metrics.time.monotonic", lambda: clock[0])
    looks: list[Any] = [{("solve", "queued"): 2}, {("solve", "queued"): 5}, StorageError("away"), {}]
    asked = []

    def depths() -> Mapping[tuple[str, str], int]:
        asked.append(clock[0])
        said = looks[len(asked) - 1]
        if isinstance(said, Exception):
            raise said
        return said  # type: ignore[no-any-return]

    metrics.watch_queue(depths)
    assert asked == [], "registering asks nothing"

    def depth() -> float | None:
        return value(metrics, "certes_queue_depth", queue="solve", state="queued")

    assert (depth(), depth()) == (2, 2)
    assert asked == [100.0]
    clock[0] += 5.1
    assert depth() == 5
    clock[0] += 5.1
    assert depth() is None, "an old number would be a wrong one"
    assert depth() is None
    assert asked == [100.0, clock[0] - 5.1, clock[0], clock[0]]
