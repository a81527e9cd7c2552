"""Verdicts, claims and witnesses in plain words. Only text is made here; nothing is decided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from certes.cells import CELLS, GatedNetwork, box_of
from certes.certificate.statement import Statement
from certes.projection.base import Projection
from certes.proofs import Claims, GatedProof, GatedWitness, InstabilityWitness, SwitchingWitness
from certes.results import Result
from certes.simulation import input_in_range
from certes.systems import System, UnsupportedCell

if TYPE_CHECKING:
    from certes.certificate.document import Certificate

#: condition -> what it is, for a reader who meets the name for the first time.
CONDITIONS: dict[str, str] = {
    "absolute": "the absolute weights alone are small enough, in a scaled norm",
    "symmetric": "symmetric weights with eigenvalues on the right side",
    "product": "weights that factor into a diagonal and a definite matrix",
    "singular": "a largest singular value below one, in a scaled norm",
    "lure": "the Lur'e inequality: one metric serves every slope of the nonlinearity",
    "gated": "a gated cell: over the declared inputs every row of its Jacobian is small enough, in a scaled norm",
    "instability": "an equilibrium with an unstable mode",
    "switching": "a periodic input with an unstable orbit",
    "no-quadratic-metric": "slopes that no constant quadratic metric serves: no yes, and no no",
}

_ADVICE: dict[str, tuple[str, ...]] = {
    "unsupported_cell": (
        "a GRU or an LSTM of one layer is certified over a box of inputs: --form gru (or lstm) --inputs LOW,HIGH",
    ),
    "no_input_box": ("declare the least and the largest value of the inputs: --inputs LOW,HIGH",),
    "missing-extra": ("install the extra that is named above, or leave --backend away: our own engine needs none",),
    "too-large": ("try one of the conditions absolute, symmetric or singular, which reach larger networks",),
    "deadline": ("allow more time: --seconds N", "ask for less: --rate with the rate or factor that you need"),
    "memory": ("use a machine with more memory, or one of the cheaper conditions: --condition singular",),
    "not-applicable": ("let Certes choose: --condition auto",),
}
#: why it is undecided -> the same in words.
REASONS: dict[str, str] = {
    "margin": "every condition that speaks of this network misses a proof",
    "no_quadratic_metric": "it is proven that no constant quadratic metric serves all slopes; another norm may",
    "deadline": "the time limit came first",
    "cancelled": "the search was cancelled",
    "too-large": "the network is beyond what the remaining conditions can do",
    "missing-extra": "the conditions that could decide this are not installed",
    "not-applicable": "the condition does not speak of such a network",
    "solver": "the solver gave up",
    "memory": "the memory did not suffice",
}
_SMALLER = "scale the recurrent weights down"
_PROJECT = "take the nearest weights that are certified: certes project FILE, with the same options"
_STEP = "for a network run step by step, a smaller --step is easier to certify"
_BOX = "declare a smaller box of inputs, if they are smaller: --inputs LOW,HIGH"
_LESS = "ask for less: a --rate closer to 0 (continuous time) or closer to 1 (a map)"


def printable(text: str, limit: int = 200) -> str:
    """A text from a stranger's file, without control characters that a terminal would obey."""
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def number(value: float | None) -> str:
    """Four significant digits, or a dash."""
    return "-" if value is None else f"{value:.4g}"


def claimed(value: float, *, up: bool) -> str:
    """Six significant digits of a claimed number, rounded so that the text claims no more than the certificate.

    Args:
        value: the number.
        up: round upwards (a factor, a gain) or downwards (a rate, a radius).
    """
    if not math.isfinite(value):
        return f"{value:g}"
    rounding = ROUND_CEILING if up else ROUND_FLOOR
    return f"{float(Context(prec=6, rounding=rounding).create_decimal(Decimal(value))):.6g}"


def gated(gate: Mapping[str, Any]) -> str:
    """What is certified of a network with a gate, whatever the gate does (``Composition.gated``)."""
    shares = f"for every share of the step from {float(gate['least'])!r} to 1"  # not rounded: less is not covered
    if gate["factor"] is not None:
        return f"factor {claimed(gate['factor'], up=True)} per step, {shares}"
    return f"rate {claimed(gate['rate'], up=False)}, {shares}"


def system_line(system: System | GatedNetwork | UnsupportedCell) -> str:
    """A network in one line."""
    if isinstance(system, UnsupportedCell):
        return system.cell.upper()
    if isinstance(system, GatedNetwork):
        return f"{system.form.upper()}, n = {system.size}, {_box_words(box_of(system))}, a map"
    slope = system.slope
    kind = {"rate": "rate network", "hopfield": "Hopfield network", "lure": "Lur'e system"}[system.form]
    shape = f"n = {system.size}"
    if slope.activation is not None:
        nonlinearity = slope.activation.name
    elif slope.uniform:
        nonlinearity = f"slopes in [{slope.lower[0]:g}, {slope.upper[0]:g}]"
    else:
        nonlinearity = "slopes per neuron"
    time = "continuous time" if system.continuous else "a map"
    if system.step is not None:
        time = f"a map, step {system.step:g}"
    return f"{kind}, {shape}, {nonlinearity}, {time}"


def _box_words(box: Sequence[float | list[float]] | None) -> str:
    """A declared box of inputs in a few words."""
    if box is None:
        return "no box of inputs declared"
    if any(isinstance(side, list) for side in box):
        return "a box of inputs declared for each"
    return f"inputs in [{box[0]}, {box[1]}]"


def statement_line(statement: Statement) -> str:
    """What a certificate is about, in one line."""
    system, file = statement.predicate.system, statement.file_subject()
    source = ", ".join(system.tensors.values()) + (f" of {file.name}" if file is not None else "")
    if system.form in CELLS:
        biases = "" if {"b", "c"} <= set(system.tensors) else ", a bias that is not named being 0"
        return f"{source}: {system.form}{biases}, {_box_words(system.inputs)}, a map"
    nonlinearity = system.activation or "slopes per neuron"
    if system.slope is not None and not any(isinstance(end, list) for end in system.slope):
        nonlinearity = f"slopes in [{system.slope[0]}, {system.slope[1]}]"
    time = "a map" if system.discrete else "continuous time"
    if system.step is not None:
        time = f"a map, step {system.step:g}"
    return f"{source}: {system.form}, {nonlinearity}, {time}"


def claim_lines(claims: Claims, certificate: Certificate | None = None) -> list[tuple[str, str]]:
    """(name, sentence) for every number that a certificate states.

    Args:
        claims: the numbers.
        certificate: states them; that of a gated cell also says of which states they speak.
    """
    lines: list[tuple[str, str]] = []
    proof = None if certificate is None else certificate.array_proof
    gated = isinstance(proof, GatedProof)
    if claims.rate is not None:
        rate = claimed(claims.rate, up=False)
        lines.append(("rate", f"{rate}: the distance of any two trajectories falls at least like exp(-{rate} t)"))
    if claims.factor is not None:
        factor = claimed(claims.factor, up=True)
        which = " named below, under the same admissible inputs," if gated else ""
        lines.append(
            ("factor", f"{factor}: each step multiplies the distance of any two states{which} by at most this")
        )
    if isinstance(proof, GatedProof) and certificate is not None:
        lines.append(gated_claims(proof, certificate.statement.predicate.system.form))
    if claims.bound is not None:
        lines.append(("at best", bound_line(claims.bound.level, rate=claims.rate is not None)))
    if claims.gain is not None:
        gain = claimed(claims.gain, up=True)
        lines.append(("gain", f"{gain}: a change of the input by 1 moves the state by at most this, in the long run"))
    if claims.weight_radius is not None:
        radius = claimed(claims.weight_radius, up=False)
        lines.append(
            ("weight radius", f"{radius}: all weights may move by this (spectral norm) and the proof still holds")
        )
    if claims.largest_step is not None:
        step = claimed(claims.largest_step.step, up=False)
        share = Fraction(float(step)) / Fraction(claims.largest_step.step)  # the factor at the step that is printed
        factor = claimed(float(1 - share * (1 - Fraction(claims.largest_step.factor))) + 1e-15, up=True)
        lines.append(
            ("largest step", f"{step}: every Euler step up to this contracts (at {step} with factor {factor})")
        )
    if claims.metric_condition_log2 is not None:
        decades = math.ceil(claims.metric_condition_log2 * math.log10(2) * 10 + 1e-9) / 10
        lines.append(("norm", f"a weighted Euclidean norm; the metric's condition number is at most 10^{decades:.1f}"))
    return lines


def gated_claims(proof: GatedProof, form: str) -> tuple[str, str]:
    """Of which states and inputs the certificate of a gated cell speaks."""
    reach = [min(-low, high) for low, high in zip(proof.start_lower.tolist(), proof.start_upper.tolist(), strict=True)]
    starts = "|h| <= 1"
    if form == "lstm":  # the state is c, then h
        starts += f" and |c| <= {claimed(min(reach[: len(reach) // 2]), up=False)}"
    when = f"after {proof.steps:.0f} steps from any start with {starts}" if proof.steps else f"from {starts} on"
    words = f"those reached {when}, in a box that is never left; nothing is said of other starts or inputs"
    return "states", words


def proven_line(verdict: str, condition: str) -> str:
    """What a valid certificate says, in one line."""
    if condition == "no-quadratic-metric":
        return "undecided, and proven: no constant quadratic metric serves all slopes (no yes, and no no)"
    return f"{verdict.replace('_', ' ')}, proven by {condition}"


def growth_line(growth: float, condition: str) -> str:
    """What the growth of a witness means."""
    number = claimed(growth, up=False)
    if condition == "switching":
        return f"{number}: a mode of a periodic orbit grows beyond this per period"
    return f"{number}: a mode at an equilibrium grows beyond this"


def bound_line(level: float, *, rate: bool) -> str:
    """What no certificate of the condition ``lure`` reaches."""
    number = claimed(level, up=rate)
    beyond = "exceeds a rate of" if rate else "goes below a factor of"
    return f"no certificate of the condition lure {beyond} {number} (proven)"


def distance_lines(result: Result) -> list[tuple[str, str]]:
    """How far the weights of an undecided network are from each side."""
    lines: list[tuple[str, str]] = []
    if result.rate_bound is not None or result.factor_bound is not None:
        level = result.rate_bound if result.rate_bound is not None else result.factor_bound
        assert level is not None
        lines.append(("at best", bound_line(level, rate=result.rate_bound is not None)))
    if result.certified_scale is not None:
        scale = claimed(result.certified_scale, up=False)
        lines.append(("distance", f"all recurrent weights times {scale}: certified"))
    if result.refuted_scale is not None:
        scale = claimed(result.refuted_scale, up=True)
        lines.append(("distance" if not lines else "", f"all recurrent weights times {scale}: refuted"))
    return lines


def witness_lines(
    witness: InstabilityWitness | SwitchingWitness | GatedWitness, system: System | GatedNetwork
) -> list[tuple[str, str]]:
    """What refutes the network."""
    if isinstance(witness, GatedWitness):
        return gated_lines(witness)
    assert isinstance(system, System)
    lines = refuting_lines(witness, continuous=system.continuous, named=system.slope.activation is not None)
    return lines if isinstance(witness, SwitchingWitness) else [*lines, *_producible(witness, system)]


def gated_lines(witness: GatedWitness) -> list[tuple[str, str]]:
    """What refutes a gated cell."""
    apart = math.dist(witness.start.tolist(), witness.start_other.tolist())
    growth = claimed(witness.growth, up=False)
    return [
        ("fixed point", "a constant input in the declared box lets the cell rest at a point"),
        ("unstable", f"a mode there grows by more than {growth} per step, so the cell contracts in no norm around it"),
        ("two starts", f"{apart:.2g} apart, under that input they have parted after {witness.horizon:.0f} steps"),
    ]


def refuting_lines(
    witness: InstabilityWitness | SwitchingWitness, *, continuous: bool, named: bool
) -> list[tuple[str, str]]:
    """What refutes a network of which only the certificate is at hand.

    Args:
        witness: of the certificate.
        continuous: whether the network is a differential equation.
        named: whether its activation is named, and not only the slopes.
    """
    if isinstance(witness, SwitchingWitness):
        return _switching_lines(witness, continuous=continuous, named=named)
    if continuous:
        mode = f"a mode there grows at least like exp({claimed(witness.growth, up=False)} t)"
        when = f"after time {witness.horizon:g}"
    else:
        mode = f"a mode there grows by more than {claimed(witness.growth, up=False)} per step"
        when = f"after {witness.horizon:.0f} steps"
    apart = math.dist(witness.start.tolist(), witness.start_other.tolist())
    largest = float(abs(witness.input).max())
    held = (
        f"a constant input (bias included) of size up to {largest:.3g}" if largest else "an input of 0 (bias included)"
    )
    rest = f"{held} lets the network rest at a point"
    whom = "the network" if named else "one network with such slopes (phi_i(s) = D_i s)"
    return [
        ("equilibrium", rest),
        ("unstable", f"{mode}, so {whom} contracts in no norm"),
        ("two starts", f"{apart:.2g} apart, under that input they have parted {when}"),
    ]


def _switching_lines(witness: SwitchingWitness, *, continuous: bool, named: bool) -> list[tuple[str, str]]:
    """What refutes the network, if it takes a changing input."""
    modes = len(witness.durations)
    period = float(witness.durations.sum()) + modes * witness.ramp
    unit = "time" if continuous else "steps"
    whom = "the network" if named else "one network with such slopes"
    apart = math.dist(witness.start.tolist(), witness.start_other.tolist())
    growth = claimed(witness.growth, up=False)
    return [
        ("periodic input", f"{modes} modes, period {period:.4g} ({unit}), of size up to {witness.largest_input:.3g}"),
        (
            "unstable",
            f"a mode of its periodic orbit grows by more than {growth} per period, so {whom} contracts in no norm, "
            "constant or varying",
        ),
        ("two starts", f"{apart:.2g} apart, under that input they have parted after {witness.periods:.0f} periods"),
    ]


def _producible(witness: InstabilityWitness, system: System) -> list[tuple[str, str]]:
    """Whether the network's own input matrix can produce the input; contraction quantifies over every input."""
    found = input_in_range(system, witness)
    if found.relative is None:
        return []
    if found.reachable:
        return [("input", "the network's own input matrix and bias can produce it")]
    off = f"{100 * found.relative:.0f} %"
    return [("input", f"its own input matrix cannot produce it: off by {off}, less the bias")]


def reason_line(reason: str | None, detail: str, attempts: tuple[Any, ...]) -> str:
    """Why it is undecided; what each condition said stands in lines of its own, if there are attempts."""
    said = REASONS.get(str(reason)) if attempts else None
    if reason == "margin" and any((entry.rate or 0.0) > 0.0 or (entry.factor or 1.0) < 1.0 for entry in attempts):
        said = "the number asked for is out of reach; the best that was found stands below"
    return f"{reason}: {said or printable(detail, 600)}"


def advice(
    reason: str | None, attempts: tuple[Any, ...], system: System | GatedNetwork | UnsupportedCell, *, asked: bool
) -> list[str]:
    """What to try next when nothing was proven; ``asked``: a rate or factor was asked for."""
    if reason in _ADVICE:
        return list(_ADVICE[reason])
    lines = [_LESS] if asked else []
    lines += [_BOX] if isinstance(system, GatedNetwork) else []
    lines += project_lines(system) or [_SMALLER]
    if isinstance(system, System) and system.step is not None and system.step != 1:
        lines.append(_STEP)
    if any(getattr(attempt, "reason", None) == "missing-extra" for attempt in attempts):
        lines.append("leave --backend away: the engine of Certes needs no extra")
    return lines


def project_lines(system: System | GatedNetwork | UnsupportedCell) -> list[str]:
    """The advice to project, for networks that can be."""
    return [_PROJECT] if isinstance(system, System) and system.form != "lure" else []


def projection_lines(found: Projection) -> list[tuple[str, str]]:
    """How far the nearest certified weights are, and what they are compared with."""
    if found.distance is None:
        return []
    norm = "Frobenius norm" if found.norm == "frobenius" else "weighted norm sqrt(tr(D S D^T))"
    if found.unchanged:
        return [("distance", f"0: the weights pass as they are ({found.condition}), and stay unchanged")]
    share = "" if found.relative is None else f", {100 * found.relative:.3g} % of the weights"
    lines = [("distance", f"{number(found.distance)} ({norm}{share}), by {found.condition}")]
    if found.shrink_distance is not None:
        lines.append(("shrinking", f"{number(found.shrink_distance)}: all movable weights times one number instead"))
    if found.fixed_scaling_distance is not None:
        fixed = number(found.fixed_scaling_distance)
        lines.append(("fixed scaling", f"{fixed}: the exact optimum for the first multipliers; no bound"))
    if found.distance_bound is not None:
        bound = claimed(found.distance_bound, up=False)
        lines.append(
            ("at least", f"{bound} (Frobenius): no weights closer than this are certified by lure (numerical)")
        )
    return lines


def set_lines(found: Projection) -> list[tuple[str, str]]:
    """What each stable set came to."""
    lines: list[tuple[str, str]] = []
    for entry in found.attempts:
        said = printable(entry.detail or str(entry.reason))
        if entry.outcome == "certified":
            said = f"certified at {number(entry.distance)}"
        lines.append(("stable sets" if not lines else "", f"{entry.condition}: {said}"))
    return lines


def projection_advice(found: Projection, *, chosen: bool) -> list[str]:
    """What to try when no stable set has weights that are certified; ``chosen``: only one set was asked."""
    if found.result.reason == "deadline":
        return ["allow more time: --seconds N"]
    lines = ["let Certes choose: --condition auto"] if chosen else []
    return [*lines, _LESS, "let more weights move: --mask, --keep-zeros, --keep-diagonal, --rank"]


def attempt_line(attempt: Mapping[str, Any]) -> str:
    """What one condition came to."""
    value = attempt.get("rate") if attempt.get("rate") is not None else attempt.get("factor")
    outcome = attempt.get("outcome")
    if outcome == "proven" and value is None:
        return "proven"
    if outcome == "proven":
        return f"proves {'rate' if attempt.get('rate') is not None else 'factor'} {number(value)}"
    detail = printable(str(attempt.get("detail") or attempt.get("reason") or "nothing found"))
    if outcome == "refused":
        missing = attempt.get("missing_margin")
        return f"the verifier refused its proof: {detail}" + (f" (missing margin {missing:.3g})" if missing else "")
    return detail
