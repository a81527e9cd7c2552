"""Parametrisations for ``torch.nn.utils.parametrize``: free parameters whose every value is a stable weight matrix.

:class:`Lure` is the exact parametrisation of :mod:`certes.projection.factors` in torch: with Z of shape (3, n, n) and
d of shape (n,)

    A = R^-T Z1^T Z2 R^-1 / r0,    M = D^-1 A D,    D = diag(exp d) = Q^1/2,

where M = diag(g) W (rate) or diag(g) W^T (hopfield), the functional (c0, r0, t) is that of the rate or factor, and R is
the Cholesky factor of the normalisation. For slopes that are not [0, g] it is the ball norm(A) <= t with Z of shape
(2, n, n), M = diag(max(|a|, |b|)) W: that is the condition ``singular``, which reads slopes by their largest size only.

Everything is computed in float64; the weights that come out are rounded to the dtype of those that went in. They are
inside the set up to that rounding, and up to the optimiser's own: what is exported has to be certified.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from certes.conditions.uniform import UniformLeak, system_weights
from certes.engines import conic, scaling
from certes.errors import InputError
from certes.projection.factors import Ball, Conic
from certes.systems import System

Array = NDArray[np.float64]

#: The functional's level is taken this much inside the wanted one, relative: room for rounding.
MARGIN = 1e-4
#: How far a start is drawn towards 0 until it is strictly inside, tried in this order.
_DRAWS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.99)
#: Relative tolerance of the multipliers of a start.
_TOLERANCE = 1e-3


class Lure(nn.Module):
    """The weights that a rate or factor allows; ``forward(z, d)`` gives W, ``right_inverse(W)`` gives (z, d).

    ``torch.nn.utils.parametrize.register_parametrization(module, "weight", Lure(system, factor))`` keeps ``weight``
    stable from then on.

    Args:
        system: a rate or hopfield network with dense weights, one time constant, and a step below 2 tau.
        number: the rate (continuous time) or factor (a map) to keep.

    Attributes:
        condition: the condition that certifies its weights: ``lure``, or ``singular`` for slopes that are not [0, g].

    Raises:
        InputError: another system, or a number that no weights reach.
    """

    slopes: Tensor

    def __init__(self, system: System, number: float) -> None:
        super().__init__()
        self.dual = system.form == "hopfield"
        self.condition: Literal["lure", "singular"] = "lure"
        self.factors = self._factors(system, number)
        bound = np.array(system.slope.bound)
        if not (bound > 0).all():
            raise InputError("slope", "a neuron with slopes of 0 only", "slopes with room to move", "not-applicable")
        self.register_buffer("slopes", torch.from_numpy(bound), persistent=False)

    def _factors(self, system: System, number: float) -> Conic | Ball:
        """Which exact parametrisation, a little inside the level of the number."""
        expected = "a rate or hopfield network with dense weights, one time constant, and a step below 2 tau"
        if system.form == "lure" or system.is_sparse or not system.uniform_tau:
            given = (
                "sparse weights" if system.is_sparse else f"form {system.form}, {len(set(system.tau))} time constants"
            )
            raise InputError("system", given, expected, "not-applicable")
        leak = UniformLeak.of(system)
        if leak is None:
            if system.step is not None and system.step >= 2.0 * float(system.tau[0]):
                raise InputError("step", f"{system.step:g}", expected, "not-applicable")
            # slopes [a, b] lie in [-g, g]: the ball is sound for them, though not all there is
            leak = UniformLeak(system, conic.Norm(), system_weights(system))
        level = leak.level(number)
        if isinstance(leak.family, conic.Norm):
            self.condition = "singular"
            if not level > 0.0:
                raise InputError("rate", f"{number:g}", "a number that some weights reach", "out-of-reach")
            return Ball(level * (1.0 - MARGIN))
        functional = leak.family.functional(level)
        if not functional.t > 0.0:
            raise InputError("rate", f"{number:g}", "a number that some weights reach", "out-of-reach")
        return Conic(conic.Functional(functional.c0, functional.r0, functional.t * (1.0 - MARGIN)))

    def forward(self, z: Tensor, d: Tensor) -> Tensor:
        """W, shape (n, n), in float64 or in the dtype of the weights that :meth:`right_inverse` took."""
        a = _ball(self.factors, z) if isinstance(self.factors, Ball) else _conic(self.factors, z)
        root = torch.exp(d - d.mean())
        m = a * (root[None, :] / root[:, None]) / self.slopes[:, None]
        w = m.T if self.dual else m
        return w.to(getattr(self, "dtype", torch.float64))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(z, d) of weights; weights outside are first drawn towards 0 until they are inside."""
        self.dtype = weight.dtype
        return self.start(weight.detach().cpu().numpy().astype(np.float64))

    def start(self, weights: Array, q: Array | None = None) -> tuple[Tensor, Tensor]:
        """Parameters whose weights are the given ones, or those nearest to them on the way to 0 that are inside.

        Args:
            weights: W, shape (n, n).
            q: multipliers to start from, shape (n,); None: those that serve W best.

        Raises:
            InputError: weights of another shape, or not finite.
        """
        size = len(self.slopes)
        if weights.shape != (size, size) or not np.isfinite(weights).all():
            given = f"shape {weights.shape}, or a value that is not finite"
            raise InputError("W", given, f"finite weights of shape {(size, size)}", "wrong-shape")
        slopes = self.slopes.cpu().numpy()
        m = slopes[:, None] * (weights.T if self.dual else weights)
        if q is None:
            family = conic.Norm() if isinstance(self.factors, Ball) else self._family()
            q = scaling.optimise(m, family, tolerance=_TOLERANCE).q
        a = conic.scaled(m, q)
        for draw in _DRAWS:
            z = self.factors.start((1.0 - draw) * a)
            if z is not None:
                return torch.from_numpy(z).clone(), torch.from_numpy(0.5 * np.log(q))
        zero = self.factors.start(np.zeros_like(a))  # the middle of every set
        assert zero is not None
        return torch.from_numpy(zero).clone(), torch.zeros(size, dtype=torch.float64)

    def _family(self) -> conic.Level:
        assert isinstance(self.factors, Conic)
        functional = self.factors.functional
        return conic.Level(functional.c0, functional.r0)


def _conic(factors: Conic, z: Tensor) -> Tensor:
    """A = R^-T Z1^T Z2 R^-1 / r0, shape (n, n)."""
    z1, z2, z3 = z
    cross = z1.T @ z2
    gram = z1.T @ z1 + z2.T @ z2 + z3.T @ z3 + factors.ratio * (cross + cross.T)
    y1, y2 = _normalised(gram / (2.0 * factors.functional.t), torch.stack([z1, z2]))
    a: Tensor = y1.T @ y2 / factors.functional.r0
    return a


def _ball(factors: Ball, z: Tensor) -> Tensor:
    """A = radius R^-T Z1^T, shape (n, n)."""
    z1, z3 = z
    (y1,) = _normalised(z1.T @ z1 + z3.T @ z3, z1[None])
    a: Tensor = factors.radius * y1.T
    return a


def _normalised(gram: Tensor, parts: Tensor) -> Tensor:
    """Z R^-1 for R^T R = gram.

    Raises:
        torch.linalg.LinAlgError: gram is not positive definite.
    """
    lower = torch.linalg.cholesky(gram)  # R^T
    y: Tensor = torch.linalg.solve_triangular(lower, parts.mT, upper=False).mT
    return y
