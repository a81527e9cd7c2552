"""Tampered assemblies: every child, metric, block, edge and byte; each refusal with its reason and the path of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes.certificate import ASSEMBLY_REASONS, AssemblyBundle, Certificate, build, verify_assembly, verify_certificate
from certes.certificate.assembly_statement import AssemblyStatement
from certes.certificate.envelope import Envelope
from certes.composition.certificates import certified
from certes.composition.compose import compose
from certes.errors import InputError
from certes.proofs import Claims, LureProof
from certes.systems import tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.certificate.assembly_cases import (
    ASSEMBLIES,
    LINKS,
    assembly_case,
    block,
    content_of,
    digests_along,
    nested,
    network,
    replaced,
    reproved,
    restated,
)
from tests.certificate.tampering import DELETE, canonical, change, leaves

Path_ = tuple[str | int, ...]
LAYER = "brain/v1/layer2"
STEP = "brain/v1"


def at(bundle: AssemblyBundle, path: str) -> tuple[str, str]:
    """Digest of the certificate at a path, and of its proof."""
    digest = digests_along(bundle, path)[-1]
    return digest, content_of(bundle, digest)["predicate"]["proof"]["sha256"]


def outcome(bundle: AssemblyBundle, weights: Any = None, **options: Any) -> tuple[str | None, str | None]:
    case = assembly_case("nested")
    report = verify_assembly(bundle, case.composition.assembly if weights is None else weights, **options)
    if report.valid:
        return None, None
    assert report.reason in ASSEMBLY_REASONS
    assert report.verdict == "undecided"
    assert report.detail
    assert report.path is not None
    if report.path and report.path in {node.path for node in report.nodes}:
        assert report.detail.startswith(report.path)
    assert not report.checks[-1].held
    return report.reason, report.path


# --- one file of the folder is altered -----------------------------------------------------------------------------


PLACES = ["", "brain", STEP, LAYER, "brain/v1/layer1", "brain/pfc"]


@pytest.mark.parametrize("path", PLACES)
def test_a_file_that_is_missing_or_altered(path: str, tmp_path: Path) -> None:
    case = assembly_case("nested")
    digest, proof = at(case.bundle, path)
    suffix = "certificate.json" if path in (LAYER, "brain/v1/layer1", "brain/pfc") else "assembly.json"
    root = case.bundle.write(tmp_path)
    certificate = (f"{digest}.{suffix}", "missing-child", "malformed")
    for name, missing, altered in (certificate, (f"{proof}.proof.safetensors", "missing-proof", "wrong-proof")):
        file = tmp_path / name
        data = file.read_bytes()
        for position in (0, len(data) // 3, len(data) // 2, len(data) - 1):
            file.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
            reason, where = outcome(root, case.file)
            assert where == path
            assert reason in (altered, "malformed", "unsupported-format", "wrong-child")
            file.write_bytes(data[:position])
            assert outcome(root, case.file) == (altered, path)
        if path or name.endswith("safetensors"):
            file.unlink()
            assert outcome(root, case.file) == (missing, path)
        file.write_bytes(data)
    assert outcome(root, case.file) == (None, None)


def test_every_byte_class_of_every_document() -> None:
    """In memory, a stride through all bytes of all documents and proofs: found, and named by its path."""
    case = assembly_case("nested")
    paths = {at(case.bundle, path)[0]: path for path in [*PLACES[:3], "brain/v1/layer1", "brain/pfc"]}
    proofs = {at(case.bundle, path)[1]: path for path in [*PLACES[:3], "brain/v1/layer1", "brain/pfc"]}
    for kind, names in (("documents", paths), ("proofs", proofs)):
        whole = getattr(case.bundle, kind)
        for digest, path in names.items():
            data = whole[digest]
            for position in range(0, len(data), max(1, len(data) // 25)):
                changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
                altered = replace(case.bundle, **{kind: {**whole, digest: changed}})
                reason, where = outcome(altered)
                assert reason is not None, (path, position)
                assert where == path, (path, position)


def test_couplings_that_lie_with_the_certificate(tmp_path: Path) -> None:
    case = assembly_case("nested")
    root = case.bundle.write(tmp_path)
    for file in tmp_path.glob("*.couplings.safetensors"):
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        reason, where = outcome(root, case.file)
        assert reason == "missing-weights"
        assert where is not None
        assert "<-" in where
        file.write_bytes(data)
    altered = dict.fromkeys(case.bundle.couplings, b"no file at all")
    assert outcome(replace(case.bundle, couplings=altered), case.file)[0] == "missing-weights"


def test_a_document_under_the_name_of_another() -> None:
    """Every pair of documents exchanged; a certificate in the place of another one."""
    case = assembly_case("nested")
    documents = case.bundle.documents
    for one in documents:
        for other in documents:
            if one != other:
                reason, where = outcome(replace(case.bundle, documents={**documents, one: documents[other]}))
                assert reason in ("wrong-child", "unsupported-format")
                named = {digests_along(case.bundle, path)[-1] for path in PLACES if path == where}
                assert named == {one}


# --- the weights are not those that were certified -----------------------------------------------------------------


def test_weights_of_a_network() -> None:
    case = assembly_case("nested")
    given = dict(case.composition.assembly.leaves())
    for path in given:
        assert outcome(case.bundle, given | {path: network("other")}) == ("wrong-weights", path)
        assert outcome(case.bundle, given | {path: np.eye(3)}) == ("wrong-weights", path)
    assert outcome(case.bundle, given | {LAYER: network("a", tau=2.0)}) == ("wrong-system", LAYER)
    assert outcome(case.bundle, given | {"brain/v3": network("a")}) == ("wrong-system", "")
    assert outcome(case.bundle, {path: given[path] for path in given if path != LAYER}) == ("missing-weights", LAYER)


def test_weights_of_an_edge() -> None:
    case = assembly_case("nested")
    given: dict[Any, Any] = dict(case.composition.assembly.leaves())
    right = {
        ("body", "brain"): LINKS["body", "brain"],
        "brain<-body": LINKS["brain", "body"],
        ("brain/v1", "brain/pfc"): block(5, 3, 3),
        "brain/v1/layer2<-layer1 (inside)": block(3, 2, 2),
    }
    assert outcome(case.bundle, given | right) == (None, None)
    for key, value in right.items():
        name = {("body", "brain"): "body<-brain", ("brain/v1", "brain/pfc"): "brain/v1<-pfc"}.get(key, key)
        for other in (-value, np.nextafter(value, 1), value.astype(np.float64), value.T, value * np.nan, "no.such"):
            if isinstance(other, str):
                continue
            assert outcome(case.bundle, given | right | {key: other}) == ("wrong-weights", name)
    for extra in (("body", "pfc"), "body<-pfc", ("brain/pfc", "brain/v1/layer1")):
        assert outcome(case.bundle, given | {extra: block(3, 3, 1)}) == ("wrong-system", "")


def test_another_assembly() -> None:
    """The assembly that runs has other modules, edges or another step than the one that was certified."""
    case = assembly_case("nested")
    parts = nested()
    brain = parts["brain"].assembly

    def given(modules: Any, links: Any, **more: Any) -> Any:
        return compose(modules, links, mode="interface", refute=False, **more).assembly

    parts = {"brain": brain, "body": network("a")}
    assert outcome(case.bundle, given(parts, LINKS)) == (None, None)
    only = {pair: value for pair, value in LINKS.items() if pair[0] == "body"}
    assert outcome(case.bundle, given(parts, only)) == ("wrong-system", "")
    assert outcome(case.bundle, given(parts, LINKS, step=0.01)) == ("wrong-system", "")
    assert outcome(case.bundle, given({**parts, "more": network("b")}, LINKS)) == ("wrong-system", "")
    assert outcome(case.bundle, given({"body": network("a"), "brain": brain}, LINKS)) == ("wrong-system", "")
    scaled = LINKS | {("body", "brain"): 2 * LINKS["body", "brain"]}
    assert outcome(case.bundle, given(parts, scaled)) == ("wrong-weights", "body<-brain")
    assert outcome(case.bundle, given({**parts, "brain": network("a")}, {}))[0] == "wrong-system"
    other = {"brain": nested(network("other"))["brain"].assembly, "body": network("a")}
    assert outcome(case.bundle, given(other, LINKS)) == ("wrong-weights", LAYER)


# --- a child replaced by another certificate that is valid ---------------------------------------------------------


def test_another_valid_certificate_for_a_network() -> None:
    case = assembly_case("nested")
    other = certified(compose(nested(network("other")), LINKS, mode="interface"))
    digest, proof = at(other, LAYER)
    documents, proofs = {**case.bundle.documents, **other.documents}, {**case.bundle.proofs, **other.proofs}
    own = at(case.bundle, LAYER)[0]
    swapped = replace(case.bundle, documents={**case.bundle.documents, own: other.documents[digest]}, proofs=proofs)
    assert outcome(swapped) == ("wrong-child", LAYER)
    forged = replaced(case.bundle, LAYER, other.documents[digest], {proof: other.proofs[proof]})
    assert outcome(forged) == ("wrong-weights", LAYER)
    # the forger also presents other weights: the certificate is true, the step above was proven for another metric
    given = dict(case.composition.assembly.leaves()) | {LAYER: network("other")}
    reason, where = outcome(forged, given)
    assert (reason, where) in (("obligation-failed", STEP), ("false-claim", STEP))
    assert outcome(replace(other, documents=documents, proofs=proofs), given) == (None, None)


def test_a_proof_of_the_transposed_network_is_no_interface() -> None:
    """Valid as a certificate; its metric is the inverse of one for the states, and must not be taken for it."""
    case = assembly_case("exact")
    digest, sha256 = at(case.bundle, "x")
    leaf = Certificate(case.bundle.documents[digest], case.bundle.proofs[sha256])
    own, level = leaf.array_proof, leaf.claims.rate
    assert isinstance(own, LureProof)
    assert level is not None
    metric = np.linalg.inv(own.metric)
    dual = LureProof(0.5 * (metric + metric.T), 1.0 / own.multipliers, True, 0.0, np.inf, 0.0, 0.0)
    made = build(network("a"), "contracting", "lure", 1, dual, Claims(rate=0.9 * level))
    assert verify_certificate(made, case.file).valid
    sha256 = made.statement.predicate.proof.sha256
    report = verify_assembly(replaced(case.bundle, "x", made.document, {sha256: made.proof}), case.file)
    assert (report.reason, report.path) == ("obligation-failed", "")
    assert "no metric of its own states" in report.detail


def test_an_assembly_for_a_network_and_the_reverse() -> None:
    case = assembly_case("nested")
    brain, body = digests_along(case.bundle, "brain")[-1], digests_along(case.bundle, "body")[-1]

    def exchange(content: Any, kind: bool) -> Any:
        for k, digest in enumerate((body, brain)):
            content["predicate"]["modules"][k]["certificate"] = content["subject"][k]["digest"]["sha256"] = digest
        if kind:
            for module in content["predicate"]["modules"]:
                module["kind"] = "network" if module["kind"] == "assembly" else "assembly"
        return content

    assert outcome(restated(case.bundle, "", lambda c: exchange(c, False))) == ("unsupported-format", "brain")
    assert outcome(restated(case.bundle, "", lambda c: exchange(c, True)))[0] == "wrong-system"
    assert not verify_assembly(restated(case.bundle, "", lambda c: exchange(c, True)), case.file).valid


# --- the forger keeps all digests consistent -----------------------------------------------------------------------

CLAIMS = ("predicate", "claims")
FALSE: list[tuple[str, str, Path_, Any, str]] = [
    ("nested", "", (*CLAIMS, "rate"), lambda old: old * 1.5, "false-claim"),
    ("nested", "", (*CLAIMS, "rate"), lambda old: old * 0.5, "false-claim"),
    ("nested", "", (*CLAIMS, "rate"), None, "false-claim"),
    ("nested", STEP, (*CLAIMS, "rate"), lambda old: old * 1.5, "false-claim"),
    ("nested", "", (*CLAIMS, "factor"), 0.5, "false-claim"),
    ("nested", "", (*CLAIMS, "lipschitz"), lambda old: old * 0.9, "false-claim"),
    ("nested", "", (*CLAIMS, "lipschitz"), None, "false-claim"),
    ("nested", "", (*CLAIMS, "norm"), "the Euclidean norm", "false-claim"),
    ("nested", "", (*CLAIMS, "largest_step", "step"), lambda old: 1.1 * old, "false-claim"),
    ("nested", "", (*CLAIMS, "largest_step", "step"), -0.1, "false-claim"),
    ("nested", "", (*CLAIMS, "largest_step", "factor"), lambda old: 0.99 * old, "false-claim"),
    ("nested", "", (*CLAIMS, "largest_step", "factor"), 1.0, "false-claim"),
    ("nested", "brain", (*CLAIMS, "largest_step", "factor"), 0.0, "false-claim"),
    ("nested", "", ("predicate", "verdict"), "not_contracting", "false-claim"),
    ("nested", "", ("predicate", "verdict"), "undecided", "false-claim"),
    ("nested", "", ("predicate", "step"), 0.01, "wrong-system"),
    ("nested", "", ("predicate", "condition", "name"), "whole", "unknown-condition"),
    ("nested", "", ("predicate", "condition", "name"), "magic", "unknown-condition"),
    ("nested", "", ("predicate", "condition", "version"), 2, "unknown-condition"),
    ("nested", "", ("predicate", "proof", "kind"), "map-composition", "unknown-condition"),
    ("nested", "", ("predicate", "proof", "sha256"), "0" * 64, "missing-proof"),
    ("nested", STEP, ("predicate", "modules", 0, "states"), 3, "false-claim"),
    ("nested", STEP, ("predicate", "modules", 0, "channels"), 1, "malformed-proof"),
    ("nested", "brain", ("predicate", "modules", 0, "channels"), 1, "false-claim"),
    ("nested", LAYER, (*CLAIMS, "rate"), lambda old: 1.2 * old, "obligation-failed"),
    ("nested", LAYER, ("predicate", "system", "activation"), "sigmoid", "wrong-system"),
    ("maps", "", (*CLAIMS, "factor"), lambda old: 0.9 * old, "false-claim"),
    ("maps", "", (*CLAIMS, "rate"), 0.1, "false-claim"),
    ("maps", "", (*CLAIMS, "lipschitz"), 2.0, "false-claim"),
    ("maps", "", (*CLAIMS, "largest_step"), {"step": 0.1, "factor": 0.9}, "false-claim"),
    ("euler", "inner", (*CLAIMS, "factor"), lambda old: 0.99 * old, "false-claim"),
    ("euler", "inner", (*CLAIMS, "rate"), 0.1, "false-claim"),
    ("euler", "inner", (*CLAIMS, "lipschitz"), 2.0, "false-claim"),
    ("euler", "inner", (*CLAIMS, "largest_step"), {"step": 0.1, "factor": 0.999}, "false-claim"),
    ("whole", "", (*CLAIMS, "rate"), lambda old: 1.01 * old, "false-claim"),
    ("whole", "", (*CLAIMS, "lipschitz"), 5.0, "false-claim"),
    ("exact", "", (*CLAIMS, "rate"), lambda old: 1.01 * old, "false-claim"),
]


@pytest.mark.parametrize(("name", "path", "where", "value", "reason"), FALSE)
def test_false_claim(name: str, path: str, where: Path_, value: Any, reason: str) -> None:
    case = assembly_case(name)
    forged = restated(case.bundle, path, lambda content: change(content, where, value))
    assert outcome(forged, case.composition.assembly) == (reason, path)


def scaled(name: str, factor: float) -> Callable[[Any], Any]:
    return lambda arrays: {**arrays, name: arrays[name] * factor}


def at_index(name: str, index: int, factor: float) -> Callable[[Any], Any]:
    def edit(arrays: Any) -> Any:
        array = arrays[name].copy()
        array.reshape(-1)[index] *= factor
        return {**arrays, name: array}

    return edit


PROOFS: list[tuple[str, str, Callable[[Any], Any], str]] = [
    ("nested", LAYER, scaled("metric", -1.0), "obligation-failed"),
    ("nested", LAYER, scaled("multipliers", -1.0), "obligation-failed"),
    ("nested", LAYER, at_index("metric", 1, 1.5), "obligation-failed"),
    ("nested", STEP, scaled("modules.lipschitz", 0.5), "false-claim"),
    ("nested", STEP, scaled("modules.lipschitz_multipliers", 0.0), "false-claim"),
    ("nested", STEP, scaled("modules.lipschitz", -1.0), "false-claim"),
    ("nested", STEP, scaled("modules.lipschitz", np.inf), "obligation-failed"),
    ("nested", STEP, scaled("modules.lipschitz", 0.0), "false-claim"),  # then the whole has none either
    ("nested", "brain", lambda a: {**a, "modules.lipschitz": np.array([1.0, 1.0])}, "malformed-proof"),
    ("nested", "", scaled("level", 1.5), "obligation-failed"),
    ("nested", "", scaled("lipschitz", 0.9), "false-claim"),
    ("nested", "", scaled("sigma", 0.01), "obligation-failed"),
    ("nested", "", scaled("vector", -1.0), "obligation-failed"),
    ("nested", "", scaled("scale", -1.0), "obligation-failed"),
    ("nested", "", at_index("scale", 0, 1e6), "obligation-failed"),
    ("nested", "", lambda a: {**a, "factor": np.array(0.9)}, "false-claim"),
    ("nested", STEP, scaled("multipliers", 0.0), "obligation-failed"),
    ("nested", STEP, scaled("norms", 0.01), "obligation-failed"),
    ("nested", "", lambda a: {k: v for k, v in a.items() if not k.startswith("modules.")}, "malformed-proof"),
    ("nested", "", lambda a: {k: v for k, v in a.items() if k != "vector"}, "malformed-proof"),
    ("nested", "", lambda a: {**a, "more": np.zeros(1)}, "malformed-proof"),
    ("nested", "", lambda a: {**a, "modules.more": np.zeros(1)}, "malformed-proof"),
    ("nested", "", lambda a: {**a, "scale": a["scale"].astype(np.float32)}, "malformed-proof"),
    ("nested", "", lambda a: {**a, "modules.lipschitz": a["modules.lipschitz"][:-1]}, "malformed-proof"),
    ("nested", "", lambda a: {**a, "exponent": a["exponent"] + 2**62}, "malformed-proof"),
    ("nested", "", lambda a: {**a, "pairs": a["pairs"][:0], "sigma": a["sigma"][:0]}, "obligation-failed"),
    ("nested", STEP, lambda a: {**a, "exact": np.array(True)}, "obligation-failed"),  # a coupling is inside phi
    ("maps", "", scaled("norms", 0.01), "obligation-failed"),
    ("maps", "", scaled("level", 0.5), "obligation-failed"),
    ("maps", "", lambda a: {**a, "modules.lipschitz": np.zeros(2)}, "malformed-proof"),
    ("euler", "inner", scaled("factor", 0.99), "false-claim"),
    ("whole", "", scaled("metric", -1.0), "obligation-failed"),
    ("whole", "", scaled("level", 1.5), "obligation-failed"),
    ("whole", "", lambda a: {**a, "metric": a["metric"][:-1, :-1]}, "obligation-failed"),
    ("exact", "", scaled("level", 1.2), "obligation-failed"),
]


@pytest.mark.parametrize(("name", "path", "edit", "reason"), PROOFS)
def test_forged_proof(name: str, path: str, edit: Callable[[Any], Any], reason: str) -> None:
    case = assembly_case(name)
    assert outcome(reproved(case.bundle, path, edit), case.composition.assembly) == (reason, path)


def test_a_metric_that_is_valid_and_not_the_one_that_was_used() -> None:
    """2^-20 M proves the network as M does; the step above was proven with M, and does not hold with the other."""
    case = assembly_case("nested")

    def edit(arrays: Any) -> Any:
        return {**arrays, "metric": arrays["metric"] * 2.0**-20, "multipliers": arrays["multipliers"] * 2.0**-20}

    forged = reproved(case.bundle, LAYER, edit)
    report = verify_assembly(forged, case.composition.assembly)
    assert {node.path: node.report.valid for node in report.nodes}[LAYER]
    assert report.path == STEP
    assert report.reason in ("obligation-failed", "false-claim")


# --- edges ---------------------------------------------------------------------------------------------------------


def test_edges_of_a_forged_step() -> None:
    """Dropped, turned around, moved inside phi, or with the tensor of another: refused by the mathematics alone."""
    case = assembly_case("nested")

    def without(content: Any, k: int) -> Any:
        del content["predicate"]["couplings"][k]
        del content["subject"][2 + k]
        return content

    def exchanged(content: Any) -> Any:
        first, second = content["subject"][2:]
        for key in ("digest", "annotations"):
            first[key], second[key] = second[key], first[key]
        return content

    def inside(content: Any) -> Any:
        content["predicate"]["couplings"][0]["inside"] = True
        content["subject"][2]["name"] += " (inside)"
        return content

    assert outcome(restated(case.bundle, "", lambda c: without(c, 0))) == ("wrong-system", "")
    reason, where = outcome(restated(case.bundle, "", lambda c: without(c, 0)), case.file)
    assert (reason, where) == ("obligation-failed", "")
    assert outcome(restated(case.bundle, "", exchanged)) == ("wrong-weights", "body<-brain")
    assert outcome(restated(case.bundle, "", exchanged), case.file) == ("malformed", "")  # shapes do not fit
    assert outcome(restated(case.bundle, "", inside)) == ("wrong-system", "")
    assert outcome(restated(case.bundle, "", inside), case.file)[0] in ("obligation-failed", "malformed")


def test_a_coupling_exchanged_for_another_of_its_shape() -> None:
    case = assembly_case("exact")
    forged = restated(
        case.bundle,
        "",
        lambda c: change(c, ("subject", 3, "digest"), {"sha256": "1" * 64}),
    )
    assert outcome(forged, case.file) == ("missing-weights", "x<-y")
    strong = block(3, 3, 11, 3.0)
    sha256 = tensor("L", strong).subjects[0].sha256
    forged = restated(case.bundle, "", lambda c: change(c, ("subject", 3, "digest", "sha256"), sha256))
    given: dict[Any, Any] = dict(case.composition.assembly.leaves())
    assert outcome(forged, given | {("x", "y"): strong}) == ("obligation-failed", "")
    assert outcome(case.bundle, given | {("x", "y"): strong}) == ("wrong-weights", "x<-y")


# --- structure -----------------------------------------------------------------------------------------------------

STRUCTURE: list[tuple[Path_, Any, str]] = [
    (("_type",), "https://in-toto.io/Statement/v2", "unsupported-format"),
    (("predicateType",), "urn:certes:contraction:v1", "unsupported-format"),
    (("predicate", "format"), 2, "unsupported-format"),
    (("predicate", "format"), True, "malformed"),
    (("predicate", "more"), 1, "malformed"),
    (("predicate", "step"), 0, "malformed"),
    (("predicate", "step"), -0.1, "malformed"),
    (("predicate", "modules"), [], "malformed"),
    (("predicate", "modules"), lambda old: old[::-1], "malformed"),
    (("predicate", "modules"), lambda old: [*old, old[0]], "malformed"),
    (("predicate", "modules", 0, "name"), "brain/v1", "malformed"),
    (("predicate", "modules", 0, "name"), "body", "malformed"),
    (("predicate", "modules", 0, "name"), "", "malformed"),
    (("predicate", "modules", 0, "name"), "other", "malformed"),
    (("predicate", "modules", 0, "kind"), "magic", "malformed"),
    (("predicate", "modules", 0, "states"), 8.0, "malformed"),
    (("predicate", "modules", 0, "states"), 0, "malformed"),
    (("predicate", "modules", 0, "states"), 2**70, "malformed"),
    (("predicate", "modules", 0, "certificate"), "0" * 64, "malformed"),
    (("predicate", "modules", 0, "certificate"), "../../x", "malformed"),
    (("predicate", "couplings", 0, "to"), "brain", "malformed"),
    (("predicate", "couplings", 0, "to"), "nobody", "malformed"),
    (("predicate", "couplings"), lambda old: old[:1], "malformed"),
    (("predicate", "couplings"), lambda old: old * 2, "malformed"),
    (("predicate", "couplings"), lambda old: old[::-1], "malformed"),
    (("predicate", "claims", "rate"), 10**400, "malformed"),
    (("predicate", "claims", "rate"), "0.3", "malformed"),
    (("predicate", "proof", "mediaType"), "application/x-pickle", "malformed"),
    (("subject",), lambda old: old[1:], "malformed"),
    (("subject",), lambda old: old[:-1], "malformed"),
    (("subject",), lambda old: [*old, old[-1]], "malformed"),
    (("subject", 0, "annotations"), {"dtype": "F64", "shape": [1]}, "malformed"),
    (("subject", 0, "digest", "sha256"), "0" * 64, "malformed"),
    (("subject", 2, "annotations"), DELETE, "malformed"),
    (("subject", 2, "name"), "brain<-body", "malformed"),
]


@pytest.mark.parametrize(("where", "value", "reason"), STRUCTURE)
def test_structure(where: Path_, value: Any, reason: str) -> None:
    case = assembly_case("nested")
    for path in ("", "brain") if where[-1] != "name" or value not in ("body", "other") else ("",):
        if path and where[:3] == ("predicate", "couplings", 0) and value == "brain":
            continue
        forged = restated(case.bundle, path, lambda content: change(content, where, value))
        assert outcome(forged) == (reason, path)


def test_structure_with_subjects_to_match() -> None:
    """A name that is a path, one edge twice, an edge from a module to itself: refused by themselves."""
    case = assembly_case("exact")

    def renamed(content: Any) -> None:
        content["predicate"]["modules"][2]["name"] = "z/z"
        content["predicate"]["couplings"] = content["predicate"]["couplings"][:1]
        content["subject"] = content["subject"][:4]
        content["subject"][2]["name"] = "module:z/z"

    def twice(content: Any) -> None:
        content["predicate"]["couplings"].append(content["predicate"]["couplings"][0])
        content["subject"].append(content["subject"][3])

    def circle(content: Any) -> None:
        content["predicate"]["couplings"][0] = {"to": "x", "source": "x", "inside": False}
        content["subject"][3]["name"] = "x<-x"

    def nobody(content: Any) -> None:
        content["predicate"]["couplings"][0]["source"] = "w"
        content["subject"][3]["name"] = "x<-w"

    for edit in (renamed, twice, circle, nobody):
        report = verify_assembly(restated(case.bundle, "", edit), case.file)
        assert report.reason == "malformed", edit
        assert len(report.nodes) == 1  # nothing of such a statement is followed
    assert outcome(restated(case.bundle, "", lambda content: None), case.file) == (None, None)


@pytest.mark.parametrize("name", ASSEMBLIES)
def test_every_field_of_an_unsigned_statement(name: str) -> None:
    case = assembly_case(name)
    content = content_of(case.bundle, case.bundle.root)
    for where in (path for path in leaves(content) if "shape" not in path):  # a shape is compared with the weights
        for value in (DELETE, lambda old: [[old]], {"a": 1}):
            with pytest.raises(InputError) as caught:
                AssemblyStatement.from_bytes(canonical(change(content, where, value)))
            assert caught.value.slug in ("malformed", "unsupported-format"), where


def test_a_payload_that_is_not_canonical() -> None:
    case = assembly_case("nested")
    payload = Envelope.from_bytes(case.bundle.documents[case.bundle.root]).payload
    for changed in (payload + b"\n", payload.replace(b":null", b": null", 1), payload[:-1], b"", b"null", b"[" * 9999):
        assert outcome(replaced(case.bundle, "", Envelope(changed).to_bytes())) == ("malformed", "")


# --- signatures ----------------------------------------------------------------------------------------------------


def test_signatures(keys, other_keys) -> None:
    case = assembly_case("nested")
    signed = case.bundle.sign(keys.private)
    assert outcome(signed, key=keys.public) == (None, None)
    assert outcome(case.bundle, key=keys.public) == ("unsigned", "")
    assert outcome(signed, key=other_keys.public) == ("untrusted-key", "")
    content = content_of(signed, signed.root)
    payload = canonical(change(content, (*CLAIMS, "rate"), 9.0))
    forged = Envelope(payload, signatures=signed.envelope.signatures).to_bytes()
    assert outcome(replaced(signed, "", forged), key=keys.public) == ("bad-signature", "")
    # whoever changes a module has to change what is signed
    assert outcome(reproved(signed, LAYER, scaled("metric", 0.5)), key=keys.public) == ("unsigned", "")
    every = case.bundle.sign(keys.private, every=True)
    assert outcome(every, key=keys.public) == (None, None)
    assert [node.digest for node in verify_assembly(every, case.file).nodes] == [
        node.digest for node in verify_assembly(case.bundle, case.file).nodes
    ]
    with pytest.raises(InputError) as caught:
        outcome(signed, key=b"no key")
    assert caught.value.slug == "bad-key"


# --- at random -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_damage_is_never_valid_and_never_a_crash(data: st.DataObject) -> None:
    case = assembly_case(data.draw(st.sampled_from(("nested", "maps", "whole"))))
    kind = data.draw(st.sampled_from(("documents", "proofs")))
    files = dict(getattr(case.bundle, kind))
    name = data.draw(st.sampled_from(sorted(files)))
    old = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 3))):
        how = data.draw(st.sampled_from(("flip", "cut", "insert", "swap")))
        position = data.draw(st.integers(0, max(len(old) - 1, 0)))
        if how == "flip" and old:
            old[position] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del old[position : position + data.draw(st.integers(1, 40))]
        elif how == "insert":
            old[position:position] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            old = bytearray(files[data.draw(st.sampled_from(sorted(files)))])
    if bytes(old) == files[name]:
        return
    files[name] = bytes(old)
    report = verify_assembly(replace(case.bundle, **{kind: files}), case.composition.assembly)
    assert not report.valid
    assert report.reason in ASSEMBLY_REASONS


NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.floats(0.5, 2.0), st.sampled_from((0.0, 1.0, -1.0, 1e-300))
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_edited_statements_that_stay_valid_mean_the_same(data: st.DataObject) -> None:
    """One number, text or digest of a statement, all digests updated: valid only if the claims are as before."""
    case = assembly_case(data.draw(st.sampled_from(("nested", "maps", "euler", "whole", "exact"))))
    paths = [node.path for node in verify_assembly(case.bundle, case.file, cache=_CACHE).nodes]
    path = data.draw(st.sampled_from(paths))
    content = content_of(case.bundle, digests_along(case.bundle, path)[-1])
    where = data.draw(st.sampled_from([w for w in leaves(content) if "versions" not in w]))

    def edit(old: Any) -> Any:
        if isinstance(old, bool) or old is None:
            return data.draw(st.sampled_from((True, False, None, 0.5)))
        if isinstance(old, float):
            return data.draw(NUMBERS) * data.draw(st.sampled_from((1.0, old)))
        if isinstance(old, int):
            return old + data.draw(st.integers(-2, 2))
        if isinstance(old, str):
            others = [entry["name"] for entry in content["subject"]] + sorted(case.bundle.documents)
            return data.draw(st.sampled_from([*others, "relu", "rate", "hopfield", "whole", "0" * 64, old]))
        return old

    try:
        payload = canonical(change(content, where, edit))
    except ValueError:
        return
    forged = replaced(case.bundle, path, Envelope(payload).to_bytes())
    report = verify_assembly(forged, case.composition.assembly)
    if report.valid:  # e.g. a largest step that is smaller, a network's rate that is lower
        before, after = (json.dumps(content_of(b, b.root)["predicate"]["claims"]) for b in (case.bundle, forged))
        claims, own = json.loads(after), json.loads(before)
        for name in ("rate", "factor", "lipschitz", "norm"):
            assert claims[name] == own[name]
        assert len(report.nodes) == len(paths)


_CACHE: dict[str, Any] = {}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_edited_proofs_that_stay_valid_prove_the_same(data: st.DataObject) -> None:
    """One entry of one array of one proof, all digests updated."""
    case = assembly_case(data.draw(st.sampled_from(("nested", "maps", "whole", "exact"))))
    paths = [node.path for node in verify_assembly(case.bundle, case.file, cache=_CACHE).nodes]
    path, factor = data.draw(st.sampled_from(paths)), data.draw(NUMBERS)

    def edit(arrays: Any) -> Any:
        name = data.draw(st.sampled_from(sorted(arrays)))
        array = arrays[name].copy()
        if array.size == 0:
            return arrays
        index = data.draw(st.integers(0, array.size - 1))
        flat = array.reshape(-1)
        flat[index] = flat[index] * factor if array.dtype == np.float64 else not flat[index]
        return {**arrays, name: array}

    with np.errstate(all="ignore"):
        forged = reproved(case.bundle, path, edit)
    report = verify_assembly(forged, case.composition.assembly)
    claims = [content_of(b, b.root)["predicate"]["claims"] for b in (case.bundle, forged)]
    assert claims[0] == claims[1]  # the forger left the claims; what is verified is what was claimed
    if report.valid:
        assert report.nodes[0].level == (claims[0]["rate"] if claims[0]["factor"] is None else claims[0]["factor"])
