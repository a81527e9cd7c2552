"""Weights of one module that are stable whatever their free parameters are, and the metric in which they are.

Each kind here keeps, for its weights W (n, n) and its metric Theta = diag(exp d),

    norm(Theta W Theta^-1) <= level,

the condition ``singular``, up to rounding. Then -x + W phi(x) and -x + phi(W x + u) lose distance in Theta at least at
the rate 1 - g level, g the largest slope of phi, and that is all that couplings need to know
(:mod:`certes.nn.skew`). What differs is which such weights can be reached, and how training moves among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from certes.engines import starts
from certes.errors import InputError

#: Largest d in size: metrics with further apart entries would cost couplings more float32 digits than they are worth.
SPREAD = 1.5


class Stable(nn.Module):
    """Weights of one module.

    Args:
        size: n.
        level: bound on the norm in the metric.

    Raises:
        InputError: no states, or a level that is not positive.
    """

    #: Whether the weights are a diagonal, given as a vector.
    diagonal = False
    #: Whether the metric is not diagonal: :meth:`inner` is not None, and the states share a step.
    full = False

    def __init__(self, size: int, level: float) -> None:
        super().__init__()
        if size < 1:
            raise InputError("size", str(size), "at least one state", "not-positive")
        if not 0.0 < level < math.inf:
            raise InputError("level", repr(level), "a positive number", "not-positive")
        self.size, self.level = size, float(level)

    def forward(self) -> Tensor:
        """W, shape (n, n); of diagonal weights (n,)."""
        raise NotImplementedError

    def exponent(self) -> Tensor:
        """d, shape (n,)."""
        raise NotImplementedError

    def inner(self) -> tuple[Tensor, Tensor] | None:
        """N and its inverse, if the metric is not Theta^2 but (N Theta)^T N Theta: see :mod:`certes.nn.lure`."""
        return None


class Scaled(Stable):
    """Theta^-1 A Theta with a trained d, kept within bounds."""

    def __init__(self, size: int, level: float) -> None:
        super().__init__(size, level)
        self.spread = nn.Parameter(torch.zeros(size))

    def exponent(self) -> Tensor:
        """d = SPREAD tanh(spread / SPREAD)."""
        return SPREAD * torch.tanh(self.spread / SPREAD)

    def forward(self) -> Tensor:
        """W."""
        d = self.exponent()
        return self.whitened() * torch.exp(d[None, :] - d[:, None])

    def whitened(self) -> Tensor:
        """A, of norm at most the level."""
        raise NotImplementedError


class Singular(Scaled):
    """A = level X / (1 + norm(X)): every matrix inside the ball is reached, by one X.

    Args:
        size: n.
        level: bound on the norm in the metric.
        gain: X starts as Gaussian noise of about this norm.
    """

    def __init__(self, size: int, level: float, gain: float = 1.0) -> None:
        super().__init__(size, level)
        self.free = nn.Parameter(torch.randn(size, size) * (0.5 * gain / math.sqrt(size)))

    def whitened(self) -> Tensor:
        """A."""
        return self.free * (self.level / (1.0 + spectral_norm(self.free)))

    @staticmethod
    def together(parts: Sequence[Singular]) -> tuple[Tensor, ...]:
        """W of modules of one size and level, shape (n, n) each: made by as many operations as one of them."""
        free, d = torch.stack([part.free for part in parts]), exponents(parts).view(len(parts), -1)
        scale = parts[0].level / (1.0 + spectral_norm(free))
        made: tuple[Tensor, ...] = (free * scale[:, None, None] * torch.exp(d[:, None, :] - d[:, :, None])).unbind()
        return made


class Orthogonal(Scaled):
    """A = U S V^T with U, V orthogonal (exponentials of skew matrices) and 0 < S < level: the SVD Combo Net's.

    Args:
        size: n.
        level: bound on the singular values.
    """

    def __init__(self, size: int, level: float) -> None:
        super().__init__(size, level)
        self.left = nn.Parameter(torch.randn(size, size) / math.sqrt(size))
        self.right = nn.Parameter(torch.randn(size, size) / math.sqrt(size))
        self.singular = nn.Parameter(torch.randn(size))

    def whitened(self) -> Tensor:
        """A."""
        u, v = (_rotation(part) for part in (self.left, self.right))
        return (u * (self.level * torch.sigmoid(self.singular))) @ v.mT


class Absolute(Scaled):
    """Rows and columns of abs(A) add up to the level at most, so that abs(A) has a norm below it too: ``absolute``.

    Synapses can be removed from such weights without a new proof.

    Args:
        size: n.
        level: bound on the sums.
        mask: shape (n, n), true where a weight may be; None: everywhere.
    """

    mask: Tensor | None

    def __init__(self, size: int, level: float, mask: Tensor | None = None) -> None:
        super().__init__(size, level)
        self.free = nn.Parameter(torch.randn(size, size) / size)
        self.register_buffer("mask", None if mask is None else mask.to(torch.bool))

    def whitened(self) -> Tensor:
        """A_ij = level X_ij / (1 + max(row sum i, column sum j))."""
        free = self.free if self.mask is None else self.free * self.mask
        size = free.abs()
        return self.level * free / (1.0 + torch.maximum(size.sum(1)[:, None], size.sum(0)[None, :]))


class Symmetric(Stable):
    """W = W^T with norm at most the level; the metric is the identity.

    Args:
        size: n.
        level: bound on the norm.
        gain: starts as Gaussian noise of about this norm.
    """

    def __init__(self, size: int, level: float, gain: float = 1.0) -> None:
        super().__init__(size, level)
        self.free = nn.Parameter(torch.randn(size, size) * (0.5 * gain / math.sqrt(size)))

    def exponent(self) -> Tensor:
        """0."""
        return self.free.new_zeros(self.size)

    def forward(self) -> Tensor:
        """W."""
        free = 0.5 * (self.free + self.free.mT)
        return free * (self.level / (1.0 + spectral_norm(free)))


class Diagonal(Stable):
    """A diagonal, level tanh(free); the metric is the identity.

    Args:
        size: n.
        level: bound on the entries.
    """

    diagonal = True

    def __init__(self, size: int, level: float) -> None:
        super().__init__(size, level)
        self.free = nn.Parameter(torch.randn(size))

    def exponent(self) -> Tensor:
        """0."""
        return self.free.new_zeros(self.size)

    def forward(self) -> Tensor:
        """The diagonal, shape (n,)."""
        return self.level * torch.tanh(self.free)


class Fixed(Stable):
    """Weights that are not trained, in the metric of the Perron vectors of abs(W): that is ``absolute``'s.

    Args:
        weights: W, shape (n, n); the Perron root of abs(W) is its level.

    Raises:
        InputError: not square, or not finite.
    """

    weights: Tensor
    fixed_exponent: Tensor

    def __init__(self, weights: NDArray[np.float32]) -> None:
        if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not np.isfinite(weights).all():
            raise InputError("weights", f"shape {weights.shape}", "a square matrix of finite numbers", "wrong-shape")
        exponent, level = _perron(np.abs(weights).astype(np.float64))
        super().__init__(len(weights), level)
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)))
        self.register_buffer("fixed_exponent", torch.from_numpy(exponent.astype(np.float32)))

    def exponent(self) -> Tensor:
        """d."""
        return self.fixed_exponent

    def forward(self) -> Tensor:
        """W."""
        return self.weights


def sparse_weights(
    size: int, density: float, level: float, seed: int, multiplier: float = 6.0, tries: int = 1000
) -> NDArray[np.float32]:
    """Sparse random weights without self-connections whose abs(W) has a norm of at most the level in a usable metric.

    As published for the Sparse Combo Net: entries uniform on [-1, 1] times a multiplier, drawn until they pass. Here
    they pass in the metric that couplings will use, and it is the norm that has to be small.

    Args:
        size: n.
        density: share of the entries that are not 0.
        level: bound.
        seed: of the draws.
        multiplier: of the entries; halved whenever a tenth of the tries is used up.
        tries: how many are drawn at most.

    Raises:
        InputError: none passed.
    """
    generator = np.random.default_rng(seed)
    for k in range(tries):
        scale = multiplier * 0.5 ** (10 * k // tries)
        mask = generator.random((size, size)) < density
        np.fill_diagonal(mask, False)
        weights = (generator.uniform(-scale, scale, (size, size)) * mask).astype(np.float32)
        if _perron(np.abs(weights).astype(np.float64))[1] <= level:
            return weights
    raise InputError("density", f"{density:g}", "weights of which some draws pass", "out-of-reach")


def _perron(size: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """d, within bounds, and the norm of exp(d) abs(W) exp(-d), a little rounded up."""
    exponent = np.asarray(starts.perron(size))
    exponent = np.clip(exponent - exponent.mean(), -SPREAD, SPREAD).astype(np.float32).astype(np.float64)
    scaled = size * np.exp(exponent[:, None] - exponent[None, :])
    return exponent, float(np.linalg.norm(scaled, 2)) * (1.0 + 1e-6) + 1e-9


def weights_of(parts: Sequence[Stable]) -> list[Tensor]:
    """W of every module; of those of one kind, size and level at once, where that kind can."""
    groups: dict[tuple[int, float], list[Singular]] = {}
    for part in parts:
        if type(part) is Singular:
            groups.setdefault((part.size, part.level), []).append(part)
    known = {
        id(part): value
        for group in groups.values()
        if len(group) > 1
        for part, value in zip(group, Singular.together(group), strict=True)
    }
    return [known[id(part)] if id(part) in known else part() for part in parts]


def exponents(parts: Sequence[Stable]) -> Tensor:
    """d of all modules, one after the other, shape (sum of n,)."""
    scaled: list[Tensor] = [part.spread for part in parts if isinstance(part, Scaled)]
    if len(scaled) == len(parts):
        return SPREAD * torch.tanh(torch.cat(scaled) / SPREAD)
    return torch.cat([part.exponent() for part in parts])


def spectral_norm(matrix: Tensor) -> Tensor:
    """norm(X) of X of shape (..., n, n), differentiable: u^T X v with the singular vectors held still."""
    with torch.no_grad():
        left, right = singular_vectors(matrix)
    norm: Tensor = (left * (matrix @ right[..., None])[..., 0]).sum(-1)
    return norm


def singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """u and v of the largest singular value of X of shape (..., n, n), shape (..., n) each."""
    u, _, v = torch.linalg.svd(matrix.detach().float() if matrix.dtype == torch.bfloat16 else matrix.detach())
    return u[..., 0].to(matrix.dtype), v[..., 0, :].to(matrix.dtype)


def _rotation(free: Tensor) -> Tensor:
    rotation: Tensor = torch.linalg.matrix_exp(free - free.mT)
    return rotation
