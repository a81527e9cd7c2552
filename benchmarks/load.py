"""The service under load: requests per second and latencies, against a route that only echoes the upload.

Clients are processes of their own that keep their connections and speak HTTP/1.1 over plain sockets, so that neither a
client library nor the interpreter of the service is measured. The echo is a FastAPI application under uvicorn with the
settings of the service. Jobs per second count questions that are asked at once and solved by `certes worker`.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from certes.weights import to_bytes

from benchmarks.cluster import Cluster, binaries
from benchmarks.measure import Spread
from benchmarks.report import Row

SIZE, CLIENTS, SECONDS = 32, (1, 8, 32), 4.0
SPEC = {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh", "step": 0.2, "condition": "singular"}
JOBS = 60
#: The event loop is free while solvers work: a probe answers within this, in seconds.
HEALTH_AIM = 0.05

_ECHO = """
import socket, sys, uvicorn
from fastapi import FastAPI, Request, Response
app = FastAPI()
@app.post("/v1/certificates")
async def echo(request: Request) -> Response:
    form = await request.form()
    data = await form["weights"].read()
    await form.close()
    return Response(data, media_type="application/octet-stream")
# with the protocol named, as asyncio turns Nagle's algorithm off for such sockets only
sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
sock.bind(("127.0.0.1", 0))
print(f"http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
config = uvicorn.Config(app, http="h11", ws="none", access_log=False, log_level="warning")
uvicorn.Server(config).run(sockets=[sock])
"""


def rows(quick: bool) -> Iterator[Row]:
    """Cached and new certificates for 1, 8 and 32 clients; jobs per second; probes under load."""
    seconds, crowds = (0.3, (1, 2)) if quick else (SECONDS, CLIENTS)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = stack.enter_context(_served(folder, CERTES_QUEUE="1000"))
        echo = stack.enter_context(_process([sys.executable, "-c", _ECHO]))
        for kind in ("cached", "new"):
            for clients in crowds:
                ours = _load(service, clients, seconds, fresh=kind == "new")
                other = _load(echo, clients, seconds, fresh=kind == "new")
                yield _row(kind, clients, ours, other)
        yield _health(service, quick)
    yield from _jobs(quick)


def _row(kind: str, clients: int, ours: dict[str, Any], other: dict[str, Any]) -> Row:
    both = (("echo", other), ("Certes", ours))
    said = "; ".join(f"{name}: {found['rate']:.0f}/s, p99 {1e3 * found['p99']:.3g} ms" for name, found in both)
    ratio = other["rate"] / ours["rate"]
    return Row(
        f"HTTP under load, {kind} certificate", f"n = {SIZE}, {clients} clients", Spread.of([ratio]), "x",
        ours=_spread(ours), other=_spread(other), other_name=said, note={"certes": ours, "echo": other},
    )  # fmt: skip


def _spread(found: dict[str, Any]) -> Spread:
    return Spread(found["p50"], found["p25"], found["p75"], found["count"])


def _load(url: str, clients: int, seconds: float, *, fresh: bool) -> dict[str, Any]:
    """Requests per second, and quantiles of the time of one."""
    half = max(1, clients // 2)
    crowds = [half, clients - half] if clients > 1 else [1]
    command = [sys.executable, "-m", "benchmarks.load_client", url, str(seconds), "fresh" if fresh else "same"]
    running = [
        subprocess.Popen([*command, str(crowd), str(k)], stdout=subprocess.PIPE, text=True)
        for k, crowd in enumerate(crowds)
    ]
    times: list[float] = []
    for process in running:
        text = process.communicate()[0]
        if process.returncode:
            raise RuntimeError("a client of the load failed")
        times += json.loads(text)
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {
        "rate": len(times) / seconds, "p25": cuts[24], "p50": cuts[49], "p75": cuts[74], "p99": cuts[98],
        "count": len(times),
    }  # fmt: skip


def _health(url: str, quick: bool) -> Row:
    """The 99th percentile of a probe while both cores solve."""
    generator = np.random.default_rng(1)
    with httpx.Client(base_url=url, timeout=60.0) as http:
        jobs = []
        for _ in range(2):
            W = 0.6 * generator.standard_normal((60, 60)) / np.sqrt(60)
            spec = {**SPEC, "condition": "lure", "backend": "cvxpy-scs", "seconds": 20.0}
            asked = http.post(
                "/v1/certificates", json={"spec": spec, "tensors": {"W": W.tolist()}},
                headers={"Prefer": "respond-async"},
            )  # fmt: skip
            jobs.append(asked.headers["location"])
        time.sleep(0.2 if quick else 2.0)
        times = []
        for _ in range(20 if quick else 1000):
            began = time.perf_counter()
            http.get("/healthz").raise_for_status()
            times.append(time.perf_counter() - began)
            time.sleep(0.002)
        for job in jobs:
            http.delete(job)
    late = statistics.quantiles(times, n=100, method="inclusive")[98]
    aim = None if quick else HEALTH_AIM
    return Row(
        "p99 of /healthz while both cores solve", f"{len(times)} probes", Spread.of([late]), "s", aim,
        because="solvers and the service share two cores", note={"median": statistics.median(times)},
    )  # fmt: skip


def _jobs(quick: bool) -> Iterator[Row]:
    """Jobs per second through each database, with one worker and with two."""
    programs = binaries()
    with contextlib.ExitStack() as stack:
        databases: dict[str, Cluster | None] = {"SQLite": None}
        if programs is not None:
            cluster = Cluster(programs, durable=True)
            stack.callback(cluster.close)
            databases["PostgreSQL"] = cluster
        for name, server in databases.items():
            for workers in (1,) if quick else (1, 2):
                url = None if server is None else server.create_database()
                yield _throughput(name, url, workers, 4 if quick else JOBS)


def _throughput(name: str, url: str | None, workers: int, count: int) -> Row:
    settings = {"CERTES_WORKER": "false", "CERTES_SOLVERS": "1", "CERTES_POLL_SECONDS": "0.1", "CERTES_QUEUE": "1000"}
    settings |= {} if url is None else {"CERTES_DATABASE": url}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        service = stack.enter_context(_served(Path(folder), **settings))
        for _ in range(workers):
            stack.enter_context(
                _process([*_CERTES, "worker", "--queue", "solve"], _environment(Path(folder), **settings))
            )
        with httpx.Client(base_url=service, timeout=60.0) as http:
            began = time.perf_counter()
            threads = [threading.Thread(target=_ask, args=(service, k, count)) for k in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            while http.get("/v1/jobs?state=queued,running&limit=1").json()["jobs"]:
                time.sleep(0.05)
            seconds = time.perf_counter() - began
            done = len(http.get("/v1/jobs?state=done&limit=200").json()["jobs"])
    if done != count:
        raise RuntimeError(f"{done} of {count} jobs are done")
    return Row(
        f"jobs per second, {name}", f"{count} new certificates, n = {SIZE}, workers: {workers}",
        Spread.of([count / seconds]), "",
    )  # fmt: skip


def _ask(url: str, part: int, count: int) -> None:
    with httpx.Client(base_url=url, timeout=60.0) as http:
        for k in range(part, count, 4):
            W = np.random.default_rng(1000 + k).standard_normal((SIZE, SIZE)).astype(np.float32)
            data = to_bytes({"W": W * np.float32(0.5 / np.linalg.norm(W, 2))})
            files: dict[str, Any] = {
                "spec": (None, json.dumps(SPEC), "application/json"),
                "weights": ("w.safetensors", data),
            }
            asked = http.post("/v1/certificates", files=files, headers={"Prefer": "respond-async"})
            if asked.status_code != 202:
                raise RuntimeError(asked.text)


_CERTES = [sys.executable, "-m", "certes_client"]


def _environment(folder: Path, **settings: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("CERTES_")}
    return own | {"CERTES_DATA": str(folder), "CERTES_PORT": "0", "OPENBLAS_NUM_THREADS": "1"} | settings


@contextlib.contextmanager
def _served(folder: Path, **settings: str) -> Iterator[str]:
    with _process([*_CERTES, "serve"], _environment(folder, **settings)) as line:
        yield line.rpartition(" ")[2]


@contextlib.contextmanager
def _process(command: list[str], env: dict[str, str] | None = None) -> Iterator[str]:
    """A process, and the line that it says when it is ready."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            raise RuntimeError("a process did not start")
        yield line
    finally:
        process.terminate()
        process.wait(timeout=60)
        if process.stdout is not None:
            process.stdout.close()
