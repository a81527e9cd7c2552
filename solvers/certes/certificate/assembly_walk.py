"""The walk through the certificates of an assembly: obligations 1 to 9 of :mod:`certes.certificate.assembly_check`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from certes.assemblies import DEEPEST, SEPARATOR, CompositionProof, Coupling
from certes.certificate import document as documents
from certes.certificate.assembly import AssemblyBundle, digest_of, open_assembly
from certes.certificate.assembly_statement import CONDITIONS, AssemblyStatement, Kind
from certes.certificate.assembly_weights import Sources
from certes.certificate.check import REASONS
from certes.certificate.envelope import Envelope
from certes.certificate.statement import Statement
from certes.errors import InputError
from certes.systems import System, Tensor
from certes.verify import Check

#: Every reason code of an assembly's report that is not valid. Codes are added, never changed or removed.
ASSEMBLY_REASONS: tuple[str, ...] = (*REASONS, "missing-child", "wrong-child")
#: Places of an assembly (networks and assemblies in it) that are accepted.
MOST_PLACES = 200_000


class RefusedError(Exception):
    """Carries a failed check to where it is noted; never leaves the verification."""

    def __init__(self, reason: str, name: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.name, self.detail = reason, name, detail


@dataclass(eq=False)
class Place:
    """A place of the assembly on its way through the checks.

    Attributes:
        path, kind, digest: which one, and the certificate that is named for it.
        checks: what was checked so far.
        refusal: the reason, and the path that is to blame; None: nothing failed here (below it, something may have).
        statement, condition, system, couplings: what was found, as far as the walk came.
        children: its modules.
        height: 0 for a network, else one more than that of its highest module.
    """

    path: str
    kind: Kind
    digest: str
    checks: list[Check] = field(default_factory=list)
    refusal: tuple[str, str] | None = None
    statement: Statement | AssemblyStatement | None = None
    condition: type[CompositionProof] | None = None
    system: System | None = None
    couplings: tuple[Coupling, ...] = ()
    children: list[Place] = field(default_factory=list)
    height: int = 0

    @property
    def prefix(self) -> str:
        """What the paths of its modules and edges begin with."""
        return f"{self.path}{SEPARATOR}" if self.path else ""

    def held(self, name: str, detail: str) -> None:
        """Note what was found true."""
        self.checks.append(Check(name, True, detail))

    def refuse(self, reason: str, name: str, detail: str, path: str | None = None) -> None:
        """Note what was found false; ``path``: of the edge that is to blame, if it is not the place itself."""
        self.checks.append(Check(name, False, detail))
        self.refusal = reason, self.path if path is None else path

    def attempt(self, name: str, work: Callable[[], Any], default: str, path: str | None = None) -> Any:
        """Run ``work``; an InputError refuses, with its slug if that is a reason code, else ``default``."""
        try:
            return work()
        except InputError as error:
            self.refuse(error.slug if error.slug in ASSEMBLY_REASONS else default, name, str(error), path)
            return None


def check_signature(whole: Place, document: bytes, key: bytes | None) -> None:
    """Obligation 3, before anything of the payload is parsed."""
    envelope: Envelope | None = whole.attempt("envelope", lambda: Envelope.from_bytes(document), "malformed")
    if envelope is None:
        return
    keyids = ", ".join(keyid for keyid, _ in envelope.signatures)
    if key is None:
        said = f"signed by {keyids}; NOT CHECKED, no key was demanded" if keyids else "unsigned; no key was demanded"
        whole.held("signature", said)
        return
    try:
        whole.held("signature", f"signed by the demanded key {envelope.authenticate(key)}")
    except InputError as error:
        if error.slug == "bad-key":
            raise
        whole.refuse(error.slug, "signature", str(error))


class Walk:
    """Obligations 1 to 9, place by place."""

    def __init__(self, bundle: AssemblyBundle, sources: Sources) -> None:
        self.bundle, self.sources = bundle, sources
        self._opened: dict[tuple[str, Kind], Statement | AssemblyStatement | InputError] = {}
        self._digests: dict[str, str] = {}
        self._proofs: dict[str, str | None] = {}

    def run(self, whole: Place) -> None:
        """Check every place; an assembly too large to be looked at is refused as a whole.

        A few documents can name each other so often that there are more places than atoms.
        """
        if self._places(whole.digest, "assembly", 1, {}) > MOST_PLACES:
            limit = f"at most {MOST_PLACES} modules in {DEEPEST} levels"
            whole.refuse("malformed", "statement", f"an assembly too large: {limit}")
            return
        self._visit(whole)
        if whole.refusal is None and (left := self.sources.unused()):
            detail = f"{left[0]} was given, and there is no such network or edge in what the certificate is about"
            whole.refuse("wrong-system", "system", detail)

    def _places(self, digest: str, kind: Kind, depth: int, known: dict[str, int]) -> int:
        """How many places there are from here on; each certificate is opened once for that."""
        if depth > DEEPEST + 1:
            return MOST_PLACES + 1
        if digest not in known:
            statement = self._look(digest, kind)
            modules = statement.predicate.modules if isinstance(statement, AssemblyStatement) else []
            below = [self._places(module.certificate, module.kind, depth + 1, known) for module in modules]
            known[digest] = 1 + sum(below)
        return known[digest]

    def _look(self, digest: str, kind: Kind) -> Statement | AssemblyStatement | InputError | None:
        """The statement of a certificate that is there and is the one that is named."""
        document = self.bundle.documents.get(digest)
        if document is None:
            return None
        if (digest, kind) not in self._opened:
            self._opened[digest, kind] = _statement(kind, document)
            self._digests[digest] = digest_of(document)
        statement = self._opened[digest, kind]
        return statement if isinstance(statement, InputError) or self._digests[digest] == digest else None

    def _visit(self, place: Place) -> None:
        self._open(place)
        statement = place.statement
        if isinstance(statement, AssemblyStatement):
            for module in statement.predicate.modules:
                child = Place(place.prefix + module.name, module.kind, module.certificate)
                place.children.append(child)
                self._visit(child)
            place.height = 1 + max(child.height for child in place.children)
        if statement is not None and place.refusal is None:
            self._identify(place, statement)

    def _open(self, place: Place) -> None:
        """1, 2 and 4 to 7."""
        if place.digest not in self.bundle.documents:
            place.refuse("missing-child", "digest", f"no certificate {place.digest} of this {place.kind}")
            return
        statement = self._look(place.digest, place.kind)
        if isinstance(statement, InputError):
            reason = statement.slug if statement.slug in ASSEMBLY_REASONS else "malformed"
            place.refuse(reason, "statement", str(statement))
            return
        if statement is None:
            found = self._digests[place.digest]
            place.refuse("wrong-child", "digest", f"the certificate {found}; {place.digest} is named")
            return
        place.statement = statement
        place.held("statement", "well-formed, canonical, and the one that is named")
        if isinstance(statement, AssemblyStatement):
            self._condition(place, statement)
        if place.refusal is None:
            self._proof(place, statement.predicate.proof.sha256)

    def _condition(self, place: Place, statement: AssemblyStatement) -> None:
        predicate = statement.predicate
        name, version = predicate.condition.name, predicate.condition.version
        kind = CONDITIONS[predicate.format].get((name, version))
        if kind is None or predicate.proof.kind != kind.kind:
            detail = f"no condition {name!r} of version {version} with proofs of kind {predicate.proof.kind!r}"
            place.refuse("unknown-condition", "condition", f"{detail} is known here")
            return
        place.condition = kind
        if predicate.verdict != "contracting":
            place.refuse("false-claim", "condition", f"a composition cannot show {predicate.verdict!r}")
            return
        place.held("condition", f"{name} version {version}")

    def _proof(self, place: Place, sha256: str) -> None:
        if sha256 not in self._proofs:
            data = self.bundle.proofs.get(sha256)
            self._proofs[sha256] = None if data is None else hashlib.sha256(data).hexdigest()
        found = self._proofs[sha256]
        if found is None:
            place.refuse("missing-proof", "proof", f"no file {sha256}{documents.PROOF_SUFFIX}")
        elif found != sha256:
            place.refuse("wrong-proof", "proof", f"a proof file with sha256 {found}, the stated one has {sha256}")
        else:
            place.held("proof", "the stated proof file")

    def _identify(self, place: Place, statement: Statement | AssemblyStatement) -> None:
        """8 and 9."""
        if isinstance(statement, Statement):
            find = partial(self.sources.network, place.path, place.digest, statement)
            place.system = place.attempt("weights", find, "wrong-weights")
            if place.refusal is None:
                place.held("weights", "tensors have the stated digests")
            return
        place.attempt("system", partial(self.sources.check_structure, place.path, statement), "wrong-system")
        edges: list[Coupling] = []
        for edge, subject in statement.tensors if place.refusal is None else ():
            path = place.prefix + edge.name
            take = partial(self.sources.coupling, place.prefix, edge, subject)
            weights: Tensor | None = place.attempt("weights", take, "wrong-weights", path)
            if weights is None:
                return
            edges.append(Coupling(edge.to, edge.source, weights, edge.inside))
        if place.refusal is None:
            place.couplings = tuple(edges)
            place.held("weights", f"the tensors of {len(edges)} couplings have the stated digests")


def _statement(kind: Kind, document: bytes) -> Statement | AssemblyStatement | InputError:
    try:
        return open_assembly(document)[1] if kind == "assembly" else documents.open_document(document)[1]
    except InputError as error:
        return error
