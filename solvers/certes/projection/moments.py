"""The weighting that data give: the second moment of what the recurrent weights multiply.

With D = W' - W and S = E[z z^T], tr(D S D^T) is the mean square change of the recurrent input D z; z is the state x of
a rate network, and phi(x) of a Hopfield network.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError
from certes.systems import HopfieldNetwork, Network

Array = NDArray[np.float64]

#: States taken at a time; bounds the memory beside the given array.
_CHUNK = 1 << 14


def moment_of_states(network: Network, states: object) -> Array:
    """S of states that were observed.

    Args:
        network: a rate or Hopfield network.
        states: shape (..., n), finite.

    Returns:
        S, shape (n, n).

    Raises:
        InputError: another shape, no states, values that are not finite, or a Hopfield network without an activation.
    """
    given = _numbers("states", states)
    if given.ndim < 1 or given.shape[-1] != network.size or given.size == 0:
        expected = f"states of shape (..., {network.size}), at least one"
        raise InputError("states", f"shape {given.shape}", expected, "wrong-shape")
    rows = given.reshape(-1, network.size)
    multiplied = _multiplied(network, "states")
    total = np.zeros((network.size, network.size))
    with np.errstate(over="ignore"):
        for start in range(0, len(rows), _CHUNK):
            part = multiplied(_finite("states", rows[start : start + _CHUNK]))
            total += part.T @ part
    return _finite("states", total / len(rows))


def moment_of_sequences(network: Network, inputs: object) -> Array:
    """S over all steps of runs from state 0: the states that enter a step, not the last ones, which nothing multiplies.

    Args:
        network: a map with an activation and its input matrix U, shape (n, features), and its bias, shape (n,), if it
            has one: x+ = x + (h / tau)(-x + phi(W x + U s + b)), or -x + W phi(x) + U s + b.
        inputs: s, shape (sequences, steps, features), finite.

    Returns:
        S, shape (n, n).

    Raises:
        InputError: a network that cannot be run so, another shape, or values that are not finite (a run that diverges
            among them).
    """
    given = _numbers("sequences", inputs)
    drive, step = network.input_matrix, network.step
    if step is None:
        expected = "a network run step by step: give its step, or the states (the differential equation is not run)"
        raise InputError("sequences", "sequences for a network in continuous time", expected, "conflict")
    if drive is None:
        raise InputError("input", "no input matrix", "the tensor that the inputs are multiplied by", "missing-value")
    if given.ndim != 3 or given.shape[2] != drive.shape[1] or given.size == 0:
        expected = f"inputs of shape (sequences, steps, {drive.shape[1]}), at least one step"
        raise InputError("sequences", f"shape {given.shape}", expected, "wrong-shape")
    hopfield, multiplied, phi = isinstance(network, HopfieldNetwork), _multiplied(network, "sequences"), _phi(network)
    weights = network.matrix("W")
    leak, bias = step / network.tau, 0.0 if network.bias is None else network.bias
    x, total = np.zeros((len(given), network.size)), np.zeros((network.size, network.size))
    with np.errstate(all="ignore"):  # a run that diverges is found by its values
        for k in range(given.shape[1]):
            part = multiplied(x)
            total += part.T @ part
            recurrent = part @ weights.T + _finite("sequences", given[:, k]) @ drive.T + bias
            x = x + leak * (-x + (recurrent if hopfield else phi(recurrent)))
        if not np.isfinite(total).all():
            expected = "sequences on which the given network keeps its states finite"
            raise InputError("sequences", "states that are not finite", expected, "not-finite")
    return np.asarray(total / (given.shape[0] * given.shape[1]))


def _multiplied(network: Network, field: str) -> Callable[[Array], Array]:
    """From states to what W multiplies."""
    if not isinstance(network, HopfieldNetwork):
        return lambda x: x
    if network.slope.activation is None:
        expected = "an activation: a Hopfield network's weights multiply phi(x)"
        raise InputError(field, "slopes without an activation", expected, "conflict")
    return network.slope.activation.function


def _phi(network: Network) -> Callable[[Array], Array]:
    if network.slope.activation is None:
        raise InputError("sequences", "slopes without an activation", "an activation, to run the network", "conflict")
    return network.slope.activation.function


def _numbers(field: str, given: object) -> NDArray[np.generic]:
    try:
        array = np.asarray(given)
    except (TypeError, ValueError) as error:
        raise InputError(field, "something that is no array", "an array of numbers", "wrong-type") from error
    if array.dtype.kind not in "fiub":
        raise InputError(field, f"dtype {array.dtype}", "numbers", "wrong-dtype")
    return array


def _finite(field: str, values: NDArray[np.generic]) -> Array:
    exact = np.asarray(values, dtype=np.float64)
    if not np.isfinite(exact).all():
        raise InputError(field, "a value that is not finite", "finite numbers only", "not-finite")
    return exact
