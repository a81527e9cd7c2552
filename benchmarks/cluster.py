"""A real PostgreSQL for tests and measurements: a cluster in a temporary folder, reached through a socket in it.

A supervisor process holds the other end of a pipe. When the tests end, or are killed, the pipe closes, and the
supervisor stops the server and removes the folder.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

USER = "certes"
#: Nobody trusts this cluster with anything: it may forget everything when the machine crashes.
CONFIGURATION = """
listen_addresses = ''
unix_socket_directories = '{folder}'
unix_socket_permissions = 0777
max_connections = 300
shared_buffers = 64MB
fsync = off
full_page_writes = off
synchronous_commit = off
autovacuum = off
log_timezone = 'UTC'
timezone = 'UTC'
"""
MISSING = (
    "PostgreSQL (initdb, pg_ctl) is neither on PATH nor in /usr/lib/postgresql; on Debian: apt-get install postgresql"
)


def binaries() -> Path | None:
    """The folder of PostgreSQL's programs, the newest; None if there is none."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    places += sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
    return next((path for path in places if (path / "pg_ctl").exists() and (path / "initdb").exists()), None)


class Cluster:
    """A running server.

    Args:
        programs: folder of PostgreSQL's programs.
        durable: what was committed survives a crash of the machine: for measurements.

    Attributes:
        url: of its first database.
        folder: where it is.
    """

    def __init__(self, programs: Path, *, durable: bool = False) -> None:
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="certes-pg-", dir="/tmp"))  # a socket's path has to be short
        self._supervisor = subprocess.Popen(
            [sys.executable, __file__, str(programs), str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        user = account()
        if user is not None:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        try:
            self._run("initdb", "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D", self._data)
            with (self.folder / "data/postgresql.conf").open("a") as file:
                file.write(CONFIGURATION.format(folder=self.folder))
                file.write("fsync = on\nfull_page_writes = on\nsynchronous_commit = on\n" if durable else "")
            self.start()
        except BaseException:
            self.close()
            raise
        self.url = self._url("postgres")

    def start(self) -> None:
        self._control("start", "-l", str(self.folder / "log"))

    def stop(self, mode: str = "fast") -> None:
        """Stop; ``immediate`` is a crash."""
        self._control("stop", "-m", mode)

    def restart(self, mode: str = "fast") -> None:
        """Stop and start; connections are lost."""
        self.stop(mode)
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nothing: every process of the server is stopped."""
        main = int((self.folder / "data/postmaster.pid").read_text().splitlines()[0])
        children = [int(pid) for pid in Path(f"/proc/{main}/task/{main}/children").read_text().split()]
        for pid in [main, *children]:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in [*children, main]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def create_database(self, name: str | None = None) -> str:
        """A new, empty database; returns its URL."""
        name = name or f"t{uuid.uuid4().hex}"
        self.execute(f'CREATE DATABASE "{name}"')
        return self._url(name)

    def drop_database(self, url: str) -> None:
        name = url.partition("@/")[2].partition("?")[0]
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run a statement as an administrator, outside of a transaction."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    def close(self) -> None:
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.close()
        self._supervisor.wait(timeout=60)

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-t", "60", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        run(self._programs, self.folder, program, *arguments)


def account() -> pwd.struct_passwd | None:
    """Whom the server runs as, if not ourselves: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def run(programs: Path, folder: Path, program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs; what it prints is shown if it fails."""
    user = account()
    options: dict[str, Any] = {}
    if user is not None:
        options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with tempfile.TemporaryFile() as output:  # and no pipe, which the server would keep open
        done = subprocess.run(
            [str(programs / program), *arguments], cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            check=False, start_new_session=True, **options,
        )  # fmt: skip
        if done.returncode:
            output.seek(0)
            log = folder / "log"
            said = output.read().decode(errors="replace") + (log.read_text()[-2000:] if log.exists() else "")
            raise RuntimeError(f"{program} failed: {said}")


def supervise(programs: Path, folder: Path) -> None:
    """Wait until the tests are gone, then clean up after them."""
    sys.stdin.buffer.read()
    if (folder / "data/postmaster.pid").exists():
        with contextlib.suppress(RuntimeError):
            run(programs, folder, "pg_ctl", "-D", str(folder / "data"), "-w", "-t", "30", "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), Path(sys.argv[2]))
