"""The benchmarks run at toy sizes, and what they measure are true proofs."""

import json

import numpy as np
import pytest
from certes.verify.contraction import verify_contraction

from benchmarks import __main__, lure, measure, problems, report, sparse


@pytest.mark.parametrize("name", __main__.NAMES)
def test_benchmark_runs_and_writes_json(name, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("untouched")
    assert __main__.main([name, "--quick", "--results", str(tmp_path), "--docs", str(page)]) == 0
    shown = capsys.readouterr().out
    written = json.loads((tmp_path / f"{name}.json").read_text())
    assert written["quick"]
    assert written["machine"]["cores"] >= 1
    assert written["rows"]
    for row in written["rows"]:
        assert row["value"]["median"] > 0
        assert row["aim"] is None  # toy sizes are not judged
        assert row["what"].split()[0] in shown
    assert page.read_text() == "untouched"  # and never reach the docs


@pytest.mark.parametrize("size", [4, 30])
def test_dense_problem_is_proven_with_every_claim_and_no_more(size):
    problem = problems.Dense.random(size)
    assert verify_contraction(problem.system, problem.proof, problem.claims).valid
    full = verify_contraction(problem.system, problem.full_proof, problem.full_claims)
    assert full.valid
    assert not any(check.detail == "not claimed" for check in full.checks)
    np.linalg.cholesky(problem.matrix())


def test_dense_problem_matrix_is_the_block_that_is_verified():
    from certes.verify.lure import block

    problem = problems.Dense.random(5)
    np.testing.assert_allclose(block(problem.system, problem.proof, 0.2).mid, problem.matrix(), rtol=1e-14)


def test_sparse_problem_has_its_size_and_its_perron_root():
    weights = problems.sparse_weights(300)
    assert weights.nnz == 3000
    assert weights.has_canonical_format
    root = np.abs(np.linalg.eigvals(np.abs(weights.toarray()))).max()
    assert root == pytest.approx(0.9, rel=1e-6)


def test_wide_problem_is_proven_and_does_not_fit_float64():
    weights, proof, claims = problems.wide_problem(400)
    assert np.ptp(proof.right_exponent) > 1900
    system = sparse.RateNetwork(weights, slope=(0.0, 1.0))
    assert verify_contraction(system, proof, claims).valid
    assert not verify_contraction(system, proof, sparse.Claims(rate=0.1 + 1e-6)).valid


def test_a_failing_contender_stops_the_race():
    problem = problems.Dense.random(4)
    wrong = lure._checked(problems.Dense(problem.system, problem.proof, sparse.Claims(rate=5.0), *[None] * 2), False)
    with pytest.raises(AssertionError):
        measure.race(wrong, [measure.Contender("nothing", lambda: None)], 1)


def test_race_takes_the_fastest_other_and_pairs_the_rounds(monkeypatch):
    now = [0.0]

    def spend(seconds):
        now[0] += seconds

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    ours = measure.Contender("ours", lambda: spend(3.0))
    others = [measure.Contender("slow", lambda: spend(9.0)), measure.Contender("fast", lambda: spend(2.0))]
    result = measure.race(ours, others, 5)
    assert result.other_name == "fast"
    assert result.ratio.median == pytest.approx(1.5)
    assert result.medians == {"ours": 3.0, "slow": 9.0, "fast": 2.0}


def test_outcome_compares_with_the_aim():
    def row(value, aim):
        return report.Row("w", "s", measure.Spread.of([value]), "x", aim, because="of this")

    assert row(1.0, 1.0).outcome == "met"
    assert row(1.1, 1.0).outcome == "missed because of this"
    assert row(1.1, None).outcome == "-"


def test_markdown_goes_between_the_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_markdown(page, "new")
    assert page.read_text() == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        report.write_markdown(page, "new")


def test_quartiles():
    spread = measure.Spread.of([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (spread.low, spread.median, spread.high, spread.count) == (2.0, 3.0, 4.0, 5)
