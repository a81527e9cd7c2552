"""Evaluation parallel over time: iterations against the certified factor, and time against the run step by step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import certes
import torch
from certes.nn.assembly import Assembly
from certes.nn.newton import Guarantee, Parallel, evaluate
from certes.nn.stable import Singular

from benchmarks.measure import Contender, Spread, race
from benchmarks.report import Row

#: Level of the modules and step: factors from about 0.5 to 0.99.
FULL = ((0.2, 0.9), (0.5, 0.5), (0.5, 0.2), (0.8, 0.2), (0.5, 0.02))
STEPS = (256, 1024)
QUICK, FEW = ((0.5, 0.2),), (8,)
TOLERANCE, ITERATIONS = 1e-8, 10.0


def rows(quick: bool) -> Iterator[Row]:
    """Iterations for each activation, factor and T, then the time at the last factor and T, for both Jacobians."""
    for activation in ("tanh", "relu"):
        for level, step in QUICK if quick else FULL:
            net = _network(activation, level, step)
            known = Guarantee.of(certes.certify(net))  # type: ignore[arg-type]
            for steps in FEW if quick else STEPS:
                inputs = torch.randn(1, steps, 2, generator=torch.Generator().manual_seed(steps), dtype=torch.float64)
                with torch.no_grad():
                    made = evaluate(net, known, inputs, tolerance=TOLERANCE)
                label = f"2x16, {activation}, factor {known.factor:.4f}, T = {steps}, error <= {TOLERANCE:g}"
                yield _iterations(label, made, quick)
    for jacobian in ("full", "diagonal"):
        yield _time(net, known, inputs, label, jacobian)


def _network(activation: str, level: float, step: float) -> Assembly:
    torch.manual_seed(0)
    net = Assembly(2, [Singular(16, level), Singular(16, level)], 0, activation=activation, step=step)
    with torch.no_grad():
        net.input.weight.mul_(3.0)
        for part in net.parts:
            part.free.mul_(10.0)  # type: ignore[operator]  # norms close to the level
    return net.double()


def _iterations(label: str, made: Parallel, quick: bool) -> Row:
    if not made.converged:
        raise AssertionError(made.note)
    said = f"the certificate allows {made.bound}"
    count = Spread.of([float(max(made.iterations, 1))])
    return Row("parallel over time: iterations", label, count, "", None if quick else ITERATIONS, other_name=said)


def _time(net: Assembly, known: Guarantee, inputs: torch.Tensor, label: str, jacobian: str) -> Row:
    with torch.no_grad():
        run = partial(evaluate, net, known, inputs, tolerance=TOLERANCE, jacobian=jacobian)  # type: ignore[arg-type]
        ours = Contender("parallel", run)
        found = race(ours, [Contender("step by step", lambda: net.states(inputs))], 3)
    return Row.of_race(f"parallel over time: time on this CPU, {jacobian} Jacobians", label, found)
