"""The option ``--server``, and the client that it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from certes_client.remote.answers import Job
    from certes_client.remote.client import Client

#: Where the work is done; nothing: here.
Server = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="URL", envvar="CERTES_SERVER", help="Let this service compute; what it answers is verified."
    ),
]


@contextmanager
def connected(url: str) -> Iterator[Client]:
    """A client without a limit on time: solving takes as long as it takes, as it does here.

    Raises:
        InputError: no address, naming the option; an API key that is none; or what the service says of the input, as it
            would be said here.
    """
    from certes.errors import InputError

    from certes_client.remote.asking import KEY
    from certes_client.remote.client import Client
    from certes_client.remote.errors import ServiceError

    try:
        client = Client(url, timeout=None)
    except InputError as error:
        name = "--server" if error.field == "server" else KEY
        raise InputError(name, error.given, error.expected, error.slug) from error
    with client:
        try:
            yield client
        except ServiceError as error:
            if (found := error.about_input) is None:
                raise
            raise found from error


def told(progress: Callable[[str], None]) -> Callable[[Job], None]:
    """Says how far a job is, as the line of progress says it of work that is done here."""

    def tell(job: Job) -> None:
        found = job.progress
        words = [] if found is None else [text for text in (found.phase, found.message) if text]
        progress(": ".join(words) or job.state)

    return tell
