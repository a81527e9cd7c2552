"""The tables on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from certes_service.settings import Settings
from certes_service.storage.database import Database


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_migrates_twice_and_answers(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    given = {"database": request.getfixturevalue("postgres_url")} if kind == "postgresql" else {}
    for _ in range(2):
        database = Database(Settings(data=tmp_path, **given).database_url)
        try:
            database.migrate()
            database.check()
            with database.begin() as connection:
                assert database.now(connection) > 1.7e9
        finally:
            database.close()
