"""The readout is the optimum of its convex problem, by torch's own gradient."""

from __future__ import annotations

import numpy as np
import torch
from certes.nn.readout import refit
from torch.nn import functional

RNG = np.random.default_rng(0)
STATES = RNG.standard_normal((300, 4)) * 0.2
LABELS = (STATES @ RNG.standard_normal((4, 3)) + 0.1 * RNG.standard_normal((300, 3))).argmax(axis=1).astype(np.int64)
START = (RNG.standard_normal((3, 4)), RNG.standard_normal(3))


def loss(V: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    states = torch.from_numpy(STATES)
    ridge = 0.5e-4 * states.square().mean() * V.square().sum()
    return functional.cross_entropy(states @ V.T + v, torch.from_numpy(LABELS)) + ridge


def test_the_gradient_vanishes_at_the_optimum() -> None:
    V, v = (torch.from_numpy(part).requires_grad_() for part in refit(STATES, LABELS, *START))
    loss(V, v).backward()  # type: ignore[no-untyped-call]
    assert V.grad is not None
    assert v.grad is not None
    assert float(V.grad.norm() + v.grad.norm()) < 1e-4
    other = [torch.from_numpy(part) for part in refit(STATES, LABELS, 0 * START[0], 0 * START[1])]
    assert abs(float(loss(*other)) - float(loss(V, v).detach())) < 1e-5  # one optimum, whatever the start


def test_a_bias_that_is_not_there_does_not_move() -> None:
    V, v = refit(STATES, LABELS, START[0], np.zeros(3), bias=False)
    assert not v.any()
    assert float(loss(torch.from_numpy(V), torch.zeros(3, dtype=torch.float64))) < float(
        loss(torch.from_numpy(START[0]), torch.zeros(3, dtype=torch.float64))
    )


def test_degenerate_states() -> None:
    for states in (np.zeros((5, 4)), np.full((5, 4), 1e30), np.full((5, 4), 1e-30)):
        V, v = refit(states, np.zeros(5, np.int64), *START)
        assert np.isfinite(V).all()
        assert np.isfinite(v).all()
    V, v = refit(np.full((5, 4), np.nan), np.zeros(5, np.int64), *START)
    np.testing.assert_array_equal(V, START[0])


def test_labels_of_one_class_are_learnt() -> None:
    V, v = refit(STATES, np.full(300, 2), *START)
    assert ((STATES @ V.T + v).argmax(axis=1) == 2).all()
