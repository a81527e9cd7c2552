"""Networks and true proofs of any size, built without solving anything."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import scipy.sparse as sp
from certes.proofs import AbsoluteProof, Claims, LureProof, StepClaim
from certes.systems import LureSystem, RateNetwork
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Dense:
    """A rate network, continuous time, slopes in [0, 1], norm(W) = 1/2, and a proof that it contracts at rate 0.2.

    The metric has eigenvalues in [0.45, 0.55] and the multipliers lie in [0.95, 1.05]: with the norms alone the Lur'e
    block is bounded below by the positive definite 2 x 2 matrix [[1.6 * 0.45, -1.075], [-1.075, 1.9]], whatever n.
    """

    system: RateNetwork
    proof: LureProof
    claims: Claims
    full_proof: LureProof
    full_claims: Claims

    @classmethod
    def random(cls, size: int, seed: int = 0) -> Dense:
        """Gaussian weights; ``full_proof`` and ``full_claims`` make every claim that a Lur'e proof can carry."""
        rng = np.random.default_rng(seed)
        weights = rng.standard_normal((size, size))
        weights *= 0.5 / np.linalg.norm(weights, 2)
        tilt = rng.standard_normal((size, size))
        tilt = tilt + tilt.T
        metric = 0.5 * np.eye(size) + tilt * (0.05 / np.linalg.norm(tilt, 2))
        q = rng.uniform(0.95, 1.05, size)
        slack = 0.05
        full = LureProof(metric, q, False, 0.44, 0.56, slack, slack)
        map_proof = LureProof(metric, 0.3 * q, False, 0.0, np.inf, 0.0, 0.0)
        claims = Claims(
            rate=0.2,
            margin=0.01,
            weight_radius=slack * (1 - 1e-12),
            gain=sqrt(0.56 / 0.44) / 0.2 * (1 + 1e-9),
            largest_step=StepClaim(0.5, 0.95, map_proof),
            metric_condition_log2=1.0,
        )
        plain = LureProof(metric, q, False, 0.0, np.inf, 0.0, 0.0)
        return cls(RateNetwork(weights, slope=(0.0, 1.0)), plain, Claims(rate=0.2), full, claims)

    def matrix(self) -> Array:
        """The Lur'e block in plain floating point, shape (2n, 2n): what a bare Cholesky would factorise."""
        P, q, W = self.proof.metric, self.proof.multipliers, self.system.matrix("W")
        coupling = -(P + W.T * q)
        return np.block([[1.6 * P, coupling], [coupling.T, 2.0 * np.diag(q)]])


def gaussian_weights(size: int, gain: float = 0.5, seed: int = 0) -> Array:
    """W = gain * N(0, 1) / sqrt(n), shape (n, n); at gain 0.5 the best rate is near 0.3 for large n, below 0 at 1."""
    return np.asarray(np.random.default_rng(seed).standard_normal((size, size)) * (gain / sqrt(size)))


def heterogeneous(size: int, seed: int = 0) -> LureSystem:
    """T x' = (L - I) x + W phi(x), slopes in [0, 1]: tau from 0.5 to 2, L skew and small, W Gaussian of gain 0.55.

    Args:
        size: states n, and as many channels.
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    tau = rng.uniform(0.5, 2.0, size)
    coupling = rng.standard_normal((size, size)) * (0.1 / sqrt(size))
    weights = rng.standard_normal((size, size)) * (0.55 / sqrt(size))
    leak = (coupling - coupling.T) - np.eye(size)
    return LureSystem(leak / tau[:, None], weights / tau[:, None], np.eye(size), slope=(0.0, 1.0))


def sparse_weights(size: int, per_row: int = 10, root: float = 0.9, seed: int = 0) -> sp.csr_array:
    """Random sparse weights of both signs whose absolute values have the given Perron root (to about 1e-6).

    Args:
        size: rows n; every row holds ``per_row`` entries at random distinct columns.
        per_row: entries per row.
        root: Perron root of abs(W).
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    gaps = rng.integers(1, max(size // per_row, 2), size=(size, per_row))
    columns = np.cumsum(gaps, axis=1) + rng.integers(0, size, size)[:, None]
    indices = np.sort(columns % size, axis=1).astype(np.int32)
    values = rng.standard_normal(size * per_row)
    values[values == 0.0] = 1.0
    starts = np.arange(0, size * per_row + 1, per_row, dtype=np.int32)
    weights = sp.csr_array((values, indices.ravel(), starts), shape=(size, size))
    weights.data *= root / _perron_root(abs(weights))
    return weights


def _perron_root(matrix: Any, rounds: int = 60) -> float:
    v = np.ones(matrix.shape[0])
    for _ in range(rounds):
        image = matrix @ v
        v = image / image.max() + 1e-9  # kept positive where a column is empty
    return float(np.median(matrix @ v / v))


def wide_problem(size: int, spread_log2: float = 2000.0) -> tuple[sp.csr_array, AbsoluteProof, Claims]:
    """A band of 11 diagonals whose Perron vectors span 2**spread_log2, more than float64 does; proof and claims too.

    W = D M D^-1 with abs(M) a Toeplitz band of row and column sums at most 0.9 and D = diag(2**(slope i)).
    """
    slope = spread_log2 / size
    offsets = [k for k in range(-5, 6) if k != 0]
    signs = np.random.default_rng(1).choice([-0.09, 0.09], (len(offsets), size))
    # W_ij = M_ij 2**(slope (i - j))
    bands = signs * 2.0 ** (-slope * np.array(offsets, dtype=np.float64))[:, None]
    weights = sp.csr_array(sp.diags_array(bands, offsets=offsets, shape=(size, size), format="csr"))
    log2 = slope * np.arange(size, dtype=np.float64)
    right, right_exponent = _mantissa(log2)
    left, left_exponent = _mantissa(-log2)
    return weights, AbsoluteProof(right, right_exponent, left, left_exponent), Claims(rate=0.1 - 1e-9)


def _mantissa(log2: Array) -> tuple[Array, NDArray[np.int64]]:
    whole = np.floor(log2)
    mantissa, extra = np.frexp(np.exp2(log2 - whole))
    return mantissa, (whole + extra).astype(np.int64)
