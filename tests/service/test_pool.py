"""Questions in solver processes of their own: the same answers, nothing worth stealing, ended when they must."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from certes.errors import InputError
from certes.weights import to_bytes
from certes_service.questions import assemblies, certificates, projections
from certes_service.questions.base import Question
from certes_service.questions.kinds import by_name, rebuild
from certes_service.questions.signing import finished
from certes_service.questions.verifications import VerificationQuestion
from certes_service.samples_assembly import ASSEMBLY_REQUEST
from certes_service.samples_projection import INTERCONNECTION_REQUEST, PROJECTION_REQUEST
from certes_service.settings import Settings
from certes_service.solving.pool import Pool, SolverCrashed, Stopped
from certes_service.solving.task import Task

from tests.service.asking import SMALL, SPEC, weights

SETTINGS = Settings()


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool(1, 4 * 2**30)
    yield made
    made.close()


def _of(request: dict[str, Any], make: Any) -> Question:
    import numpy as np

    data = to_bytes({name: np.asarray(value, dtype=float) for name, value in request["tensors"].items()})
    made: Question = make(request["spec"], data, "net.safetensors")
    return made


QUESTIONS = {
    "certificate": lambda: certificates.question(dict(SPEC), weights(), "net.safetensors"),
    "projection": lambda: _of(PROJECTION_REQUEST, projections.question),
    "interconnection": lambda: _of(INTERCONNECTION_REQUEST, projections.question),
    "assembly": lambda: _of(ASSEMBLY_REQUEST, assemblies.question),
}


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_question_comes_through_the_pipe_and_back(pool: Pool, kind: str) -> None:
    question = QUESTIONS[kind]()
    assert question.kind == kind
    assert by_name(kind) is type(question)
    parts = json.loads(json.dumps(question.parts()))
    again = rebuild(kind, parts, question.weights, question.name)
    assert again.digest(SETTINGS) == question.digest(SETTINGS)
    again.check(SETTINGS)
    solved = pool.run(Task.asking(again, SETTINGS), seconds=60)
    assert solved.answer["verdict"] == "contracting"
    made = finished(solved, None)
    assert made.envelope is not None
    assert made.documents[-1].digest == solved.root == made.answer["certificate"]["digest"]
    spent = question.undecided("deadline", "x")
    assert (spent.answer["verdict"], spent.root) == ("undecided", None)
    assert set(finished(spent, None).answer) == set(made.answer)


def test_verification_in_a_solver(pool: Pool) -> None:
    solved = pool.run(Task.asking(QUESTIONS["certificate"](), SETTINGS), seconds=60)
    assert solved.root is not None
    envelope, proof = solved.documents[solved.root], next(iter(solved.proofs.values()))
    asked = VerificationQuestion(weights(), "w", None, False, envelope, proof)
    assert pool.run(Task.asking(asked, SETTINGS), seconds=60).answer["valid"]
    other = VerificationQuestion(weights(W=[[0.1, 0.0], [0.0, 0.1]]), "w", None, False, envelope, proof)
    assert not pool.run(Task.asking(other, SETTINGS), seconds=60).answer["valid"]


def test_what_a_solver_says_is_not_believed(pool: Pool) -> None:
    solved = pool.run(Task.asking(QUESTIONS["certificate"](), SETTINGS), seconds=60)
    assert solved.root is not None
    proof = next(iter(solved.proofs))
    wrong = [
        replace(solved, answer=solved.answer | {"verdict": "not_contracting"}),
        replace(solved, root="0" * 64),
        replace(solved, documents={"0" * 64: solved.documents[solved.root]}),
        replace(solved, documents={solved.root: b"{}"}),
        replace(solved, proofs={}),
        replace(solved, proofs={proof: b"other"}),
    ]
    for told in wrong:
        with pytest.raises(SolverCrashed):
            finished(told, None)


def test_errors_come_back_as_they_are(pool: Pool) -> None:
    asked = certificates.question({**SPEC, "condition": "symmetric"}, weights(V=SMALL), "net.safetensors")
    with pytest.raises(InputError) as here:
        asked.check(SETTINGS)
    with pytest.raises(InputError) as there:
        pool.run(Task.asking(asked, SETTINGS), seconds=60)
    assert str(here.value) == str(there.value)


KINDS = """
import json, os, subprocess, sys, time
from certes_service.questions.base import Solved

class Probe:
    kind = "probe"
    def __init__(self, parts):
        self.what = parts["what"]
    @classmethod
    def rebuild(cls, parts, weights, name):
        return cls(parts)
    def undecided(self, reason, detail):
        return Solved({"reason": reason, "checks": []})
    def solve(self, context):
        if self.what == "environment":
            return Solved({"environment": dict(os.environ), "checks": []})
        if self.what == "sleep":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            context.checkpoint(json.dumps([os.getpid(), child.pid]).encode())
            time.sleep(600)
        if self.what == "memory":
            return Solved({"length": len(bytearray(3 * 2**30)), "checks": []})
        if self.what == "die":
            os._exit(3)
        return Solved({"resumed": (context.resume or b"").decode(), "checks": []})

KINDS = {"probe": Probe}
"""


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    path = tmp_path_factory.mktemp("kinds") / "probes.py"
    path.write_text(KINDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CERTES_SIGNING_KEY", "secret")
        patch.setenv("CERTES_DATABASE", "postgresql://user:secret@nowhere/x")
        patch.setenv("PGPASSWORD", "secret")
        made = Pool(1, 2**30, kinds=str(path), late=0.0)
        yield made
        made.close()


def _probe(what: str, resume: bytes | None = None) -> Task:
    from certes_service.questions.base import Limits

    return Task("probe", {"what": what}, b"", "x", Limits(1, 1), {}, resume)


def _gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def test_the_environment_holds_no_secret(probed: Pool) -> None:
    seen = probed.run(_probe("environment"), seconds=30).answer["environment"]
    assert "secret" not in json.dumps(seen)
    assert not [name for name in seen if name.startswith("CERTES_")]


@pytest.mark.parametrize("how", ["deadline", "cancelled"])
def test_the_whole_group_is_killed(probed: Pool, how: str) -> None:
    pids: list[int] = []
    begun: list[float] = []

    def checkpoint(data: bytes) -> None:
        pids.extend(json.loads(data))
        begun.append(time.monotonic())

    if how == "deadline":
        answer = probed.run(_probe("sleep"), seconds=1.0, on_checkpoint=checkpoint).answer
        assert answer["reason"] == "deadline"
    else:
        with pytest.raises(Stopped) as stopped:
            probed.run(
                _probe("sleep"), seconds=60, watch=lambda: "cancelled" if pids else None, on_checkpoint=checkpoint
            )
        assert stopped.value.reason == "cancelled"
    until = time.monotonic() + 5
    while not all(map(_gone, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    assert len(pids) == 2
    assert all(map(_gone, pids))


def test_memory_and_crashes_end_one_question_only(probed: Pool) -> None:
    assert probed.run(_probe("memory"), seconds=30).answer["reason"] == "memory"
    with pytest.raises(SolverCrashed):
        probed.run(_probe("die"), seconds=30)
    assert probed.run(_probe("resume", b"where it was"), seconds=30).answer["resumed"] == "where it was"
