"""What the command line prints: one JSON object, or a readable summary; errors likewise."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from certes.errors import CertesError, InputError, MissingExtraError, TooLargeError
from certes.words import printable
from rich.console import Console
from rich.table import Table
from rich.text import Text

PREFIX = "urn:certes:error:"
#: Width of a piped summary: paths and digests must not be broken.
_PIPED_WIDTH = 160
_STYLES = {"contracting": "bold green", "valid": "bold green", "not_contracting": "bold red", "invalid": "bold red"}


class _Console(Console):
    """A console that lets :func:`certes_client.cli.main` decide what a reader that went away means."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console; no colours and no cursor movements unless it is a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPED_WIDTH
    return _Console(stderr=stderr, highlight=False, width=width, soft_wrap=False)


def print_json(value: Mapping[str, Any]) -> None:
    """Exactly one JSON object on stdout; a number that is not finite becomes null, for JSON has none."""
    print(json.dumps(_finite(dict(value)), indent=2, ensure_ascii=True, allow_nan=False), flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def problem(error: CertesError) -> dict[str, Any]:
    """An error in the shape of the service's problem details, with ``verdict`` null."""
    slug, status = "error", 500
    members: dict[str, Any] = {}
    if isinstance(error, InputError):
        slug, status = error.slug, 413 if isinstance(error, TooLargeError) else 422
        members = {"field": error.field, "given": error.given, "expected": error.expected}
        if isinstance(error, TooLargeError):
            members["limit"] = error.limit
    elif isinstance(error, MissingExtraError):
        slug, status, members = "missing-extra", 501, {"extra": error.extra}
    elif (told := getattr(error, "told", None)) is not None:  # of a service; its module is not loaded for anything else
        slug, status, members = told
    return _problem(slug, status, str(error), members)


def usage_problem(error: Any) -> dict[str, Any]:
    """A wrong command line in the same shape."""
    parameter = getattr(error, "param", None)
    field = getattr(error, "option_name", None) or getattr(parameter, "name", None) or "command line"
    members = {"field": str(field).lstrip("-"), "given": "a wrong command line", "expected": "see --help"}
    return _problem("usage", 422, error.format_message(), members)


def _problem(slug: str, status: int, detail: str, members: Mapping[str, Any]) -> dict[str, Any]:
    title = slug.replace("-", " ").capitalize()
    return {"type": PREFIX + slug, "title": title, "status": status, "detail": detail, **members, "verdict": None}


def print_error(error: CertesError, message: str | None = None) -> None:
    """An error for a person, on stderr."""
    target = console(stderr=True)
    if message is not None or not isinstance(error, InputError):
        target.print(Text.assemble(("error  ", "bold red"), printable(message or str(error), 1000)))
        return
    target.print(Text.assemble(("error  ", "bold red"), (printable(error.field), "bold")))
    target.print(fields([("given", printable(error.given, 600)), ("expected", printable(error.expected, 1000))]))


def print_usage_error(error: Any) -> None:
    """A wrong command line, on stderr."""
    context = getattr(error, "ctx", None)
    target = console(stderr=True)
    message = printable(error.format_message(), 1000)
    if message:
        target.print(Text.assemble(("error  ", "bold red"), message))
    if context is not None:
        target.print(f"Try '{context.command_path} --help'.", markup=False)


def headline(word: str, rest: str) -> Text:
    """The first line of a summary."""
    return Text.assemble((word.replace("_", " "), _STYLES.get(word, "bold yellow")), "  ", rest)


def fields(rows: list[tuple[str, str]]) -> Table:
    """Names and values in two aligned columns; nothing in them is read as markup."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, min_width=13)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text("  " + name), Text(value))
    return grid


class Progress:
    """A line on stderr for anything that takes more than a second.

    On a terminal one line that is rewritten, elsewhere one plain line per stage; nothing in the first second.
    """

    def __init__(self, what: str, patience: float = 1.0) -> None:
        self.what = what
        self.patience = patience
        self._stage = "starting"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __call__(self, stage: str) -> None:
        """Say what is being done now; safe from any thread."""
        self._stage = stage

    @contextlib.contextmanager
    def running(self) -> Iterator[Progress]:
        """Watch the work inside the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._done.set()
            self._thread.join(timeout=2.0)

    def _watch(self) -> None:
        with contextlib.suppress(Exception):  # a line of progress is not worth an answer
            if self._done.wait(self.patience):
                return
            target = console(stderr=True)
            if target.is_terminal:
                self._live(target)
            else:
                self._plain()

    def _live(self, target: Console) -> None:
        begin = time.monotonic() - self.patience
        with target.status(self._text(begin)) as status:
            while not self._done.wait(0.25):
                status.update(self._text(begin))

    def _text(self, begin: float) -> Text:
        return Text(f"{self.what}: {printable(self._stage, 80)} ({time.monotonic() - begin:.0f} s)")

    def _plain(self) -> None:
        said = None
        while True:
            if self._stage != said:
                said = self._stage
                print(f"{self.what}: {printable(said, 100)}", file=sys.stderr, flush=True)
            if self._done.wait(1.0):
                return
