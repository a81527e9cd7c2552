"""Assemblies of recurrent modules that stay certified while they are trained.

    hopfield   x+ = x + e (-x + W phi(x) + G x + U u_t + b)        y = V x + v
    rate       x+ = x + e (-x + phi(W x + U u_t + b) + G x)

W has a block per module, each of a kind of :mod:`certes.nn.stable`; G couples modules and is skew in their metric
(:mod:`certes.nn.skew`); e = step / tau is one number, or one per state; a gate scales all of them by one number that
the input sets (:mod:`certes.input_gate`). Whatever an optimiser does to the parameters,
the network contracts in continuous time and, with ``guarantee="euler"``, as the map that is run. It is the float32
weights that :meth:`Assembly.system` exports of which ``certes.certify(network)`` says so, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from certes.activations import activation as named
from certes.assemblies import Assembly as System
from certes.assemblies import Coupling
from certes.errors import InputError
from certes.input_gate import InputGate
from certes.nn import skew
from certes.nn.lure import LureModule
from certes.nn.operators import Blocks, Dense, Diagonal, Operator, worth_blocks
from certes.nn.recurrence import Equation, Pushes, run
from certes.nn.skew import Skew, Topology
from certes.nn.stable import Stable, exponents, weights_of
from certes.systems import HopfieldNetwork, RateNetwork, tensor
from certes.trainings import check_lure, lure_coupling

Guarantee = Literal["euler", "continuous"]
Form = Literal["hopfield", "rate"]
#: The step is the unit of time: tau = 1 / e.
STEP = 1.0


class Run(NamedTuple):
    """The equation with its numbers, as :func:`certes.nn.recurrence.run` takes them."""

    equation: Equation
    start: Tensor
    pushes: Pushes
    step: Tensor
    weights: list[Tensor]
    couplings: list[Tensor]
    shares: Tensor | None = None

    @property
    def drive(self) -> Tensor:
        """What is pushed at every step, U u_t + b, shape (T, batch, n)."""
        inputs, weight, bias = self.pushes
        return inputs if weight is None else nn.functional.linear(inputs, weight, bias)


class Assembly(nn.Module):
    """A network of networks; called on inputs of shape (batch, time, features).

    Args:
        input_size: features per step.
        modules: weights of the modules.
        output_size: of the readout; 0: none, the states are the output.
        activation: phi, by name.
        form: ``hopfield`` or ``rate``.
        topology: which modules are coupled, see :func:`certes.nn.skew.pairs_of`; or the pairs.
        couplings: number of pairs, for ``random``.
        step: e = step / tau, in (0, 1]; a pair (smallest, largest): one per state, trained between them.
        gate: the least share of its step that the network takes, of 0.001 and more: the input sets s_t between this
            and 1, and x+ = x + s_t e (...). None: whole steps.
        guarantee: ``euler``: the map that is run contracts, for which couplings are bounded; ``continuous``: only the
            differential equation does.
        every: outputs at every step, shape (batch, time, outputs), instead of the last one's.
        keep: of the states one in so many is kept for the backward pass, the rest is computed again; 0: about one in
            sqrt(time); 1: all.
        seed: of random pairs.

    Raises:
        InputError: modules that leave no room at such a step, a step outside (0, 1], a gate outside [0.001, 1), or
            an impossible topology.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        input_size: int,
        modules: Sequence[Stable],
        output_size: int = 0,
        *,
        activation: str = "tanh",
        form: Form = "hopfield",
        topology: Topology | Sequence[tuple[int, int]] = "all",
        couplings: int | None = None,
        step: float | tuple[float, float] = 0.1,
        gate: float | None = None,
        guarantee: Guarantee = "euler",
        every: bool = False,
        keep: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.sizes = tuple(part.size for part in modules)
        self.size = sum(self.sizes)
        self.activation, self.form, self.guarantee, self.every, self.keep = activation, form, guarantee, every, keep
        slope = named(activation)
        self.slope = max(abs(slope.lower), abs(slope.upper))
        self._steps(step)
        pairs = pairs_given(topology, len(self.sizes)) if not isinstance(topology, str) else (
            skew.pairs_of(topology, len(self.sizes), couplings, seed)
        )  # fmt: skip
        self.skew = Skew(self.sizes, pairs, self._bound(modules))
        self.input = nn.Linear(input_size, self.size)
        self.readout = nn.Linear(self.size, output_size) if output_size else None
        self.register_buffer("shift", torch.zeros(input_size))
        self.register_buffer("scale", torch.ones(input_size))
        self._layouts = self._weight_layouts()
        self.input_gate = None if gate is None else InputGate(gate)
        self.gate = None if gate is None else nn.Linear(input_size, 1)

    def _steps(self, step: float | tuple[float, float]) -> None:
        low, high = (step, step) if isinstance(step, (int, float)) else step
        if not 0.0 < low <= high <= 1.0:
            raise InputError("step", f"{step}", "numbers in (0, 1], the smaller first", "out-of-range")
        self.low, self.high = float(low), float(high)
        self.free_step = nn.Parameter(torch.randn(self.size)) if low < high else None

    def _bound(self, modules: Sequence[Stable]) -> float:
        level = self.slope * max(part.level for part in modules)
        if not level < 1.0:
            raise InputError("modules", f"a level times slope of {level:g}", "less than 1", "not-contracting")
        for part in modules:
            if isinstance(part, LureModule):
                check_lure(self.activation)
                if part.form != self.form:
                    given = f"a lure module of form {part.form} in an assembly of form {self.form}"
                    raise InputError("modules", given, "one form", "conflict")
        if self.guarantee == "continuous":
            return skew.LARGEST
        full = any(isinstance(part, LureModule) for part in modules)
        bound = (lure_coupling if full else skew.largest_coupling)(level, self.high)
        if not bound > 0.0:
            given = f"step {self.high:g} with modules of level {level:g}"
            raise InputError("step", given, "a smaller step, or modules of a lower level", "out-of-reach")
        return bound

    def _weight_layouts(self) -> tuple[Operator, ...]:
        """How W is multiplied: elementwise, block by block where that is worth it, or whole."""
        if all(part.diagonal for part in self.stable()):
            return (Diagonal(),)
        if not worth_blocks(self.size, sum(size * size for size in self.sizes)) or len(set(self.sizes)) > 4:
            return (Dense(),)
        return tuple(Blocks(self.size, places, places, (size, size)) for size, places in self._by_size().items())

    def _by_size(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for size, first in zip(self.sizes, self.skew.first, strict=True):
            found.setdefault(size, []).append(first)
        return found

    def steps(self) -> Tensor:
        """E, shape (n,)."""
        if self.free_step is None:
            return self.input.weight.new_full((self.size,), self.high)
        return self.low + (self.high - self.low) * torch.sigmoid(self._shared(self.free_step))

    def _shared(self, free: Tensor) -> Tensor:
        """The mean, for all states of a module whose metric is not diagonal: it commutes with no steps but equal ones.

        Shape (n,).
        """
        if not any(part.full for part in self.stable()):
            return free
        each = zip(self.stable(), torch.split(free, list(self.sizes)), strict=True)
        return torch.cat([own.mean().expand_as(own) if part.full else own for part, own in each])

    def shares(self, seen: Tensor) -> Tensor | None:
        """What the gate leaves of the steps, in [least, 1] as the numbers of the network have it; None: no gate.

        Args:
            seen: standardised inputs, shape (time, batch, features).

        Returns:
            Shape (time, batch).
        """
        if self.gate is None or self.input_gate is None:
            return None
        least = self.input_gate.least
        opened = torch.sigmoid(self.gate(seen)[..., 0])
        return torch.clamp(least + (1.0 - least) * opened, _not_below(least, torch.finfo(seen.dtype).eps), 1.0)

    def exponent(self) -> Tensor:
        """D of all states: the metric is diag(exp d) N^T E^-1 N diag(exp d), N of :meth:`inner`, else the identity."""
        return exponents(list(self.stable()))

    def inner(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Module -> (N, N^-1), of those whose metric is not diagonal."""
        each = ((k, part.inner()) for k, part in enumerate(self.stable()))
        return {k: value for k, value in each if value is not None}

    def _made(self) -> list[Tensor]:
        """The weights of the modules."""
        return weights_of(list(self.stable()))

    def stable(self) -> Iterator[Stable]:
        """The modules."""
        for part in self.parts:
            assert isinstance(part, Stable)
            yield part

    @property
    def pairs(self) -> Sequence[tuple[int, int]]:
        """Which modules are coupled."""
        return self.skew.pairs

    def entry(self) -> tuple[Tensor, Tensor]:
        """U, shape (n, features), and b, shape (n,)."""
        return self.input.weight, self.input.bias

    def weights(self) -> list[Tensor]:
        """W as values of the layouts."""
        made = self._made()
        if isinstance(self._layouts[0], Diagonal):
            return [torch.cat(made)]
        whole = [torch.diag(value) if value.ndim == 1 else value for value in made]
        if isinstance(self._layouts[0], Dense):
            return [torch.block_diag(*whole)]  # type: ignore[no-untyped-call]
        return [torch.stack([value for value in whole if len(value) == size]) for size in self._by_size()]

    def standardise(self, shift: Tensor, scale: Tensor) -> None:
        """See inputs as (input - shift) / scale from now on; both of shape (features,)."""
        with torch.no_grad():
            self.shift.copy_(shift)
            self.scale.copy_(scale)

    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run.

        Args:
            inputs: shape (batch, time, features).
            state: x_0, shape (batch, n); None: 0.
            lengths: steps of each sequence, shape (batch,), at least 1: its last state is that one. None: all.

        Returns:
            The outputs, shape (batch, outputs), or (batch, time, outputs) with ``every``; and the last state.
        """
        if lengths is None and not self.every:
            last = self._run(inputs, state, last=True)
            return (last if self.readout is None else self.readout(last)), last
        states = self.states(inputs, state)
        each = torch.arange(inputs.shape[0], device=inputs.device)
        last = states[-1] if lengths is None else states[lengths - 1, each]
        seen = states.transpose(0, 1) if self.every else last
        return (seen if self.readout is None else self.readout(seen)), last

    def states(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """All states, shape (time, batch, n)."""
        return self._run(inputs, state, last=False)

    def _run(self, inputs: Tensor, state: Tensor | None, *, last: bool) -> Tensor:
        return run(*self.parts_of_run(inputs, state), last=last)

    def parts_of_run(self, inputs: Tensor, state: Tensor | None = None) -> Run:
        """What a run is made of.

        Args:
            inputs: shape (batch, time, features).
            state: x_0, shape (batch, n); None: 0.
        """
        weight = self.input.weight
        with torch.autocast(weight.device.type, enabled=False):  # what is run is what is exported and certified
            seen = (inputs.transpose(0, 1).to(weight.dtype) - self.shift) / self.scale
            start = weight.new_zeros(inputs.shape[0], self.size) if state is None else state
            couplings = self.skew.values(self.exponent(), self.inner())
            pushes = Pushes(seen, weight, self.input.bias)
            return Run(self.equation, start, pushes, self.steps(), self.weights(), couplings, self.shares(seen))

    @property
    def equation(self) -> Equation:
        """What is run, without its numbers."""
        return Equation(self.form == "hopfield", self.activation, self._layouts, self.skew.layouts, self.keep)

    @torch.no_grad()
    def system(self) -> System:
        """The network as it is run, with its explicit weights: what is certified. Of a gate, where it is open.

        Tensors are named ``NAME.W``, ``NAME.tau`` and ``TO<-FROM``; the couplings are those in x', E G.
        """
        names = [f"m{k}" for k in range(len(self.sizes))]
        steps = self.steps().double().cpu().numpy()
        made: dict[str, Any] = {}
        parts = self._made()
        kind = HopfieldNetwork if self.form == "hopfield" else RateNetwork
        for k, name in enumerate(names):
            value = parts[k]
            weights = (torch.diag(value) if value.ndim == 1 else value).float().cpu().numpy()
            made[name] = kind(weights, activation=self.activation, tau=STEP / self._of(steps, k))
        edges = []
        matrix = (
            self.skew.matrix(self.exponent(), self.inner()).float().cpu().numpy()
            if self.skew.pairs
            else np.zeros((0, 0))
        )
        for i, j in self.skew.pairs:
            for to, source in ((i, j), (j, i)):
                block = self._of(self._of(matrix, to).T, source).T
                value = (self._of(steps, to)[:, None] * block / STEP).astype(np.float32)
                name = f"{names[to]}<-{names[source]}"
                edges.append(Coupling(names[to], names[source], tensor(name, value)))
        return System(made, tuple(edges), STEP if self.guarantee == "euler" else None)

    @torch.no_grad()
    def metrics(self) -> dict[str, NDArray[np.float64]]:
        """Module -> the metric in which it contracts, shape (n, n): where a proof is looked for first."""
        root = np.exp(2.0 * self.exponent().double().cpu().numpy()) / self.steps().double().cpu().numpy()
        found = {f"m{k}": np.diag(self._of(root, k)) for k in range(len(self.sizes))}
        for k, (root_of, _) in self.inner().items():
            n, half = root_of.double().cpu().numpy(), np.sqrt(found[f"m{k}"])
            found[f"m{k}"] = half @ (n.T @ n) @ half
        return found

    def _of(self, values: Any, module: int) -> Any:
        first = self.skew.first[module]
        return values[first : first + self.sizes[module]]


def _not_below(value: float, eps: float) -> float:
    """The least number with such a resolution that is not below a positive one."""
    part, exponent = math.frexp(value)
    return math.ldexp(math.ceil(part * 2.0 / eps) * eps / 2.0, exponent)


def pairs_given(pairs: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Pairs of modules as a user names them, each once and the smaller first.

    Raises:
        InputError: a module that is none, or is coupled to itself.
    """
    for pair in pairs:
        if len(pair) != 2 or not all(0 <= k < count for k in pair) or pair[0] == pair[1]:
            raise InputError("topology", repr(pair), f"pairs of two of the {count} modules", "out-of-range")
    return sorted({(min(pair), max(pair)) for pair in pairs})
