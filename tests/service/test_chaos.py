"""Two hundred mixed jobs while workers are killed and the database restarts: each has one result, the right one.

The judge is the library, called here for the same networks, undisturbed.
"""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import certes
import httpx
import numpy as np
import pytest

from tests.service.asking import weights
from tests.service.postgres import Cluster
from tests.service.workers import Fleet, children, fleet

COUNT, SEED = 200, 6
RATE: dict[str, Any] = {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"}


def network(k: int, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    size = (2, 3, 5, 8, 13)[k % 5]
    return np.asarray(generator.standard_normal((size, size)) * (0.2 + 1.6 * (k % 7) / 6) / np.sqrt(size), np.float32)


def questions() -> list[dict[str, Any]]:
    """Path, spec, weights, and what the library says of them."""
    generator = np.random.default_rng(SEED)
    found = []
    for k in range(COUNT):
        W = network(k, generator)
        kind = ("certify", "certify", "project", "assembly", "certify")[k % 5]
        if kind == "assembly":
            small = W * (0.4 / max(float(np.linalg.norm(W, 2)), 0.1))
            parts = {"a": small, "b": small.T.copy(), "up": 0.05 * np.eye(len(W), dtype=np.float32)}
            modules = {name: {**RATE, "tensors": {"W": name}} for name in ("a", "b")}
            spec: dict[str, Any] = {"modules": modules, "couplings": [{"to": "b", "from": "a", "tensor": "up"}]}
            found.append({"path": "/v1/assemblies", "spec": spec, "weights": weights(**parts), "parts": parts})
        else:
            condition = ("absolute", "singular", "lure", "symmetric", "auto")[(k // 5) % 5]
            spec = {**RATE, "condition": "absolute" if kind == "project" else condition}
            path = "/v1/projections" if kind == "project" else "/v1/certificates"
            found.append({"path": path, "spec": spec, "weights": weights(W=W), "W": W})
    return found


def undisturbed(asked: dict[str, Any]) -> tuple[str, float | None]:
    """Verdict and rate, by the library."""
    if asked["path"] == "/v1/assemblies":
        parts = asked["parts"]
        modules = {name: certes.RateNetwork(parts[name], activation="tanh") for name in ("a", "b")}
        found = certes.compose(modules, {("b", "a"): parts["up"]})
        return found.verdict, found.rate
    system = certes.RateNetwork(asked["W"], activation="tanh")
    if asked["path"] == "/v1/projections":
        projected = certes.project(system, condition="absolute")
        return projected.result.verdict, None
    result = certes.certify(system, asked["spec"]["condition"])
    return result.verdict, result.rate


def disturb(made: Fleet, cluster: Cluster, over: threading.Event, done: list[str]) -> None:
    """Kill a worker now and then and start another; once, half-way, the database crashes and comes back."""
    chance = random.Random(SEED)
    restarted = False
    while not over.wait(chance.uniform(1.0, 3.0)):
        alive = [worker for worker in made.workers if worker.process.poll() is None]
        chance.choice(alive).kill()
        done.append("killed")
        if not restarted and len(done) == 4:
            cluster.restart("immediate")
            done.append("database")
            restarted = True
        made.start()


def post(http: httpx.Client, asked: dict[str, Any]) -> str:
    """Ask until it is a job: while the database is away the answer is 503, and nothing was taken."""
    files = {
        "spec": (None, json.dumps(asked["spec"]), "application/json"),
        "weights": ("net.safetensors", asked["weights"], "application/octet-stream"),
    }
    until = time.monotonic() + 120
    while time.monotonic() < until:
        response = http.post(asked["path"], files=files, headers={"Prefer": "respond-async"})
        if response.status_code == 202:
            return str(response.headers["location"])
        if response.status_code == 200:  # an equal question was answered already
            raise AssertionError("every question is asked once")
        assert response.status_code in (429, 503), response.text
        time.sleep(0.5)
    raise AssertionError("not taken within two minutes")


def fetched(http: httpx.Client, path: str) -> dict[str, Any] | None:
    try:
        response = http.get(path)
    except httpx.HTTPError:
        return None
    return dict(response.json()) if response.status_code == 200 else None


@pytest.mark.slow
def test_chaos(tmp_path: Path, postgres: Cluster) -> None:
    url = postgres.create_database()
    asked = questions()
    over, done = threading.Event(), list[str]()
    with fleet(tmp_path / "data", 3, database=url, queue=COUNT + 10) as made, made.client() as http:
        jobs = [post(http, question) for question in asked[: COUNT // 2]]
        chaos = threading.Thread(target=disturb, args=(made, postgres, over, done))
        chaos.start()
        try:
            jobs += [post(http, question) for question in asked[COUNT // 2 :]]
            assert len(set(jobs)) == COUNT
            waiting, answers = set(jobs), dict[str, dict[str, Any]]()
            until = time.monotonic() + 600
            while waiting and time.monotonic() < until:
                for job in list(waiting):
                    found = fetched(http, job)
                    if found is not None and found["finished"]:
                        answers[job] = found
                        waiting.discard(job)
                if len(done) > 12:
                    over.set()  # enough was killed: the rest may end in peace
                time.sleep(0.3)
        finally:
            over.set()
            chaos.join(60)
        assert not waiting, f"{len(waiting)} jobs have no outcome"
        assert "database" in done
        assert done.count("killed") >= 5
        # exactly one result each, and it does not change any more
        for job, question in zip(jobs, asked, strict=True):
            found = answers[job]
            assert found["state"] == "done", found["error"]
            verdict, rate = undisturbed(question)
            assert found["answer"]["verdict"] == verdict, question["spec"]
            if rate is not None:
                assert found["answer"]["rate"] == pytest.approx(rate, abs=1e-6)
            link = found["answer"]["certificate"]
            if link is not None:
                assert http.get(link["href"]).status_code == 200
                assert http.get(link["proof"]).status_code == 200
            assert http.get(job).json() == found
        listed = http.get("/v1/jobs?limit=200").json()
        assert len(listed["jobs"]) == COUNT
        assert listed["next"] is None
        assert max(found["attempt"] for found in answers.values()) > 1, "some of them were taken more than once"
        killed = [worker for worker in made.workers if worker.process.poll() is not None]
        assert not [pid for worker in killed for pid in children(worker.process.pid)]
    postgres.drop_database(url)
