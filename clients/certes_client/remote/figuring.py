"""What ``certes figure --server`` does: the picture is drawn elsewhere, of a certificate that was verified here."""

from __future__ import annotations

from pathlib import Path

from certes.errors import InputError
from certes.figure.drawing import Theme

from certes_client.remote.errors import BadAnswer
from certes_client.remote.option import connected

#: What no picture of ours has, and a page that shows it would run.
_ACTIVE = (b"<script", b"<foreignobject", b"javascript:", b"<!entity", b"<iframe")


def save(url: str, digest: str, target: Path, theme: Theme) -> None:
    """Fetch the picture of a certificate that the service has.

    Raises:
        InputError: the file cannot be written. BadAnswer: no picture. ServiceError: the service does not have it.
    """
    with connected(url) as client:
        drawn = client.figure(digest, theme)
    folded = drawn.lower()
    if b"<svg" not in folded[:2000] or any(word in folded for word in _ACTIVE):
        raise BadAnswer("the service sent something that is no picture")
    try:
        target.write_bytes(drawn)
    except OSError as error:
        given = f"{target}: {error.strerror}"
        raise InputError("--out", given, "a file that can be written", "unwritable") from error
