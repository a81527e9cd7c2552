"""``certes keys``: API keys and tenants, by whoever has the database. Imports no web framework."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certes_service.extras import needed

if TYPE_CHECKING:
    from certes_service.settings import Settings
    from certes_service.storage.database import Database

Data = Annotated[
    Path | None,
    typer.Option(help="Directory of the embedded database; default: that of the settings.", file_okay=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="0: the service's own again.", min=0)]

keys = typer.Typer(
    help="API keys and tenants: create, list, revoke.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@keys.command()
def create(
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose key; the tenant is made if there is none.")],
    name: Annotated[str, typer.Option(metavar="TEXT", help="What the key is for.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="certify|project|train|admin", help="Repeated; default: all but admin."),
    ] = None,
    expires_days: Annotated[float | None, typer.Option(metavar="N", help="Refused after N days; none: never.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> int:
    """Make an API key and print it, this once: only its hash is kept."""
    with _database(data) as (_, database):
        from certes_service.tenancy.callers import SCOPES, parse_scopes
        from certes_service.tenancy.keys import Keys

        scopes = parse_scopes(scope or [known for known in SCOPES if known != "admin"])
        made, secret = Keys(database).create(tenant, scopes, name, expires_days)
    if as_json:
        _print_json(_dated(made.json()) | {"key": secret})
        return 0
    expires = "never expires" if made.expires is None else f"expires {_date(made.expires)}"
    print(f"Key {made.id} of {made.tenant}: {', '.join(made.json()['scopes'])}; {expires}.", file=sys.stderr)
    print("It is shown this once:", file=sys.stderr, flush=True)
    print(secret, flush=True)
    return 0


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only this tenant's.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> int:
    """List the keys, expired and revoked ones too; never the keys themselves."""
    with _database(data) as (_, database):
        from certes_service.tenancy.keys import Keys

        found = Keys(database).list(tenant)
        with database.read() as connection:
            now = database.now(connection)
    if as_json:
        _print_json({"keys": [_dated(entry.json()) | {"state": entry.state(now)} for entry in found]})
        return 0
    _print_table(
        ("ID", "TENANT", "STATE", "SCOPES", "CREATED", "EXPIRES", "USED", "NAME"),
        [
            (
                entry.id, entry.tenant, entry.state(now), ",".join(entry.json()["scopes"]), _date(entry.created),
                _date(entry.expires), _date(entry.used), entry.name,
            )
            for entry in found
        ],
    )  # fmt: skip
    return 0


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id.")],
    data: Data = None,
    as_json: Json = False,
) -> int:
    """Refuse a key from now on, and end the sessions that were begun with it."""
    with _database(data) as (_, database):
        from certes_service.tenancy.keys import Keys

        revoked = Keys(database).revoke(key)
    if as_json:
        _print_json(_dated(revoked.json()) | {"state": "revoked"})
    else:
        print(f"Key {revoked.id} of {revoked.tenant} is revoked since {_date(revoked.revoked)}.")
    return 0


@keys.command("tenants")
def list_tenants(data: Data = None, as_json: Json = False) -> int:
    """List the tenants and the limits that differ for them."""
    with _database(data) as (settings, database):
        from certes_service.tenancy.tenants import Tenants

        found = Tenants(database, settings).list()
    if as_json:
        _print_json({"tenants": [_dated(entry.json()) for entry in found]})
        return 0
    rows = [(entry.id, entry.name, _date(entry.created), _limits(entry.limits)) for entry in found]
    _print_table(("ID", "NAME", "CREATED", "LIMITS"), rows)
    return 0


@keys.command("limit")
def limit_tenant(
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose limits; the tenant is made if there is none.")],
    requests_per_minute: Limit = None,
    queue: Limit = None,
    max_body_bytes: Limit = None,
    tenant_bytes: Limit = None,
    data: Data = None,
    as_json: Json = False,
) -> int:
    """Give a tenant limits other than the service's. Running services follow within seconds."""
    given = {
        "requests_per_minute": requests_per_minute,
        "queue": queue,
        "max_body_bytes": max_body_bytes,
        "tenant_bytes": tenant_bytes,
    }
    wanted = {field: value or None for field, value in given.items() if value is not None}
    with _database(data) as (settings, database):
        from certes_service.tenancy.tenants import Tenants

        changed = Tenants(database, settings).change(tenant, wanted)
    if as_json:
        _print_json(_dated(changed.json()))
    else:
        print(f"{changed.name}: {_limits(changed.limits)}")
    return 0


@contextmanager
def _database(data: Path | None) -> Iterator[tuple[Settings, Database]]:
    """The settings and the database of the service, its tables brought up to date."""
    with needed("certes keys"):
        from certes_service.settings import Settings
        from certes_service.storage.database import Database
    settings = Settings.read(data=data)
    database = Database(settings.database_url)
    try:
        database.migrate()
        yield settings, database
    finally:
        database.close()


def _dated(value: dict[str, Any]) -> dict[str, Any]:
    """JSON with times as RFC 3339."""
    times = ("created", "expires", "revoked", "used")
    return {name: _date(entry) or None if name in times else entry for name, entry in value.items()}


def _date(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _limits(limits: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(limits.items())) or "the service's own"


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)
