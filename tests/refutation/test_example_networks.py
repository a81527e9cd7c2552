"""The four unstable networks of examples/models get a verified no, replayed here without Certes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from certes.proofs import InstabilityWitness
from certes.refutation import refute
from certes.simulation import input_in_range, replay
from certes.systems import HopfieldNetwork, RateNetwork
from certes.verify.instability import verify_instability
from safetensors.numpy import load_file

from tests.refutation import plain

MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"


@dataclass(frozen=True)
class Example:
    name: str
    weights: str
    inputs: str
    biases: tuple[str, ...]
    activation: str
    step: float


_TORCH = ("rnn.weight_hh_l0", "rnn.weight_ih_l0", ("rnn.bias_ih_l0", "rnn.bias_hh_l0"))
_LEAKY = ("rec.weight", "inp.weight", ("inp.bias",))
EXAMPLES = (
    Example("mnist-rnn-tanh-64", *_TORCH, "tanh", 1.0),
    Example("mnist-rnn-relu-32", *_TORCH, "relu", 1.0),
    Example("mnist-leaky-tanh-128", *_LEAKY, "tanh", 0.2),
    Example("mnist-leaky-relu-256", *_LEAKY, "relu", 0.1),
)


def system_of(example: Example) -> RateNetwork:
    stored = load_file(MODELS / f"{example.name}.safetensors")
    bias = sum(stored[name].astype(np.float64) for name in example.biases)
    return RateNetwork(
        stored[example.weights],
        example.activation,
        step=example.step,
        input_matrix=stored[example.inputs],
        bias=bias,
    )


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda example: example.name)
def refuted(request: pytest.FixtureRequest) -> tuple[Example, RateNetwork, InstabilityWitness]:
    system = system_of(request.param)
    witness = refute(system)
    assert witness is not None
    return request.param, system, witness


def test_the_no_is_rigorous(refuted):
    _, system, witness = refuted
    report = verify_instability(system, witness)
    assert report.verdict == "not_contracting", report.detail


def test_the_jacobian_is_unstable_by_plain_eigenvalues(refuted):
    example, system, witness = refuted
    slopes = plain.slope(example.activation, witness.points)
    a = example.step
    jacobian = (1 - a) * np.eye(system.size) + a * slopes[:, None] * system.matrix("W")
    assert plain.leading(jacobian, continuous=False) > witness.growth + 1e-3 > 1.0


def test_the_input_holds_an_equilibrium(refuted):
    example, system, witness = refuted
    x = (witness.start + witness.start_other) / 2
    W = system.matrix("W")
    assert np.abs(plain.field("rate", W, example.activation, x, witness.input)).max() < 1e-13
    assert np.abs(W @ x + witness.input - witness.points).max() < 1e-12


def test_the_two_starts_part_in_plain_loops(refuted):
    example, system, witness = refuted
    W, u, a = system.matrix("W"), witness.input, example.step

    def step(x):
        return x + a * plain.field("rate", W, example.activation, x, u)

    assert np.linalg.norm(witness.start - witness.start_other) < 1e-4
    ends = [plain.run_map(step, start, int(witness.horizon)) for start in (witness.start, witness.start_other)]
    ratio = plain.parted(*ends, witness.start, witness.start_other)
    assert ratio >= 10.0
    assert ratio == pytest.approx(replay(system, witness).ratio, rel=1e-3)
    # not a matter of 1e-6: three times as long, and they are plainly apart
    far = [plain.run_map(step, start, 3 * int(witness.horizon)) for start in (witness.start, witness.start_other)]
    assert np.linalg.norm(far[0] - far[1]) > 1e-2


def test_the_two_starts_part_in_torch(refuted):
    example, system, witness = refuted
    n, steps = system.size, int(witness.horizon)
    cell = torch.nn.RNN(n, n, nonlinearity=example.activation, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_hh_l0.copy_(torch.from_numpy(system.matrix("W").copy()))
        cell.weight_ih_l0.copy_(torch.eye(n, dtype=torch.float64))
        cell.bias_ih_l0.zero_()
        cell.bias_hh_l0.copy_(torch.from_numpy(witness.input.copy()))
        pair = torch.from_numpy(np.stack([witness.start, witness.start_other]))
        silence = torch.zeros(2, 1, n, dtype=torch.float64)
        for _ in range(steps):
            new, _ = cell(silence, pair[None])
            pair = (1 - example.step) * pair + example.step * new[:, 0]
    first, second = pair.numpy()
    assert plain.parted(first, second, witness.start, witness.start_other) >= 10.0


def test_input_range_is_reported(refuted):
    _, system, witness = refuted
    found = input_in_range(system, witness)
    target = witness.input - system.bias
    q, _ = np.linalg.qr(system.input_matrix)  # the judge: projection by QR instead of least squares
    residual = np.linalg.norm(target - q @ (q.T @ target))
    assert found.residual == pytest.approx(residual, rel=1e-6)
    assert found.relative == pytest.approx(residual / np.linalg.norm(target), rel=1e-6)
    assert found.size == pytest.approx(np.linalg.norm(witness.input))
    assert found.reachable is False  # 28 pixels cannot hold 32 or more neurons at will


def test_the_same_weights_are_refuted_in_every_time_domain_and_form(refuted):
    example, system, _ = refuted
    for form in (RateNetwork, HopfieldNetwork):
        for step in (None, example.step):
            variant = form(system.matrix("W"), example.activation, step=step)
            witness = refute(variant)
            assert witness is not None
            assert verify_instability(variant, witness).verdict == "not_contracting"
