"""One certificate over HTTP against calling the library for the same network.

A real socket on loopback, one client that keeps its connection, the weights sent with each request as a safetensors
file. ``cached``: the service has answered this question before. ``new``: every request asks about weights that it has
not seen, so that the difference to the library is what HTTP, parsing and storing cost.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import certes
import numpy as np
from certes_client.client import Client
from numpy.typing import NDArray
from safetensors.numpy import save

from benchmarks.measure import Contender, race
from benchmarks.report import Row

#: n and rounds.
FULL, QUICK = (64, 15), (8, 2)
CONDITION = "singular"
STEP = 0.2

_SERVE = """
import sys
from pathlib import Path
from certes_service.server import run
from certes_service.settings import Settings
run(Settings(data=Path(sys.argv[1]), port=0), lambda url: print(url, flush=True))
"""


def rows(quick: bool) -> Iterator[Row]:
    """A cached question, then new ones."""
    size, rounds = QUICK if quick else FULL
    weights = _weights(size, 0)
    label = f"n = {size}, condition {CONDITION}"
    fresh = itertools.count(1)
    with _service() as client:
        library = Contender("certes.certify", _certify, lambda: (weights,))
        cached = Contender("POST, cached", lambda given: _post(client, given), lambda: (weights,))
        yield Row.of_race("HTTP certificate of a cached network", label, race(cached, [library], rounds))
        new = Contender("POST, new", lambda given: _post(client, given), lambda: (_weights(size, next(fresh)),))
        library = Contender("certes.certify", _certify, lambda: (_weights(size, next(fresh)),))
        yield Row.of_race("HTTP certificate of a new network", label, race(new, [library], rounds))


def _weights(size: int, seed: int) -> NDArray[np.float32]:
    weights = np.random.default_rng(seed).standard_normal((size, size))
    return (weights * (0.7 / np.linalg.norm(weights, 2))).astype(np.float32)


def _certify(weights: NDArray[np.float32]) -> None:
    result = certes.certify(certes.RateNetwork(weights, activation="tanh", step=STEP), CONDITION)
    if result.verdict != "contracting":
        raise AssertionError(result.detail)


def _post(client: Client, weights: NDArray[np.float32]) -> None:
    spec = {
        "form": "rate",
        "tensors": {"W": "W"},
        "activation": "tanh",
        "step": STEP,
        "condition": CONDITION,
    }
    answer = client.certify(spec, save({"W": weights}))
    if answer["verdict"] != "contracting":
        raise AssertionError(answer["detail"])


@contextlib.contextmanager
def _service() -> Iterator[Client]:
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, folder], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the service did not start")
            with Client(url) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
