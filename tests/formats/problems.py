"""Weight files of other programs, made as those make them: by torch, by onnx's helper, and by hand in Keras' layouts.

Keras itself is not installed: its two layouts are written from its published saving code, its equations from its
documentation.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

STATES, INPUTS = 3, 2
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
KERAS = {"rnn": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}


def module(kind: str, arrays: Mapping[str, Array], activation: str = "tanh") -> Any:
    """The torch layer with the tensors of a converted file: strict, so that names and shapes are judged too."""
    import torch

    states = arrays["weight_hh_l0"].shape[1]
    options = {"nonlinearity": activation} if kind == "rnn" else {}
    found = getattr(torch.nn, kind.upper())(arrays["weight_ih_l0"].shape[1], states, dtype=torch.float64, **options)
    found.load_state_dict({name: torch.from_numpy(np.array(value, np.float64)) for name, value in arrays.items()})
    return found


def outputs(layer: Any, inputs: Array) -> Array:
    """What a torch layer says over time, (T, n); inputs are (T, features)."""
    import torch

    with torch.no_grad():
        found: Array = layer(torch.from_numpy(inputs)[:, None, :])[0][:, 0, :].numpy()
    return found


def onnx_model(
    kind: str,
    seed: int = 0,
    *,
    dtype: type[np.floating[Any]] = np.float32,
    biased: bool = True,
    names: tuple[str, ...] = ("layer",),
    constants: bool = False,
    **attributes: Any,
) -> Any:
    """A graph of independent recurrent nodes over one input."""
    import onnx

    rng = np.random.default_rng(seed)
    k = GATES[kind]
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes, initializers, results = [], [], []
    if kind == "gru":
        attributes = {"linear_before_reset": 1, **attributes}
    for name in names:
        weights = {
            "W": 0.5 * rng.standard_normal((1, k * STATES, INPUTS)),
            "R": 0.5 * rng.standard_normal((1, k * STATES, STATES)),
        }
        if biased:
            weights["B"] = 0.5 * rng.standard_normal((1, 2 * k * STATES))
        for role, value in weights.items():
            tensor = onnx.numpy_helper.from_array(value.astype(dtype), f"{name}.{role}")
            if constants:
                nodes.append(onnx.helper.make_node("Constant", [], [f"{name}.{role}"], value=tensor))
            else:
                initializers.append(tensor)
        given = ["x", *(f"{name}.{role}" for role in weights)]
        nodes.append(
            onnx.helper.make_node(kind.upper(), given, [f"{name}.y"], name=name, hidden_size=STATES, **attributes)
        )
        results.append(onnx.helper.make_tensor_value_info(f"{name}.y", element, ["T", 1, 1, STATES]))
    x = onnx.helper.make_tensor_value_info("x", element, ["T", 1, INPUTS])
    graph = onnx.helper.make_graph(nodes, "net", [x], results, initializers)
    found = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.checker.check_model(found)
    return found


def onnx_outputs(model: Any, inputs: Array) -> Array:
    """What onnx's own reference says over time, (T, n); it knows no relu in an RNN: there, the operator's equation."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    if any("Relu" in str(entry) for entry in model.graph.node[0].attribute):
        W, R, B = (onnx.numpy_helper.to_array(entry)[0] for entry in model.graph.initializer)
        h, states = np.zeros(STATES), []
        for u in inputs:
            h = np.maximum(W @ u + R @ h + B[:STATES] + B[STATES:], 0)
            states.append(h)
        return np.array(states)
    [found] = ReferenceEvaluator(model).run(None, {"x": inputs[:, None, :]})
    return np.asarray(found)[:, 0, 0, :]


def keras_weights(kind: str, seed: int = 0, *, biased: bool = True) -> list[Array]:
    """Kernel (inputs, k n), recurrent kernel (n, k n), bias (k n,), of a GRU (2, k n)."""
    rng = np.random.default_rng(seed)
    width = GATES[kind] * STATES
    shapes = [(INPUTS, width), (STATES, width), (2, width) if kind == "gru" else (width,)]
    return [0.5 * rng.standard_normal(shape).astype(np.float32) for shape in shapes[: 3 if biased else 2]]


def keras_outputs(kind: str, weights: list[Array], inputs: Array, activation: str = "tanh") -> Array:
    """Keras' equations over time, (T, n), as its documentation of the layers gives them (a GRU with reset_after)."""
    kernel, recurrent, bias = (np.asarray(value, np.float64) for value in weights)
    h, c, found = np.zeros(STATES), np.zeros(STATES), []
    for u in inputs:
        if kind == "gru":
            (xz, xr, xh), (hz, hr, hh) = np.split(u @ kernel + bias[0], 3), np.split(h @ recurrent + bias[1], 3)
            z, r = _sigmoid(xz + hz), _sigmoid(xr + hr)
            h = z * h + (1 - z) * np.tanh(xh + r * hh)
        elif kind == "lstm":
            i, f, g, o = np.split(u @ kernel + h @ recurrent + bias, 4)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
        else:
            s = u @ kernel + h @ recurrent + bias
            h = np.tanh(s) if activation == "tanh" else np.maximum(s, 0)
        found.append(h)
    return np.array(found)


def _sigmoid(s: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-s)))


def keras_config(*layers: tuple[str, str], **options: Any) -> dict[str, Any]:
    """The architecture of a Sequential model: (kind, name) of its layers, and options of each recurrent one."""
    entries: list[dict[str, Any]] = [
        {"module": "keras.layers", "class_name": "InputLayer", "config": {"name": "in"}, "registered_name": None}
    ]
    for kind, name in layers:
        given = {"name": name, "units": STATES, "activation": "tanh", "use_bias": True}
        given |= {} if kind == "rnn" else {"recurrent_activation": "sigmoid"}
        given |= {"reset_after": True} if kind == "gru" else {}
        entries.append(
            {"module": "keras.layers", "class_name": KERAS[kind], "config": given | options, "registered_name": None}
        )
    entries.append({"module": "keras.layers", "class_name": "Dense", "config": {"name": "out"}})
    return {"class_name": "Sequential", "config": {"name": "net", "layers": entries}}


def keras_archive(config: Mapping[str, Any], layers: Mapping[str, list[Array]], root: str = "layers") -> bytes:
    """A .keras file; layers by the group that Keras names after the class and its number."""
    import h5py

    inner = io.BytesIO()
    with h5py.File(inner, "w") as file:
        for group, weights in layers.items():
            for k, value in enumerate(weights):
                file.create_dataset(f"{root}/{group}/cell/vars/{k}", data=value)
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.10.0"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", inner.getvalue())
    return outer.getvalue()


def keras_h5(config: Mapping[str, Any], layers: Mapping[str, list[Array]], end: str = ":0") -> bytes:
    """A whole-model .h5 file of the older format; layers by name."""
    import h5py

    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.create_group("model_weights").attrs["layer_names"] = [name.encode() for name in layers]
        for layer, weights in layers.items():
            group = file["model_weights"].create_group(layer)
            roles = ("kernel", "recurrent_kernel", "bias")[: len(weights)]
            names = [f"{layer}/cell/{role}{end}" for role in roles]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, weights, strict=True):
                group.create_dataset(name, data=value)
    return data.getvalue()
