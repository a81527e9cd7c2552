"""Condition ``absolute`` on large sparse weights against sparse matrix-vector products, and its peak memory.

Times are taken in one process and memory in two fresh ones (one that verifies, one that finds), because the peak of a
process never comes down again. The weights are made once and handed over as files, so that making them does not count.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from certes.proofs import AbsoluteProof, Claims
from certes.systems import RateNetwork
from certes.verify.contraction import verify_contraction

from benchmarks import child
from benchmarks.measure import Contender, Race, Spread, race
from benchmarks.problems import sparse_weights, wide_problem
from benchmarks.report import Row

#: n and rounds; 10 nonzeros per row.
FULL, QUICK = (1_000_000, 7), (2_000, 2)
PRODUCTS = 50
AIMS: dict[str, float | None] = {"verify": 1.0, "find": 4.0, "memory": 2.0}
_ARRAYS = ("data", "indices", "indptr")


def rows(quick: bool) -> Iterator[Row]:
    """Times, then memory."""
    size, rounds = QUICK if quick else FULL
    label = f"n = {size:,}, {10 * size:,} nonzeros"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _save(sparse_weights(size), place)
        taking, verifying, finding = (_race(entry) for entry in child.run("sparse", "time", place, rounds))
        yield Row.of_race("take sparse weights in: check, copy, hash", label, taking)
        aims = dict.fromkeys(AIMS) if quick else AIMS
        because = "its passes over the nonzeros cost more than 50 products"
        yield Row.of_race("verify an absolute proof", label, verifying, aims["verify"], because)
        because = "power iteration needs too many products"
        yield Row.of_race("find an absolute proof, Perron root 0.9", label, finding, aims["find"], because)
        because = "too many temporaries as long as the nonzeros"
        for what in ("verify", "find"):
            peak = Spread.of([child.run("sparse", what, place, 1)["bytes"] / 1e9])
            yield Row(f"peak memory: {what}", label, peak, "GB", aims["memory"], because=because)
    yield from _wide(size, rounds)


def _wide(size: int, rounds: int) -> Iterator[Row]:
    weights, proof, claims = wide_problem(size)
    system = RateNetwork(weights, slope=(0.0, 1.0))
    result = race(_verifying(system, proof, claims), [_products(weights)], rounds)
    yield Row.of_race("verify an absolute proof, vectors spanning 2^2000", f"n = {size:,}, 10 diagonals", result)


def _verifying(system: RateNetwork, proof: Any, claims: Claims) -> Contender:
    def work() -> None:
        report = verify_contraction(system, proof, claims)
        if not report.valid:
            raise AssertionError(report.detail)

    return Contender("verify", work)


def _products(weights: sp.csr_array) -> Contender:
    x = np.random.default_rng(2).standard_normal(weights.shape[0])

    def work() -> None:
        for _ in range(PRODUCTS):
            weights @ x

    return Contender(f"{PRODUCTS} sparse products", work)


def _find(system: RateNetwork) -> tuple[AbsoluteProof, Claims]:
    from certes.conditions.absolute import CONDITION
    from certes.conditions.base import Goal

    found = CONDITION.decide(system, Goal())
    if not isinstance(found, tuple) or not isinstance(found[0].proof, AbsoluteProof):
        raise AssertionError(f"nothing found: {found}")
    return found[0].proof, found[0].claims


def _save(weights: sp.csr_array, place: Path) -> None:
    for name in _ARRAYS:
        np.save(place / f"{name}.npy", getattr(weights, name))
    proof, claims = _find(RateNetwork(weights, slope=(0.0, 1.0)))
    for name, array in proof.to_arrays().items():
        np.save(place / f"proof-{name}.npy", array)
    (place / "claims.json").write_text(json.dumps(claims.rate))


def _load(place: Path) -> sp.csr_array:
    parts = tuple(np.load(place / f"{name}.npy") for name in _ARRAYS)
    size = len(parts[2]) - 1
    return sp.csr_array(parts, shape=(size, size))


def _load_proof(place: Path) -> tuple[AbsoluteProof, Claims]:
    stored = {path.stem.removeprefix("proof-"): np.load(path) for path in place.glob("proof-*.npy")}
    return AbsoluteProof.from_arrays(stored), Claims(rate=json.loads((place / "claims.json").read_text()))


def _race(entry: dict[str, Any]) -> Race:
    ours, other, ratio = (Spread(**entry[name]) for name in ("ours", "other", "ratio"))
    return Race(ours, other, entry["other_name"], ratio, entry["medians"])


def _main(what: str, place: Path, rounds: int) -> object:
    weights = _load(place)
    system = RateNetwork(weights, slope=(0.0, 1.0))
    if what == "time":
        taking = race(
            Contender("take in", lambda: RateNetwork(weights, slope=(0.0, 1.0))), [_products(weights)], rounds
        )
        verifying = race(_verifying(system, *_load_proof(place)), [_products(weights)], rounds)
        finding = race(Contender("find", lambda: _find(system)), [_products(weights)], rounds)
        return [asdict(taking), asdict(verifying), asdict(finding)]
    if what == "verify":
        _verifying(system, *_load_proof(place)).seconds()
    else:
        _find(system)
    return {"bytes": child.peak()}


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
