"""The network that an architecture (:mod:`certes.trainings`) names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from certes.nn.assembly import Assembly
from certes.nn.cascade import CascadeNet
from certes.nn.lure import LureModule
from certes.nn.ready import AdaDiagNet, SparseComboNet
from certes.nn.stable import Absolute, Orthogonal, Singular, Stable, Symmetric
from certes.trainings import Architecture

__all__ = ["Architecture", "network"]

#: kind -> modules of such weights.
_KINDS: dict[str, Callable[[int, float], Stable]] = {
    "singular": Singular,
    "svd": Orthogonal,
    "absolute": Absolute,
    "symmetric": Symmetric,
    "workspace": Singular,
}


def network(architecture: Architecture, features: int, outputs: int, seed: int, keep: int = 1) -> Assembly:
    """The network, its parameters drawn by the seed: see :meth:`certes.trainings.Architecture.build`."""
    sizes = architecture.modules
    names = ("activation", "form", "topology", "couplings", "step", "gate", "guarantee")
    options: dict[str, Any] = {name: getattr(architecture, name) for name in names} | {"keep": keep, "seed": seed}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture.kind == "cascade":
            own = {name: getattr(architecture, name) for name in ("activation", "level", "guarantee")}
            return CascadeNet(features, sizes, outputs, keep=keep, **own)
        if architecture.kind == "adadiag":
            return AdaDiagNet(features, sizes, outputs, level=architecture.level, **options)
        if architecture.kind == "sparse":
            return SparseComboNet(
                features,
                sizes,
                outputs,
                level=architecture.level,
                density=architecture.density,
                **options,
            )
        if architecture.kind == "workspace":
            options["topology"] = "hub"
        kinds = _KINDS | {"lure": lambda size, level: LureModule(size, level, architecture.form)}
        made = [kinds[architecture.kind](size, architecture.level) for size in sizes]
        return Assembly(features, made, outputs, **options)
