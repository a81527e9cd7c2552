"""Results as a table for the terminal, as JSON and as markdown."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from benchmarks.measure import Race, Spread

Unit = Literal["", "x", "times faster", "s", "GB", "n^2 doubles"]


@dataclass(frozen=True)
class Row:
    """One measured number beside its aim.

    Attributes:
        what: what was measured.
        size: of which problem.
        value: the number.
        unit: ``x``: ours / other; ``times faster``: other / ours; ``s``; ``GB``: 10^9 bytes; ``n^2 doubles``: 8 n^2
            bytes; empty: a plain number.
        aim: the value should be at most this (``times faster``: at least); None: no aim was set.
        ours, other: seconds per call, where times were taken.
        other_name: what ours is compared with, or where our time goes.
        because: why an aim is missed, if it is.
        note: further findings by name.
    """

    what: str
    size: str
    value: Spread
    unit: Unit
    aim: float | None = None
    ours: Spread | None = None
    other: Spread | None = None
    other_name: str = ""
    because: str = "no reason recorded"
    note: Mapping[str, object] | None = None

    @classmethod
    def of_race(cls, what: str, size: str, race: Race, aim: float | None = None, because: str = "") -> Row:
        """A ratio of times."""
        return cls(what, size, race.ratio, "x", aim, race.ours, race.other, race.other_name, because, race.medians)

    @property
    def outcome(self) -> str:
        """``met``, ``missed because ...``, or a dash where no aim was set."""
        if self.aim is None:
            return "-"
        met = self.value.median >= self.aim if self._more_is_better else self.value.median <= self.aim
        return "met" if met else f"missed because {self.because}"

    @property
    def _more_is_better(self) -> bool:
        return self.unit == "times faster"

    def cells(self) -> list[str]:
        """The row of a table."""
        value = self.value
        measured = f"{value.median:.3g} {self.unit}".strip()
        if value.count > 1:
            measured += f" ({value.low:.3g} to {value.high:.3g})"
        aim = (
            "none" if self.aim is None else f"{'>=' if self._more_is_better else '<='} {self.aim:g} {self.unit}".strip()
        )
        return [
            self.what,
            self.size,
            duration(self.ours),
            duration(self.other),
            self.other_name,
            measured,
            aim,
            self.outcome,
        ]


WHICH = "which, or where the time goes"
HEADINGS = ["measured", "size", "Certes", "alternative", WHICH, "result (quartiles)", "aim", "outcome"]


def duration(spread: Spread | None) -> str:
    """Median seconds in a readable unit."""
    if spread is None:
        return ""
    seconds = spread.median
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1.0:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": version("scipy"),
        "blas": f"{blas['name']} {blas['version']}",
        "threads": int(os.environ.get("OPENBLAS_NUM_THREADS", "0")) or "all cores",
        "load": round(os.getloadavg()[0], 2),
    }


def _cpu_name() -> str:
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        return platform.processor() or "unknown"
    name = fields.get("model name", platform.processor() or "unknown")
    numbers = [f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def machine_line(about: dict[str, Any]) -> str:
    """The machine in one sentence."""
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['system']}; Python {about['python']}, numpy {about['numpy']}, "
        f"scipy {about['scipy']}, {about['blas']}, BLAS threads: {about['threads']}; "
        f"load average at the end {about['load']}."
    )


def show(rows: Sequence[Row]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*row.cells())
    Console(width=None if os.isatty(1) else 200).print(table)


def write_json(path: Path, rows: Sequence[Row], about: dict[str, Any], quick: bool) -> None:
    """One file per benchmark: machine, rows with seconds and quartiles, outcomes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": about, "quick": quick, "rows": [asdict(row) | {"outcome": row.outcome} for row in rows]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def markdown(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """A table for docs/benchmarks.md."""
    lines = [f"Machine: {machine_line(about)}", "", "| " + " | ".join(HEADINGS) + " |", "| --- " * len(HEADINGS) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row.cells()) + " |" for row in rows]
    return "\n".join(lines)


def write_markdown(path: Path, name: str, text: str) -> None:
    """Replace what stands between the markers ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``.

    Raises:
        ValueError: the file lacks them.
    """
    first, last = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    whole = path.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{path} lacks the markers {first} and {last}")
    path.write_text(f"{before}{first}\n{text}\n{last}{after}", encoding="utf-8")
