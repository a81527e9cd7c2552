"""Every block of code in README.md and docs is run, or read, as it stands there."""

from __future__ import annotations

import doctest
import shutil
from collections import Counter
from pathlib import Path

import certes
import pytest
import yaml

from tests.docs.blocks import LANGUAGES, Block, Run, Shell, as_shown, blocks_of, commands, excuses, pages
from tests.packaging.support import REPOSITORY

#: Pages that take more than about five seconds.
SLOW = {
    "docs/assemblies.md", "docs/certificates.md", "docs/formats.md", "docs/how-to/describe.md",
    "docs/how-to/figures.md",
    "docs/how-to/service.md", "docs/projection.md", "docs/service/jobs.md", "docs/service/keys.md", "docs/start.md",
    "docs/training.md", "docs/tutorials/gate.md", "docs/tutorials/train.md", "docs/tutorials/unstable.md",
}  # fmt: skip
#: How many blocks may stand there without being run, by page. Each says why, in a comment of its own.
NOT_RUN = {
    "README.md": 1,
    "docs/client.md": 1,
    "docs/how-to/gpu.md": 2,
    "docs/service/jobs.md": 1,
    "docs/service/operations.md": 1,
    "docs/start.md": 1,
}
LOOKS_LIKE_A_COMMAND = ("$ ", "certes ", "curl ", ">>> ", "python ", "make ")


def blocks(page: str) -> list[Block]:
    return list(blocks_of(page, (REPOSITORY / page).read_text()))


BLOCKS = {page: blocks(page) for page in pages()}
EVERY = [block for found in BLOCKS.values() for block in found]
WITH_BLOCKS = [
    pytest.param(page, marks=pytest.mark.slow if page in SLOW else ()) for page, found in BLOCKS.items() if found
]


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_the_blocks_of_a_page(page: str, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    with Shell(tmp_path) as shell:
        run = Run(tmp_path, shell)
        for block in BLOCKS[page]:
            if block.excuse is None:
                run.block(block)


def test_every_block_says_what_it_is() -> None:
    wrong = [f"{block.where}: {block.language or 'no language'}" for block in EVERY if block.language not in LANGUAGES]
    assert wrong == []


def test_no_command_hides_in_a_text() -> None:
    lines = [(block, line) for block in EVERY if block.language == "text" for line in block.text.splitlines()]
    assert [f"{block.where}: {line}" for block, line in lines if line.startswith(LOOKS_LIKE_A_COMMAND)] == []


def test_what_is_not_run_is_counted() -> None:
    assert Counter(block.page for block in EVERY if block.excuse is not None) == NOT_RUN


def test_an_excuse_stands_at_its_block() -> None:
    for page, found in BLOCKS.items():
        assert excuses((REPOSITORY / page).read_text()) == sum(block.excuse is not None for block in found), page


PAGE = """
Text.

```python
x = 1
```

<!-- not run: needs a friend -->
```console
$ certes help
```

- in a list

  ```json title="a/b.json"
  {}
  ```

    indented
"""


def test_blocks_are_found() -> None:
    found = list(blocks_of("p.md", PAGE.replace("    indented", "<!-- -->\n\n    indented")))
    assert [(b.line, b.language, b.title, b.excuse) for b in found] == [
        (4, "python", None, None),
        (9, "console", None, "needs a friend"),
        (15, "json", "a/b.json", None),
        (21, "indented", None, None),
    ]


@pytest.mark.parametrize(
    ("shown", "got", "same"),
    [
        ("a  \n", "a\n", True),
        ("a\n", "b\n", False),
        ("a\n", "a\nb\n", False),
        ("a ...\n", "a 1.5\n", True),
        ("a ... z\n", "a 1\nz\n", False),
        ("a\n...\nz\n", "a\nz\n", True),
        ("a\n...\nz\n", "a\n1\n2\nz\n", True),
        ("a\n...\nz\n", "a\n1\n2\ny\n", False),
        ("0.9643... (x)\n", "0.9650 (x)\n", False),
        ("0....\n", "0.5\n", True),
        ("0....\n", "05\n", False),
        ("a\n...\n", "a\n", True),
    ],
)
def test_shown_and_got(shown: str, got: str, same: bool) -> None:
    assert as_shown(shown, got) is same


def test_commands_and_their_output() -> None:
    text = "$ one \\\n    more\nout\n  put\n$ two\n"
    assert list(commands(text)) == [("one \\\n    more", "out\n  put\n"), ("two", "")]
    with pytest.raises(ValueError, match="begins with"):
        list(commands("certes\n"))


def made(language: str, text: str, title: str | None = None) -> Block:
    return Block("p.md", 1, language, title, text, None)


@pytest.mark.parametrize(
    "block",
    [
        made("console", "$ false\n"),
        made("console", "$ true\nsomething\n"),
        made("console", "$ (exit 3)\n$ echo $?\n2\n"),
        made("console", "$ no-such-command\n"),
        made("python", "raise ValueError\n"),
        made("pycon", ">>> 1 + 1\n3\n"),
        made("json", "{...}"),
        made("toml", "a"),
        made("yaml", "{"),
        made("text", "", "../out.txt"),
    ],
)
def test_a_block_that_is_wrong_is_noticed(block: Block, tmp_path: Path) -> None:
    with Shell(tmp_path) as shell, pytest.raises((AssertionError, ValueError, yaml.YAMLError)):
        Run(tmp_path, shell).block(block)


def test_a_page_is_one_run(tmp_path: Path) -> None:
    before = Path.cwd()
    with Shell(tmp_path) as shell:
        run = Run(tmp_path, shell)
        for block in (
            made("console", "$ NAME=a\n$ (exit 3)\n$ echo $?\n3\n"),
            made("toml", "b = 1\n", "f/c.toml"),
            made("console", "$ cat f/c.toml; echo $NAME; cat; printf d\nb = 1\na\nd\n"),
            made("python", "import pathlib\nx = pathlib.Path('f/c.toml').read_text()\n"),
            made("pycon", ">>> x\n'b = 1\\n'\n>>> y = 2\n"),
            made("python", "assert y == 2\n"),
        ):
            run.block(block)
    assert Path.cwd() == before, "what runs beside it counts on it"


def test_the_examples_in_docstrings() -> None:
    """The reference shows them."""
    found = doctest.testmod(certes, raise_on_error=False)
    assert found.attempted > 0
    assert found.failed == 0
