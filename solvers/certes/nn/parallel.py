"""Several processes that train one network together, as torch's own launcher (``torchrun``) starts them.

Every process has all the data and takes its share of each batch; the gradients are added up. So the network is, up to
rounding, the one that a single process makes. What one process decides (to stop, and why), all do.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")
#: Trainings of this process so far; all processes of a launcher count alike.
_TRAININGS = itertools.count()


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Number of this process; 0: it is the first, or alone."""
    return distributed.get_rank() if _together() else 0


def count() -> int:
    """Number of processes."""
    return distributed.get_world_size() if _together() else 1


def _several() -> bool:
    """Whether a launcher started more processes than this one."""
    return distributed.is_available() and int(os.environ.get("WORLD_SIZE") or 1) > 1


def own_device(name: str) -> str:
    """Of ``cuda`` under a launcher: the device that this process is to take."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if name == "cuda" and _several() else name


@cache
def _meeting() -> tuple[Any, int, int]:
    """Where the processes meet, the number of this one, and how many there are."""
    found: tuple[Any, int, int] = next(distributed.rendezvous("env://"))  # type: ignore[attr-defined]
    return found


@contextmanager
def launched(device: torch.device) -> Iterator[None]:
    """Join the processes that a launcher started, if one did, and leave them at the end."""
    if not _several() or distributed.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, size = _meeting()
    # Under a name of its own: what the processes of an earlier training left there would lead this one to closed doors.
    own = distributed.PrefixStore(f"certes-{next(_TRAININGS)}", store)  # type: ignore[attr-defined]
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=own, rank=rank, world_size=size)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def share(index: Tensor) -> Tensor:
    """The part of a batch that this process takes."""
    return index[rank() :: count()]


def first_says(value: T) -> T:
    """The value of the first process."""
    if count() == 1:
        return value
    box: list[Any] = [value]
    distributed.broadcast_object_list(box, 0)
    found: T = box[0]
    return found


def any_says(code: int, device: torch.device) -> int:
    """The largest of all processes' codes."""
    if count() == 1:
        return code
    box = torch.tensor([code], device=device)
    distributed.all_reduce(box, distributed.ReduceOp.MAX)
    return int(box)


def alike(network: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    if count() > 1:
        for value in network.state_dict().values():
            distributed.broadcast(value, 0)


def added(network: nn.Module, loss: float, device: torch.device) -> float:
    """Add up the gradients of all processes, in place, and their losses."""
    if count() == 1:
        return loss
    moved = [parameter for parameter in network.parameters() if parameter.requires_grad]
    grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in moved]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    distributed.all_reduce(flat)
    for each, part in zip(moved, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
        each.grad = part.view_as(each).clone()
    total = torch.tensor([loss], dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return float(total)
