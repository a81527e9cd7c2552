"""The slow tests: a sample by default, the same in every worker, all of them on request."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import UNKNOWN, cases_of, known_seconds, sample_of
from tests.packaging.support import REPOSITORY, run

SUITE = """
import pytest

@pytest.mark.slow
@pytest.mark.parametrize("number", range(9))
def test_slow(number):
    pass

@pytest.mark.cases(2)
@pytest.mark.parametrize("number", range(5))
def test_many(number):
    pass

def test_quick():
    pass
"""


def report_of(folder: Path, *arguments: str, **environment: str) -> str:
    shutil.copy(REPOSITORY / "tests/conftest.py", folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  slow\n  cases(n)\naddopts = -q -p no:schemathesis\n")
    (folder / "test_suite.py").write_text(SUITE)
    (folder / "slow.json").write_text('{"test_suite.py::test_slow": 10}')
    settings = {"CERTES_SLOW": "40", "CERTES_SLOW_SEED": "one"} | environment
    return run(sys.executable, "-m", "pytest", *arguments, cwd=folder, **settings).stdout


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("arguments", "slow", "passed"),
    [((), "40", 7), (("-n", "2"), "49", 7), ((), "0", 3), ((), "all", 15), (("-m", "slow"), "0", 9)],
)
def test_how_many_slow_tests_run(tmp_path: Path, arguments: tuple[str, ...], slow: str, passed: int) -> None:
    report = report_of(tmp_path, *arguments, CERTES_SLOW=slow)
    assert f"{passed} passed" in report
    assert f"CERTES_SLOW={slow} CERTES_SLOW_SEED=one" in report


def test_the_seed_alone_chooses() -> None:
    names = [f"test_{number}" for number in range(20)]
    known = dict.fromkeys(names, 1.0)
    assert len(sample_of(names, 4.0, "one", known)) == 4
    assert sample_of(names, 4.0, "one", known) == sample_of(names[::-1], 4.0, "one", known)
    assert len({frozenset(sample_of(names, 4.0, str(seed), known)) for seed in range(20)}) > 10


def test_cases_are_drawn_of_each_test_by_the_seed() -> None:
    names = [f"test_{test}[{case}]" for test in "ab" for case in range(8)]
    wanted = {"test_a": 3, "test_b": 20}
    drawn = cases_of(names, wanted, "one")
    assert drawn == cases_of(names[::-1], wanted, "one")
    assert sum(name.startswith("test_a") for name in drawn) == 3
    assert drawn >= set(names[8:])
    assert set().union(*(cases_of(names, wanted, str(seed)) for seed in range(60))) == set(names), "each has its turn"


def test_no_sample_takes_longer_than_it_may() -> None:
    names = [f"test_{number}[{k}]" for number in range(20) for k in range(3)] + ["test_unmeasured"]
    known = {f"test_{number}": 1.0 + 15.0 * number for number in range(20)}
    seen: set[str] = set()
    for seed in range(300):
        chosen = sample_of(names, 90.0, str(seed), known)
        assert sum(known.get(name.partition("[")[0], UNKNOWN) for name in chosen) <= 90.0
        assert chosen
        seen |= chosen
    assert seen == {name for name in names if known.get(name.partition("[")[0], UNKNOWN) <= 90.0}, "each has its turn"


def test_what_slow_tests_take_is_recorded(tmp_path: Path) -> None:
    report_of(tmp_path, CERTES_SLOW="all", CERTES_SLOW_RECORD="measured.json")
    assert list(json.loads((tmp_path / "measured.json").read_text())) == ["test_suite.py::test_slow"]


def test_what_was_recorded_is_of_tests_that_are_there() -> None:
    for name in known_seconds():
        file, _, test = name.partition("::")
        assert f"def {test}(" in (REPOSITORY / file).read_text(), name
