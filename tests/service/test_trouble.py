"""When things go wrong inside: damage, full disk, crashes, too much to do. Never a wrong answer, always a problem."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certes_service.questions import certificates

from tests.service.asking import SMALL, assert_problem, post_file, weights
from tests.service.conftest import Running

Serve = Callable[..., Running]


def _blobs(data: Path) -> list[Path]:
    return [path for path in (data / "blobs").rglob("*") if path.is_file()]


def test_damaged_blob_is_never_handed_out(serve: Serve) -> None:
    server = serve()
    with server.client() as http:
        link = post_file(http, weights()).json()["certificate"]
        for blob in _blobs(server.data):
            blob.write_bytes(blob.read_bytes()[:-1] + b"?")
        assert_problem(http.get(link["href"]), 503, "storage")
        assert_problem(http.get(link["proof"]), 503, "storage")
        again = post_file(http, weights()).json()
        assert again["certificate"]["digest"] == link["digest"], "asked anew, and the store is whole again"
        assert again["cached"] is False
        assert http.get(link["href"]).status_code == 200


def test_swapped_record_is_never_handed_out(serve: Serve) -> None:
    """The record of one certificate under the name of another: every file is intact, and yet it is the wrong one."""
    server = serve()
    with server.client() as http:
        one, two = (post_file(http, weights(W=np.array(SMALL) * k)).json()["certificate"]["digest"] for k in (1, 0.5))
        records = server.data / "certificates"
        (records / one[:2] / one).write_bytes((records / two[:2] / two).read_bytes())
        assert_problem(http.get(f"/v1/certificates/{one}"), 503, "storage")


def test_full_disk(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with server.client() as http:
        monkeypatch.setattr("certes_service.store.os.replace", full)
        response = post_file(http, weights())
        problem = assert_problem(response, 503, "storage")
        assert "No space left" in problem["detail"]
        assert response.headers["retry-after"]
        monkeypatch.undo()
        assert [p for p in server.data.rglob("*") if p.is_file()] == []
        assert post_file(http, weights()).json()["verdict"] == "contracting"


def test_crash_is_a_500_without_insides(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("secret path /root/x")

    monkeypatch.setattr(certificates, "certify", crash)
    with serve().client() as http:
        response = post_file(http, weights())
        assert_problem(response, 500, "internal")
        assert "secret" not in response.text
        assert http.get("/healthz").status_code == 200


def test_an_answer_about_other_weights_is_none(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever mixes two questions up: no certificate leaves the service as the answer to the wrong one."""
    real = certificates.CertificateQuestion.solve

    def mixed_up(question: Any, context: Any) -> Any:
        return real(replace(question, weights=weights(W=np.array(SMALL) * 0.5)), context)

    monkeypatch.setattr(certificates.CertificateQuestion, "solve", mixed_up)
    server = serve()
    with server.client() as http:
        assert_problem(post_file(http, weights()), 500, "internal")
        assert _blobs(server.data) == []


@contextmanager
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """certify that waits until the block is left; the semaphore counts those that have begun."""
    gate, begun, real = threading.Event(), threading.Semaphore(0), certificates.certify

    def waiting(*args: Any, **options: Any) -> Any:
        begun.release()
        assert gate.wait(30)
        return real(*args, **options)

    monkeypatch.setattr(certificates, "certify", waiting)
    try:
        yield begun
    finally:
        gate.set()


def test_health_answers_while_everything_is_busy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(solvers=1, queue=1)
    with server.client() as http, ThreadPoolExecutor(2) as pool:
        with blocked(monkeypatch) as begun:
            asked = [pool.submit(post_file, http, weights(W=np.array(SMALL) * k)) for k in (0.5, 0.6)]
            assert begun.acquire(timeout=20)
            begin = time.monotonic()
            assert http.get("/healthz").status_code == 200
            assert time.monotonic() - begin < 5
            deadline = time.monotonic() + 20
            while server.app.state.desk.waiting < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            refused = post_file(http, weights(W=np.array(SMALL) * 0.7))
            assert_problem(refused, 503, "busy")
            assert refused.headers["retry-after"]
        assert [answer.result().json()["verdict"] for answer in asked] == ["contracting", "contracting"]
        assert post_file(http, weights(W=np.array(SMALL) * 0.7)).status_code == 200


@pytest.mark.slow
def test_real_solve_does_not_block(serve: Serve) -> None:
    """A real solve holds the interpreter now and then; health still answers."""
    rng = np.random.default_rng(3)
    data = weights(W=0.6 * rng.standard_normal((20, 20)) / np.sqrt(20))
    spec = {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh", "step": 0.2, "condition": "lure"}
    with serve().client() as http, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(post_file, http, data, spec)
        worst = 0.0
        while not asked.done():
            begin = time.monotonic()
            assert http.get("/healthz").status_code == 200
            worst = max(worst, time.monotonic() - begin)
        assert asked.result().json()["verdict"] == "contracting"
        assert worst < 2.0
