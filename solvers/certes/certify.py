"""``certify``: from a network to a verified answer.

The only 'yes' comes from :func:`certes.verify.verify_contraction` and the only 'no' from
:func:`certes.verify.verify_instability`; whatever a condition, a solver or a search says is a proposal. Importing this
module loads no scipy and no solver: conditions load when they are asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, overload

import numpy as np

from certes.assemblies import Assembly
from certes.cells import GatedNetwork, from_module, is_module
from certes.conditions import NAMES, by_name
from certes.conditions.base import Backend, Goal
from certes.engines.monitor import Monitor, time_limit
from certes.engines.threads import one_blas_thread
from certes.errors import InputError
from certes.input_gate import InputGate
from certes.inquiry import Inquiry
from certes.proofs import Claims
from certes.results import Attempt, Result
from certes.systems import System, UnsupportedCell
from certes.verify.contraction import verify_contraction

if TYPE_CHECKING:
    from certes.composition.outcome import Composition

#: The condition that may take minutes; everything before it in the table is cheap.
COSTLY = "lure"


class Exporting(Protocol):
    """A model that can write down the network that it is, such as those of :mod:`certes.nn`."""

    def system(self) -> System | Assembly:
        """The network with its explicit weights."""
        ...


@overload
def certify(
    system: System | UnsupportedCell | GatedNetwork,
    condition: str = "auto",
    rate: float | Literal["best"] = "best",
    *,
    step: Literal["given", "max"] = "given",
    backend: Backend = "auto",
    seconds: float | None = None,
    inputs: object = None,
    refute: bool = True,
    progress: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Result: ...


@overload
def certify(
    system: Assembly | Exporting,
    *,
    seconds: float | None = None,
    refute: bool = True,
    progress: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Result | Composition: ...


def certify(
    system: System | UnsupportedCell | GatedNetwork | Assembly | Exporting,
    condition: str = "auto",
    rate: float | Literal["best"] = "best",
    *,
    step: Literal["given", "max"] = "given",
    backend: Backend = "auto",
    seconds: float | None = None,
    inputs: object = None,
    refute: bool = True,
    progress: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Result | Composition:
    """Is this network contracting, how fast, and what proves it?

    Args:
        system: the network; or an assembly, or a model that exports either (``model.system()``), which is then what is
            certified: an assembly is composed (:func:`certes.compose`), and only the limit on time, ``refute``,
            ``progress`` and ``cancelled`` apply. A ``torch.nn.GRU`` or ``torch.nn.LSTM`` is taken as it is.
        condition: ``"auto"``: the cheap conditions, then ``lure`` beside the search for a witness (the first rigorous
            answer ends the other), and the best verified rate wins; or one condition by name.
        rate: ``"best"``, or the number to prove: a rate (continuous time, 1/unit of time) or a factor (a map). Less
            than the best leaves room in a ``lure`` proof, and with it a larger weight radius.
        step: ``"max"``: not the system as it stands, but its Euler map at the largest step that can be certified (where
            there is none, the answer is about continuous time). The result's claims state the step.
        backend: solver of ``lure``: ``"auto"`` is our own engine, the others are the reference backends.
        seconds: time limit for searching, in seconds; None: no limit, and the answer is
            deterministic (for given libraries and number of threads).
        inputs: of a gated cell, the box (lower, upper) of its inputs, each a number or one per input; None: the box
            that the cell declares itself.
        refute: whether to look for a witness where no condition has proven anything yet.
        progress: called with a short line of text now and then, possibly from another thread.
        cancelled: asked now and then whether to stop; what is proven by then is the answer.

    Returns:
        The result. A proof that a solver found and the verifier refused is ``undecided``, with the margin it lacked.

    Raises:
        InputError: unknown condition, backend or step, or a rate that cannot be asked for.
    """
    metrics: Any = None
    gate: Any = None
    if is_module(system):
        system = from_module(system)
    if isinstance(system, GatedNetwork):
        system = system if inputs is None else system.with_inputs(inputs)
    elif inputs is not None:
        raise InputError("inputs", "a box of inputs", "none: only a gated cell (GRU, LSTM) takes one", "conflict")
    if not isinstance(system, System | UnsupportedCell | GatedNetwork | Assembly):
        metrics, gate = getattr(system, "metrics", dict)(), getattr(system, "input_gate", None)
        system = exported(system)
    if isinstance(system, Assembly):
        if (condition, rate, step, backend) != ("auto", "best", "given", "auto"):
            given, expected = "a condition, rate, step or backend for an assembly", "none of them: see certes.compose"
            raise InputError("system", given, expected, "conflict")
        from certes.composition.compose import compose

        mode: Any = "auto" if metrics is None else "interface" if system.step is None else "whole"
        composed = compose(
            system, mode=mode, refute=refute, metrics=metrics, seconds=seconds, progress=progress, cancelled=cancelled
        )
        return replace(composed, gate=gate if isinstance(gate, InputGate) else None)
    check(system, condition, rate, step=step, backend=backend, seconds=seconds)
    if isinstance(system, UnsupportedCell):
        return Result("undecided", reason="unsupported_cell", detail=f"{system.cell}: {system.detail}")
    if isinstance(system, GatedNetwork):
        from certes.gating import certify_cell

        asked = Goal(_target(system, rate), "auto", time_limit(seconds), progress, cancelled)
        with one_blas_thread():
            return certify_cell(system, asked, refute=refute)
    name = None if condition == "auto" else by_name(condition).name
    goal = Goal(_target(system, rate), _backend(backend), time_limit(seconds), progress, cancelled)
    with one_blas_thread():
        if step == "max":
            monitor = goal.monitor()
            system = _at_largest_step(system, monitor)
            goal = replace(goal, seconds=None if monitor.left is None else max(monitor.left, 0.01))
        inquiry = Inquiry(system, goal)
        refute = refute and not system.is_sparse
        found = _auto(inquiry, refute) if name is None else _one(inquiry, name, refute)
        result = found or _answer(inquiry, refute)
    if step == "max" and system.continuous:
        return replace(result, detail=f"no Euler step can be certified; about continuous time: {result.detail}")
    return result


def exported(model: object) -> System | Assembly:
    """The network that a model says it is.

    Raises:
        InputError: it says nothing.
    """
    found = model.system() if callable(getattr(model, "system", None)) else None  # type: ignore[attr-defined]
    if not isinstance(found, System | Assembly):
        expected = "a network, an assembly, or a model whose method `system` exports one"
        raise InputError("system", f"a {type(model).__name__}", expected, "wrong-type")
    return found


def check(
    system: System | UnsupportedCell | GatedNetwork,
    condition: str = "auto",
    rate: object = "best",
    *,
    step: str = "given",
    backend: str = "auto",
    seconds: object = None,
) -> None:
    """Whether :func:`certify` can be asked this; nothing is computed.

    Raises:
        InputError: as :func:`certify`.
    """
    if isinstance(system, GatedNetwork):
        from certes.gating import check_cell

        check_cell(system, condition, step, backend)
        _target(system, rate)
        time_limit(seconds)
        return
    if condition != "auto":
        by_name(condition)
    if isinstance(system, UnsupportedCell):
        return
    if step not in ("given", "max"):
        raise InputError("step", repr(step), "'given' or 'max'", "unknown-value")
    if step == "max" and rate != "best":
        raise InputError("rate", repr(rate), "'best' with step 'max': the factor there is close to 1", "conflict")
    if step == "max" and system.discrete:
        raise InputError("step", "'max' for a system that is given as a map", "a system in continuous time", "conflict")
    _target(system, rate)
    _backend(backend)
    time_limit(seconds)


def _auto(inquiry: Inquiry, refute: bool) -> Result | None:
    """The cheap conditions, then the costly one beside the search for a witness; a refutation ends it."""
    searched = refute and inquiry.hopeless()
    if searched and (found := inquiry.refute()) is not None:
        return found
    for name in NAMES:
        if name != COSTLY:
            inquiry.attempt(by_name(name))
        elif refute and not searched and not inquiry.proven:
            return inquiry.race(by_name(name))
        elif (why := inquiry.settled()) is not None:
            inquiry.attempts.append(Attempt(name, "nothing", reason="not-needed", detail=why))
        else:
            inquiry.attempt(by_name(name))
    return None


def _one(inquiry: Inquiry, name: str, refute: bool) -> Result | None:
    inquiry.attempt(by_name(name))
    return inquiry.refute() if refute and not inquiry.proven else None


def _answer(inquiry: Inquiry, refute: bool) -> Result:
    """The answer if no unstable equilibrium was found; where nothing is proven, the other searches first."""
    if inquiry.proven:
        return inquiry.contracting()
    no_metric = None
    if refute and not inquiry.over and not inquiry.slower:
        if (found := inquiry.switch()) is not None:
            return found
        no_metric = None if inquiry.over else inquiry.exclude_metrics()
    if refute and not inquiry.over and not inquiry.slower:
        inquiry.measure()
    return inquiry.undecided(no_metric)


def _at_largest_step(system: System, monitor: Monitor) -> System:
    """The Euler map at the largest step that can be certified; in continuous time where no step can."""
    from certes import steps

    flow = system.with_step(None)
    if system.is_sparse:
        return flow
    monitor.say("searching the largest step")
    for claim in steps.claims(flow, None, monitor):
        if verify_contraction(flow.with_step(claim.step), claim.proof, Claims(factor=claim.factor)).valid:
            return flow.with_step(claim.step)
    return flow


def _target(system: System | GatedNetwork, rate: object) -> float | None:
    if isinstance(rate, str) and rate == "best":
        return None
    expected = "'best' or a positive number" if system.continuous else "'best' or a factor between 0 and 1"
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.floating, np.integer)):
        raise InputError("rate", repr(rate), expected, "wrong-type")
    number = float(rate)
    if not (math.isfinite(number) and number > 0 and (system.continuous or number < 1)):
        raise InputError("rate", repr(rate), expected)
    return number


def _backend(backend: str) -> Backend:
    for known in get_args(Backend):
        if backend == known:
            chosen: Backend = known
            return chosen
    raise InputError("backend", repr(backend), f"one of {', '.join(get_args(Backend))}", "unknown-backend")
