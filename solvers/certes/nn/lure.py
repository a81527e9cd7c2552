r"""Modules that satisfy the Lur'e condition, in a metric that is not diagonal, and couplings that an Euler map allows.

For slopes [0, 1] and form ``rate``, with E = exp(H) symmetric, norm(S) < 1 and Theta = diag(exp d),

    W = Theta^-1 A Theta,    A = level (2 S E - E^2),    R = E Theta,

R D W R^-1 = level E D T with T = 2 S - E, for every diagonal D. Let abs(y) = 1, q = D T y and m = E q. Slopes in [0, 1]
say abs(q)^2 <= q^T T y = 2 q^T S y - m^T y, so with r = abs(q)

    m^T y <= 2 r - r^2 <= 1,    abs(m) <= e r,    r <= 2 + e,    e = norm(E):

-x + phi(W x + u) contracts in R^T R at the rate 1 - level (the exact parametrisation of Gokhale, Proskurnikov, Kawano
and Bullo 2026, with V = sqrt(level) E: complete but for the bound on H). Form ``hopfield`` is the transpose:
A = level (2 E S - E^2) and R = E^-1 Theta. Slopes in [0, g] multiply the level by g.

With a skew coupling Gamma = R G R^-1 and steps of at most h, the map's Jacobian F = (1 - h) I + h level M + h Gamma,
M y = m, has

    abs(F y)^2 <= (1 - h)^2 + 2 h (1 - h) level (2 r - r^2) + h^2 (level e r + norm(Gamma))^2

as y^T Gamma y = 0. :func:`certes.trainings.lure_coupling` is the norm of Gamma up to which that is below 1 for all r.
Several modules add up (Cauchy and Schwarz); one of a lower level is one whose slopes are smaller; and modules of norm
at most the level (:mod:`certes.nn.stable`) fit with q = m. Smaller steps of some states change nothing as long as all
states of a module of full metric share one (:mod:`certes.nn.skew`). The bound is derived here.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from certes.errors import InputError
from certes.nn.stable import Scaled, spectral_norm
from certes.trainings import REACH


class LureModule(Scaled):
    """Weights that satisfy the condition ``lure``: larger ones than ``singular`` allows, where they inhibit.

    Args:
        size: n.
        level: 1 - rate, for slopes [0, 1].
        form: of the assembly, ``hopfield`` or ``rate``.
        gain: starts as Gaussian noise of about this size.

    Raises:
        InputError: see :class:`certes.nn.stable.Stable`, or another form.
    """

    full = True

    def __init__(
        self, size: int, level: float, form: Literal["hopfield", "rate"] = "hopfield", gain: float = 1.0
    ) -> None:
        super().__init__(size, level)
        if form not in ("hopfield", "rate"):
            raise InputError("form", repr(form), "hopfield or rate", "unknown-value")
        self.form = form
        self.free = nn.Parameter(torch.eye(size) + torch.randn(size, size) * (0.5 * gain / math.sqrt(size)))
        self.bend = nn.Parameter(torch.zeros(size, size))

    def whitened(self) -> Tensor:
        """A, shape (n, n)."""
        e = torch.linalg.matrix_exp(self._log())
        s = self.free / (1.0 + spectral_norm(self.free))
        product = s @ e if self.form == "rate" else e @ s
        found: Tensor = self.level * (2.0 * product - e @ e)
        return found

    def inner(self) -> tuple[Tensor, Tensor]:
        """N and N^-1, shape (n, n) each: the metric is (N Theta)^T N Theta."""
        h = self._log() if self.form == "rate" else -self._log()
        return torch.linalg.matrix_exp(h), torch.linalg.matrix_exp(-h)

    def _log(self) -> Tensor:
        """H, symmetric, of norm below REACH."""
        h = 0.5 * (self.bend + self.bend.mT)
        found: Tensor = h * (REACH / (1.0 + torch.linalg.vector_norm(h)))
        return found
