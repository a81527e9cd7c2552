"""The slow tests: a sample by default, the same in every worker, all of them on request."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import sample_of
from tests.packaging.support import REPOSITORY, run

SUITE = """
import pytest

@pytest.mark.slow
@pytest.mark.parametrize("number", range(9))
def test_slow(number):
    pass

def test_quick():
    pass
"""


def report_of(folder: Path, *arguments: str, **environment: str) -> str:
    shutil.copy(REPOSITORY / "tests/conftest.py", folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\naddopts = -q -p no:schemathesis\n")
    (folder / "test_suite.py").write_text(SUITE)
    settings = {"CERTES_SLOW": "4", "CERTES_SLOW_SEED": "one"} | environment
    return run(sys.executable, "-m", "pytest", *arguments, cwd=folder, **settings).stdout


@pytest.mark.parametrize(
    ("arguments", "slow", "passed"),
    [((), "4", 5), (("-n", "2"), "4", 5), ((), "0", 1), ((), "all", 10), (("-m", "slow"), "0", 9)],
)
def test_how_many_slow_tests_run(tmp_path: Path, arguments: tuple[str, ...], slow: str, passed: int) -> None:
    report = report_of(tmp_path, *arguments, CERTES_SLOW=slow)
    assert f"{passed} passed" in report
    assert f"CERTES_SLOW={slow} CERTES_SLOW_SEED=one" in report


def test_the_seed_alone_chooses() -> None:
    names = [f"test_{number}" for number in range(20)]
    assert sample_of(names, 4, "one") == sample_of(names[::-1], 4, "one")
    assert len({frozenset(sample_of(names, 4, str(seed))) for seed in range(20)}) > 10
