"""An assembly's certificate, all that it names, and weight files, as one file for whoever sends them.

A safetensors file of tensors of bytes: ``documents/DIGEST``, ``proofs/SHA256`` and ``couplings/SHA256`` as
:class:`certes.certificate.assembly.AssemblyBundle` has them, and weight files as ``weights/NAME``. No name in it is
believed: the verifier computes every digest.
"""

from __future__ import annotations

from collections.abc import Mapping

from certes.certificate.assembly import AssemblyBundle
from certes.errors import InputError, TooLargeError
from certes.weights import Limits, WeightFile, pack, read_weights

_KINDS = ("documents", "proofs", "couplings", "weights")


def packed(bundle: AssemblyBundle, weights: Mapping[str, bytes]) -> bytes:
    """One file.

    Args:
        bundle: the certificate with all that it names.
        weights: name -> safetensors file.
    """
    parts = (bundle.documents, bundle.proofs, bundle.couplings, weights)
    return pack(
        {
            f"{kind}/{name}": ("U8", [len(data)], data)
            for kind, files in zip(_KINDS, parts, strict=True)
            for name, data in files.items()
        }
    )


def unpacked(
    root: str, data: bytes, limits: Limits | None = None, field: str = "modules"
) -> tuple[AssemblyBundle, list[WeightFile]]:
    """The parts of :func:`packed`.

    Args:
        root: digest of the certificate of the whole.
        data: the file.
        limits: bounds on the size of each file in it.
        field: what it is called in errors.

    Raises:
        InputError: it is no such file, or ``root`` is not in it. TooLargeError: beyond a limit.
    """
    tensors = _read(data, limits, None, field).tensors
    found: dict[str, dict[str, bytes]] = {kind: {} for kind in _KINDS}
    for key, entry in tensors.items():
        kind, slash, name = key.partition("/")
        if not slash or kind not in found or entry.dtype != "U8":
            given = f"the tensor {key[:80]!r} of dtype {entry.dtype}"
            raise InputError(field, given, f"bytes (U8) named {', '.join(f'{kind}/…' for kind in _KINDS)}", "malformed")
        found[kind][name] = entry.raw()
    documents, proofs, couplings, weights = (found[kind] for kind in _KINDS)
    if root not in documents:
        raise InputError(field, "no document of the certificate itself", f"documents/{root}", "missing-value")
    files = [_read(content, limits, name, field) for name, content in weights.items()]
    return AssemblyBundle(root, documents, proofs, couplings), files


def _read(data: bytes, limits: Limits | None, name: str | None, field: str) -> WeightFile:
    try:
        return read_weights(data, limits, name=name)
    except TooLargeError as error:
        raise TooLargeError(field, error.given, error.limit, error.expected.rpartition(" ")[2]) from None
    except InputError as error:
        raise InputError(field, error.given, error.expected, error.slug) from None
