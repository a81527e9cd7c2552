"""The verb ``convert``: a weight file of another format as the safetensors file that certificates are about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certes_client.commands import Json


def convert(
    file: Annotated[
        Path, typer.Argument(metavar="IN", help=".pt, .pth, .ckpt, .onnx, .keras, .h5 or .npz; nothing in it is run.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The new file.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> int:
    """Convert a weight file to safetensors; the same tensors give the same bytes.

    A certificate that was made from IN holds for OUT, and the other way round. Exits 0 converted, 2 bad input, 4
    internal error.
    """
    from certes import formats, words
    from certes.errors import InputError
    from certes.recognise import recognise
    from certes.weights import read_weights
    from rich.text import Text

    from certes_client import options, output

    if not formats.is_foreign(file):
        expected = f"a file of another format, known by its ending: {', '.join(formats.SUFFIXES)}"
        raise InputError("IN", str(file), expected, "unsupported")
    if out.suffix != ".safetensors" or out.is_dir():
        raise InputError("OUT", str(out), "a file NEW.safetensors", "invalid-value")
    if out.exists() and not force:
        raise InputError("OUT", f"{out}, which is there", "a new file, or --force", "exists")
    with output.Progress("convert").running() as progress:
        progress(f"reading {file.name}")
        data = formats.converted(file)
        weights = read_weights(data, name=out.name)
        options.folder(out.parent)
        _write(out, data)
    found = recognise(weights)
    if as_json:
        answer = {"file": str(file), "weights": str(out), "sha256": weights.sha256, "tensors": list(weights.tensors)}
        output.print_json(answer | {"metadata": dict(weights.metadata), "recognised": found.kind})
        return 0
    screen = output.console()
    screen.print(Text.assemble(("written", "bold green"), f"  {words.printable(str(out), 4000)}"), soft_wrap=True)
    rows = [("sha256", weights.sha256), ("tensors", str(len(weights.tensors)))]
    screen.print(output.fields([*rows, ("recognised", found.kind), ("", found.detail)]))
    return 0


def _write(target: Path, data: bytes) -> None:
    """At once or not at all."""
    from certes.errors import InputError

    draft = target.with_name(target.name + ".part")
    try:
        draft.write_bytes(data)
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        given = f"{target}: {error.strerror or error}"
        raise InputError("OUT", given, "a place that can be written", "unwritable") from error
