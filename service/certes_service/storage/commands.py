"""``certes storage``: collect, back up, restore. Imports no web framework."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certes_service.extras import needed

if TYPE_CHECKING:
    from certes_service.settings import Settings
    from certes_service.storage.blobs import Blobs
    from certes_service.storage.database import Database

Data = Annotated[
    Path | None,
    typer.Option(help="Directory of the embedded database and blobs; default: that of the settings.", file_okay=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]

storage = typer.Typer(
    help="What the service keeps: collect garbage, back up, restore.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@storage.command("collect")
def collect_garbage(data: Data = None, as_json: Json = False) -> int:
    """Throw away what is not kept any longer; the service does so by itself now and then."""
    with _opened(data) as (settings, database, blobs):
        from certes_service.storage.retention import collect

        done = collect(database, blobs, settings)
    if as_json:
        print(json.dumps(done.json()))
    elif not done.alone:
        print("Another collector or a backup is at work; nothing was done.")
    else:
        rows = f"{done.jobs} jobs, {done.answers} answers, {done.idempotency} keys, {done.sessions} sessions"
        print(f"Thrown away: {rows}, {done.blobs} blobs of {_size(done.bytes)}.")
    return 0


@storage.command("backup")
def back_up(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Made; it must not be there, or be empty.")],
    data: Data = None,
    as_json: Json = False,
) -> int:
    """Write a backup, also while the service runs."""
    with _opened(data) as (_, database, blobs):
        from certes_service.storage.backup import backup

        saved = backup(database, blobs, folder)
    _told("Saved", saved.json(), as_json)
    return 0


@storage.command()
def restore(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of a backup.")],
    data: Data = None,
    as_json: Json = False,
) -> int:
    """Put a backup into an empty service, of any database and place of blobs; before the service starts."""
    with _opened(data) as (_, database, blobs):
        from certes_service.storage.backup import restore as put_back

        saved = put_back(folder, database, blobs)
    _told("Restored", saved.json(), as_json)
    return 0


@contextmanager
def _opened(data: Path | None) -> Iterator[tuple[Settings, Database, Blobs]]:
    """Settings, database and blobs of the service, tables brought up to date."""
    with needed("certes storage"):
        from certes_service.settings import Settings
        from certes_service.storage.blobs import Blobs
        from certes_service.storage.database import Database
    settings = Settings.read(data=data)
    database = Database(settings.database_url)
    try:
        database.migrate()
        yield settings, database, Blobs(settings.blobs_url, settings.blob_options)
    finally:
        database.close()


def _told(verb: str, saved: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(saved))
    else:
        print(f"{verb}: {saved['rows']} rows, {saved['blobs']} blobs of {_size(saved['bytes'])}.")


def _size(count: int) -> str:
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.4g} {unit}"
