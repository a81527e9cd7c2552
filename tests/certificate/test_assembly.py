"""Certificates of assemblies: built, written, read back and verified, each once, in parallel, with a cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
from certes.assemblies import Assembly, Coupling, InterfaceProof
from certes.certificate import AssemblyBundle, Certificate, assembly_check, build, verify_assembly
from certes.certificate.assembly import Builder, digest_of, is_assembly
from certes.certificate.assembly_statement import AssemblyClaims, AssemblyStatement
from certes.certificate.envelope import Envelope
from certes.composition.certificates import certified
from certes.composition.compose import Inside, compose
from certes.errors import InputError
from certes.systems import RateNetwork, tensor
from certes.weights import write_weights

from tests.certificate.assembly_cases import (
    ASSEMBLIES,
    LINKS,
    AssemblyCase,
    assembly_case,
    block,
    content_of,
    digests_along,
    nested,
    network,
)
from tests.certificate.tampering import canonical


@pytest.fixture(params=ASSEMBLIES)
def case(request: pytest.FixtureRequest) -> AssemblyCase:
    return assembly_case(request.param)


def by_path(case: AssemblyCase) -> dict[Any, Any]:
    """Everything given by its path: networks, and edges by name or pair."""
    assembly = case.composition.assembly
    given: dict[Any, Any] = dict(assembly.leaves())

    def edges(part: Any, prefix: str) -> None:
        for edge in part.couplings:
            given[prefix + edge.name] = edge.matrix.astype(np.float32)
        for name, module in part.modules.items():
            if hasattr(module, "modules"):
                edges(module, f"{prefix}{name}/")

    edges(assembly, "")
    return given


def test_true_certificates_verify(case: AssemblyCase, tmp_path: Path) -> None:
    bundle = case.bundle
    path = bundle.write(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "networks.safetensors").write_bytes(case.weights)
    assembly = case.composition.assembly
    ways = [
        (bundle, assembly),
        (bundle, dict(assembly.leaves())),
        (bundle, by_path(case)),
        (bundle, case.file),
        (path, case.weights),
        (path, [tmp_path / "weights"]),
        (tmp_path, {"anything": tmp_path / "weights" / "networks.safetensors"}),
    ]
    for certificate, weights in ways:
        report = verify_assembly(certificate, weights)
        assert report.valid, report.detail
        assert report.verdict == "contracting"
        assert report.path is None
        report = certes.verify(certificate, weights)
        assert report.valid
        assert report.verdict == "contracting"


def test_claims_are_those_of_the_composition(case: AssemblyCase) -> None:
    composition, claims = case.composition, case.bundle.statement.predicate.claims
    assert (claims.rate, claims.factor) == (composition.rate, composition.factor)
    report = verify_assembly(case.bundle, case.composition.assembly)
    assert report.nodes[0].level == (composition.rate if composition.factor is None else composition.factor)
    if case.name == "nested":
        assert claims.lipschitz == composition.lipschitz
        assert claims.largest_step is not None
        assert (claims.largest_step.step, claims.largest_step.factor) == composition.largest_step
    levels = {node.path: node.level for node in report.nodes}
    for name, level in composition.module_levels.items():
        assert levels[name] == level


def test_write_then_read(case: AssemblyCase, keys, tmp_path: Path) -> None:
    for bundle in (case.bundle, case.bundle.sign(keys.private), case.bundle.sign(keys.private, every=True)):
        path = bundle.write(tmp_path)
        assert AssemblyBundle.read(path) == bundle
        assert AssemblyBundle.read(tmp_path) == bundle
        assert is_assembly(path)
        assert is_assembly(tmp_path)
        assert verify_assembly(path, case.weights, key=keys.public).valid == bundle.signed
    suffixes = {"".join(entry.suffixes[-2:]) for entry in tmp_path.iterdir()}
    assert suffixes == {".certificate.json", ".assembly.json", ".proof.safetensors", ".couplings.safetensors"}


def test_what_is_named_is_written_before_what_names_it(monkeypatch, tmp_path: Path) -> None:
    from certes.certificate import assembly

    written: list[str] = []
    monkeypatch.setattr(assembly, "write_whole", lambda target, data: written.append(target.name))
    bundle = assembly_case("nested").bundle
    bundle.write(tmp_path)
    order = {name.split(".")[0]: k for k, name in enumerate(written)}
    for digest in bundle.documents:
        predicate = content_of(bundle, digest)["predicate"]
        assert order[predicate["proof"]["sha256"]] < order[digest]
        for module in predicate.get("modules", ()):
            assert order[module["certificate"]] < order[digest]


def test_same_answer_same_bytes() -> None:
    case = assembly_case("nested")
    assert certified(case.composition) == case.bundle
    assert certified(compose(nested(), LINKS, mode="interface")) == case.bundle


def test_statement_is_an_in_toto_statement() -> None:
    bundle = assembly_case("nested").bundle
    content = content_of(bundle, bundle.root)
    assert content["_type"] == "https://in-toto.io/Statement/v1"
    assert content["predicateType"] == "urn:certes:composition:v1"
    names = [entry["name"] for entry in content["subject"]]
    assert names == ["module:brain", "module:body", "body<-brain", "brain<-body"]
    for module, subject in zip(content["predicate"]["modules"], content["subject"], strict=False):
        assert module["certificate"] == subject["digest"]["sha256"]
        assert module["certificate"] in bundle.documents
    assert AssemblyStatement.from_bytes(canonical(content)).to_bytes() == canonical(content)
    assert "time" not in canonical(content).decode()


def test_certificates_of_networks_are_ordinary_ones() -> None:
    """They verify alone, and know nothing of the assembly: the same as built from the interface by hand."""
    case = assembly_case("nested")
    digest = digests_along(case.bundle, "body")[-1]
    content = content_of(case.bundle, digest)
    leaf = Certificate(case.bundle.documents[digest], case.bundle.proofs[content["predicate"]["proof"]["sha256"]])
    assert certes.verify(leaf, case.file).valid
    assert digest == digests_along(case.bundle, "brain/v1/layer2")[-1]
    again = build(network("a"), "contracting", "lure", 1, leaf.array_proof, leaf.claims)
    assert again == leaf


def test_every_certificate_is_checked_once(monkeypatch) -> None:
    case = assembly_case("nested")
    counts: dict[str, int] = {"leaf": 0, "interface": 0, "flow": 0}

    def counted(name: str, function: Any) -> Any:
        def inner(*args: Any) -> Any:
            counts[name] += 1
            return function(*args)

        return inner

    for name, attribute in {
        "leaf": "verify_certificate",
        "interface": "verify_interface",
        "flow": "verify_flow",
    }.items():
        monkeypatch.setattr(assembly_check, attribute, counted(name, getattr(assembly_check, attribute)))
    report = verify_assembly(case.bundle, case.composition.assembly, jobs=1)
    assert report.valid
    assert counts == {"leaf": 3, "interface": 3, "flow": 3}  # four networks, two of them the same
    assert (report.leaves_checked, report.steps_checked, report.from_cache) == (3, 3, 0)
    assert [node.path for node in report.nodes] == [
        "", "brain", "brain/v1", "brain/v1/layer1", "brain/v1/layer2", "brain/pfc", "body",
    ]  # fmt: skip


def test_a_cache_spares_what_is_proven() -> None:
    case, cache = assembly_case("nested"), {}
    first = verify_assembly(case.bundle, case.composition.assembly, cache=cache)
    assert (first.leaves_checked, first.steps_checked, first.from_cache) == (3, 3, 0)
    assert set(cache) == set(case.bundle.documents)
    again = verify_assembly(case.bundle, case.composition.assembly, cache=cache)
    assert again.valid
    assert (again.leaves_checked, again.steps_checked, again.from_cache) == (0, 0, 1)
    assert all(node.cached for node in again.nodes)
    assert [(n.path, n.level, n.report.valid) for n in again.nodes] == [
        (n.path, n.level, n.report.valid) for n in first.nodes
    ]
    for digest in list(cache):  # a cache that forgot what lies below the whole
        if digest != case.bundle.root:
            del cache[digest]
    report = verify_assembly(case.bundle, case.composition.assembly, cache=cache)
    assert report.valid
    assert [node.level for node in report.nodes] == [node.level for node in first.nodes]


def test_a_cache_does_not_spare_a_look_at_the_weights() -> None:
    case, cache = assembly_case("nested"), {}
    assert verify_assembly(case.bundle, case.composition.assembly, cache=cache).valid
    given = dict(case.composition.assembly.leaves())
    report = verify_assembly(case.bundle, given | {"body": network("other")}, cache=cache)
    assert (report.reason, report.path) == ("wrong-weights", "body")
    proofs = dict.fromkeys(case.bundle.proofs, b"something else")
    altered = AssemblyBundle(case.bundle.root, case.bundle.documents, proofs, case.bundle.couplings)
    assert verify_assembly(altered, given, cache=cache).reason == "wrong-proof"


def test_after_a_change_of_one_module_its_ancestors_only() -> None:
    """brain/v1/layer2 is replaced: one network proven, and four certificates are new: its own and those above."""
    before = assembly_case("nested")
    cache: assembly_check.Cache = {}
    assert verify_assembly(before.bundle, before.composition.assembly, cache=cache).valid
    parts = nested(network("other"))
    parts["brain"] = parts["brain"].assembly
    after = compose(parts, LINKS, mode="interface", known=before.composition)
    assert after.proved == ("brain/v1/layer2",)
    bundle = certified(after)
    new = set(bundle.documents) - set(before.bundle.documents)
    assert new == {digests_along(bundle, path)[-1] for path in ("", "brain", "brain/v1", "brain/v1/layer2")}
    report = verify_assembly(bundle, after.assembly, cache=cache)
    assert report.valid
    assert (report.leaves_checked, report.steps_checked) == (1, 3)
    assert {node.path for node in report.nodes if not node.cached} == {"", "brain", "brain/v1", "brain/v1/layer2"}


def test_in_parallel_as_one_after_the_other(case: AssemblyCase) -> None:
    one = verify_assembly(case.bundle, case.composition.assembly, jobs=1)
    assert one == verify_assembly(case.bundle, case.composition.assembly, jobs=4)
    broken = AssemblyBundle(case.bundle.root, case.bundle.documents, {}, case.bundle.couplings)
    one = verify_assembly(broken, case.composition.assembly, jobs=1)
    assert not one.valid
    assert one == verify_assembly(broken, case.composition.assembly, jobs=4)


def test_64_levels() -> None:
    leaf = RateNetwork([[0.25]], "tanh")
    inner: Any = leaf
    for level in range(1, 65):
        weights = tensor("L", np.full((1, level), 0.001))
        inner = Assembly({"inner": inner, "side": leaf}, (Coupling("side", "inner", weights),))
    assert inner.depth == 64
    composition = compose(inner, mode="interface")
    bundle = certified(composition)
    assert len(bundle.documents) == 65
    report = verify_assembly(bundle, composition.assembly)
    assert report.valid, report.detail
    assert (report.leaves_checked, report.steps_checked) == (1, 64)
    assert len(report.nodes) == 64 + 65


def test_few_documents_with_more_places_than_atoms() -> None:
    """A graph in which each of 64 steps names the one below it twice is refused at once."""
    case = assembly_case("maps")
    content = content_of(case.bundle, case.bundle.root)
    digest, kind, documents = digests_along(case.bundle, "z")[-1], "network", dict(case.bundle.documents)
    for _ in range(60):
        modules = [{"name": n, "kind": kind, "certificate": digest, "states": 3, "channels": 3} for n in ("l", "r")]
        content["predicate"] |= {"modules": modules, "couplings": []}
        content["subject"] = [{"name": f"module:{n}", "digest": {"sha256": digest}} for n in ("l", "r")]
        envelope = Envelope(canonical(content))
        document = envelope.to_bytes()
        digest, kind = digest_of(document), "assembly"
        documents[digest] = document
    report = verify_assembly(AssemblyBundle(digest, documents, case.bundle.proofs, case.bundle.couplings), case.file)
    assert report.reason == "malformed"
    assert "too large" in report.detail


def test_a_proof_of_the_interfaces_may_be_asked_for() -> None:
    links = {("x", "y"): block(3, 3, 11), ("y", "x"): Inside(block(3, 3, 12))}
    composition = compose({"x": network("a"), "y": network("c")}, links)
    assert composition.mode == "whole"
    best, plain = certified(composition), certified(composition, proof="interface")
    assert best.statement.predicate.condition.name == "whole"
    assert best.statement.predicate.claims.rate == composition.rate
    assert plain.statement.predicate.condition.name == "flow-composition"
    assert plain.statement.predicate.claims.rate == composition.modes["interface"]
    assert plain.statement.predicate.claims.lipschitz == composition.lipschitz
    assert verify_assembly(best, composition.assembly).valid
    assert verify_assembly(plain, composition.assembly).valid


def test_where_the_interfaces_fail_the_whole_names_its_modules_all_the_same() -> None:
    inner = compose({"x": network("a"), "y": network("b")}, {("x", "y"): block(3, 2, 7)}, mode="interface")
    links = {("inner", "z"): block(5, 3, 11, 0.3), ("z", "inner"): Inside(block(3, 5, 12, 0.3))}
    composition = compose({"inner": inner, "z": network("c")}, links, mode="whole")
    assert composition.root is None
    assert composition.modes["interface"] is None
    bundle = certified(composition)
    report = verify_assembly(bundle, composition.assembly)
    assert report.valid
    assert [node.path for node in report.nodes] == ["", "inner", "inner/x", "inner/y", "z"]
    with pytest.raises(InputError):
        certified(composition, proof="interface")


def test_only_what_is_contracting_is_certified() -> None:
    strong = compose({"x": network("a"), "y": network("c")}, {("x", "y"): 5 * np.eye(3), ("y", "x"): 5 * np.eye(3)})
    assert strong.verdict != "contracting"
    with pytest.raises(InputError) as caught:
        certified(strong)
    assert caught.value.slug == "not-proven"


def test_a_whole_is_no_module_of_another() -> None:
    """It has no interface; a step that is itself of the whole may rest on it."""
    case = assembly_case("whole")
    outer = Assembly({"inner": case.composition.assembly})
    root = compose(outer, mode="interface", refute=False).root or assembly_case("exact").composition.root
    assert root is not None
    builder = Builder()
    digest = case.bundle.root
    flow = compose({"inner": network("a")}, mode="interface").root
    assert flow is not None
    assert not isinstance(flow.proof, InterfaceProof)
    made = builder.step(outer, {"inner": digest}, flow.proof, AssemblyClaims(rate=flow.interface.level), {})
    bundle = builder.bundle(made)
    joined = AssemblyBundle(
        made,
        {**case.bundle.documents, **bundle.documents},
        {**case.bundle.proofs, **bundle.proofs},
        case.bundle.couplings,
    )
    report = verify_assembly(joined, outer)
    assert (report.reason, report.path) == ("obligation-failed", "")
    assert "proven as a whole" in report.detail


def test_reading_a_folder_with_two_assemblies(tmp_path: Path) -> None:
    for name in ("maps", "exact"):
        path = assembly_case(name).bundle.write(tmp_path)
        assert AssemblyBundle.read(path) != assembly_case("nested").bundle
    with pytest.raises(InputError, match="2 assemblies"):
        AssemblyBundle.read(tmp_path)
    with pytest.raises(InputError):
        AssemblyBundle.read(tmp_path / "no such file")


def test_weights_that_cannot_be_meant(tmp_path: Path) -> None:
    case = assembly_case("nested")
    with pytest.raises(InputError) as caught:
        verify_assembly(case.bundle, 7)  # type: ignore[arg-type]
    assert caught.value.slug == "wrong-type"
    with pytest.raises(InputError):
        verify_assembly(case.bundle, tmp_path / "none.safetensors")
    report = verify_assembly(case.bundle, None)
    assert (report.reason, report.path) == ("missing-weights", "brain/v1/layer1")
    with pytest.raises(InputError) as caught:
        certes.verify(case.bundle, case.file, exact=True)
    assert caught.value.field == "exact"


def test_couplings_may_lie_in_a_file_of_the_user(tmp_path: Path) -> None:
    case = assembly_case("exact")
    path = case.bundle.write(tmp_path / "certificates", couplings=False)
    own = {f"some.{k}": edge.matrix.astype(np.float32) for k, edge in enumerate(case.composition.assembly.couplings)}
    assert verify_assembly(path, case.file).reason == "missing-weights"
    file = write_weights(tmp_path / "links.safetensors", own)
    assert verify_assembly(path, [case.file, file]).valid


def test_json_of_a_root_is_small() -> None:
    """A step says nothing of what lies below its modules."""
    case = assembly_case("nested")
    content = json.dumps(content_of(case.bundle, case.bundle.root))
    assert "layer2" not in content
    assert "tanh" not in content
