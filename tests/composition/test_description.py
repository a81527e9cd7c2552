"""Assemblies in words: what a description means, and everything that strangers may write into one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
import yaml
from certes.assemblies import Assembly
from certes.composition import plaintext
from certes.composition.description import read, with_step
from certes.composition.feedback import metrics_of, skewness
from certes.composition.outcome import Composed
from certes.errors import InputError, TooLargeError
from certes.systems import HopfieldNetwork, RateNetwork, System
from certes.weights import write_weights

EXAMPLES = Path(__file__).parents[2] / "examples" / "assemblies"
V1 = np.array([[0.2, -0.5], [0.4, 0.1]])
V2 = np.diag([0.3, -0.2, 0.1]).astype(np.float32)
B = np.array([[1.0, 2.0], [0.5, -1.0], [0.0, 3.0]])
FREE = "couplings.0.feedback"
A = {"form": "rate", "tensors": {"W": "v1"}, "activation": "tanh"}
C = {"form": "hopfield", "tensors": {"W": "v2"}, "activation": "relu", "tau": 2.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_weights(tmp_path / "w.safetensors", {"v1": V1, "v2": V2, "B": B, "L": 0.1 * B, "row": np.zeros((1, 2))})
    return tmp_path


def put(folder: Path, given: Any, name: str = "net.yaml") -> Path:
    if not isinstance(given, str):
        given = json.dumps(given) if name.endswith("json") else yaml.safe_dump(given, sort_keys=False)
    (folder / name).write_text(given)
    return folder / name


def pair(**more: Any) -> dict[str, Any]:
    return {"file": "w.safetensors", "modules": {"a": A, "b": C}, **more}


def refused(folder: Path, given: Any, field: str, slug: str, name: str = "net.yaml") -> InputError:
    with pytest.raises(InputError) as caught:
        read(put(folder, given, name))
    assert (caught.value.field, caught.value.slug) == (field, slug), str(caught.value)
    return caught.value


def test_modules_couplings_and_time(folder: Path) -> None:
    couplings = [{"to": "b", "from": "a", "tensor": "L"}, {"to": "a", "from": "b", "tensor": "row", "inside": True}]
    write_weights(folder / "other.safetensors", {"row": 0.1 * np.ones((2, 3), np.float16)})
    couplings[1]["file"] = "other.safetensors"
    found = read(put(folder, pair(couplings=couplings, step=0.25, mode="interface")))
    assembly = found.assembly
    a, b = assembly.modules.values()
    assert isinstance(a, RateNetwork)
    assert isinstance(b, HopfieldNetwork)
    assert np.array_equal(a.W, V1)
    assert np.array_equal(b.W, V2)
    assert (b.tau == 2.0).all()
    assert (assembly.step, found.mode) == (0.25, "interface")
    first, second = assembly.couplings
    assert (first.to, first.source, first.inside) == ("b", "a", False)
    assert np.array_equal(first.matrix, 0.1 * B)
    assert (second.to, second.source, second.inside) == ("a", "b", True)
    assert second.weights.subjects[0].dtype == "F16"
    assert with_step(found, None).assembly.step is None


def test_json_and_yaml_mean_the_same(folder: Path) -> None:
    given = pair(couplings=[{"to": "b", "from": "a", "tensor": "L"}], step=1e-3)
    text = "{" + json.dumps(given, indent="\t")[1:]
    for name, content in (("a.yaml", given), ("a.json", given), ("tabs.json", text)):
        found = read(put(folder, content, name)).assembly
        assert list(found.modules) == ["a", "b"]
        assert found.step == 1e-3
        assert np.array_equal(found.couplings[0].matrix, 0.1 * B)


def test_yaml_reads_numbers_as_json_does_and_words_as_words() -> None:
    text = b"{a: 1e-3, no: [on, yes, off, 012, 1:30, 2020-01-01], b: [true, ~, -2, .5]}"
    found = plaintext.parse(text, "assembly")
    assert found == {
        "a": 0.001, "no": ["on", "yes", "off", "012", "1:30", "2020-01-01"], "b": [True, None, -2, 0.5],
    }  # fmt: skip
    assert type(found["b"][0]) is bool
    assert plaintext.parse(b"m: &m {x: 1}\nn: {<<: *m, y: 2}\no: *m", "assembly")["n"] == {"x": 1, "y": 2}


def test_feedback_is_skew_in_the_metrics_that_compose_proves(folder: Path) -> None:
    found = read(put(folder, pair(couplings=[{"feedback": {"between": ["b", "a"], "tensor": "B"}}])))
    answer = found.compose()
    assert answer.root is not None
    metrics = metrics_of({name: node.interface for name, node in answer.root.children.items()})
    couplings = {(edge.to, edge.source): edge.matrix for edge in found.assembly.couplings}
    assert set(couplings) == {("b", "a"), ("a", "b")}
    assert skewness(couplings, metrics) < 1e-12
    assert np.allclose(couplings["b", "a"], B, rtol=1e-3)
    assert answer.modes["interface"] == pytest.approx(min(answer.module_levels.values()), rel=1e-3)
    assert answer.proved == ("a", "b")  # once each, though feedback needed them before


def test_inline_assemblies_take_the_outer_file_and_nest(folder: Path) -> None:
    inner: dict[str, Any] = {"modules": {"a": A}}
    for _ in range(9):
        inner = {"modules": {"x": inner, "a": A}}
    found = read(put(folder, {"file": "w.safetensors", **inner}))
    assert found.assembly.depth == 10
    assert next(path for path, _ in found.assembly.leaves()) == "x/" * 9 + "a"
    assert found.compose(mode="interface").verdict == "contracting"


def test_another_description_has_its_own_folder(folder: Path) -> None:
    (folder / "sub").mkdir()
    write_weights(folder / "sub" / "own.safetensors", {"v1": 0.5 * V1})
    put(folder / "sub", {"modules": {"deep": {**A, "file": "own.safetensors"}}}, "inner.yaml")
    given = pair(modules={"a": A, "in": {"assembly": "sub/inner.yaml"}})
    found = read(put(folder, given)).assembly
    inner = found.modules["in"]
    assert isinstance(inner, Assembly)
    deep = inner.modules["deep"]
    assert isinstance(deep, RateNetwork)
    assert np.array_equal(deep.W, 0.5 * V1)


def certificate(folder: Path, name: str = "v1", W: Any = V1) -> str:
    write_weights(folder / f"{name}.safetensors", {"W": W})
    from certes.spec import SystemSpec
    from certes.weights import read_weights

    spec = SystemSpec.parse({"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"})
    system = spec.system(read_weights(folder / f"{name}.safetensors"))
    found = certes.certify(system).certificate
    assert found is not None
    return found.write(folder).name


def test_certificates_are_verified_and_their_network_is_used(folder: Path) -> None:
    named = certificate(folder)
    module = {"certificate": named, "weights": "v1.safetensors"}
    found = read(put(folder, pair(modules={"a": module, "b": C})))
    a = found.assembly.modules["a"]
    assert isinstance(a, System)
    assert np.array_equal(a.matrix("W"), V1)
    assert a.slope.activation is not None
    write_weights(folder / "v1.safetensors", {"W": 1.0001 * V1})
    error = refused(folder, pair(modules={"a": module}), "assembly.modules.a", "invalid-certificate")
    assert "wrong" in error.given
    refused(folder, pair(modules={"a": {**module, "weights": "gone"}}), "assembly.modules.a.weights", "unreadable")
    refused(folder, pair(modules={"a": {**module, "form": "rate"}}), "assembly.modules.a.form", "unknown-field")
    unstable = certificate(folder, "bad", [[3.0, 0.0], [0.0, 0.1]])
    module = {"certificate": unstable, "weights": "bad.safetensors"}
    error = refused(folder, pair(modules={"a": module}), "assembly.modules.a", "invalid-certificate")
    assert "not_contracting" in error.given


@pytest.mark.parametrize(
    ("topology", "count"),
    [
        ({"kind": "ring"}, 3), ({"kind": "all-to-all"}, 6), ({"kind": "hierarchy"}, 3), ({"kind": "chain"}, 2),
        ({"kind": "hub", "hub": "b"}, 4), ({"kind": "random", "pairs": 4}, 4),
        ({"kind": "random", "pairs": 2, "feedback": True}, 4), ({"kind": "all-to-all", "feedback": True}, 6),
    ],
)  # fmt: skip
def test_topologies(folder: Path, topology: dict[str, Any], count: int) -> None:
    given = {"file": "w.safetensors", "modules": {"a": A, "b": C, "c": A}}
    path = put(folder, {**given, "topology": {"seed": 5, "scale": 0.01, **topology}})
    found, again = read(path), read(path)
    assert len(found.assembly.couplings) == count
    for one, other in zip(found.assembly.couplings, again.assembly.couplings, strict=True):
        assert np.array_equal(one.matrix, other.matrix)
    assert found.compose(mode="interface").verdict == "contracting"


@pytest.mark.parametrize(
    ("change", "field", "slug"),
    [
        ({"modules": {}}, "modules", "wrong-type"),
        ({"modules": None}, "modules", "wrong-type"),
        ({"modules": {"a": {}}}, "modules.a", "missing-value"),
        ({"modules": {"a": {**A, "stp": 1}}}, "modules.a.stp", "unknown-field"),
        ({"modules": {"a": {**A, "step": -1}}}, "modules.a.step", "not-positive"),
        ({"modules": {"a": {**A, "file": 3}}}, "modules.a.file", "wrong-type"),
        ({"modules": {"a": {**A, "tensors": {"W": "gone"}}}}, "modules.a.tensors.W", "unknown-tensor"),
        ({"modules": {"a": {**A, "tensors": {"W": "B"}}}}, "modules.a.W", "not-square"),
        ({"modules": {"a": {"modules": {"x": A}, "mode": "auto"}}}, "modules.a.mode", "conflict"),
        ({"modules": {"a/b": A}}, "modules", "wrong-type"),
        ({"modules": {"a": {**A, "step": 1.0}, "b": C}}, "modules.b", "wrong-time"),
        ({"mode": "best"}, "mode", "unknown-value"),
        ({"step": 0}, "step", "not-positive"),
        ({"couplings": {}}, "couplings", "wrong-type"),
        ({"couplings": [{"to": "a", "from": "z", "tensor": "L"}]}, "couplings.0", "unknown-module"),
        ({"couplings": [{"to": "a", "from": "a", "tensor": "L"}]}, "couplings.0", "self-coupling"),
        ({"couplings": [{"to": "a", "from": "b", "tensor": "gone"}]}, "couplings.0.tensor", "unknown-tensor"),
        ({"couplings": [{"to": "a", "from": "b", "tensor": "L"}]}, "couplings.0", "wrong-shape"),
        ({"couplings": [{"to": "b", "from": "a", "tensor": "L", "file": "x"}]}, "couplings.0.file", "unreadable"),
        ({"couplings": [{"to": "b", "from": "a", "tensor": "L"}] * 2}, "couplings.0", "duplicate-key"),
        ({"couplings": [{"to": "b", "tensor": "L"}]}, "couplings.0.from", "missing-value"),
        ({"couplings": [{"feedback": {"between": ["b"], "tensor": "B"}}]}, f"{FREE}.between", "wrong-type"),
        ({"couplings": [{"feedback": {"between": ["b", "z"], "tensor": "B"}}]}, "couplings.0", "unknown-module"),
        ({"couplings": [{"feedback": {"between": ["a", "b"], "tensor": "B"}}]}, "blocks.a.b", "wrong-shape"),
        ({"couplings": [{"feedback": {"between": ["b", "a"], "tensor": "B"}}] * 2}, "couplings.1", "duplicate-key"),
        ({"couplings": [{"feedback": {}, "inside": True}]}, "couplings.0.inside", "unknown-field"),
        ({"topology": {"kind": "star"}}, "topology.kind", "unknown-value"),
        ({"topology": {"kind": "hub", "hub": "z"}}, "topology.hub", "unknown-module"),
        ({"topology": {"kind": "hub"}}, "topology.hub", "missing-value"),
        ({"topology": {"kind": "ring", "pairs": 3}}, "topology.pairs", "missing-value"),
        ({"topology": {"kind": "random", "pairs": 99}}, "topology.pairs", "out-of-range"),
        ({"file": None}, "modules.a.file", "missing-value"),
        ({"surplus": 1}, "surplus", "unknown-field"),
    ],
)  # fmt: skip
def test_mistakes_are_named(folder: Path, change: dict[str, Any], field: str, slug: str) -> None:
    refused(folder, pair(**change), f"assembly.{field}", slug)


def test_feedback_needs_modules_that_are_certified(folder: Path) -> None:
    write_weights(folder / "bad.safetensors", {"v1": 9.0 * V1 + 3.0 * np.eye(2)})
    given = pair(couplings=[{"feedback": {"between": ["b", "a"], "tensor": "B"}}])
    given["modules"] = {"a": {**A, "file": "bad.safetensors"}, "b": C}
    error = refused(folder, given, "assembly.couplings", "not-certified")
    assert "a: " in error.given


@pytest.mark.parametrize(
    "name",
    ["../w.safetensors", "/etc/passwd", "sub/../../x", "link.safetensors", "linked/w.safetensors", "..", "C:\\x",
     "a\\..\\..\\x", "a\x00b"],
)  # fmt: skip
def test_paths_stay_in_the_folder(folder: Path, name: str) -> None:
    home = folder / "home"
    home.mkdir()
    write_weights(home / "w.safetensors", {"v1": V1})
    (home / "link.safetensors").symlink_to(folder / "w.safetensors")
    (home / "linked").symlink_to(folder)
    for entry, module in (
        ("file", {**A, "file": name}),
        ("assembly", {"assembly": name}),
        ("certificate", {"certificate": name, "weights": "w.safetensors"}),
    ):
        error = refused(home, {"modules": {"m": module}}, f"assembly.modules.m.{entry}", "outside")
        assert "folder" in error.expected


def test_links_inside_the_folder_are_fine_and_only_files_are_read(folder: Path) -> None:
    (folder / "link.safetensors").symlink_to(folder / "w.safetensors")
    assert read(put(folder, {"modules": {"a": {**A, "file": "link.safetensors"}}})).assembly.size == 2
    os.mkfifo(folder / "pipe")
    for name in ("pipe", ".", "gone.safetensors"):
        given = {"modules": {"a": {**A, "file": name}}}
        refused(folder, given, "assembly.modules.a.file", "unreadable")
    with pytest.raises(InputError, match="no file"):
        read(folder / "pipe")
    with pytest.raises(InputError, match="no file"):
        read(folder / "gone.yaml")


def test_cycles(folder: Path) -> None:
    refused(folder, {"modules": {"me": {"assembly": "net.yaml"}}}, "assembly.modules.me.assembly", "cycle")
    put(folder, {"modules": {"x": {"assembly": "net.yaml"}}}, "other.yaml")
    field = "assembly.modules.me.modules.x.assembly"
    refused(folder, {"modules": {"me": {"assembly": "other.yaml"}}}, field, "cycle")


def test_files_that_multiply(folder: Path) -> None:
    """Every file includes the next one ten times: 10^9 modules."""
    put(folder, {"modules": {"a": {**A, "file": "w.safetensors"}}}, "f9.yaml")
    for k in range(9):
        put(folder, {"modules": {f"m{i}": {"assembly": f"f{k + 1}.yaml"} for i in range(10)}}, f"f{k}.yaml")
    with pytest.raises(TooLargeError, match="10000 modules"):
        read(folder / "f0.yaml")


def test_deep_nesting(folder: Path) -> None:
    inner: dict[str, Any] = {"modules": {"a": A}}
    for _ in range(70):
        inner = {"modules": {"x": inner}}
    with pytest.raises(InputError) as caught:
        read(put(folder, {"file": "w.safetensors", **inner}))
    assert caught.value.slug == "too-deep"
    for text in ("a: " + "[" * 100_000 + "]" * 100_000, '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"):
        refused(folder, text, "assembly", "too-deep")


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("a: &a [*a]", "malformed-yaml"), ("a: *b", "malformed-yaml"), ("a: [", "malformed-yaml"),
        ("a: !!python/object/apply:os.system [ls]", "malformed-yaml"), ("", "wrong-type"), ("[1]", "wrong-type"),
        ("modules: {a: 1, a: 2}", "duplicate-key"), ('{"modules": 1, "modules": 2}', "duplicate-key"),
        ("modules: 1\nmodules: 2", "duplicate-key"), ("1: 2", "wrong-type"), ("? [a]\n: 2", "malformed-yaml"),
        ("a: 1e999", "not-finite"), ("a: !!binary aGk=", "wrong-type"), ("a: !!set {b}", "wrong-type"),
        ("a: " + "9" * 5000, "malformed-yaml"), ("a: 1\n---\na: 2", "malformed-yaml"), ("a: \x07", "malformed-yaml"),
    ],
)  # fmt: skip
def test_text_that_is_no_description(text: str, slug: str) -> None:
    with pytest.raises(InputError) as caught:
        plaintext.parse(text.encode(), "assembly")
    assert caught.value.slug == slug, str(caught.value)


def test_yaml_bombs() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 12)]
    with pytest.raises(TooLargeError, match="values"):
        plaintext.parse("\n".join(lines).encode(), "assembly")
    with pytest.raises(TooLargeError, match="bytes"):
        plaintext.parse(b" " * (plaintext.MAX_BYTES + 1), "assembly")
    chain = ["a0: &a0 []"] + [f"a{k}: &a{k} [*a{k - 1}]" for k in range(1, 200)]
    with pytest.raises(InputError) as caught:  # aliases may not go around the limit of depth
        plaintext.parse("\n".join(chain).encode(), "assembly")
    assert caught.value.slug == "too-deep"


def test_not_utf8(folder: Path) -> None:
    (folder / "net.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError) as caught:
        read(folder / "net.yaml")
    assert caught.value.slug == "malformed-yaml"


@pytest.mark.parametrize("name", ["two", "workspace"])
def test_examples(name: str) -> None:
    found = read(EXAMPLES / f"{name}.yaml")
    answer = found.compose(mode="interface")
    assert answer.verdict == "contracting"
    assert isinstance(answer.root, Composed)
    assert "feedback" in answer.modes
