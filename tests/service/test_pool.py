"""Real questions through real solver processes; the processes themselves: test_solver_processes.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
from certes_service.solving.pool import Pool
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


def test_errors_come_back_as_they_are(pool: Pool) -> None:
    asked = certificates.question({**SPEC, "condition": "symmetric"}, weights(V=SMALL), "net.safetensors")
    with pytest.raises(InputError) as here:
        asked.check(SETTINGS)
    with pytest.raises(InputError) as there:
        pool.run(Task.asking(asked, SETTINGS), seconds=60)
    assert str(here.value) == str(there.value)
