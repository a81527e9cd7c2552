"""PyTorch checkpoints: ``torch.load`` of weights alone, which runs no code of the file. In a child process only."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from certes.formats.contents import Budget, Contents, Raw, unread
from certes.weights import Limits

#: Where checkpoints of training programs keep the state dict, likely places first.
_NESTED = ("state_dict", "model_state_dict", "model", "module", "net")
_EXPECTED = "a state dict: torch.save(module.state_dict(), FILE)"


def prepare() -> None:
    """Import torch."""
    import torch
    import torch._weights_only_unpickler  # noqa: F401


def read(stream: BinaryIO, folder: Path, limits: Limits) -> Contents:
    """Every tensor of the state dict, under its own name.

    Raises:
        InputError: a file that wants to run code (``pickle``), or without a state dict (``no-weights``).
        TooLargeError: beyond a limit.
    """
    import torch

    try:
        found = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        given = f"a file that holds more than tensors ({_first(error)})"
        raise unread(given, f"{_EXPECTED}; nothing in a file is ever run", "pickle") from error
    budget, tensors = Budget(limits), dict[str, Raw]()
    for name, tensor in _state(found).items():
        budget.take(tensor.numel() * tensor.element_size())
        tensors[name] = _raw(name, tensor)
    return Contents(tensors)


def _first(error: Exception) -> str:
    """What the library objects to, without its advice to load the file unsafely."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    told = next((line for line in lines if "Unsupported" in line or "WeightsUnpickler error" in line), "")
    return (told or "not the pickle of a state dict")[:200]


def _state(found: Any) -> dict[str, Any]:
    """The tensors by name, of a state dict or of a checkpoint with one in it."""
    import torch

    if isinstance(found, Mapping):
        for place in ("", *_NESTED):
            inner = found.get(place) if place else found
            if not isinstance(inner, Mapping):
                continue
            tensors = {key: value for key, value in inner.items() if isinstance(value, torch.Tensor)}
            if not tensors:
                continue
            if odd := [key for key in tensors if not isinstance(key, str)]:
                raise unread(f"a tensor named {odd[0]!r}", "names that are text", "no-weights")
            return tensors
    raise unread(f"a {type(found).__name__} without tensors by name", _EXPECTED, "no-weights")


def _raw(name: str, tensor: Any) -> Raw:
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        given = f"a tensor that is {'quantized' if tensor.is_quantized else tensor.layout} on {tensor.device.type}"
        raise unread(f"{name}: {given}", "dense tensors", "wrong-dtype")
    plain = tensor.detach()
    if plain.dtype is torch.bfloat16:
        bits = plain.view(torch.int16).numpy()
        return Raw("BF16", tuple(plain.shape), bits.astype("<i2", copy=False).tobytes())
    try:
        array = plain.resolve_conj().resolve_neg().numpy()
    except TypeError as error:
        raise unread(f"{name}: dtype {plain.dtype}", "numbers of a usual type", "wrong-dtype") from error
    return Raw.of(name, array)
