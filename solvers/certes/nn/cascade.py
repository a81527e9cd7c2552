r"""A tapped delay line and a recurrent stage that reads it: a cascade of two modules, each a map with step 1.

    line    x_0+ = u_t,  x_i+ = x_{i-1}                       the last L inputs, L = states / features
    stage   y+   = phi(W y + C x + U u_t + b)                 C free, W as the guarantee asks

The line remembers exactly and forgets for good; the stage decides what to make of it. Couplings run one way, so that
the whole contracts whatever C is. With Theta = diag(r^i) the line has norm(Theta S Theta^-1) = r for every r in (0, 1),
the stage norm(W) <= level in its metric, and for every epsilon > 0, c = norm(Theta_y C Theta^-1), the map in the metric
diag(Theta^2, epsilon^2 Theta_y^2) has at most the norm of

    [[r, 0], [epsilon c, g level]]    which is below rho  iff  r, g level < rho and
                                      epsilon c < sqrt((rho^2 - r^2) (rho^2 - (g level)^2)) / rho

(g the largest slope): there is such an epsilon for every rho above both. :mod:`certes.composition.maps` finds it, and
no optimiser has to keep C small. In continuous time the same holds for rates.

``guarantee="euler"``: W stays in the ball (:class:`certes.nn.stable.Singular`). ``guarantee="continuous"``: W satisfies
the sharper condition of the differential equation only (:class:`certes.nn.lure.LureModule`, for slopes of 0 or more),
which says nothing of the map that is run.

States of the line at all times are windows of the inputs, so that C x is a convolution, and what takes its time one
after the other is the stage alone. With the Euler guarantee an answer of the last step needs few steps of the stage:
after k of them two starts differ by (g level)^k of their distance in Theta_y, below any rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from certes.activations import activation as named
from certes.assemblies import Assembly as System
from certes.assemblies import Coupling
from certes.errors import InputError
from certes.nn import skew
from certes.nn.assembly import STEP, Assembly, Guarantee, Run
from certes.nn.lure import LureModule
from certes.nn.operators import Dense
from certes.nn.recurrence import Equation, run
from certes.nn.stable import SPREAD, Singular, Stable, spectral_norm
from certes.systems import RateNetwork, tensor

#: -log of the smallest entry of Theta on a line, whatever its length, and the largest r.
_DEPTH, _LARGEST = 12.0, 0.995
#: What is forgotten of the stage's past is this much below the rounding of the largest of its states.
_BELOW = 2.0**-16


class DelayLine(Stable):
    """The last inputs: state i F + f is input f of i + 1 steps ago. Nothing here is trained.

    Args:
        size: states, a multiple of the features.
        features: F.

    Raises:
        InputError: another size.
    """

    like: Tensor

    def __init__(self, size: int, features: int) -> None:
        if features < 1 or size < 1 or size % features:
            given, expected = f"a delay line of {size} states", f"a multiple of the {features} features"
            raise InputError("modules", given, expected, "wrong-shape")
        self.features, self.length = features, size // features
        super().__init__(size, min(_LARGEST, math.exp(-_DEPTH / self.length)))
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self) -> Tensor:
        """S, shape (n, n)."""
        return torch.diag(self.like.new_ones(self.size - self.features), -self.features)

    def exponent(self) -> Tensor:
        """i log r, shape (n,)."""
        steps = torch.arange(self.length, device=self.like.device, dtype=torch.float64)
        return (math.log(self.level) * steps).repeat_interleave(self.features).to(self.like.dtype)

    def history(self, state: Tensor, inputs: Tensor) -> Tensor:
        """What the line has seen and will see, the oldest first, shape (batch, F, length + T).

        Args:
            state: of the line, shape (batch, n).
            inputs: shape (T, batch, F).
        """
        before = state.reshape(-1, self.length, self.features).flip(1)
        return torch.cat([before, inputs.transpose(0, 1)], 1).mT

    def states(self, history: Tensor) -> Tensor:
        """The line after each step, shape (T, batch, n)."""
        windows = history[:, :, 1:].unfold(2, self.length, 1)  # (batch, F, T, length)
        return windows.flip(3).permute(2, 0, 3, 1).flatten(2)


class CascadeNet(Assembly):
    """A delay line and a stage; called on inputs of shape (batch, time, features), see the module's docstring.

    Args:
        input_size: features per step.
        module_sizes: states of the line, a multiple of the features, and of the stage.
        output_size: of the readout, which sees all states; 0: none.
        activation: phi of the stage.
        level: bound on W in its metric.
        guarantee: ``euler``: the map that is run contracts; ``continuous``: the differential equation of that step.
        every: outputs at every step, shape (batch, time, outputs), instead of the last one's.
        keep: see :class:`certes.nn.Assembly`.

    Raises:
        InputError: sizes of no such pair, or a level that leaves no room.
    """

    def __init__(
        self, input_size: int, module_sizes: Sequence[int], output_size: int = 0, *, activation: str = "relu",
        level: float = 0.5, guarantee: Guarantee = "euler", every: bool = False, keep: int = 1,
    ) -> None:  # fmt: skip
        if len(module_sizes) != 2:
            raise InputError("modules", f"{len(module_sizes)} modules", "two: a delay line and a stage", "wrong-shape")
        states, size = module_sizes
        falls = named(activation).lower < 0.0
        free = guarantee == "continuous" and not falls
        stage = LureModule(size, level, "rate") if free else Singular(size, level)
        modules: list[Stable] = [DelayLine(states, input_size), stage]
        super().__init__(
            input_size, modules, output_size, activation=activation, form="rate", topology="none", step=STEP,
            guarantee=guarantee, every=every, keep=keep,
        )  # fmt: skip
        self.input = nn.Linear(input_size, size)  # the line takes inputs as they are
        self.coupling = nn.Parameter(nn.Linear(states, size).weight.detach().clone())

    def _bound(self, modules: Sequence[Stable]) -> float:
        level = self.slope * modules[1].level
        if not level < 1.0:
            raise InputError("modules", f"a level times slope of {level:g}", "less than 1", "not-contracting")
        return skew.LARGEST  # there are no pairs

    @property
    def line(self) -> DelayLine:
        """The first module."""
        found = self.parts[0]
        assert isinstance(found, DelayLine)
        return found

    @property
    def stage(self) -> Stable:
        """The second module."""
        found = self.parts[1]
        assert isinstance(found, Stable)
        return found

    @property
    def pairs(self) -> Sequence[tuple[int, int]]:
        """The one pair, coupled in one direction."""
        return ((0, 1),)

    def entry(self) -> tuple[Tensor, Tensor]:
        """U and b of all states."""
        weight, bias = self.input.weight, self.input.bias
        head = torch.eye(self.sizes[0], weight.shape[1], dtype=weight.dtype, device=weight.device)
        return torch.cat([head, weight]), torch.cat([bias.new_zeros(self.sizes[0]), bias])

    def parts_of_run(self, inputs: Tensor, state: Tensor | None = None) -> Run:
        """None: there is no one equation with one activation.

        Raises:
            InputError: always.
        """
        raise InputError("network", "a cascade", "an assembly with one activation", "unsupported")

    def memory(self, weights: Tensor) -> int | None:
        """Steps after which the stage has forgotten its state, up to rounding; None: nobody says when.

        Args:
            weights: W of the stage. With the Euler guarantee they are not looked at: the level says it of all of them.
        """
        least = torch.finfo(weights.dtype).eps * _BELOW
        if self.guarantee == "euler":
            known, least = self.slope * self.stage.level, least * math.exp(-2.0 * SPREAD)
        else:
            known = self.slope * float(spectral_norm(weights.detach())) * (1.0 + 1e-5)
        return math.ceil(math.log(least) / math.log(max(known, 1e-3))) if known < 1.0 else None

    def _run(self, inputs: Tensor, state: Tensor | None, *, last: bool) -> Tensor:
        steps, weight = inputs.shape[1], self.input.weight
        if steps == 0:
            raise InputError("inputs", "no steps of time", "at least one", "wrong-shape")
        with torch.autocast(weight.device.type, enabled=False):  # what is run is what is exported and certified
            seen = (inputs.transpose(0, 1).to(weight.dtype) - self.shift) / self.scale
            start = weight.new_zeros(inputs.shape[0], self.size) if state is None else state
            held, stage = torch.split(start, list(self.sizes), 1)
            history, weights = self.line.history(held, seen), self.stage()
            if not last:
                return torch.cat([self.line.states(history), self._staged(weights, history, stage, last=False)], 2)
            memory = self.memory(weights)
            first = 0 if memory is None else max(steps - memory, 0)
            begun = torch.zeros_like(stage) if first else stage
            found = self._staged(weights, history[:, :, first:], begun, last=True)
            return torch.cat([self.line.states(history[:, :, steps - 1 :])[0], found], 1)

    def _staged(self, weights: Tensor, history: Tensor, start: Tensor, *, last: bool) -> Tensor:
        """The states of the stage, or the last one: what drives it at each step is a convolution."""
        line = self.line
        taps = self.coupling.reshape(-1, line.length, line.features).flip(1).mT
        kernel = torch.cat([taps, self.input.weight[:, :, None]], 2)
        drive = nn.functional.conv1d(history, kernel, self.input.bias).permute(2, 0, 1)
        equation = Equation(False, self.activation, (Dense(),), (), self.keep)
        return run(equation, start, drive, drive.new_ones(start.shape[1]), [weights], [], last=last)

    @torch.no_grad()
    def system(self) -> System:
        """The network with its explicit weights: two maps with step 1, or two differential equations."""
        line, stage = (part.float().cpu().numpy() for part in self._made())
        step = STEP if self.guarantee == "euler" else None
        modules = {
            "m0": RateNetwork(line, activation="identity", step=step),
            "m1": RateNetwork(stage, activation=self.activation, step=step),
        }
        weights = tensor("m1<-m0", self.coupling.float().cpu().numpy())
        return System(modules, (Coupling("m1", "m0", weights, inside=True),))
