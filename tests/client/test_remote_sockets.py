"""The client over real sockets, against a server that answers late, half, again and again, or not at all."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from certes_client import AsyncClient, Client, Job, ServiceError, TimedOut, Unreachable

from tests.client.scripted import (
    JOB,
    QUICK,
    Answer,
    Asked,
    event,
    half,
    job,
    problem,
    reset,
    says,
    scripted,
    stream,
)

SPEC = {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"}
OK = {"status": "ok", "version": "1"}
DONE = {"verdict": "undecided", "reason": "margin", "detail": "", "certificate": None}


def _client(url: str, **how: Any) -> Client:
    return Client(url, how.pop("timeout", 20.0), retry=how.pop("retry", QUICK), **how)


@pytest.mark.parametrize("trouble", [problem(503, "busy"), reset, half, says(b"<html>", 502, "text/html")])
def test_trouble_passes(trouble: Answer) -> None:
    with scripted([trouble, trouble, says(OK)]) as server, _client(server.url) as client:
        assert client.health().status == "ok"
        assert len(server.asked) == 3


def test_retry_after_is_waited_for() -> None:
    with scripted([problem(429, "crowded", Retry_After="1"), says(OK)]) as server, _client(server.url) as client:
        client.health()
        first, second = server.asked
        assert second.at - first.at >= 1.0


@pytest.mark.parametrize(
    ("status", "slug"), [(400, "malformed-json"), (401, "key-refused"), (422, "x"), (500, "internal")]
)
def test_what_will_not_change_is_not_tried_again(status: int, slug: str) -> None:
    with scripted([problem(status, slug)]) as server, _client(server.url) as client:
        with pytest.raises(ServiceError) as caught:
            client.health()
        assert (caught.value.status, caught.value.slug) == (status, slug)
        assert len(server.asked) == 1


def test_nobody_there_is_said() -> None:
    with scripted([says(OK)]) as server:
        url = server.url
    with _client(url) as client, pytest.raises(Unreachable, match="4 attempts"):
        client.health()


def test_a_slow_answer_ends_at_the_deadline() -> None:
    def slow(handler: Any, _: Asked) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)

    begun = time.monotonic()
    with scripted([slow]) as server, _client(server.url, timeout=0.5) as client, pytest.raises(TimedOut):
        client.health()
    assert time.monotonic() - begun < 3.0


def test_a_question_sent_again_has_the_same_idempotency_key() -> None:
    with scripted([reset, problem(503, "busy"), half, says(DONE)]) as server, _client(server.url) as client:
        assert client.certify(SPEC, b"bytes").verdict == "undecided"
        keys = {asked.headers["idempotency-key"] for asked in server.asked}
        assert len(server.asked) == 4
        assert len(keys) == 1
        client.certify(SPEC, b"bytes")
        assert server.asked[-1].headers["idempotency-key"] not in keys, "another question has another"
        client.certify(SPEC, b"bytes", key="mine")
        assert server.asked[-1].headers["idempotency-key"] == "mine"


def test_the_key_travels_and_no_redirect_takes_it_elsewhere() -> None:
    with scripted([says(OK)]) as other, scripted([says(b"", 302, Location=other.url)]) as server:
        with _client(server.url, key="secret") as client, pytest.raises(ServiceError):
            client.health()
        assert server.asked[0].headers["authorization"] == "Bearer secret"
        assert other.asked == []


def _script(events: list[Answer], polls: list[Answer]) -> Any:
    """A job that is accepted, followed and asked for."""

    def answer(asked: Asked) -> Answer:
        if asked.method == "POST":
            return says(job("queued"), 202, Location=f"/v1/jobs/{JOB}")
        left = events if asked.path.endswith("/events") else polls
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


def test_a_wait_goes_on_after_its_stream_broke_and_tells_nothing_twice() -> None:
    told: list[Job] = []
    first = stream(
        event("state", job("running"), "41"),
        event("progress", job("running", message="a"), "42"),
        then=reset,
        pause=0.1,
    )
    second = stream(event("state", job("running", message="a"), "43"), event("end", job("done", DONE), "44"))
    with scripted(_script([first, second], [says(job("running", message="a"))])) as server:
        with _client(server.url) as client:
            assert client.certify(SPEC, b"w", progress=told.append).verdict == "undecided"
        streams = [asked.headers.get("last-event-id") for asked in server.asked if asked.path.endswith("/events")]
    assert streams == [None, "42"]
    states = [(entry.state, entry.progress.message if entry.progress else None) for entry in told]
    assert states == [("running", None), ("running", "a"), ("done", None)]


@pytest.mark.parametrize(
    "events",
    [
        problem(503, "busy"),
        reset,
        half,
        says(b"", 404, "text/html"),
        stream(b": nothing\n\n"),
        says(b"x", 406, "text/plain"),
    ],
)
def test_where_events_do_not_work_the_job_is_asked_for(events: Answer) -> None:
    polls = [says(job("queued")), reset, problem(503, "busy"), says(job("running")), says(job("done", DONE))]
    with scripted(_script([events], polls)) as server, _client(server.url) as client:
        assert client.certify(SPEC, b"w").verdict == "undecided"


def test_how_a_job_ends_is_told_as_the_call_would_have_told_it() -> None:
    error = {"type": "urn:certes:error:too-large", "status": 413, "detail": "too many", "limit": 7}
    for end, status in ((job("failed", error=error), 413), (job("cancelled"), 409)):
        with scripted(_script([stream(event("end", end))], [says(end)])) as server, _client(server.url) as client:
            with pytest.raises(ServiceError) as caught:
                client.certify(SPEC, b"w")
            assert caught.value.status == status


def test_a_wait_that_takes_too_long_says_which_job_goes_on() -> None:
    script = _script([stream(event("state", job("running")))], [says(job("running"))])
    with scripted(script) as server, _client(server.url, timeout=0.4) as client, pytest.raises(TimedOut) as caught:
        client.certify(SPEC, b"w")
    assert caught.value.job == JOB


def test_events_come_as_they_happen() -> None:
    pieces = [
        event("state", job("running")),
        event("progress", job("running", message="a")),
        event("end", job("done", DONE)),
    ]
    script = _script([stream(*pieces, pause=0.2)], [says(job("running"))])
    with scripted(script) as server, _client(server.url) as client:
        times = [(entry.state, time.monotonic()) for entry in client.jobs.events(JOB)]
        assert [state for state, _ in times] == ["running", "running", "done"]
        assert times[2][1] - times[0][1] > 0.3

        async def follow() -> list[str]:
            async with AsyncClient(server.url, retry=QUICK) as other:
                return [entry.state async for entry in other.jobs.events(JOB)]

        assert asyncio.run(follow()) == ["running", "running", "done"]


def test_a_file_is_sent_and_fetched_without_being_held(tmp_path: Path) -> None:
    size = 48 * 2**20
    file, copy = tmp_path / "large.safetensors", tmp_path / "copy.safetensors"
    with file.open("wb") as stream_:
        stream_.truncate(size)
    digest = "a" * 64

    def large(handler: Any, _: Asked) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        for _ in range(size // 2**16):
            handler.wfile.write(b"\0" * 2**16)

    with scripted([says(DONE)]) as server, _client(server.url) as client:
        server.keep_bodies = False
        tracemalloc.start()
        client.certify(SPEC, file)
        server.script = [half, large]  # the second half of the first attempt never came
        client.save_weights(digest, copy)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert server.received > size
    assert peak < 4 * 2**20, "the whole file was in memory"
    assert copy.stat().st_size == size
    assert sorted(tmp_path.iterdir()) == [copy, file], "nothing half is left"


def test_a_file_that_never_comes_whole_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"before")
    with scripted([half]) as server, _client(server.url) as client, pytest.raises(Unreachable):
        client.save_weights("a" * 64, tmp_path / "w")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"before"]


def test_the_async_client_retries_and_uploads_as_the_other(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"x" * 200_000)

    async def ask(url: str) -> str:
        async with AsyncClient(url, retry=QUICK) as client:
            assert (await client.health()).status == "ok"
            return (await client.certify(SPEC, file, priority=3)).verdict

    with scripted([reset, says(OK), half, problem(503, "busy"), says(DONE)]) as server:
        assert asyncio.run(ask(server.url)) == "undecided"
        bodies = [asked.body for asked in server.asked if asked.method == "POST"]
    assert len(bodies) == 3
    assert all(
        b"x" * 200_000 in body and b'filename="w.safetensors"' in body and b'name="priority"' in body for body in bodies
    )
    assert json.dumps(SPEC).encode() in bodies[0]
