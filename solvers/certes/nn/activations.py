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


def slopes_of(name: str, s: Tensor) -> tuple[Tensor, Tensor]:
    """phi(s) and phi'(s), without autograd; at a kink the slope that autograd takes.

    Args:
        name: as in :func:`certes.activations.activation`.
        s: arguments, any shape.

    Raises:
        InputError: the name is not in the table.
    """
    entry = activation(name)
    value = torch_activation(name)(s)
    slope = _SLOPES.get(entry.name)
    if slope is None:  # leaky_relu:SLOPE
        return value, torch.where(s > 0, 1.0, float(entry.name.partition(":")[2])).to(s.dtype)
    return value, slope(s, value)


#: phi' of s and phi(s).
_SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda s, v: (s > 0).to(s.dtype),
    "tanh": lambda s, v: 1.0 - v * v,
    "sigmoid": lambda s, v: v * (1.0 - v),
    "softplus": lambda s, v: torch.sigmoid(s),
    "elu": lambda s, v: torch.where(s > 0, torch.ones_like(s), v + 1.0),
    "gelu": lambda s, v: torch.ops.aten.gelu_backward(torch.ones_like(s), s),
    "silu": lambda s, v: torch.ops.aten.silu_backward(torch.ones_like(s), s),
    "softsign": lambda s, v: (1.0 + s.abs()).pow(-2),
    "hardtanh": lambda s, v: ((s > -1) & (s < 1)).to(s.dtype),
    "relu6": lambda s, v: ((s > 0) & (s < 6)).to(s.dtype),
    "identity": lambda s, v: torch.ones_like(s),
}
