"""Keras models, ``.keras`` and whole-model ``.h5``: the weights of their SimpleRNN, GRU and LSTM layers.

The architecture is read as JSON, and nothing is built from it or run. Kernels are transposed (inputs, k n), an LSTM's
gates stand in torch's order, a GRU's are update, reset, hidden. A layer whose mathematics is not that of the torch
layer (other activations, a GRU that resets before the product, one that reads backwards) is refused. In a child process
only. Source: Keras' saving library (``layers/CLASS_K/cell/vars/I``) and its older HDF5 format (``weight_names``).
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from certes import strictjson
from certes.errors import InputError, TooLargeError
from certes.formats.contents import Budget, Contents, unread
from certes.formats.layers import Layer, contents, reordered
from certes.weights import Limits

Array = NDArray[Any]

_CLASSES = {"SimpleRNN": "rnn", "GRU": "gru", "LSTM": "lstm"}
#: Where the gates of torch's order are in Keras'.
_ORDER = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 1, 2, 3)}
_EXPECTED = "a Keras model with a layer SimpleRNN, GRU or LSTM: model.save('model.keras')"
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_CONFIG_BYTES = 16 * 2**20
_MEMBERS = 10_000
#: The layers of a model in the weights of a .keras file, as Keras 3 and as Keras 2.12 to 2.15 name their group.
_ROOTS = ("layers", "_layer_checkpoint_dependencies")


def prepare() -> None:
    """Import h5py."""
    import h5py  # noqa: F401


def read(stream: BinaryIO, folder: Path, limits: Limits) -> Contents:
    """The recurrent layers under torch's names.

    Raises:
        InputError: no whole model, no recurrent layer, or one that is not covered (``unsupported``).
        TooLargeError: beyond a limit.
    """
    archive = stream.read(4).startswith(b"PK")
    stream.seek(0)
    text, weights = _unzipped(stream, limits) if archive else (None, stream)
    import h5py

    with h5py.File(weights, "r") as file:
        if text is None:
            text = _model_config(file)
        stated = list(_stated(strictjson.parse(text, "config.json", max_bytes=_CONFIG_BYTES, max_depth=200)))
        if not stated:
            raise unread("a Keras model without a layer SimpleRNN, GRU or LSTM at its top", _EXPECTED, "no-weights")
        budget = Budget(limits)
        return contents([_layer(layer, _arrays(file, layer, archive, budget)) for layer in stated])


def _unzipped(stream: BinaryIO, limits: Limits) -> tuple[bytes, BinaryIO]:
    """Config and weights; what unpacks to more than a limit is left alone, whatever its header says."""
    try:
        with zipfile.ZipFile(stream) as archive:
            names = [entry.filename for entry in archive.infolist()]
            if len(names) > _MEMBERS:
                raise TooLargeError("weights", f"{len(names)} files", _MEMBERS, "files")
            if names.count(_CONFIG) != 1 or names.count(_WEIGHTS) != 1:
                raise unread(f"a zip archive without one {_CONFIG} and one {_WEIGHTS}", _EXPECTED)
            config = _member(archive, _CONFIG, _CONFIG_BYTES)
            return config, io.BytesIO(_member(archive, _WEIGHTS, limits.file_bytes))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise unread(f"a zip archive that is damaged ({str(error)[:120]})", _EXPECTED) from error


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    with archive.open(name) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise TooLargeError("weights", f"{name} of more than {most} bytes", most)
    return data


def _model_config(file: Any) -> bytes:
    found = file.attrs.get("model_config")
    if not isinstance(found, str | bytes):
        given = "an HDF5 file without a model_config: weights alone do not tell what they are of"
        raise unread(given, _EXPECTED, "no-weights")
    return found.encode() if isinstance(found, str) else found


@dataclass(frozen=True)
class _Stated:
    """A recurrent layer as the architecture states it, and its number among those of its class."""

    name: str
    kind: str
    group: str
    units: int
    biased: bool
    activation: str


def _stated(config: Any) -> Iterator[_Stated]:
    """The recurrent layers at the top of a model, checked."""
    inner = config.get("config") if isinstance(config, Mapping) else None
    layers = inner.get("layers") if isinstance(inner, Mapping) else inner  # a list in early versions of Sequential
    if not isinstance(layers, list):
        raise unread("a config that lists no layers", _EXPECTED, "no-weights")
    seen: Counter[str] = Counter()
    names: set[str] = set()
    for layer in layers:
        if not isinstance(layer, Mapping) or not isinstance(layer.get("class_name"), str):
            raise unread("a layer without a class", _EXPECTED)
        group, given = _snake(layer["class_name"]), layer.get("config")
        numbered = f"{group}_{seen[group]}" if seen[group] else group
        seen[group] += 1
        if layer["class_name"] not in _CLASSES:
            continue
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            raise unread(f"a layer {layer['class_name']} without a name", _EXPECTED)
        if not _own(layer):
            raise InputError(given["name"], "a class of somebody else's", "a layer of Keras itself", "unsupported")
        if given["name"] in names:
            raise InputError("weights", f"two layers named {given['name']!r}", "each name once", "duplicate-key")
        names.add(given["name"])
        yield _checked(_CLASSES[layer["class_name"]], numbered, given)


def _own(layer: Mapping[str, Any]) -> bool:
    """A class of Keras and not one of the same name that was registered by somebody."""
    module = layer.get("module")
    return not layer.get("registered_name") and (
        module is None or module == "keras" or str(module).startswith(("keras.", "tf_keras.", "tensorflow.keras."))
    )


def _snake(name: str) -> str:
    """The name of a class as Keras names its group: SimpleRNN, simple_rnn."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _checked(kind: str, group: str, given: Mapping[str, Any]) -> _Stated:
    """A layer whose mathematics is that of the torch layer; any other is refused."""
    name, units = given["name"], given.get("units")
    if type(units) is not int or units < 1:
        raise InputError(name, f"units {str(units)[:40]}", "a positive number", "wrong-shape")
    activation = given.get("activation")
    known = ("tanh", "relu") if kind == "rnn" else ("tanh",)
    if activation not in known:
        raise InputError(name, f"the activation {str(activation)[:100]}", " or ".join(known), "unsupported")
    if kind != "rnn" and given.get("recurrent_activation") != "sigmoid":
        odd = str(given.get("recurrent_activation"))[:100]
        raise InputError(name, f"the recurrent activation {odd}", "sigmoid", "unsupported")
    if kind == "gru" and given.get("reset_after") is not True:
        given_words = "a GRU that resets before the product (reset_after = False)"
        raise InputError(name, given_words, "reset_after = True, Keras' default and torch's GRU", "unsupported")
    if given.get("go_backwards"):
        raise InputError(name, "a layer that reads its input backwards", "go_backwards = False", "unsupported")
    biased = bool(given.get("use_bias", True))
    return _Stated(name, kind, group, units, biased, str(activation) if kind == "rnn" else "")


def _arrays(file: Any, layer: _Stated, archive: bool, budget: Budget) -> list[Array]:
    """Kernel, recurrent kernel and, if there is one, bias."""
    roles = ("kernel", "recurrent_kernel", "bias") if layer.biased else ("kernel", "recurrent_kernel")
    if archive:
        root = next((root for root in _ROOTS if root in file), _ROOTS[0])
        places = [f"{root}/{layer.group}/cell/vars/{k}" for k in range(len(roles))]
    else:
        places = list(_older(file, layer, roles))
    return [_dataset(file, place, f"{layer.name}.{role}", budget) for place, role in zip(places, roles, strict=True)]


def _older(file: Any, layer: _Stated, roles: tuple[str, ...]) -> Iterator[str]:
    """Where the older format has them: by the names that it lists, which end in the role."""
    place = f"model_weights/{layer.name}"
    names = [_text(name) for name in _group(file, place, layer.name).attrs.get("weight_names", ())]
    for role in roles:
        found = [name for name in names if name.rpartition("/")[2].partition(":")[0] == role]
        if len(found) != 1:
            raise InputError(layer.name, f"{len(found)} weights named {role}", "one", "no-weights")
        yield f"{place}/{found[0]}"


def _text(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _group(file: Any, place: str, field: str) -> Any:
    """What is at a path, reached by hard links alone: soft and external ones could lead out of the file."""
    import h5py

    found = file
    for part in place.split("/"):
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) and part not in ("", ".") else None
        if not isinstance(link, h5py.HardLink):
            raise InputError(field, f"nothing at {place[:200]!r}", "the weights of this layer", "no-weights")
        found = found[part]
    return found


def _dataset(file: Any, place: str, field: str, budget: Budget) -> Array:
    import h5py

    found = _group(file, place, field)
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual or found.dtype.kind != "f":
        raise InputError(field, "something else than stored numbers", "an array of floating numbers", "wrong-dtype")
    budget.take(int(found.size or 0) * found.dtype.itemsize)
    return np.asarray(found[()])


def _layer(layer: _Stated, arrays: list[Array]) -> Layer:
    order, width = _ORDER[layer.kind], layer.units * len(_ORDER[layer.kind])
    kernel, recurrent, *bias = arrays
    shapes: list[tuple[Array, tuple[int, ...]]] = [
        (kernel, (kernel.shape[0] if kernel.ndim else 0, width)),
        (recurrent, (layer.units, width)),
    ]
    shapes += [(array, (2, width) if layer.kind == "gru" else (width,)) for array in bias]
    for array, expected in shapes:
        if array.shape != expected:
            raise InputError(layer.name, f"an array of shape {array.shape}", f"shape {expected}", "wrong-shape")
    biases = None
    if bias:
        # one bias is torch's of the inputs; torch's other one is then 0
        first, second = bias[0] if layer.kind == "gru" else (bias[0], np.zeros_like(bias[0]))
        biases = (reordered(first, order), reordered(second, order))
    weights = [reordered(np.ascontiguousarray(array.T), order) for array in (kernel, recurrent)]
    return Layer(layer.name, layer.kind, weights[0], weights[1], biases, layer.activation)
