"""``/v1/certificates``: list what one has, read it, let everybody read it, forget it."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

from certes.certificate.assembly import ASSEMBLY_SUFFIX
from certes.certificate.document import CERTIFICATE_SUFFIX, PROOF_SUFFIX
from certes.errors import InputError
from fastapi import FastAPI, Query, Request, Response

from certes_service import documentation, problems
from certes_service.intake import as_flag, read_body, required
from certes_service.jobs.answering import as_json
from certes_service.jobs.desk import Desk
from certes_service.questions.base import clip
from certes_service.schema import Listed, ListedCertificates
from certes_service.storage.errors import is_digest
from certes_service.storage.store import Entry, Stored
from certes_service.tenancy.callers import caller_of, identified

ENVELOPE = "application/vnd.dsse.envelope.v1+json"
BYTES = "application/octet-stream"
_CURSOR = r"^[0-9]{1,12}(\.[0-9]{1,12})?~[0-9a-f]{64}$"


def install(app: FastAPI, desk: Desk) -> None:
    """Add the routes."""
    _own(app, desk)

    @app.get("/v1/certificates/{digest}", response_class=Response, **documentation.ENVELOPE)
    async def certificate(request: Request, digest: str) -> Response:
        """The certificate: an in-toto statement in a DSSE envelope. One that is public needs no key."""
        _, stored = await readable(desk, request, digest)
        suffix = ASSEMBLY_SUFFIX if stored.kind == "assembly" else CERTIFICATE_SUFFIX
        # its signature may be made anew by another key, so the name of its content is that of the bytes
        tag = hashlib.sha256(stored.envelope).hexdigest()
        return Response(stored.envelope, media_type=ENVELOPE, headers=kept(tag, stored) | file_name(digest + suffix))

    @app.get("/v1/certificates/{digest}/proof", response_class=Response, **documentation.PROOF)
    async def proof(request: Request, digest: str) -> Response:
        """The proof's (or the witness's) arrays: a safetensors file. That of a public certificate needs no key."""
        _, stored = await readable(desk, request, digest)
        # the name by which a verifier looks for it beside the certificate
        name = hashlib.sha256(stored.proof).hexdigest() + PROOF_SUFFIX
        return Response(stored.proof, media_type=BYTES, headers=kept(f"{digest}-proof", stored) | file_name(name))

    @app.get("/v1/certificates/{digest}/weights", response_class=Response, **documentation.WEIGHTS)
    async def weights(request: Request, digest: str) -> Response:
        """The weight file of a projection: the given one with the new weights in it; of an assembly: its couplings."""
        caller = identified(request)
        stored = await own(desk, request, digest)
        found = await desk.in_thread(desk.store.weights, caller.tenant, digest)
        if found is None:
            expected = "the digest of a projection's or an assembly's certificate: no other weights are kept"
            raise problems.Unknown("digest", "a certificate whose weights are not kept here", expected, "no-weights")
        content, name = found
        headers = kept(f"{digest}-weights", stored, private=True) | file_name(name)
        return Response(content, media_type=BYTES, headers=headers)


def _own(app: FastAPI, desk: Desk) -> None:
    @app.get("/v1/certificates", response_model=ListedCertificates, **documentation.CERTIFICATES)
    async def certificates(
        request: Request,
        limit: Annotated[int, Query(description="How many at most", ge=1, le=200)] = 50,
        before: Annotated[str | None, Query(description="`next` of the page before", pattern=_CURSOR)] = None,
    ) -> Response:
        """The caller's certificates, the youngest first."""
        caller = identified(request)
        last = None if before is None else (float(before.partition("~")[0]), before.partition("~")[2])
        found = await desk.in_thread(desk.store.list, caller.tenant, limit + 1, last)
        page = found[:limit]
        following = f"{page[-1].created!r}~{page[-1].digest}" if len(found) > limit else None
        return await as_json({"certificates": [listed(entry) for entry in page], "next": following}, desk)

    @app.patch("/v1/certificates/{digest}", response_model=Listed, **documentation.PUBLISH)
    async def publish(request: Request, digest: str) -> Response:
        """Let everybody read a certificate, its proof, its figure and its badge, or nobody else any more."""
        caller = identified(request)
        body = await read_body(request, desk.settings, {"public"}, set())
        public = as_flag(required(body, "public", "true or false"), "public")
        await own(desk, request, digest)
        await desk.in_thread(desk.store.publish, caller.tenant, digest, public)
        stored = await own(desk, request, digest)
        return await as_json(listed(Entry(digest, stored.kind, stored.public, stored.created)), desk)

    @app.delete("/v1/certificates/{digest}", status_code=204, response_class=Response, **documentation.FORGET)
    async def forget(request: Request, digest: str) -> Response:
        """Forget a certificate, and every answer that names it. Copies that were fetched stay valid."""
        caller = identified(request)
        if not is_digest(digest) or not await desk.in_thread(desk.store.remove, caller.tenant, digest):
            raise _unknown(digest)
        return Response(status_code=204)


async def own(desk: Desk, request: Request, digest: str) -> Stored:
    """The caller's certificate.

    Raises:
        Unknown: the caller has none of that name. StorageError: it cannot be read intact.
    """
    stored = await desk.stored(identified(request).tenant, digest)
    if stored is None:
        raise _unknown(digest)
    return stored


async def readable(desk: Desk, request: Request, digest: str) -> tuple[str, Stored]:
    """A certificate that the caller may read, and whose it is: his own, or one that is public.

    Raises:
        Unknown: there is none. StorageError: it cannot be read intact.
    """
    caller = caller_of(request)
    if caller is not None:
        stored = await desk.stored(caller.tenant, digest)
        if stored is not None:
            return caller.tenant, stored
    found = await desk.in_thread(desk.store.public, digest)
    if found is None:
        raise _unknown(digest)
    return found


def listed(entry: Entry) -> dict[str, Any]:
    """A line of the list, as JSON."""
    created = datetime.fromtimestamp(entry.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    href = f"/v1/certificates/{entry.digest}"
    return {"digest": entry.digest, "kind": entry.kind, "public": entry.public, "created": created, "href": href}


def file_name(name: str) -> dict[str, str]:
    """RFC 6266; a name that is more than plain letters is given in UTF-8, percent-encoded."""
    if re.fullmatch(r"[A-Za-z0-9._-]+", name):
        return {"Content-Disposition": f'attachment; filename="{name}"'}
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name.encode('utf-8', 'replace'), safe='')}"}


def kept(tag: str, stored: Stored, *, private: bool = False) -> dict[str, str]:
    """How long a copy may be kept: bytes named by their digest never change, but what is public may cease to be so."""
    shared = stored.public and not private
    age = "public, max-age=300" if shared else "private, max-age=31536000, immutable"
    return {"ETag": f'"{tag}"', "Cache-Control": age}


def _unknown(digest: str) -> InputError:
    given = clip(repr(digest), 80)
    return problems.Unknown("digest", given, "the digest of a certificate of this caller", "unknown-digest")
