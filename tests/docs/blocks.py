"""Blocks of code in the documentation: found in Markdown, and run as a reader would run them.

A page is run from top to bottom in one folder of its own with a copy of ``examples``. What each language means is in
docs/how-to/document.md.
"""

from __future__ import annotations

import contextlib
import doctest
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from certes_client.cli import VERBS
from markdown_it import MarkdownIt

from tests.packaging.support import REPOSITORY

READERS = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
LANGUAGES = ("console", "python", "pycon", "text", *READERS)
PORT = "127.0.0.1:8080"
_EXCUSE = re.compile(r"<!-- not run: (.+?) -->\s*\Z", re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
_ANYTHING = re.compile(r"\.{3}(?!\.)")  # of 0.... the first dot is a dot
_MARK = "=====end of the command====="
#: Told only by what takes some seconds.
_PROGRESS = re.compile(rf"^({'|'.join(VERBS)}): .*\n", re.MULTILINE)
_STAYS = re.compile(r"certes (serve|worker)\b")  # goes on in the background


@dataclass(frozen=True)
class Block:
    """One block of code.

    Attributes:
        page: the page's path in the repository.
        line: of the opening fence, from 1.
        language: ``indented`` for a block without a fence.
        title: the name of a file that the block shows, or None.
        excuse: why it is not run, or None.
    """

    page: str
    line: int
    language: str
    title: str | None
    text: str
    excuse: str | None

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page with documentation, as paths in the repository."""
    found = [path for path in (REPOSITORY / "docs").rglob("*.md") if "_site" not in path.parts]
    return ["README.md", *sorted(path.relative_to(REPOSITORY).as_posix() for path in found)]


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """The blocks of one page, by the rules of CommonMark."""
    before = ""
    for token in MarkdownIt("commonmark").parse(text):
        if token.type in ("fence", "code_block"):
            words = token.info.split(maxsplit=1)
            title = _TITLE.search(token.info)
            excuse = _EXCUSE.search(before)
            language = words[0] if words else ""
            yield Block(
                page,
                (token.map or [0])[0] + 1,
                "indented" if token.type == "code_block" else language,
                title and title[1],
                token.content,
                excuse and " ".join(excuse[1].split()),
            )
        before = token.content if token.type == "html_block" else ""


def excuses(text: str) -> int:
    """How many comments of a page excuse something, at a block or not."""
    return sum(
        token.type == "html_block" and "not run:" in token.content for token in MarkdownIt("commonmark").parse(text)
    )


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a ``console`` block, each with the output that stands below it."""
    command, shown = "", ""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line[2:], ""
            while command.endswith("\\"):
                command += "\n" + next(lines)
        elif not command:
            raise ValueError(f"a console block begins with '$ ', not with {line!r}")
        else:
            shown += line + "\n"
    if command:
        yield command, shown


def as_shown(shown: str, got: str) -> bool:
    """Whether an output is what a page shows: ``...`` is anything in a line, a line of ``...`` any number of lines."""
    pattern = ""
    for line in shown.strip("\n").splitlines():
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*".join(re.escape(part) for part in _ANYTHING.split(line.rstrip())) + r"\n"
    lines = "".join(line.rstrip() + "\n" for line in got.strip("\n").splitlines())
    return re.fullmatch(pattern, lines) is not None


class Shell:
    """A shell in a folder, with the commands of this environment, that remembers variables from one block to the next.

    Args:
        folder: where it works.
        more: variables of the environment.
    """

    def __init__(self, folder: Path, more: Mapping[str, str] | None = None) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CERTES", "PYTEST"))}
        own = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        own |= {"COLUMNS": "150", "NO_COLOR": "1", "CERTES_PORT": self.address.partition(":")[2]}
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env=kept | own | dict(more or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._background: list[str] = []  # process ids
        self._serving: str | None = None

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        """End it and whatever it left in the background, kindly at first: a service has processes of its own to end."""
        try:
            if self._bash.poll() is None:
                self._stop(*self._background)
        finally:
            self._kill()
            self._bash.communicate()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)

    def run(self, command: str, seconds: float = 120) -> tuple[str, int]:
        """Run one command: its output, streams mixed, and its exit status."""
        if _STAYS.match(command):
            return self._stay(command), 0
        text = command.replace(PORT, self.address)
        out, status = self._ask(f"{{ {text}\n}} < /dev/null", seconds)
        return _PROGRESS.sub("", out.replace(self.address, PORT)), status

    def _ask(self, text: str, seconds: float = 60) -> tuple[str, int]:
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{text}\n_status=$?; printf '\\n{_MARK} %s\\n' $_status; (exit $_status)\n")
        self._bash.stdin.flush()
        alarm = threading.Timer(seconds, self._kill)
        alarm.start()
        lines = []
        for line in self._bash.stdout:
            if line.startswith(_MARK):
                alarm.cancel()
                return "".join(lines)[:-1], int(line.split()[-1])
            lines.append(line)
        raise AssertionError(f"the shell ended, or took more than {seconds:g} s:\n{''.join(lines)}")

    def _stay(self, command: str) -> str:
        worker = command.startswith("certes worker")
        if not worker and self._serving is not None:
            self._stop(self._serving)
        pid = self._ask(f"{command} > background.log 2>&1 < /dev/null & echo $!")[0].split()[-1]
        self._background.append(pid)
        if not worker:
            self._serving = pid
            self._wait()
        return ""

    def _wait(self) -> None:
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://{self.address}/healthz", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the service did not start:\n" + self._ask("cat background.log")[0])

    def _stop(self, *pids: str) -> None:
        for pid in pids:
            self._ask(f"kill {pid} 2> /dev/null; wait {pid} 2> /dev/null")
            self._background.remove(pid)


class Run:
    """One page, run in a folder."""

    def __init__(self, folder: Path, shell: Shell) -> None:
        self.folder = folder
        self.shell = shell
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def block(self, block: Block) -> None:
        """Run a block, or read it; raises where it is not as it says."""
        here = Path(self.shell.run("pwd")[0].strip("\n"))
        with contextlib.chdir(here):
            self._block(block, here)

    def _block(self, block: Block, here: Path) -> None:
        if block.title is not None:
            target = (here / block.title).resolve()
            assert target.is_relative_to(self.folder.resolve()), f"{block.where}: {block.title} leaves the folder"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text)
        if block.language in READERS:
            READERS[block.language](block.text)
        elif block.language == "console":
            self._console(block)
        elif block.language == "python":
            text = block.text.replace(PORT, self.shell.address)
            code = compile("\n" * block.line + text, str(REPOSITORY / block.page), "exec")
            exec(code, self.names)
        elif block.language == "pycon":
            self._session(block)

    def _console(self, block: Block) -> None:
        asked = list(commands(block.text))
        for number, (command, shown) in enumerate(asked):
            got, status = self.shell.run(command)
            told = asked[number + 1][0] if number + 1 < len(asked) else ""
            if status != 0 and told != "echo $?":
                raise AssertionError(f"{block.where}: $ {command}\nended with {status}:\n{got}")
            if shown.strip() and not as_shown(shown, got):
                raise AssertionError(f"{block.where}: $ {command}\nshown:\n{shown}\ngot:\n{got}")

    def _session(self, block: Block) -> None:
        parsed = doctest.DocTestParser().get_doctest(block.text, self.names, block.where, block.page, block.line)
        told: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        runner.run(parsed, out=told.append, clear_globs=False)
        self.names = parsed.globs
        if runner.summarize(verbose=False).failed:
            raise AssertionError(f"{block.where}:\n{''.join(told)}")
