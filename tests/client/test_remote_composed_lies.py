"""A service that composes with proofs of modules that do not hold: none is used, and nothing is contracting by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.assemblies import InterfaceProof
from certes.certificate.assembly import AssemblyBundle, Builder
from certes.certificate.assembly_statement import AssemblyClaims
from certes.certificate.envelope import Envelope
from certes.composition.description import Described, read
from certes.composition.interfaces import identity
from certes.composition.outcome import Composition
from certes.systems import RateNetwork, System
from certes.weights import write_weights
from certes_client.remote.composing import composed

from tests.client.running import inside
from tests.client.scripted import Answer, Asked, Scripted, says, scripted

Change = Callable[[InterfaceProof], InterfaceProof]
MODULE = {"form": "rate", "activation": "tanh"}
STABLE = {"a": [[0.2, -0.5], [0.4, 0.1]], "b": [[0.3, 0.1], [0.0, -0.4]]}
L = [[0.1, 0.0], [0.0, 0.1]]


def _described(folder: Path, **modules: Any) -> Path:
    arrays = {**STABLE, **modules, "L": L}
    write_weights(folder / "w.safetensors", {name: np.asarray(value) for name, value in arrays.items()})
    given = {
        "file": "w.safetensors", "mode": "interface",
        "modules": {name: MODULE | {"tensors": {"W": name}} for name in ("a", "b")},
        "couplings": [{"to": "b", "from": "a", "tensor": "L"}],
    }  # fmt: skip
    (folder / "net.json").write_text(json.dumps(given))
    return folder / "net.json"


def _proofs(found: Composition) -> dict[str, InterfaceProof]:
    assert found.root is not None
    proofs = {name: child.proof for name, child in found.root.children.items()}
    return {name: proof for name, proof in proofs.items() if isinstance(proof, InterfaceProof)}


def _bundle(found: Composition, proofs: dict[str, InterfaceProof], networks: dict[str, System]) -> AssemblyBundle:
    """Certificates that state these proofs, true or not: what builds them verifies nothing."""
    assert found.root is not None
    builder = Builder()
    digests = {name: builder.network(networks[name], proof) for name, proof in proofs.items()}
    claims = AssemblyClaims(rate=found.rate, lipschitz=found.lipschitz)
    assert not isinstance(found.root.proof, InterfaceProof)
    return builder.bundle(builder.step(found.assembly, digests, found.root.proof, claims, proofs))


def _service(bundle: AssemblyBundle) -> Callable[[Asked], Answer]:
    """A service that says contracting, and has these documents."""
    link = {"digest": bundle.root, "documents": [{"digest": digest} for digest in bundle.documents]}
    answer = {"verdict": "contracting", "rate": 0.9, "detail": "", "certificate": link, "proved": ["a", "b"]}

    def script(asked: Asked) -> Answer:
        if asked.method == "POST":
            return says(answer)
        digest = asked.path.removeprefix("/v1/certificates/").removesuffix("/proof")
        if not asked.path.endswith("/proof"):
            return says(bundle.documents[digest])
        statement = json.loads(Envelope.from_bytes(bundle.documents[digest]).payload)
        return says(bundle.proofs[statement["predicate"]["proof"]["sha256"]])

    return script


def _asked(server: Scripted, described: Described) -> Described:
    return composed(server.url, described, None, None, lambda _: None)


CHANGES: dict[str, tuple[Change, bool]] = {
    "honest": (lambda proof: proof, True),
    "a lower rate, which is true": (lambda proof: replace(proof, level=0.9 * proof.level), True),
    "a higher rate": (lambda proof: replace(proof, level=1.5 * proof.level), False),
    "a smaller Lipschitz constant": (lambda proof: replace(proof, lipschitz=0.3 * proof.lipschitz), False),
    "another metric": (lambda proof: replace(proof, metric=np.diag([1.0, 1e6])), False),
    "a metric that is none": (lambda proof: replace(proof, metric=-proof.metric), False),
    "no multipliers": (lambda proof: replace(proof, multipliers=0.0 * proof.multipliers), False),
    "other multipliers of the constant": (
        lambda proof: replace(proof, lipschitz_multipliers=1e-6 * proof.lipschitz_multipliers), False
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_only_proofs_that_hold_are_taken(name: str, tmp_path: Path) -> None:
    change, holds = CHANGES[name]
    described = read(_described(tmp_path))
    found = described.compose()
    networks = dict(described.assembly.leaves())
    proofs = _proofs(found)
    bundle = _bundle(found, {**proofs, "a": change(proofs["a"])}, networks)
    with scripted(_service(bundle)) as server:
        known = _asked(server, described)
    assert (identity(networks["a"]) in known.known) == holds
    assert identity(networks["b"]) in known.known, "that one holds"
    again = known.compose()
    assert again.verdict == "contracting"
    assert "a" in again.proved, "by the service, or here"
    assert again.rate is not None
    assert found.rate is not None
    assert again.rate <= found.rate * (1.0 + 1e-9)


def test_a_proof_of_an_unstable_module_is_no_proof(tmp_path: Path, capsys: Any) -> None:
    """Certificates of the stable module, restated about the unstable one: they fit in every digest, and do not hold."""
    stable = read(_described(tmp_path)).compose()
    path = _described(tmp_path, a=[[3.0, 0.0], [0.0, 0.5]])
    described = read(path)
    bundle = _bundle(stable, _proofs(stable), dict(described.assembly.leaves()))
    here = inside(capsys, "compose", path, "--json", "--out", tmp_path / "here")
    with scripted(_service(bundle)) as server:
        there = inside(capsys, "compose", path, "--json", "--out", tmp_path / "there", "--server", server.url)
        assert any(asked.path.endswith("/proof") for asked in server.asked), "the proofs were looked at"
    assert here.code == there.code == 1
    assert there.json["certificate"] is None
    assert not list((tmp_path / "there").iterdir())


def test_a_true_proof_of_another_network_is_of_no_use(tmp_path: Path) -> None:
    described = read(_described(tmp_path))
    found = described.compose()
    networks = dict(described.assembly.leaves())
    proofs = _proofs(found)
    bundle = _bundle(found, proofs, networks | {"a": RateNetwork(0.5 * np.asarray(STABLE["a"]), "tanh")})
    with scripted(_service(bundle)) as server:
        assert set(_asked(server, described).known) == {identity(networks["b"])}


def test_a_certificate_under_the_digest_of_another_changes_nothing(tmp_path: Path) -> None:
    """Documents and proofs handed out for each other: what is verified is what is taken."""
    described = read(_described(tmp_path))
    found = described.compose()
    networks = dict(described.assembly.leaves())
    bundle = _bundle(found, _proofs(found), networks)
    names = [digest for digest in bundle.documents if digest != bundle.root]
    swapped = {names[0]: bundle.documents[names[1]], names[1]: bundle.documents[names[0]]}
    with scripted(_service(replace(bundle, documents={**bundle.documents, **swapped}))) as server:
        known = _asked(server, described)
    again = known.compose()
    assert (again.verdict, again.rate) == ("contracting", found.rate)
