"""One small true certificate for every kind of proof, made by hand: no condition and no solver is involved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse
from certes.certificate import Certificate, build
from certes.proofs import (
    AbsoluteProof,
    ArrayProof,
    Claims,
    ConicBound,
    InstabilityWitness,
    LevelBound,
    LureBound,
    LureProof,
    NoMetricProof,
    NormBound,
    ProductProof,
    SingularProof,
    StepClaim,
    SwitchingWitness,
    SymmetricProof,
)
from certes.spec import SystemSpec
from certes.systems import System
from certes.weights import WeightFile, read_weights, to_bytes

N = 4


@dataclass(frozen=True)
class Case:
    """A weight file, the spec of its system, and a true certificate."""

    name: str
    weights: bytes
    spec: Mapping[str, Any]
    condition: str
    proof: ArrayProof
    claims: Claims
    verdict: Any = "contracting"

    @property
    def file(self) -> WeightFile:
        return read_weights(self.weights, name="net.safetensors")

    @property
    def system(self) -> System:
        system = SystemSpec.parse(self.spec).system(self.file)
        assert isinstance(system, System)
        return system

    @property
    def certificate(self) -> Certificate:
        return build(self.system, self.verdict, self.condition, 1, self.proof, self.claims)


def _file(**arrays: object) -> bytes:
    extra = {
        "readout.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "readout.bias": np.array([0.123, 4.5], np.float32),
    }
    return to_bytes({**arrays, **extra}, {"origin": "made for the tests"})


def _small(norm: float, dtype: Any = np.float64) -> Any:
    matrix = np.random.default_rng(7).normal(size=(N, N))
    return (matrix * (norm / np.linalg.norm(matrix, 2))).astype(dtype)


def _lure(q: float = 1.0, dual: bool = False, slack: float = 0.1) -> LureProof:
    return LureProof(np.eye(N), np.full(N, q), dual, 0.5, 2.0, slack, slack)


def _ones() -> AbsoluteProof:
    half, one = np.full(N, 0.5), np.ones(N, dtype=np.int64)
    return AbsoluteProof(half, one, half.copy(), one.copy())


def _rate(**more: Any) -> dict[str, Any]:
    return {"form": "rate", "tensors": {"W": "rec.weight"}, "activation": "tanh", **more}


def _lure_cases() -> list[Case]:
    full = Claims(
        rate=0.3,
        margin=1e-3,
        weight_radius=0.1,
        gain=7.0,
        metric_condition_log2=2.0,
        largest_step=StepClaim(0.5, 0.9, _lure(0.5, slack=0.0)),
    )
    single = _file(**{"rec.weight": _small(0.2, np.float32)})
    general = _file(a=-np.eye(N), b=_small(0.2, np.float16), c=np.eye(N, dtype=np.float32))
    per_neuron = {"form": "lure", "tensors": {"A": "a", "B": "b", "C": "c"}, "slope": [0.0, [1.0, 0.5, 1.0, 0.25]]}
    return [
        Case("lure-rate", single, _rate(), "lure", _lure(), full),
        Case(
            "lure-hopfield",
            single,
            _rate(form="hopfield"),
            "lure",
            _lure(dual=True),
            Claims(rate=0.3, margin=1e-3, weight_radius=0.1, gain=7.0, metric_condition_log2=2.0),
        ),
        Case("lure-map", single, _rate(step=0.5), "lure", _lure(0.5, slack=0.0), Claims(factor=0.9, margin=1e-3)),
        Case("lure-tau", single, _rate(tau=[1.0, 1.0, 1.5, 1.0]), "lure", _lure(), Claims(rate=0.2)),
        Case("lure-general", general, per_neuron, "lure", _lure(0.5, slack=0.0), Claims(rate=0.2)),
    ]


def _closed_cases() -> list[Case]:
    symmetric = _small(0.2)
    symmetric = symmetric + symmetric.T
    core = np.diag([2.0, 3.0, 4.0, 2.0]) + 0.25
    eigenvalues = np.linalg.eigvalsh(core)
    product = ProductProof(
        np.full(N, 0.5), core, np.ones(N), 1e-9, float(0.9 * eigenvalues[0]), float(1.1 * eigenvalues[-1])
    )
    sparse = scipy.sparse.random_array((N, N), density=0.4, rng=np.random.default_rng(1), data_sampler=None) * 0.1
    half = _file(**{"rec.weight": _small(0.5)})
    return [
        Case("absolute", _file(**{"rec.weight": _small(0.2)}), _rate(), "absolute", _ones(), Claims(rate=0.3)),
        Case(
            "absolute-map",
            _file(**{"rec.weight": _small(0.2)}),
            _rate(step=0.5),
            "absolute",
            _ones(),
            Claims(factor=0.9),
        ),
        Case("absolute-sparse", _file(**{"rec.weight": sparse}), _rate(), "absolute", _ones(), Claims(rate=0.5)),
        Case(
            "symmetric",
            _file(**{"rec.weight": symmetric}),
            _rate(),
            "symmetric",
            SymmetricProof(False),
            Claims(rate=0.5, margin=1e-3),
        ),
        Case("product", _file(**{"rec.weight": -0.5 * core}), _rate(), "product", product, Claims(rate=0.9)),
        Case(
            "singular",
            half,
            _rate(slope=[-1.0, 1.0], activation=None),
            "singular",
            SingularProof(np.ones(N), 0.6),
            Claims(rate=0.4),
        ),
        Case("singular-map", half, _rate(step=0.5), "singular", SingularProof(np.ones(N), 0.6), Claims(factor=0.85)),
    ]


def _witness_case() -> Case:
    first = np.eye(1, N)[0]
    weights = _file(**{"rec.weight": np.diag([2.0, 0.5, 0.5, 0.5])})
    witness = InstabilityWitness(
        points=np.zeros(N),
        slopes=np.ones(N),
        lyapunov=np.diag([-1.0, 1.0, 1.0, 1.0]),
        direction=first,
        growth=0.125,
        input=np.zeros(N),
        start=1e-3 * first,
        start_other=-1e-3 * first,
        horizon=5.0,
    )
    spec = _rate(activation=None, slope=[0.0, 1.0])
    return Case("witness", weights, spec, "instability", witness, Claims(), "not_contracting")


def _skew(w: float) -> Any:
    """Two blocks [[0, -w], [w, 0]]; the best rate of ``lure`` is 1 - w / 2."""
    return w * np.kron(np.eye(2), [[0.0, -1.0], [1.0, 0.0]])


def _conic(level: float) -> LevelBound:
    """The eigenvector (1, -i) of the first block, at the angle where i w turns towards 1."""
    column = np.array([[1.0], [0.0], [0.0], [0.0]]), np.array([[0.0], [-1.0], [0.0], [0.0]])
    return LevelBound(level, ConicBound(np.zeros(1), -np.ones(1), *column))


def _bound_cases() -> list[Case]:
    skew, half = _file(**{"rec.weight": _skew(0.2)}), _file(**{"rec.weight": _skew(0.5)})
    # x = (1, -i), v = t (1 + i) x in each block, real and imaginary parts as columns; t just below w / 2
    state, channel = np.kron(np.eye(2), np.diag([1.0, -1.0])), 0.0999 * np.kron(np.eye(2), [[1.0, 1.0], [1.0, -1.0]])
    columns = np.vstack([state, channel])
    general = _file(a=-np.eye(N), b=np.eye(N, dtype=np.float32), c=_skew(0.2))
    parts = {"form": "lure", "tensors": {"A": "a", "B": "b", "C": "c"}, "slope": [0.0, 1.0]}
    bounded = Claims(rate=0.3, bound=_conic(0.9 + 1e-9))
    norm = Claims(rate=0.4, bound=LevelBound(0.5 + 1e-9, NormBound(np.eye(N))))
    lure = Claims(rate=0.3, bound=LevelBound(0.901, LureBound(columns, False)))
    return [
        Case("lure-bound", skew, _rate(), "lure", _lure(), bounded),
        Case("lure-map-bound", skew, _rate(step=0.5), "lure", _lure(0.5), Claims(factor=0.9, bound=_conic(0.55))),
        Case("lure-general-bound", general, parts, "lure", _lure(), lure),
        Case(
            "singular-bound",
            half,
            _rate(slope=[-1.0, 1.0], activation=None),
            "singular",
            SingularProof(np.ones(N), 0.6),
            norm,
        ),
    ]


def _no_metric_case() -> Case:
    """Slopes (1, 0) and (0, 1) of a skew network: J_1 Z_1 + J_2 Z_2 + (.)^T = (2 w - 4) I for these columns."""
    weights = _file(**{"rec.weight": np.array([[0.0, -2.5], [2.5, 0.0]])})
    proof = NoMetricProof(np.eye(2), np.array([0, 1]), np.array([[1.0, 1.0], [-1.0, 1.0]]))
    return Case("no-metric", weights, _rate(), "no-quadratic-metric", proof, Claims(), "undecided")


def _switching_case() -> Case:
    """Slopes (1, 0), then (0, 1), each for a time t: M = e^-2t [[1, 0], [4t, 1]] [[1, -4t], [0, 1]]."""
    time = 0.9
    monodromy = np.exp(-2 * time) * np.array([[1.0, -4 * time], [4 * time, 1 - 16 * time**2]])
    values, right = np.linalg.eig(monodromy)
    left = np.linalg.inv(right)[np.argsort(-np.abs(values))]
    direction = right[:, np.argmax(np.abs(values))]
    # x' = -x while phi sees 0, then x' = 1/2 - x while it sees 1
    orbit = np.full(2, 0.5 / (1 + np.exp(-time)))
    witness = SwitchingWitness(
        points=np.array([[0.0, 0.0], [1.0, 1.0]]),
        slopes=np.eye(2),
        durations=np.full(2, time),
        ramp=0.0,
        lyapunov=np.outer(left[1], left[1]) - np.outer(left[0], left[0]),
        direction=direction,
        growth=1.5,
        largest_input=4.0,
        start=orbit + 1e-3 * direction,
        start_other=orbit - 1e-3 * direction,
        periods=6.0,
    )
    weights = _file(**{"rec.weight": np.array([[0.0, -4.0], [4.0, 0.0]])})
    spec = _rate(activation=None, slope=[0.0, 1.0])
    return Case("switching", weights, spec, "switching", witness, Claims(), "not_contracting")


@cache
def cases() -> dict[str, Case]:
    first = (*_lure_cases(), *_closed_cases(), _witness_case())
    return {case.name: case for case in (*first, *_bound_cases(), _no_metric_case(), _switching_case())}


NAMES = (
    "lure-rate",
    "lure-hopfield",
    "lure-map",
    "lure-tau",
    "lure-general",
    "absolute",
    "absolute-map",
    "absolute-sparse",
    "symmetric",
    "product",
    "singular",
    "singular-map",
    "witness",
    "lure-bound",
    "lure-map-bound",
    "lure-general-bound",
    "singular-bound",
    "no-metric",
    "switching",
)
