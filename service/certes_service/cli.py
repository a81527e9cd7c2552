"""``certes serve``. Imports no web framework until it is called, so that ``certes --help`` works without the extra."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 lets the system pick.")] = 8080,
    data: Annotated[Path, typer.Option(help="Directory that keeps certificates.", file_okay=False)] = Path(
        "certes-data"
    ),
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Listen beyond loopback, without any login.")
    ] = False,
    sign: Annotated[Path | None, typer.Option(help="Ed25519 private key (PEM) that signs every certificate.")] = None,
    max_body: Annotated[int, typer.Option(min=1, help="Largest request in MiB.")] = 256,
) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C; prints one line with the URL when ready."""
    from certes.errors import InputError, MissingExtraError

    from certes_service.settings import MEBIBYTE, Settings

    try:
        key = None if sign is None else sign.read_bytes()
    except OSError as error:
        raise InputError("sign", f"{sign}: {error.strerror}", "a readable private key (PEM)", "unreadable") from error
    try:
        from certes_service import server
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in {"certes", "certes_service"}:
            raise
        raise MissingExtraError(error.name or "fastapi", "service", "certes serve") from error
    if key is not None:
        from certes.certificate.envelope import Envelope

        Envelope(b"").sign(key)  # a key that cannot sign is the operator's mistake, noticed before anybody asks
    signing_key = None if key is None else key.decode("ascii", "replace")
    settings = Settings.read(
        data=data, allow_remote=allow_remote, max_body_bytes=max_body * MEBIBYTE, signing_key=signing_key
    )
    server.run(settings, host, port, lambda url: print(f"Certes is listening on {url}", flush=True))
