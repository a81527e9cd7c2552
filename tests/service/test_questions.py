"""Questions, whatever their kind: what is kept of them is the question, their answers are the engine's, and nothing
that a solver says is signed unless it fits together."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import certes
import numpy as np
import pytest
from certes.certificate.assembly import AssemblyBundle, open_assembly
from certes.certificate.assembly_archive import packed
from certes.certificate.check import verify_certificate
from certes.certificate.document import Certificate
from certes.certificate.envelope import Envelope
from certes.errors import InputError, TooLargeError
from certes.projection import project
from certes.weights import read_weights, to_bytes
from certes_service.questions import assemblies, assembly_verifications, certificates, projections
from certes_service.questions.assembly_verifications import AssemblyVerification
from certes_service.questions.base import Attachment, Context, Limits, Question, Solved
from certes_service.questions.figures import FigureQuestion
from certes_service.questions.kinds import KINDS, by_name, rebuild
from certes_service.questions.signing import finished
from certes_service.questions.verifications import VerificationQuestion
from certes_service.samples_assembly import ASSEMBLY_REQUEST
from certes_service.samples_projection import INTERCONNECTION_REQUEST, PROJECTION_REQUEST
from certes_service.schema import CertificateAnswer, ProjectionAnswer, VerificationAnswer
from certes_service.schema_assembly import AssemblyAnswer
from certes_service.settings import Settings
from certes_service.solving.process import SolverCrashed
from certes_service.solving.protocol import Message, error_message, error_of, solved_message, solved_of
from certes_service.solving.task import Task
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.asking import SMALL, SPEC, weights

SETTINGS = Settings()
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([k]) * 32) for k in (1, 2)]
PRIVATE = [key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in KEYS]
PUBLIC = KEYS[0].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
NAME = "net.safetensors"
STORED = Path(__file__).parents[1] / "assets" / "certificates" / "composition-v1" / "nested"

Tamper = Callable[[Solved], Solved]


def _data(request: dict[str, Any]) -> bytes:
    return to_bytes({name: np.asarray(value, dtype=float) for name, value in request["tensors"].items()})


def _verification(W: Any = SMALL) -> VerificationQuestion:
    found = certes.certify(certes.RateNetwork(SMALL, "tanh"), condition="absolute").certificate
    assert found is not None
    return VerificationQuestion(weights(W=W), NAME, None, False, found.document, found.proof)


def _assembly_verification() -> AssemblyVerification:
    bundle = AssemblyBundle.read(STORED)
    files = {"networks.safetensors": (STORED / "networks.safetensors").read_bytes()}
    return assembly_verifications.question(bundle.documents[bundle.root], packed(bundle, files))


QUESTIONS: dict[str, Callable[[], Any]] = {
    "certificate": lambda: certificates.question(dict(SPEC), weights(), NAME),
    "projection": lambda: projections.question(PROJECTION_REQUEST["spec"], _data(PROJECTION_REQUEST), NAME),
    "interconnection": lambda: projections.question(
        INTERCONNECTION_REQUEST["spec"], _data(INTERCONNECTION_REQUEST), NAME
    ),
    "assembly": lambda: assemblies.question(ASSEMBLY_REQUEST["spec"], _data(ASSEMBLY_REQUEST), NAME),
    "verification": _verification,
    "assembly-verification": _assembly_verification,
}
ANSWERS = {
    "certificate": CertificateAnswer,
    "projection": ProjectionAnswer,
    "interconnection": ProjectionAnswer,
    "assembly": AssemblyAnswer,
    "verification": VerificationAnswer,
    "assembly-verification": VerificationAnswer,
}
CERTIFYING = [kind for kind in QUESTIONS if not kind.endswith("verification")]


def _context(question: Question, **given: Any) -> Context:
    return Context(Limits.of(SETTINGS), 60.0, attachments=question.attached(), **given)


@cache
def _solved(kind: str) -> Solved:
    """As it comes out of the pipe: nothing of it is shared."""
    question = QUESTIONS[kind]()
    return solved_of(solved_message(question.solve(_context(question))))


def _again(question: Question) -> Question:
    """What a solver process makes of a question: plain JSON and bytes."""
    task = Task.asking(question, SETTINGS)
    read, _ = Task.read(_piped(task.message(1.0)))
    return rebuild(read.kind, read.parts, read.weights, read.name)


def _piped(message: Message) -> Message:
    header = json.loads(json.dumps(message.header))
    return Message(header, dict(message.blobs))


def test_every_kind_is_tested_here() -> None:
    assert set(KINDS) - {"training", "figure"} == set(QUESTIONS), "a figure, which answers nothing, has a test below"


def test_a_figure_survives_the_pipe_and_draws_only_what_holds() -> None:
    made = _verification()
    question = FigureQuestion(made.weights, NAME, "dark", {}, made.envelope, made.proof)
    again = _again(question)
    assert again.parts() == question.parts()
    assert type(again) is by_name("figure")
    drawn = question.solve(_context(question))
    assert drawn.answer["svg"].lstrip().startswith("<?xml")
    assert (drawn.root, dict(drawn.documents)) == (None, {})
    other = replace(question, weights=weights(W=[[0.5]]))
    with pytest.raises(InputError) as caught:
        other.solve(_context(other))
    assert caught.value.field == "certificate"


@pytest.mark.parametrize("kind", QUESTIONS)
def test_what_is_kept_of_a_question_is_the_question(kind: str) -> None:
    question = QUESTIONS[kind]()
    again = _again(question)
    assert type(again) is by_name(kind) is type(question)
    assert again.parts() == question.parts()
    assert again.needs() == question.needs()
    if kind != "verification":  # document and proof are attached
        assert again.digest(SETTINGS) == question.digest(SETTINGS)


@pytest.mark.parametrize("kind", CERTIFYING)
def test_another_question_has_another_digest(kind: str) -> None:
    question = QUESTIONS[kind]()
    others: list[Any] = [
        question,
        replace(question, name="other.safetensors"),
        replace(question, weights=question.weights[:-1] + b"\1"),
        replace(question, options=question.options.model_copy(update={"seconds": 7.0})),
    ]
    digests = {other.digest(SETTINGS) for other in others}
    digests |= {question.digest(Settings(signing_key=key)) for key in PRIVATE}
    assert len(digests) == len(others) + len(PRIVATE)


@settings(max_examples=60)
@given(
    condition=st.sampled_from(["auto", "absolute", "lure", "a name that nobody knows"]),
    rate=st.one_of(st.just("best"), st.floats(1e-9, 1e9)),
    step=st.one_of(st.none(), st.just("max"), st.floats(1e-9, 10.0)),
    seconds=st.one_of(st.none(), st.floats(1e-3, 1e6)),
    slope=st.one_of(st.none(), st.tuples(st.floats(-1.0, 0.0), st.lists(st.floats(0.1, 2.0), min_size=2, max_size=2))),
    name=st.text(max_size=20),
)
def test_any_certificate_question_comes_back(name: str, slope: Any, **asked: Any) -> None:
    nonlinearity = {"activation": "tanh"} if slope is None else {"slope": list(slope)}
    question = certificates.question({"form": "rate", "tensors": {"W": "W"}, **nonlinearity, **asked}, b"", name)
    assert _again(question) == question
    assert _again(question).digest(SETTINGS) == question.digest(SETTINGS)


@settings(max_examples=30)
@given(
    keep=st.fixed_dictionaries({}, optional={"zeros": st.booleans(), "mask": st.just("M"), "rank": st.integers(1, 9)}),
    rate=st.one_of(st.none(), st.floats(1e-9, 1e9)),
    seed=st.integers(0, 2**53),
)
def test_any_projection_question_comes_back(**asked: Any) -> None:
    question = projections.question({"form": "hopfield", "tensors": {"W": "W"}, "activation": "relu", **asked}, b"", "")
    assert _again(question) == question
    assert _again(question).digest(SETTINGS) == question.digest(SETTINGS)


@settings(max_examples=20)
@given(order=st.permutations(["a", "b", "c"]))
def test_the_order_of_modules_is_kept(order: list[str]) -> None:
    """It is that of the states."""
    module = {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"}
    spec = {"modules": {name: module for name in order}}
    plain = {"modules": {name: module for name in ("a", "b", "c")}}
    for make in (assemblies.question, projections.question):
        question: Any = make(spec, b"", "")
        again: Any = _again(question)
        assert list(again.spec["modules"] if make is assemblies.question else again.specs) == order
        assert again.digest(SETTINGS) == question.digest(SETTINGS)
        assert (question.digest(SETTINGS) == make(plain, b"", "").digest(SETTINGS)) == (order == ["a", "b", "c"])


@pytest.mark.parametrize("kind", QUESTIONS)
def test_an_answer_of_a_killed_solver_has_the_shape_of_an_answer(kind: str) -> None:
    question = QUESTIONS[kind]()
    question.check(SETTINGS)
    spent = finished(question.undecided("memory", "too little"), None).inline()
    made = finished(_solved(kind), None).inline()
    for answer in (spent, made):
        ANSWERS[kind].model_validate_json(json.dumps(answer | {"cached": False}, allow_nan=False))
    assert set(spent) == set(made)
    assert spent["verdict"] == "undecided"
    assert not spent.get("valid")
    assert spent.get("result", spent)["reason"] == "memory"


def test_a_certificate_is_the_engines() -> None:
    solved = _solved("certificate")
    file = read_weights(weights(), name=NAME)
    system = certificates.question(dict(SPEC), weights(), NAME).spec.system(file)
    found = certes.certify(system, "absolute")
    assert found.certificate is not None
    assert solved.root == found.certificate.digest
    assert (solved.answer["rate"], solved.answer["verdict"]) == (found.rate, "contracting")


def test_a_projection_is_the_engines_and_its_certificate_holds_for_the_new_file() -> None:
    solved = _solved("projection")
    assert solved.root is not None
    assert solved.weights is not None
    W = np.array(PROJECTION_REQUEST["tensors"]["W"])
    found = project(certes.RateNetwork(W, "tanh"), keep=certes.projection.Keep(zeros=True))
    new = read_weights(solved.weights, name=solved.answer["weights"]["name"])
    assert np.array_equal(new.tensors["W"].array(), found.system.matrix("W"))
    assert solved.answer["distance"] == found.distance
    certificate = Certificate.from_parts(solved.documents[solved.root], next(iter(solved.proofs.values())))
    assert verify_certificate(certificate, new).valid
    assert not verify_certificate(certificate, read_weights(_data(PROJECTION_REQUEST), name=NAME)).valid


def test_a_verification_says_what_the_verifier_says() -> None:
    assert _solved("verification").answer["valid"]
    assert _solved("assembly-verification").answer["valid"]
    other = _verification(W=[[0.2, -0.5], [0.4, 0.2]])
    answer = other.solve(_context(other)).answer
    assert (answer["valid"], answer["verdict"]) == (False, "undecided")
    assert not finished(Solved(answer), PRIVATE[0]).documents


@pytest.mark.parametrize("kind", CERTIFYING)
def test_every_document_is_signed_and_named_before_what_names_it(kind: str) -> None:
    made = finished(_solved(kind), PRIVATE[0])
    seen: set[str] = set()
    for document in made.documents:
        Envelope.from_bytes(document.envelope).authenticate(PUBLIC)
        if document.kind == "assembly":
            assert {module.certificate for module in open_assembly(document.envelope)[1].predicate.modules} <= seen
        seen.add(document.digest)
    link = made.answer["certificate"]
    assert link["signed"]
    assert link["digest"] == made.documents[-1].digest == _solved(kind).root
    assert json.loads(made.documents[-1].envelope) == made.inline()["certificate"]["envelope"]
    unsigned = finished(_solved(kind), None)
    assert not unsigned.answer["certificate"]["signed"]
    assert unsigned.documents[-1].envelope == _solved(kind).documents[link["digest"]]


def _documents(change: Callable[[str, bytes], tuple[str, bytes]]) -> Tamper:
    return lambda solved: replace(solved, documents=dict(change(*entry) for entry in solved.documents.items()))


def _resigned(digest: str, document: bytes) -> tuple[str, bytes]:
    return digest, Envelope.from_bytes(document).sign(PRIVATE[1]).to_bytes()


def _restated(digest: str, document: bytes) -> tuple[str, bytes]:
    """A better claim, under the old name."""
    envelope = Envelope.from_bytes(document)
    return digest, replace(envelope, payload=envelope.payload.replace(b'"rate":0.', b'"rate":9.')).to_bytes()


def _without_modules(solved: Solved) -> Solved:
    assert solved.root is not None
    return replace(solved, documents={solved.root: solved.documents[solved.root]})


def _with_another(solved: Solved) -> Solved:
    other = _solved("assembly" if solved.root != _solved("assembly").root else "certificate")
    documents = {**other.documents, **solved.documents}
    return replace(solved, documents=documents, proofs={**other.proofs, **solved.proofs})


TAMPERED: dict[str, Tamper] = {
    "verdict": lambda solved: replace(solved, answer=solved.answer | {"verdict": "not_contracting"}),
    "no verdict": lambda solved: replace(solved, answer={}),
    "root": lambda solved: replace(solved, root="0" * 64),
    "no root": lambda solved: replace(solved, root=None),
    "no documents": lambda solved: replace(solved, documents={}),
    "no proofs": lambda solved: replace(solved, proofs={}),
    "proof": lambda solved: replace(solved, proofs={digest: data + b" " for digest, data in solved.proofs.items()}),
    "digest": _documents(lambda digest, document: (digest[::-1], document)),
    "claim": _documents(_restated),
    "no certificate": _documents(lambda digest, _: (digest, b"{}")),
    "foreign signature": _documents(_resigned),
    "foreign certificate": _with_another,
    "kind": lambda solved: replace(solved, assembly=not solved.assembly),
}


@pytest.mark.parametrize("kind", CERTIFYING)
@pytest.mark.parametrize("name", TAMPERED)
def test_what_does_not_fit_together_is_not_signed(kind: str, name: str) -> None:
    told = TAMPERED[name](_solved(kind))
    assert told != _solved(kind)
    for key in (PRIVATE[0], None):
        with pytest.raises(SolverCrashed):
            finished(told, key)


def test_an_assembly_without_its_modules_is_not_signed() -> None:
    with pytest.raises(SolverCrashed, match="which it names"):
        finished(_without_modules(_solved("assembly")), PRIVATE[0])


@pytest.mark.parametrize("kind", ["projection", "interconnection"])
def test_made_weights_that_are_not_those_of_the_certificate_are_not_kept(kind: str) -> None:
    with pytest.raises(SolverCrashed, match="another file"):
        finished(replace(_solved(kind), weights=_data(PROJECTION_REQUEST)), PRIVATE[0])


def test_a_certificate_of_another_file_is_no_answer() -> None:
    solved = _solved("certificate")
    asked = [hashlib.sha256(data).hexdigest() for data in (weights(), weights(W=np.array(SMALL) * 0.5))]
    assert finished(solved, PRIVATE[0], asked[0]).documents
    with pytest.raises(SolverCrashed, match="another file"):
        finished(solved, PRIVATE[0], asked[1])


@pytest.mark.parametrize("kind", CERTIFYING)
def test_what_was_made_is_kept_with_the_certificate_that_names_it(kind: str) -> None:
    solved = _solved(kind)
    made = finished(solved, None)
    kept = {document.digest: document.weights for document in made.documents}
    assert kept.pop(str(solved.root)) == solved.weights
    assert set(kept.values()) <= {None}
    assert [document.digest for document in made.documents][-1] == solved.root


def test_what_was_asked_about_is_no_matter_where_a_file_was_made() -> None:
    """A projection answers with a new file: its certificate is about that one, and never about the given one."""
    solved = _solved("projection")
    given = hashlib.sha256(QUESTIONS["projection"]().weights).hexdigest()
    assert finished(solved, None, given).documents
    with pytest.raises(SolverCrashed, match="another file"):
        finished(replace(solved, weights=None), None, given)


def test_a_certificate_of_no_file_is_not_about_one() -> None:
    found = certes.certify(certes.RateNetwork(SMALL, "tanh"), condition="absolute").certificate
    assert found is not None
    assert found.statement.file_subject() is None
    proofs = {hashlib.sha256(found.proof).hexdigest(): found.proof}
    solved = Solved({"verdict": "contracting"}, {found.digest: found.document}, proofs, found.digest)
    assert finished(solved, None).documents
    with pytest.raises(SolverCrashed, match="another file"):
        finished(solved, None, hashlib.sha256(weights()).hexdigest())


def test_an_undecided_answer_may_have_a_certificate_of_its_own() -> None:
    """That no constant quadratic metric serves is proven too."""
    data = weights(W=np.array([[0.0, 2.5], [-2.5, 0.0]]))
    question = certificates.question({"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"}, data, NAME)
    solved = question.solve(_context(question))
    assert (solved.answer["verdict"], solved.answer["reason"]) == ("undecided", "no_quadratic_metric")
    assert finished(solved, PRIVATE[0], hashlib.sha256(data).hexdigest()).documents
    with pytest.raises(SolverCrashed):
        finished(replace(solved, answer=solved.answer | {"verdict": "contracting"}), PRIVATE[0])


def _by_certificate() -> tuple[Question, dict[str, Attachment]]:
    """An assembly, one module of which is the certificate of the question ``certificate``."""
    solved = _solved("certificate")
    assert solved.root is not None
    spec = json.loads(json.dumps(ASSEMBLY_REQUEST["spec"]))
    spec["modules"] = {"inner": {"modules": {"eye": {"certificate": solved.root}}}}
    spec["couplings"] = []
    kept = Attachment(solved.documents[solved.root], next(iter(solved.proofs.values())), weights())
    return assemblies.question(spec, _data(ASSEMBLY_REQUEST), NAME), {solved.root: kept}


def test_an_assembly_needs_the_certificates_that_stand_for_modules() -> None:
    question, attached = _by_certificate()
    assert question.needs() == _again(question).needs() == set(attached)
    solved = question.solve(replace(_context(question), attachments=attached))
    assert solved.answer["verdict"] == "contracting"
    foreign = {"0" * 64: next(iter(attached.values()))}
    with pytest.raises(InputError) as refused:
        question.solve(replace(_context(question), attachments=foreign))
    assert (refused.value.slug, refused.value.field) == ("unknown-digest", "spec.modules.inner.modules.eye.certificate")


@pytest.mark.parametrize("part", ["envelope", "proof", "weights"])
def test_a_stored_certificate_is_verified_again(part: str) -> None:
    question, attached = _by_certificate()
    (digest, kept), other = next(iter(attached.items())), _solved("projection")
    foreign = {
        "envelope": next(iter(other.documents.values())),
        "proof": next(iter(other.proofs.values())),
        "weights": weights(W=np.array(SMALL) * 2),
    }
    damaged = replace(kept, **{part: foreign[part]})
    with pytest.raises(InputError) as refused:
        question.solve(replace(_context(question), attachments={digest: damaged}))
    assert refused.value.slug in ("unknown-digest", "invalid-certificate")


@pytest.mark.parametrize("kind", QUESTIONS)
def test_weights_that_are_none_are_found_before_anything_is_solved(kind: str) -> None:
    question: Any = replace(QUESTIONS[kind](), weights=b"no weight file")
    with pytest.raises(InputError) as here:
        question.check(SETTINGS)
    with pytest.raises(InputError) as there:
        question.solve(_context(question))
    assert str(here.value) == str(there.value)


@pytest.mark.parametrize(
    "kind", ["certificate", "projection", "interconnection", "verification", "assembly-verification"]
)
def test_limits_hold_before_and_while_it_is_solved(kind: str) -> None:
    question, small = QUESTIONS[kind](), Settings(max_states=1)
    with pytest.raises(TooLargeError):
        question.check(small)
    with pytest.raises(TooLargeError):
        question.solve(replace(_context(question), limits=Limits.of(small)))


def test_an_assembly_that_is_too_large_is_refused() -> None:
    question = QUESTIONS["assembly"]()
    with pytest.raises(TooLargeError):
        question.solve(replace(_context(question), limits=Limits.of(Settings(max_states=1))))


@pytest.mark.parametrize("kind", CERTIFYING)
def test_progress_is_told(kind: str) -> None:
    told: list[dict[str, Any]] = []
    question = QUESTIONS[kind]()
    question.solve(_context(question, on_progress=told.append))
    assert told
    for entry in told:
        assert set(entry) == {"phase", "fraction", "message"}
        json.dumps(entry, allow_nan=False)


@pytest.mark.parametrize(
    "error",
    [
        InputError("spec.a", "b", "c", "wrong-type"),
        TooLargeError("weights", "5 bytes", 4),
        TooLargeError("spec.modules", "9 states in all", 8, "states"),
        certes.errors.MissingExtraError("flint", "exact", "The exact audit"),
        certes.errors.CertesError("something"),
    ],
)
def test_errors_come_through_the_pipe(error: Exception) -> None:
    assert isinstance(error, certes.errors.CertesError)
    again = error_of(_piped(error_message(error)))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_solver_loads_no_web_framework_and_no_database() -> None:
    lines = [f"import {entry.partition(':')[0]}" for kind, entry in KINDS.items() if kind != "training"]
    lines += ["import certes_service.solving.child, sys"]
    lines += ["print(*{name.partition('.')[0] for name in sys.modules})"]
    out = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert not {"fastapi", "starlette", "sqlalchemy", "dbos", "alembic", "fsspec", "uvicorn"} & set(out.stdout.split())
