"""Is a certificate to be believed? The numbered list of everything that must hold.

Each obligation has its own stable reason codes; checking stops at the first that fails, in this order:

     1. envelope     the file is a DSSE envelope in canonical form
                     malformed
     2. format       payload type, statement type, predicate type and version are known
                     unsupported-format
     3. signature    if a key is demanded: that key has signed exactly this payload
                     unsigned, untrusted-key, bad-signature
     4. statement    well-formed, canonical, and in itself consistent
                     malformed
     5. condition    the theorem is known in this format, and this kind of proof can show this verdict
                     ("undecided" is shown by a proof that no constant quadratic metric exists, and by nothing else)
                     unknown-condition, false-claim
     6. weights      every tensor used has the stated bytes, and so has the whole file
                     missing-weights, wrong-weights, wrong-file
     7. system       if a system was given instead of weights: it is the stated one
                     wrong-system
     8. proof        the proof file is there, is the stated one, and holds such a proof (and one of the largest step,
                     and one of the stated kind of the bound, if and only if they are claimed)
                     missing-proof, wrong-proof, malformed-proof, unknown-condition
     9. words        norm and growth are those of the proof, no claim is out of place (a bound of a rate for a
                     differential equation, of a factor for a map; none but growth with a witness), and a theorem
                     about symmetric weights is named for symmetric weights only
                     false-claim
    10. mathematics  every obligation of :mod:`certes.verify`, over the given weights
                     obligation-failed, false-claim
    11. exact audit  if asked for: the same in exact arithmetic, by other code
                     exact-audit-failed, exact-audit-undecided

(In 2, the statement's own types are read after 3: nothing of a payload is parsed before its signature fits.)
A failed obligation of 10 that concerns a number claimed (a gain, a radius, a bound, ...) is a ``false-claim``; one that
concerns the proof as such is ``obligation-failed``. Without a demanded key a signature is not checked, and the report
says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from certes import formats
from certes.cells import CELLS, GatedNetwork
from certes.cells import ROLES as CELL_ROLES
from certes.certificate import document as documents
from certes.certificate.document import Certificate
from certes.certificate.envelope import Envelope, read_key
from certes.certificate.statement import CONDITIONS, Statement, SubjectModel, growth_of, norm_of
from certes.errors import InputError
from certes.proofs import (
    ArrayProof,
    Claims,
    GatedProof,
    GatedWitness,
    InstabilityWitness,
    NoMetricProof,
    SwitchingWitness,
    Verdict,
)
from certes.spec import SystemSpec
from certes.systems import Subject, System, Tensor, tensor
from certes.verify import (
    Check,
    Report,
    verify_contraction,
    verify_gated,
    verify_gated_instability,
    verify_instability,
    verify_no_metric,
    verify_switching,
)
from certes.weights import WeightFile

#: Every reason code of a report that is not valid. Codes are added, never changed or removed.
REASONS: tuple[str, ...] = (
    "malformed",
    "unsupported-format",
    "unsigned",
    "untrusted-key",
    "bad-signature",
    "unknown-condition",
    "missing-weights",
    "wrong-weights",
    "wrong-file",
    "wrong-system",
    "missing-proof",
    "wrong-proof",
    "malformed-proof",
    "false-claim",
    "obligation-failed",
    "exact-audit-failed",
    "exact-audit-undecided",
)

#: Obligations of the verifier that concern a number claimed rather than the proof as such.
_CLAIM_CHECKS = frozenset(
    {"range", "rate", "gain", "metric-condition", "largest-step", "supported", "weight-radius", "bound"}
)

#: Kinds of proof that show another verdict than ``contracting``, and carry no claim but a witness's growth.
_OTHER: dict[str, tuple[Verdict, Callable[[Any, Any], Report]]] = {
    GatedWitness.kind: ("not_contracting", verify_gated_instability),
    InstabilityWitness.kind: ("not_contracting", verify_instability),
    SwitchingWitness.kind: ("not_contracting", verify_switching),
    NoMetricProof.kind: ("undecided", verify_no_metric),
}

Weights = (
    str
    | os.PathLike[str]
    | bytes
    | WeightFile
    | System
    | GatedNetwork
    | Mapping[str, Any]
    | np.ndarray[Any, Any]
    | list[Any]
)
#: The same once files are read.
_Given = WeightFile | System | GatedNetwork | Mapping[str, Any]


class _RefusedError(Exception):
    """Carries the failed check to the end of the list; never leaves this module."""

    def __init__(self, reason: str, name: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.name, self.detail = reason, name, detail


@dataclass
class _Progress:
    """What has been checked so far."""

    checks: list[Check]

    def held(self, name: str, detail: str) -> None:
        self.checks.append(Check(name, True, detail))

    def attempt(self, name: str, work: Callable[[], Any], default: str) -> Any:
        """Run ``work``; an InputError becomes a refusal with its slug if that is a reason code, else ``default``."""
        try:
            return work()
        except InputError as error:
            reason = error.slug if error.slug in REASONS else default
            raise _RefusedError(reason, name, str(error)) from error


def verify_certificate(
    certificate: Certificate | str | os.PathLike[str] | tuple[bytes, bytes | None],
    weights: Weights | None,
    *,
    key: bytes | str | os.PathLike[str] | None = None,
    exact: bool = False,
) -> Report:
    """Check a whole certificate against weights: the numbered list of this module's docstring.

    Args:
        certificate: a certificate, or the path of its file (or of a folder with one), or the unread bytes of both files
            (envelope, proof).
        weights: the weight file (path, bytes or read): digests of file and tensors must fit. Or a system, or arrays by
            role (``{"W": W}``) or by tensor name, or W itself: the digests of the tensors must fit.
        key: an Ed25519 public key (PEM bytes or path) that must have signed; None: signatures are not checked.
        exact: also audit in exact rational arithmetic (extra ``exact``).

    Returns:
        A report; ``valid`` if and only if everything held, and then with the verdict of the certificate.

    Raises:
        InputError: something of the user's cannot be read (certificate file, weight file, key). What can be read and
            is wrong is a report with a reason.
        MissingExtraError: ``exact`` without its package.
    """
    pem = None if key is None else read_key(key)
    given = _take(weights)
    data, proof_of = _files(certificate)
    progress = _Progress([])
    try:
        return _check(progress, data, proof_of, given, pem, exact)
    except _RefusedError as refusal:
        checks = (*progress.checks, Check(refusal.name, False, refusal.detail))
        return Report("undecided", checks, refusal.reason, refusal.detail)


def _files(
    certificate: Certificate | str | os.PathLike[str] | tuple[bytes, bytes | None],
) -> tuple[bytes, Callable[[Statement], bytes | None]]:
    """The envelope's bytes, and how to come by the proof's once the statement has named it."""
    if isinstance(certificate, Certificate):
        return certificate.document, lambda _: certificate.proof
    if isinstance(certificate, tuple):
        return certificate[0], lambda _: certificate[1]
    return documents.read_document(certificate), lambda statement: documents.find_proof(certificate, statement)


def _take(weights: Any) -> _Given | None:
    """Read a file; a bare matrix is the W of a rate or hopfield network."""
    if isinstance(weights, (str, os.PathLike, bytes)):
        return formats.read(weights)
    if weights is None or isinstance(weights, (WeightFile, System, GatedNetwork, Mapping)):
        return weights
    return {"W": weights}


def _check(
    progress: _Progress,
    data: bytes,
    proof_of: Callable[[Statement], bytes | None],
    weights: _Given | None,
    key: bytes | None,
    exact: bool,
) -> Report:
    statement = _open(progress, data, key)
    _check_condition(progress, statement)
    system = _check_weights(progress, statement, weights)
    proof, claims = _open_proof(progress, statement, proof_of)
    _check_words(progress, statement, system, proof, claims)
    report = _mathematics(progress, statement, system, proof, claims)
    if exact:
        _audit(progress, system, proof, claims)
    return replace(report, checks=tuple(progress.checks))


def _open(progress: _Progress, data: bytes, key: bytes | None) -> Statement:
    """Obligations 1 to 4."""
    envelope: Envelope = progress.attempt("envelope", lambda: Envelope.from_bytes(data), "malformed")
    progress.held("envelope", "a DSSE envelope in canonical form")
    progress.attempt("format", lambda: documents.check_payload_type(envelope), "unsupported-format")
    keyids = ", ".join(keyid for keyid, _ in envelope.signatures)
    if key is not None:
        keyid = _authenticate(progress, envelope, key)
        progress.held("signature", f"signed by the demanded key {keyid}")
    elif keyids:
        progress.held("signature", f"signed by {keyids}; NOT CHECKED, no key was demanded")
    else:
        progress.held("signature", "unsigned; no key was demanded")
    statement: Statement = progress.attempt("statement", lambda: Statement.from_bytes(envelope.payload), "malformed")
    progress.held("statement", "well-formed, canonical and consistent")
    return statement


def _authenticate(progress: _Progress, envelope: Envelope, key: bytes) -> str:
    try:
        return envelope.authenticate(key)
    except InputError as error:
        if error.slug == "bad-key":
            raise
        raise _RefusedError(error.slug, "signature", str(error)) from error


def _refuse(reason: str, name: str, detail: str) -> NoReturn:
    raise _RefusedError(reason, name, detail)


def _check_condition(progress: _Progress, statement: Statement) -> None:
    """Obligation 5."""
    predicate = statement.predicate
    condition, kind = (predicate.condition.name, predicate.condition.version), predicate.proof.kind
    if kind not in CONDITIONS[predicate.format].get(condition, frozenset()):
        detail = f"no condition {condition[0]!r} of version {condition[1]} with proofs of kind {kind!r} is known here"
        _refuse("unknown-condition", "condition", detail)
    proves = _OTHER[kind][0] if kind in _OTHER else "contracting"
    if predicate.verdict != proves:
        _refuse("false-claim", "condition", f"a proof of kind {kind!r} cannot show {predicate.verdict!r}")
    progress.held("condition", f"{condition[0]} version {condition[1]}")


def _check_weights(progress: _Progress, statement: Statement, weights: _Given | None) -> System | GatedNetwork:
    """Obligations 6 and 7; the system with the given weights."""
    if weights is None:
        _refuse("missing-weights", "weights", "no weights were given to check the proof against")
    stated = statement.tensor_subjects()
    matrices = {role: _matrix(statement, role, subjects, weights) for role, subjects in stated.items()}
    file = statement.file_subject()
    if file is not None and isinstance(weights, WeightFile):
        if weights.sha256 != file.digest.sha256:
            detail = f"the weight file has sha256 {weights.sha256}, the certificate is about {file.digest.sha256}"
            _refuse("wrong-file", "weights", f"{detail}; the tensors used are the same")
        progress.held("weights", f"file and tensors have the stated digests: {', '.join(_names(stated))}")
    else:
        progress.held("weights", f"tensors have the stated digests: {', '.join(_names(stated))}; no file compared")
    origin = None if file is None else (file.digest.sha256, file.name)
    spec = statement.predicate.system
    make = spec.cell if spec.form in CELLS else spec.with_tensors
    system: System | GatedNetwork = progress.attempt("statement", lambda: make(matrices, file=origin), "malformed")
    if isinstance(weights, System | GatedNetwork) and not _same_dynamics(spec, weights):
        _refuse("wrong-system", "system", "form, slopes, step or time constants differ from those of the given system")
    return system


def identified(statement: Statement, weights: Weights | None) -> System | GatedNetwork:
    """Obligations 6 and 7 alone: the stated system with the given weights.

    Raises:
        InputError: other weights or another system; the slug is the reason code.
    """
    try:
        return _check_weights(_Progress([]), statement, _take(weights))
    except _RefusedError as refusal:
        given = f"what does not fit ({refusal.detail})"
        raise InputError("weights", given, "what the certificate is about", refusal.reason) from refusal


def _names(stated: Mapping[str, tuple[SubjectModel, ...]]) -> list[str]:
    return [subject.name for subjects in stated.values() for subject in subjects]


def _same_dynamics(spec: SystemSpec, system: System | GatedNetwork) -> bool:
    given = SystemSpec.of(system)
    return set(given.tensors) == set(spec.tensors) and given.model_copy(update={"tensors": spec.tensors}) == spec


def _matrix(
    statement: Statement,
    role: str,
    stated: tuple[SubjectModel, ...],
    weights: _Given,
) -> Tensor:
    """The matrix of a role, if it has the stated digests."""
    name = statement.predicate.system.tensors[role]
    try:
        found = _find(role, name, stated, weights, from_memory=statement.file_subject() is None)
    except InputError as error:
        raise _RefusedError("wrong-weights", "weights", f"tensor {name!r}: {error}") from error
    if len(found.subjects) != len(stated):
        _refuse(
            "wrong-weights", "weights", f"tensor {name!r}: one of dense and sparse, the certificate is about the other"
        )
    for subject, expected in zip(found.subjects, stated, strict=True):
        if not expected.agrees(subject):
            detail = f"{subject.dtype} of shape {list(subject.shape)} with sha256 {subject.sha256}"
            _refuse(
                "wrong-weights", "weights", f"tensor {expected.name!r} differs from the certificate's: it is {detail}"
            )
    return found


def _find(
    role: str,
    name: str,
    stated: tuple[SubjectModel, ...],
    weights: _Given,
    *,
    from_memory: bool,
) -> Tensor:
    dimensions = CELL_ROLES.get(role, 2)
    if isinstance(weights, WeightFile):
        if len(stated) == 1:
            if from_memory and name not in weights.tensors:  # stored under another name since: the bytes decide
                same = [entry.name for entry in weights.tensors.values() if stated[0].agrees(entry.subject)]
                name = same[0] if same else name
            _compare_stored(stated[0], weights.get(name, role).subject)
        return weights.matrix(name, role) if dimensions == 2 else weights.get(name, role).tensor(dimensions)
    arrays = weights.tensors if isinstance(weights, System | GatedNetwork) else weights
    for key in (role, name):
        if key in arrays:
            return tensor(role, arrays[key], dimensions)
    raise InputError(
        role, f"arrays {sorted(map(str, arrays))[:8]}", f"an array for {role} (or {name})", "missing-value"
    )


def _compare_stored(stated: SubjectModel, found: Subject) -> None:
    """Compare before converting: other bytes may be NaN, or no matrix at all."""
    if not stated.agrees(found):
        given = f"{found.dtype} of shape {list(found.shape)} with sha256 {found.sha256}"
        raise InputError(stated.name, given, "the bytes that the certificate is about", "wrong-weights")


def _open_proof(
    progress: _Progress, statement: Statement, proof_of: Callable[[Statement], bytes | None]
) -> tuple[ArrayProof, Claims]:
    """Obligation 8."""
    data = proof_of(statement)
    if data is None:
        _refuse(
            "missing-proof", "proof", f"no file {statement.predicate.proof.sha256}{documents.PROOF_SUFFIX} beside it"
        )
    progress.attempt("proof", lambda: documents.check_proof_digest(statement, data), "wrong-proof")
    found: documents.ProofFile = progress.attempt(
        "proof", lambda: documents.read_proof(statement, data), "malformed-proof"
    )
    claims: Claims = progress.attempt("proof", lambda: statement.claims(found.step, found.bound), "malformed-proof")
    progress.held("proof", f"the stated proof file, kind {found.main.kind}")
    return found.main, claims


def _check_words(
    progress: _Progress, statement: Statement, system: System | GatedNetwork, proof: ArrayProof, claims: Claims
) -> None:
    """Obligation 9: what the verifier does not see."""
    stated = statement.predicate.claims
    if stated.norm != norm_of(statement.predicate.system, proof):
        _refuse("false-claim", "words", f"the proof is about another norm than {stated.norm!r}")
    growth = growth_of(proof)
    if stated.growth != growth:
        _refuse("false-claim", "words", f"growth {stated.growth!r} is stated, the witness has {growth!r}")
    if proof.kind in _OTHER and claims != Claims():
        _refuse("false-claim", "words", "a proof of this kind carries no claim but a witness's growth")
    if (stated.factor_bound if statement.continuous else stated.rate_bound) is not None:
        _refuse("false-claim", "words", "a bound of a rate for a map, or of a factor for a differential equation")
    if statement.predicate.condition.name == "symmetric" and not _symmetric(system):
        _refuse("false-claim", "words", "the condition 'symmetric' is stated, and the weights are not symmetric")
    progress.held("words", "norm and growth are those of the proof")


def _symmetric(system: System | GatedNetwork) -> bool:
    if isinstance(system, GatedNetwork) or system.form == "lure" or system.is_sparse:
        return False
    return bool((system.matrix("W") == system.matrix("W").T).all())


def _mathematics(progress: _Progress, statement: Statement, system: Any, proof: Any, claims: Claims) -> Report:
    """Obligation 10. By the format, gated cells meet their own kinds of proof only, and no other network does."""
    if proof.kind in _OTHER:
        report = _OTHER[proof.kind][1](system, proof)
    elif isinstance(proof, GatedProof):
        report = verify_gated(system, proof, claims)
    else:
        report = progress.attempt("proof", lambda: verify_contraction(system, proof, claims), "malformed-proof")
    failed = report.failed
    if failed is None and report.valid and report.verdict == statement.predicate.verdict:
        progress.checks.extend(report.checks)
        return report
    progress.checks.extend(check for check in report.checks if check.held)
    name = "mathematics" if failed is None else failed.name
    raise _RefusedError("false-claim" if name in _CLAIM_CHECKS else "obligation-failed", name, report.detail)


def _audit(progress: _Progress, system: Any, proof: Any, claims: Claims) -> None:
    """Obligation 11."""
    if isinstance(system, GatedNetwork):
        detail = "there is no exact audit of gated cells in this version"
        raise _RefusedError("exact-audit-undecided", "exact-audit", detail)
    from certes import exact  # the extra of that name, loaded when it is asked for

    other = proof.kind in _OTHER
    report: Report = exact.audit_witness(system, proof) if other else exact.audit(system, proof, claims)
    if not report.valid:
        undecided = report.reason is not None and report.reason.endswith("undecided")
        reason = "exact-audit-undecided" if undecided else "exact-audit-failed"
        raise _RefusedError(reason, "exact-audit", report.detail)
    progress.held("exact-audit", "every obligation also holds in exact rational arithmetic")
