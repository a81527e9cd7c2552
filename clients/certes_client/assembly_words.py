"""A composition in plain words: lines and tables. Only text is made here; nothing is decided."""

from __future__ import annotations

from collections.abc import Iterator

from certes.assemblies import SEPARATOR, Assembly
from certes.composition.outcome import Composed, Composition, EdgeReport
from certes.systems import System
from certes.words import claimed, gated, number, printable
from rich.table import Table
from rich.text import Text

#: Rows of a table; of more, those that limit most.
ROWS = 30

#: mode -> what it is, for a reader who meets the name for the first time.
MODES: dict[str, str] = {
    "interface": "metrics and rates of the modules, and bounds of their couplings",
    "feedback": "interface, whose couplings are skew in the metrics and cost nothing",
    "hierarchy": "interface, whose couplings all point one way and cost nothing",
    "exact": "the best that follows from metrics and rates of the modules alone",
    "whole": "the Lur'e inequality of all states in the modules' metrics",
    "monolithic": "the Lur'e inequality of all states in any metric",
}


def assembly_line(assembly: Assembly) -> str:
    """An assembly in one line."""
    networks = sum(1 for _ in assembly.leaves())
    inner = f" in {len(assembly.modules)} modules" if networks != len(assembly.modules) else ""
    time = "continuous time" if assembly.continuous else "a map"
    if assembly.step is not None:
        time = f"a map, step {assembly.step:g}"
    parts = [_counted(networks, "network") + inner, _counted(len(assembly.couplings), "coupling")]
    return ", ".join([*parts, _counted(assembly.size, "state"), time])


def level_text(composition: Composition) -> str:
    """The proven rate or factor, with the gate if there is one, rounded to the safe side; a dash if there is none."""
    run = composition.gated or {"rate": composition.rate, "factor": composition.factor}
    return _level(run["rate"], run["factor"])


def _level(rate: float | None, factor: float | None) -> str:
    if rate is not None:
        return claimed(rate, up=False)
    return "-" if factor is None else claimed(factor, up=True)


def composition_lines(found: Composition) -> list[tuple[str, str]]:
    """(name, sentence) for what is proven of the whole."""
    rows: list[tuple[str, str]] = []
    unit = "rate" if found.assembly.continuous else "factor"
    if found.verdict == "contracting":
        level = _level(found.rate, found.factor)
        meaning = f"the distance of any two trajectories falls at least like exp(-{level} t)"
        if unit == "factor":
            meaning = "each step multiplies the distance of any two states by at most this"
        if found.gated is not None:
            rows.append(("gated", gated(found.gated)))
            meaning = "where the gate is open, " + meaning
        rows.append((unit, f"{level}: {meaning}"))
        rows.append(("proven by", f"{found.mode}: {MODES.get(str(found.mode), '')}"))
    if found.gate is not None and found.verdict == "not_contracting":
        rows.append(("gated", "refuted where the gate is open; what the gate leaves of a step may contract"))
    if found.modes:
        texts = [f"{name} {'-' if value is None else f'{value:.6g}'}" for name, value in found.modes.items()]
        rows.append(("modes", ", ".join(texts)))
    if found.largest_step is not None:
        step = claimed(found.largest_step[0], up=False)
        rows.append(("largest step", f"{step}: every Euler step of the whole up to this contracts"))
    if found.whole_step is not None:
        step = claimed(found.whole_step[0], up=False)
        rows.append(("" if found.largest_step else "largest step", f"{step} as a whole: --step {step} certifies it"))
    if found.lipschitz is not None:
        rows.append(("Lipschitz", f"{claimed(found.lipschitz, up=True)}, in the metric of the whole"))
    return rows


def proved_lines(found: Composition) -> list[tuple[str, str]]:
    """Which networks were proven anew."""
    if not found.proved:
        return [("proven anew", "no network: answered from the interfaces")]
    shown = ", ".join(printable(path, 60) for path in found.proved[:8])
    more = len(found.proved) - 8
    return [("proven anew", shown + (f", and {more} more" if more > 0 else ""))]


def modules_table(found: Composition) -> Table:
    """Every module with its path, its states and its rate; the one that limits is marked."""
    unit = "rate" if found.assembly.continuous or found.assembly.step is not None else "factor"
    table = _table("module", "states", unit, "")
    rows = list(_modules(found))
    shown = rows
    if len(rows) > ROWS:
        lowest = sorted(rows, key=lambda row: _badness(row[2], unit), reverse=True)[:ROWS]
        shown = [row for row in rows if row in lowest]
    for path, states, level, note in shown:
        text = "-" if level is None else claimed(level, up=unit == "factor")
        table.add_row(Text(printable(path, 80)), Text(str(states)), Text(text), Text(note, style="bold"))
    if len(rows) > len(shown):
        table.add_row(Text(f"and {len(rows) - len(shown)} more", style="dim"))
    return table


def edges_table(found: Composition) -> Table:
    """Every coupling of the top level: how strong, and (in continuous time) what it costs."""
    costly = found.assembly.continuous or found.assembly.step is not None
    table = _table("coupling", "strength", *(("costs", "") if costly else ()))
    shown = sorted(found.edges, key=lambda edge: (edge.slope, edge.strength), reverse=True)[:ROWS]
    for edge in shown:
        cells = [Text(edge_name(edge)), Text(number(edge.strength))]
        if costly:
            cells.append(Text(f"{edge.slope:.3g}" if edge.slope > 1e-9 else "0"))
            cells.append(Text("limits" if edge.limiting else "", style="bold"))
        table.add_row(*cells)
    if len(found.edges) > len(shown):
        table.add_row(Text(f"and {len(found.edges) - len(shown)} more", style="dim"))
    return table


def change_table(before: Composition, after: Composition) -> Table:
    """What a change of the assembly does, both from the interfaces."""
    table = _table("", "before", "after")
    unit = "rate" if before.assembly.continuous else "factor"
    rows = [("verdict", *(each.verdict.replace("_", " ") for each in (before, after)))]
    rows.append((unit, level_text(before), level_text(after)))
    rows.append(("margin", *(_margin(each) for each in (before, after))))
    steps = ["-" if each.largest_step is None else claimed(each.largest_step[0], up=False) for each in (before, after)]
    if before.assembly.continuous:
        rows.append(("largest step", *steps))
    rows.append(("limited by", *(printable(each.limiting or "-", 40) for each in (before, after))))
    rows.append(("states", *(str(each.assembly.size) for each in (before, after))))
    for row in rows:
        table.add_row(Text("  " + row[0], style="dim"), *(Text(cell) for cell in row[1:]))
    return table


def advice(found: Composition, passing: float | None) -> list[str]:
    """What to try when nothing was proven; ``passing``: a factor of all couplings at which the interface test holds."""
    if found.reason in ("deadline", "cancelled"):
        return ["allow more time: --seconds N", "a cheaper proof: --mode interface"]
    if not found.module_levels:
        return [
            "certify the module that is named above on its own: certes certify tells why it fails",
            "take the nearest weights of it that are certified: certes project",
        ]
    lines = [f"all couplings times {passing:g} are certified: weaken them, or those below"] if passing else []
    worst = sorted(found.edges, key=lambda edge: (edge.limiting, edge.slope, edge.strength), reverse=True)[:3]
    for edge in worst:
        option = _quoted(f"{edge.to}/{edge.source}=0.5")
        lines.append(f"weaken {edge_name(edge)} (strength {number(edge.strength)}): --scale {option}")
    if found.assembly.continuous:
        lines.append("couple both ways by feedback (in the description), which costs no rate")
    elif found.assembly.step is not None:
        lines.append("a smaller --step, or --step none: continuous time is easier to certify")
    if "monolithic" not in found.modes:
        lines.append("the proofs that forget the modules: --mode all")
    return lines


def edge_name(edge: EdgeReport) -> str:
    """A coupling, head first."""
    name = f"{edge.to}<-{edge.source}" + (" (inside)" if edge.inside else "")
    return printable(name, 80)


def _margin(found: Composition) -> str:
    """How far the level is from the one at which nothing is proven."""
    if found.rate is not None:
        return claimed(found.rate, up=False)
    return "-" if found.factor is None else claimed(1.0 - found.factor, up=False)


def _modules(found: Composition) -> Iterator[tuple[str, int, float | None, str]]:
    children = {} if found.root is None else found.root.children
    for name, module in found.assembly.modules.items():
        level = found.module_levels.get(name)
        yield name, module.size, level, "limits" if name == found.limiting else ""
        if isinstance(module, Assembly):
            yield from _inner(name, module, children.get(name))


def _inner(path: str, assembly: Assembly, node: Composed | None) -> Iterator[tuple[str, int, float | None, str]]:
    for name, module in assembly.modules.items():
        child = None if node is None else node.children.get(name)
        below = path + SEPARATOR + name
        yield below, module.size, None if child is None else child.interface.level, ""
        if not isinstance(module, System):
            yield from _inner(below, module, child)


def _badness(level: float | None, unit: str) -> float:
    if level is None:
        return float("inf")
    return -level if unit == "rate" else level


def _table(*headings: str) -> Table:
    table = Table(*headings, box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.columns[0].overflow = "fold"
    return table


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _quoted(text: str) -> str:
    import shlex

    return printable(shlex.quote(text), 120)
