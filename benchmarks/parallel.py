"""Evaluation parallel over time: iterations against the certified factor, and time against the run step by step."""

from __future__ import annotations

from collections.abc import Iterator

import certes
import torch
from certes.nn.assembly import Assembly
from certes.nn.newton import Guarantee, Parallel, evaluate
from certes.nn.stable import Singular

from benchmarks.measure import Contender, Spread, race
from benchmarks.report import Row

#: Levels of the modules, and T.
FULL, STEPS = (0.2, 0.5, 0.8, 0.9, 0.95), (256, 1024)
QUICK, FEW = (0.5,), (8,)
TOLERANCE, ITERATIONS = 1e-8, 10.0


def rows(quick: bool) -> Iterator[Row]:
    """Iterations for each factor and T, then the time at the last one."""
    for level in QUICK if quick else FULL:
        net = _network(level)
        found = certes.certify(net)
        known = Guarantee.of(found)  # type: ignore[arg-type]
        for steps in FEW if quick else STEPS:
            inputs = torch.randn(1, steps, 2, generator=torch.Generator().manual_seed(steps), dtype=torch.float64)
            made = evaluate(net, known, inputs, tolerance=TOLERANCE)
            label = f"2x16, tanh, factor {known.factor:.4f}, T = {steps}, error <= {TOLERANCE:g}"
            yield _iterations(label, made, quick)
    yield _time(net, known, inputs, label)


def _network(level: float) -> Assembly:
    torch.manual_seed(0)
    net = Assembly(2, [Singular(16, level), Singular(16, level)], 0, activation="tanh", step=(0.2, 0.8))
    with torch.no_grad():
        net.input.weight.mul_(3.0)
        for block in net.skew.blocks:
            block.mul_(4.0)
    return net.double()


def _iterations(label: str, made: Parallel, quick: bool) -> Row:
    said = f"the certificate allows {made.bound}"
    count = Spread.of([float(max(made.iterations, 1))])
    return Row("parallel over time: iterations", label, count, "", None if quick else ITERATIONS, other_name=said)


def _time(net: Assembly, known: Guarantee, inputs: torch.Tensor, label: str) -> Row:
    def straight() -> object:
        with torch.no_grad():
            return net.states(inputs)

    ours = Contender("parallel", lambda: evaluate(net, known, inputs, tolerance=TOLERANCE))
    found = race(ours, [Contender("step by step", straight)], 3)
    return Row.of_race("parallel over time: time on this CPU", label, found)
