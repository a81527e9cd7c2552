"""The HTTP face of Certes: ``create_app(Settings(...))`` is an ASGI application; ``certes serve`` runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certes_service.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Settings", "create_app"]


def create_app(settings: Settings) -> FastAPI:
    """The application. FastAPI is imported here, so that importing the package stays light.

    Raises:
        MissingExtraError: the extra ``service`` is not installed.
        StorageError: the data directory cannot be used.
    """
    from certes.errors import MissingExtraError

    try:
        from certes_service.app import build
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in {"certes", "certes_service"}:
            raise
        raise MissingExtraError(error.name or "fastapi", "service", "the HTTP service") from error
    return build(settings)
