"""Whether every network of a policy keeps its promises: one outcome per model, with each rule that was looked at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

from certes.cells import GatedNetwork
from certes.certificate.check import verify_certificate
from certes.certificate.document import Certificate
from certes.certificate.envelope import key_id, read_key
from certes.certify import certify
from certes.errors import CertesError, InputError
from certes.proofs import Claims
from certes.systems import System, UnsupportedCell
from certes.weights import read_weights
from certes.words import claimed

from certes_client.policy.document import ModelPolicy, Policy
from certes_client.policy.store import Store, question

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
    """

    name: str
    held: bool
    wanted: str
    found: str

    def sentence(self) -> str:
        """What was found, and what was wanted if that is something else."""
        if self.name == "contracting":
            return self.found
        return f"{self.name}: {self.found}" if self.held else f"{self.name}: wanted {self.wanted}, found {self.found}"


@dataclass(frozen=True)
class Outcome:
    """What became of one model.

    Attributes:
        model: its name.
        file: its weights, as the policy names them.
        state: ``passed``, ``failed``, ``undecided``, or ``error``: it could not be looked at.
        rules: what was looked at, in order.
        detail: the reason where there is no certificate.
        certificate: the certificate, if there is one.
        cached: it was there already, and was verified again.
        seconds: that it took.
    """

    model: str
    file: str
    state: State
    rules: tuple[Rule, ...] = ()
    detail: str = ""
    certificate: Certificate | None = None
    cached: bool = False
    seconds: float = field(default=0.0, compare=False)

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

    Raises:
        InputError: a trusted key that is none, or an index that cannot be read.
    """

    def __init__(
        self, policy: Policy, folder: Path, sign: bytes | None = None, progress: Callable[[str], None] = lambda _: None
    ) -> None:
        self._policy, self._folder, self._sign, self._progress = policy, folder, sign, progress
        self.store = Store(inside(folder, policy.certificates, "certificates"))
        self._revoked = frozenset(policy.trust.revoked)
        self._keys = [_key(inside(folder, path, "trust.keys")) for path in policy.trust.keys]

    def check(self, name: str) -> Outcome:
        """Look at one model. Never raises for what is wrong with it alone."""
        model, began = self._policy.models[name], time.perf_counter()
        try:
            outcome = self._checked(name, model)
        except CertesError as error:
            outcome = Outcome(name, model.file, "error", detail=str(error))
        return Outcome(**{**vars(outcome), "seconds": time.perf_counter() - began})

    def accept(self, outcomes: list[Outcome]) -> None:
        """From now on the certificates of those that passed are what later ones are compared with.

        Raises:
            InputError: the folder cannot be written.
        """
        for outcome in outcomes:
            if outcome.state == "passed" and outcome.certificate is not None:
                self.store.accept(outcome.model, outcome.certificate)
        self.store.write()

    def _checked(self, name: str, model: ModelPolicy) -> Outcome:
        self._progress(f"{name}: reading {model.file}")
        weights = read_weights(inside(self._folder, model.file, f"models.{name}.file"))
        system = model.system.system(weights)
        if isinstance(system, UnsupportedCell):
            return Outcome(name, model.file, "undecided", (_undecided("unsupported_cell", system.detail),))
        asked = question(model, system)
        certificate, cached = self._known(asked, system), True
        if certificate is None:
            self._progress(f"{name}: certifying")
            cached = False
            result = certify(system, model.condition, model.asked, seconds=model.seconds)
            certificate = result.certificate
            if certificate is None:
                return Outcome(name, model.file, "undecided", (_undecided(result.reason, result.detail),))
        if self._sign is not None and not certificate.signed:
            certificate = certificate.sign(self._sign)
            self.store.keep(asked, certificate)
        elif not cached:
            self.store.keep(asked, certificate)
        rules = tuple(self._rules(name, model, system, certificate))
        held = all(rule.held for rule in rules)
        undecided = certificate.verdict == "undecided"
        state: State = "passed" if held else "undecided" if undecided else "failed"
        return Outcome(name, model.file, state, rules, "", certificate, cached)

    def _known(self, asked: str, system: System | GatedNetwork) -> Certificate | None:
        """A certificate that answers the question; whatever the folder says, only one that is verified now."""
        found = self.store.answer(asked)
        return found if found is not None and verify_certificate(found, system).valid else None

    def _rules(self, name: str, model: ModelPolicy, system: System | GatedNetwork, certificate: Certificate) -> list[Rule]:
        rules = [Rule("contracting", certificate.verdict == "contracting", "contracting", _said(certificate))]
        if self._policy.trust.keys:
            rules.append(self._signature(certificate, system))
        if certificate.verdict == "contracting":
            rules += _numbers(model, system, certificate.claims)
            if model.allowed_regression is not None and (last := self.store.last(name)) is not None:
                rules.append(self._regression(model.allowed_regression, certificate.claims, last))
        return rules

    def _regression(self, allowed: float, now: Claims, last: Certificate) -> Rule:
        """The rate, or 1 - factor, against the certificate that was accepted last."""
        if self._keys and not any(_signed(last, pem) for keyid, pem in self._keys if keyid not in self._revoked):
            wanted = "an accepted certificate with a trusted signature"
            return Rule("allowed_regression", False, wanted, "none to compare with")
        return regression(allowed, now, last.claims)

    def _signature(self, certificate: Certificate, system: System | GatedNetwork) -> Rule:
        wanted = "signed by a trusted key"
        if not certificate.signed:
            return Rule("signature", False, wanted, "unsigned")
        for keyid, pem in self._keys:
            if keyid not in self._revoked and verify_certificate(certificate, system, key=pem).valid:
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


def _said(certificate: Certificate) -> str:
    """The verdict, with the rate or factor."""
    claims = certificate.statement.predicate.claims
    if claims.rate is not None:
        return f"contracting, rate {claimed(claims.rate, up=False)}"
    if claims.factor is not None:
        return f"contracting, factor {claimed(claims.factor, up=True)}"
    return certificate.verdict.replace("_", " ")


def _undecided(reason: str | None, detail: str) -> Rule:
    return Rule("contracting", False, "contracting", f"undecided ({reason}): {detail}")


def _numbers(model: ModelPolicy, system: System | GatedNetwork, claims: Claims) -> list[Rule]:
    """The rules about what is claimed. A number that is not claimed keeps no promise."""
    rules = [
        _least("rate_at_least", model.rate_at_least, claims.rate),
        _most("factor_at_most", model.factor_at_most, claims.factor),
        _least("weight_radius_at_least", model.weight_radius_at_least, claims.weight_radius),
    ]
    if model.step_margin_at_least is not None:
        largest = None if claims.largest_step is None else claims.largest_step.step
        run = model.step_used if model.step_used is not None else system.step if isinstance(system, System) else None
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


def regression(allowed: float, now: Claims, last: Claims) -> Rule:
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


def _pace(claims: Claims) -> Fraction | None:
    if claims.rate is not None:
        return Fraction(claims.rate)
    return None if claims.factor is None else 1 - Fraction(claims.factor)


def _signed(certificate: Certificate, pem: bytes) -> bool:
    try:
        certificate.envelope.authenticate(pem)
    except InputError:
        return False
    return True
