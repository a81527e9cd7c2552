"""The documentation as a site: built without a warning, whole, and without anything from elsewhere."""

from __future__ import annotations

import html
import re
from pathlib import Path

import certes
import certes.nn
import certes_client
import pytest
import yaml
from markdown_it import MarkdownIt

from tests.docs.blocks import pages
from tests.docs.building import build, site
from tests.packaging.support import REPOSITORY

__all__ = ["site"]  # fixture

MADE = "reference/"  # pages that are made from the code have another text in the site


def test_every_page_is_built(site: Path) -> None:
    for page in pages():
        if page.startswith("docs/"):
            assert (site / page.removeprefix("docs/")).with_suffix(".html").exists(), page
    assert not (site / "_site").exists()


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """Only links that a reader follows lead out; no script, style, font or image does."""
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = file.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=\"?(https?:[^\s\">]+|//[^\s\">]+)", text)
        loaded += re.findall(r"<link\b(?![^>]*rel=\"?canonical)[^>]*?\bhref=\"?(https?:[^\s\">]+|//[^\s\">]+)", text)
        loaded += re.findall(r"url\([\"']?(https?:[^)]+|//[^)]+)", text) + re.findall(r"@import[^;]*https?:[^;]*", text)
        assert loaded == [], file


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (REPOSITORY / "README.md").read_text()
    found = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)|(?:src|srcset)=\"([^\"]+)\"", text)
    assert len(found) > 20
    assert [path for pair in found for path in pair if path and not (REPOSITORY / path).exists()] == []


def test_every_page_of_the_readme_and_of_the_site_is_linked() -> None:
    """No page is to be found by search alone."""
    nav = (REPOSITORY / "mkdocs.yml").read_text()
    assert [page for page in pages() if page.startswith("docs/") and page.removeprefix("docs/") not in nav] == []


def seen(text: str, tag: str) -> list[str]:
    found = re.findall(rf"<{tag}(?: [^>]*)?>(.*?)</{tag}>", text, re.DOTALL)
    return [" ".join(html.unescape(re.sub("<[^>]+>", "", part)).split()) for part in found]


@pytest.mark.parametrize("page", [page for page in pages() if page.startswith("docs/") and MADE not in page])
def test_a_page_reads_alike_in_the_site_and_as_markdown(site: Path, page: str) -> None:
    """Stars and brackets of formulas mean to Python-Markdown what they mean to CommonMark, which others read it by."""
    if page == "docs/changes.md":
        return
    plain = MarkdownIt("commonmark").enable("table").render((REPOSITORY / page).read_text())
    built = (site / page.removeprefix("docs/")).with_suffix(".html").read_text()
    article = built[built.index("<article") : built.index("</article>")]
    for tag in ("em", "strong", "td", "li"):
        assert seen(article, tag) == seen(plain, tag), tag


def named(page: str) -> set[str]:
    return set(re.findall(r"^::: (\S+)", (REPOSITORY / "docs" / "reference" / page).read_text(), re.MULTILINE))


def test_the_reference_has_every_public_name() -> None:
    assert {f"certes.{name}" for name in certes.__all__} - named("certes.md") == {"certes.verify", "certes.__version__"}
    assert "certes._Verify.__call__" in named("certes.md")
    assert {f"certes.nn.{name}" for name in certes.nn.__all__} <= named("nn.md")
    assert {f"certes_client.{name}" for name in certes_client.__all__} <= named("client.md")


def test_the_reference_says_something_of_each(site: Path) -> None:
    for page in ("certes.md", "nn.md", "client.md"):
        text = (site / "reference" / page).with_suffix(".html").read_text()
        for name in named(page):
            assert f'id="{name}"' in text, name
        assert ":class:" not in text
        assert ":func:" not in text


def test_the_reference_has_every_command(site: Path) -> None:
    text = html.unescape((site / "reference" / "cli.html").read_text())
    for verb in ("certify", "verify", "figure", "project", "compose", "train", "check", "serve", "keys create"):
        assert f"certes {verb}" in text
    for option in ("--form", "--step", "--sign", "--without", "--keep-zeros", "--scope"):
        assert option in text


def small(folder: Path, text: str, nav: str = "index.md") -> Path:
    """A site with the rules of ours, and one page."""
    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text()) | {"nav": [nav]}
    (folder / "docs" / "assets").mkdir(parents=True)
    (folder / "docs" / "index.md").write_text(text)
    for name in ("docs/_site/hooks.py", "docs/_site/roles.py", "docs/assets/site.css", "docs/assets/icon.svg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("# A\n\n[there](there.md)\n", "there.md"),
        ("# A\n\n[below](#below)\n", "#below"),
        ("# A\n\n[x][certes.nothing]\n", "certes.nothing"),
        ("# A\n\n::: certes.nothing\n", "certes.nothing"),
    ],
)
def test_what_is_wrong_breaks_the_build(tmp_path: Path, text: str, warning: str) -> None:
    done = build(tmp_path / "out", small(tmp_path, text))
    assert done.returncode != 0
    assert warning in done.stderr


def test_a_page_that_is_not_listed_breaks_the_build(tmp_path: Path) -> None:
    folder = small(tmp_path, "# A\n")
    assert build(tmp_path / "out", folder).returncode == 0
    (folder / "docs" / "more.md").write_text("# More\n")
    done = build(tmp_path / "out", folder)
    assert done.returncode != 0
    assert "more.md" in done.stderr


def test_make_docs_is_as_strict() -> None:
    """``--quiet`` would hide warnings from ``--strict``."""
    [command] = [line for line in (REPOSITORY / "Makefile").read_text().splitlines() if "mkdocs build" in line]
    assert "--strict" in command
    assert "--quiet" not in command.partition("#")[0]
