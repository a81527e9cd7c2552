"""Assemblies: composition from known interfaces, certifying again after one change, and the whole as one system.

Three parts, each in processes of their own:

- The k x k interface test for k modules of 32 units with known interfaces and a sparse random interconnection (10
  couplings a module): search for the scales and verification, time and memory. The networks are drawn from 20 distinct
  ones, which are proven before the clock starts.
- Distinct networks as assemblies in a ring, all certified, then certified again after one of them got new weights. The
  second composition is handed the first; it finds by itself what is still proven.
- The Lur'e inequality of all states: in the block metric of the interface test with free multipliers (``whole``), and
  in any metric (``monolithic``, with its dual bound), each against one feasibility solve in any metric, as in
  ``general``, at 0.99 of the rate that it proves. Modules of 20 units, one time constant each, from 0.5 to 2.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import Any

import certes
import numpy as np
from certes.assemblies import Assembly, InterfaceProof
from certes.composition import whole
from certes.composition.compose import build
from certes.composition.outcome import Composition
from certes.composition.topologies import all_to_all, blocks, random_pairs, ring
from certes.conditions.reference import reduced
from certes.engines.monitor import Monitor
from certes.systems import RateNetwork, System

from benchmarks import child
from benchmarks.alternative import Answer, Feasibility, contest, faster
from benchmarks.measure import Spread
from benchmarks.problems import Array, gaussian_weights
from benchmarks.report import Row

#: Units of a module; k and rounds of the composition; groups, modules of each and rounds of the re-certification.
UNITS, FULL, MANY = 32, ((10, 9), (100, 5), (1000, 3)), (40, 25, 3)
QUICK_UNITS, QUICK, QUICK_MANY = 3, ((3, 1), (5, 1)), (3, 2, 1)
#: Distinct networks; couplings a module; couplings a module inside a group, and of two groups in the ring.
DISTINCT, PER_MODULE, PER_MEMBER, BETWEEN = 20, 10, 4, 10
#: Units of a module of the whole; N, rounds, whether ``whole``, ``monolithic`` and SCS take part: at N = 500 the search
#: of ``monolithic`` takes minutes.
WHOLE_UNITS = 20
WHOLE = ((60, 3, 1, 1, 1), (100, 2, 1, 1, 0), (200, 1, 1, 1, 0), (300, 1, 1, 1, 0), (500, 1, 1, 0, 0))
QUICK_WHOLE_UNITS, QUICK_WHOLE = 2, ((4, 1, 1, 1, 1), (6, 1, 1, 0, 0))
#: Sums of the norms of a module's couplings, about, and the share of the rate that SCS is asked for.
STRENGTH, SHARE = 0.2, 0.99
#: Seconds that SCS gets.
LIMITED = 100.0
WHAT = {
    "whole": "whole: block metric, free multipliers, verified",
    "monolithic": "monolithic: any metric, bound and verification",
}
COMPOSE = "compose from known interfaces, k x k test, verified"


def rows(quick: bool) -> Iterator[Row]:
    """Composition with its exponent, re-certification, the whole as one system."""
    yield from _composition(quick)
    yield from _again(quick)
    units = QUICK_WHOLE_UNITS if quick else WHOLE_UNITS
    for size, rounds, *parts in QUICK_WHOLE if quick else WHOLE:
        found = child.run("assemblies", "whole", units, size, rounds, *parts, threads=1)
        label = f"N = {size}, modules of {units}, all-to-all, BLAS threads: 1"
        for number, (mode, seconds) in enumerate(found["ours"].items()):
            spread, rate = Spread.of(seconds), found["rates"][mode]
            if found["others"]:
                yield faster(f"{WHAT[mode]}, rate {rate:.3g}", label, seconds, Answer(**found["others"][number]))
            else:
                yield Row(f"{WHAT[mode]}, rate {rate:.3g}", label, spread, "s", None, spread)


def _composition(quick: bool) -> Iterator[Row]:
    units, runs = QUICK_UNITS if quick else UNITS, []
    for modules, rounds in QUICK if quick else FULL:
        found = child.run("assemblies", "compose", units, modules, rounds, threads=1)
        seconds, size = Spread.of(found["seconds"]), modules * units
        runs.append((modules, seconds.median))
        label = f"k = {modules:,} modules of {units}, {found['couplings']:,} couplings"
        yield Row(COMPOSE, label, seconds, "s", None, seconds)
        full = f"no N x N matrix is formed, N = {size:,}: it would take {8e-9 * size**2:.3g} GB"
        memory = Spread.of([max(found["bytes"], 1) / 1e9])  # at toy sizes it may be nothing
        yield Row("compose: peak memory, couplings included", label, memory, "GB", None, None, None, full)
    counts, times = np.array(runs).T
    exponent = float(np.polyfit(np.log(counts), np.log(times), 1)[0])
    label = f"k = {counts[0]:.0f} to {counts[-1]:.0f}, BLAS threads: 1"
    if quick:  # it may well be negative, and measures nothing
        exponent = abs(exponent)
    yield Row("compose: fitted exponent of k in the time above", label, Spread.of([exponent]), "")


def _again(quick: bool) -> Iterator[Row]:
    units, (groups, members, rounds) = (QUICK_UNITS, QUICK_MANY) if quick else (UNITS, MANY)
    found = child.run("assemblies", "again", units, groups, members, rounds, threads=1)
    label = f"{groups * members:,} distinct modules of {units} in {groups} assemblies"
    every, again = Spread.of([found["every"]]), Spread.of(found["again"])
    speed = Spread.of([found["every"] / seconds for seconds in found["again"]])
    what = "certify again after one module changed"
    yield Row(what, label, speed, "times faster", None, again, every, "certify every module and assembly")
    yield Row(f"{what}: networks proven anew", label, Spread.of([found["proved"]]), "", None if quick else 1.0)
    what = f"{what}: assemblies composed anew, the top one included"
    yield Row(what, label, Spread.of([found["recomposed"]]), "", None if quick else 2.0)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def _composed(assembly: Assembly | dict[str, System], known: Composition | None = None) -> Composition:
    """The interface test alone, certified.

    Raises:
        AssertionError: it proves nothing.
    """
    answer = certes.compose(assembly, mode="interface", refute=False, known=known)
    if answer.verdict != "contracting" or answer.root is None:
        raise AssertionError(answer.detail)
    return answer


def _network(units: int, seed: int, tau: float = 1.0) -> RateNetwork:
    return RateNetwork(gaussian_weights(units, seed=seed), slope=(0.0, 1.0), tau=tau)


def _coupled(modules: dict[str, System], pairs: Sequence[tuple[str, str]], seed: int) -> Assembly:
    """Gaussian couplings between modules; the norms of those of a module sum up to about STRENGTH."""
    scale = 0.5 * STRENGTH * len(modules) / (2.0 * len(pairs))  # the norm of a Gaussian block is about 2 scale
    sizes = {name: module.size for name, module in modules.items()}
    return build(modules, blocks(pairs, sizes, seed=seed, scale=scale), None)


def _compose(units: int, modules: int, rounds: int) -> object:
    distinct: dict[str, System] = {f"m{k}": _network(units, k) for k in range(min(DISTINCT, modules))}
    known = _composed(distinct)
    child.forget_peak()
    before = child.resident()
    networks = {f"m{k}": distinct[f"m{k % DISTINCT}"] for k in range(modules)}
    pairs = random_pairs(list(networks), min(PER_MODULE, modules - 1) * modules, seed=0)
    assembly = _coupled(networks, pairs, seed=1)
    seconds = []
    for _ in range(rounds):
        spent, answer = _timed(lambda: _composed(assembly, known))
        seconds.append(spent)
    if answer.proved or answer.recomposed != ("",):
        raise AssertionError("the interfaces were not known")
    return {"seconds": seconds, "bytes": child.peak() - before, "couplings": len(pairs), "rate": answer.rate}


def _group(units: int, members: int, seed: int) -> Assembly:
    networks: dict[str, System] = {f"m{k}": _network(units, seed * members + k) for k in range(members)}
    pairs = random_pairs(list(networks), min(PER_MEMBER, members - 1) * members, seed=seed)
    return _coupled(networks, pairs, seed)


def _between(units: int, members: int, seed: int) -> Array:
    """A coupling of two groups: blocks between a few of their modules, the rest 0; its norm is about STRENGTH / 10."""
    rng = np.random.default_rng((1, seed))
    coupling = np.zeros((members * units, members * units))
    for head, tail in zip(rng.permutation(members)[:BETWEEN], rng.permutation(members)[:BETWEEN], strict=True):
        block = rng.standard_normal((units, units)) * (0.05 * STRENGTH / sqrt(units))
        coupling[head * units : (head + 1) * units, tail * units : (tail + 1) * units] = block
    return coupling


def _certify_again(units: int, groups: int, members: int, rounds: int) -> object:
    _composed({"m0": _network(units, 0)})  # everything is imported from here on
    inner = {f"g{k}": _group(units, members, k) for k in range(groups)}
    edges = {pair: _between(units, members, k) for k, pair in enumerate(ring(list(inner)))}
    assembly = build(inner, edges, None)
    every, before = _timed(lambda: _composed(assembly))
    if len(before.proved) != groups * members or len(before.recomposed) != groups + 1:
        raise AssertionError("some networks or assemblies are equal")
    seconds, counts = [], []
    for number in range(rounds):
        path = f"g{number % groups}"
        fresh = _network(units, groups * members + number)
        group = replace(inner[path], modules={**inner[path].modules, "m0": fresh})
        changed = replace(assembly, modules={**inner, path: group})
        spent, after = _timed(partial(_composed, changed, before))
        seconds.append(spent)
        counts.append((len(after.proved), len(after.recomposed)))
    proved, recomposed = max(counts)
    return {"every": every, "again": seconds, "proved": proved, "recomposed": recomposed}


def _mixed(units: int, size: int) -> Assembly:
    """Modules with time constants from 0.5 to 2, every one coupled to every other."""
    names = [f"m{k}" for k in range(size // units)]
    taus = np.random.default_rng(0).uniform(0.5, 2.0, len(names))
    networks: dict[str, System] = {name: _network(units, k, float(taus[k])) for k, name in enumerate(names)}
    return _coupled(networks, all_to_all(names), seed=1)


def _one_system(units: int, size: int, rounds: int, block: int, free: int, other: int) -> object:
    whole.monolithic(_mixed(2, 4), Monitor())  # everything is imported from here on
    assembly = _mixed(units, size)
    metric, multipliers = _start(_composed(assembly))
    modes: dict[str, Callable[[], whole.Whole | None]] = {}
    if block:
        modes["whole"] = lambda: whole.prove(assembly, metric, multipliers)
    if free:
        modes["monolithic"] = lambda: whole.monolithic(assembly, Monitor())
    rates: dict[str, float] = {}

    def ours() -> Sequence[float]:
        spent = []
        for mode, work in modes.items():
            seconds, found = _timed(work)
            if found is None:
                raise AssertionError(mode)
            rates[mode] = found.proof.level
            spent.append(seconds)
        return spent

    solves: list[Callable[[], Answer]] = []
    if other:
        ours()  # for the rates
        inequality = reduced(whole.flattened(assembly))
        problems = [Feasibility.general(inequality, SHARE * rate) for rate in rates.values()]
        solves = [partial(problem.solve, limit=LIMITED) for problem in problems]
    found = contest(ours, solves, rounds)
    return {"ours": dict(zip(modes, found["ours"], strict=True)), "others": found["others"], "rates": rates}


def _start(answer: Composition) -> tuple[Array, Array]:
    """The block metric of the interface test, and the modules' multipliers scaled with it."""
    assert answer.root is not None
    metric, multipliers = [block.mid for block in answer.root.interface.blocks], []
    for (_, leaf), scaled in zip(answer.root.leaves(), metric, strict=True):
        assert isinstance(leaf.proof, InterfaceProof)
        multipliers.append(leaf.proof.multipliers * (scaled[0, 0] / leaf.proof.metric[0, 0]))
    return whole.block_metric(metric), np.concatenate(multipliers)


if __name__ == "__main__":
    parts: dict[str, Callable[..., object]] = {"compose": _compose, "again": _certify_again, "whole": _one_system}
    print(json.dumps(parts[sys.argv[1]](*map(int, sys.argv[2:]))))
