"""What every test shares: one thread, reproducible properties, and a seeded sample of the slow tests.

The sample is as many slow tests as take ``CERTES_SLOW`` seconds (90, or another number; ``all``: every one), by what
``slow.json`` says that each takes; one that takes more than that is in no sample. Of a test with many cases,
``@pytest.mark.cases(5)`` runs five, drawn by the same seed. To measure the slow ones anew:

    CERTES_SLOW=all CERTES_SLOW_RECORD=tests/slow.json python -m pytest -n 2 -m slow
"""

from __future__ import annotations

import datetime
import json
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before the first import of numpy in this process
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

SLOW = "CERTES_SLOW"
SEED = "CERTES_SLOW_SEED"
RECORD = "CERTES_SLOW_RECORD"
#: Seconds: of the sample, and of a slow test that was never measured.
SAMPLE, UNKNOWN = 90, 30.0
SECONDS = Path(__file__).with_name("slow.json")
STARTED = time.time()
_measured: dict[str, float] = {}

hypothesis.settings.register_profile("fixed", deadline=None, derandomize=True)
hypothesis.settings.register_profile(
    "search", deadline=None, max_examples=1000
)  # HYPOTHESIS_PROFILE=search: look further
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def sample_of(names: Sequence[str], seconds: float, seed: str, known: Mapping[str, float]) -> set[str]:
    """Choose tests that take no more than so many seconds together, by what they are known to take.

    The order of `names` does not matter, so that all workers choose alike.
    """
    chosen: set[str] = set()
    left = seconds
    for name in random.Random(seed).sample(sorted(names), len(names)):
        cost = known.get(name, known.get(name.partition("[")[0], UNKNOWN))
        if cost <= left:
            chosen.add(name)
            left -= cost
    return chosen


def cases_of(names: Sequence[str], wanted: Mapping[str, int], seed: str) -> set[str]:
    """Choose, of the cases ``NAME[CASE]`` of each test ``NAME``, as many as are wanted. Their order does not matter."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(name.partition("[")[0], []).append(name)
    return {
        name
        for test, cases in groups.items()
        for name in random.Random(f"{seed} {test}").sample(cases, min(wanted[test], len(cases)))
    }


def known_seconds() -> dict[str, float]:
    """What each slow test takes, as it was measured last."""
    found: dict[str, float] = json.loads(SECONDS.read_text()) if SECONDS.exists() else {}
    return found


def pytest_configure(config: pytest.Config) -> None:
    # Set in the controller before it starts its workers: they inherit it and must collect the same tests.
    # One seed a day: everybody sees the same sample, and over the weeks each slow test has its turn.
    os.environ.setdefault(SEED, datetime.datetime.now(datetime.UTC).date().isoformat())
    wanted = os.environ.setdefault(SLOW, str(SAMPLE))
    if wanted != "all" and not wanted.isdecimal():
        raise pytest.UsageError(f"{SLOW}: got {wanted!r}; expected 'all' or how many seconds of slow tests to run")


def pytest_sessionstart(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):  # -q leaves out pytest's own header
        reporter.write_line(f"slow tests: {SLOW}={os.environ[SLOW]} {SEED}={os.environ[SEED]}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests and the cases that are not drawn, unless somebody asks for them by name or mark."""
    named = any("::" in argument for argument in config.args)
    if os.environ[SLOW] == "all" or named or config.getoption("markexpr") or config.getoption("keyword"):
        return
    slow = [item.nodeid for item in items if item.get_closest_marker("slow") is not None]
    left_out = set(slow) - sample_of(slow, int(os.environ[SLOW]), os.environ[SEED], known_seconds())
    marks = {item.nodeid: item.get_closest_marker("cases") for item in items if item.nodeid not in set(slow)}
    wanted = {name.partition("[")[0]: int(mark.args[0]) for name, mark in marks.items() if mark is not None}
    many = [name for name, mark in marks.items() if mark is not None]
    left_out |= set(many) - cases_of(many, wanted, os.environ[SEED])
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure the slow tests, if that is asked for."""
    began = time.monotonic()
    try:
        return (yield)
    finally:
        if RECORD in os.environ and item.get_closest_marker("slow") is not None:
            name = item.nodeid.partition("[")[0]
            _measured[name] = max(_measured.get(name, 0.0), round(time.monotonic() - began, 1))


def pytest_sessionfinish() -> None:
    if _measured:
        path = Path(os.environ[RECORD])
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(known | _measured, indent=1, sort_keys=True) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the search for a false yes saw in this run: that its cases were many, and hard."""
    report = Path("build/no-false-yes/summary.json")
    if not report.exists() or report.stat().st_mtime < STARTED:
        return
    summary = json.loads(report.read_text())
    for group, where in (("all", f" (by family in {report})"), ("bounds", "")):
        counts = ", ".join(f"{name}: {count}" for name, count in summary["counts"][group].items())
        terminalreporter.write_line(f"no false yes, {group}: {counts}{where}")
    for name, values in summary["exact relative margins"].items():
        shown = "  ".join(f"{value:.1e}" for value in values)
        terminalreporter.write_line(f"  exact margins, {name}: quantiles {summary['quantiles']}: {shown}")
