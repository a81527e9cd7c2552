"""ONNX graphs: the weights of their RNN, GRU and LSTM nodes, read from the protobuf; nothing is run.

ONNX orders an LSTM's gates input, output, forget, cell and a GRU's update, reset, hidden. A node whose mathematics is
not that of the torch layer (a clip, peepholes, other activations, a GRU that resets before the product) is refused.
In a child process only. Source: the operators RNN, GRU and LSTM of the ONNX specification.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from certes.errors import InputError
from certes.formats.contents import Budget, Contents, unread
from certes.formats.layers import GATES, Layer, contents, reordered
from certes.weights import Limits

#: Where the gates of torch's order are in ONNX's.
_ORDER = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 2, 3, 1)}
_ACTIVATIONS = {"gru": ["sigmoid", "tanh"], "lstm": ["sigmoid", "tanh", "tanh"]}
_EXPECTED = "an ONNX graph with a node RNN, GRU or LSTM whose weights are initializers"
_MOST_NODES = 1_000_000


def prepare() -> None:
    """Import onnx."""
    import onnx
    import onnx.numpy_helper  # noqa: F401


def read(stream: BinaryIO, folder: Path, limits: Limits) -> Contents:
    """The recurrent layers under torch's names.

    Args:
        stream: the model.
        folder: external data lie in it or below.
        limits: on the tensors.

    Raises:
        InputError: no model, no recurrent node, or one that is not covered (``unsupported``).
    """
    import onnx

    model = onnx.ModelProto()
    try:
        model.ParseFromString(stream.read())
    except Exception as error:  # protobuf's own type has moved between its versions
        raise unread("bytes that are no ONNX model", _EXPECTED) from error
    nodes = [node for node in model.graph.node if node.op_type.lower() in GATES and node.domain in ("", "ai.onnx")]
    if not nodes:
        raise unread("an ONNX graph without a node RNN, GRU or LSTM", _EXPECTED, "no-weights")
    values = _Values(model.graph, folder, Budget(limits))
    found = [_layer(node, node.name or f"{node.op_type.lower()}_{k}", values) for k, node in enumerate(nodes)]
    return contents(found)


class _Values:
    """Initializers and constants of a graph, by name."""

    def __init__(self, graph: Any, folder: Path, budget: Budget) -> None:
        self._folder, self._budget = folder, budget
        self._found: dict[str, Any] = {}
        for tensor in graph.initializer:
            self._add(tensor.name, tensor)
        for node in graph.node:
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and len(node.output) == 1:
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self._add(node.output[0], attribute.t)

    def _add(self, name: str, tensor: Any) -> None:
        if name in self._found:
            raise unread(f"two tensors named {name!r}", "each name once", "duplicate-key")
        self._found[name] = tensor

    def array(self, name: str, role: str) -> NDArray[Any]:
        """The values of a tensor.

        Raises:
            InputError: computed by the graph, or outside.
        """
        if name not in self._found:
            expected = "an initializer: weights that the graph computes are not read"
            raise InputError(role, repr(name), expected, "unsupported")
        import onnx

        tensor = self._found[name]
        size = 8
        for k in tensor.dims:
            if k < 0:
                raise InputError(role, f"shape {list(tensor.dims)}", "counts", "wrong-shape")
            size *= k
        self._budget.take(size)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor = self._inside(tensor, role)
        try:
            return np.asarray(onnx.numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(role, f"{name!r}: {str(error)[:160]}", "a whole tensor", "unreadable") from error

    def _inside(self, tensor: Any, role: str) -> Any:
        """A tensor of which the bytes lie in a file of the same folder, with those bytes."""
        import onnx

        told = {entry.key: entry.value for entry in tensor.external_data}
        given = told.get("location", "")
        expected = "a regular file in the model's folder or below"
        path = Path(os.path.realpath(self._folder / given))
        if not given or "\0" in given or not path.is_relative_to(self._folder) or not path.is_file():
            raise InputError(role, f"external data at {given[:200]!r}", expected, "unsupported")
        try:
            start, count = int(told.get("offset", "0")), int(told["length"]) if "length" in told else -1
            size = path.stat().st_size
            if start < 0 or start > size or (count >= 0 and start + count > size):
                raise ValueError("beyond the end of the file")
            self._budget.take(size - start if count < 0 else count)
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(count)
        except (OSError, ValueError) as error:
            raise InputError(role, f"external data at {given[:200]!r}: {error}", expected, "unreadable") from error
        return onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, raw_data=data)


def _layer(node: Any, name: str, values: _Values) -> Layer:
    import onnx

    kind = node.op_type.lower()
    given = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    if len(given) != len(node.attribute):
        raise InputError(name, "an attribute twice", "each once", "duplicate-key")
    activation = _checked(kind, name, given)
    inputs = [*node.input, *[""] * 8]
    if kind == "lstm" and inputs[7]:
        raise InputError(name, "an LSTM with peepholes", "one without", "unsupported")
    order = _ORDER[kind]
    weights = [_one_direction(values.array(inputs[k], f"{name}.{role}"), name) for k, role in ((1, "W"), (2, "R"))]
    biases = None
    if inputs[3]:
        both = _one_direction(values.array(inputs[3], f"{name}.B"), name)
        if both.ndim != 1 or both.size % 2:
            raise InputError(f"{name}.B", f"shape {both.shape}", "two biases of each gate", "wrong-shape")
        biases = (reordered(both[: both.size // 2], order), reordered(both[both.size // 2 :], order))
    if any(array.ndim != 2 for array in weights):
        raise InputError(
            name, "weights that are no matrices", "(1, gates, inputs) and (1, gates, states)", "wrong-shape"
        )
    states = given.get("hidden_size", weights[1].shape[1])
    if states != weights[1].shape[1]:
        raise InputError(name, f"hidden_size {states} and weights of {weights[1].shape}", "one size", "wrong-shape")
    return Layer(name, kind, reordered(weights[0], order), reordered(weights[1], order), biases, activation)


def _checked(kind: str, name: str, given: Mapping[str, Any]) -> str:
    """The activation of a node that is the torch layer; any other is refused."""
    direction = _text(given.get("direction", b"forward"))
    if direction != "forward":
        raise InputError(name, f"direction {direction}", "forward", "unsupported")
    if "clip" in given:
        raise InputError(name, "a clip", "a node that clips nothing", "unsupported")
    if kind == "lstm" and given.get("input_forget", 0):
        raise InputError(name, "coupled gates (input_forget)", "an LSTM that forgets by its own gate", "unsupported")
    if kind == "gru" and not given.get("linear_before_reset", 0):
        given_words = "a GRU that resets before the product (linear_before_reset = 0)"
        raise InputError(name, given_words, "linear_before_reset = 1, as torch has it", "unsupported")
    named = [_text(word).lower() for word in given.get("activations", ())]
    if kind == "rnn":
        if named not in ([], ["tanh"], ["relu"]):
            raise InputError(name, f"the activations {', '.join(named)[:100]}", "Tanh or Relu", "unsupported")
        return named[0] if named else "tanh"
    if named not in ([], _ACTIVATIONS[kind]):
        expected = ", ".join(_ACTIVATIONS[kind])
        raise InputError(name, f"the activations {', '.join(named)[:100]}", expected, "unsupported")
    return ""


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _one_direction(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.ndim == 0 or array.shape[0] != 1:
        raise InputError(name, f"weights of shape {array.shape}", "one direction: (1, ...)", "wrong-shape")
    return np.asarray(array[0])
