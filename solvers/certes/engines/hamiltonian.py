"""The exact test of a level for given multipliers, and the metric, from one Hamiltonian matrix.

At a level the inequality takes, after the substitution below for maps, one form for both kinds of time,

    [[-(P F + F^T P), -(P B + C^T Q)], [., R]] > 0,    R = 2 Q - Q D - D^T Q,

    continuous   F = A + c I,  D = 0
    map          z = rho (1 + s) / (1 - s): with K = (A + rho I)^-1 the state K^-1 x + B w gives
                 F = K (A - rho I),  B <- 2 rho K B,  C <- C K,  D = -C K B   (P twice this form's)

with the gap in C. Its Hamiltonian matrix H = [[F0, B R^-1 B^T], [-C^T Q R^-1 Q C, -F0^T]], F0 = F + B R^-1 Q C, has an
eigenvalue j v exactly where the condition on the frequency response is singular (S. Boyd, V. Balakrishnan, P. Kabamba,
Math. Control Signals Systems 2 (1989)). Without any, its stable and antistable invariant subspaces give the least and
the largest solution of the Riccati equation. Both leave no margin; their midpoint P leaves
(P_max - P_min) B R^-1 B^T (P_max - P_min) / 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from certes.engines.response import Response

Array = NDArray[np.float64]

#: Eigenvalues this close to the imaginary axis, relative to the largest, count as on it.
AXIS = 1e-7


@dataclass(frozen=True, eq=False)
class Form:
    """The inequality at one level, as above; balanced coordinates of the state.

    Attributes:
        F, B, C, D: shapes (n, n), (n, m), (m, n), (m, m).
        continuous: which kind of time it came from.
        state: the balancing of the state, shape (n,).
    """

    F: Array
    B: Array
    C: Array
    D: Array
    continuous: bool
    state: Array

    @classmethod
    def at(cls, response: Response, strength: float) -> Self:
        """Reduce.

        Raises:
            numpy.linalg.LinAlgError: the level is an eigenvalue of A.
        """
        A, B, C = response.A, response.B, response.C
        eye, m = np.eye(len(A)), response.channels
        if response.continuous:
            return cls(A + strength * eye, B, C, np.zeros((m, m)), True, response.state)
        rho = -strength
        both = np.asarray(np.linalg.solve(A + rho * eye, np.hstack([A - rho * eye, B])), dtype=np.float64)
        drift, inflow = both[:, : len(A)], both[:, len(A) :]
        outflow = np.asarray(np.linalg.solve((A + rho * eye).T, C.T).T, dtype=np.float64)
        return cls(drift, 2.0 * rho * inflow, outflow, -C @ inflow, False, response.state)

    def hamiltonian(self, q: Array, extra: float = 0.0) -> Array | None:
        """H for multipliers q, shape (2 n, 2 n); None if R is not positive definite.

        Args:
            q: multipliers, shape (m,).
            extra: e: e / k and e k times the identity are added to B R^-1 B^T and to C^T Q R^-1 Q C, k the size of a
                metric: the solutions of the larger equation solve the inequality with a margin, and are bounded and
                definite.
        """
        scaled = q[:, None] * self.D
        try:
            lower = np.linalg.cholesky(2.0 * np.diag(q) - scaled - scaled.T)
        except np.linalg.LinAlgError:
            return None
        both = np.hstack([self.B.T, q[:, None] * self.C])
        both = scipy.linalg.solve_triangular(lower, both, lower=True)
        n = len(self.F)
        inflow, outflow = both[:, :n], both[:, n:]
        drift, eye = self.F + inflow.T @ outflow, extra * np.eye(n)
        sizes = float(np.linalg.norm(outflow)), float(np.linalg.norm(inflow))
        size = sizes[0] / sizes[1] if min(sizes) > 0.0 else 1.0
        H = np.block([[drift, inflow.T @ inflow + eye / size], [-(outflow.T @ outflow) - eye * size, -drift.T]])
        return H if np.isfinite(H).all() else None

    def crossings(self, q: Array) -> list[float] | None:
        """Angles at which the condition is singular, ascending; None: already violated where s is infinite."""
        H = self.hamiltonian(q)
        if H is None:
            return None
        values = np.linalg.eigvals(H)
        on_axis = np.abs(values.real) <= AXIS * np.maximum(np.abs(values), 1e-3 * np.abs(values).max())
        heights = np.unique(np.abs(values.imag[on_axis]))
        return [float(v) for v in (heights if self.continuous else 2.0 * np.arctan(heights))]

    def metric(self, q: Array, extra: float = 0.0) -> Array | None:
        """P in the user's coordinates: the midpoint of the extreme solutions; None: no split of the spectrum.

        A split can be luck of rounding at a level just out of reach: only the numbers of P itself decide.
        """
        H = self.hamiltonian(q, extra)
        if H is None:
            return None
        n, ends = len(self.F), []
        for half in ("lhp", "rhp"):
            try:
                _, vectors, count = scipy.linalg.schur(H, output="real", sort=half)
                if count != n:
                    return None
                end = np.linalg.solve(vectors[:n, :n].T, vectors[n:, :n].T)
            except (np.linalg.LinAlgError, ValueError):
                return None
            ends.append(0.5 * (end + end.T))
        P = (ends[0] + ends[1]) * (0.5 if self.continuous else 1.0)
        P = P / self.state[:, None] / self.state[None, :]
        return P if np.isfinite(P).all() else None
