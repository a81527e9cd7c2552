"""The site in a real browser: light and dark, on a phone, copied from, and asking nobody else for anything."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.docs.building import site
from tests.service.browser import SCREENSHOTS, browser, visiting

__all__ = ["browser", "site"]  # fixtures

PAGES = ("index", "start", "says", "theory", "reference/certes", "reference/cli", "service/api", "tutorials/unstable")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_in_light_and_dark(browser: Browser, address: str, scheme: str) -> None:
    """Each picture is there once, and on the ground that it was drawn for."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with visiting(browser, address, color_scheme=scheme) as page:
        for name in PAGES:
            page.goto(f"/{name}.html")
            expect(page.locator("article h1").first).to_be_visible()
            for image in page.locator('article img[src*="figures/"]').all():
                shown = f"#gh-{scheme}-mode-only" in str(image.get_attribute("src"))
                assert image.is_visible() is shown
                assert not shown or image.evaluate("image => image.complete && image.naturalWidth > 0")
            page.screenshot(path=SCREENSHOTS / f"site-{name.replace('/', '-')}-{scheme}.png")


@pytest.mark.slow
def test_nothing_is_wider_than_a_phone(browser: Browser, address: str, site: Path) -> None:
    with visiting(browser, address, viewport={"width": 390, "height": 800}) as page:
        for name in PAGES:
            page.goto(f"/{name}.html")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name


def test_what_is_copied_can_be_run(browser: Browser, address: str) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    with visiting(browser, address, permissions=permissions) as page:
        page.goto("/tutorials/compose.html")
        page.locator("button.md-code__button[title*=Copy]").last.click()
        copied = page.evaluate("navigator.clipboard.readText()")
        lines = [line for line in copied.splitlines() if line]
        assert lines
        assert all(line.startswith("certes ") for line in lines), copied


def test_the_search_finds(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        page.goto("/index.html")
        page.locator(".md-search__input").fill("weight radius")
        expect(page.locator(".md-search-result__meta")).to_contain_text("matching documents")
