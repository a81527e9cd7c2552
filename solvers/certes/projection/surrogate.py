"""Projection by ``lure`` of networks without uniform leak, through a network with uniform leak that stands for them.

Several time constants, and slopes that do not start at 0, have no exact parametrisation here. A similar network has
one: one time constant, slopes [0, g_i] (or [-g_i, g_i]). Its nearest weights at a level t give a path from the given
weights (large t) to 0 (t = 0); the largest t at which ``lure`` certifies *the network itself* is found by bisection,
and from there the straight way back is walked as far as it is certified. The path is a heuristic, what is certified is
not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from certes.conditions.uniform import UniformLeak
from certes.projection.base import Nothing, Problem, Proposal
from certes.projection.lure import Goal, Search
from certes.projection.settle import certified
from certes.systems import HopfieldNetwork, Network, RateNetwork

Array = NDArray[np.float64]

#: States up to which the path is searched: each step takes a certification by frequencies.
LARGEST = 120
#: Levels beyond the one of the stand-in, whose slopes may be wider; halvings of the level, and of the way back.
_BEYOND, _LEVELS, _STEPS = 2.0, 7, 5
#: Steps per time constant that a stand-in may have.
_LEAKS = (0.02, 1.9)


def nearest(problem: Problem) -> Proposal | Nothing:
    """The nearest weights on the path that ``lure`` certifies."""
    if problem.system.size > LARGEST:
        detail = f"several time constants, or slopes that do not start at 0: searched up to n = {LARGEST}"
        return Nothing("too-large", detail)
    path = _Path(problem)
    best, low, high = None, 0.0, _BEYOND
    tightness = 1.0
    for count in range(_LEVELS):
        if problem.monitor.over:
            break
        problem.monitor.say(f"lure: level {count + 1} of {_LEVELS}")
        weights = path.at(tightness)
        if weights is not None and path.certified(weights):
            best, low = weights, tightness
        else:
            high = tightness
        tightness = 0.5 * (low + high)
    if best is None:
        return Nothing(str(problem.monitor.why or "solver"), "no weights on the path were certified")
    return Proposal(path.back(best), "lure")


class _Path:
    """Weights of the stand-in by its level, and whether the network itself is certified with them."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        leak = UniformLeak.of(stand_in(problem.system))
        assert leak is not None
        self.leak = leak
        if problem.system.step is None:
            self.number = min(problem.number * float(problem.system.tau.max()), 0.99)
        else:
            self.number = max(problem.number, 0.5 * (1.0 + abs(1.0 - leak.leak)))

    def at(self, tightness: float) -> Array | None:
        """The nearest weights of the stand-in at its level times ``tightness``."""
        found = Search(self.problem, Goal(self.leak, self.number, tightness), self.leak).run()
        return None if isinstance(found, Nothing) else np.asarray(found.weights)

    def certified(self, weights: Array) -> bool:
        """Whether ``lure`` certifies the network itself with these weights."""
        problem = self.problem
        system = problem.system.with_weights(problem.structure.rounded(weights, problem.system.dtype))
        return certified(system, problem.number, "lure", None, problem.monitor) is not None

    def back(self, weights: Array) -> Array:
        """From certified weights straight towards the given ones, as far as is certified."""
        if self.problem.structure.rank is not None:  # no straight line keeps a rank
            return weights
        given = self.problem.system.matrix("W")
        low, high = 0.0, 1.0
        for _ in range(_STEPS):
            if self.problem.monitor.over:
                break
            middle = 0.5 * (low + high)
            inside = self.certified(weights + middle * (given - weights))
            low, high = (middle, high) if inside else (low, middle)
        return np.asarray(weights + low * (given - weights))


def stand_in(system: Network) -> Network:
    """A network with uniform leak that is like this one: same weights, the mean time constant, wider slopes."""
    lower, upper = system.slope.lower, system.slope.upper
    bound = system.slope.bound
    both = bool((-lower > 0.5 * upper).any())
    step = None
    if system.step is not None:
        step = float(np.clip(system.step / np.exp(np.mean(np.log(system.tau))), *_LEAKS))
    network = HopfieldNetwork if isinstance(system, HopfieldNetwork) else RateNetwork
    return network(system.tensors["W"], slope=[-bound if both else 0.0 * bound, bound], step=step)
