"""The clients against the service itself, a process on a real socket: every call, kill and restart, many waits."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
from certes.weights import to_bytes
from certes_client import AsyncClient, Client, Job, RemoteError, ServiceError

from tests.client.cutting import cutting
from tests.client.scripted import QUICK
from tests.service.asking import SMALL, SPEC, UNSTABLE, weights
from tests.service.conftest import CERTES, Running, environment, running, settings_file

TRAINING: dict[str, Any] = {
    "architecture": {"modules": [2, 2], "step": 0.5},
    "plan": {"epochs": 2, "batch": 8, "seed": 1},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("remote") / "data") as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Client]:
    with Client(server.url) as found:
        yield found


def _sequences() -> bytes:
    random = np.random.default_rng(0)
    labels = random.integers(2, size=32)
    inputs = random.standard_normal((32, 6, 2)) + labels[:, None, None]
    return to_bytes({"inputs": inputs.astype(np.float32), "labels": labels})


def test_certify_and_what_belongs_to_a_certificate(client: Client) -> None:
    assert client.health().version == certes.__version__
    found = client.certify(SPEC, weights())
    assert (found.verdict, found.condition, found["verdict"]) == ("contracting", "absolute", "contracting")
    assert found.digest is not None
    certificate = client.certificate(found.digest)
    assert certificate.document == client.envelope(found.digest) == found.envelope
    assert certes.verify(certificate, weights()).verdict == "contracting"
    assert b"<svg" in client.figure(found.digest, "dark")
    assert client.certify(SPEC, weights()).cached
    refuted = client.certify(SPEC | {"condition": "auto"}, weights(W=UNSTABLE))
    assert refuted.verdict == "not_contracting"
    assert refuted.digest is not None
    assert certes.verify(client.certificate(refuted.digest), weights(W=UNSTABLE)).verdict == "not_contracting"


def test_verify_says_what_the_verifier_here_says(client: Client) -> None:
    digest = client.certify(SPEC, weights()).digest
    assert digest is not None
    parts = client.envelope(digest), client.proof(digest)
    for data in (weights(), weights(W=[[0.2, -0.5], [0.4, 0.2]])):
        here, there = certes.verify(client.certificate(digest), data), client.verify(*parts, data)
        assert there.report == here
        assert there.valid == here.valid


def test_project_and_compose(client: Client, tmp_path: Path) -> None:
    projected = client.project(SPEC, weights(W=UNSTABLE), "net.safetensors")
    assert projected.verdict == "contracting"
    assert projected.distance is not None
    assert projected.distance > 0
    assert projected.digest is not None
    file = client.save_weights(projected.digest, tmp_path / "new.safetensors")
    assert certes.verify(client.certificate(projected.digest), file).valid

    modules = {name: {"form": "rate", "tensors": {"W": name}, "activation": "tanh"} for name in ("a", "b")}
    couplings = [{"to": "a", "from": "b", "tensor": "L"}]
    tensors = weights(a=SMALL, b=[[0.1]], L=[[0.1], [0.0]])
    composed = client.compose({"modules": modules, "couplings": couplings}, tensors)
    assert composed.verdict == "contracting"
    assert composed.documents[-1] == composed.digest


@pytest.mark.slow
def test_train(client: Client) -> None:
    told: list[Job] = []
    trained = client.train(TRAINING, _sequences(), "data.safetensors", progress=told.append)
    assert trained.verdict == "contracting"
    assert len(trained.curve) == 2
    assert {"running", "done"} <= {job.state for job in told}


def test_a_problem_of_the_service_is_told(client: Client) -> None:
    with pytest.raises(ServiceError) as caught:
        client.certify(SPEC | {"form": "odd"}, weights())
    assert caught.value.status == 422
    assert caught.value.problem["field"] == "spec.form"
    with pytest.raises(ServiceError) as caught:
        client.jobs.wait("f" * 32)
    assert (caught.value.status, caught.value.slug) == (404, "unknown-job")


def test_the_same_key_is_one_job(client: Client) -> None:
    begun = [client.jobs.begin("/v1/certificates", SPEC, weights(W=[[0.25]]), key="once") for _ in range(3)]
    names = {found.id for found in begun if isinstance(found, Job)}
    assert len(names) == 1
    (name,) = names
    assert client.jobs.wait(name).outcome["verdict"] == "contracting"
    assert client.jobs.get(name).state == "done"
    assert sum(job.id == name for job in client.jobs.list()) == 1


WHOLE, PART = re.compile(rb"id: (\w+)\ndata: .*\n\n"), re.compile(rb"event: (?!end)\w+\nid: \w+\ndata: {")
END = re.compile(rb"event: end\nid: \w+\ndata: {")


@pytest.mark.slow
def test_a_wait_over_a_bad_network_is_told_everything_once(server: Running) -> None:
    """Streams that break between events, inside one, and inside the end, which is that of a job that is cancelled."""
    told: list[Job] = []
    with cutting(server.url, [WHOLE, WHOLE, PART, END]) as proxy, Client(proxy.url, retry=QUICK) as client:
        found = client.jobs.begin("/v1/trainings", _long(), _sequences(), "data.safetensors")
        assert isinstance(found, Job)

        def tell(job: Job) -> None:
            told.append(job)
            if len(proxy.resumed) == 4 and job.state == "running":
                _cancel(server.url, job.id)

        ended = client.jobs.wait(found.id, timeout=90, progress=tell)
    assert ended.state == "cancelled"
    with pytest.raises(ServiceError):
        _ = ended.outcome
    whole = [[name.decode() for name in WHOLE.findall(stream)] for stream in proxy.broken]
    names = [name for stream in whole for name in stream]
    assert len(proxy.broken) == len(proxy.resumed) == 4
    assert len(set(names)) == len(names), "no event came twice"
    assert proxy.resumed[:3] == [None, whole[0][-1], whole[1][-1]], "each goes on where the one before broke"
    assert proxy.resumed[3] == [*whole[1], *whole[2]][-1], "what came in part is asked for again"
    assert len({job.told for job in told}) == len(told)
    assert [job.ended for job in told] == [False] * (len(told) - 1) + [True]


def _cancel(url: str, job: str) -> None:
    with Client(url) as other:
        other.jobs.cancel(job)


def _long(epochs: int = 5000) -> dict[str, Any]:
    return TRAINING | {"plan": {"epochs": epochs, "batch": 4, "seed": 2, "patience": epochs}}


class _Mortal:
    """A service that can be killed, and started again on the same port with the same data."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = {"port": self.port, "lease_seconds": 3.0, "beat_seconds": 0.5, "grace_seconds": 1.0}
        self.file, self.log = settings_file(folder / "data", **settings), folder / "log"
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*CERTES, "serve"], stdout=log, stderr=log, env=environment(CERTES_CONFIG=str(self.file))
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[_Mortal]:
    found = _Mortal(tmp_path)
    found.start()
    try:
        yield found
    finally:
        found.end()


@pytest.mark.slow
def test_a_wait_goes_on_over_the_death_of_the_service(mortal: _Mortal) -> None:
    """Killed without warning in the middle of a training, and started again: the same wait has the answer."""
    states: list[tuple[str, Any]] = []
    with Client(mortal.url, timeout=300.0) as client:
        for _ in range(20):  # it starts while it is asked already
            try:
                client.health()
                break
            except RemoteError:
                time.sleep(0.5)

        def murder() -> None:
            deadline = time.monotonic() + 60
            while not any(state == "running" for state, _ in states) and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(1.5)
            mortal.kill()
            time.sleep(2.0)
            mortal.start()

        thread = threading.Thread(target=murder)
        thread.start()
        spec = _long(60)
        answer = client.train(
            spec, _sequences(), "data.safetensors", progress=lambda job: states.append((job.state, job["attempt"]))
        )
        thread.join()
        assert answer.verdict == "contracting"
        assert len(answer.curve) == 60
        assert len(client.jobs.list()) == 1, "it was asked once"
    assert states[-1] == ("done", 2), "a second worker went on with what the first had begun"


@pytest.mark.slow
def test_a_hundred_wait_at_once(server: Running) -> None:
    async def ask(client: AsyncClient, k: int) -> tuple[str, str | None]:
        data = weights(W=[[0.1 + 0.001 * k, 0.2], [0.0, 0.3]])
        found = await client.certify(SPEC, data, progress=lambda _: None)
        assert found.digest is not None
        certificate = await client.certificate(found.digest)
        assert certes.verify(certificate, data).valid, "each has the answer to its own question"
        return found.verdict, found.digest

    async def all_of_them() -> list[tuple[str, str | None]]:
        async with AsyncClient(server.url, timeout=300.0) as client:
            return await asyncio.gather(*(ask(client, k) for k in range(100)))

    answers = asyncio.run(all_of_them())
    assert [verdict for verdict, _ in answers] == ["contracting"] * 100
    assert len({digest for _, digest in answers}) == 100
