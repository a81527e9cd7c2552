"""Solver processes under attack: whatever a question does, it harms itself alone, and its process is gone."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from certes_service.questions.base import Attachment, Limits
from certes_service.solving.pool import Pool, SolverCrashed, SolverKilled, Stopped
from certes_service.solving.process import checkpoint_of, progress_of
from certes_service.solving.protocol import MAGIC, Decoder, GarbledError, Message, error_of, solved_of
from certes_service.solving.task import Task
from hypothesis import given
from hypothesis import strategies as st

PROBES = str(Path(__file__).with_name("probes.py"))
MEMORY = 512 * 2**20
SECRETS = {
    "CERTES_SIGNING_KEY": "secret",
    "CERTES_SIGNING_KEY_FILE": "/secret",
    "CERTES_DATABASE": "postgresql://user:secret@nowhere/x",
    "CERTES_BLOB_OPTIONS": '{"secret": "secret"}',
    "PGPASSWORD": "secret",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "LD_PRELOAD": "",
    "PYTHONSTARTUP": "/secret",
}


def probe(what: str, *, kind: str = "probe", weights: bytes = b"", **given: Any) -> Task:
    return Task(kind, {"what": what, **given}, weights, "probe", Limits(1, 1))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        made = Pool(2, MEMORY, kinds=PROBES, late=0.5)
        yield made
        made.close()


@pytest.fixture(autouse=True)
def in_order(pool: Pool) -> Iterator[None]:
    """After each test the pool does its next task, with all of its processes."""
    yield
    if not pool._closed:
        assert pool.run(probe("nothing"), seconds=30).answer["pid"]
        until(lambda: pool.free == pool.size)


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


class Told:
    """The process ids that a task tells in its checkpoint."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def __call__(self, data: bytes) -> None:
        self.pids += json.loads(data)

    def check_gone(self) -> None:
        assert self.pids
        until(lambda: all(map(gone, self.pids)))


def test_surroundings(pool: Pool) -> None:
    seen = pool.run(probe("surroundings"), seconds=30).answer
    assert not set(SECRETS) & set(seen["environment"])
    assert "secret" not in json.dumps(seen["environment"])
    assert not [name for name in seen["environment"] if name.startswith(("CERTES_", "AWS_", "PG"))]
    assert seen["group"] == seen["session"] == seen["pid"]
    assert seen["cwd"] == "/"
    assert seen["nice"] >= 10
    limits = seen["limits"]
    assert limits["CORE"] == limits["FSIZE"] == 0
    assert limits["NOFILE"] == 64
    assert MEMORY < limits["AS"] < MEMORY + 16 * 2**30
    assert seen["open"] < 10, "it inherited descriptors"
    assert not {"sqlalchemy", "fastapi", "dbos"} & set(seen["modules"])


def test_a_training_is_limited_otherwise_and_its_process_is_not_used_again(pool: Pool) -> None:
    seen = pool.run(probe("surroundings", kind="training-probe"), seconds=30).answer
    assert seen["limits"]["AS"] == seen["limits"]["FSIZE"] == -1
    until(lambda: gone(seen["pid"]))


def test_processes_are_used_again(pool: Pool) -> None:
    until(lambda: pool.free == pool.size)
    pids = {pool.run(probe("nothing"), seconds=30).answer["pid"] for _ in range(6)}
    assert len(pids) <= pool.size


@pytest.mark.parametrize("what", ["sleep", "stuck"])
def test_a_time_limit_kills_the_whole_group(pool: Pool, what: str) -> None:
    told = Told()
    answer = pool.run(probe(what), seconds=1.0, on_checkpoint=told).answer
    assert answer["reason"] == "deadline"
    told.check_gone()


@pytest.mark.parametrize("what", ["sleep", "stuck"])
def test_cancelling_takes_less_than_two_seconds(pool: Pool, what: str) -> None:
    """The fastest of some tries: another process may have the machine."""
    best = 100.0
    for _ in range(5):
        told, asked = Told(), [0.0]

        def watch(told: Told = told, asked: list[float] = asked) -> str | None:
            if told.pids and not asked[0]:
                asked[0] = time.monotonic()
            return "cancelled" if told.pids else None

        with pytest.raises(Stopped) as stopped:
            pool.run(probe(what), seconds=60, watch=watch, on_checkpoint=told)
        assert stopped.value.reason == "cancelled"
        told.check_gone()
        best = min(best, time.monotonic() - asked[0])
        if best < 2.0:
            break
    assert best < 2.0


def test_a_task_that_waits_can_be_cancelled(pool: Pool) -> None:
    told = [Told(), Told()]
    over = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        running = [
            threads.submit(
                pool.run, probe("sleep"), seconds=60, watch=lambda: "over" if over.is_set() else None, on_checkpoint=t
            )
            for t in told
        ]
        until(lambda: all(entry.pids for entry in told))
        assert pool.free == 0
        begin = time.monotonic()
        with pytest.raises(Stopped):
            pool.run(
                probe("nothing"), seconds=60, watch=lambda: "cancelled" if time.monotonic() > begin + 0.5 else None
            )
        over.set()
        for entry in running:
            with pytest.raises(Stopped):
                entry.result(20)


@pytest.mark.parametrize(
    "task", [probe("memory", bytes=2 * 2**30), probe("creeping", most=3 * 2**30)], ids=["at once", "creeping"]
)
def test_a_memory_limit(pool: Pool, task: Task) -> None:
    answer = pool.run(task, seconds=60).answer
    assert answer["reason"] == "memory"
    assert str(MEMORY) in answer["detail"]
    assert pool.run(probe("memory", bytes=MEMORY // 4), seconds=60).answer["length"] == MEMORY // 4


@pytest.mark.slow
def test_a_training_is_held_to_its_memory_by_being_watched() -> None:
    own = Pool(1, 64 * 2**20, kinds=PROBES)
    try:
        assert (
            own.run(probe("creeping", kind="training-probe", most=3 * 2**30), seconds=60).answer["reason"] == "memory"
        )
    finally:
        own.close()


SLOWLY = [pytest.param(what, marks=pytest.mark.slow) for what in ("exit", "fault", "deep")]


@pytest.mark.parametrize("what", ["leave", "fail", *SLOWLY])
def test_a_crash_is_no_answer(pool: Pool, what: str) -> None:
    with pytest.raises(SolverCrashed):
        pool.run(probe(what), seconds=30)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_from_outside_is_neither_memory_nor_a_defect(pool: Pool, number: int) -> None:
    with pytest.raises(SolverKilled, match=f"signal {number:d} .*not send; it used [1-9]") as killed:
        pool.run(probe("killed", signal=number), seconds=30)
    assert killed.value.number == number
    assert killed.value.used > 2**24


def test_a_fork_that_holds_the_pipe_open_hides_no_death(pool: Pool) -> None:
    begin = time.monotonic()
    with pytest.raises(SolverCrashed, match="status 4"):
        pool.run(probe("orphan"), seconds=300)
    assert time.monotonic() - begin < 60


def test_files(pool: Pool) -> None:
    seen = pool.run(probe("files"), seconds=30).answer
    assert "written" not in seen
    assert seen["opened"] < 64


def test_what_a_library_prints_is_no_answer(pool: Pool) -> None:
    assert pool.run(probe("prints"), seconds=30).answer["pid"]


def framed(header: bytes) -> bytes:
    return MAGIC + len(header).to_bytes(4, "little") + header


GARBLED = {
    "noise": b"hello\n" * 10,
    "no JSON": framed(b"{["),
    "no object": framed(b"[]"),
    "no blobs": framed(b'{"type":"solved"}'),
    "huge header": MAGIC + b"\xff\xff\xff\xff",
    "huge blob": framed(b'{"type":"solved","blobs":[["x",99999999999999]]}'),
    "negative blob": framed(b'{"type":"solved","blobs":[["x",9],["y",-9]]}'),
    "no answer": framed(
        b'{"type":"solved","answer":[],"root":null,"documents":[],"proofs":[],"assembly":false,"blobs":[]}'
    ),
    "half an answer": framed(b'{"type":"solved","answer":{},"root":"0","blobs":[]}'),
    "no progress": framed(b'{"type":"progress","progress":3,"blobs":[]}'),
    "no checkpoint": framed(b'{"type":"checkpoint","blobs":[]}'),
    "no error": framed(b'{"type":"refused","blobs":[]}'),
    "another message": framed(b'{"type":"something","blobs":[]}'),
}


READ = {"solved": solved_of, "refused": error_of, "progress": progress_of, "checkpoint": checkpoint_of}


@pytest.mark.parametrize("name", sorted(set(GARBLED) - {"another message"}))
def test_garbled_output_is_no_message(name: str) -> None:
    with pytest.raises(GarbledError):
        for message in Decoder(2**30).feed(GARBLED[name]):
            READ[message.type](message)


@pytest.mark.parametrize("name", ["noise", "half an answer", "no progress", "another message"])
def test_a_process_that_writes_garbled_output_is_ended(pool: Pool, name: str) -> None:
    told = Told()
    with pytest.raises(SolverCrashed):
        pool.run(probe("raw", bytes=GARBLED[name].hex(), seconds=5.0), seconds=30, on_checkpoint=told)
    told.check_gone()


def test_an_answer_that_comes_before_its_question_is_refused(pool: Pool) -> None:
    """A second answer to the question before, of somebody else."""
    forged = b"".join(Message({"type": "solved", "answer": {"forged": True}, "root": None, "documents": [],
                               "proofs": [], "assembly": False, "lasting": True}).chunks())  # fmt: skip
    own = Pool(1, MEMORY, kinds=PROBES)
    try:
        # the answer itself is the forged one: a process may lie about its own question
        assert own.run(probe("raw", bytes=forged.hex()), seconds=30).answer == {"forged": True}
        # its true answer is still in the pipe, and must not become that of the next question
        with pytest.raises(SolverCrashed, match="before it began"):
            own.run(probe("nothing"), seconds=30)
        assert own.run(probe("nothing"), seconds=30).answer["pid"]
    finally:
        own.close()


def test_progress_and_checkpoints(pool: Pool) -> None:
    progress: list[dict[str, Any]] = []
    checkpoints: list[bytes] = []
    pool.run(probe("chatter"), seconds=30, on_progress=progress.append, on_checkpoint=checkpoints.append)
    assert checkpoints == [b"%d" % k * 10_000 for k in range(0, 300, 30)]
    assert 1 <= len(progress) < 30, "a few reports a second"
    fractions = [entry["fraction"] for entry in progress]
    assert fractions == sorted(fractions)
    assert progress[0]["phase"] == "counting"


def test_nothing_is_told_of_a_task_that_has_ended(pool: Pool) -> None:
    heard: list[Any] = []
    for _ in range(pool.size):
        pool.run(probe("late_voice"), seconds=30)
    for _ in range(10):
        time.sleep(0.03)
        pool.run(probe("nothing"), seconds=30, on_progress=heard.append, on_checkpoint=heard.append)
    assert heard == []


@pytest.mark.parametrize("callback", ["on_progress", "on_checkpoint"])
def test_an_error_while_it_is_told_ends_the_task(pool: Pool, callback: str) -> None:
    def refuse(_: object) -> None:
        raise LookupError("not mine any more")

    options: dict[str, Any] = {callback: refuse}
    with pytest.raises(LookupError):
        pool.run(probe("chatter"), seconds=30, **options)


def test_huge_questions_and_answers_do_not_lock_the_pipes(pool: Pool) -> None:
    weights, envelope, proof = bytes(64 * 2**20), b"e" * 5_000_000, b"p" * 3_000_000
    attached = {"0" * 64: Attachment(envelope, proof)}
    task = Task("probe", {"what": "size"}, weights, "x", Limits(1, 1), attached, b"r" * 1_000_000)
    seen = pool.run(task, seconds=60).answer
    assert seen["weights"] == len(weights)
    assert seen["resume"] == 1_000_000
    assert seen["attached"] == {"0" * 64: [len(envelope), len(proof)]}
    assert len(pool.run(probe("large", length=30_000_000), seconds=60).answer["text"]) == 30_000_000


def test_many_threads_get_their_own_answers(pool: Pool) -> None:
    rng = random.Random(5)

    def ask(k: int) -> bool:
        if k % 12 == 0:
            with pytest.raises(SolverCrashed):
                pool.run(probe(rng.choice(["leave", "fault", "fail"])), seconds=60)
            return True
        return bool(pool.run(probe("echo", weights=b"%d" % k * 1000), seconds=60).answer["echo"] == str(k) * 1000)

    with ThreadPoolExecutor(24) as threads:
        assert all(threads.map(ask, range(60)))


def test_a_process_that_died_while_it_was_idle_costs_no_task(pool: Pool) -> None:
    until(lambda: pool.free == pool.size)
    for pid in [process.pid for process in pool._all]:
        os.kill(pid, signal.SIGKILL)
    assert pool.run(probe("nothing"), seconds=30).answer["pid"]


def test_closing_while_tasks_run_and_wait() -> None:
    own = Pool(1, MEMORY, kinds=PROBES)
    told = Told()
    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(own.run, probe("sleep"), seconds=60, on_checkpoint=told) for _ in range(4)]
        until(lambda: told.pids)
        own.close()
        for entry in running:
            with pytest.raises(Stopped) as stopped:
                entry.result(20)
            assert stopped.value.reason == "shutdown"
    told.check_gone()
    assert not own._all
    own.close()
    with pytest.raises(Stopped):
        own.run(probe("nothing"), seconds=1)
    assert own.free == 0


def test_closing_while_processes_start() -> None:
    for _ in range(3):
        own = Pool(2, MEMORY, kinds=PROBES)
        own.close()
        assert not own._all


PARENT = """
import os, sys, threading, time
from certes_service.questions.base import Limits
from certes_service.solving.pool import Pool
from certes_service.solving.task import Task

pool = Pool(2, 2**29, kinds=sys.argv[1])
def told(data):
    print(*[process.pid for process in pool._all], flush=True)
pool.run(Task("probe", {"what": "stuck"}, b"", "x", Limits(1, 1)), seconds=600, on_checkpoint=told)
"""


def test_solvers_die_with_their_parent() -> None:
    """Idle or stuck in C code, even if the parent is killed and can clean nothing up."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, PROBES], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert pids
    assert not any(map(gone, pids))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: all(map(gone, pids)))


@given(
    messages=st.lists(
        st.tuples(
            st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=9)), max_size=3),
            st.dictionaries(st.text(max_size=5), st.binary(max_size=40), max_size=3),
        ),
        max_size=4,
    ),
    cut=st.integers(1, 30),
)
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages: list[Any], cut: int) -> None:
    sent = [Message({"type": "x", **header} | {"blobs": None}, blobs) for header, blobs in messages]
    data = b"".join(chunk for message in sent for chunk in message.chunks())
    decoder = Decoder()
    found = [message for k in range(0, len(data), cut) for message in decoder.feed(data[k : k + cut])]
    assert [(message.header | {"blobs": None}, dict(message.blobs)) for message in found] == [
        (message.header, dict(message.blobs)) for message in sent
    ]


@given(data=st.binary(max_size=200))
def test_noise_is_no_message(data: bytes) -> None:
    with contextlib.suppress(GarbledError):
        assert all(isinstance(message, Message) for message in Decoder(1000).feed(data))
