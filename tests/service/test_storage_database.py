"""Both databases: transactions, errors that say what is the matter, and tables that are what the code expects."""

from __future__ import annotations


def test_x(postgres_url):
    from certes_service.settings import Settings
    from certes_service.storage.database import Database
    db = Database(Settings(database=postgres_url).database_url)
    db.migrate(); db.check()
    with db.begin() as c: print(db.now(c))
