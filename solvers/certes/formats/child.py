"""The child process that reads one file: limits first, then the library, then the file. Run by the sandbox alone.

Its argument is a JSON object; the file is its standard input. It writes a safetensors file and says nothing, or says
on standard output, as JSON, why not.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from certes.errors import InputError, TooLargeError
from certes.weights import Limits

#: Address space beyond what the library maps and four times the file (read, copied, packed, written).
_ROOM = 512 * 2**20
_FILES = 256
_GRACE = 5


def main() -> int:
    """Do the task; returns the exit code."""
    task = json.loads(sys.argv[1])
    limits = Limits(file_bytes=int(task["file_bytes"]), tensors=int(task["tensors"]))
    talk = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is not what the child says
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, int(task["seconds"]) + _GRACE, _GRACE)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes + limits.header_bytes)
    reader = importlib.import_module(f"certes.formats.{task['reader']}")
    reader.prepare()  # imports the library, before the address space is bounded
    _limit(resource.RLIMIT_NOFILE, _FILES)
    try:
        with os.fdopen(0, "rb") as stream:
            size = os.fstat(0).st_size
            _limit(resource.RLIMIT_AS, _mapped() + 5 * min(size, limits.file_bytes) + _ROOM)
            found = reader.read(stream, Path(task["folder"]), limits)
            Path(task["out"]).write_bytes(found.safetensors())
    except TooLargeError as error:
        return _say(talk, error, {"limit": error.limit, "unit": error.expected.rpartition(" ")[2]})
    except InputError as error:
        return _say(talk, error, {})
    except (MemoryError, RecursionError) as error:
        return _say(talk, _failed(f"a file that needs more memory than its size allows ({type(error).__name__})"), {})
    except Exception as error:
        # libraries raise whatever they like for files that are none
        return _say(talk, _failed(f"a file that its library refuses ({_words(error)})"), {})
    return 0


def _failed(given: str) -> InputError:
    return InputError("weights", given, "a whole file of the format that its name says", "unreadable")


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


def _say(talk: int, error: InputError, more: dict[str, Any]) -> int:
    said = {"field": error.field[:200], "given": error.given[:600], "expected": error.expected[:600]}
    os.write(talk, json.dumps(said | {"slug": error.slug} | more).encode())
    return 3


def _mapped() -> int:
    """Bytes of address space in use; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _limit(what: int, value: int, grace: int = 0) -> None:
    """Lower a limit for good, as far as it may be; ``grace`` lies between its signal and the kernel's kill."""
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(what, (max(0, value - grace), value))


if __name__ == "__main__":
    sys.exit(main())
