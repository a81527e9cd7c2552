"""For fixed multipliers the nearest weights are a convex problem: our answer is Clarabel's, within 1e-3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import certes
import numpy as np
import pytest
from certes.conditions.uniform import UniformLeak, tolerance
from certes.engines import scaling
from certes.projection import admm
from certes.projection.base import Problem
from certes.projection.descent import Frame
from certes.projection.keeping import Keep
from certes.projection.lure import Goal
from certes.systems import HopfieldNetwork, RateNetwork
from numpy.typing import NDArray

from tests.judges import nearest

Array = NDArray[np.float64]

FORMS = {"rate": RateNetwork, "hopfield": HopfieldNetwork}
TIMES: dict[str, float | None] = {"continuous": None, "step 0.2": 0.2, "step 1": 1.0}
SLOPES = ("tanh", "sigmoid", "per neuron")


@dataclass(frozen=True, eq=False)
class Case:
    """A network, and the multipliers for which its weights can be shrunk least."""

    system: RateNetwork | HopfieldNetwork
    number: float
    q: Array
    goal: Goal


def case(form: str, time: str, slopes: str, n: int, seed: int = 0, tau: float = 1.0) -> Case:
    rng = np.random.default_rng([seed, n])
    gains = {"tanh": 1.0, "sigmoid": 0.25}.get(slopes, 0.5)
    W = 2.0 * rng.standard_normal((n, n)) / np.sqrt(n) / gains
    known: Any = (
        {"slope": (np.zeros(n), rng.uniform(0.2, 1.0, n))} if slopes == "per neuron" else {"activation": slopes}
    )
    step = TIMES[time]
    system = FORMS[form](W, step=None if step is None else step * tau, tau=tau, **known)
    number = 0.1 / tau if step is None else 0.98
    leak = UniformLeak.of(system)
    assert leak is not None
    goal = Goal(leak, number)
    q = scaling.optimise(leak.weights, goal.family, tolerance=tolerance(n)).q
    return Case(system, number, q, goal)


def distance(one: Case, weights: Array) -> float:
    return float(np.linalg.norm(weights - one.system.matrix("W")))


def by_admm(one: Case, q: Array) -> Array:
    problem = Problem(one.system, one.number, Keep().structure(one.system))
    frame = Frame(one.system.slope.upper, one.system.form == "hopfield")
    found = admm.nearest(problem, frame, one.goal.functional, q)
    assert found is not None
    return found


@pytest.mark.parametrize("slopes", SLOPES)
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("form", FORMS)
def test_admm_is_clarabel(form: str, time: str, slopes: str) -> None:
    """At the best multipliers, and at others that are far from them."""
    one = case(form, time, slopes, 5)
    spread = np.exp(np.random.default_rng(9).normal(size=5))
    for q in (one.q, spread):
        theirs = nearest.for_multipliers(one.system, one.number, q)
        assert distance(one, theirs) > 0.1
        ours = by_admm(one, q)
        assert distance(one, ours) == pytest.approx(distance(one, theirs), rel=1e-3)
        # a convex problem with one solution: the weights agree as well
        assert np.linalg.norm(ours - theirs) <= 0.02 * distance(one, theirs)


@pytest.mark.parametrize("form", FORMS)
def test_admm_knows_time_constants(form: str) -> None:
    one = case(form, "step 0.2", "tanh", 6, tau=2.5)
    theirs = distance(one, nearest.for_multipliers(one.system, one.number, one.q))
    assert theirs > 0.1
    assert distance(one, by_admm(one, one.q)) == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize(("form", "time"), [("rate", "continuous"), ("hopfield", "step 0.2"), ("rate", "step 1")])
def test_fixed_scaling_distance_is_clarabels(form: str, time: str) -> None:
    one = case(form, time, "tanh", 6, seed=1)
    theirs = distance(one, nearest.for_multipliers(one.system, one.number, one.q))
    found = certes.project(one.system, "lure", one.number)
    assert found.fixed_scaling_distance == pytest.approx(theirs, rel=1e-3)
    assert found.distance is not None
    assert found.distance <= theirs * (1.0 + 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "time", "slopes"),
    [
        ("rate", "continuous", "tanh"),
        ("rate", "step 0.2", "per neuron"),
        ("rate", "step 1", "sigmoid"),
        ("hopfield", "continuous", "per neuron"),
        ("hopfield", "step 0.2", "sigmoid"),
        ("hopfield", "step 1", "tanh"),
    ],
)
def test_admm_is_clarabel_for_twenty_neurons(form: str, time: str, slopes: str) -> None:
    one = case(form, time, slopes, 20)
    theirs = distance(one, nearest.for_multipliers(one.system, one.number, one.q))
    assert distance(one, by_admm(one, one.q)) == pytest.approx(theirs, rel=1e-3)
    found = certes.project(one.system, "lure", one.number)
    assert found.fixed_scaling_distance == pytest.approx(theirs, rel=1e-3)
    assert found.distance is not None
    assert found.distance <= theirs * (1.0 + 1e-3)
