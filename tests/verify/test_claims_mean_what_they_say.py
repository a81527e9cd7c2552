"""What a verified claim promises, tried out: weights within the radius, steps below the largest, gain from inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from certes.proofs import Claims
from certes.systems import System
from certes.verify import verify_contraction

from tests.judges import rational
from tests.verify.families import candidates
from tests.verify.near_boundary import Candidate, bounds, largest_step, radius


def accepted(family: object, unit: int, name: str) -> list[Candidate]:
    found = (candidate for _, candidate in candidates(41, unit, (family,)) if candidate.family == name)  # type: ignore[arg-type]
    return [c for c in found if verify_contraction(c.system, c.proof, c.claims).valid]


def moved(system: System, change: np.ndarray) -> System:
    slope = (system.slope.lower, system.slope.upper)
    return type(system)(system.matrix("W") + change, slope=slope, step=system.step, tau=system.tau)


def test_weights_within_the_radius_keep_the_proof() -> None:
    """Random rank-one changes of norm just below the radius; a thousand radii away most of them break the proof."""
    rng, tried, broken = np.random.default_rng(2), 0, 0
    for unit in range(4):
        for candidate in accepted(radius, unit, "radius-claim")[::4]:
            size = candidate.claims.weight_radius
            bare = replace(candidate.proof, slack_state=0.0, slack_input=0.0)
            plain = replace(candidate.claims, weight_radius=None)
            assert size is not None
            for _ in range(6):
                left, right = (v / np.linalg.norm(v) for v in rng.standard_normal((2, candidate.system.size)))
                change = np.outer(left, right)
                near = moved(candidate.system, change * size * (1 - 1e-9))
                assert rational.failures(near, bare, plain) == set()
                far = moved(candidate.system, change * size * 1e3)
                broken += bool(rational.failures(far, bare, plain))
                tried += 1
    assert tried > 100
    assert broken > tried // 2, "the changes have to matter"


def test_every_step_up_to_the_largest_contracts_in_the_stored_metric() -> None:
    tried = 0
    for unit in range(4):
        for candidate in accepted(largest_step, unit, "largest-step")[::3]:
            claim = candidate.claims.largest_step
            assert claim is not None
            metric, inverse = rational.metric_of(candidate.system, claim.proof)
            for part in (1.0, 0.5, 0.125):
                factor = 1.0 - part * (1.0 - claim.factor)
                smaller = candidate.system.with_step(claim.step * part)
                claims = Claims(factor=float(np.nextafter(factor, 2.0)))
                assert rational.contracts(smaller, metric, claims, inverse=inverse)
                tried += 1
    assert tried > 30


def test_the_gain_bounds_the_answer_to_a_constant_input() -> None:
    """At fixed slopes the steady state answers with -J^-1 E (map: (I - J)^-1 E) to an input that enters through E."""
    tried, largest = 0, 0.0
    for unit in range(6):
        for candidate in accepted(bounds, unit, "gain")[::2]:
            system = candidate.system
            if system.form == "lure":
                continue
            leak = 1.0 / system.tau if system.step is None else system.step / system.tau
            for slopes in rational.vertices(system):
                J = np.array([[rational.ratio(x) for x in line] for line in rational.jacobian(system, slopes)])
                entering = np.diag(leak * [rational.ratio(s) for s in slopes] if system.form == "rate" else leak)
                there = -J if system.continuous else np.eye(system.size) - J
                answer = float(np.linalg.norm(np.linalg.solve(there, entering), 2))
                assert candidate.claims.gain is not None
                assert answer <= candidate.claims.gain * (1 + 1e-9)
                largest = max(largest, answer / candidate.claims.gain)
                tried += 1
    assert tried > 100
    assert largest > 0.05, "some of the gains have to be within a factor of 20"
