"""What every test shares: one thread, reproducible properties, and a seeded sample of the slow tests."""

from __future__ import annotations

import datetime
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before the first import of numpy in this process
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

SLOW = "CERTES_SLOW"
SEED = "CERTES_SLOW_SEED"
SAMPLE_SIZE = 6
STARTED = time.time()

hypothesis.settings.register_profile("fixed", deadline=None, derandomize=True)
hypothesis.settings.register_profile(
    "search", deadline=None, max_examples=1000
)  # HYPOTHESIS_PROFILE=search: look further
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def sample_of(names: Sequence[str], size: int, seed: str) -> set[str]:
    """Choose `size` of `names`; the order of `names` does not matter, so that all workers choose alike."""
    return set(random.Random(seed).sample(sorted(names), min(size, len(names))))


def pytest_configure(config: pytest.Config) -> None:
    # Set in the controller before it starts its workers: they inherit it and must collect the same tests.
    # One seed a day: everybody sees the same sample, and over the weeks each slow test has its turn.
    os.environ.setdefault(SEED, datetime.datetime.now(datetime.UTC).date().isoformat())
    wanted = os.environ.setdefault(SLOW, str(SAMPLE_SIZE))
    if wanted != "all" and not wanted.isdecimal():
        raise pytest.UsageError(f"{SLOW}: got {wanted!r}; expected 'all' or how many slow tests to run")


def pytest_sessionstart(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):  # -q leaves out pytest's own header
        reporter.write_line(f"slow tests: {SLOW}={os.environ[SLOW]} {SEED}={os.environ[SEED]}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests that are not in the sample, unless somebody asks for them by name or mark."""
    named = any("::" in argument for argument in config.args)
    if os.environ[SLOW] == "all" or named or config.getoption("markexpr") or config.getoption("keyword"):
        return
    slow = [item.nodeid for item in items if item.get_closest_marker("slow") is not None]
    left_out = set(slow) - sample_of(slow, int(os.environ[SLOW]), os.environ[SEED])
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]


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
