"""Linear maps between states that keep their structure: dense, diagonal, or a few blocks.

Each is a layout without numbers: the numbers are tensors that are handed over with every call, so that a recurrence can
use them a thousand times and torch differentiates them once. A recurrence holds its states as columns, x of shape
(n, batch): the states of a module are then contiguous, whatever its size, and blocks are products of a batch of
matrices without a copy, or with one by rows.
"""

from __future__ import annotations

import functools
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

    @property
    def spec(self) -> str:
        """The layout in words, as :func:`of_spec` reads it."""
        ...

    def apply(self, values: Tensor, x: Tensor) -> Tensor:
        """M x of states as rows, shape (batch, n)."""
        ...

    def whole(self, values: Tensor, size: int) -> Tensor:
        """M, shape (n, n)."""
        ...

    def part(self, matrix: Tensor) -> Tensor:
        """The entries of a matrix at the places of the values."""
        ...

    def scaled(self, values: Tensor, rows: Tensor) -> Tensor:
        """diag(rows) M, as values."""
        ...

    def add(self, values: Tensor, x: Tensor, out: Tensor) -> None:
        """out += M x of columns."""
        ...

    def back(self, values: Tensor, y: Tensor, x: Tensor, out: Tensor, found: Tensor) -> None:
        """out += M^T y and found += y x^T of columns: the gradients of x and of the values."""
        ...


@dataclass(frozen=True)
class Dense:
    """Any matrix; values of shape (n, n)."""

    @property
    def spec(self) -> str:
        """One word."""
        return "dense"

    def apply(self, values: Tensor, x: Tensor) -> Tensor:
        """M x."""
        return x @ values.mT

    def whole(self, values: Tensor, size: int) -> Tensor:
        """M."""
        return values

    def part(self, matrix: Tensor) -> Tensor:
        """All of it."""
        return matrix

    def scaled(self, values: Tensor, rows: Tensor) -> Tensor:
        """diag(rows) M."""
        return values * rows[:, None]

    def add(self, values: Tensor, x: Tensor, out: Tensor) -> None:
        """One product."""
        out.addmm_(values, x)

    def back(self, values: Tensor, y: Tensor, x: Tensor, out: Tensor, found: Tensor) -> None:
        """Two."""
        out.addmm_(values.mT, y)
        found.addmm_(y, x.mT)


@dataclass(frozen=True)
class Diagonal:
    """A diagonal; values of shape (n,)."""

    @property
    def spec(self) -> str:
        """One word."""
        return "diagonal"

    def apply(self, values: Tensor, x: Tensor) -> Tensor:
        """M x."""
        return values * x

    def whole(self, values: Tensor, size: int) -> Tensor:
        """M."""
        return torch.diag(values)

    def part(self, matrix: Tensor) -> Tensor:
        """Its diagonal."""
        return matrix.diagonal().clone()

    def scaled(self, values: Tensor, rows: Tensor) -> Tensor:
        """diag(rows) M."""
        return values * rows

    def add(self, values: Tensor, x: Tensor, out: Tensor) -> None:
        """Elementwise."""
        out.addcmul_(values[:, None], x)

    def back(self, values: Tensor, y: Tensor, x: Tensor, out: Tensor, found: Tensor) -> None:
        """Elementwise."""
        out.addcmul_(values[:, None], y)
        found.add_((y * x).sum(1))


class Blocks:
    """Blocks of one shape; values of shape (p, n_to, n_from).

    Args:
        size: number of states.
        to, source: first states of the blocks, p each.
        shape: (n_to, n_from).
    """

    def __init__(self, size: int, to: Sequence[int], source: Sequence[int], shape: tuple[int, int]) -> None:
        self.size, self.shape = size, shape
        self.to, self.source = _Places(size, to, shape[0]), _Places(size, source, shape[1])
        self.spec = " ".join(["blocks", str(size), *map(str, shape), *map(str, (*to, *source))])

    def apply(self, values: Tensor, x: Tensor) -> Tensor:
        """M x."""
        parts = torch.bmm(values, self.source.take(x.mT.contiguous()))
        return self.to.put(parts, torch.zeros(self.size, len(x), dtype=parts.dtype, device=x.device)).mT

    def whole(self, values: Tensor, size: int) -> Tensor:
        """M."""
        rows, columns = self.entries(values.device)
        return values.new_zeros(size, size).index_put_((rows, columns), values, accumulate=True)

    def part(self, matrix: Tensor) -> Tensor:
        """The blocks."""
        return matrix[self.entries(matrix.device)]

    def scaled(self, values: Tensor, rows: Tensor) -> Tensor:
        """diag(rows) M."""
        return values * rows[self.to.rows(values.device)].view(-1, self.shape[0], 1)

    def add(self, values: Tensor, x: Tensor, out: Tensor) -> None:
        """A batch of products."""
        if self.to.straight:
            self.to.take(out).baddbmm_(values, self.source.take(x))
        else:
            self.to.put(torch.bmm(values, self.source.take(x)), out)

    def back(self, values: Tensor, y: Tensor, x: Tensor, out: Tensor, found: Tensor) -> None:
        """Two batches of products; y is taken apart once."""
        parts = self.to.take(y)
        found.baddbmm_(parts, self.source.take(x).mT)
        if self.source.straight:
            self.source.take(out).baddbmm_(values.mT, parts)
        else:
            self.source.put(torch.bmm(values.mT, parts), out)

    def entries(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows, shape (p, n_to, 1), and columns, shape (p, 1, n_from), of the values."""
        rows = self.to.rows(device).view(-1, self.shape[0], 1)
        return rows, self.source.rows(device).view(-1, 1, self.shape[1])


class _Places:
    """Where the parts of columns are: ``first`` states and one width.

    Indices are kept for every device that they were used on: handing them over in every step would make it wait.
    """

    def __init__(self, size: int, first: Sequence[int], width: int) -> None:
        self.first, self.width, self.count = tuple(first), width, len(first)
        #: All states, in their order: no copy is needed.
        self.straight = self.first == tuple(range(0, size, width)) and size % width == 0
        self.aligned = size % width == 0 and all(start % width == 0 for start in first)
        self._known: dict[tuple[str, torch.device], Tensor] = {}

    def rows(self, device: torch.device) -> Tensor:
        """All states, part by part."""
        return self._index("rows", device)

    def _index(self, kind: str, device: torch.device) -> Tensor:
        found = self._known.get((kind, device))
        if found is None:
            width = self.width
            numbers = [start // width for start in self.first] if kind == "parts" else (
                [k for start in self.first for k in range(start, start + width)]
            )  # fmt: skip
            found = torch.tensor(numbers, device=device)
            if type(found) is Tensor and not torch.compiler.is_compiling():
                self._known[kind, device] = found  # a compiler's stand-in for a tensor has no numbers: not to be kept
        return found

    def take(self, x: Tensor) -> Tensor:
        """Parts, shape (p, width, batch), of columns x."""
        if self.straight:
            return x.view(self.count, self.width, -1)
        if self.aligned:
            return x.view(-1, self.width, x.shape[1]).index_select(0, self._index("parts", x.device))
        return x.index_select(0, self.rows(x.device)).view(self.count, self.width, -1)

    def put(self, parts: Tensor, out: Tensor) -> Tensor:
        """Add parts at their places."""
        if self.straight:
            out.view(parts.shape).add_(parts)
        elif self.aligned:
            out.view(-1, self.width, out.shape[1]).index_add_(0, self._index("parts", out.device), parts)
        else:
            out.index_add_(0, self.rows(out.device), parts.view(-1, out.shape[1]))
        return out


@functools.lru_cache(256)
def of_spec(spec: str) -> Operator:
    """The layout of its words."""
    kind, *numbers = spec.split()
    if kind != "blocks":
        return Dense() if kind == "dense" else Diagonal()
    size, rows, columns, *first = map(int, numbers)
    half = len(first) // 2
    return Blocks(size, first[:half], first[half:], (rows, columns))


def worth_blocks(size: int, entries: int) -> bool:
    """Whether a matrix of ``size`` states with so many entries is better multiplied block by block."""
    return size >= _SMALL and entries < _FULL * size * size
