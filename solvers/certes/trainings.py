"""What a training is asked, as plain values. Nothing here needs torch.

An architecture and a plan:

    {"kind": "adadiag", "modules": [32, 32, 32, 32], "step": [0.01, 0.2], "activation": "relu"}
    {"epochs": 60, "batch": 32, "learning_rate": 0.005, "seed": 0}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from certes.activations import activation as named
from certes.errors import InputError
from certes.input_gate import LEAST
from certes.spec import input_error

if TYPE_CHECKING:
    from certes.nn.assembly import Assembly

#: Part of the bound on couplings that is left to rounding.
MARGIN = 1e-3
_MOST_JITTER = 1000
#: Bound on norm(H) of lure modules: their metrics have condition exp(4 REACH) at most, times that of the scaling.
REACH = 0.7

Share = Annotated[float, Field(gt=0, le=1)]


class Architecture(BaseModel):
    """What is trained.

    Attributes:
        kind: weights of the modules: ``adadiag`` (diagonal), ``sparse`` (drawn once, not trained), ``singular``,
            ``svd``, ``absolute``, ``symmetric``, ``lure``; ``workspace``: singular modules around a hub; ``cascade``:
            a delay line and a stage that reads it, of form ``rate`` with step 1.
        modules: states of each.
        activation: phi.
        form: ``hopfield`` or ``rate``.
        topology: which modules are coupled.
        couplings: number of pairs, for topology ``random``.
        step: e = step / tau, one number or (smallest, largest) per state.
        gate: least share of its step that the network takes, the input setting how much; None: no gate.
        level: bound on the modules' weights in their metric.
        guarantee: ``euler``: the map that is run; ``continuous``: the differential equation only.
        density: of kind ``sparse``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["adadiag", "sparse", "singular", "svd", "absolute", "symmetric", "lure", "workspace", "cascade"] = (
        "adadiag"
    )
    modules: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=1000)]
    activation: str = "relu"
    form: Literal["hopfield", "rate"] = "hopfield"
    topology: Literal["all", "ring", "hub", "random", "none"] = "all"
    couplings: Annotated[int, Field(ge=0)] | None = None
    step: Share | tuple[Share, Share] = (0.01, 0.2)
    gate: Annotated[float, Field(ge=LEAST, lt=1)] | None = None
    level: Annotated[float, Field(gt=0, lt=1)] = 0.5
    guarantee: Literal["euler", "continuous"] = "euler"
    density: Share = 0.1

    @classmethod
    def parse(cls, given: Mapping[str, Any], where: str = "architecture") -> Self:
        """Validate.

        Raises:
            InputError: naming the entry.
        """
        try:
            found = cls.model_validate(dict(given))
        except ValidationError as error:
            raise input_error(error, where) from None
        try:
            named(found.activation)
            found._check(where)
        except InputError as error:
            field = error.field if error.field.startswith(where) else f"{where}.{error.field}"
            raise InputError(field, error.given, error.expected, error.slug) from None
        return found

    def _check(self, where: str) -> None:
        if self.kind == "cascade":
            self._check_cascade(where)
        count = len(self.modules) * (len(self.modules) - 1) // 2
        if self.topology == "random" and (self.couplings is None or self.couplings > count):
            expected = f"a number of pairs, 0 to {count}"
            raise InputError(f"{where}.couplings", repr(self.couplings), expected, "out-of-range")
        slope = named(self.activation)
        level = self.level * max(abs(slope.lower), abs(slope.upper))
        high = self.step if isinstance(self.step, float) else max(self.step)
        if self.kind == "lure":
            check_lure(self.activation)
        largest = lure_coupling if self.kind == "lure" else largest_coupling
        if self.guarantee == "euler" and not largest(level, high) > 0.0:
            given = f"a step of {high:g} with level {self.level:g}"
            raise InputError(f"{where}.step", given, "a smaller step, or a lower level", "out-of-reach")

    def _check_cascade(self, where: str) -> None:
        for name, given, only in (
            ("modules", len(self.modules), 2), ("form", self.form, "rate"), ("step", self.step, 1.0),
            ("topology", self.topology, "all"), ("gate", self.gate, None),
        ):  # fmt: skip
            if given != only:
                said = f"{given} modules" if name == "modules" else repr(given)
                expected = "a delay line and a stage" if name == "modules" else repr(only)
                raise InputError(f"{where}.{name}", said, f"{expected}, for a cascade", "not-applicable")

    def build(self, features: int, outputs: int, seed: int, keep: int = 1) -> Assembly:
        """The network (extra ``train``), its parameters drawn by the seed.

        Args:
            features: inputs per step.
            outputs: of the readout.
            seed: of everything that is drawn.
            keep: how many states of a run are kept, see :class:`certes.nn.Assembly`.

        Raises:
            InputError: no sparse draw passes, or modules that leave no room at such a step.
            MissingExtraError: torch is not installed.
        """
        from certes.nn.architecture import network

        return network(self, features, outputs, seed, keep)


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        epochs: at most.
        batch: sequences per step.
        learning_rate: at its highest, after ``warmup``; it falls to 0 over half a cosine.
        warmup: share of all steps over which the learning rate rises.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        smoothing: of the labels; of no account to targets.
        noise: standard deviation of Gaussian noise that is added to the inputs while training, in their own units.
        jitter: where sequences are images: pixels by which each is moved at most while training, anew each time.
        patience: epochs without a better choice after which training ends.
        validation: share of the training data that chooses the epoch.
        seed: of everything that is drawn.

    Raises:
        InputError: naming the entry.
    """

    epochs: int = 60
    batch: int = 32
    learning_rate: float = 5e-3
    warmup: float = 0.1
    weight_decay: float = 1e-4
    clip: float = 1.0
    smoothing: float = 0.05
    noise: float = 0.0
    jitter: int = 0
    patience: int = 1000
    validation: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("patience", 1), ("seed", 0), ("jitter", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**53:
                raise InputError(f"plan.{name}", repr(value), f"a whole number, at least {least}", "out-of-range")
        if self.jitter > _MOST_JITTER:
            raise InputError("plan.jitter", str(self.jitter), f"at most {_MOST_JITTER} pixels", "out-of-range")
        for name, low, high in (
            ("learning_rate", 0.0, 10.0), ("warmup", 0.0, 0.9), ("weight_decay", 0.0, 10.0), ("clip", 1e-6, 1e9),
            ("smoothing", 0.0, 0.5), ("noise", 0.0, 100.0), ("validation", 0.01, 0.5),
        ):  # fmt: skip
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                raise InputError(f"plan.{name}", repr(value), f"a number from {low:g} to {high:g}", "out-of-range")

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Plan:
        """From plain values.

        Raises:
            InputError: naming the entry.
        """
        unknown = [name for name in given if name not in cls.__dataclass_fields__]
        if unknown:
            expected = f"only {', '.join(cls.__dataclass_fields__)}"
            raise InputError(f"plan.{str(unknown[0])[:60]}", "an unknown entry", expected, "unknown-field")
        return cls(**given)


def largest_coupling(level: float, step: float) -> float:
    """The bound on norm(Gamma), a little inside; 0 if modules with such a level leave no room at such a step.

    Args:
        level: gamma, bound on the norm of the modules' weights times slopes, in the metric.
        step: h, the largest step over tau.
    """
    square = (1.0 - step * level) ** 2 - (1.0 - step) ** 2
    inside = level < 1.0 and step > 0.0 and abs(1.0 - step) + step * level < 1.0
    return (1.0 - MARGIN) * math.sqrt(square) / step if inside and square > 0.0 else 0.0


def check_lure(activation: str) -> None:
    """Raise unless slopes are in [0, g].

    Raises:
        InputError: an activation that also falls.
    """
    slope = named(activation)
    if slope.lower < 0.0:
        given = f"{activation}, with slopes down to {slope.lower:g}"
        raise InputError("activation", given, "one with slopes of 0 or more, for lure modules", "not-applicable")


def lure_growth(level: float, step: float, coupling: float) -> float:
    """Bound on the square of the norm of an Euler map with lure modules: :mod:`certes.nn.lure` derives it.

    Args:
        level: gamma, of the modules times slopes.
        step: h, the largest step over tau, at most 1.
        coupling: norm(Gamma).
    """
    e, keep = math.exp(REACH), 1.0 - step

    def at(r: float) -> float:
        return keep**2 + 2.0 * step * keep * level * (2.0 * r - r * r) + (step * (level * e * r + coupling)) ** 2

    # A parabola in r: its ends, and its top where it has one inside.
    curve = (step * level * e) ** 2 - 2.0 * step * keep * level
    slope = 4.0 * step * keep * level + 2.0 * step**2 * level * e * coupling
    tops = [min(-0.5 * slope / curve, 2.0 + e)] if curve < 0.0 else []
    return max(at(r) for r in [0.0, 2.0 + e, *tops])


def lure_coupling(level: float, step: float) -> float:
    """The bound on norm(Gamma) with lure modules, like :func:`largest_coupling`; 0: they leave no room."""
    if not (level < 1.0 and 0.0 < step <= 1.0 and lure_growth(level, step, 0.0) < 1.0):
        return 0.0
    low, high = 0.0, 2.0 / step  # at r = 0 the square is at least (step coupling)^2
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if lure_growth(level, step, middle) < 1.0 else (low, middle)
    return (1.0 - MARGIN) * low
