r"""How fast evaluation parallel over time converges, from a certificate.

A run x_t = f_t(x_{t-1}), t = 1 to T, from a given x_0, has residuals r_t = f_t(x_{t-1}) - x_t. Let J(D) = A + B D C,
D diagonal with the slopes of phi: the certificate says norm(J(D)) <= rho < 1 for all of them, in the norm of R x with
R^T R the certified metric. Differences of f are J(D) times differences of states for some D (phi acts elementwise), and
Newton's Jacobians are J(D) for another. Norms are in that metric, and of sequences the maximum over t; N = norm(r).

1. Error. The error at t is at most norm(r_t) + rho times the one at t-1, so no more than N / (1 - rho). R is scaled so
   that the norm bounds every entry: no state is off by more.
2. Picard's step x_t <- f_t(x_{t-1}) leaves N' <= rho N: its residuals are f_t(f_{t-1}(x_{t-2})) - f_t(x_{t-1}).
3. Newton's step moves x by d with d_t = r_t + J_t d_{t-1}, d_0 = 0: norm(d_{t-1}) <= w N, w = (1 - rho^(T-1)) / (1 -
   rho). It leaves r'_t = f_t(x + d) - f_t(x) - J_t d at t-1, which is a difference of two J(D) times d. With

       p = norm(R B S) norm(S^-1 C R^-1)    for any positive diagonal S (the best of a few is taken)

   differences of J(D) have norms of at most spread = min(2 rho, gap p), gap = largest minus smallest slope, so
   N' <= spread w N. Where phi' has a Lipschitz constant k, Taylor's remainder in channel i is at most k/2 a_i^2,
   a = C d, so N' <= bend (w N)^2 with bend = k/2 p max_i norm(row i of C R^-1): quadratic, once N is small enough.
4. Both steps keep what is exact at the first steps and make one more so: after T iterations N = 0.

An iteration that takes the better of the two steps has N' <= N min(rho, spread w, bend w^2 N), and T of them suffice
whatever rho is. :meth:`Guarantee.iterations` counts that down. Without a certificate only 4 is left. All of it is up
to the rounding of the evaluation itself. Newton's method over time is DEER (Lim et al. 2024), and that contraction
makes it well conditioned is known (Gonzalez et al. 2025); the bounds are derived here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from certes.activations import activation
from certes.certify import certify
from certes.composition.outcome import Composition
from certes.errors import InputError
from certes.input_gate import InputGate
from certes.nn.assembly import Assembly
from certes.verify.whole import normal_form, verify_whole

#: Lipschitz constants of phi', rounded up: 4/(3 sqrt 3), 1/(6 sqrt 3), 2/sqrt(2 pi); the others have kinks.
_BENDS = {
    "tanh": 0.7698004, "sigmoid": 0.0962251, "softplus": 0.25, "softsign": 2.0, "elu": 1.0, "gelu": 0.7978846,
    "silu": 0.5, "identity": 0.0,
}  # fmt: skip
#: Share of 1 - rho that weights which are not the certified ones may use up: float32 rounding needs far less.
_OFF = 0.01


class Form(NamedTuple):
    """x+ = A x + B phi(C x + ...), float64: A (n, n), B (n, m), C (m, n)."""

    A: Tensor
    B: Tensor
    C: Tensor


@dataclass(frozen=True, eq=False)
class Guarantee:
    """What a certificate says about evaluation parallel over time.

    Attributes:
        factor: rho, bound on the norm of every Jacobian.
        root: R, shape (n, n), float64: norms are those of R x, and no entry of x exceeds them.
        spread: bound on the norm of differences of Jacobians.
        bend: norm(f(x + d) - f(x) - J d) <= bend norm(d)^2; inf where phi has kinks.
        form: the network that was certified; None: of no network in particular.
        activation: name of phi.
    """

    factor: float
    root: Tensor = field(repr=False)
    spread: float = math.inf
    bend: float = math.inf
    form: Form | None = field(default=None, repr=False)
    activation: str = "relu"

    @classmethod
    def of(cls, found: Composition) -> Guarantee:
        """From what :func:`certes.certify` says of a network; its proof is verified again.

        Raises:
            InputError: no map was certified as a whole, or by networks of several activations: nothing is guaranteed.
        """
        check_no_gate(found.gate)
        proof, expected = found.whole, "the certificate of an Euler map, mode whole"
        if found.verdict != "contracting" or found.factor is None or proof is None:
            given = "continuous time" if found.rate is not None else found.reason or found.verdict
            raise InputError("certificate", given, expected, "not-contracting")
        report = verify_whole(found.assembly, proof)
        if not report.valid or found.assembly.continuous:
            raise InputError("certificate", f"a proof that does not hold: {report.detail}", expected, "not-contracting")
        names = {getattr(leaf.slope.activation, "name", None) for _, leaf in found.assembly.leaves()}
        name = names.pop()
        if names or name is None:
            raise InputError("certificate", "several activations, or none", "one, by name", "conflict")
        normal = normal_form(found.assembly, shifted=False)
        form = Form(*(torch.from_numpy(np.array(part.mid)) for part in (normal.A, normal.B, normal.C)))  # type: ignore[union-attr]
        root = torch.from_numpy(np.linalg.cholesky(np.array(proof.metric)).T.copy())
        reach = float(torch.linalg.vector_norm(_over(torch.eye(len(root), dtype=root.dtype), root), dim=1).max())
        return cls(proof.level, root * reach, form=form, activation=name).at(form)

    def at(self, form: Form) -> Guarantee:
        """The same for the weights that are run: those that were certified up to rounding.

        With dA = A_run - A, and so on, J moves by norm(R dA R^-1) + g (norm(R dB) norm(C R^-1) + norm(R B_run) norm(dC
        R^-1)) at most, g the largest slope in size.

        Raises:
            InputError: other weights, so that nothing is guaranteed.
        """
        assert self.form is not None
        shapes = tuple(part.shape for part in self.form)
        if tuple(part.shape for part in form) != shapes:
            given = f"a certificate of {shapes[0][0]} states for {form.A.shape[0]}, or of another form"
            raise InputError("certificate", given, "that of this network", "wrong-system")
        slope, root = activation(self.activation), self.root
        moved = [run - known for run, known in zip(form, self.form, strict=True)]
        off = float(_size(_over(root @ moved[0], root)))
        inside = _size(root @ moved[1]) * _size(_over(self.form.C, root))
        inside = inside + _size(root @ form.B) * _size(_over(moved[2], root))
        off += max(abs(slope.lower), abs(slope.upper)) * float(inside)
        if not off <= _OFF * (1.0 - self.factor):
            given = f"weights that are not the certified ones (Jacobians differ by {off:.2g}, factor {self.factor:.6g})"
            raise InputError("certificate", given, "that of this network as it is now", "wrong-system")
        factor, product = self.factor + off, _product(form, root)
        spread = min(2.0 * factor, (slope.upper - slope.lower) * product)
        rows = float(torch.linalg.vector_norm(_over(form.C, root), dim=1).max())
        bend = 0.5 * _BENDS.get(self.activation, math.inf) * product * rows
        return replace(self, factor=factor, spread=spread, bend=math.inf if math.isnan(bend) else bend)

    def norm(self, x: Tensor) -> float:
        """The largest norm of states, shape (..., n); 0 of none."""
        if x.numel() == 0:
            return 0.0
        with torch.no_grad():
            peak = x.abs().max()  # squares of large states would overflow, those of small ones vanish
            if not 0.0 < float(peak) < math.inf:
                return float(peak)
            root = self.root.to(x.device, x.dtype)
            return float(torch.linalg.vector_norm((x / peak) @ root.mT, dim=-1).max()) * float(peak)

    def iterations(self, residual: float, tolerance: float, steps: int, *, newton: bool = True) -> int:
        """At most so many iterations bring the error below a tolerance.

        Args:
            residual: N at first.
            tolerance: of the error.
            steps: T.
            newton: whether Jacobians are whole; with their diagonals only 2 and 4 hold.
        """
        goal, count = tolerance * (1.0 - self.factor), 0
        wide = (1.0 - self.factor ** max(steps - 1, 0)) / (1.0 - self.factor)
        while not residual <= goal and count < steps:
            rate = self.factor
            if newton:
                rate = min(rate, self.spread * wide, self.bend * wide * wide * residual)
            residual, count = residual * rate, count + 1
        return count


@dataclass(frozen=True)
class Plan:
    """What evaluation parallel over time will take at most.

    Attributes:
        guarantee: of the certificate.
        steps: T.
        tolerance: of the error, for every state.
        iterations: at most so many, whatever the inputs, from states that are nowhere off by more than 1.
        floor: 1 - rho: the least singular value of the whole linear system, in the metric, for any T.
        condition: of the metric, its largest over its smallest eigenvalue.
    """

    guarantee: Guarantee
    steps: int
    tolerance: float
    iterations: int
    floor: float
    condition: float


def parallel_plan(given: Assembly | Composition, steps: int, tolerance: float = 1e-5) -> Plan:
    """Certify a network, unless that has been done, and say how many iterations it takes at most.

    Args:
        given: the network, or what :func:`certes.certify` says of it.
        steps: T.
        tolerance: of the error, for every state.

    Raises:
        InputError: the map that is run is not certified, T below 1, or a tolerance that is not positive.
    """
    if steps < 1 or not 0.0 < tolerance < math.inf:
        raise InputError("steps, tolerance", f"{steps}, {tolerance!r}", "at least 1, and a positive number")
    check_no_gate(given.gate if isinstance(given, Composition) else given.input_gate)
    found = given if isinstance(given, Composition) else certify(given)
    if not isinstance(found, Composition):
        raise InputError("certificate", "that of one network", "that of an assembly", "wrong-type")
    known = Guarantee.of(found)
    values = torch.linalg.svdvals(known.root)
    # off by 1 in every entry: at most values[0] sqrt(n) in the norm; a residual is one such plus rho times another
    first = (1.0 + known.factor) * float(values[0]) * math.sqrt(len(values))
    count = known.iterations(first, tolerance, steps)
    return Plan(known, steps, tolerance, count, 1.0 - known.factor, float((values[0] / values[-1]) ** 2))


def check_no_gate(gate: InputGate | None) -> None:
    """Raise if there is a gate: the bounds here are of one map, and its Jacobians have no shares of a step.

    Raises:
        InputError: there is one.
    """
    if gate is not None:
        given = "that of the map where the gate is open, for a network with a gate"
        raise InputError("certificate", given, "that of a network without a gate", "unsupported")


def _over(left: Tensor, root: Tensor) -> Tensor:
    """X R^-1."""
    found: Tensor = torch.linalg.solve_triangular(root, left, upper=True, left=False)
    return found


def _size(matrix: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(matrix)
    return found


def _product(form: Form, root: Tensor) -> float:
    """p with norm(R B D C R^-1) <= p max(abs(D))."""
    heads, tails = root @ form.B, _over(form.C, root)
    least = torch.finfo(root.dtype).tiny
    rows = torch.linalg.vector_norm(tails, dim=1).clamp_min(least)
    columns = torch.linalg.vector_norm(heads, dim=0).clamp_min(least)
    found = [
        float(torch.linalg.matrix_norm(heads * s, 2) * torch.linalg.matrix_norm(tails / s[:, None], 2))
        for s in (rows, 1.0 / columns, torch.sqrt(rows / columns))
    ]
    return min(found)
