"""The activations of :mod:`certes.activations` as torch functions.

They are the functions of the table and no approximations of them: the certificate speaks of those.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from certes.activations import activation

Function = Callable[[Tensor], Tensor]


def _softplus(s: Tensor) -> Tensor:
    """Without the switch to the identity that torch's own makes at 20."""
    return torch.logaddexp(s, torch.zeros((), dtype=s.dtype, device=s.device))


_TORCH: dict[str, Function] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": _softplus,
    "elu": functional.elu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "softsign": functional.softsign,
    "hardtanh": functional.hardtanh,
    "relu6": functional.relu6,
    "identity": lambda s: s,
}


def torch_activation(name: str) -> Function:
    """The torch function of an activation.

    Args:
        name: as in :func:`certes.activations.activation`.

    Raises:
        InputError: the name is not in the table.
    """
    entry = activation(name)
    if entry.name in _TORCH:
        return _TORCH[entry.name]
    slope = float(entry.name.partition(":")[2])  # leaky_relu:SLOPE, the one family with a parameter
    return lambda s: functional.leaky_relu(s, slope)
