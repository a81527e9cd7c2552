"""What the site makes itself: the reference of the command line, as it is installed, and the page of changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put what is made where a page asks for it; every other page stays as it is."""
    made = {"changes.md": ("<!-- changelog -->", changelog), "reference/cli.md": ("<!-- commands -->", commands)}
    if page.file.src_uri not in made:
        return markdown
    place, make = made[page.file.src_uri]
    if place not in markdown:
        raise ValueError(f"{page.file.src_uri}: got no line {place!r}; expected the place of what is made")
    return markdown.replace(place, make())


def changelog() -> str:
    """The changelog, which links to pages as they lie in the repository."""
    return CHANGELOG.read_text().replace("](docs/", "](")


def commands() -> str:
    """Every command, its arguments, options and what its help says, as Markdown."""
    import typer.main
    from certes_client.cli import build

    root: Any = typer.main.get_command(build())
    return "\n".join(_command(f"certes {name}", verb, 2) for name, verb in root.commands.items())


def _command(name: str, verb: Any, level: int) -> str:
    """One command, and those below it."""
    context = verb.make_context(name, ["--help"], resilient_parsing=True)
    usage = " ".join((name, *verb.collect_usage_pieces(context)))
    parts = [f"{'#' * level} {name}", f"```text\n{usage}\n```", (verb.help or "").strip()]
    for kind, heading in (("argument", "argument"), ("option", "option")):
        rows = [record for record in _records(verb, context, kind) if record is not None]
        if rows:
            lines = [f"| {heading} | |", "| --- | --- |"]
            parts.append("\n".join([*lines, *(f"| {_code(left)} | {_cell(right)} |" for left, right in rows)]))
    parts += [_command(f"{name} {below}", one, level + 1) for below, one in getattr(verb, "commands", {}).items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _records(verb: Any, context: Any, kind: str) -> list[Any]:
    return [entry.get_help_record(context) for entry in verb.params if entry.param_type_name == kind]


def _code(text: str) -> str:
    return f"`{text}`"  # Python-Markdown reads a bar in code as a bar


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;").replace("[", "\\[")
