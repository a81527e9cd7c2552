"""The page in a real browser: upload, certify, project, compare, watch, cancel, log in, an error; small and dark."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.service.asking import SMALL, UNSTABLE, weights
from tests.service.browser import browser, shot, visiting
from tests.service.conftest import CERTES, Running, create_key, environment, running
from tests.service.inside import wait_for
from tests.service.test_assemblies import PARTS
from tests.service.test_assemblies import SPEC as ASSEMBLY

__all__ = ["browser"]  # fixture


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("page") / "data", solvers=1) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(3)
    (made / "stable.safetensors").write_bytes(weights(W=np.array(SMALL, np.float32)))
    (made / "unstable.safetensors").write_bytes(weights(W=np.array(UNSTABLE, np.float32)))
    leaky = (0.7 * rng.standard_normal((12, 12)) / np.sqrt(12)).astype(np.float32)
    (made / "leaky.safetensors").write_bytes(weights(W_rec=leaky, W_in=np.zeros((12, 3), np.float32)))
    long = (0.6 * rng.standard_normal((160, 160)) / np.sqrt(160)).astype(np.float32)
    (made / "long.safetensors").write_bytes(weights(W=long))
    (made / "turning.safetensors").write_bytes(weights(W=[[0.0, -2.5], [2.5, 0.0]]))
    lure = {"A": -np.eye(3), "B": 0.3 * np.ones((3, 2)), "C": 0.3 * np.ones((2, 3))}
    (made / "lure-relu.safetensors").write_bytes(weights(**lure))
    (made / f"{'long_' * 40}.safetensors").write_bytes(weights(**{"W" * 200: SMALL}))
    (made / "parts.safetensors").write_bytes(weights(**PARTS))
    (made / "broken.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{not a header}")
    (made / "<img src=x onerror=alert(1)>.safetensors").write_bytes(
        weights(**{"<script>alert(2)</script>": np.array(SMALL, np.float32)})
    )
    return made


def choose(page: Page, file: Path) -> None:
    """Pick a file and wait until the form has guessed."""
    page.goto("/")
    with page.expect_response("**/inspect"):
        page.set_input_files("#weights", file)


def drawn(page: Page) -> None:
    """Wait until every figure is there."""
    page.evaluate("document.querySelectorAll('img').forEach((image) => image.loading = 'eager')")
    complete = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    assert wait_for(lambda: page.evaluate(complete), 30), page.url


def settled(page: Page) -> None:
    """Wait for the end of a job's page: figures included."""
    expect(page.locator(".verdict").first).to_be_visible()
    expect(page.locator(".slot")).to_have_count(0)
    drawn(page)


def test_upload_certify_and_look(browser: Browser, site: Running, folder: Path) -> None:
    with visiting(browser, site.url) as page:
        page.goto("/")
        expect(page).to_have_title(re.compile("contracting"))
        shot(page, "home")
        choose(page, folder / "leaky.safetensors")
        assert page.locator("#tensor option").all_inner_texts() == ["W_rec"], "guessed from the file"
        page.fill("#step", "0.2")
        shot(page, "home-with-a-file")
        page.get_by_role("button", name="Certify", exact=True).click()
        expect(page.locator(".verdict")).to_have_text(re.compile("Contracting|Undecided"))
        settled(page)
        shot(page, "certified")
        page.get_by_role("link", name="The certificate").click()
        expect(page.get_by_text("each step multiplies the distance")).to_be_visible()
        drawn(page)
        shot(page, "certificate")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the certificate").click()
        document = json.loads(Path(download.value.path()).read_bytes())
        assert document["payloadType"] == "application/vnd.in-toto+json"
        assert download.value.suggested_filename.endswith(".certificate.json")


def test_a_file_that_is_dropped(browser: Browser, site: Running, folder: Path) -> None:
    with visiting(browser, site.url) as page:
        page.goto("/")
        data = list((folder / "leaky.safetensors").read_bytes())
        dropped = page.evaluate_handle(
            "(data) => { const files = new DataTransfer();"
            " files.items.add(new File([new Uint8Array(data)], 'leaky.safetensors')); return files; }",
            data,
        )
        with page.expect_response("**/inspect"):
            page.locator(".drop").first.dispatch_event("drop", {"dataTransfer": dropped})
        expect(page.locator("#tensor option")).to_have_text(["W_rec"])


def test_project_with_one_click_and_compare(browser: Browser, site: Running, folder: Path) -> None:
    with visiting(browser, site.url) as page:
        choose(page, folder / "unstable.safetensors")
        page.get_by_role("button", name="Certify", exact=True).click()
        expect(page.locator(".verdict")).to_have_text("Not contracting")
        settled(page)
        shot(page, "refuted")
        page.get_by_role("button", name="Project it").click()
        expect(page.get_by_role("heading", name="After")).to_be_visible()
        expect(page.locator(".verdict").nth(1)).to_have_text("The nearest weights that are certified")
        expect(page.locator(".slot")).to_have_count(0)
        drawn(page)
        expect(page.locator("svg.spectrum .after")).to_have_count(2)
        shot(page, "before-and-after")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the weights").click()
        assert download.value.suggested_filename.endswith(".safetensors")
        target = folder / "projected.safetensors"
        download.value.save_as(target)
        done = subprocess.run(
            [*CERTES, "certify", str(target), "--form", "rate", "--tensor", "W", "--activation", "tanh", "--json"],
            capture_output=True, text=True, check=False, cwd=folder, env=environment(),
        )  # fmt: skip
        assert json.loads(done.stdout)["verdict"] == "contracting", "what was downloaded is what was promised"


def test_watch_a_job_and_cancel_it(browser: Browser, site: Running, folder: Path) -> None:
    with visiting(browser, site.url) as page:
        choose(page, folder / "long.safetensors")
        page.get_by_text("More", exact=True).click()
        page.select_option("#condition", "lure")
        page.fill("#step", "max")
        page.get_by_role("button", name="Certify", exact=True).click()
        with page.expect_request("**/events"):
            expect(page.locator("progress")).to_be_visible()
        expect(page.locator("[data-phase]")).not_to_be_empty(timeout=30_000)
        first = page.locator("[data-phase]").inner_text()
        expect(page.locator("[data-phase]")).not_to_have_text(first, timeout=30_000)
        expect(page.locator("[data-clock]")).to_have_text(re.compile("^[0-9]+ s$"))
        shot(page, "watching")
        job = page.url
        page.goto("/jobs")
        expect(page.get_by_text("Running").first).to_be_visible()
        shot(page, "jobs")
        page.goto(job)
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".verdict")).to_have_text("Cancelled")


def test_an_error_is_told_where_it_happened(browser: Browser, site: Running, folder: Path) -> None:
    with visiting(browser, site.url) as page:
        choose(page, folder / "broken.safetensors")
        expect(page.locator("#said .problem")).to_be_visible()
        shot(page, "broken-file")
        choose(page, folder / "stable.safetensors")
        expect(page.locator("#said .problem")).to_have_count(0)
        page.fill("#step", "-1")
        page.get_by_role("button", name="Certify", exact=True).click()
        expect(page.locator("#said")).to_contain_text("spec.step")
        expect(page.locator("#said")).to_be_focused()
        expect(page.locator("#step")).to_have_attribute("aria-invalid", "true")
        shot(page, "bad-step")
        assert page.url.rstrip("/") == site.url, "the form is still there"
        page.goto("/jobs/00000000000000000000000000000000")
        expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()


def test_names_from_files_are_text(browser: Browser, site: Running, folder: Path) -> None:
    with visiting(browser, site.url) as page:
        page.on("dialog", lambda _: pytest.fail("a script of a file ran"))
        choose(page, folder / "<img src=x onerror=alert(1)>.safetensors")
        page.get_by_role("button", name="Certify", exact=True).click()
        expect(page.locator("h1")).to_have_text("<img src=x onerror=alert(1)>.safetensors")
        settled(page)
        page.get_by_role("link", name="The certificate").click()
        expect(page.get_by_text("<script>alert(2)</script>")).to_be_visible()


def test_fields_that_belong_to_one_choice(browser: Browser, site: Running, folder: Path) -> None:
    """A form shows what it needs, and nothing else; what a file says is guessed."""
    with visiting(browser, site.url) as page:
        choose(page, folder / "lure-relu.safetensors")
        assert page.input_value("#form") == "lure"
        assert page.input_value("#activation") == "relu"
        for name, shown in (("A", True), ("B", True), ("C", True), ("tensor", False), ("low", False)):
            expect(page.locator(f"#{name}")).to_be_visible(visible=shown)
        page.select_option("#activation", "slopes")
        page.fill("#high", "0.5")
        page.get_by_role("button", name="Certify", exact=True).click()
        expect(page.locator(".verdict")).to_have_text("Contracting")
        expect(page.get_by_text("slopes in [0.0, 0.5]").first).to_be_visible()
        page.goto("/")
        page.select_option("#form", "torch-rnn")
        expect(page.locator("#step")).to_be_hidden()


def test_an_undecided_answer_is_explained(browser: Browser, site: Running, folder: Path) -> None:
    with visiting(browser, site.url) as page:
        choose(page, folder / "turning.safetensors")
        page.fill("#step", "0.1")
        page.get_by_role("button", name="Certify", exact=True).click()
        expect(page.locator(".verdict")).to_have_text("Undecided")
        settled(page)
        expect(page.get_by_role("heading", name="What to do next")).to_be_visible()
        shot(page, "undecided")
        page.get_by_role("button", name="Find the largest step").click()
        expect(page.locator("h1")).to_have_text("turning.safetensors")
        expect(page.locator(".verdict")).to_be_visible()


def test_an_assembly_as_a_graph(browser: Browser, site: Running, folder: Path) -> None:
    with visiting(browser, site.url) as page:
        page.goto("/")
        page.get_by_text("A network of networks").click()
        page.set_input_files("#weights-too", folder / "parts.safetensors")
        page.fill("#spec", json.dumps(ASSEMBLY))
        page.get_by_role("button", name="Certify the whole").click()
        expect(page.locator(".verdict")).to_have_text("Contracting")
        settled(page)
        expect(page.locator("svg.graph .module")).to_have_count(2)
        expect(page.locator("svg.graph .coupling")).to_have_count(2)
        shot(page, "assembly")
        page.locator("svg.graph a").first.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_text("Certificate of a network")).to_be_visible()


def test_public_or_not(browser: Browser, site: Running, folder: Path) -> None:
    with visiting(browser, site.url) as page:
        choose(page, folder / "stable.safetensors")
        page.get_by_role("button", name="Certify", exact=True).click()
        expect(page.locator(".verdict")).to_be_visible()
        page.goto("/certificates")
        page.locator("table a").first.click()
        page.get_by_role("button", name="Let everybody read it").click()
        expect(page.get_by_role("button", name="Make it private")).to_be_visible()
        shot(page, "public")


def test_by_keyboard_alone(browser: Browser, site: Running, folder: Path) -> None:
    with visiting(browser, site.url) as page:
        choose(page, folder / "stable.safetensors")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        reached = []
        for _ in range(12):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
            if reached[-1] == "Certify":
                break
        assert reached == ["weights", "form", "tensor", "activation", "step", "More", "Certify"]
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", "one sees where one is"
        page.keyboard.press("Enter")
        expect(page.locator(".verdict")).to_have_text("Contracting")


def test_every_field_has_a_label(browser: Browser, site: Running) -> None:
    with visiting(browser, site.url) as page:
        page.goto("/")
        nameless = page.evaluate(
            "[...document.querySelectorAll('input:not([type=hidden]), select, textarea')]"
            ".filter((field) => !field.labels.length).map((field) => field.name)"
        )
        assert nameless == []
        assert page.locator("main").count() == page.locator("header").count() == page.locator("footer").count() == 1


@pytest.mark.cases(1)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser: Browser, site: Running, folder: Path, scheme: str) -> None:
    options = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme, "device_scale_factor": 2}
    with visiting(browser, site.url, **options) as page:
        choose(page, folder / "stable.safetensors")
        _fits(page)
        shot(page, f"phone-{scheme}-home")
        page.get_by_role("button", name="Certify", exact=True).click()
        settled(page)
        _fits(page)
        shot(page, f"phone-{scheme}-answer")
        page.get_by_role("link", name="The certificate").click()
        expect(page.get_by_role("heading", name="Check it yourself")).to_be_visible()
        _fits(page)
        shot(page, f"phone-{scheme}-certificate")
        for path in ("/jobs", "/certificates"):
            page.goto(path)
            _fits(page)
        source = page.evaluate("document.querySelector('img')?.currentSrc ?? ''")
        assert scheme == "dark" or "theme=dark" not in source


def test_long_names_on_a_phone(browser: Browser, site: Running, folder: Path) -> None:
    with visiting(browser, site.url, viewport={"width": 360, "height": 740}) as page:
        choose(page, folder / f"{'long_' * 40}.safetensors")
        _fits(page)
        page.get_by_role("button", name="Certify", exact=True).click()
        settled(page)
        _fits(page)
        for path in ("/jobs", "/certificates"):
            page.goto(path)
            _fits(page)


def _fits(page: Page) -> None:
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{page.url} is {wide} pixels too wide"


def test_without_scripts(browser: Browser, site: Running, folder: Path) -> None:
    """The forms are plain forms underneath."""
    with visiting(browser, site.url, java_script_enabled=False) as page:
        page.goto("/")
        page.set_input_files("#weights", folder / "stable.safetensors")
        page.fill("#tensor", "W")
        page.get_by_role("button", name="Certify", exact=True).click()
        expect(page.locator(".verdict")).to_have_text("Contracting")


def test_log_in_with_a_key(browser: Browser, tmp_path: Path, folder: Path) -> None:
    with running(tmp_path / "data", keys=True) as server:
        key = create_key("team", "--data", str(server.data))
        with visiting(browser, server.url) as page:
            page.goto("/jobs")
            expect(page.get_by_label("API key")).to_be_visible()
            shot(page, "login")
            page.fill("#key", "wrong")
            page.get_by_role("button", name="Log in").click()
            expect(page.get_by_text("not valid")).to_be_visible()
            page.fill("#key", key)
            page.get_by_role("button", name="Log in").click()
            expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
            choose(page, folder / "unstable.safetensors")
            page.get_by_role("button", name="Certify", exact=True).click()
            expect(page.locator(".verdict")).to_have_text("Not contracting")
            page.get_by_role("link", name="The certificate").click()
            page.get_by_role("button", name="Let everybody read it").click()
            expect(page.get_by_role("button", name="Make it private")).to_be_visible()
            link = page.url
            with visiting(browser, server.url) as stranger:
                stranger.goto(link)
                expect(stranger.get_by_role("heading", level=1)).to_have_text("Not contracting")
                expect(stranger.get_by_role("button", name="Make it private")).to_have_count(0)
                drawn(stranger)
            page.get_by_role("button", name="Log out").click()
            expect(page.get_by_label("API key")).to_be_visible()
