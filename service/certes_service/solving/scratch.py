"""Folders for the files of solvers, in the temporary directory of the worker; those of workers that are dead go.

A folder's name says whose it is: ``certes-solver-PLACE-PID-START-...``. PLACE is a digest of the boot and of the
namespace of process numbers, outside of which PID means nothing; START is when the process began, by the kernel's
clock, so that another process with the number of a dead one is not taken for it. Where the system tells none of these,
folders have no owner in their names, and nothing is swept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

log = logging.getLogger("certes.service")

_PREFIX = "certes-solver-"
_OWNED = re.compile(re.escape(_PREFIX) + r"([0-9a-f]{16})-([1-9][0-9]{0,9})-([0-9]{1,20})-[A-Za-z0-9_]+")


def make() -> str | None:
    """A new folder; None: there is no room, which is no matter to any question but a training."""
    place, start = _place(), _start(os.getpid())
    owner = "" if place is None or start is None else f"{place}-{os.getpid()}-{start}-"
    try:
        return tempfile.mkdtemp(prefix=_PREFIX + owner)
    except OSError:
        return None


def sweep() -> int:
    """Remove the folders of this user whose workers are dead; returns how many. What cannot be removed stays."""
    place, count = _place(), 0
    if place is None:
        return count
    try:
        entries = list(os.scandir(tempfile.gettempdir()))
    except OSError:
        return count
    for entry in entries:
        named = _OWNED.fullmatch(entry.name)
        if named is None or named[1] != place or _start(int(named[2])) == int(named[3]):
            continue
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            shutil.rmtree(entry.path, ignore_errors=True)
            count += not os.path.lexists(entry.path)
    if count:
        log.info("%d folders of dead workers removed", count)
    return count


@cache
def _place() -> str | None:
    """Where process numbers mean what they mean here; None: the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return hashlib.sha256(f"{boot} {os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:16]
    except OSError:
        return None


def _start(pid: int) -> int | None:
    """When a process began, in ticks since the boot; None: there is no such process, or it is about to be forgotten."""
    try:
        said = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
        return None if said[0] in (b"Z", b"X") else int(said[19])
    except (OSError, IndexError, ValueError):
        return None
