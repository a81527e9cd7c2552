"""Which tensor of a weight file plays which part in a recurrent classifier: named by the user, or by usual names.

Nothing here needs torch: a request to train can be checked where it is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from certes.activations import activation as look_up
from certes.errors import InputError
from certes.systems import System
from certes.weights import StoredTensor, WeightFile

_INPUTS = ("inp.weight", "input.weight", "in.weight", "encoder.weight", "weight_ih", "inp", "input", "W_in", "U")
_READOUTS = (
    "readout.weight", "fc.weight", "out.weight", "output.weight", "head.weight", "classifier.weight", "linear.weight",
    "decoder.weight", "readout", "W_out", "V",
)  # fmt: skip


@dataclass(frozen=True)
class Roles:
    """Tensor names; None or empty where the file has none (then it is 0, and stays so).

    Attributes:
        recurrent: W, shape (n, n).
        input: U, shape (n, features).
        biases: their sum is b, each of shape (n,).
        readout: V, shape (classes, n).
        readout_bias: v, shape (classes,).
    """

    recurrent: str
    input: str
    biases: tuple[str, ...]
    readout: str
    readout_bias: str | None

    @property
    def all(self) -> tuple[str, ...]:
        """Every name, once each."""
        bias = () if self.readout_bias is None else (self.readout_bias,)
        return (self.recurrent, self.input, *self.biases, self.readout, *bias)

    @classmethod
    def of(
        cls,
        weights: WeightFile,
        system: System,
        *,
        input: str | None = None,
        biases: Sequence[str] = (),
        readout: str | None = None,
        readout_bias: str | None = None,
    ) -> Roles:
        """Find the tensors of a file.

        Args:
            weights: the file.
            system: the recurrent part, with weights of this file.
            input: name of U; None: a usual one.
            biases: names of the parts of b; empty: the usual ones.
            readout: name of V; None: a usual one.
            readout_bias: name of v; None: a usual one, if there is one.

        Raises:
            InputError: a tensor is missing, does not fit, or plays two parts; the field is that of the option.
        """
        recurrent, size = system.subjects[0].name, system.size
        fed = input or _input(weights, recurrent, size)
        _fits(weights.get(fed, "input"), (size, None))
        given = tuple(biases) or _biases(weights, recurrent, fed, size)
        for name in given:
            _fits(weights.get(name, "bias"), (size,))
        read = readout or _guess(weights, "readout", _READOUTS, (None, size))
        classes = _fits(weights.get(read, "readout"), (None, size))[0]
        if classes < 2:
            raise InputError(read, f"{classes} class", "a readout with a row per class, 2 at least", "wrong-shape")
        last = readout_bias or _sibling(weights, read, (classes,))
        if last is not None:
            _fits(weights.get(last, "readout-bias"), (classes,))
        found = cls(recurrent, fed, given, read, last)
        if len(set(found.all)) < len(found.all):
            twice = next(name for name in found.all if found.all.count(name) > 1)
            raise InputError("tensors", f"{twice!r} in two parts", "a tensor of its own for each part", "conflict")
        return found


def activation_run(system: System, activation: str | None = None) -> str:
    """Name of the activation of a system that can be run as a recurrent classifier.

    Args:
        system: the recurrent part.
        activation: the function that is run, if the system states slopes only.

    Raises:
        InputError: in continuous time, several time constants, sparse, no activation, or one with other slopes.
    """
    if system.form == "lure":
        raise InputError("form", "lure", "rate, hopfield or torch-rnn", "not-applicable")
    if system.step is None:
        raise InputError("step", "none (continuous time)", "the step at which the network is run", "missing-value")
    if system.is_sparse:
        raise InputError("W", "sparse weights", "dense weights", "sparse")
    if not system.uniform_tau:
        raise InputError("tau", "several time constants", "one time constant for all neurons", "not-applicable")
    named = activation or (None if system.slope.activation is None else system.slope.activation.name)
    if named is None:
        raise InputError("activation", "slopes only", "the activation that the network runs", "missing-value")
    entry = look_up(named)
    if (system.slope.lower > entry.lower).any() or (system.slope.upper < entry.upper).any():
        given = f"{named} with slopes in [{entry.lower:g}, {entry.upper:g}]"
        raise InputError("activation", given, "a function whose slopes the system allows", "conflict")
    return entry.name


def _input(weights: WeightFile, recurrent: str, size: int) -> str:
    if "weight_hh" in recurrent:
        name = recurrent.replace("weight_hh", "weight_ih")
        if name in weights.tensors:
            return name
    return _guess(weights, "input", _INPUTS, (size, None))


def _biases(weights: WeightFile, recurrent: str, fed: str, size: int) -> tuple[str, ...]:
    found: list[str] = []
    for name in (fed, recurrent):
        bias = _sibling(weights, name, (size,))
        if bias is not None and bias not in found:
            found.append(bias)
    return tuple(found)


def _sibling(weights: WeightFile, name: str, shape: tuple[int, ...]) -> str | None:
    """The bias that lies beside a weight: ``x.weight`` -> ``x.bias``, ``weight_ih_l0`` -> ``bias_ih_l0``."""
    head, dot, last = name.rpartition(".")
    if "weight" not in last:
        return None
    bias = head + dot + last.replace("weight", "bias")
    return bias if bias in weights.tensors and weights.tensors[bias].shape == shape else None


def _guess(weights: WeightFile, role: str, usual: Sequence[str], shape: tuple[int | None, ...]) -> str:
    for name in usual:
        found = [key for key in weights.tensors if key == name or ("." in name and key.endswith("." + name))]
        fitting = [key for key in found if _matches(weights.tensors[key].shape, shape)]
        if len(fitting) == 1:
            return fitting[0]
    expected = f"the name of a tensor of shape {_shown(shape)}; the file has {', '.join(list(weights.tensors)[:20])}"
    raise InputError(role, f"no tensor with a usual name ({', '.join(usual[:4])}, ...)", expected, "missing-value")


def _matches(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    sizes = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(have > 0 and want in (None, have) for have, want in sizes)


def _fits(entry: StoredTensor, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    if not _matches(entry.shape, shape):
        raise InputError(entry.name, f"shape {entry.shape}", f"shape {_shown(shape)}", "wrong-shape")
    return entry.shape


def _shown(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
