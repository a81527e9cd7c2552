"""Linear maps between states that keep their structure: dense, diagonal, or a few blocks.

Each is a layout without numbers: the numbers are tensors that are handed over with every call, so that a recurrence can
use them a thousand times and torch differentiates them once. States are rows: x of shape (batch, n), y = x M^T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

#: A matrix of fewer states than this, or with more than this share of its entries, is multiplied whole: the parts of a
#: batch of small products cost more than they spare.
_SMALL, _FULL = 192, 0.35


class Operator(Protocol):
    """A linear map with a structure; ``values`` are its numbers."""

    def apply(self, values: Tensor, x: Tensor) -> Tensor:
        """M x, shape (batch, n)."""
        ...

    def transposed(self, values: Tensor, y: Tensor) -> Tensor:
        """M^T y, shape (batch, n)."""
        ...

    def outer(self, y: Tensor, x: Tensor) -> Tensor:
        """The sum over the batch of y x^T, as far as M has entries: the gradient of the values."""
        ...


@dataclass(frozen=True)
class Dense:
    """Any matrix; values of shape (n, n)."""

    def apply(self, values: Tensor, x: Tensor) -> Tensor:
        """M x."""
        return x @ values.mT

    def transposed(self, values: Tensor, y: Tensor) -> Tensor:
        """M^T y."""
        return y @ values

    def outer(self, y: Tensor, x: Tensor) -> Tensor:
        """y^T x."""
        return y.mT @ x


@dataclass(frozen=True)
class Diagonal:
    """A diagonal; values of shape (n,)."""

    def apply(self, values: Tensor, x: Tensor) -> Tensor:
        """M x."""
        return values * x

    def transposed(self, values: Tensor, y: Tensor) -> Tensor:
        """M^T y."""
        return values * y

    def outer(self, y: Tensor, x: Tensor) -> Tensor:
        """The sum of y x."""
        return (y * x).sum(0)


class Blocks:
    """Blocks of one shape; values of shape (p, n_to, n_from).

    Args:
        size: number of states.
        to, source: first states of the blocks, p each.
        shape: (n_to, n_from).
    """

    def __init__(self, size: int, to: Sequence[int], source: Sequence[int], shape: tuple[int, int]) -> None:
        self.size, self.shape, self.count = size, shape, len(to)
        rows, columns = shape
        self.rows = torch.cat([torch.arange(first, first + rows) for first in to])
        self.columns = torch.cat([torch.arange(first, first + columns) for first in source])

    def _gather(self, x: Tensor, where: Tensor, width: int) -> Tensor:
        """The parts of states, shape (p, batch, width)."""
        return x.index_select(1, where.to(x.device)).view(len(x), self.count, width).transpose(0, 1)

    def _spread(self, parts: Tensor, where: Tensor) -> Tensor:
        """Parts of shape (p, batch, width) added up at their places, shape (batch, n)."""
        batch = parts.shape[1]
        flat = parts.transpose(0, 1).reshape(batch, -1)
        return flat.new_zeros(batch, self.size).index_add_(1, where.to(flat.device), flat)

    def apply(self, values: Tensor, x: Tensor) -> Tensor:
        """M x."""
        return self._spread(torch.bmm(self._gather(x, self.columns, self.shape[1]), values.mT), self.rows)

    def transposed(self, values: Tensor, y: Tensor) -> Tensor:
        """M^T y."""
        return self._spread(torch.bmm(self._gather(y, self.rows, self.shape[0]), values), self.columns)

    def outer(self, y: Tensor, x: Tensor) -> Tensor:
        """y x^T block by block."""
        left, right = self._gather(y, self.rows, self.shape[0]), self._gather(x, self.columns, self.shape[1])
        return torch.bmm(left.mT, right)


def worth_blocks(size: int, entries: int) -> bool:
    """Whether a matrix of ``size`` states with so many entries is better multiplied block by block."""
    return size >= _SMALL and entries < _FULL * size * size
