"""Headers that every answer carries, whoever made it: what a browser must not do with it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: The page loads nothing from elsewhere, runs no script that stands in it, and is shown in no other page.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: A drawing that is opened by itself runs nothing and loads nothing.
DRAWING_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
OTHER_POLICY = "default-src 'none'; frame-ancestors 'none'"

#: Of answers that never reach the application, such as those to requests that are no HTTP.
BARE: tuple[tuple[str, str], ...] = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", OTHER_POLICY),
    ("Referrer-Policy", "no-referrer"),
)


class SecurityHeaders:
    """ASGI middleware: adds them, where the answer does not say otherwise itself.

    It belongs around everything else, so that answers of the middleware itself and those of crashes have them too.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with a ``send`` that adds headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                add(MutableHeaders(scope=message), personal=_is_personal(scope))
            await send(message)

        await self.app(scope, receive, guarded)


def add(headers: MutableHeaders, *, personal: bool) -> None:
    """Add what is missing.

    Args:
        headers: of the answer.
        personal: the answer is for one caller: nobody keeps a copy, unless it says that one may be kept.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    page, drawing = kind in ("text/html", "application/xhtml+xml"), kind == "image/svg+xml"
    policy = PAGE_POLICY if page else DRAWING_POLICY if drawing else OTHER_POLICY
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Content-Security-Policy", policy)
    # With no-referrer a browser would send "Origin: null" with the page's own forms, and they would be refused.
    # Other sites are told nothing in either case.
    headers.setdefault("Referrer-Policy", "same-origin" if page else "no-referrer")
    if personal:
        headers.setdefault("Cache-Control", "no-store")
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        headers.add_vary_header("Authorization, Cookie")


def _is_personal(scope: Scope) -> bool:
    caller = scope.get("state", {}).get("caller")
    return caller is not None and caller.key is not None
