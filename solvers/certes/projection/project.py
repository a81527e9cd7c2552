"""``project``: the nearest stable weights of a network, certified. Importing this module loads no scipy."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import cast

import numpy as np
from numpy.typing import NDArray

from certes.cells import GatedNetwork
from certes.engines.monitor import Monitor, time_limit
from certes.engines.threads import one_blas_thread
from certes.errors import InputError
from certes.projection.base import (
    Nothing,
    Problem,
    Projection,
    Proposal,
    SetAttempt,
    StableSet,
    check_weighting,
    number_to_reach,
)
from certes.projection.keeping import Keep
from certes.results import Result
from certes.systems import HopfieldNetwork, Network, RateNetwork, System, UnsupportedCell

Array = NDArray[np.float64]

#: condition -> module and name of its stable set, cheapest first. Modules load on first use.
_TABLE: dict[str, tuple[str, str]] = {
    "absolute": ("certes.projection.absolute", "ABSOLUTE"),
    "symmetric": ("certes.projection.symmetric", "SYMMETRIC"),
    "singular": ("certes.projection.singular", "SINGULAR"),
    "lure": ("certes.projection.lure", "LURE"),
}
NAMES = tuple(_TABLE)
#: Proposals closer than this, relative, have multipliers that may certify the given weights themselves.
_NEXT = 1e-3
#: Share of the time that is spent on asking whether the given weights pass as they are.
_ASKING = 0.3


def project(
    system: System | GatedNetwork | UnsupportedCell,
    condition: str = "auto",
    rate: float | None = None,
    *,
    keep: Keep | None = None,
    weighting: object = None,
    seconds: float | None = None,
    seed: int = 0,
    starts: int = 1,
    progress: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Projection:
    """The nearest weights that are certified.

    Args:
        system: a rate or Hopfield network, in continuous time or with a step, dense or (``absolute``) sparse.
        condition: the stable set: ``absolute``, ``symmetric``, ``singular``, ``lure``; ``auto``: the nearest over all.
        rate: the rate (continuous time, 1/unit of time) or factor (a map, per step) to reach; None: barely contracting,
            rate 0.01/tau or factor 1 - 0.01 min(a, 2 - a), a = step/tau.
        keep: what has to stay: entries, zeros, the diagonal, a low rank.
        weighting: S, shape (n, n), positive semidefinite: the distance is sqrt(tr(D S D^T)), D = W' - W. With the
            second moment of what the weights multiply (states, or phi(states) of a Hopfield network) that is the change
            of the recurrent input. None: S = I.
        seconds: time limit in seconds; None: no limit, and the answer is deterministic.
        seed: of the random starts.
        starts: starts of ``lure``; the first is not random.
        progress: called with a short line of text now and then.
        cancelled: asked now and then whether to stop; the nearest weights certified by then are the answer.

    Returns:
        The projection; ``result.verdict`` is ``undecided`` if no set has weights that are certified.

    Raises:
        InputError: a system without one square W, a rate that no weights reach, or options that exclude each other.
    """
    network = _network(system)
    if condition != "auto" and condition not in _TABLE:
        raise InputError("condition", repr(condition), f"one of auto, {', '.join(NAMES)}", "unknown-condition")
    structure = (keep or Keep()).structure(network)
    if weighting is not None and network.is_sparse:
        raise InputError("weighting", "a weighting with sparse weights", "the Frobenius norm", "conflict")
    problem = Problem(
        network,
        number_to_reach(network, rate),
        structure,
        check_weighting(weighting, network.size),
        _whole("seed", seed, 0),
        _whole("starts", starts, 1),
        Monitor(time_limit(seconds), cancelled, progress),
    )
    with one_blas_thread(), np.errstate(all="ignore"):  # overflow ends in inf or NaN, and those are looked for
        return _Search(problem, NAMES if condition == "auto" else (condition,)).run()


def stable_set(name: str) -> StableSet:
    """The stable set of a condition.

    Raises:
        KeyError: there is none.
    """
    module, attribute = _TABLE[name]
    return cast(StableSet, getattr(import_module(module), attribute))


class _Search:
    """Asks the stable sets in turn and keeps the nearest certified weights."""

    def __init__(self, problem: Problem, names: tuple[str, ...]) -> None:
        from certes.projection.settle import Settled

        self.problem, self.names = problem, names
        self.attempts: list[SetAttempt] = []
        self.best: Settled | None = None
        self.condition: str | None = None
        self.distance = math.inf
        self.shrink: float | None = None
        self.fixed: float | None = None
        self.bound: float | None = None
        self.unchanged: Result | None = None
        self.scale: float | None = None
        self.multipliers: Array | None = None

    def run(self) -> Projection:
        if (unchanged := self._as_it_is()) is not None:
            return unchanged
        for name in self.names:
            if self.unchanged is not None:
                break
            reason = self.problem.monitor.why
            # when the time is up the last set is still asked for what it has at once: the plain shrink at least
            if reason is not None and (reason == "cancelled" or self.best is not None or name != self.names[-1]):
                self.attempts.append(SetAttempt(name, "nothing", reason=reason, detail="the search was ended early"))
            else:
                self._ask(name)
        if self.unchanged is not None:
            return self._projection(self.problem.system, 0.0, self.unchanged, unchanged=True)
        self._shrink()
        return self._answer()

    def _as_it_is(self) -> Projection | None:
        """The given weights, if they pass."""
        from certes.projection.settle import certified

        problem = self.problem
        if not problem.structure.holds:
            return None
        left = problem.monitor.left
        watch = Monitor(None if left is None else _ASKING * left, problem.monitor.cancelled)
        for name in self.names:
            if watch.over:
                return None
            if stable_set(name).applies(problem) is not None and len(self.names) > 1:
                continue
            problem.monitor.say(f"{name}: do the weights pass as they are?")
            found = certified(problem.system, problem.number, name, None, watch)
            if found is not None:
                self.condition = name
                return self._projection(problem.system, 0.0, found.contracting(), unchanged=True)
        return None

    def _ask(self, name: str) -> None:
        """One stable set: its proposal, settled."""
        problem, chosen = self.problem, stable_set(name)
        if (why := chosen.applies(problem)) is not None:
            self.attempts.append(SetAttempt(name, "nothing", reason="not-applicable", detail=why))
            return
        problem.monitor.say(f"{name}: projecting")
        try:
            found = chosen.nearest(problem)
        except MemoryError:
            found = Nothing("memory", "out of memory")
        except (np.linalg.LinAlgError, ArithmeticError, ValueError) as error:
            found = Nothing("solver", f"the search failed: {error}")
        if isinstance(found, Nothing):
            self.attempts.append(SetAttempt(name, "nothing", reason=found.reason, detail=found.detail))
            return
        if self._passes(name, found):
            return
        if name == "lure":
            self.fixed, self.bound = found.fixed_scaling_distance, found.distance_bound
        if name == self.names[-1]:  # the condition by which the plain alternative is certified
            self.scale, self.multipliers = found.scale, found.scale_multipliers
        self._settle(name, found)

    def _passes(self, name: str, proposal: Proposal) -> bool:
        """Whether the given weights pass with the multipliers of a proposal that is next to them."""
        from certes.projection.settle import certified

        problem = self.problem
        if proposal.multipliers is None or not problem.structure.holds:
            return False
        if not problem.distance(proposal.weights) <= _NEXT * problem.size:
            return False
        found = certified(problem.system, problem.number, name, proposal.multipliers, problem.monitor, search=False)
        if found is not None:
            self.unchanged, self.condition = found.contracting(), name
        return found is not None

    def _settle(self, name: str, proposal: Proposal) -> None:
        from certes.projection.settle import settle

        problem = self.problem
        problem.monitor.say(f"{name}: rounding and verifying")
        settled = settle(
            problem.system,
            proposal.weights,
            problem.number,
            proposal.condition,
            proposal.multipliers,
            structure=problem.structure,
            monitor=problem.monitor,
        )
        if settled is None:
            detail = "no rounding of the proposed weights was certified"
            self.attempts.append(SetAttempt(name, "refused", reason="margin", detail=detail))
            return
        distance = problem.distance(settled.system.tensors["W"].value)
        self.attempts.append(SetAttempt(name, "certified", distance))
        if distance < self.distance:
            self.best, self.condition, self.distance = settled, name, distance

    def _shrink(self) -> None:
        """The plain alternative: all movable weights times one number; it is the answer where nothing is nearer."""
        from certes.projection.shrink import shrunk

        name = self.names[-1] if not self.problem.system.is_sparse else "absolute"
        if name not in self.names or stable_set(name).applies(self.problem) is not None:
            return
        settled = shrunk(self.problem, name, self.scale, self.multipliers)
        if settled is None:
            return
        self.shrink = self.problem.distance(settled.system.tensors["W"].value)
        if self.shrink < self.distance:
            self.best, self.condition, self.distance = settled, name, self.shrink

    def _answer(self) -> Projection:
        problem = self.problem
        if self.best is None:
            detail = "no stable set has weights that are certified: " + "; ".join(
                f"{entry.condition}: {entry.detail}" for entry in self.attempts
            )
            reasons = [entry.reason for entry in self.attempts if entry.reason not in (None, "not-applicable")]
            reason = reasons[-1] if reasons else "not-applicable"
            return self._projection(problem.system, None, Result("undecided", reason=reason, detail=detail))
        return self._projection(self.best.system, self.distance, self.best.result())

    def _projection(
        self, system: Network, distance: float | None, result: Result, *, unchanged: bool = False
    ) -> Projection:
        problem = self.problem
        whole = problem.size
        relative = None if distance is None else (distance / whole if whole > 0.0 else 0.0)
        continuous = problem.system.continuous
        return Projection(
            system,
            distance,
            result,
            rate=problem.number if continuous else None,
            factor=None if continuous else problem.number,
            condition=None if distance is None else self.condition,
            unchanged=unchanged,
            norm=problem.norm,
            relative=relative,
            shrink_distance=0.0 if unchanged else self.shrink,
            fixed_scaling_distance=self.fixed,
            distance_bound=0.0 if unchanged else self.bound,
            attempts=tuple(self.attempts),
        )


def _network(system: System | GatedNetwork | UnsupportedCell) -> Network:
    if isinstance(system, GatedNetwork | UnsupportedCell):
        raise InputError(
            "system", system.cell, "a rate or Hopfield network: this cell has no projection", "unsupported"
        )
    if not isinstance(system, (RateNetwork, HopfieldNetwork)):
        raise InputError("system", f"form {system.form}", "form rate or hopfield: one square W to move", "conflict")
    return system


def _whole(name: str, given: object, least: int) -> int:
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or int(given) < least:
        raise InputError(name, repr(given), f"a whole number from {least}", "wrong-type")
    return int(given)
