"""Is the certificate of an assembly to be believed? Every document of the graph is looked at, everything checked once.

First the graph is walked from the whole to its networks. Of each place in it, in this order:

     1. envelope     a DSSE envelope in canonical form                                           malformed
     2. format       payload type, statement type, predicate type and version are known          unsupported-format
     3. signature    of the whole, if a key is demanded                  unsigned, untrusted-key, bad-signature
     4. statement    well-formed, canonical, and in itself consistent                            malformed
     5. digest       it is the certificate that the step above names                  missing-child, wrong-child
     6. condition    the theorem is known, and its proof shows this verdict       unknown-condition, false-claim
     7. proof        the proof file is there and is the stated one                      missing-proof, wrong-proof
     8. system       if an assembly was given: it has these modules, edges, this step            wrong-system
     9. weights      the tensor of every edge, the weights of every network  missing-weights, wrong-weights, wrong-file

Then every certificate of a network is checked with the list of :mod:`certes.certificate.check`, each once however often
it is used, and every composition step once, those below first:

    10. modules      every module was proven, has the stated size, and a network's rate is a proof in its own metric
                     (its reason; false-claim, obligation-failed)
    11. arrays       the proof file holds such a proof                                           malformed-proof
    12. mathematics  :func:`certes.verify.verify_interface` of every network, with the Lipschitz constant that is used;
                     then ``verify_flow``, ``verify_maps`` or ``verify_whole``      obligation-failed, false-claim
    13. claims       rate, factor, Lipschitz constant, norm are those of the proof; the largest step follows from them
                                                                                                 false-claim

A failure has the path of its place: of a network (``brain/v1/layer2``), of an assembly (``brain/v1``), of an edge
(``brain/v1<-v2``). What does not depend on it is checked all the same. What is proven is kept under the digest of its
certificate, which binds weights, proof and everything below; a cache may be kept from one verification to the next.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

from certes.assemblies import Assembly, CompositionProof, FlowProof, InterfaceProof, WholeProof
from certes.certificate import document as documents
from certes.certificate.assembly import AssemblyBundle, StepProof, read_step
from certes.certificate.assembly_statement import NORMS, AssemblyStatement, Kind, ModuleModel, count_channels
from certes.certificate.assembly_walk import ASSEMBLY_REASONS, Place, RefusedError, Walk, check_signature
from certes.certificate.assembly_weights import AssemblyWeights, Sources
from certes.certificate.check import verify_certificate
from certes.certificate.envelope import read_key
from certes.certificate.statement import Statement
from certes.errors import InputError
from certes.proofs import LureProof
from certes.systems import System
from certes.verify import Check, Report, verify_flow, verify_interface, verify_maps, verify_whole
from certes.verify.composition import Node, euler_factor_squared
from certes.verify.interface import Interface

__all__ = ["ASSEMBLY_REASONS", "AssemblyReport", "Cache", "NodeReport", "Proven", "verify_assembly"]

_CLAIM_CHECKS = frozenset({"range", "lipschitz", "euler"})


@dataclass(frozen=True)
class NodeReport:
    """The outcome for one place of an assembly.

    Attributes:
        path: ``brain/v1/layer2``; empty: the whole.
        kind: ``network`` or ``assembly``.
        digest: of its certificate.
        report: what was checked there.
        level: the proven rate (factor); None if it is not proven.
        blamed: path of the place or edge that failed, if this one is not proven.
        cached: whether it was taken from the cache.
    """

    path: str
    kind: Kind
    digest: str
    report: Report
    level: float | None = None
    blamed: str | None = None
    cached: bool = False


@dataclass(frozen=True)
class AssemblyReport(Report):
    """The outcome of the verification of an assembly; ``checks`` are those of the whole.

    Attributes:
        path: of the place or edge that failed first; empty: the whole. None if everything held.
        nodes: every place, each assembly before its modules.
        leaves_checked, steps_checked: how many certificates of networks and of composition steps were checked now.
        from_cache: how many were taken from the cache.
    """

    path: str | None = None
    nodes: tuple[NodeReport, ...] = ()
    leaves_checked: int = 0
    steps_checked: int = 0
    from_cache: int = 0


@dataclass(frozen=True, eq=False)
class Proven:
    """What a certificate was found to prove; a cache maps digests to these.

    Attributes:
        module: the network or assembly.
        report: of its check.
        interface: of an assembly; None for networks (it depends on the Lipschitz constant asked of them), and for
            assemblies that were proven as a whole, which cannot be modules of another.
        level: rate or factor.
    """

    module: System | Assembly
    report: Report
    interface: Interface | None
    level: float


Cache = MutableMapping[str, Proven]


def verify_assembly(
    certificate: AssemblyBundle | str | os.PathLike[str],
    weights: AssemblyWeights | None,
    *,
    key: bytes | str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    cache: Cache | None = None,
) -> AssemblyReport:
    """Check the certificate of an assembly and of everything in it: the list of this module's docstring.

    Args:
        certificate: all its documents, or the path of the file of the whole (the others are looked for beside it).
        weights: the assembly; or a mapping: path of a network -> whatever :func:`certes.verify` takes for a network,
            path of an edge (``"brain/v1<-v2"``) or pair of its ends' paths -> array, other keys -> weight files; or
            weight files and folders. What is not given by path is looked for by digest in the files that were given,
            couplings also in those that lie with the certificate.
        key: an Ed25519 public key (PEM bytes or path) that must have signed the certificate of the whole, which names
            all others by digest; None: signatures are not checked.
        jobs: threads; None: as many as there are processors.
        cache: what is already proven, by digest; what is proven now is added.

    Returns:
        A report; ``valid`` if and only if everything held, the same for any number of threads.

    Raises:
        InputError: something of the user's cannot be read (file, key). What can be read and is wrong is a report with a
            reason.
    """
    pem = None if key is None else read_key(key)
    if isinstance(certificate, AssemblyBundle):
        root, document = certificate.root, certificate.documents.get(certificate.root)
        bundle = certificate
    else:
        bundle = AssemblyBundle.read(certificate)
        root, document = bundle.root, bundle.documents[bundle.root]
    whole = Place("", "assembly", root)
    if document is None:
        whole.refuse("missing-child", "digest", f"no document {root}")
    else:
        check_signature(whole, document, pem)
    known: Cache = {} if cache is None else cache
    walk = Walk(bundle, Sources(weights, bundle.couplings.values()))
    if whole.refusal is None:
        walk.run(whole)
    proving = _Proving(walk, known, jobs or os.cpu_count() or 1)
    proving.run(whole)
    return proving.report(whole)


class _Proving:
    """Obligations 10 to 13, digest by digest, and the report."""

    def __init__(self, walk: Walk, cache: Cache, jobs: int) -> None:
        self.walk, self.cache, self.jobs = walk, cache, jobs
        self.failed: dict[str, Report] = {}
        self.now: set[str] = set()
        self.used: set[str] = set()
        self.stored: dict[str, StepProof] = {}
        self.interfaces: dict[str, tuple[Report, Interface | None]] = {}
        self.leaves = self.steps = 0
        self._order: dict[str, int] = {}

    def run(self, whole: Place) -> None:
        """Check every certificate that is needed, networks first, then steps by height."""
        needed: dict[str, Place] = {}
        for place in _needed(whole, self.cache, self.used):
            # a place whose own weights fit stands for all of its digest
            if place.refusal is None and place.digest not in needed:
                needed[place.digest] = place
        with ThreadPoolExecutor(self.jobs) as pool:
            networks = [place for place in needed.values() if place.kind == "network"]
            self._take(networks, pool.map(self._network, networks))
            self.leaves = len(networks)
            steps = [place for place in needed.values() if place.kind == "assembly"]
            offered = self._offered(steps)
            self.interfaces = dict(zip(offered, pool.map(self._interface, offered.values()), strict=True))
            for height in sorted({place.height for place in steps}):
                ready = [p for p in steps if p.height == height and all(c.digest in self.cache for c in p.children)]
                self._take(ready, pool.map(self._step, ready))
                self.steps += len(ready)

    def _offered(self, steps: list[Place]) -> dict[str, tuple[System, InterfaceProof]]:
        """Every interface that a step asks of a network, once however many steps ask for it."""
        found: dict[str, tuple[System, InterfaceProof]] = {}
        for place in steps:
            assert isinstance(place.statement, AssemblyStatement)
            assert place.condition is not None
            data = self.walk.bundle.proofs[place.statement.predicate.proof.sha256]
            try:
                stored = self.stored[place.digest] = read_step(place.statement, place.condition, data)
            except InputError as error:
                self.failed[place.digest] = _failure((), "malformed-proof", "arrays", str(error))
                continue
            if isinstance(stored.proof, WholeProof):
                continue
            for position, module in enumerate(place.statement.predicate.modules):
                if module.kind == "network" and module.certificate in self.cache:
                    key = interface_key(module.certificate, stored, position, module.name)
                    if key not in found and (asked := self._asked(module, stored, position)) is not None:
                        found[key] = asked
        return found

    def _asked(self, module: ModuleModel, stored: StepProof, position: int) -> tuple[System, InterfaceProof] | None:
        """The interface of a network as its certificate and a step state it; None if its proof is of another kind."""
        child = self.cache[module.certificate]
        document = self.walk.bundle.documents[module.certificate]
        sha256 = documents.open_document(document)[1].predicate.proof.sha256
        proof = documents.Certificate(document, self.walk.bundle.proofs[sha256]).array_proof
        if not isinstance(proof, LureProof) or proof.dual or not isinstance(child.module, System):
            return None
        multipliers = stored.multipliers.get(module.name, 0.0 * proof.multipliers)
        lipschitz = float(stored.lipschitz[position])
        return child.module, InterfaceProof(proof.metric, proof.multipliers, multipliers, child.level, lipschitz)

    def _interface(self, asked: tuple[System, InterfaceProof]) -> tuple[Report, Interface | None]:
        return verify_interface(*asked)

    def _take(self, places: list[Place], results: Iterable[Proven | Report]) -> None:
        for place, result in zip(places, results, strict=True):
            if isinstance(result, Proven):
                self.cache[place.digest] = result
                self.now.add(place.digest)
            else:
                self.failed[place.digest] = result

    def _network(self, place: Place) -> Proven | Report:
        assert isinstance(place.statement, Statement)
        assert place.system is not None
        predicate = place.statement.predicate
        files = self.walk.bundle.documents[place.digest], self.walk.bundle.proofs[predicate.proof.sha256]
        report = verify_certificate(files, place.system)
        if not report.valid:
            return report
        level = predicate.claims.rate if place.system.continuous else predicate.claims.factor
        if report.verdict != "contracting" or level is None:
            return _failure(report.checks, "false-claim", "verdict", f"a module that is {report.verdict}")
        return Proven(place.system, report, None, level)

    def _step(self, place: Place) -> Proven | Report:
        if place.digest in self.failed:
            return self.failed[place.digest]
        step = _Step(self, place)
        try:
            return step.run()
        except RefusedError as refusal:
            return _failure(tuple(step.checks), refusal.reason, refusal.name, refusal.detail)

    def report(self, whole: Place) -> AssemblyReport:
        """What came out at every place, and of the whole."""
        nodes: list[NodeReport] = []
        own = self._node(whole, nodes, covered=False)
        nodes.sort(key=lambda node: self._order[node.path])
        return AssemblyReport(
            own.report.verdict, own.report.checks, own.report.reason, own.report.detail,
            own.blamed, tuple(nodes), self.leaves, self.steps, len(self.used),
        )  # fmt: skip

    def _node(self, place: Place, nodes: list[NodeReport], *, covered: bool) -> NodeReport:
        """The report of a place; those below it are appended first, and sorted afterwards.

        Args:
            place: the place.
            nodes: where the report is appended.
            covered: whether it is part of what is proven already.
        """
        self._order[place.path] = len(self._order)
        covered = covered or place.digest in self.cache
        below = [self._node(child, nodes, covered=covered) for child in place.children]
        bad = next((child for child in below if child.blamed is not None), None)
        report, blamed, level = self._outcome(place, bad, covered=covered)
        cached = blamed is None and place.digest not in self.now
        node = NodeReport(place.path, place.kind, place.digest, report, level, blamed, cached)
        nodes.append(node)
        return node

    def _outcome(
        self, place: Place, bad: NodeReport | None, *, covered: bool
    ) -> tuple[Report, str | None, float | None]:
        checks = tuple(place.checks)
        if place.refusal is not None:
            reason, path = place.refusal
            return Report("undecided", checks, reason, _at(path, checks[-1].detail)), path, None
        if bad is not None:
            check = Check("modules", False, f"{bad.blamed} does not hold")
            return Report("undecided", (*checks, check), bad.report.reason, bad.report.detail), bad.blamed, None
        if place.digest in self.cache:
            proven = self.cache[place.digest]
            return Report("contracting", (*checks, *proven.report.checks)), None, proven.level
        if covered and place.statement is not None and place.digest not in self.failed:
            claims = place.statement.predicate.claims
            level = claims.factor if claims.rate is None else claims.rate
            return Report("contracting", (*checks, Check("mathematics", True, "part of what is proven"))), None, level
        failed = self.failed[place.digest]
        checks = (*checks, *failed.checks)
        return Report("undecided", checks, failed.reason, _at(place.path, failed.detail)), place.path, None


def _at(path: str, detail: str) -> str:
    return detail if not path or detail.startswith(f"{path}:") else f"{path}: {detail}"


def interface_key(digest: str, stored: StepProof, position: int, name: str) -> str:
    """What a step asks of a network: its certificate, Lipschitz constant and multipliers."""
    asked = hashlib.sha256(stored.lipschitz[position].tobytes())
    asked.update(stored.multipliers[name].tobytes() if name in stored.multipliers else b"")
    return f"{digest}:{asked.hexdigest()}"


def _needed(whole: Place, cache: Cache, used: set[str]) -> Iterator[Place]:
    """Places whose certificates are not proven yet; what lies below a proven one is proven."""
    waiting = [whole]
    while waiting:
        place = waiting.pop()
        if place.digest in cache:
            used.add(place.digest)
            continue
        yield place
        waiting.extend(reversed(place.children))


def _failure(checks: tuple[Check, ...], reason: str, name: str, detail: str) -> Report:
    return Report("undecided", (*checks, Check(name, False, detail)), reason, f"{name}: {detail}")


class _Step:
    """Obligations 10 to 13 of one composition step, whose modules are proven."""

    def __init__(self, proving: _Proving, place: Place) -> None:
        assert isinstance(place.statement, AssemblyStatement)
        assert place.condition is not None
        self.proving, self.place, self.statement = proving, place, place.statement
        self.kind: type[CompositionProof] = place.condition
        self.children = {module.name: proving.cache[module.certificate] for module in self.statement.predicate.modules}
        self.checks: list[Check] = []

    def run(self) -> Proven:
        """Everything in order.

        Raises:
            RefusedError: at the first that fails.
        """
        assembly = self._assembly()
        stored = self.proving.stored[self.place.digest]
        self._hold("arrays", f"a proof of kind {self.kind.kind}")
        interface, level = self._mathematics(assembly, stored)
        self._claims(assembly, stored.proof, level)
        return Proven(assembly, Report("contracting", tuple(self.checks)), interface, level)

    def _hold(self, name: str, detail: str) -> None:
        self.checks.append(Check(name, True, detail))

    def _assembly(self) -> Assembly:
        """Obligation 10: the modules as they were proven, of the stated sizes."""
        predicate = self.statement.predicate
        for module in predicate.modules:
            proven = self.children[module.name].module
            own = proven.size, count_channels(proven)
            if own != (module.states, module.channels):
                stated = f"{module.states} states and {module.channels} nonlinearities are stated"
                raise RefusedError("false-claim", "modules", f"{module.name}: {stated}, it has {own[0]} and {own[1]}")
        try:
            modules = {name: child.module for name, child in self.children.items()}
            found = Assembly(modules, self.place.couplings, predicate.step)
        except InputError as error:
            raise RefusedError("malformed", "modules", str(error)) from error
        self._hold("modules", f"{len(modules)} modules are proven")
        return found

    def _mathematics(self, assembly: Assembly, stored: StepProof) -> tuple[Interface | None, float]:
        """Obligation 12."""
        proof = stored.proof
        if isinstance(proof, WholeProof):
            self._judge(verify_whole(assembly, proof))
            return None, proof.level
        node = Node(assembly, [self._interface(k, name, stored) for k, name in enumerate(self.children)])
        report, interface = verify_flow(node, proof) if isinstance(proof, FlowProof) else verify_maps(node, proof)
        self._judge(report)
        assert interface is not None
        return interface, interface.level

    def _judge(self, report: Report) -> None:
        failed = report.failed
        if report.valid and failed is None and report.verdict == "contracting":
            self.checks.extend(report.checks)
            return
        self.checks.extend(check for check in report.checks if check.held)
        name = "mathematics" if failed is None else failed.name
        reason = "false-claim" if name in _CLAIM_CHECKS else "obligation-failed"
        raise RefusedError(reason, name, report.detail.removeprefix(f"{name}: "))

    def _interface(self, position: int, name: str, stored: StepProof) -> Interface:
        """What a module offers: an assembly, what was proven of it; a network, its metric proven once more, with K."""
        child, digest = self.children[name], self.statement.predicate.modules[position].certificate
        if isinstance(child.module, Assembly):
            if child.interface is None:
                raise RefusedError("obligation-failed", "interface", f"{name}: proven as a whole, it offers no metric")
            return child.interface
        found = self.proving.interfaces.get(interface_key(digest, stored, position, name))
        if found is None:
            raise RefusedError("obligation-failed", "interface", f"{name}: its proof has no metric of its own states")
        report, interface = found
        if interface is None:
            at = "interface" if report.failed is None else report.failed.name
            reason = "false-claim" if at in _CLAIM_CHECKS else "obligation-failed"
            raise RefusedError(reason, at, f"{name}: {report.detail}")
        return interface

    def _claims(self, assembly: Assembly, proof: CompositionProof, level: float) -> None:
        """Obligation 13."""
        claims = self.statement.predicate.claims
        rate, factor = (level, None) if assembly.continuous else (None, level)
        lipschitz = proof.lipschitz if isinstance(proof, FlowProof) and assembly.step is None else 0.0
        proven = {"rate": rate, "factor": factor, "lipschitz": lipschitz if lipschitz > 0.0 else None}
        proven["norm"] = NORMS[self.kind]  # type: ignore[assignment]
        for name, value in proven.items():
            stated = getattr(claims, name)
            if stated != value:
                raise RefusedError("false-claim", "claims", f"{name} {stated!r} is stated, {value!r} is proven")
        if claims.largest_step is not None:
            self._largest_step(claims.largest_step.step, claims.largest_step.factor, rate, lipschitz)
        self._hold("claims", "rate or factor, Lipschitz constant, norm and largest step are those of the proof")

    def _largest_step(self, step: float, factor: float, rate: float | None, lipschitz: float) -> None:
        """The Euler factor squared is convex in the step and 1 at 0: what holds at the largest holds up to it."""
        held = rate is not None and lipschitz > 0.0 and step > 0.0 and 0.0 < factor < 1.0
        if not held or rate is None or euler_factor_squared(rate, lipschitz, step) > Fraction(factor) ** 2:
            raise RefusedError("false-claim", "largest-step", f"factor {factor!r} at step {step!r} does not follow")
