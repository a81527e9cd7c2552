"""``report.html``: what a training came to, for people; one page without scripts, light or dark as the reader likes.

Numbers that are certified are rounded so that the page claims no more than the certificate.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from certes import words

#: Files of the figure, by theme.
FIGURES = {"light": "report.svg", "dark": "report-dark.svg"}

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1a1a1a; --soft: #5c636b; --line: #d7dbdf; --sign: #009e73; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --ink: #e6e6e6; --soft: #9aa4af; --line: #30363d; --sign: #2fbf94; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 52rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0 0 .25rem; font-size: 1.75rem; line-height: 1.2; }
h2 { margin: 2.5rem 0 .5rem; font-size: 1.125rem; }
p { margin: .25rem 0; }
.lead { font-size: 1.125rem; }
.lead b { color: var(--sign); }
figure { margin: 2rem 0; }
img { display: block; width: 100%; height: auto; }
figcaption, .soft { margin-top: .75rem; color: var(--soft); font-size: .875rem; }
table { width: 100%; border-collapse: collapse; table-layout: fixed; }
th, td { padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th, td { overflow-wrap: anywhere; }
th { width: 36%; font-weight: 400; color: var(--soft); }
td { font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 0 1.5rem; margin: 0; }
dl div { display: flex; justify-content: space-between; gap: 1rem; padding: .3rem 0;
  border-bottom: 1px solid var(--line); }
dt { color: var(--soft); }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .75rem 1rem; border: 1px solid var(--line);
  border-radius: .375rem; }
code, pre { font: .875rem/1.5 ui-monospace, monospace; }
"""


def page(report: Mapping[str, Any], certificate: str, files: Mapping[str, str], caption: str | None) -> str:
    """The page.

    Args:
        report: what ``report.json`` says.
        certificate: name of the certificate's file.
        files: name of every file in the folder -> what it is.
        caption: of the figure; None: there is none.
    """
    size = f"{_counted(report['modules'], 'module')}, {_counted(report['states'], 'state')}"
    parts = [
        f"<h1>Certified assembly: {size}</h1>",
        f'<p class="lead"><b>Contracting</b>, {escape(_level(report))}.</p>',
        _figure(caption),
        _table(_results(report)),
        "<h2>Check it</h2>",
        f"<pre>certes verify {escape(certificate)} --weights .</pre>",
        '<p class="soft">In this folder. Nobody has to be believed: the check reads the weights and the proofs.</p>',
        "<h2>How it was made</h2>",
        _settings(report["architecture"] | report["plan"]),
        f'<p class="soft">Data: sha256 {escape(report["data"])}</p>',
        "<h2>Files</h2>",
        _table(files.items()),
    ]
    head = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f"<title>Certified assembly: {size}</title>",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style>\n</head>\n<body>",
    ]
    return "\n".join([*head, *(part for part in parts if part), "</body>\n</html>\n"])


def _level(report: Mapping[str, Any]) -> str:
    """What is certified, in words."""
    run, gates = report.get("gate") or report, ", whatever its gate does" if report.get("gate") else ""
    if run["factor"] is not None:
        return f"as it is run, by a factor of at most {words.claimed(run['factor'], up=True)} a step{gates}"
    return f"in continuous time, with the rate {words.claimed(run['rate'], up=False)} or more{gates}"


def _results(report: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Rows of the first table."""
    if report["task"] == "classification":
        yield "accuracy on test data", f"{report['test_accuracy']:.4f}"
        yield "on validation data", f"{report['validation_accuracy']:.4f}"
    else:
        r2 = "" if report["test_r2"] is None else f", R\u00b2 {report['test_r2']:.4f}"
        yield "error on test data", f"{report['test_rmse']:.6g} (root mean square){r2}"
        yield "on validation data", f"{report['validation_rmse']:.6g}"
    yield "chosen", f"epoch {report['epoch']} of {report['epochs']}, by validation data; test data chose nothing"
    gate = report.get("gate")
    where = "" if gate is None else ", where the gate is open"
    if report["factor"] is not None:
        yield "certified factor", f"{words.claimed(report['factor'], up=True)} per step{where}"
    else:
        yield "certified rate", f"{words.claimed(report['rate'], up=False)}{where}"
    if gate is not None:
        yield "with its gate", words.gated(gate)
    yield "safe step", _safe(report["largest_step"])
    yield "parameters", f"{report['parameters']} trained; {_counted(report['couplings'], 'pair')} of coupled modules"
    if report["ended"] != "finished":
        yield "ended", f"by {report['ended']}"
    for note in report["notes"]:
        yield "note", str(note)


def _safe(step: float | None) -> str:
    """Which Euler steps contract, against the one that was trained."""
    if step is None:
        return "none is certified: of the differential equation only"
    if step == 1.0:
        return "the step that was trained, and every smaller one; larger ones were not tried"
    return f"every Euler step up to {words.claimed(step, up=False)} times the one that was trained"


def _figure(caption: str | None) -> str:
    if caption is None:
        return ""
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{FIGURES["dark"]}">'
        f'<img src="{FIGURES["light"]}" alt="Learning curve and assembly"></picture>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "\n".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>\n{cells}\n</table>"


def _settings(values: Mapping[str, Any]) -> str:
    cells = "\n".join(
        f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(_plain(value))}</dd></div>"
        for name, value in values.items()
    )
    return f"<dl>\n{cells}\n</dl>"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else "-" if value is None else json.dumps(value)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
