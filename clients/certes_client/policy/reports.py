"""What ``certes check`` found, as people and pipelines read it: a table, JSON, JUnit, SARIF, GitHub, Markdown."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from certes._version import __version__
from certes.words import printable
from rich.table import Table
from rich.text import Text

from certes_client import output
from certes_client.policy.checking import Outcome, Rule, exit_code

_STYLES = {"passed": "bold green", "failed": "bold red", "undecided": "bold yellow", "error": "bold red"}
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
_HELP = {
    "contracting": "The network is contracting: verified in rigorous arithmetic.",
    "signature": "A trusted key has signed the certificate.",
    "rate_at_least": "The certified rate is at least what the policy demands.",
    "factor_at_most": "The certified factor per step is at most what the policy demands.",
    "weight_radius_at_least": "The weights may move as far as the policy demands with the proof still valid.",
    "step_margin_at_least": "The largest certified step is as much above the step that is run as the policy demands.",
    "allowed_regression": "No more was lost against the certificate accepted last than the policy allows.",
    "error": "The model could be looked at.",
}


def table(outcomes: Sequence[Outcome]) -> None:
    """For people, on stdout."""
    screen = output.console()
    grid = Table("model", "", "what", "certificate", box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for outcome in outcomes:
        said = Text(printable(outcome.sentence(), 1000))
        digest = "" if outcome.certificate is None else outcome.certificate.digest[:16]
        known = " (known)" if outcome.cached else ""
        grid.add_row(outcome.model, Text(outcome.state, _STYLES[outcome.state]), said, digest + known)
    screen.print(grid)


def as_object(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """As JSON: one entry per model, and the exit code."""
    return {"exit": exit_code(list(outcomes)), "models": [_entry(outcome) for outcome in outcomes]}


def as_json(outcomes: Sequence[Outcome]) -> str:
    """:func:`as_object` as text."""
    return json.dumps(as_object(outcomes), indent=2, allow_nan=False) + "\n"


def _entry(outcome: Outcome) -> dict[str, Any]:
    certificate = outcome.certificate
    claims = None if certificate is None else certificate.statement.predicate.claims.model_dump()
    return {
        "model": outcome.model,
        "file": outcome.file,
        "state": outcome.state,
        "detail": outcome.detail,
        "rules": [_rule(rule) for rule in outcome.rules],
        "verdict": None if certificate is None else certificate.verdict,
        "certificate": None if certificate is None else certificate.digest,
        "certificates": {part: document.digest for part, document in outcome.certificates},
        "claims": claims,
        "cached": outcome.cached,
    }


def _rule(rule: Rule) -> dict[str, Any]:
    """As an object; the part only where there are several."""
    return {key: value for key, value in vars(rule).items() if key != "part" or value}


def junit(outcomes: Sequence[Outcome]) -> str:
    """As JUnit XML: a test suite per model, a test case per rule."""
    root = ET.Element("testsuites", name="certes")
    for outcome in outcomes:
        cases: list[tuple[str, Rule | None]] = [(rule.label, rule) for rule in outcome.rules]
        cases = cases or [("error", None)]
        suite = ET.SubElement(root, "testsuite", name=outcome.model, tests=str(len(cases)))
        broken = sum(rule is not None and not rule.held for _, rule in cases)
        undecided = outcome.state == "undecided"
        suite.set("failures", str(0 if undecided else broken))
        suite.set("errors", str(int(outcome.state == "error")))
        suite.set("skipped", str(broken if undecided else 0))
        suite.set("time", f"{outcome.seconds:.3f}")
        for name, rule in cases:
            case = ET.SubElement(
                suite, "testcase", classname=f"certes.{outcome.model}", name=name, file=_xml(outcome.file)
            )
            if rule is None:
                ET.SubElement(case, "error", message=_xml(outcome.detail))
            elif not rule.held:
                ET.SubElement(case, "skipped" if undecided else "failure", message=_xml(rule.sentence()))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def sarif(outcomes: Sequence[Outcome]) -> str:
    """As SARIF 2.1.0: a result per rule that is broken, in the weights' file."""
    results = []
    for outcome in outcomes:
        problems = [(rule.name, rule.label, f"{outcome.model}: {rule.sentence()}") for rule in outcome.broken]
        if outcome.state == "error":
            problems = [("error", "error", f"{outcome.model}: {outcome.detail}")]
        for rule, label, text in problems:
            place = {"physicalLocation": {"artifactLocation": {"uri": quote(outcome.file.replace("\\", "/"))}}}
            level = "warning" if outcome.state == "undecided" else "error"
            results.append({
                "ruleId": f"certes/{rule}", "level": level, "message": {"text": printable(text, 2000)},
                "locations": [place], "partialFingerprints": {"certesModelRule/v1": f"{outcome.model}/{label}"},
            })  # fmt: skip
    rules = [{"id": f"certes/{name}", "shortDescription": {"text": text}} for name, text in _HELP.items()]
    driver = {"name": "certes", "version": __version__, "rules": rules}
    run = {"tool": {"driver": driver}, "results": results}
    return json.dumps({"$schema": _SARIF, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def github(outcomes: Sequence[Outcome]) -> str:
    """As commands of a GitHub workflow: an annotation on the weights' file for each model that did not pass."""
    lines = []
    for outcome in outcomes:
        if outcome.state == "passed":
            continue
        level = "warning" if outcome.state == "undecided" else "error"
        title = f"certes: {outcome.model} {outcome.state}"
        lines.append(
            f"::{level} file={_property(outcome.file)},title={_property(title)}::{_data(outcome.sentence())}\n"
        )
    return "".join(lines)


def markdown(outcomes: Sequence[Outcome]) -> str:
    """As a Markdown table, for a summary page or a comment."""
    lines = ["| model | | what | certificate |", "| --- | --- | --- | --- |"]
    for outcome in outcomes:
        digest = "" if outcome.certificate is None else f"`{outcome.certificate.digest[:16]}`"
        cells = [outcome.model, f"**{outcome.state}**", _cell(outcome.sentence()), digest]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


#: Format -> text; ``table`` is printed by :func:`table`.
FORMATS: dict[str, Callable[[Sequence[Outcome]], str]] = {
    "json": as_json, "junit": junit, "sarif": sarif, "github": github, "markdown": markdown,
}  # fmt: skip


def _xml(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", printable(text, 2000))


def _data(text: str) -> str:
    """Escaped as GitHub's runner reads it."""
    return printable(text, 2000).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _cell(text: str) -> str:
    said = printable(text, 2000).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return said.replace("<", "&lt;").replace("`", "\\`")
