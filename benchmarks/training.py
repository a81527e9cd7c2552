"""One step of training an assembly (forward, backward, update): time, and memory beyond what was there before it.

Every contender trains in a process of its own. The loop over dense matrices is written as the published codes do it:
the coupling L = B - M^-1 B^T M is formed anew in every time step, and autograd records everything; hoisting it out of
the loop is a contender of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from certes.nn.assembly import Assembly
from certes.nn.stable import Singular
from torch import Tensor, nn

from benchmarks import child
from benchmarks.measure import Spread
from benchmarks.report import Row

#: batch, T, modules, states of each, couplings, steps that are timed.
FULL = ((128, 784, 16, 32, 20, 3), (32, 100, 4, 8, 3, 15))
QUICK = ((4, 6, 3, 4, 2, 1),)
#: Aims: times faster than the published loop, at most this share of its memory, no slower per state than an LSTM.
FASTER, SHARE, PER_STATE = 5.0, 0.25, 1.0
_OTHERS = {
    "published": "dense loop, coupling formed in every step",
    "hoisted": "dense loop, coupling formed once",
    "lstm": "torch.nn.LSTM(128)",
}
LSTM = 128


class Published(nn.Module):
    """The loop of the published codes: dense matrices, autograd, the coupling skew in a diagonal metric."""

    inside: Tensor
    between: Tensor

    def __init__(self, modules: int, size: int, couplings: int, hoisted: bool) -> None:
        super().__init__()
        n = modules * size
        self.size, self.hoisted, self.step = n, hoisted, 0.1
        self.weights = nn.Parameter(torch.randn(n, n) / n**0.5 * 0.3)
        self.free = nn.Parameter(torch.randn(n, n) / n**0.5 * 0.1)
        self.metric = nn.Parameter(torch.zeros(n))
        inside, between = torch.zeros(n, n), torch.zeros(n, n)
        for k in range(modules):
            inside[k * size : (k + 1) * size, k * size : (k + 1) * size] = 1.0
        pairs = [(i, j) for j in range(modules) for i in range(j)][:couplings]
        for i, j in pairs:
            between[i * size : (i + 1) * size, j * size : (j + 1) * size] = 1.0
        self.register_buffer("inside", inside)
        self.register_buffer("between", between)
        self.input, self.readout = nn.Linear(1, n), nn.Linear(n, 10)

    def coupling(self) -> Tensor:
        """L = B - M^-1 B^T M."""
        metric = torch.diag(torch.exp(self.metric))
        b = self.free * self.between
        return b - torch.diag(torch.exp(-self.metric)) @ b.mT @ metric

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        x = inputs.new_zeros(len(inputs), self.size)
        weights, coupling = self.weights * self.inside, self.coupling()
        for k in range(inputs.shape[1]):
            if not self.hoisted:
                weights, coupling = self.weights * self.inside, self.coupling()
            field = -x + torch.relu(x) @ weights.mT + x @ coupling.mT + self.input(inputs[:, k])
            x = x + self.step * field
        found: Tensor = self.readout(x)
        return found


class Recurrent(nn.Module):
    """An LSTM with a readout of its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.readout = nn.LSTM(1, LSTM, batch_first=True), nn.Linear(LSTM, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        found: Tensor = self.readout(self.cell(inputs)[0][:, -1])
        return found


class Ours(nn.Module):
    """An assembly of Certes, certified for its Euler map whatever the step does."""

    def __init__(self, modules: int, size: int, couplings: int, keep: int) -> None:
        super().__init__()
        parts = [Singular(size, 0.5) for _ in range(modules)]
        self.net = Assembly(
            1, parts, 10, activation="relu", topology="random", couplings=couplings, step=0.1, keep=keep
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        found: Tensor = self.net(inputs)[0]
        return found


def rows(quick: bool) -> Iterator[Row]:
    """Ratios to every other contender, of time and of memory, for both sizes."""
    for batch, steps, modules, size, couplings, rounds in QUICK if quick else FULL:
        label = f"batch {batch}, T = {steps}, {modules}x{size}, {couplings} couplings, 2 threads"
        given = (batch, steps, modules, size, couplings, rounds)
        names = ("ours", "sparing", "lstm", "published", "hoisted")
        found = {name: child.run("training", name, *given, threads=2) for name in names}
        yield from _rows(label, found, modules * size, quick)


def _rows(label: str, found: dict[str, Any], states: int, quick: bool) -> Iterator[Row]:
    seconds = {name: Spread.of(entry["seconds"]) for name, entry in found.items()}
    memory = {name: max(entry["memory"], 1) for name, entry in found.items()}
    ours = seconds["ours"]

    def ratio(name: str) -> Spread:
        other = seconds[name]
        return Spread(other.median / ours.median, other.low / ours.high, other.high / ours.low, ours.count)

    for name in ("published", "hoisted"):
        aim = FASTER if name == "published" and not quick else None
        because = "a step of so few states is the time of its calls"
        yield Row("training step", label, ratio(name), "times faster", aim, ours, seconds[name], _OTHERS[name], because)
    share = seconds["ours"].median / states / (seconds["lstm"].median / LSTM)
    yield Row(
        "training step, time per state", label, Spread.of([share]), "x", None if quick else PER_STATE, ours,
        seconds["lstm"], _OTHERS["lstm"], "a step of so few states is the time of its calls; an LSTM of torch is one",
    )  # fmt: skip
    for name, word in (("ours", ""), ("sparing", ", keep 0")):
        for other in ("published", "lstm"):
            aim = SHARE if name == "ours" and other == "published" and not quick else None
            value = Spread.of([memory[name] / memory[other]])
            said = f"{_OTHERS[other]}: {memory[other] / 1e9:.3g} GB; Certes: {memory[name] / 1e9:.3g} GB"
            yield Row(
                f"training step, peak memory{word}", label, value, "x", aim, other_name=said,
                because="every state is kept; keep 0 keeps fewer",
            )  # fmt: skip
    slower = Spread.of([seconds["sparing"].median / ours.median])
    yield Row("training step, keep 0 over keep 1", label, slower, "x", None, seconds["sparing"], ours, "keep 1")


def main() -> None:
    """Train a few steps; print seconds of each, and the peak of memory beyond what was resident before."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    for entry in ("batch", "steps", "modules", "size", "couplings", "rounds"):
        parser.add_argument(entry, type=int)
    given = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    shape = (given.modules, given.size, given.couplings)
    made: dict[str, Any] = {
        "ours": lambda: Ours(*shape, keep=1),
        "sparing": lambda: Ours(*shape, keep=0),
        "published": lambda: Published(*shape, hoisted=False),
        "hoisted": lambda: Published(*shape, hoisted=True),
        "lstm": Recurrent,
    }
    model: nn.Module = made[given.name]()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs, labels = torch.randn(given.batch, given.steps, 1), torch.randint(0, 10, (given.batch,))

    def step(inputs: Tensor, labels: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    step(inputs[:, :2], labels)  # what is loaded on first use is not counted
    child.forget_peak()
    before, seconds = child.resident(), []
    for _ in range(given.rounds):
        began = time.perf_counter()
        step(inputs, labels)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds, "memory": child.peak() - before, "median": statistics.median(seconds)}))


if __name__ == "__main__":
    main()
