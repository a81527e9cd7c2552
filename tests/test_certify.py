"""``certify``: the whole way from weights to a verified answer, and what it says when there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import certes
import numpy as np
import pytest
from certes.conditions import NAMES, Goal, NothingFound, reference
from certes.conditions import lure as lure_module
from certes.conditions.base import Backend, Candidate
from certes.engines import duality, frequency
from certes.errors import InputError
from certes.proofs import Claims, LureProof
from certes.results import Attempt, Result
from certes.systems import HopfieldNetwork, LureSystem, RateNetwork, System, UnsupportedCell
from certes.verify import Report

W4 = np.random.default_rng(41).normal(size=(4, 4))
W4 *= 0.9 / np.linalg.norm(W4, 2)


def skew(w: float) -> list[list[float]]:
    return [[0.0, -w], [w, 0.0]]


def arrays(system: System) -> dict[str, np.ndarray]:
    return {role: system.matrix(role) for role in system.tensors}


def attempt(result: Result, condition: str) -> Attempt:
    return next(entry for entry in result.attempts if entry.condition == condition)


# --- the truths


@pytest.mark.cases(2)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("network", [RateNetwork, HopfieldNetwork])
def test_skew_coupling(network: type, activation: str) -> None:
    yes = certes.certify(network(skew(1.99), activation))
    assert (yes.verdict, yes.condition) == ("contracting", "lure")
    assert yes.rate == pytest.approx(0.005, abs=2e-6)
    assert yes.rate_bound == pytest.approx(0.005, abs=1e-5)
    border = certes.certify(network(skew(2.0), activation))
    assert (border.verdict, border.reason, border.certificate) == ("undecided", "margin", None)
    for w in (2.2, 2.5):
        between = certes.certify(network(skew(w), activation))
        assert (between.verdict, between.reason) == ("undecided", "no_quadratic_metric")
        assert between.rate is None
        assert between.certificate is not None
        report = certes.verify(between.certificate, {"W": skew(w)})
        assert (report.valid, report.verdict) == (True, "undecided")
        assert between.certified_scale == pytest.approx(2 / w, rel=2e-2)
        assert between.certified_scale is not None
        assert between.certified_scale < 2 / w
    no = certes.certify(network(skew(4.0), activation))
    assert (no.verdict, no.condition) == ("not_contracting", "switching")
    assert no.certificate is not None
    assert certes.verify(no.certificate, {"W": skew(4.0)}).verdict == "not_contracting"


@pytest.mark.parametrize(
    "system",
    [
        RateNetwork(W4, "tanh"),
        RateNetwork(W4.astype(np.float32), "tanh", step=0.2),
        HopfieldNetwork(W4, "relu", tau=[0.5, 1.0, 2.0, 3.0]),
        HopfieldNetwork(W4, slope=(-0.2, 0.8), step=0.5, tau=2.0),
        LureSystem(-np.eye(4), 0.5 * np.eye(4), W4, slope=(0.0, 1.0)),
        LureSystem(0.3 * np.eye(4), 0.5 * np.eye(4), W4, activation="tanh", discrete=True),
    ],
    ids=lambda system: f"{system.form}",
)
def test_a_certificate_convinces_a_stranger(system: System) -> None:
    result = certes.certify(system)
    assert result.verdict == "contracting"
    assert (result.rate is None) != (result.factor is None)
    assert result.certificate is not None
    assert result.certificate.verdict == "contracting"
    weights = {role: system.matrix(role) for role in system.tensors}
    if system.subjects[0].dtype == "F32":
        weights = {role: value.astype(np.float32) for role, value in weights.items()}
    assert certes.verify(result.certificate, weights).valid
    role = next(iter(weights))
    assert certes.verify(result.certificate, {**weights, role: 1.5 * weights[role]}).reason == "wrong-weights"


def test_an_unstable_network_is_refuted_before_the_costly_condition() -> None:
    system = RateNetwork([[3.0, 1.0], [0.0, 0.5]], "tanh")
    result = certes.certify(system)
    assert (result.verdict, result.condition) == ("not_contracting", "instability")
    assert result.witness is not None
    assert result.rate is None
    assert result.reason is None
    assert "lure" not in [entry.condition for entry in result.attempts]
    assert result.certificate is not None
    report = certes.verify(result.certificate, arrays(system))
    assert report.valid
    assert report.verdict == "not_contracting"


def test_without_refutation_it_stays_open() -> None:
    result = certes.certify(RateNetwork([[3.0]], "tanh"), refute=False)
    assert result.verdict == "undecided"
    assert "instability" not in [entry.condition for entry in result.attempts]


def test_one_condition_alone_is_asked_and_then_the_refutation() -> None:
    result = certes.certify(RateNetwork(W4, "tanh"), "singular")
    assert result.condition == "singular"
    assert [entry.condition for entry in result.attempts] == ["singular"]
    result = certes.certify(RateNetwork([[3.0]], "tanh"), "singular")
    assert result.verdict == "not_contracting"
    assert [entry.condition for entry in result.attempts] == ["singular", "instability"]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_an_unsupported_cell_is_undecided(cell: str) -> None:
    result = certes.certify(UnsupportedCell(cell, "three gates"))
    assert (result.verdict, result.reason) == ("undecided", "unsupported_cell")
    assert cell in result.detail


# --- auto


def test_the_best_proven_rate_wins_and_the_others_are_named() -> None:
    result = certes.certify(RateNetwork(W4, "tanh"))
    proven = {entry.condition: entry.rate for entry in result.attempts if entry.outcome == "proven"}
    assert {"singular", "lure"} <= set(proven)
    assert result.rate == max(rate for rate in proven.values() if rate is not None)
    assert result.condition == "lure"
    assert set(result.also) == set(proven) - {"lure"}
    assert [entry.condition for entry in result.attempts] == list(NAMES)


def test_of_equal_rates_the_cheapest_condition_wins_and_lure_is_not_needed() -> None:
    result = certes.certify(RateNetwork([[0.5, 0.2], [0.2, -0.3]], "tanh"))
    assert result.condition == "symmetric"
    assert result.rate == pytest.approx(1 - np.linalg.eigvalsh([[0.5, 0.2], [0.2, -0.3]])[-1], abs=1e-8)
    assert attempt(result, "lure").reason == "not-needed"


def test_a_target_is_proven_exactly_and_cheaply_if_it_can() -> None:
    system = RateNetwork(W4, "tanh")
    result = certes.certify(system, rate=0.05)
    assert result.rate == 0.05
    assert attempt(result, "lure").reason == "not-needed"
    best = certes.certify(system).rate
    assert best is not None
    harder = certes.certify(system, rate=0.9 * best)
    assert (harder.condition, harder.rate) == ("lure", 0.9 * best)
    beyond = certes.certify(system, rate=1.1 * best)
    assert (beyond.verdict, beyond.reason) == ("undecided", "margin")
    factor = certes.certify(RateNetwork(W4, "tanh", step=1.0), rate=0.95)
    assert factor.factor == 0.95


def test_progress_and_determinism() -> None:
    lines: list[str] = []
    system = RateNetwork(W4, "tanh", tau=[0.5, 1.0, 2.0, 3.0])
    first = certes.certify(system, progress=lines.append)
    assert any("step 1" in line for line in lines)  # of the engine
    second = certes.certify(system)
    assert first.certificate is not None
    assert second.certificate is not None
    assert first.certificate.payload == second.certificate.payload
    assert first.certificate.proof == second.certificate.proof


def test_the_result_is_json() -> None:
    for system in (RateNetwork(W4, "tanh"), RateNetwork([[3.0]], "tanh"), RateNetwork(skew(2.5), "tanh")):
        result = certes.certify(system)
        plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
        assert plain["verdict"] == result.verdict
        assert plain["condition"] == result.condition
        assert (plain["certificate"] is None) == (result.certificate is None)
        assert [entry["condition"] for entry in plain["attempts"]] == [entry.condition for entry in result.attempts]


def test_infinite_margins_are_null_in_json() -> None:
    refused = Attempt("lure", "refused", rate=0.5, reason="margin", missing_margin=float("inf"))
    plain = Result("undecided", reason="margin", attempts=(refused,)).to_json()
    assert plain["attempts"][0]["missing_margin"] is None


# --- a solver is never believed


def _bad(metric: np.ndarray, rate: float = 0.3) -> tuple[Candidate, ...]:
    proof = LureProof(metric, np.ones(2), False, 0.0, np.inf, 0.0, 0.0)
    return (Candidate(proof, Claims(rate=2 * rate)), Candidate(proof, Claims(rate=rate)))


@pytest.mark.parametrize("metric", [-np.eye(2), np.diag([1.0, 0.0]), np.diag([1.0, 30.0]), np.eye(2)])
@pytest.mark.parametrize("condition", ["auto", "lure"])
def test_a_refused_proof_is_undecided_with_the_missing_margin(
    monkeypatch: pytest.MonkeyPatch, metric: np.ndarray, condition: str
) -> None:
    monkeypatch.setattr(lure_module.Lure, "decide", lambda *_: _bad(metric))
    result = certes.certify(RateNetwork(skew(1.8), "tanh"), condition)
    assert (result.verdict, result.reason) == ("undecided", "margin")
    assert result.certificate is None
    refused = attempt(result, "lure")
    assert (refused.outcome, refused.reason, refused.rate) == ("refused", "margin", 0.3)
    assert refused.missing_margin is not None
    assert refused.missing_margin > 0
    if np.isfinite(refused.missing_margin):
        assert "missing margin" in result.detail


@pytest.mark.parametrize("backend", ["auto", "cvxpy-clarabel"])
def test_an_engine_that_lies_about_its_point_is_refused(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    """The engine reports a rate that its numbers do not have: every candidate is refused."""
    honest, optimise = reference.Setting.refine, frequency.optimise

    def boast(self: reference.Setting, point: object) -> object:
        found = honest(self, point)  # type: ignore[arg-type]
        return None if found is None else replace(found, strength=found.strength + 0.2)

    def exaggerate(*args: object, **kwargs: object) -> object:
        found = optimise(*args, **kwargs)  # type: ignore[arg-type]
        return replace(found, strength=found.strength + 0.2)

    monkeypatch.setattr(reference.Setting, "refine", boast)
    monkeypatch.setattr(frequency, "optimise", exaggerate)
    system = RateNetwork(0.8 * W4, "tanh", tau=[0.5, 1.0, 2.0, 3.0])
    result = certes.certify(system, "lure", refute=False, backend=backend)
    assert (result.verdict, result.reason) == ("undecided", "margin")
    assert attempt(result, "lure").missing_margin is not None


@pytest.mark.parametrize("shift", [-0.1, -1e-6, 1e-3])
def test_a_bound_that_is_none_is_not_given_out(monkeypatch: pytest.MonkeyPatch, shift: float) -> None:
    """Columns that prove one level, said to prove another: a better one is kept back, a worse one is still true."""
    honest = duality.prove

    def boast(*args: object, **kwargs: object) -> object:
        found = honest(*args, **kwargs)  # type: ignore[arg-type]
        return None if found is None else replace(found, level=found.level + shift)

    monkeypatch.setattr(duality, "prove", boast)
    result = certes.certify(RateNetwork(skew(1.5), "tanh"))
    assert result.verdict == "contracting"
    assert result.rate_bound is None if shift < 0 else result.rate_bound == pytest.approx(0.25 + shift, abs=1e-5)


def test_a_false_witness_is_no_refutation(monkeypatch: pytest.MonkeyPatch) -> None:
    false = certes.certify(RateNetwork([[3.0]], "tanh")).witness
    assert false is not None
    monkeypatch.setattr("certes.refutation.witness_at", lambda *_, **__: false)
    result = certes.certify(RateNetwork([[0.999]], "tanh"), "absolute", rate=0.5)
    assert result.verdict == "undecided"
    assert attempt(result, "instability").outcome == "refused"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MemoryError(), "memory"), (np.linalg.LinAlgError("no"), "solver"), (OverflowError(), "solver")],
)
def test_a_search_that_breaks_down_is_an_attempt(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(lure_module.Lure, "decide", fail)
    result = certes.certify(RateNetwork(skew(1.5), "tanh"))
    assert (result.verdict, result.reason) == ("undecided", reason)


@pytest.mark.parametrize("reason", ["missing-extra", "too-large", "deadline", "solver"])
def test_what_stops_the_strongest_condition_is_the_reason(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    nothing = NothingFound(reason, "so it is")  # type: ignore[arg-type]
    monkeypatch.setattr(lure_module.Lure, "decide", lambda *_: nothing)
    result = certes.certify(RateNetwork(skew(1.5), "tanh"))
    assert (result.verdict, result.reason) == ("undecided", reason)
    assert "so it is" in result.detail
    easy = certes.certify(RateNetwork(W4, "tanh"))
    assert easy.verdict == "contracting"
    assert attempt(easy, "lure").reason == reason


# --- laws


@pytest.mark.parametrize("step", [None, 1.0])
def test_permutation_leaves_verdict_and_rate(step: float | None) -> None:
    order = [2, 0, 3, 1]
    first = certes.certify(RateNetwork(W4, "tanh", step=step))
    second = certes.certify(RateNetwork(W4[np.ix_(order, order)], "tanh", step=step))
    assert second.verdict == first.verdict == "contracting"
    assert (second.rate or second.factor) == pytest.approx(first.rate or first.factor, abs=3e-4)


def test_scaling_down_keeps_the_verdict_and_does_not_slow() -> None:
    rates = [certes.certify(RateNetwork(s * W4, "tanh")).rate for s in (1.0, 0.7, 0.4, 0.1)]
    assert None not in rates
    assert rates == sorted(rates, key=lambda rate: rate or 0.0)


def test_widening_the_dtype_changes_nothing_but_the_subject() -> None:
    narrow = W4.astype(np.float32)
    first = certes.certify(RateNetwork(narrow, "tanh"))
    second = certes.certify(RateNetwork(narrow.astype(np.float64), "tanh"))
    assert first.to_json()["claims"] == second.to_json()["claims"]
    assert first.certificate is not None
    assert second.certificate is not None
    assert first.certificate.proof == second.certificate.proof
    assert first.certificate.digest != second.certificate.digest


# --- questions that cannot be asked, and the door itself


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"condition": "magic"}, "condition"),
        ({"backend": "magic"}, "backend"),
        ({"rate": "fast"}, "rate"),
        ({"rate": True}, "rate"),
        ({"rate": 0.0}, "rate"),
        ({"rate": -1.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": "long"}, "seconds"),
        ({"step": "largest"}, "step"),
        ({"step": "max", "rate": 0.5}, "rate"),
    ],
)
def test_a_bad_question_names_its_field(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(InputError) as caught:
        certes.certify(RateNetwork([[0.5]], "tanh"), **arguments)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_factor_of_one_or_more_cannot_be_asked_for() -> None:
    with pytest.raises(InputError):
        certes.certify(RateNetwork([[0.5]], "tanh", step=1.0), rate=1.0)


def test_a_map_has_no_largest_step() -> None:
    with pytest.raises(InputError) as caught:
        certes.certify(LureSystem([[0.5]], [[0.1]], [[1.0]], slope=(0, 1), discrete=True), step="max")
    assert caught.value.field == "step"


def test_where_no_step_can_be_certified_the_answer_is_about_continuous_time() -> None:
    result = certes.certify(RateNetwork([[3.0]], "tanh"), step="max")
    assert result.verdict == "not_contracting"
    assert result.certificate is not None
    assert result.certificate.statement.predicate.system.step is None


def test_cancelling_keeps_what_is_proven() -> None:
    polls: list[int] = []

    def cancelled() -> bool:
        polls.append(1)
        return len(polls) > 3

    result = certes.certify(RateNetwork(skew(2.5), "tanh"), cancelled=cancelled)
    assert (result.verdict, result.reason) == ("undecided", "cancelled")
    assert certes.certify(RateNetwork([[0.5]], "tanh"), cancelled=lambda: True).verdict == "contracting"


def _wait(stop: Callable[[], bool]) -> bool:
    """Until somebody says stop; False if nobody does."""
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        if stop():
            return True
        time.sleep(0.005)
    return False


def test_a_witness_ends_the_search_for_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []

    def endless(self: lure_module.Lure, system: System, goal: Goal) -> NothingFound:
        assert goal.cancelled is not None
        told.append(_wait(goal.cancelled))
        return NothingFound("cancelled", "told to stop")

    monkeypatch.setattr(lure_module.Lure, "decide", endless)
    rotation = [[0.9, -3.0, 0.0], [3.0, 0.9, 0.0], [0.0, 0.0, -5.0]]  # stable at both ends of the slopes
    mixed = [[0.0, 2.0, -2.0], [-2.0, 0.0, 2.0], [2.0, -2.0, 0.0]]
    for weights in (mixed, rotation):
        result = certes.certify(RateNetwork(weights, slope=(-1.0, 1.0)))
        assert (result.verdict, result.condition) == ("not_contracting", "instability")
        assert "lure" not in [entry.condition for entry in result.attempts]
    assert told == [True] * len(told)
    assert told


def test_a_proof_ends_the_search_for_a_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []

    def endless(system: System, *, stop: Callable[[], bool]) -> None:
        told.append(_wait(stop))

    monkeypatch.setattr("certes.refutation.fastest", endless)
    result = certes.certify(RateNetwork(skew(1.5), "tanh"))
    assert (result.verdict, result.condition, told) == ("contracting", "lure", [True])
    assert "instability" not in [entry.condition for entry in result.attempts]


def test_the_time_limit_is_kept() -> None:
    rng = np.random.default_rng(42)
    system = RateNetwork(1.25 * rng.normal(size=(28, 28)) / np.sqrt(28), slope=(0.0, 0.8), tau=rng.uniform(1, 3, 28))
    result = certes.certify(system, "lure", seconds=0.3, refute=False)
    assert result.verdict in {"contracting", "undecided"}
    if result.verdict == "undecided":
        assert result.reason in {"deadline", "margin"}


def test_the_package_verify_is_a_module_and_a_function() -> None:
    import certes.verify as verify

    assert callable(verify)
    assert verify is certes.verify
    assert verify.verify_contraction is certes.verify.verify_contraction
    assert isinstance(certes.verify, type(sys))
    result = certes.certify(RateNetwork([[0.5]], "tanh"))
    assert result.certificate is not None
    assert isinstance(certes.verify(result.certificate, {"W": [[0.5]]}), Report)


def test_the_public_names_exist_and_certify_stays_a_function() -> None:
    import certes.certify  # binds the submodule, unless the function is there already

    assert callable(certes.certify)
    for name in certes.__all__:
        assert getattr(certes, name) is not None
    with pytest.raises(AttributeError):
        certes.no_such_name  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_user_s_types_hold(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(
        "import certes\n"
        "import certes.verify\n"
        "from certes.verify import Report, verify_contraction\n"
        "result = certes.certify(certes.RateNetwork([[0.5]], activation='tanh'))\n"
        "assert result.certificate is not None\n"
        "report: Report = certes.verify(result.certificate, {'W': [[0.5]]}, exact=True)\n"
        "digest: str = result.certificate.digest\n"
        "same = certes.verify.verify_contraction is verify_contraction\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "user.py"]
    source = str(Path(certes.__file__).parents[1])  # an editable install is invisible to mypy
    environment = {**os.environ, "MYPYPATH": source}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_goal_reaches_the_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Goal] = []

    def decide(_: object, __: System, goal: Goal) -> NothingFound:
        seen.append(goal)
        return NothingFound("margin", "")

    monkeypatch.setattr(lure_module.Lure, "decide", decide)
    certes.certify(RateNetwork(skew(1.5), "tanh"), "lure", 0.1, backend="cvxpy-scs", seconds=5.0)
    assert (seen[0].target, seen[0].backend) == (0.1, "cvxpy-scs")
    assert seen[0].seconds is not None
    assert 0 < seen[0].seconds <= 5.0


def test_an_unstable_jacobian_is_refuted_before_any_condition_is_asked():
    result = certes.certify(
        RateNetwork([[0.0, 3.0], [3.0, 0.0]], activation="tanh", input_matrix=[[1.0], [0.0]], bias=[0.0, 1.0])
    )
    assert result.verdict == "not_contracting"
    assert [attempt.condition for attempt in result.attempts] == ["instability"]
    assert "the input layer cannot produce" in result.detail
