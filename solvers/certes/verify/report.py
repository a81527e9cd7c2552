"""What the verifier answers: one line per obligation, and the verdict that follows from all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from certes.proofs import Verdict


@dataclass(frozen=True)
class Check:
    """One obligation.

    Attributes:
        name: stable name of the obligation (``"metric-positive"``).
        held: whether it was proven.
        detail: what was checked, with its numbers.
        missing: how much more the quantity had to exceed its bound, if that is known (None if it held).
    """

    name: str
    held: bool
    detail: str = ""
    missing: float | None = None


@dataclass(frozen=True)
class Report:
    """The outcome of a verification.

    Attributes:
        verdict: what is proven: ``contracting``, ``not_contracting``, or ``undecided`` if an obligation failed.
        checks: the obligations in their order; checking stops at the first that fails.
        reason: None if everything held; else a stable code (``"obligation-failed"``, ``"bad-signature"``, ...).
        detail: the reason in words.
    """

    verdict: Verdict
    checks: tuple[Check, ...] = field(default=())
    reason: str | None = None
    detail: str = ""

    @property
    def valid(self) -> bool:
        """Whether every obligation held."""
        return self.reason is None

    @property
    def failed(self) -> Check | None:
        """The first obligation that did not hold."""
        return next((check for check in self.checks if not check.held), None)


def judged(verdict: Verdict, checks: Iterable[Check]) -> Report:
    """``verdict`` if there are checks and every one of them held; they are made up to the first that fails.

    Args:
        verdict: what follows from all of them.
        checks: made while this function runs, so that none is made after one that failed.
    """
    done: list[Check] = []
    with np.errstate(all="ignore"):  # overflow ends in inf or NaN, and each check refuses those
        for check in checks:
            done.append(check)
            if not check.held:
                break
    if done and done[-1].held:
        return Report(verdict, tuple(done))
    detail = f"{done[-1].name}: not proven: {done[-1].detail}" if done else "nothing was checked"
    return Report("undecided", tuple(done), "obligation-failed", detail)
