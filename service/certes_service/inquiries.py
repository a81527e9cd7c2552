"""The calls that ask something: certificates, projections, assemblies, trainings, verifications."""

from __future__ import annotations

from typing import Any

from certes import strictjson
from certes.certificate.envelope import key_id
from certes.errors import InputError
from certes.uploads import PARTS, File, packed
from fastapi import FastAPI, Request, Response

from certes_service import documentation
from certes_service.intake import Body, about, as_file, as_flag, as_object, read_body, required, weights_of
from certes_service.jobs.answering import as_json, respond
from certes_service.jobs.desk import Desk
from certes_service.questions import (
    assemblies,
    assembly_verifications,
    certificates,
    projections,
    trainings,
    verifications,
)
from certes_service.questions.base import Question
from certes_service.schema import CertificateAnswer, ProjectionAnswer, VerificationAnswer
from certes_service.schema_assembly import AssemblyAnswer
from certes_service.schema_training import TrainingAnswer
from certes_service.tenancy.callers import allow

_VERIFICATION = {"certificate", "proof", "weights", "tensors", "modules", "key", "exact"}


def install(app: FastAPI, desk: Desk) -> None:
    """Add the routes."""

    @app.post("/v1/certificates", response_model=CertificateAnswer, **documentation.CERTIFY)
    async def certify(request: Request) -> Response:
        """Certify or refute a network. ``undecided`` is an answer too (200, certificate null)."""
        return await respond(request, desk, "certify", about(certificates.question))

    @app.post("/v1/projections", response_model=ProjectionAnswer, **documentation.PROJECT)
    async def project(request: Request) -> Response:
        """The nearest weights that are certified, or the nearest interconnection of modules.

        ``undecided`` is an answer too (200, weights and certificate null).
        """
        return await respond(request, desk, "project", about(projections.question))

    @app.post("/v1/assemblies", response_model=AssemblyAnswer, **documentation.COMPOSE)
    async def compose(request: Request) -> Response:
        """Certify a network of networks from its modules; every module and every step gets a certificate.

        ``undecided`` is an answer too (200, certificate null).
        """
        return await respond(request, desk, "certify", about(assemblies.question))

    @app.post("/v1/trainings", response_model=TrainingAnswer, **documentation.TRAIN)
    async def train(request: Request) -> Response:
        """Train a network of networks that is stable by construction, and certify it.

        A job of the queue `train`. One that comes to no certified network has failed, with the reason.
        """
        make = about(trainings.question, "data", _with_others)
        return await respond(request, desk, "train", make, {"spec", "tensors", *PARTS}, wait=0.0, kept=True)

    @app.post("/v1/verifications", response_model=VerificationAnswer, **documentation.VERIFY)
    async def verify(request: Request) -> Response:
        """Verify a certificate against weights; nothing is kept, and nothing that is kept here is trusted.

        That of an assembly comes with `modules`, everything that it names and the weight files, instead of the rest.
        A certificate that fails is an answer too (200, ``valid`` false).
        """
        caller = allow(request, "certify")
        body = await read_body(request, desk.settings, _VERIFICATION, {"certificate", "tensors"})
        question = await desk.in_thread(_verification, body)
        return await as_json(await desk.verification(caller.tenant, question), desk)


def _verification(body: Body) -> Question:
    envelope = as_object(required(body, "certificate", "the DSSE envelope"), "certificate")
    if (modules := body.values.get("modules")) is not None:
        return _of_assembly(body, strictjson.canonical(envelope, "certificate"), modules)
    proof = as_file(required(body, "proof", "the proof's safetensors file"), "proof", body.multipart)
    return verifications.question(
        strictjson.canonical(envelope, "certificate"),
        proof,
        weights_of(body),
        _key(body.values.get("key")),
        exact=as_flag(body.values.get("exact"), "exact"),
    )


def _of_assembly(body: Body, envelope: bytes, modules: Any) -> Question:
    """Everything but key and certificate is in the one file.

    Raises:
        InputError: a part that would have to be in it.
    """
    for part in ("proof", "weights", "tensors"):
        if body.values.get(part) is not None:
            raise InputError(part, f"{part} beside modules", "nothing: it belongs into modules", "conflict")
    return assembly_verifications.question(
        envelope,
        as_file(modules, "modules", body.multipart),
        _key(body.values.get("key")),
        exact=as_flag(body.values.get("exact"), "exact"),
    )


def _key(value: Any) -> str | None:
    if isinstance(value, bytes):  # a file part
        return value.decode("utf-8", "replace")
    if value is not None and not isinstance(value, str):
        raise InputError("key", f"JSON of type {type(value).__name__}", "a public key in PEM", "wrong-type")
    if value is not None:
        key_id(value.encode("utf-8", "replace"))  # one that is none is said before anything is verified
    return value


def _with_others(body: Body, data: bytes) -> bytes:
    """The data of a training, with the files that belong to them: classes, and what is tested on.

    Raises:
        InputError: naming the part that is not a file, or does not belong to the others.
    """
    names = {part: body.names.get(part, part) for part in PARTS}
    others = [part for part in PARTS if part != "data" and body.values.get(part) is not None]
    files = {part: as_file(body.values[part], part, body.multipart) for part in others}
    return packed({part: File(names[part], content) for part, content in {"data": data, **files}.items()})
