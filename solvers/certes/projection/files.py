"""From projected weights to a weight file and a certificate that names it.

The certificate of a projection is about arrays in memory. What is deployed is a file: it is written, read back, and the
same proof is stated about it and verified, before anybody sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from certes.certificate.check import verify_certificate
from certes.certificate.document import Certificate, restated
from certes.errors import InputError
from certes.projection.base import Projection
from certes.spec import SystemSpec
from certes.systems import SparseMatrix, System
from certes.weights import WeightFile, pack, read_weights, rewritten, to_bytes


@dataclass(frozen=True)
class CertifiedFile:
    """A weight file and the certificate that names it.

    Attributes:
        data: its bytes.
        name: its name, as the certificate has it.
        sha256: its digest.
        changed: names of the tensors that are not those of the given file.
        certificate: unsigned, verified.
    """

    data: bytes
    name: str
    sha256: str
    changed: tuple[str, ...]
    certificate: Certificate


def projected_name(name: str) -> str:
    """The usual name of the new file: ``net.safetensors`` gives ``net-projected.safetensors``."""
    return f"{PurePath(name).stem}-projected.safetensors"


def certified_file(
    found: Projection, spec: SystemSpec, weights: WeightFile, original: Callable[[], bytes], name: str
) -> CertifiedFile | None:
    """The given file with the projected weights in it, all else byte for byte as it was.

    Args:
        found: the projection of the network that
        spec: reads from
        weights: the given file.
        original: gives that file's bytes; asked only if nothing changes: then they are the new file's.
        name: the new file's name.

    Returns:
        None if nothing was certified.

    Raises:
        InputError: the given file is no longer what it was (``file-changed``); a name that no certificate can state.
        RuntimeError: the new file does not verify: a defect.
    """
    certificate = found.result.certificate
    if found.result.verdict != "contracting" or certificate is None:
        return None
    if found.unchanged:
        new = read_weights(data := original(), name=name)
        if new.sha256 != weights.sha256:
            expected = "a file that does not change"
            raise InputError("weights", "other bytes than at first reading", expected, "file-changed")
        return _stated(certificate, spec, data, new, ())
    value, first = found.system.tensors["W"].value, found.system.subjects[0].name
    data = rewritten(weights, {first: value.data if isinstance(value, SparseMatrix) else value})
    return _stated(certificate, spec, data, read_weights(data, name=name), (first,))


def file_with(
    system: System,
    certificate: Certificate,
    weights: WeightFile,
    blocks: Mapping[str, object],
    prefix: str,
    name: str,
) -> CertifiedFile:
    """The given file with other tensors, and the matrices of a whole that is certified: ``PREFIX.A``, ``.B``, ``.C``.

    Args:
        system: what the certificate is about, from memory.
        certificate: its certificate.
        weights: the given file; none of its tensors may have the name of a matrix.
        blocks: tensors that replace those of their name or are added, in their own dtype.
        prefix: of the matrices' names.
        name: the new file's name.

    Raises:
        InputError: the given file is no longer what it was, or has such a tensor (``conflict``).
        RuntimeError: the new file does not verify: a defect.
    """
    roles = {role: f"{prefix}.{role}" for role in system.tensors}
    for taken in roles.values():
        if taken in weights.tensors:
            raise InputError("weights", f"a tensor {taken!r}", "no tensor of that name: it is added", "conflict")
    added = read_weights(to_bytes({**blocks, **{roles[role]: system.matrix(role) for role in roles}}))
    parts = {**weights.tensors, **added.tensors}
    data = pack({key: (entry.dtype, list(entry.shape), entry.raw()) for key, entry in parts.items()}, weights.metadata)
    spec = SystemSpec.of(system).model_copy(update={"tensors": roles})
    return _stated(certificate, spec, data, read_weights(data, name=name), tuple(sorted(added.tensors)))


def _stated(
    certificate: Certificate, spec: SystemSpec, data: bytes, new: WeightFile, changed: tuple[str, ...]
) -> CertifiedFile:
    """The certificate about the file as it is read back, verified."""
    system = spec.system(new)
    assert isinstance(system, System)  # it was one when it was read
    try:
        found = restated(certificate, system)
    except InputError as error:
        if error.slug != "wrong-system":
            raise  # a name that no certificate can state
        raise RuntimeError(f"the new file holds another network ({error}); nothing was certified") from error
    report = verify_certificate(found, new)
    if not report.valid or report.verdict != "contracting":
        raise RuntimeError(f"the new file does not verify ({report.reason}: {report.detail}); nothing was certified")
    return CertifiedFile(data, new.name, new.sha256, changed, found)
