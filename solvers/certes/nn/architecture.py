"""Architectures in words: what a user asks to be trained, as plain values, and the network that it names.

{"kind": "adadiag", "modules": [32, 32, 32, 32], "step": [0.01, 0.2], "activation": "relu"}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from certes.activations import activation as named
from certes.errors import InputError
from certes.nn.assembly import Assembly
from certes.nn.ready import AdaDiagNet, SparseComboNet
from certes.nn.stable import Absolute, Orthogonal, Singular, Stable, Symmetric
from certes.spec import input_error

#: kind -> modules of such weights.
_KINDS: dict[str, Callable[[int, float], Stable]] = {
    "singular": Singular,
    "svd": Orthogonal,
    "absolute": Absolute,
    "symmetric": Symmetric,
    "workspace": Singular,
}
Share = Annotated[float, Field(gt=0, le=1)]


class Architecture(BaseModel):
    """What is trained.

    Attributes:
        kind: weights of the modules: ``adadiag`` (diagonal), ``sparse`` (drawn once, not trained), ``singular``,
            ``svd``, ``absolute``, ``symmetric``; ``workspace``: singular modules around a hub.
        modules: states of each.
        activation: phi.
        form: ``hopfield`` or ``rate``.
        topology: which modules are coupled.
        couplings: number of pairs, for topology ``random``.
        step: e = step / tau, one number or (smallest, largest) per state.
        level: bound on the modules' weights in their metric.
        guarantee: ``euler``: the map that is run; ``continuous``: the differential equation only.
        density: of kind ``sparse``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["adadiag", "sparse", "singular", "svd", "absolute", "symmetric", "workspace"] = "adadiag"
    modules: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=1000)]
    activation: str = "relu"
    form: Literal["hopfield", "rate"] = "hopfield"
    topology: Literal["all", "ring", "hub", "random", "none"] = "all"
    couplings: Annotated[int, Field(ge=0)] | None = None
    step: Share | tuple[Share, Share] = (0.01, 0.2)
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
            with torch.device("meta"):
                found._check(where)
        except InputError as error:
            field = error.field if error.field.startswith(where) else f"{where}.{error.field}"
            raise InputError(field, error.given, error.expected, error.slug) from None
        return found

    def _check(self, where: str) -> None:
        from certes.nn import skew

        skew.pairs_of(self.topology, len(self.modules), self.couplings, 0)
        slope = named(self.activation)
        level = self.level * max(abs(slope.lower), abs(slope.upper))
        high = self.step if isinstance(self.step, float) else max(self.step)
        if self.guarantee == "euler" and not skew.largest_coupling(level, high) > 0.0:
            given = f"a step of {high:g} with level {self.level:g}"
            raise InputError(f"{where}.step", given, "a smaller step, or a lower level", "out-of-reach")

    def build(self, features: int, outputs: int, seed: int, keep: int = 1) -> Assembly:
        """The network, its parameters drawn by the seed.

        Args:
            features: inputs per step.
            outputs: of the readout.
            seed: of everything that is drawn.
            keep: how many states of a run are kept, see :class:`certes.nn.Assembly`.

        Raises:
            InputError: no sparse draw passes, or modules that leave no room at such a step.
        """
        options: dict[str, Any] = {
            "activation": self.activation, "form": self.form, "topology": self.topology, "couplings": self.couplings,
            "step": self.step, "guarantee": self.guarantee, "keep": keep, "seed": seed,
        }  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.kind == "adadiag":
                return AdaDiagNet(features, self.modules, outputs, level=self.level, **options)
            if self.kind == "sparse":
                return SparseComboNet(
                    features, self.modules, outputs, level=self.level, density=self.density, **options
                )
            if self.kind == "workspace":
                options["topology"] = "hub"
            made = [_KINDS[self.kind](size, self.level) for size in self.modules]
            return Assembly(features, made, outputs, **options)
