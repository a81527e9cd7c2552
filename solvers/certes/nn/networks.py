"""The plain recurrent classifier: its explicit weights, and the map that is run.

    rate      x+ = (1 - a) x + a phi(W x + U u + b)          logits = V x_T + v,  x_0 = 0,  a = step / tau
    hopfield  x+ = (1 - a) x + a (W phi(x) + U u + b)

with b the sum of all biases; a = 1 in the rate form is ``torch.nn.RNN``. :class:`Parameters` are explicit weights (the
numbers that are deployed); free parameters, which training moves, are in :mod:`certes.nn.training`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certes.dtypes import rounded
from certes.nn.activations import torch_activation
from certes.roles import Roles, activation_run
from certes.sequences import Sequences
from certes.systems import System
from certes.weights import WeightFile

Array = NDArray[np.float64]

#: Sequences per batch where no gradient is needed.
_BATCH = 1000


@dataclass(frozen=True, eq=False)
class Parameters:
    """Explicit weights, float64: W (n, n), U (n, features), b (n,), V (classes, n), v (classes,)."""

    W: Array
    U: Array
    b: Array
    V: Array
    v: Array

    def items(self) -> Iterator[tuple[str, Array]]:
        """(name, array) in a fixed order."""
        return iter([(name, getattr(self, name)) for name in ("W", "U", "b", "V", "v")])


@dataclass(frozen=True, eq=False)
class Classifier:
    """A recurrent classifier in a weight file.

    Attributes:
        file: the file.
        system: its recurrent part, a map.
        roles: its tensors.
        activation: name of phi.
    """

    file: WeightFile
    system: System
    roles: Roles
    activation: str

    @classmethod
    def of(
        cls, file: WeightFile, system: System, roles: Roles | None = None, activation: str | None = None
    ) -> Classifier:
        """Check that the pieces make a network that can be run.

        Args:
            file: the weight file.
            system: the recurrent part, with weights of the file.
            roles: names of the tensors; None: by usual names.
            activation: the function that is run, if the system states slopes only.

        Raises:
            InputError: in continuous time, several time constants, sparse, no activation, or tensors that do not fit.
        """
        named = activation_run(system, activation)
        return cls(file, system, roles or Roles.of(file, system), named)

    @property
    def leak(self) -> float:
        """a = step / tau."""
        assert self.system.step is not None
        return self.system.step / float(self.system.tau[0])

    @property
    def features(self) -> int:
        """Number of inputs per step."""
        return self.file.tensors[self.roles.input].shape[1]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.file.tensors[self.roles.readout].shape[0]

    def parameters(self) -> Parameters:
        """The weights as they are in the file.

        Raises:
            InputError: a tensor that is not of finite floats.
        """
        read = {name: self.file.get(name).floats() for name in self.roles.all}
        bias = sum((read[name] for name in self.roles.biases), np.zeros(self.system.size))
        last = np.zeros(self.classes) if self.roles.readout_bias is None else read[self.roles.readout_bias]
        roles = self.roles
        return Parameters(read[roles.recurrent], read[roles.input], np.asarray(bias), read[roles.readout], last)

    def tensors(self, changed: Parameters) -> dict[str, Array]:
        """Tensor name -> values, rounded to the stored dtype, of those tensors that differ from the file.

        Of several biases the first takes the whole change.
        """
        old, roles = self.parameters(), self.roles
        new: dict[str, Array] = {}
        for name, key in ((roles.recurrent, "W"), (roles.input, "U"), (roles.readout, "V"), (roles.readout_bias, "v")):
            if name is not None and not np.array_equal(getattr(changed, key), getattr(old, key)):
                new[name] = getattr(changed, key)
        if roles.biases and not np.array_equal(changed.b, old.b):
            rest = sum((self.file.get(name).floats() for name in roles.biases[1:]), np.zeros(self.system.size))
            new[roles.biases[0]] = changed.b - rest
        return {name: rounded(value, self.file.tensors[name].dtype) for name, value in new.items()}

    def dynamics(self, device: torch.device | None = None) -> Dynamics:
        """The map that is run: in float64 for float64 weights, else in float32."""
        dtype = torch.float64 if self.file.tensors[self.roles.recurrent].dtype == "F64" else torch.float32
        return Dynamics(
            self.system.form == "hopfield", self.leak, self.activation, dtype, device or torch.device("cpu")
        )


class Run(NamedTuple):
    """Explicit weights as torch tensors, see :class:`Parameters`."""

    W: Tensor
    U: Tensor
    b: Tensor
    V: Tensor
    v: Tensor


@dataclass(frozen=True)
class Dynamics:
    """How a classifier is run.

    Attributes:
        hopfield: the form.
        leak: a.
        activation: name of phi.
        dtype: of the recurrence.
        device: where.
    """

    hopfield: bool
    leak: float
    activation: str
    dtype: torch.dtype
    device: torch.device

    def run(self, parameters: Parameters) -> Run:
        """The weights in the dtype of the recurrence."""
        return Run(*(torch.tensor(value, dtype=self.dtype, device=self.device) for _, value in parameters.items()))

    def inputs(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Inputs and labels as tensors on the device."""
        return (
            torch.from_numpy(sequences.inputs).to(self.device, self.dtype),
            torch.from_numpy(sequences.labels).to(self.device),
        )

    def states(self, weights: Run, inputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(what W multiplies, next state) at each step, both of shape (batch, n), from x_0 = 0."""
        phi, a = torch_activation(self.activation), self.leak
        drive = inputs @ weights.U.T + weights.b
        across = weights.W.T
        x = torch.zeros(len(inputs), len(weights.W), dtype=self.dtype, device=self.device)
        for k in range(inputs.shape[1]):
            if self.hopfield:
                seen = phi(x)
                x = (1.0 - a) * x + a * (seen @ across + drive[:, k])
            else:
                seen = x
                x = (1.0 - a) * x + a * phi(x @ across + drive[:, k])
            yield seen, x

    def last(self, weights: Run, inputs: Tensor) -> Tensor:
        """x_T, shape (batch, n)."""
        x = torch.zeros(0)
        for _, x in self.states(weights, inputs):  # noqa: B007
            pass
        return x

    def logits(self, weights: Run, inputs: Tensor) -> Tensor:
        """Shape (batch, classes)."""
        return self.last(weights, inputs) @ weights.V.T + weights.v

    @torch.no_grad()
    def last_states(self, parameters: Parameters, sequences: Sequences) -> Array:
        """x_T of every sequence, shape (N, n), float64."""
        weights, (inputs, _) = self.run(parameters), self.inputs(sequences)
        found = [self.last(weights, part) for part in torch.split(inputs, _BATCH)]
        return torch.cat(found).double().cpu().numpy()

    @torch.no_grad()
    def accuracy(self, parameters: Parameters, sequences: Sequences) -> float:
        """Share of the sequences whose label has the largest logit."""
        inputs, labels = self.inputs(sequences)
        return self.accuracy_of(self.run(parameters), inputs, labels)

    @torch.no_grad()
    def accuracy_of(self, weights: Run, inputs: Tensor, labels: Tensor) -> float:
        """Like :meth:`accuracy`, of tensors."""
        parts = zip(torch.split(inputs, _BATCH), torch.split(labels, _BATCH), strict=True)
        right = sum(int((self.logits(weights, part).argmax(1) == label).sum()) for part, label in parts)
        return right / len(labels)

    @torch.no_grad()
    def second_moment(self, parameters: Parameters, sequences: Sequences) -> Array:
        """The mean of z z^T over all steps and sequences, z what W multiplies; shape (n, n), float64."""
        weights, (inputs, _) = self.run(parameters), self.inputs(sequences)
        size = len(parameters.W)
        total = torch.zeros(size, size, dtype=torch.float64, device=self.device)
        for part in torch.split(inputs, _BATCH):
            for seen, _ in self.states(weights, part):
                z = seen.double()
                total += z.T @ z
        return (total / (inputs.shape[0] * inputs.shape[1])).cpu().numpy()
