"""The verbs ``check`` and ``init``. Each returns its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certes_client.remote.option import Server

Where = Annotated[Path, typer.Option(metavar="FILE", help="The policy; its paths are relative to it.")]


def check(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL ...]", help="Which; none: all.")] = None,
    policy: Where = Path("certes.toml"),
    form: Annotated[
        str, typer.Option("--format", metavar="table|json|junit|sarif|github|markdown", help="How it is told.")
    ] = "table",
    report: Annotated[
        list[str] | None, typer.Option(metavar="FORMAT:FILE", help="Tell it in a file, too; can be repeated.")
    ] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Later runs are compared with what passes now.")] = False,
    sign: Annotated[Path | None, typer.Option(metavar="KEY.pem", help="Ed25519 private key to sign with.")] = None,
    server: Server = None,
    as_json: Annotated[bool, typer.Option("--json", help="As --format json.")] = False,
) -> int:
    """Check that the networks of a repository keep their guarantees.

    Unchanged weights are verified against their kept certificate; changed ones are certified anew. Exits 0 all hold,
    1 one lost its guarantee, 2 bad input, 3 one is undecided, 4 internal error.
    """
    from certes.errors import InputError

    from certes_client import certifying, output
    from certes_client.policy import reports
    from certes_client.policy.checking import Checker, exit_code
    from certes_client.policy.document import Policy

    form = "json" if as_json else form
    if form != "table" and form not in reports.FORMATS:
        raise InputError("--format", repr(form), f"table, {', '.join(reports.FORMATS)}", "unknown-value")
    files = [_file(entry) for entry in report or ()]
    promised = Policy.read(policy)
    unknown = [name for name in models or () if name not in promised.models]
    if unknown:
        raise InputError("MODEL", repr(unknown[0]), f"one of {', '.join(promised.models)}", "unknown-value")
    key = None if sign is None else certifying._readable(sign)
    with output.Progress("check").running() as progress:
        checker = Checker(promised, policy.absolute().parent, key, progress, server)
        outcomes = [checker.check(name) for name in models or promised.models]
        if accept:
            checker.accept(outcomes)
    if form == "table":
        reports.table(outcomes)
    else:
        print(reports.FORMATS[form](outcomes), end="", flush=True)
    for kind, path in files:
        _written(reports.FORMATS[kind](outcomes), path)
    return exit_code(outcomes)


def _file(text: str) -> tuple[str, Path]:
    """FORMAT:FILE."""
    from certes.errors import InputError

    from certes_client.policy import reports

    kind, _, path = text.partition(":")
    if kind not in reports.FORMATS or not path:
        expected = f"FORMAT:FILE, FORMAT one of {', '.join(reports.FORMATS)}"
        raise InputError("--report", repr(text)[:200], expected, "unknown-value")
    return kind, Path(path)


def _written(text: str, path: Path) -> None:
    from certes.errors import InputError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        given = f"{path}: {error.strerror or error}"
        raise InputError("--report", given, "a file that can be written", "unwritable") from error


def init(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="The repository.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace a policy that is there.")] = False,
) -> int:
    """Write a first policy by looking at a folder's weight files.

    Exits 0 written, 2 bad input, 4 internal error.
    """
    from certes.errors import InputError
    from certes.words import printable
    from rich.text import Text

    from certes_client import output
    from certes_client.policy.document import NAME
    from certes_client.policy.inspecting import first_policy

    path = folder / NAME
    if not folder.is_dir():
        raise InputError("FOLDER", f"{folder}", "a folder", "unreadable")
    if path.exists() and not force:
        raise InputError("FOLDER", f"{path}, which is there", "a folder without a policy, or --force", "exists")
    text, names, left = first_policy(folder)
    if not names:
        given = "; ".join(left[:3]) or f"no weight file and no description of an assembly below {folder}"
        raise InputError("FOLDER", given, "at least one network or assembly", "missing-value")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        given = f"{path}: {error.strerror or error}"
        raise InputError("FOLDER", given, "a folder that can be written", "unwritable") from error
    screen = output.console()
    screen.print(Text.assemble(("written", "bold green"), f"  {printable(str(path), 4000)}"), soft_wrap=True)
    rows = [("models", ", ".join(names))] + [("left out" if k == 0 else "", line) for k, line in enumerate(left)]
    screen.print(output.fields([*rows, ("next", "look at every guess in it, then: certes check")]))
    return 0
