"""A real Chromium, headless, that reaches nothing but loopback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.packaging.support import REPOSITORY

SCREENSHOTS = REPOSITORY / "build" / "screenshots"
MISSING = "chromium is not installed (on Debian: apt-get install chromium)"
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module; a fresh profile."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, headless=True, args=_ARGUMENTS)
        yield running
        running.close()


@contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page in a profile of its own; fails if anything in it went wrong that nobody looked for.

    Attributes of the page: ``complaints``: what the console and the policies of the page complained of.
    """
    context = browser.new_context(base_url=url, **options)
    context.set_default_timeout(30_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda entry: complaints.append(entry.text) if entry.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith((url, "data:")) else complaints.append(request.url),
    )
    page.complaints = complaints  # type: ignore[attr-defined]
    try:
        yield page
        expected = ("status of 4", "status of 5", "Error Code 4")  # the words for an answer that says no
        left = [entry for entry in complaints if not any(part in entry for part in expected)]
        assert left == [], left
    finally:
        context.close()


def shot(page: Page, name: str) -> Path:
    """Keep what the page looks like."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path
