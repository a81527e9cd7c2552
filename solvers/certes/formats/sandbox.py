"""Readers of other people's formats run in a child process with limits, and hand back a safetensors file.

The child (:mod:`certes.formats.child`) gets the open file, a private folder and bounds on memory, time, file sizes and
open files; it inherits neither the environment nor other descriptors. What it writes is read as a stranger's
safetensors file would be. A child that is killed, crashes or takes too long is an ordinary refusal.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from certes.errors import CertesError, InputError, MissingExtraError, TooLargeError
from certes.formats.contents import unread
from certes.weights import Limits

#: Seconds on the clock; seconds of processor time come first unless the machine is busy.
SECONDS = 120.0
PROCESSOR_SECONDS = 60
#: What a child may find of the environment.
_INHERITED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG", "LC_ALL")
_TAIL = 4000


@dataclass(frozen=True)
class Reader:
    """A reader that runs in a child.

    Attributes:
        name: of its module in this room.
        what: what it reads, in words.
        package: that it needs, and ``extra``: of Certes, which brings it.
    """

    name: str
    what: str
    package: str
    extra: str


def convert(reader: Reader, stream: BinaryIO, folder: Path, limits: Limits) -> bytes:
    """The safetensors file that a file converts to.

    Args:
        reader: who reads it.
        stream: the file, open at its beginning.
        folder: where it lies: files that it refers to are inside.
        limits: on the tensors.

    Raises:
        MissingExtraError: the reader's package is not installed.
        InputError: what the reader refuses (``pickle``, ``unreadable``, ``unsupported``, ...), or a child that died.
        TooLargeError: beyond a limit.
    """
    if not _installed(reader.package):
        raise MissingExtraError(reader.package, reader.extra, f"reading {reader.what}")
    with tempfile.TemporaryDirectory(prefix="certes-") as private:
        out = Path(private) / "converted.safetensors"
        task = {
            "reader": reader.name,
            "folder": str(folder.resolve()),
            "out": str(out),
            "file_bytes": limits.file_bytes,
            "tensors": limits.tensors,
            "seconds": PROCESSOR_SECONDS,
        }
        code, said = _run(task, stream, Path(private), SECONDS)
        if code == 0 and said == b"":
            return _written(reader, out, limits)
        raise _refusal(reader, code, said)


def _installed(package: str) -> bool:
    """Told without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _run(task: dict[str, object], stream: BinaryIO, private: Path, seconds: float) -> tuple[int | None, bytes]:
    """Exit code (None: too slow) and what the child said on its standard output."""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    if "PYTHONPATH" in environment:  # the child works in another folder
        parts = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(part) for part in parts)
    environment |= {"HOME": str(private), "TMPDIR": str(private), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    # -P: a module beside this one must not take the place of the library of the same name
    command = [sys.executable, "-P", "-m", "certes.formats.child", json.dumps(task)]
    with subprocess.Popen(
        command,
        stdin=stream,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=private,
        start_new_session=True,
    ) as child:
        try:
            said = child.communicate(timeout=seconds)[0]
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return None, b""
            raise
    return child.returncode, said[:_TAIL]


def _written(reader: Reader, out: Path, limits: Limits) -> bytes:
    try:
        data = out.read_bytes()
    except OSError as error:
        raise unread(f"{reader.what} of which nothing was read", "a file that can be read") from error
    if len(data) > limits.file_bytes + limits.header_bytes:
        raise TooLargeError("weights", f"tensors of {len(data)} bytes", limits.file_bytes)
    return data


def _refusal(reader: Reader, code: int | None, said: bytes) -> CertesError:
    """What a child that wrote nothing means."""
    expected = f"{reader.what} that can be read within {PROCESSOR_SECONDS} seconds and its limit of memory"
    if code is None or code == -signal.SIGXCPU:
        return unread("a file that takes too long to read", expected)
    if code == -signal.SIGXFSZ:
        return unread("a file that unpacks to far more than it holds", expected)
    if code < 0:
        return unread(f"a file whose reader was ended by signal {-code}", expected)
    try:
        told = json.loads(said)
        words = [str(told[key]) for key in ("field", "given", "expected", "slug")]
    except (ValueError, TypeError, KeyError):
        return unread(f"a file whose reader failed (exit code {code})", expected)
    if told.get("limit") is not None:
        return TooLargeError(words[0], words[1], int(told["limit"]), str(told.get("unit", "bytes")))
    return InputError(*words)
