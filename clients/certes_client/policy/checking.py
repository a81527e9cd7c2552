"""Whether every network of a policy keeps its promises: one outcome per model, with each rule that was looked at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

from certes.certificate.envelope import key_id, read_key
from certes.errors import CertesError, InputError
from certes.words import claimed

from certes_client.policy.document import ModelPolicy, Policy
from certes_client.policy.store import Document, Store
from certes_client.policy.subjects import Subject, Undecided, subjects
from certes_client.remote.errors import RemoteError

State = Literal["passed", "failed", "undecided", "error"]
#: The exit code of each state; the code of a whole policy is that of the worst model, in this order.
EXIT: dict[State, int] = {"passed": 0, "undecided": 3, "failed": 1, "error": 2}
_WORST: tuple[State, ...] = ("passed", "undecided", "failed", "error")


@dataclass(frozen=True)
class Rule:
    """One thing that had to hold.

    Attributes:
        name: as in the policy; ``contracting`` and ``signature`` besides.
        held: whether it does.
        wanted, found: in words.
        part: of what, where a model consists of several networks (the directions of a torch.nn.RNN); else empty.
    """

    name: str
    held: bool
    wanted: str
    found: str
    part: str = ""

    @property
    def label(self) -> str:
        """The name, after that of the part."""
        return f"{self.part}: {self.name}" if self.part else self.name

    def sentence(self) -> str:
        """What was found, and what was wanted if that is something else."""
        if self.name == "contracting":
            return f"{self.part}: {self.found}" if self.part else self.found
        return f"{self.label}: {self.found}" if self.held else f"{self.label}: wanted {self.wanted}, found {self.found}"


@dataclass(frozen=True)
class Outcome:
    """What became of one model.

    Attributes:
        model: its name.
        file: its weights or its description, as the policy names them.
        state: ``passed``, ``failed``, ``undecided``, or ``error``: it could not be looked at.
        rules: what was looked at, in order.
        detail: the reason where there is no certificate.
        certificates: (part, certificate), of each part that has one.
        cached: they were there already, and were verified again.
        seconds: that it took.
    """

    model: str
    file: str
    state: State
    rules: tuple[Rule, ...] = ()
    detail: str = ""
    certificates: tuple[tuple[str, Document], ...] = ()
    cached: bool = False
    seconds: float = field(default=0.0, compare=False)

    @property
    def certificate(self) -> Document | None:
        """The certificate; of several, the one that says least."""
        found = [document for _, document in self.certificates]
        return min(found, key=lambda document: _pace(_claims(document)) or 0, default=None)

    @property
    def broken(self) -> list[Rule]:
        """The rules that do not hold."""
        return [rule for rule in self.rules if not rule.held]

    def sentence(self) -> str:
        """What is wrong, or what holds, in one line."""
        if self.state == "error":
            return self.detail
        return "; ".join(rule.sentence() for rule in self.broken or self.rules)


def exit_code(outcomes: list[Outcome]) -> int:
    """Of a whole policy: 0 all passed, 3 one is undecided, 1 one lost its guarantee, 2 one could not be looked at."""
    return EXIT[max((outcome.state for outcome in outcomes), key=_WORST.index, default="passed")]


class Checker:
    """Checks a policy.

    Args:
        policy: what must hold.
        folder: what its paths are relative to.
        sign: an Ed25519 private key (PEM) that signs what is certified now; None: nothing is signed.
        progress: told what is being done.
        server: address of a service that looks for certificates, which are verified here; None: that is done here.

    Raises:
        InputError: a trusted key that is none, or an index that cannot be read.
    """

    def __init__(
        self,
        policy: Policy,
        folder: Path,
        sign: bytes | None = None,
        progress: Callable[[str], None] = lambda _: None,
        server: str | None = None,
    ) -> None:
        self._policy, self._folder, self._sign, self._progress = policy, folder, sign, progress
        self._server = server
        self.store = Store(inside(folder, policy.certificates, "certificates"))
        self._revoked = frozenset(policy.trust.revoked)
        self._keys = [_key(inside(folder, path, "trust.keys")) for path in policy.trust.keys]

    def check(self, name: str) -> Outcome:
        """Look at one model. Never raises for what is wrong with it alone.

        Raises:
            RemoteError: the service did not answer, or not truly: nobody knows what it would say of the others.
        """
        model, began = self._policy.models[name], time.perf_counter()
        try:
            outcome = self._checked(name, model)
        except RemoteError:
            raise
        except CertesError as error:
            outcome = Outcome(name, model.source, "error", detail=str(error))
        return replace(outcome, seconds=time.perf_counter() - began)

    def accept(self, outcomes: list[Outcome]) -> None:
        """From now on the certificates of those that passed are what later ones are compared with.

        Raises:
            InputError: the folder cannot be written.
        """
        for outcome in outcomes:
            for part, document in outcome.certificates if outcome.state == "passed" else ():
                self.store.accept(_place(outcome.model, part), document)
        self.store.write()

    def _checked(self, name: str, model: ModelPolicy) -> Outcome:
        self._progress(f"{name}: reading {model.source}")
        field = f"models.{name}.{'file' if model.assembly is None else 'assembly'}"
        path = inside(self._folder, model.source, field)
        if model.assembly is not None and path.is_dir():
            from certes.trained import DESCRIPTION  # brings all of composition with it

            # the link in a folder may lead out of it
            path = inside(self._folder, f"{model.source}/{DESCRIPTION}", field)
        found = [self._part(name, model, part) for part in subjects(model, path, self._server)]
        return Outcome(
            name, model.source, max((part.state for part in found), key=_WORST.index),
            tuple(rule for part in found for rule in part.rules), "",
            tuple(entry for part in found for entry in part.certificates), all(part.cached for part in found),
        )  # fmt: skip

    def _part(self, name: str, model: ModelPolicy, subject: Subject | Undecided) -> Outcome:
        """Look at a model, or at the part of it that has a certificate of its own."""
        if isinstance(subject, Undecided):
            return Outcome(name, model.source, "undecided", (_undecided(subject, ""),))
        asked = subject.question(model)
        certificate, cached = self._known(asked, subject), True
        if certificate is None:
            self._progress(f"{_place(name, subject.part)}: certifying")
            cached = False
            found = subject.answer(model, lambda document: _promised(model, subject, document), self._progress)
            if isinstance(found, Undecided):
                return Outcome(name, model.source, "undecided", (_undecided(found, subject.part),))
            certificate = found
        if self._sign is not None and not (cached and certificate.signed):  # a service may have signed, too
            certificate = certificate.sign(self._sign)
            self.store.keep(asked, certificate)
        elif not cached:
            self.store.keep(asked, certificate)
        rules = tuple(replace(rule, part=subject.part) for rule in self._rules(name, model, subject, certificate))
        held = all(rule.held for rule in rules)
        undecided = certificate.verdict == "undecided"
        state: State = "passed" if held else "undecided" if undecided else "failed"
        return Outcome(name, model.source, state, rules, "", ((subject.part, certificate),), cached)

    def _known(self, asked: str, subject: Subject) -> Document | None:
        """A certificate that answers the question; whatever the folder says, only one that is verified now."""
        found = self.store.answer(asked)
        return found if found is not None and subject.holds(found) else None

    def _rules(self, name: str, model: ModelPolicy, subject: Subject, certificate: Document) -> list[Rule]:
        rules = [Rule("contracting", certificate.verdict == "contracting", "contracting", _said(certificate, subject))]
        if self._policy.trust.keys:
            rules.append(self._signature(certificate, subject))
        if certificate.verdict == "contracting":
            rules += _numbers(model, subject, _claims(certificate))
            place = _place(name, subject.part)
            if model.allowed_regression is not None and place in self.store.accepted:
                if subject.gate is not None:  # nobody knows the gate that was accepted: it is in no certificate
                    rules.append(Rule("allowed_regression", False, "a network without a gate", "one with a gate"))
                    return rules
                rules.append(self._regression(model.allowed_regression, certificate, self.store.last(place)))
        return rules

    def _regression(self, allowed: float, now: Document, last: Document | None) -> Rule:
        """The rate, or 1 - factor, against the certificate that was accepted last."""
        if last is None:  # to take a file away must not take the rule away
            wanted = "the accepted certificate, as index.json names it"
            return Rule("allowed_regression", False, wanted, "missing or damaged")
        if self._keys and not any(_signed(last, pem) for keyid, pem in self._keys if keyid not in self._revoked):
            wanted = "an accepted certificate with a trusted signature"
            return Rule("allowed_regression", False, wanted, "none to compare with")
        return regression(allowed, _claims(now), _claims(last))

    def _signature(self, certificate: Document, subject: Subject) -> Rule:
        wanted = "signed by a trusted key"
        if not certificate.signed:
            return Rule("signature", False, wanted, "unsigned")
        for keyid, pem in self._keys:
            if keyid not in self._revoked and subject.holds(certificate, pem):
                return Rule("signature", True, wanted, f"signed by {keyid[:16]}")
        signed = ", ".join(keyid[:16] for keyid in certificate.keyids)
        fate = "revoked" if set(certificate.keyids) <= self._revoked else "not trusted"
        return Rule("signature", False, wanted, f"signed by {signed}: {fate}")


def inside(folder: Path, path: str, name: str) -> Path:
    """A path of the policy, which must not lead out of its folder.

    Raises:
        InputError: it does.
    """
    found = folder / path
    if Path(path).is_absolute() or not found.resolve().is_relative_to(folder.resolve()):
        raise InputError(name, repr(path)[:200], "a path inside the policy's folder", "outside")
    return found


def _key(path: Path) -> tuple[str, bytes]:
    """(id, PEM) of a public key."""
    pem = read_key(path)
    return key_id(pem), pem


class _Paced(Protocol):
    """What a certificate says about speed."""

    @property
    def rate(self) -> float | None: ...
    @property
    def factor(self) -> float | None: ...


def _claims(certificate: Document) -> Any:
    """The numbers, as they are stated."""
    return certificate.statement.predicate.claims


def _place(model: str, part: str) -> str:
    """What the index calls it; no name of a model has a slash."""
    return f"{model}/{part}" if part else model


def _said(certificate: Document, subject: Subject) -> str:
    """The verdict, with the rate or factor."""
    rate, factor = _as_run(subject, _claims(certificate))
    if rate is not None:
        return f"contracting, rate {claimed(rate, up=False)}"
    if factor is not None:
        return f"contracting, factor {claimed(factor, up=True)}"
    return certificate.verdict.replace("_", " ")


def _as_run(subject: Subject, claims: Any) -> tuple[float | None, float | None]:
    """Rate and factor of the network that is run: with its gate, if it has one."""
    if subject.gate is None:
        return claims.rate, claims.factor
    found = subject.gate.to_json(claims.rate, claims.factor)
    return found["rate"], found["factor"]


def _undecided(found: Undecided, part: str) -> Rule:
    return Rule("contracting", False, "contracting", f"undecided ({found.reason}): {found.detail}", part)


def _promised(model: ModelPolicy, subject: Subject, certificate: Document) -> bool:
    """Whether a certificate claims all the numbers that are demanded."""
    return all(rule.held for rule in _numbers(model, subject, _claims(certificate)))


def _numbers(model: ModelPolicy, subject: Subject, claims: Any) -> list[Rule]:
    """The rules about what is claimed. A number that is not claimed keeps no promise."""
    rate, factor = _as_run(subject, claims)
    rules = [
        _least("rate_at_least", model.rate_at_least, rate),
        _most("factor_at_most", model.factor_at_most, factor),
        # no certificate of an assembly claims a radius
        _least("weight_radius_at_least", model.weight_radius_at_least, getattr(claims, "weight_radius", None)),
    ]
    if model.step_margin_at_least is not None:
        largest = None if claims.largest_step is None else claims.largest_step.step
        run = model.step_used if model.step_used is not None else subject.step
        margin = None if largest is None or run is None else float(Fraction(largest) / Fraction(run))
        rules.append(_least("step_margin_at_least", model.step_margin_at_least, margin))
    return [rule for rule in rules if rule is not None]


def _least(name: str, wanted: float | None, found: float | None) -> Rule | None:
    if wanted is None:
        return None
    said = "not claimed" if found is None else claimed(found, up=False)
    return Rule(name, found is not None and found >= wanted, f"at least {wanted:g}", said)


def _most(name: str, wanted: float | None, found: float | None) -> Rule | None:
    if wanted is None:
        return None
    said = "not claimed" if found is None else claimed(found, up=True)
    return Rule(name, found is not None and found <= wanted, f"at most {wanted:g}", said)


def regression(allowed: float, now: _Paced, last: _Paced) -> Rule:
    """Whether no more was lost than is allowed; compared exactly.

    Args:
        allowed: part of the rate (or of 1 - factor) that may be lost.
        now: claims of the network as it is.
        last: claims of the one that was accepted.
    """
    pace, before = _pace(now), _pace(last)
    if pace is None or before is None or (now.rate is None) != (last.rate is None):
        return Rule("allowed_regression", False, "the same kind of guarantee as before", "another kind")
    least = before * (1 - Fraction(allowed))
    unit = "1 - factor" if now.rate is None else "a rate"
    wanted = f"{unit} of at least {float(least):.6g} ({float(before):.6g} before)"
    return Rule("allowed_regression", pace >= least, wanted, f"{float(pace):.6g}")


def _pace(claims: _Paced) -> Fraction | None:
    if claims.rate is not None:
        return Fraction(claims.rate)
    return None if claims.factor is None else 1 - Fraction(claims.factor)


def _signed(certificate: Document, pem: bytes) -> bool:
    try:
        certificate.envelope.authenticate(pem)
    except InputError:
        return False
    return True
