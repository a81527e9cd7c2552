"""Runs the steps from inside the service: there is no ini file, and the connection is the caller's."""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from certes_service.storage.errors import StorageError

_ALONE = threading.Lock()  # alembic keeps what it is doing in a variable of its module


def configuration(connection: sa.Connection | None = None) -> Config:
    """Alembic's configuration: the folder of the steps, and a connection that is in a transaction."""
    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    found.attributes["connection"] = connection
    return found


def head() -> str:
    """The name of the last step."""
    found = ScriptDirectory.from_config(configuration()).get_current_head()
    assert found is not None
    return found


def upgrade(connection: sa.Connection, to: str = "head") -> None:
    """Take the steps that are missing, within the transaction of the connection.

    Args:
        connection: in a writing transaction that nobody else can have at the same time.
        to: the last step to take.

    Raises:
        StorageError: the database was used by a newer version.
    """
    if to == "head" and MigrationContext.configure(connection).get_current_revision() == head():
        return
    try:
        with _ALONE:
            command.upgrade(configuration(connection), to)
    except CommandError as error:
        raise StorageError("the database was written by a newer version of Certes") from error
