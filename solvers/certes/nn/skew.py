r"""Feedback between modules that is skew in their metric, and how large it may be where an Euler map is run.

In the coordinates Theta x of the modules, Gamma = Theta G Theta^-1 is skew: a block S_ij for every coupled pair, and
-S_ij^T back. With E = diag(e) the steps, h their largest, and norm(Theta W Theta^-1) <= level,

    x+ = x + E (-x + W phi(x) + G x + u)        (or phi(W x + u))

has in the metric Theta E^-1 Theta the Jacobian F = I - E^1/2 Y E^1/2, Y = I - A D - Gamma, with A D of norm at most
gamma = g level. Its norm is below 1 if that of I - h Y is, as I - F^T F = E^1/2 (Y + Y^T - Y^T E Y) E^1/2 and E <= h I.
And norm(I - h Y) <= norm((1 - h) I + h Gamma) + h gamma = sqrt((1 - h)^2 + h^2 norm(Gamma)^2) + h gamma, Gamma being
skew. So couplings up to

    norm(Gamma) < sqrt((1 - h gamma)^2 - (1 - h)^2) / h

cost the guarantee nothing. In continuous time no size does (Kozachkov, Ennis and Slotine 2022); the bound for maps is
derived here. Modules whose metric is not diagonal have N Theta in
place of Theta, and a bound of their own (:mod:`certes.nn.lure`). Nothing is believed: what is exported is certified.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from certes.errors import InputError
from certes.nn.operators import Blocks, Dense, Operator, worth_blocks
from certes.nn.stable import singular_vectors, spectral_norm
from certes.trainings import largest_coupling

__all__ = ["LARGEST", "Skew", "Topology", "largest_coupling", "pairs_of"]

Topology = Literal["all", "ring", "hub", "random", "none"]
#: Module -> (N, N^-1), see :meth:`certes.nn.stable.Stable.inner`.
Inner = Mapping[int, tuple[Tensor, Tensor]]
#: Largest norm of couplings in continuous time: beyond, float32 keeps too few digits of what is skew in the metric.
LARGEST = 100.0
#: States up to which the norm is that of the singular values; beyond, the largest row sum bounds it.
_EXACT = 2048


def pairs_of(topology: Topology, count: int, couplings: int | None, seed: int) -> list[tuple[int, int]]:
    """Pairs i < j of modules that are coupled, in both directions.

    Args:
        topology: ``all``; ``ring``; ``hub``: every module with the last one (a global workspace); ``random``:
            ``couplings`` pairs drawn without repetition; ``none``.
        count: k, number of modules.
        couplings: for ``random``.
        seed: for ``random``.

    Raises:
        InputError: another topology, or more couplings than pairs.
    """
    every = [(i, j) for j in range(count) for i in range(j)]
    if topology == "all":
        return every
    if topology == "ring":
        return sorted({(min(i, j), max(i, j)) for i in range(count) for j in [(i + 1) % count] if i != j})
    if topology == "hub":
        return [(i, count - 1) for i in range(count - 1)]
    if topology == "none":
        return []
    if topology != "random":
        raise InputError("topology", repr(topology), "all, ring, hub, random or none", "unknown-value")
    if couplings is None or not 0 <= couplings <= len(every):
        raise InputError("couplings", repr(couplings), f"a number of pairs, 0 to {len(every)}", "out-of-range")
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:couplings]
    return sorted(every[int(k)] for k in order)


class Skew(nn.Module):
    """Gamma, and what it is in the coordinates of the states.

    Args:
        sizes: states of the modules.
        pairs: pairs (i, j), i < j, that are coupled.
        bound: norm that Gamma stays below.
        gain: the blocks start as Gaussian noise, Gamma with about this norm.
    """

    def __init__(self, sizes: Sequence[int], pairs: Sequence[tuple[int, int]], bound: float, gain: float = 0.5) -> None:
        super().__init__()
        self.sizes, self.pairs, self.bound = tuple(sizes), tuple(pairs), float(bound)
        self.size = sum(self.sizes)
        first = [sum(self.sizes[:k]) for k in range(len(self.sizes))]
        self.first = first
        busy = max((sum(k in pair for pair in pairs) for k in range(len(sizes))), default=1) or 1
        self.blocks = nn.ParameterList(
            torch.randn(sizes[i], sizes[j]) * (0.5 * gain / math.sqrt(busy * max(sizes[i], sizes[j]))) for i, j in pairs
        )
        self._groups = self._grouped()
        for k, (layout, _) in enumerate(self._groups):  # on the device of the module, and no part of its state
            for name, index in zip(("rows", "columns"), layout.entries(torch.device("cpu")), strict=True):
                self.register_buffer(f"_{name}{k}", index, persistent=False)
        entries = 2 * sum(sizes[i] * sizes[j] for i, j in pairs)
        self.sparse = worth_blocks(self.size, entries)
        layouts = [layout for layout, _ in self._groups] if self.sparse else [Dense()]
        self.layouts: tuple[Operator, ...] = tuple(layouts) if pairs else ()

    def _grouped(self) -> list[tuple[Blocks, list[int]]]:
        """Layouts of all directed blocks of one shape; and which pair each is of, its reverse counted from -1 down."""
        found: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for k, (i, j) in enumerate(self.pairs):
            found.setdefault((self.sizes[i], self.sizes[j]), []).append((i, j, k))
            found.setdefault((self.sizes[j], self.sizes[i]), []).append((j, i, -k - 1))
        groups = []
        for shape, members in found.items():
            to, source = ([self.first[member[end]] for member in members] for end in (0, 1))
            groups.append((Blocks(self.size, to, source, shape), [k for _, _, k in members]))
        return groups

    def _entries(self, group: int) -> tuple[Tensor, Tensor]:
        """Rows and columns of the blocks of one shape, see :meth:`certes.nn.operators.Blocks.entries`."""
        return self.get_buffer(f"_rows{group}"), self.get_buffer(f"_columns{group}")

    def whitened(self) -> Tensor:
        """Gamma, shape (n, n), skew, of a norm below the bound."""
        gamma = self._whole(self._raw())
        return gamma * self._shrink(spectral_norm(gamma) if self.size <= _EXACT else gamma.abs().sum(1).max())

    def _raw(self) -> list[Tensor]:
        """The blocks as they are trained, in the order of the layouts."""
        blocks = list(self.blocks)
        return [
            torch.stack([blocks[k] if k >= 0 else -blocks[-k - 1].mT for k in members]) for _, members in self._groups
        ]

    def _whole(self, values: Sequence[Tensor]) -> Tensor:
        found = values[0].new_zeros(self.size, self.size) if values else torch.zeros(self.size, self.size)
        for k, value in enumerate(values):
            found = found.index_put(self._entries(k), value, accumulate=True)
        return found

    def _shrink(self, norm: Tensor) -> Tensor:
        """bound tanh(norm / bound) / norm: near 1 for small couplings, and never beyond the bound."""
        ratio = norm / self.bound
        small = ratio.detach() < 1e-4
        return torch.where(small, torch.ones_like(norm), torch.tanh(ratio) / ratio.clamp_min(1e-6))

    def _norm(self, raw: Sequence[Tensor]) -> Tensor:
        """norm(Gamma), differentiable: u^T Gamma v block by block, with the singular vectors held still."""
        if self.size > _EXACT:
            return self._whole(raw).abs().sum(1).max()
        with torch.no_grad():
            left, right = singular_vectors(self._whole(raw))
        norm = left.new_zeros(())
        for k, value in enumerate(raw):
            rows, columns = self._entries(k)
            norm = norm + (left[rows] * value * right[columns]).sum()
        return norm

    def values(self, exponent: Tensor, inner: Inner | None = None) -> list[Tensor]:
        """G = Theta^-1 N^-1 Gamma N Theta, as values of the layouts.

        Args:
            exponent: d of all states, Theta = diag(exp d), shape (n,).
            inner: module -> (N, N^-1) of those whose metric is not diagonal.
        """
        if not self.pairs:
            return []
        if not self.sparse:
            return [self.matrix(exponent, inner)]
        raw, found = self._raw(), []
        shrink = self._shrink(self._norm(raw))
        for k, value in enumerate(raw):
            rows, columns = self._entries(k)
            seen = self._within(value, self._groups[k][1], inner) if inner else value
            found.append(seen * shrink * torch.exp(exponent[columns] - exponent[rows]))
        return found

    def _within(self, value: Tensor, members: Sequence[int], inner: Inner) -> Tensor:
        """N^-1 S N of blocks S of one shape."""
        found = []
        for block, k in zip(value, members, strict=True):
            to, source = self.pairs[k] if k >= 0 else self.pairs[-k - 1][::-1]
            seen = inner[to][1] @ block if to in inner else block
            found.append(seen @ inner[source][0] if source in inner else seen)
        return torch.stack(found)

    def matrix(self, exponent: Tensor, inner: Inner | None = None) -> Tensor:
        """G, shape (n, n)."""
        gamma = self.whitened()
        if inner:
            eyes = [torch.eye(size, dtype=gamma.dtype, device=gamma.device) for size in self.sizes]
            roots, inverses = ([inner[k][side] if k in inner else eye for k, eye in enumerate(eyes)] for side in (0, 1))
            gamma = torch.block_diag(*inverses) @ gamma @ torch.block_diag(*roots)  # type: ignore[no-untyped-call]
        return gamma * torch.exp(exponent[None, :] - exponent[:, None])
