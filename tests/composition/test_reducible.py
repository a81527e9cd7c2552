"""Modules with triangular weights: their best multipliers run away, and such a metric is of no use to couplings."""

from __future__ import annotations

import certes
import numpy as np
import pytest
from certes.composition.compose import compose
from certes.composition.interfaces import Offered, offer


@pytest.mark.cases(2)
@pytest.mark.parametrize("form", [certes.RateNetwork, certes.HopfieldNetwork])
@pytest.mark.parametrize("step", [None, 1.0, 0.2])
def test_metrics_stay_usable(form: type[certes.RateNetwork | certes.HopfieldNetwork], step: float | None) -> None:
    rng = np.random.default_rng(0)
    W = np.tril(rng.standard_normal((8, 8)) / np.sqrt(8), -1) + 0.5 * np.diag(rng.uniform(-1, 1, 8))
    found = offer(form(W, activation="tanh", step=step))
    assert isinstance(found, Offered)
    assert np.linalg.cond(found.metric) < 1e8
    best = certes.certify(form(W, activation="tanh", step=step), "lure")
    if step is None:
        assert best.rate is not None
        assert found.proof.level >= 0.85 * best.rate
    else:
        assert best.factor is not None
        assert 1.0 - found.proof.level >= 0.85 * (1.0 - best.factor)


def test_weakly_coupled_they_compose() -> None:
    """Without it: strengths of 1e13, and undecided."""
    modules = {
        "eye": certes.RateNetwork([[0.2, 0.1], [0.0, 0.3]], activation="tanh"),
        "hand": certes.RateNetwork([[0.1]], activation="tanh"),
    }
    found = compose(modules, {("hand", "eye"): [[0.5, 0.0]], ("eye", "hand"): [[-0.25], [0.1]]}, mode="interface")
    assert found.verdict == "contracting"
    assert max(edge.strength for edge in found.edges) < 2.0
