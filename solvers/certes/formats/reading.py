"""The front door: a weight file of any format by its path, as :func:`certes.weights.read_weights` gives safetensors."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePath
from typing import BinaryIO

from certes.errors import InputError, TooLargeError
from certes.formats import archive, sandbox
from certes.formats.contents import unread
from certes.weights import Limits, WeightFile, read_weights, rewritten

_TORCH = sandbox.Reader("pytorch", "a PyTorch checkpoint", "torch", "train")
_ONNX = sandbox.Reader("onnx", "an ONNX model", "onnx", "onnx")
_KERAS = sandbox.Reader("keras", "a Keras model", "h5py", "keras")
_READERS = {
    **dict.fromkeys((".pt", ".pth", ".ckpt"), _TORCH),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), _KERAS),
    ".onnx": _ONNX,
    ".npz": None,
}
#: Endings of files that hold weights in another format; every other file is read as safetensors, or refused.
SUFFIXES = tuple(_READERS)
#: How torch.save begins: ``pytorch_model.bin`` is known by that, since .bin says nothing.
_TORCH_BEGINS = (b"PK\x03\x04", b"\x80\x02")


def read(
    source: str | os.PathLike[str] | bytes, limits: Limits | None = None, *, name: str | None = None
) -> WeightFile:
    """A weight file of any format; one that is not safetensors is converted, and nothing in it is run.

    Args:
        source: path; bytes are safetensors, always.
        limits: bounds on sizes, of the file and of what it converts to.
        name: name of the file for the certificate (default: the path's last part, ``.safetensors`` in place of
            another format's ending).

    Returns:
        As :func:`certes.weights.read_weights`; digest and tensors are those of the file that it converts to.

    Raises:
        InputError: unreadable, or refused by its reader. TooLargeError: beyond a limit.
        MissingExtraError: the library for the format is not installed.
    """
    if isinstance(source, bytes | bytearray | memoryview) or not is_foreign(path := Path(source)):
        return read_weights(source, limits, name=name)
    return read_weights(converted(path, limits), limits, name=name or PurePath(path.name).stem + ".safetensors")


def is_foreign(path: str | os.PathLike[str]) -> bool:
    """Whether a file is of another format than safetensors, by its ending (of a ``.bin``: by how it begins)."""
    suffix = PurePath(path).suffix.lower()
    if suffix != ".bin":
        return suffix in _READERS
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # before opening: a pipe would block
            return False
        with open(path, "rb") as file:
            return file.read(4).startswith(_TORCH_BEGINS)
    except (OSError, ValueError):
        return False


def converted(path: Path, limits: Limits | None = None) -> bytes:
    """The safetensors file that a file of another format converts to: the same tensors give the same bytes.

    Raises:
        InputError: unreadable, or refused by its reader. TooLargeError: beyond a limit.
        MissingExtraError: the library for the format is not installed.
    """
    bounds, reader = limits or Limits(), _READERS.get(path.suffix.lower(), _TORCH)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before opening: a pipe would block
            raise unread(f"{path.name}, which is not a regular file", "a readable weight file")
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > bounds.file_bytes:
                raise TooLargeError("weights", f"{size} bytes", bounds.file_bytes)
            return _convert(reader, stream, path, bounds)
    except OSError as error:
        raise unread(f"{path.name}: {error.strerror or error}", "a readable weight file") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise unread(f"a path that is none ({error})", "a readable weight file") from error


def _convert(reader: sandbox.Reader | None, stream: BinaryIO, path: Path, limits: Limits) -> bytes:
    if reader is None:
        return archive.read(stream, path.name, limits).safetensors()
    return sandbox.convert(reader, stream, path.parent, limits)


def as_safetensors(path: Path, weights: WeightFile) -> Path | bytes:
    """What to send of a file that was read: the file itself, or the bytes that it converts to.

    Args:
        path: the file.
        weights: it, read by :func:`read`.
    """
    return rewritten(weights, {}) if is_foreign(path) else path
