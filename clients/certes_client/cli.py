"""The entry point ``certes``: gathers the verbs and turns every outcome into the fixed exit codes.

    0  contracting, or valid             1  not contracting, or invalid
    2  bad input                         3  undecided
    4  an error inside Certes            130  interrupted

A crash is never 1: only a verb that proved something says 1. For that reason nothing but the standard library is
imported before :func:`main` guards it. With ``--json`` every outcome, errors included, is one JSON object on stdout
(but for an interrupt, which says nothing).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer
    from certes.errors import CertesError

GROUP = "certes.commands"
#: Verbs that the service brings, by the extra of that name.
SERVICE = ("serve", "worker", "keys", "storage", "config")
#: The others, in the order in which they are listed.
VERBS = (
    *("inspect", "certify", "verify", "figure", "project", "repair", "compose", "train", "check", "init", "attest"),
    "convert",
)
#: What computes: the client and the verifier are also installed without it (clients/requirements.txt).
SOLVING = ("scipy", "threadpoolctl", "clarabel")
BAD_INPUT, INTERNAL, INTERRUPTED = 2, 4, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: without the program's name; default: those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given) if given else max(_run(["--help"]), BAD_INPUT)  # nothing was asked
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # the reader went away (certes inspect ... | head); nobody is left to tell, and Python must not try at exit
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = INTERNAL
    except BaseException as error:
        code = _crash(error, "--json" in given)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    from certes.errors import CertesError, MissingExtraError
    from typer._click.exceptions import ClickException

    from certes_client import output

    as_json = "--json" in arguments
    try:
        outcome = build()(args=arguments, prog_name="certes", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except ClickException as error:
        if as_json:
            output.print_json(output.usage_problem(error))
        else:
            output.print_usage_error(error)
        return BAD_INPUT
    except CertesError as error:
        return _refuse(error, as_json)
    except ModuleNotFoundError as error:
        if (package := (error.name or "").partition(".")[0]) not in SOLVING:
            raise
        return _refuse(MissingExtraError(package, "", "what is not left to a service (--server)"), as_json)


def _refuse(error: CertesError, as_json: bool) -> int:
    from certes.errors import InputError

    from certes_client import output

    if as_json:
        output.print_json(output.problem(error))
    else:
        output.print_error(error, str(error) if not isinstance(error, InputError) else None)
    return getattr(error, "exit_code", BAD_INPUT)  # a service that does not answer, or not truly, has its own


def build() -> typer.Typer:
    """The application with every verb that is installed.

    Verbs register themselves in the entry-point group ``certes.commands``, so that the service brings ``serve`` and
    this package never imports it. A verb whose extra is missing is listed and says so when called.
    """
    from importlib.metadata import entry_points

    import typer

    app = typer.Typer(
        name="certes",
        help="Stability certificates for recurrent neural networks that anyone can check.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def options(
        version: bool = typer.Option(
            False, "--version", is_eager=True, callback=_show_version, help="Show the version."
        ),
    ) -> None:
        """Stability certificates for recurrent neural networks that anyone can check."""

    app.callback()(options)
    order = [*VERBS, *SERVICE]
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    for name in sorted(found, key=lambda verb: (order.index(verb) if verb in order else len(order), verb)):
        entry = found[name]
        try:
            verb: Callable[..., Any] | typer.Typer = entry.load()
        except ImportError as error:
            if (error.name or "certes").split(".")[0] in {"certes", "certes_client", "certes_service"}:
                raise  # not an extra that is missing but a defect
            verb = _missing(name, error)
        if isinstance(verb, typer.Typer):  # a verb with verbs of its own
            app.add_typer(verb, name=name)
        else:
            app.command(name)(verb)
    return app


def _missing(verb: str, error: ImportError) -> Callable[[], None]:
    package = (error.name or "a package").split(".")[0]

    def unavailable() -> None:
        from certes.errors import MissingExtraError

        raise MissingExtraError(package, "service" if verb in SERVICE else "all", f"certes {verb}")

    unavailable.__doc__ = f"Not available: needs the package {package!r}."
    return unavailable


def _show_version(wanted: bool) -> None:
    if wanted:
        import typer
        from certes._version import __version__

        print(f"certes {__version__}")
        raise typer.Exit


def _crash(error: BaseException, as_json: bool) -> int:
    """Report an error of Certes itself; must work when almost nothing else does."""
    # SystemExit too: some library gave up; its status means nothing here
    with contextlib.suppress(BaseException):
        import traceback

        if os.environ.get("CERTES_DEBUG"):
            traceback.print_exception(error)
        said = f"{type(error).__name__}: {error}"[:500]
        if as_json:
            import json

            print(json.dumps({
                "type": "urn:certes:error:internal", "title": "Internal error", "status": 500, "detail": said,
                "verdict": None,
            }), flush=True)  # fmt: skip
        print(
            f"certes: internal error: {said}\nNothing was certified. CERTES_DEBUG=1 shows the traceback.",
            file=sys.stderr,
        )
    return INTERNAL
