"""The HTTP face of Certes: ``create_app(Settings(...))`` is an ASGI application; ``certes serve`` runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from certes_service.settings import Settings

__all__ = ["Settings", "create_app"]


def create_app(settings: Settings) -> FastAPI:
    """The application. FastAPI is imported here, so that importing the package stays light.

    Raises:
        MissingExtraError: the extra ``service`` is not installed.
        StorageError: the database or the blobs cannot be used.
    """
    from certes_service.extras import needed

    with needed("the HTTP service"):
        from certes_service.app import build
    return build(settings)


def __getattr__(name: str) -> Any:
    """``Settings``, on first use: reading settings needs the extra ``service`` too."""
    if name != "Settings":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from certes_service.extras import needed

    with needed("the HTTP service"):
        from certes_service.settings import Settings
    return Settings
