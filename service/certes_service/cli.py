"""``certes serve``, ``certes worker``, ``certes config``. Imports no web framework until one of them is called."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certes_service.extras import needed

if TYPE_CHECKING:
    from certes_service.settings import Settings

Data = Annotated[
    Path | None, typer.Option(help="Directory of the embedded database and blobs. [certes-data]", file_okay=False)
]
Sign = Annotated[
    Path | None, typer.Option(help="File with the Ed25519 private key (PEM) that signs every certificate.")
]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 lets the system pick. [8080]")] = None,
    data: Data = None,
    keys: Annotated[
        bool | None, typer.Option("--keys/--no-keys", help="Ask for an API key. [no, and then on loopback only]")
    ] = None,
    worker: Annotated[
        bool | None, typer.Option("--worker/--no-worker", help="Work on jobs in this process too. [yes]")
    ] = None,
    sign: Sign = None,
    max_body: Annotated[int | None, typer.Option(min=1, help="Largest request in MiB. [256]")] = None,
) -> None:
    """Serve the HTTP API and the page until SIGTERM or Ctrl-C; prints one line with the URL when ready.

    What no option says is said by the environment or the file of settings: see `certes config`.
    """
    with needed("certes serve"):
        from certes_service import server
        from certes_service.settings import MEBIBYTE
    size = None if max_body is None else max_body * MEBIBYTE
    settings = _settings(
        host=host, port=port, data=data, keys=keys, worker=worker, signing_key_file=sign, max_body_bytes=size
    )
    server.run(settings, lambda url: print(f"Certes is listening on {url}", flush=True))


def worker(
    queue: Annotated[list[str] | None, typer.Option(metavar="solve|train", help="Repeated; default: both.")] = None,
    device: Annotated[str, typer.Option(help="Where training computes: cpu, cuda:0, ...")] = "cpu",
    data: Data = None,
    sign: Sign = None,
) -> None:
    """Take jobs from queues until SIGTERM or Ctrl-C; prints one line with its name when ready.

    Needs the database and the blobs of the service, by the same settings: see `certes config`.
    """
    with needed("certes worker"):
        from certes_service.jobs import worker as working
        from certes_service.jobs.job import SOLVE, TRAIN
        from certes_service.operations import exporter
        from certes_service.operations.metrics import Metrics
    from certes.errors import InputError

    queues = list(dict.fromkeys(queue or [SOLVE, TRAIN]))
    for name in queues:
        if name not in (SOLVE, TRAIN):
            raise InputError("queue", repr(name)[:80], f"{SOLVE} or {TRAIN}", "unknown-name")
    settings = _settings(data=data, signing_key_file=sign)
    metrics = Metrics()
    with exporter.shown(metrics, settings):
        working.run(settings, queues, device, lambda name: print(f"Certes works as {name}", flush=True), metrics)


def config(
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Print every setting, its value and where that came from, as a file of settings; never a secret."""
    with needed("certes config"):
        from certes_service.operations import configuration
        from certes_service.settings import Settings
    found = configuration.entries(Settings.read(data=data), () if data is None else ("data",))
    unknown = configuration.unknown_variables()
    if as_json:
        print(json.dumps({"settings": {entry.name: entry.json() for entry in found}, "unknown": unknown}))
        return
    for line in configuration.as_toml(found):
        print(line)
    for name in unknown:
        print(f"{name} is set, and is no setting", file=sys.stderr)


def _settings(**given: Any) -> Settings:
    """Settings, and the log as they want it."""
    from certes_service.operations import logs
    from certes_service.settings import Settings

    settings = Settings.read(**given)
    logs.configure(settings)
    return settings
