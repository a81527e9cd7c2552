"""The readout refitted: multinomial logistic regression on last states, the exact optimum of a convex problem."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Array = NDArray[np.float64]

#: Weight of the squared readout in the mean loss, with states scaled to mean square 1.
_RIDGE = 1e-4
_ROUNDS = 300


def refit(states: Array, labels: NDArray[np.int64], V: Array, v: Array, *, bias: bool = True) -> tuple[Array, Array]:
    """V and v of the least mean cross entropy plus a small ridge, from the given ones; deterministic.

    The loss is ``mean(-log softmax(V x + v)[label]) + ridge/2 s^2 norm(V)_F^2`` with s^2 the mean square of the states.

    Args:
        states: last states, shape (N, n).
        labels: shape (N,).
        V: shape (classes, n).
        v: shape (classes,).
        bias: whether v may move.

    Returns:
        V, v; the given ones where states are not finite.
    """
    if not np.isfinite(states).all():
        return V, v
    classes, size = V.shape
    square = float(np.mean(states * states))
    scale = np.sqrt(square) if 0.0 < square < np.inf else 1.0
    x = states / scale
    hot = np.eye(classes)[labels]

    def loss(flat: Array) -> tuple[float, Array]:
        weights = flat.reshape(classes, size + 1)
        scores = x @ weights[:, :size].T + weights[:, size]
        scores -= scores.max(axis=1, keepdims=True)
        expected = np.exp(scores)
        total = expected.sum(axis=1, keepdims=True)
        value = float(np.mean(np.log(total[:, 0]) - np.sum(scores * hot, axis=1)))
        error = (expected / total - hot) / len(x)
        slope = np.concatenate([error.T @ x, error.sum(axis=0)[:, None] * bias], axis=1)
        slope[:, :size] += _RIDGE * weights[:, :size]
        return value + 0.5 * _RIDGE * float(np.sum(weights[:, :size] ** 2)), slope.ravel()

    start = np.concatenate([V * scale, v[:, None]], axis=1).ravel()
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS}).x
    fitted = found.reshape(classes, size + 1)
    return fitted[:, :size] / scale, np.ascontiguousarray(fitted[:, size])
