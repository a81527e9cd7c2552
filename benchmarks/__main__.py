"""Measure, print a table, write benchmarks/results/NAME.json and the tables in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks import report

NAMES = (
    "lure",
    "sparse",
    "engine",
    "growth",
    "general",
    "refutation",
    "projection",
    "assemblies",
    "service",
    "load",
    "training",
    "parallel",
)
ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks named (default: all)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="toy sizes: shows that it runs, measures nothing")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="where the JSON goes")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "benchmarks.md", help="page that holds the tables")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)}; known: {', '.join(NAMES)}")
    every = []
    for name in options.names or NAMES:
        rows = []
        for row in importlib.import_module(f"benchmarks.{name}").rows(options.quick):
            print("  ".join(filter(None, row.cells())), file=sys.stderr, flush=True)
            rows.append(row)
        about = report.machine()
        report.write_json(options.results / f"{name}.json", rows, about, options.quick)
        if not options.quick:
            report.write_markdown(options.docs, name, report.markdown(rows, about))
        every += rows
    report.show(every)
    print(f"Machine: {report.machine_line(report.machine())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
