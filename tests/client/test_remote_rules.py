"""When a client tries again, and what it reads of events: no socket, no clock."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import pytest
from certes.errors import InputError
from certes_client import BadAnswer, Client, Retry, ServiceError, Unreachable
from certes_client.remote import answers
from certes_client.remote.asking import checked_url
from certes_client.remote.calls import Broken, Call, Effect, Outcome, Pause, Reply, Send
from certes_client.remote.events import Event, Parser
from certes_client.remote.retry import retry_after, retryable
from certes_client.remote.talk import Talk
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 27, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("7", 7.0), (" 120 ", 120.0), ("1" * 30, math.inf), ("-1", None), ("1.5", None), ("soon", None),
        ("", None), (None, None), ("Fri, 27 Nov 2026 10:00:30 GMT", 30.0), ("Fri, 27 Nov 2026 09:00:00 GMT", 0.0),
        ("Friday, 27-Nov-26 10:01:00 GMT", 60.0), ("٣", None), ("Fri, 99 Nov 2026 10:00:30 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(text: str | None, seconds: float | None) -> None:
    assert retry_after(text, NOW) == seconds


def test_what_is_tried_again() -> None:
    for status in (429, 503):
        assert retryable(status, {}, True)
        assert retryable(status, {}, False)
    for status in (502, 504):
        assert retryable(status, {}, False)
        assert not retryable(status, {}, True), "the end of a job, told by the service"
    assert not retryable(503, {"content-location": "/v1/jobs/x"}, True), "so a job has ended"
    assert not any(retryable(status, {}, False) for status in (200, 301, 400, 401, 403, 404, 409, 413, 422, 500, 501))


@given(st.integers(1, 200), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 1e6))
def test_pauses_grow_to_a_limit_and_are_never_shorter_than_asked_for(
    tried: int, chance: float, asked: float | None
) -> None:
    retry = Retry()
    own, pause = min(retry.most, retry.first * 2.0 ** (tried - 1)), retry.pause(tried, asked, chance)
    if asked is None:
        assert own / 2 <= pause <= own
    else:
        assert asked <= pause <= asked + 1.0


def _run(
    steps: Generator[Effect, Outcome, Any], outcomes: list[Outcome], clock: list[float]
) -> tuple[list[Effect], Any]:
    """Drive a conversation by hand; what it wanted done, and its end."""
    done: list[Effect] = []
    outcome: Outcome = None
    try:
        while True:
            effect = steps.send(outcome)
            done.append(effect)
            if isinstance(effect, Pause):
                clock[0] += effect.seconds
                outcome = None
            else:
                outcome = outcomes.pop(0)
    except StopIteration as end:
        return done, end.value


def _talk(clock: list[float], **how: float) -> Talk:
    return Talk(Retry(**how), lambda: clock[0], lambda: 0.0)  # type: ignore[arg-type]


def test_a_call_is_tried_until_it_is_answered() -> None:
    clock = [0.0]
    outcomes: list[Outcome] = [
        Broken("reset"),
        Reply(429, {"retry-after": "7"}, b""),
        Reply(503, {}, b""),
        Reply(200, {}, b"ok"),
    ]
    done, reply = _run(_talk(clock).called(Call("GET", "/healthz")), outcomes, clock)
    assert reply.body == b"ok"
    assert [effect.seconds for effect in done if isinstance(effect, Pause)] == [0.125, 7.0, 0.5]


def test_a_call_is_given_up_after_so_many_attempts_with_the_last_answer() -> None:
    clock = [0.0]
    outcomes: list[Outcome] = [Reply(503, {}, b'{"detail": "full"}')] * 9
    with pytest.raises(ServiceError, match="full") as caught:
        _run(_talk(clock, attempts=3).called(Call("GET", "/healthz")), outcomes, clock)
    assert caught.value.status == 503
    assert len(outcomes) == 6


def test_nobody_waits_beyond_the_deadline_or_for_ever() -> None:
    for seconds, until in (("50", 40.0), ("9999999", None), ("1" * 40, None)):
        clock = [0.0]
        outcomes: list[Outcome] = [Reply(429, {"retry-after": seconds}, b"{}")] * 3
        with pytest.raises(ServiceError):
            _run(_talk(clock).called(Call("GET", "/healthz"), until), outcomes, clock)
        assert clock == [0.0], "it did not pause in vain"


def test_waiting_is_given_up_when_nobody_answers_for_long() -> None:
    clock = [0.0]
    steps = _talk(clock, patience=30.0).waited("a" * 32)
    with pytest.raises(Unreachable, match="cannot be reached"):
        _run(steps, [Broken("refused")] * 1000, clock)
    assert 30.0 < clock[0] < 60.0


def test_events_that_never_come_are_asked_for() -> None:
    """A proxy that swallows streams: after three that said nothing only the job itself is asked for."""
    clock = [0.0]
    running = {"id": "a" * 32, "state": "running"}
    one: list[Outcome] = [Reply(200, {}, b""), Reply(200, {"retry-after": "1"}, json.dumps(running).encode())]
    poll: list[Outcome] = [Reply(200, {"retry-after": "1"}, json.dumps(running).encode())]
    last: list[Outcome] = [Reply(200, {}, json.dumps(running | {"state": "done", "answer": {}}).encode())]
    done, job = _run(_talk(clock).waited("a" * 32), one * 3 + poll * 4 + last, clock)
    assert job.state == "done"
    asked = [effect.call.path for effect in done if isinstance(effect, Send)]
    assert sum(path.endswith("/events") for path in asked) == 3
    assert len(asked) == 3 + 3 + 4 + 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["state", "progress", "end", ""]),
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12),
        ),
        max_size=5,
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 400), max_size=8),
    st.booleans(),
)
def test_events_are_the_same_wherever_they_are_cut(
    events: list[tuple[str, str]], end: str, cuts: list[int], mark: bool
) -> None:
    text = "".join(f"event: {kind}{end}: a comment{end}data: {data}{end}{end}" for kind, data in events)
    data = (b"\xef\xbb\xbf" if mark else b"") + text.encode() + b": end\n"
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    parser = Parser()
    found = [event for a, b in itertools.pairwise(places) for event in parser.feed(data[a:b])]
    assert found == [Event(kind or "message", data, "") for kind, data in events]


def test_an_event_without_end_is_refused() -> None:
    parser = Parser(most=1000)
    with pytest.raises(BadAnswer):
        for _ in range(200):
            list(parser.feed(b"data: " + b"x" * 50 + b"\n"))


def test_ids_are_kept_and_half_an_event_is_none() -> None:
    parser = Parser()
    assert list(parser.feed(b"id: 7\ndata: a\ndata: b\n\ndata: half\n")) == [Event("message", "a\nb", "7")]
    assert parser.last_id == "7"


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://a", "http://", "file:///etc/passwd", "\n"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        checked_url(url)


@pytest.mark.parametrize("key", ["a b", "a\nb", "ä", "a\r\nX-Evil: 1"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(InputError) as caught:
        Client("http://127.0.0.1:1", key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("digest", ["../../jobs", "A" * 64, "a" * 63, None, 7, "a" * 64 + "\n"])
def test_what_is_no_digest_never_becomes_an_address(digest: object) -> None:
    with pytest.raises(BadAnswer):
        answers.digest(digest)
    with pytest.raises(BadAnswer):
        _ = answers.CertificateAnswer({"verdict": "contracting", "certificate": {"digest": digest}}).digest


@pytest.mark.parametrize(
    "raw", [{}, {"id": "../x", "state": "done"}, {"id": "a", "state": "odd"}, {"id": 1, "state": "done"}]
)
def test_what_is_no_job_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(BadAnswer):
        answers.Job.of(raw)
