"""Every format of ``certes check``, byte for byte, for one model of every state.

What a pipeline parses is a promise. After a change that is meant, write them anew and read the difference:

    PYTHONPATH=.:tests python -m tests.client.test_check_golden
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from certes._version import __version__
from certes.certificate import Certificate
from certes_client.policy import reports
from certes_client.policy.checking import Outcome, Rule

ASSETS = Path(__file__).parents[1] / "assets"
#: Format -> the file with what it says.
GOLDEN = {
    "table": "check.txt", "json": "check.json", "junit": "check.xml", "sarif": "check.sarif",
    "github": "check.github", "markdown": "check.md",
}  # fmt: skip


def outcomes() -> list[Outcome]:
    """Passed and known, passed in two parts, failed by two rules, undecided, and not to be looked at."""
    certificate = Certificate.read(ASSETS / "certificates" / "v2" / "lure-rate")
    contracting = Rule("contracting", True, "contracting", "contracting, rate 0.25")
    part = [
        Rule("contracting", True, "contracting", "contracting, factor 0.9", name) for name in ("forward", "reverse")
    ]
    lost = [
        Rule("rate_at_least", False, "at least 0.3", "0.25"),
        Rule("signature", False, "a signature of a trusted key", "none"),
    ]
    unknown = Rule("contracting", False, "contracting", "undecided: the condition lure does not hold (deadline)")
    return [
        Outcome("controller", "nets/controller.safetensors", "passed", (contracting,),
                certificates=(("", certificate),), cached=True, seconds=0.0123),
        Outcome("both-ways", "nets/both ways.pt", "passed", tuple(part),
                certificates=tuple((rule.part, certificate) for rule in part), seconds=1.5),
        Outcome("filter", "nets/filter|new.safetensors", "failed", (contracting, *lost),
                certificates=(("", certificate),), seconds=2.25),
        Outcome("odd:one", "nets/100%,odd.safetensors", "undecided", (unknown,), detail="deadline", seconds=60.0),
        Outcome("gone", "nets/<gone>.safetensors", "error",
                detail="file: got nets/<gone>.safetensors; expected a file"),
    ]  # fmt: skip


def told(form: str) -> str:
    """What a format says, without the version of Certes."""
    if form == "table":
        with contextlib.redirect_stdout(io.StringIO()) as screen:
            reports.table(outcomes())
        return screen.getvalue()
    return reports.FORMATS[form](outcomes()).replace(f'"{__version__}"', '"VERSION"')


def test_every_format_is_here() -> None:
    assert set(GOLDEN) == {"table", *reports.FORMATS}
    assert {outcome.state for outcome in outcomes()} == {"passed", "failed", "undecided", "error"}


@pytest.mark.parametrize("form", GOLDEN)
def test_it_says_what_it_said(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert told(form) == (ASSETS / "check" / GOLDEN[form]).read_text()


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "160")
        for name, file in GOLDEN.items():
            (ASSETS / "check" / file).write_text(told(name))
