"""What ``train`` certified, ``compose`` certifies from the folder alone; and hints that lie prove nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from certes.certificate.assembly_check import verify_assembly
from certes.composition.certificates import certified
from certes.composition.description import read
from certes.composition.outcome import Composition
from certes.errors import InputError
from certes.nn import product
from certes.nn.architecture import Architecture
from certes.nn.train import train
from certes.nn.trainer import Plan

from tests.nn.test_train import problem

KINDS = ["adadiag", "sparse", "singular", "svd", "absolute", "symmetric", "lure", "workspace"]


def wild(kind: str, guarantee: str, form: str, seed: int = 0) -> Any:
    """A network far from where training begins: metrics that spread over decades, couplings as large as may be."""
    given = {"kind": kind, "modules": [7, 5, 6], "step": [0.05, 0.3], "guarantee": guarantee, "form": form}
    network = Architecture.parse(given).build(2, 2, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 1.5 * torch.randn(parameter.shape, generator=generator)
    return network


def kept(network: Any, folder: Path) -> Path:
    """The two files that ``compose`` reads."""
    product.write_weights(folder / product.WEIGHTS, product.tensors(network))
    path = folder / product.DESCRIPTION
    path.write_text(json.dumps(product.description(network)))
    return path


def changed(path: Path, change: Any) -> Path:
    given = json.loads(path.read_text())
    for k, module in enumerate(given["modules"].values()):
        change(k, module)
    path.write_text(json.dumps(given))
    return path


def no_worse(again: Composition, made: Any) -> None:
    """At least what ``made`` (a report) says."""
    assert again.verdict == "contracting", again.detail
    if made["factor"] is not None:
        assert again.factor is not None
        assert again.factor <= made["factor"] + 1e-6
    else:
        assert again.rate is not None
        assert again.rate >= made["rate"] - 1e-6


@pytest.mark.cases(5)
@pytest.mark.parametrize("guarantee", ["euler", "continuous"])
@pytest.mark.parametrize("kind", KINDS)
def test_compose_certifies_what_train_did(tmp_path: Path, kind: str, guarantee: str) -> None:
    given = {"kind": kind, "modules": [6, 5], "step": [0.05, 0.3], "guarantee": guarantee}
    plan = Plan(epochs=2, learning_rate=5e-2)
    made = train(Architecture.parse(given), problem(60), plan, tmp_path / "out", draw=False)
    no_worse(read(made.folder / product.DESCRIPTION).compose(), made.report)


@pytest.mark.cases(10)
@pytest.mark.parametrize("guarantee", ["euler", "continuous"])
@pytest.mark.parametrize("form", ["hopfield", "rate"])
@pytest.mark.parametrize("kind", KINDS)
def test_also_far_from_where_it_began(tmp_path: Path, kind: str, form: str, guarantee: str) -> None:
    described = read(kept(wild(kind, guarantee, form), tmp_path))
    again = described.compose()
    alone = described.compose(mode="interface" if guarantee == "continuous" else "whole")  # as train does
    no_worse(again, {"factor": alone.factor, "rate": alone.rate})
    path = certified(again).write(tmp_path)
    assert verify_assembly(path, tmp_path).valid


def test_the_hints_are_needed(tmp_path: Path) -> None:
    """Without them one of these is not certified: the couplings are skew in metrics that nobody would guess."""
    lost = 0
    for kind in ("adadiag", "singular", "absolute"):
        path = kept(wild(kind, "euler", "hopfield"), tmp_path)
        assert read(path).compose().verdict == "contracting"
        lost += read(changed(path, lambda _, module: module.pop("metric"))).compose(refute=False).verdict == "undecided"
    assert lost


@pytest.mark.parametrize(
    "lie",
    [
        lambda k, module: module.update(metric=[-value for value in module["metric"]]),
        lambda k, module: module.update(metric=[0.0 for _ in module["metric"]]),
        lambda k, module: module.update(metric=[10.0 ** (20 * (j % 2)) for j, _ in enumerate(module["metric"])]),
        lambda k, module: module.update(metric=np.ones((len(module["metric"]),) * 2).tolist()),
    ],
)
def test_lies_lead_nowhere(tmp_path: Path, lie: Any) -> None:
    """Modules that are certified in metrics of their own are so whatever is said of them."""
    path = kept(wild("absolute", "continuous", "rate"), tmp_path)
    given = json.loads(path.read_text()) | {"couplings": []}
    path.write_text(json.dumps(given))
    bare = read(changed(path, lambda _, module: module.pop("metric"))).compose()
    assert bare.rate is not None
    path.write_text(json.dumps(given))
    found = read(changed(path, lie)).compose()
    assert found.rate is not None
    assert found.rate == pytest.approx(bare.rate, rel=1e-9)
    assert verify_assembly(certified(found).write(tmp_path), tmp_path).valid


def test_a_poor_hint_costs_rate_and_nothing_else(tmp_path: Path) -> None:
    path = kept(wild("absolute", "continuous", "rate"), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"couplings": []}))
    best = read(path).compose()
    found = read(changed(path, lambda k, module: module.update(metric=[1e300 for _ in module["metric"]]))).compose()
    assert found.rate is not None
    assert best.rate is not None
    assert 0.0 < found.rate < best.rate
    assert verify_assembly(certified(found).write(tmp_path), tmp_path).valid


def test_equal_networks_have_each_a_metric_of_their_own(tmp_path: Path) -> None:
    """The couplings of two modules with the same weights are skew in metrics that differ."""
    made = wild("adadiag", "continuous", "hopfield")
    path = kept(made, tmp_path)
    weights = product.tensors(made)
    steps = [np.array(module["tau"]) for module in json.loads(path.read_text())["modules"].values()]
    for k in range(3):
        weights[f"m{k}.W"] = np.zeros_like(weights[f"m{k}.W"])  # contracts in every diagonal metric
    names = {"m0<-m2": (0, 2), "m2<-m0": (2, 0)}
    metrics = {0: np.geomspace(1, 1e4, 5), 2: np.geomspace(1e5, 1, 5)}
    block = np.random.default_rng(0).standard_normal((5, 5))
    weights = {name: value[:5, :5] if name in ("m0.W", "m2.W") else value for name, value in weights.items()}
    weights["m0<-m2"] = (30.0 * block / metrics[0][:, None]).astype(np.float32)
    weights["m2<-m0"] = (-30.0 * block.T / metrics[2][:, None]).astype(np.float32)
    given = json.loads(path.read_text())
    given["couplings"] = [edge for edge in given["couplings"] if edge["tensor"] in names]
    for k in (0, 2):
        given["modules"][f"m{k}"] |= {"metric": metrics[k].tolist(), "tau": steps[0][:5].max().repeat(5).tolist()}
    product.write_weights(tmp_path / product.WEIGHTS, weights)
    path.write_text(json.dumps(given))
    assert read(path).compose().verdict == "contracting"


def test_an_unstable_network_is_not_talked_into_anything(tmp_path: Path) -> None:
    path = kept(wild("singular", "euler", "hopfield"), tmp_path)
    weights = product.tensors(wild("singular", "euler", "hopfield"))
    weights["m0.W"] = (3.0 * np.eye(7)).astype(np.float32)
    product.write_weights(tmp_path / product.WEIGHTS, weights)
    assert read(path).compose().verdict == "not_contracting"


@pytest.mark.parametrize(
    ("metric", "slug"),
    [
        ("1, 2", "wrong-shape"), ([1.0], "wrong-shape"), ([], "wrong-shape"), (True, "wrong-shape"),
        (["1"] * 7, "wrong-shape"), ([True] * 7, "wrong-shape"), ([[1.0] * 7] * 6, "wrong-shape"),
        ([[1.0], [1.0, 2.0]], "wrong-type"), ({"a": 1}, "wrong-shape"), ([1.0] * 6 + [10**400], "wrong-type"),
    ],
)  # fmt: skip
def test_what_is_no_metric_is_refused_by_name(tmp_path: Path, metric: Any, slug: str) -> None:
    path = kept(wild("singular", "euler", "hopfield"), tmp_path)
    with pytest.raises(InputError) as caught:
        read(changed(path, lambda k, module: module.update(metric=metric) if k == 0 else None))
    assert (caught.value.field, caught.value.slug) == ("assembly.modules.m0.metric", slug)
