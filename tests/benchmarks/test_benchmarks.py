"""The benchmarks run at toy sizes, and what they measure are true proofs."""

import json

import numpy as np
import pytest
from certes.composition import whole
from certes.conditions.reference import reduced
from certes.engines import conic, frequency, scaling
from certes.engines.monitor import Monitor
from certes.verify.contraction import verify_contraction

from benchmarks import (
    __main__,
    alternative,
    assemblies,
    child,
    growth,
    lure,
    measure,
    problems,
    report,
    sparse,
    stopwatch,
)

#: Those that start services or processes with torch, or compose large assemblies.
_LONG = ("load", "service", "assemblies", "training")


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in _LONG)) for name in __main__.NAMES]
)
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
    # a bound speaks of all proofs, so that no proof carries one by itself
    assert {check.name for check in full.checks if check.detail == "not claimed"} == {"bound"}
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


def test_a_speed_meets_its_aim_from_above():
    def row(value):
        return report.Row("w", "s", measure.Spread.of([value]), "times faster", 20.0, because="of this")

    assert row(20.0).outcome == "met"
    assert row(19.0).outcome == "missed because of this"
    assert row(19.0).cells()[-3:-1] == ["19 times faster", ">= 20 times faster"]


def test_markdown_goes_between_the_markers(tmp_path):
    page = tmp_path / "page.md"
    other = "<!-- lure: begin -->\nother\n<!-- lure: end -->"
    page.write_text(f"before\n{other}\n<!-- load: begin -->\nold\n<!-- load: end -->\nafter\n")
    report.write_markdown(page, "load", "new")
    assert page.read_text() == f"before\n{other}\n<!-- load: begin -->\nnew\n<!-- load: end -->\nafter\n"
    with pytest.raises(ValueError, match="markers"):
        report.write_markdown(page, "engine", "new")


def test_every_benchmark_has_its_place_on_the_page():
    text = (__main__.ROOT / "docs" / "benchmarks.md").read_text()
    for name in __main__.NAMES:
        assert text.count(f"<!-- {name}: begin -->") == text.count(f"<!-- {name}: end -->") == 1
        assert f"| `{name}` |" in text


def test_quartiles():
    spread = measure.Spread.of([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (spread.low, spread.median, spread.high, spread.count) == (2.0, 3.0, 4.0, 5)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when told to: clock(seconds)."""
    now = [0.0]

    def spend(seconds):
        now[0] += seconds

    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    return spend


def test_stopwatch_counts_a_call_within_a_call_once_and_puts_everything_back(clock):
    class Work:
        def outer(self):
            clock(1.0)
            self.inner()
            self.inner()

        def inner(self):
            clock(2.0)

    before = dict(vars(Work))
    watch = stopwatch.Stopwatch()
    with watch.watching([(Work, "outer", "out"), (Work, "inner", "in")]):
        watch.timed("all", lambda: (clock(3.0), Work().outer()))()
    assert watch.seconds == {"in": 4.0, "out": 1.0, "all": 3.0}
    assert watch.shares("all") == {"in": 0.5, "other": 0.375, "out": 0.125}
    assert dict(vars(Work)) == before


def test_stopwatch_counts_calls_that_fail_and_refuses_names_that_are_gone(clock):
    watch = stopwatch.Stopwatch()

    def fail():
        clock(1.0)
        raise ValueError

    with pytest.raises(ValueError):
        watch.timed("all", lambda: watch.timed("failing", fail)())()
    assert watch.seconds == {"failing": 1.0, "all": 0.0}
    with pytest.raises(AttributeError), watch.watching([(growth, "rows", "r"), (growth, "no such name", "n")]):
        pass
    assert not hasattr(growth.rows, "__wrapped__")


@pytest.mark.parametrize("kind", ["uniform", "general"])
def test_alternative_answers_the_question_that_ours_answers(kind):
    if kind == "uniform":
        weights = problems.gaussian_weights(5)
        rate = scaling.optimise(weights, conic.Rate(), tolerance=1e-6).level
        ask = lambda level: alternative.Feasibility.uniform(weights, level)  # noqa: E731
    else:
        form = reduced(problems.heterogeneous(4))
        rate = frequency.optimise(form, tolerance=1e-6).strength
        ask = lambda level: alternative.Feasibility.general(form, level)  # noqa: E731
    assert rate > 0.1
    assert ask(0.99 * rate).solve("CLARABEL").status == "optimal"
    assert ask(1.01 * rate).solve("CLARABEL").status in ("infeasible", "infeasible_inaccurate")
    found = ask(0.9 * rate).solve(eps_abs=1e-4)
    assert (found.status, found.capped, found.name) == ("optimal", False, "SCS, eps_abs 0.0001")
    assert found.iterations > 0
    assert found.seconds > 0


def test_the_alternative_to_an_assembly_answers_the_question_that_ours_answers():
    assembly = assemblies._mixed(2, 4)
    composed = assemblies._composed(assembly)
    block = whole.prove(assembly, *assemblies._start(composed))
    best = whole.monolithic(assembly, Monitor())
    assert composed.rate <= block.proof.level <= best.proof.level * (1 + 1e-9)
    form = reduced(whole.flattened(assembly))
    ask = lambda level: alternative.Feasibility.general(form, level).solve("CLARABEL").status  # noqa: E731
    assert ask(0.99 * best.proof.level) == "optimal"
    assert ask(1.01 * best.proof.level) in ("infeasible", "infeasible_inaccurate")


def test_couplings_of_an_assembly_are_as_strong_as_described():
    norms = dict.fromkeys((f"m{k}" for k in range(25)), 0.0)
    group = assemblies._group(32, 25, 0)
    assert len(group.couplings) == 4 * 25
    for edge in group.couplings:
        norms[edge.to] += np.linalg.norm(edge.matrix, 2)
        norms[edge.source] += np.linalg.norm(edge.matrix, 2)
    assert np.mean(list(norms.values())) == pytest.approx(assemblies.STRENGTH, rel=0.1)
    between = assemblies._between(32, 25, 3)
    assert np.linalg.norm(between, 2) == pytest.approx(assemblies.STRENGTH / 10, rel=0.15)
    touched = between.reshape(25, 32, 25, 32).any(axis=(1, 3))
    assert touched.sum() == 10
    assert touched.sum(axis=0).max() == touched.sum(axis=1).max() == 1


def test_a_composition_that_proves_nothing_stops_the_benchmark():
    modules = {name: assemblies.RateNetwork(problems.gaussian_weights(3), slope=(0.0, 1.0)) for name in "ab"}
    strong = assemblies.build(modules, {("a", "b"): 9.0 * np.eye(3), ("b", "a"): 9.0 * np.eye(3)}, None)
    with pytest.raises(AssertionError, match="interconnection"):
        assemblies._composed(strong)


def test_a_solver_that_ran_out_of_time_says_so():
    answer = alternative.Feasibility.uniform(problems.gaussian_weights(12), 0.4).solve(limit=1e-4, eps_abs=1e-14)
    assert answer.capped
    assert answer.words.startswith("SCS, eps_abs 1e-14, stopped at 0 s: at least")


def test_threads_are_those_of_the_faster_alternative(monkeypatch):
    given = {1: 4.0, 2: 2.0}
    monkeypatch.setattr(alternative.child, "run", lambda *arguments, threads: given[threads])
    found = alternative.Threads.of("engine", 5, 2)
    assert found.count == 2
    assert found.words == "BLAS threads: 1, alternative 2"
    (row,) = found.rows("here")
    assert row.value.median == 0.5
    assert "SCS, 50 iterations, 2 BLAS threads against 1" in row.what
    assert not list(alternative.Threads.of("engine", 5, 1).rows("here"))


def test_contest_runs_ours_around_the_others():
    log = []

    def ours():
        log.append("ours")
        return (float(len(log)), 9.0)

    def other():
        log.append("other")
        return alternative.Answer("SCS", 1.0, 2, "optimal", False)

    found = alternative.contest(ours, [other], 3)
    assert log == ["ours", "ours", "other", "ours"]
    assert found["ours"] == [[1.0, 2.0, 4.0], [9.0] * 3]
    assert alternative.Answer(**found["others"][0]) == other()


def test_child_gets_its_threads_and_its_peak_starts_anew(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    seen = {}

    def run(command, **settings):
        seen.update(settings["env"], command=command)
        return child.subprocess.CompletedProcess(command, 0, stdout="[1]")

    monkeypatch.setattr(child.subprocess, "run", run)
    assert child.run("growth", 3, 1) == [1]
    assert seen["OPENBLAS_NUM_THREADS"] == "7"
    assert seen["command"][-3:] == ["benchmarks.growth", "3", "1"]
    child.run("growth", 3, 1, threads=2)
    assert seen["OPENBLAS_NUM_THREADS"] == seen["OMP_NUM_THREADS"] == "2"


def test_peak_sees_what_is_held_for_a_moment():
    np.ones(16_000_000).sum()
    child.forget_peak()
    before = child.resident()
    held = np.ones(8_000_000)  # so large that malloc has the system map it: nothing that was freed is used again
    del held
    assert 60e6 < child.peak() - before < 80e6


def test_heterogeneous_problem_is_as_described():
    system = problems.heterogeneous(40)
    rates = -np.diag(system.matrix("A"))
    assert rates.min() > 0.5
    assert rates.max() < 2.0
    assert rates.max() / rates.min() > 2.0
    coupling = system.matrix("A") / rates[:, None] + np.eye(40)
    np.testing.assert_allclose(coupling, -coupling.T, atol=1e-15)
    assert np.linalg.norm(coupling, 2) > 0.05
    np.testing.assert_array_equal(system.matrix("C"), np.eye(40))


def test_results_as_json(tmp_path):
    rows = [
        report.Row(
            "a",
            "n = 1",
            measure.Spread(1.0, 0.5, 2.0, 5),
            "x",
            2.0,
            measure.Spread(1.0, 1.0, 1.0, 5),
            None,
            "that",
            "so it is",
        ),
        report.Row("b", "n = 2", measure.Spread(9.0, 9.0, 9.0, 1), "times faster", 20.0, because="slow", note={"k": 1}),
    ]
    report.write_json(tmp_path / "x.json", rows, {}, quick=False)
    written = json.loads((tmp_path / "x.json").read_text())
    assert [row["outcome"] for row in written["rows"]] == ["met", "missed because slow"]
    assert written["rows"][0]["value"] == {"median": 1.0, "low": 0.5, "high": 2.0, "count": 5}
    assert not written["quick"]
