"""Certes never says yes wrongly: near-boundary candidates, judged in exact rational arithmetic.

Each unit of work makes some 1,450 candidates on both sides of the truth (``near_boundary``), asks the verifier, and
asks a judge that shares no code with it. The counts and the quantiles of the exact margins are printed and written to
``build/no-false-yes/``, so that one sees the cases were hard. A failure names the seed that reproduces it.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from certes.proofs import AbsoluteProof, LureProof, ProductProof, Proof, SingularProof, SymmetricProof
from certes.verify import contraction, definite, question, verify_contraction
from certes.verify.intervals import Box
from certes.verify.report import Check

from tests.judges import rational
from tests.verify.families import CHEAP, candidates
from tests.verify.near_boundary import Candidate

SEED = 20260401
UNITS = 16
LEAST = 20_000
OUTPUT = Path(__file__).parents[2] / "build" / "no-false-yes"
#: Families that are driven over the edge of a matrix inequality (the others: of a number).
MATRIX_FAMILIES = (
    "lure-",
    "integer-",
    "gram-",
    "radius-slack",
    "extreme-",
    "singular-norm",
    "singular-q",
    "singular-weight",
)
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def exact_margin(candidate: Candidate) -> float | None:
    """The eigenvalue nearest to zero of the equilibrated matrix that had to be positive definite, if there is one."""
    system, proof, claims = candidate.system, candidate.proof, candidate.claims
    if not candidate.family.startswith(MATRIX_FAMILIES):
        return None
    if isinstance(proof, LureProof):
        return rational.signed_margin(rational.lure_block(system, proof, claims))
    if isinstance(proof, SymmetricProof):
        return rational.signed_margin(rational.symmetric_block(system, proof, claims))
    if isinstance(proof, SingularProof):
        return rational.signed_margin(rational.singular_block(system, proof))
    return None


def really_contracts(candidate: Candidate) -> bool:
    """Beyond the proof: every vertex Jacobian contracts in the metric that the proof speaks of."""
    found = rational.metric_of(candidate.system, candidate.proof)
    return found is None or rational.contracts(candidate.system, found[0], candidate.claims, inverse=found[1])


def table(counts: Counter[tuple[str, bool, bool]], margins: dict[str, list[float]]) -> dict[str, object]:
    """Counts by family and in all, and quantiles of the margins, as plain data."""
    families = sorted({family for family, _, _ in counts})
    lines = {}
    groups = {family: [family] for family in families}
    groups |= {"bounds": [family for family in families if family.startswith("bound-")], "all": families}
    for family, chosen in groups.items():
        lines[family] = {
            f"{'true' if holds else 'false'} {'accepted' if accepted else 'refused'}": sum(
                counts[one, holds, accepted] for one in chosen
            )
            for holds in (True, False)
            for accepted in (True, False)
        }
    finite = {name: [m for m in values if np.isfinite(m)] for name, values in margins.items()}
    quantiles = {name: [float(q) for q in np.quantile(values, QUANTILES)] for name, values in finite.items() if values}
    return {"counts": lines, "quantiles": list(QUANTILES), "exact relative margins": quantiles}


def show(summary: dict) -> None:
    print(f"\n{'family':26s} true+accepted  true+refused  false+accepted  false+refused")
    for family, line in summary["counts"].items():
        print(f"{family:26s} " + " ".join(f"{count:14d}" for count in line.values()))
    for name, values in summary["exact relative margins"].items():
        print(f"{name:16s} |margin| quantiles " + "  ".join(f"{value:9.2e}" for value in values))


def gather() -> dict:
    """Merge what the units of this run have written so far."""
    total: Counter[tuple[str, bool, bool]] = Counter()
    margins: dict[str, list[float]] = {}
    for path in sorted(OUTPUT.glob("unit-*.json")):
        stored = json.loads(path.read_text())
        total.update({tuple(key): count for key, count in stored["counts"]})
        for name, values in stored["margins"].items():
            margins.setdefault(name, []).extend(values)
    return table(total, margins)


@pytest.mark.parametrize("unit", range(UNITS))
def test_no_false_yes(unit: int) -> None:
    counts: Counter[tuple[str, bool, bool]] = Counter()
    margins: dict[str, list[float]] = {"true": [], "false": [], "accepted": []}
    for number, (name, candidate) in enumerate(candidates(SEED, unit)):
        failed = candidate.failures()
        accepted = verify_contraction(candidate.system, candidate.proof, candidate.claims).valid
        counts[candidate.family, not failed, accepted] += 1
        assert not (failed and accepted), f"false yes: {name}: {failed}"
        if accepted and number % 3 == 0:
            assert really_contracts(candidate), f"accepted, and a vertex does not contract: {name}"
        if number % 4 == 0 and (margin := exact_margin(candidate)) is not None:
            margins["false" if failed else "true"].append(abs(margin))
            if accepted:
                margins["accepted"].append(abs(margin))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    stored = {"counts": [[list(key), count] for key, count in counts.items()], "margins": margins}
    (OUTPUT / f"unit-{unit:02d}.json").write_text(json.dumps(stored))
    summary = gather()
    (OUTPUT / "summary.json").write_text(json.dumps(summary, indent=1))
    show(summary)
    here = table(counts, margins)["counts"]["all"]
    assert sum(here.values()) >= LEAST / UNITS, "too few candidates"
    assert here["true accepted"] >= 200, "the verifier has to say yes to something"
    assert here["true refused"] + here["false refused"] >= 600
    assert np.quantile(margins["false"], 0.25) < 1e-11, "the false cases have to be close"
    assert np.quantile(margins["accepted"], 0.25) < 1e-8, "the accepted cases have to be close"


# What each obligation is for ---------------------------------------------------------------------------------


@functools.cache
def false_candidates(unit: int, cheap: bool) -> list[Candidate]:
    found = candidates(SEED, unit, CHEAP if cheap else None)
    return [candidate for _, candidate in found if candidate.failures()]


def all_false() -> Iterator[Candidate]:
    """The false candidates of the same run, those that cost little first, as far as they are asked for."""
    for cheap in (True, False):
        for unit in range(UNITS):
            yield from false_candidates(unit, cheap)


def accepts(candidate: Candidate) -> bool:
    try:
        return verify_contraction(candidate.system, candidate.proof, candidate.claims).valid
    except (IndexError, ValueError, TypeError, OverflowError, ZeroDivisionError, AssertionError):
        return False  # an obligation that guards the next one was dropped


def holds_always(asked: object) -> Check:
    return Check("dropped", True)


def dropped() -> Iterator[tuple[str, type[Proof] | str, int]]:
    for kind, obligations in contraction.OBLIGATIONS.items():
        for k, obligation in enumerate(obligations):
            yield f"{kind.kind}-{obligation.__name__}", kind, k
    for table_name in ("BEFORE", "AFTER"):
        for k, obligation in enumerate(getattr(contraction, table_name)):
            yield f"{table_name.lower()}-{obligation.__name__}", table_name, k


@pytest.mark.parametrize(("where", "index"), [pytest.param(w, k, id=name) for name, w, k in dropped()])
def test_dropping_an_obligation_lets_a_false_claim_through(
    where: type[Proof] | str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(where, str):
        changed = list(getattr(contraction, where))
        changed[index] = holds_always
        monkeypatch.setattr(contraction, where, tuple(changed))
    else:
        changed = list(contraction.OBLIGATIONS[where])
        changed[index] = holds_always
        monkeypatch.setitem(contraction.OBLIGATIONS, where, tuple(changed))
    assert any(accepts(candidate) for candidate in all_false()), "no candidate shows what this obligation is for"


def test_every_kind_of_proof_has_obligations() -> None:
    kinds = {AbsoluteProof, SymmetricProof, ProductProof, SingularProof, LureProof}
    assert set(contraction.OBLIGATIONS) == kinds
    assert all(contraction.OBLIGATIONS.values())


def without_radii(box: Box | definite.SymmetricBox, margin: float = 0.0) -> bool:
    """positive_definite of the midpoint, as if nothing had been rounded while the block was built."""
    if isinstance(box, Box):
        return definite.positive_definite(Box.exact(box.mid), margin)
    bare = tuple(tuple(Box.exact(block.mid) for block in row) for row in box.blocks)
    return definite.positive_definite(definite.SymmetricBox(bare), margin)


@pytest.mark.parametrize("part", ["factorisation", "radii", "all"])
def test_dropping_a_part_of_the_shift_lets_a_block_pass_that_is_not_definite(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the error bound of the Cholesky, without the radii of the entries, without both."""
    if part == "factorisation":
        monkeypatch.setattr(definite, "U", 0.0)  # gamma = 0
    elif part == "radii":
        monkeypatch.setattr(question, "positive_definite", without_radii)
    else:
        monkeypatch.setattr(definite, "_shift", lambda *anything: 0.0)
    assert any(accepts(candidate) for candidate in all_false())


# Not too timid ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 20, 60, 200])
def test_no_block_with_a_margin_above_1e_8_is_refused(size: int) -> None:
    rng = np.random.default_rng(size)
    for margin in (2e-8, 5e-8, 2e-7, 1e-6):
        for spread in (0.0, 20.0):
            basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
            values = np.geomspace(1e-3, 2.0, size)
            matrix = basis * values @ basis.T
            matrix /= np.sqrt(np.diag(matrix))[:, None] * np.sqrt(np.diag(matrix))  # unit diagonal: equilibrated
            lowest, vectors = np.linalg.eigh(matrix)
            matrix -= (lowest[0] - margin) * np.outer(vectors[:, 0], vectors[:, 0])
            matrix = np.tril(matrix) + np.tril(matrix, -1).T
            units = 2.0 ** rng.integers(-int(spread), int(spread) + 1, size)
            scaled = matrix * units[:, None] * units
            radius = np.abs(scaled) * 2.0**-52  # as if every entry had been rounded twice
            assert definite.positive_definite(Box(scaled, radius)), (margin, spread)


def test_a_candidate_has_a_name_that_reproduces_it() -> None:
    first, again = ([(n, c.claims) for n, c in itertools.islice(candidates(SEED, 3), 50)] for _ in range(2))
    assert first == again
