"""The routes. Each is a few lines: read the request, ask the desk, answer."""

from __future__ import annotations

import hashlib
import re
from typing import Any
from urllib.parse import quote

from certes import strictjson
from certes._version import __version__
from certes.certificate.assembly import ASSEMBLY_SUFFIX, speaks_of_an_assembly
from certes.certificate.document import CERTIFICATE_SUFFIX, PROOF_SUFFIX
from certes.errors import InputError
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from certes_service import documentation, problems
from certes_service.intake import about, as_file, as_flag, as_object, read_body, required, weights_of
from certes_service.limits import BodyLimit
from certes_service.questions import assemblies, certificates, projections, verifications
from certes_service.questions.base import clip
from certes_service.schema import CertificateAnswer, Health, ProjectionAnswer, VerificationAnswer
from certes_service.schema_assembly import AssemblyAnswer
from certes_service.settings import Settings
from certes_service.store import Store, is_digest
from certes_service.work import Desk

__all__ = ["build"]

ENVELOPE = "application/vnd.dsse.envelope.v1+json"
PROOF = "application/octet-stream"


def build(settings: Settings) -> FastAPI:
    """The application over one data directory.

    Raises:
        StorageError: the data directory cannot be used. InputError: a setting that this application does not heed.
    """
    _refuse_what_is_not_served(settings)
    desk = Desk(settings, Store(settings.data))
    app = FastAPI(
        title="Certes",
        version=__version__,
        description=documentation.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.desk = desk
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    problems.install(app)
    _certificates(app, desk)
    _projections(app, desk)
    _assemblies(app, desk)
    _verifications(app, desk)

    @app.get("/healthz", response_model=Health, **documentation.HEALTH)
    async def healthz() -> dict[str, str]:
        """Whether the service answers."""
        return {"status": "ok", "version": __version__}

    documentation.install(app)
    return app


def _refuse_what_is_not_served(settings: Settings) -> None:
    """A setting that guards something, and that nothing here heeds yet, must not seem to work."""
    for name in ("keys", "database", "blobs"):
        if getattr(settings, name):
            expected = "unset: this version serves without keys, from the directory `data` alone"
            raise InputError(name, "a value", expected, "not-served")


def _certificates(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/certificates", response_model=CertificateAnswer, **documentation.CERTIFY)
    async def certify(request: Request) -> Response:
        """Certify or refute a network. ``undecided`` is an answer too (200, certificate null)."""
        body = await read_body(request, desk.settings, {"spec", "weights", "tensors"}, {"spec"})
        return _json(await desk.answer(about(certificates.question)(body)))

    @app.get("/v1/certificates/{digest}", response_class=Response, **documentation.ENVELOPE)
    async def certificate(digest: str) -> Response:
        """The certificate: an in-toto statement in a DSSE envelope."""
        content = await _stored(desk, digest, "envelope")
        name = _file_name(digest + (ASSEMBLY_SUFFIX if speaks_of_an_assembly(content) else CERTIFICATE_SUFFIX))
        return Response(content, media_type=ENVELOPE, headers=_immutable(digest) | name)

    @app.get("/v1/certificates/{digest}/proof", response_class=Response, **documentation.PROOF)
    async def proof(digest: str) -> Response:
        """The proof's (or the witness's) arrays: a safetensors file."""
        content = await _stored(desk, digest, "proof")
        # the name by which a verifier looks for it beside the certificate
        name = _file_name(hashlib.sha256(content).hexdigest() + PROOF_SUFFIX)
        return Response(content, media_type=PROOF, headers=_immutable(f"{digest}-proof") | name)

    @app.get("/v1/certificates/{digest}/weights", response_class=Response, **documentation.WEIGHTS)
    async def weights(digest: str) -> Response:
        """The weight file of a projection: the given one with the new weights in it; of an assembly: its couplings."""
        await _stored(desk, digest, "envelope")
        found = await desk.weights(digest)
        if found is None:
            expected = "the digest of a projection's or an assembly's certificate: no other weights are kept"
            raise problems.Unknown("digest", "a certificate whose weights are not kept here", expected, "no-weights")
        content, name = found
        return Response(content, media_type=PROOF, headers=_immutable(f"{digest}-weights") | _file_name(name))


def _projections(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/projections", response_model=ProjectionAnswer, **documentation.PROJECT)
    async def project(request: Request) -> Response:
        """The nearest weights that are certified, or the nearest interconnection of modules.

        ``undecided`` is an answer too (200, weights and certificate null).
        """
        body = await read_body(request, desk.settings, {"spec", "weights", "tensors"}, {"spec"})
        return _json(await desk.answer(about(projections.question)(body)))


def _assemblies(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/assemblies", response_model=AssemblyAnswer, **documentation.COMPOSE)
    async def compose(request: Request) -> Response:
        """Certify a network of networks from its modules; every module and every step gets a certificate.

        ``undecided`` is an answer too (200, certificate null).
        """
        body = await read_body(request, desk.settings, {"spec", "weights", "tensors"}, {"spec"})
        return _json(await desk.answer(about(assemblies.question)(body)))


def _verifications(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/verifications", response_model=VerificationAnswer, **documentation.VERIFY)
    async def verify(request: Request) -> Response:
        """Verify a certificate against weights. A certificate that fails is an answer too (200, ``valid`` false)."""
        allowed = {"certificate", "proof", "weights", "tensors", "key", "exact"}
        body = await read_body(request, desk.settings, allowed, {"certificate", "tensors"})
        envelope = as_object(required(body, "certificate", "the DSSE envelope"), "certificate")
        proof = as_file(required(body, "proof", "the proof's safetensors file"), "proof", body.multipart)
        question = verifications.question(
            strictjson.canonical(envelope, "certificate"),
            proof,
            weights_of(body),
            _key(body.values.get("key")),
            exact=as_flag(body.values.get("exact"), "exact"),
        )
        return _json(await desk.verification(question))


def _key(value: Any) -> str | None:
    if isinstance(value, bytes):  # a file part
        return value.decode("utf-8", "replace")
    if value is not None and not isinstance(value, str):
        raise InputError("key", f"JSON of type {type(value).__name__}", "a public key in PEM", "wrong-type")
    return value


async def _stored(desk: Desk, digest: str, part: str) -> bytes:
    stored = await desk.stored(digest) if is_digest(digest) else None
    if stored is None:
        given = clip(repr(digest), 80)
        raise problems.Unknown(
            "digest", given, "the digest of a certificate that this service issued", "unknown-digest"
        )
    return stored.envelope if part == "envelope" else stored.proof


def _json(answer: dict[str, Any]) -> Response:
    return JSONResponse(answer)


def _file_name(name: str) -> dict[str, str]:
    """RFC 6266; a name that is more than plain letters is given in UTF-8, percent-encoded."""
    if re.fullmatch(r"[A-Za-z0-9._-]+", name):
        return {"Content-Disposition": f'attachment; filename="{name}"'}
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name.encode('utf-8', 'replace'), safe='')}"}


def _immutable(tag: str) -> dict[str, str]:
    return {
        "ETag": f'"{tag}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
