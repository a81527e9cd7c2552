"""What ``certes compose --server`` does: the service proves the modules; they are composed here from its proofs.

A proof of a module is what takes long to find. Each is verified here before anything is made of it
(:func:`certes.verify.verify_interface`), and the composition of verified modules is done here, so that the answer and
its certificates are those of this machine. Where the service has no proof to show, the answer is looked for here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from certes.assemblies import SEPARATOR, Assembly, FlowProof, InterfaceProof
from certes.certificate.assembly import open_assembly, read_step
from certes.certificate.document import Certificate, restated
from certes.composition.description import Described
from certes.composition.interfaces import Offered, identity, offer_in
from certes.composition.outcome import Mode
from certes.dtypes import encoded
from certes.errors import InputError
from certes.proofs import LureProof
from certes.spec import SystemSpec
from certes.systems import SparseMatrix, System, Tensor
from certes.verify import verify_interface
from certes.weights import pack

from certes_client.remote.answers import AssemblyAnswer
from certes_client.remote.errors import BadAnswer
from certes_client.remote.option import connected, told

if TYPE_CHECKING:
    from certes_client.remote.client import Client

Packed = dict[str, tuple[str, list[int], bytes]]


def composed(
    url: str, described: Described, mode: Mode | None, seconds: float | None, progress: Callable[[str], None]
) -> Described:
    """The same description, with what the service has proven of its modules, verified.

    Args:
        url: the service.
        described: modules and couplings.
        mode: as asked; None: as the description says.
        seconds: time limit.
        progress: told how far it is.

    Raises:
        InputError: what the service says of the description. RemoteError: no answer.
    """
    spec, file = asked(described)
    spec |= {"mode": mode or described.mode} | ({} if seconds is None else {"seconds": seconds})
    with connected(url) as client:
        progress("asking the service")
        found = client.compose(spec, file, progress=told(progress))
        if found.verdict != "contracting":
            progress("the service has no proof; looking here")
            return described
        progress("verifying what it answered")
        known = dict(_offers(client, found, described.assembly))
    return replace(described, known={**known, **described.known}, proved=_proved(found, described, known))


def asked(described: Described) -> tuple[dict[str, Any], bytes]:
    """A description without files, and one file with every tensor."""
    packed: Packed = {}
    spec = _level(described.assembly, described.metrics, packed, "")
    return spec, pack(packed)


def _level(assembly: Assembly, metrics: Mapping[str, Any], packed: Packed, prefix: str) -> dict[str, Any]:
    modules: dict[str, Any] = {}
    for name, module in assembly.modules.items():
        path = prefix + name
        if isinstance(module, Assembly):
            modules[name] = _level(module, metrics, packed, path + SEPARATOR)
            continue
        roles = {role: _add(packed, entry) for role, entry in module.tensors.items()}
        given = SystemSpec.of(module).model_copy(update={"tensors": roles})
        modules[name] = given.model_dump(mode="json", exclude_none=True)
        if path in metrics:
            modules[name]["metric"] = np.asarray(metrics[path]).tolist()
    couplings = [
        {"to": edge.to, "from": edge.source, "tensor": _add(packed, edge.weights), "inside": edge.inside}
        for edge in assembly.couplings
    ]
    found: dict[str, Any] = {"modules": modules, "couplings": couplings}
    return found if assembly.step is None else found | {"step": assembly.step}


def _add(packed: Packed, entry: Tensor) -> str:
    """Put a tensor into the file, byte for byte as it is stored; returns its name there."""
    if isinstance(entry.value, SparseMatrix):
        expected = "dense weights: sparse ones are certified one network at a time"
        raise InputError("--server", "a module with sparse weights", expected, "unsupported")
    name, (subject,) = f"t{len(packed)}", entry.subjects
    packed[name] = (subject.dtype, list(subject.shape), encoded(entry.value, subject.dtype))
    return name


def _offers(client: Client, found: AssemblyAnswer, assembly: Assembly) -> Iterator[tuple[str, Offered]]:
    """Every network of the assembly that the service has a proof of, with its interface as it was verified here."""
    wanted: dict[Any, dict[str, System]] = {}  # the same weights may be run in several ways
    for _, leaf in assembly.leaves():
        wanted.setdefault(_tensors(leaf), {})[identity(leaf)] = leaf
    documents = {name: client.envelope(name) for name in found.documents}
    norms = _lipschitz(client, documents)
    for name, document in documents.items():
        try:
            certificate = Certificate.from_parts(document, client.proof(name))
            proof = certificate.array_proof
            candidates = wanted[_stated(certificate)]
        except (InputError, KeyError):  # of a step; or of no network of this assembly: then it is of no use
            continue
        if not isinstance(proof, LureProof):
            continue
        for key, leaf in candidates.items():
            with contextlib.suppress(InputError):  # the same weights, run otherwise
                restated(certificate, leaf)
                if (offered := _offered(leaf, certificate, proof, norms.get(name))) is not None:
                    yield key, offered


def _offered(
    system: System, certificate: Certificate, proof: LureProof, norm: tuple[float, Any] | None
) -> Offered | None:
    """The interface of a network that a certificate states, if the verifier accepts it."""
    claims = certificate.statement.predicate.claims
    level = claims.rate if system.continuous else claims.factor
    if level is None or proof.dual:
        return None
    if norm is None and system.continuous:  # the whole was proven in another way: the constant is in no document
        return offer_in(system, proof.metric)
    lipschitz, multipliers = norm or (0.0, 0.0 * proof.multipliers)
    asked = InterfaceProof(proof.metric, proof.multipliers, multipliers, level, lipschitz)
    report, interface = verify_interface(system, asked)
    return Offered(system, asked, interface) if report.valid and interface is not None else None


def _lipschitz(client: Client, documents: Mapping[str, bytes]) -> dict[str, tuple[float, Any]]:
    """Digest of a network's certificate -> its Lipschitz constant and its multipliers, as the steps state them."""
    found: dict[str, tuple[float, Any]] = {}
    for name, document in documents.items():
        try:
            statement = open_assembly(document)[1]
            if statement.predicate.proof.kind != FlowProof.kind:
                continue
            stored = read_step(statement, FlowProof, client.proof(name))
        except InputError:  # of a network
            continue
        for position, module in enumerate(statement.predicate.modules):
            if module.name in stored.multipliers:
                found[module.certificate] = (float(stored.lipschitz[position]), stored.multipliers[module.name])
    return found


def _tensors(system: System) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(sorted((role, tuple(s.sha256 for s in entry.subjects)) for role, entry in system.tensors.items()))


def _stated(certificate: Certificate) -> tuple[tuple[str, tuple[str, ...]], ...]:
    subjects = certificate.statement.tensor_subjects()
    return tuple(sorted((role, tuple(entry.digest.sha256 for entry in given)) for role, given in subjects.items()))


def _proved(found: AssemblyAnswer, described: Described, known: Mapping[str, Offered]) -> tuple[str, ...]:
    """Paths of the networks that were proven anew, in the order of their states."""
    paths = {path: identity(leaf) for path, leaf in described.assembly.leaves()}
    said = found.raw.get("proved") or []
    if not isinstance(said, list):
        raise BadAnswer("the service answered with names of networks that are no list")
    there = [path for path, key in paths.items() if path in said and key in known]
    return tuple(dict.fromkeys((*described.proved, *there)))
