"""Small certified assemblies of every kind, and ways to forge them consistently: digests updated up to the whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from certes.certificate import AssemblyBundle
from certes.certificate.envelope import Envelope
from certes.composition.certificates import certified
from certes.composition.compose import Inside, compose
from certes.composition.outcome import Composition
from certes.spec import SystemSpec
from certes.systems import HopfieldNetwork, System
from certes.weights import WeightFile, read_weights, to_bytes

from tests.certificate.tampering import arrays_of, canonical

Edit = Callable[[Any], Any]


@dataclass(frozen=True)
class AssemblyCase:
    """An assembly, its certificates, and the file with the weights of its networks."""

    name: str
    composition: Composition
    bundle: AssemblyBundle
    weights: bytes

    @property
    def file(self) -> WeightFile:
        return read_weights(self.weights, name="networks.safetensors")


@cache
def _networks() -> tuple[bytes, Mapping[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    found = {}
    for name, size in {"a": 3, "b": 2, "c": 3, "other": 3}.items():
        weights = rng.normal(size=(size, size))
        found[name] = 0.4 * weights / np.linalg.norm(weights, 2)
    return to_bytes(found), found


def network(name: str, **more: Any) -> System:
    """A network of the file."""
    file = read_weights(_networks()[0], name="networks.safetensors")
    spec = {"form": "rate", "tensors": {"W": name}, "activation": "tanh", **more}
    system = SystemSpec.parse(spec).system(file)
    assert isinstance(system, System)
    return system


def block(rows: int, columns: int, seed: int, size: float = 0.04) -> np.ndarray:
    return size * np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def nested(changed: System | None = None) -> dict[str, Any]:
    """brain/v1/layer1, brain/v1/layer2 (the network of body), brain/pfc, body; ``changed``: another brain/v1/layer2."""
    layers = {"layer1": network("b"), "layer2": changed or network("a")}
    v1 = compose(layers, {("layer1", "layer2"): block(2, 3, 1), ("layer2", "layer1"): Inside(block(3, 2, 2))})
    pfc = network("c", form="hopfield", tau=1.5)
    links = {("v1", "pfc"): block(5, 3, 3), ("pfc", "v1"): block(3, 5, 4)}
    brain = compose({"v1": v1, "pfc": pfc}, links, mode="interface")
    return {"brain": brain, "body": network("a")}


LINKS = {("body", "brain"): block(3, 8, 5), ("brain", "body"): block(8, 3, 6, 0.02)}


def _maps() -> Composition:
    both = {("x", "y"): block(3, 2, 7), ("y", "x"): block(2, 3, 10)}
    inner = compose({"x": network("a", step=1.0), "y": network("b", step=0.5)}, both)
    links = {("inner", "z"): block(5, 3, 8, 0.02), ("z", "inner"): Inside(block(3, 5, 9, 0.01))}
    return compose({"inner": inner, "z": network("c", step=1.0)}, links, mode="interface")


def _euler() -> Composition:
    inner = compose({"x": network("a"), "y": network("b")}, {("x", "y"): block(3, 2, 7)}, step=0.1, mode="interface")
    links = {("inner", "z"): block(5, 3, 8, 0.001)}
    return compose({"inner": inner, "z": network("c", step=0.1)}, links, mode="interface")


def _whole() -> Composition:
    """Too much coupling for the interfaces; the whole is contracting."""
    links = {("x", "y"): Inside(block(3, 3, 11, 0.4)), ("y", "x"): block(3, 3, 12, 0.15)}
    return compose({"x": network("a"), "y": network("c")}, links, mode="whole")


def _exact() -> Composition:
    links = {("x", "y"): block(3, 3, 11, 0.2), ("y", "z"): block(3, 2, 12, 0.2), ("z", "x"): block(2, 3, 13, 0.2)}
    return compose({"x": network("a"), "y": network("c"), "z": network("b")}, links, mode="exact")


@cache
def assembly_case(name: str) -> AssemblyCase:
    makers = {
        "nested": lambda: compose(nested(), LINKS, mode="interface"),
        "maps": _maps,
        "euler": _euler,
        "whole": _whole,
        "exact": _exact,
    }
    composition = makers[name]()
    assert composition.verdict == "contracting", composition.detail
    return AssemblyCase(name, composition, certified(composition), _networks()[0])


ASSEMBLIES = ("nested", "maps", "euler", "whole", "exact")

# forging -------------------------------------------------------------------------------------------


def content_of(bundle: AssemblyBundle, digest: str) -> Any:
    """The statement of a document."""
    return json.loads(Envelope.from_bytes(bundle.documents[digest]).payload)


def digests_along(bundle: AssemblyBundle, path: str) -> list[str]:
    """Digests from the whole to the place at a path."""
    found = [bundle.root]
    for name in path.split("/") if path else ():
        modules = content_of(bundle, found[-1])["predicate"]["modules"]
        found.append(next(module["certificate"] for module in modules if module["name"] == name))
    return found


def replaced(
    bundle: AssemblyBundle, path: str, document: bytes, proofs: Mapping[str, bytes] | None = None
) -> AssemblyBundle:
    """Another document at a path, with every step above renamed after it. Signatures are lost."""
    chain, names = digests_along(bundle, path), path.split("/") if path else []
    documents = dict(bundle.documents)
    digest = hashlib.sha256(Envelope.from_bytes(document).payload).hexdigest()
    documents[digest] = document
    for above, name in zip(reversed(chain[:-1]), reversed(names), strict=True):
        content = content_of(bundle, above)
        for k, module in enumerate(content["predicate"]["modules"]):
            if module["name"] == name:
                module["certificate"] = content["subject"][k]["digest"]["sha256"] = digest
        payload = canonical(content)
        digest = hashlib.sha256(payload).hexdigest()
        documents[digest] = Envelope(payload).to_bytes()
    return replace(bundle, root=digest, documents=documents, proofs={**bundle.proofs, **(proofs or {})})


def restated(bundle: AssemblyBundle, path: str, edit: Edit) -> AssemblyBundle:
    """The statement at a path edited in place."""
    content = content_of(bundle, digests_along(bundle, path)[-1])
    content = edit(content) or content
    return replaced(bundle, path, Envelope(canonical(content)).to_bytes())


def reproved(bundle: AssemblyBundle, path: str, edit: Edit) -> AssemblyBundle:
    """The arrays of the proof at a path edited in place, by somebody who updates all digests."""
    content = content_of(bundle, digests_along(bundle, path)[-1])
    arrays = arrays_of(bundle.proofs[content["predicate"]["proof"]["sha256"]])
    arrays = edit(arrays) or arrays
    proof = to_bytes(arrays)
    sha256 = content["predicate"]["proof"]["sha256"] = hashlib.sha256(proof).hexdigest()
    return replaced(bundle, path, Envelope(canonical(content)).to_bytes(), {sha256: proof})


__all__ = ["ASSEMBLIES", "LINKS", "AssemblyCase", "HopfieldNetwork", "assembly_case"]
