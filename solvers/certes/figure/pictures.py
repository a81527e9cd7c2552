"""What a figure shows, as numbers: nothing is drawn here, and nothing is decided.

A verified certificate has one of three pictures:

* :class:`FieldPicture`: the field of values of A_Q = Q^1/2 M Q^-1/2 inside its conic (docs/theory.md section 3), for
  uniform leak and slopes in [0, g] or [-g, g], and for every weighted spectral norm;
* :class:`FrequencyPicture`: for the other proofs of the Lur'e inequality, which have no such conic, the inequality
  over the frequencies: lambda_max(Re(Q^1/2 G Q^-1/2)) < 1 (frequency theorem of Kalman, Yakubovich and Popov);
* :class:`SpectrumPicture`: for a witness of divergence, the eigenvalues of the linearisation at its equilibrium, or
  over one period of its input, against the border of stability.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.linalg import matrix_power
from numpy.typing import NDArray

from certes.engines.response import Response
from certes.engines.sdp import Inequality
from certes.errors import InputError
from certes.figure.frequency import margin_curve
from certes.figure.geometry import Conic, Contact, FieldOfValues, Outline
from certes.proofs import (
    AbsoluteProof,
    ArrayProof,
    Claims,
    InstabilityWitness,
    LureProof,
    ProductProof,
    SingularProof,
    SwitchingWitness,
    SymmetricProof,
)
from certes.systems import System
from certes.verify.reduction import midpoint

Array = NDArray[np.float64]
Points = NDArray[np.complex128]

#: Largest network of which a figure is made.
LARGEST = 1500


@dataclass(frozen=True, eq=False)
class FieldPicture:
    """The field of values of A_Q in its conic.

    Attributes:
        outline: the boundary of F(A_Q).
        conic: the region that F(A_Q) must stay inside, at the certified level.
        level: the certified number, in words.
        eigenvalues: of M (those of A_Q), shape (n,).
        contacts: where F(A_Q) is closest to the conic, in the closed upper half plane.
        norm: norm(A_Q) where the disk bounds the norm and not only the field of values, else None.
        matrix: M in the letters of the caption: W, GW, WG, GW^T, W^T.
        caption: the figure's caption.
    """

    outline: Outline
    conic: Conic
    level: str
    eigenvalues: Points
    contacts: tuple[Contact, ...]
    norm: float | None
    matrix: str
    caption: str


@dataclass(frozen=True, eq=False)
class FrequencyPicture:
    """lambda_max(Re(Q^1/2 G Q^-1/2)) over the frequency; it must stay below 1.

    Attributes:
        frequencies: ascending, shape (k,); continuous time: w > 0 in radians per unit of time; a map: in [0, pi].
        values: shape (k,).
        continuous: whether G is taken at i w - c or at rho e^(i w).
        level: the certified number, in words.
        caption: the figure's caption.
    """

    frequencies: Array
    values: Array
    continuous: bool
    level: str
    caption: str


@dataclass(frozen=True, eq=False)
class SpectrumPicture:
    """Eigenvalues at the orbit of a witness, against the border of stability.

    Attributes:
        eigenvalues: of the Jacobian J(D) at the equilibrium, or of the derivative of the map over one period; (n,).
        steepest: of J with every slope at its upper end, shape (n,); none if the witness's slopes are those.
        continuous: the border is the imaginary axis (True) or the unit circle (False).
        place: where the eigenvalues are those of the linearisation, in two or three words.
        caption: the figure's caption.
    """

    eigenvalues: Points
    steepest: Points
    continuous: bool
    place: str
    caption: str


Picture = FieldPicture | FrequencyPicture | SpectrumPicture


def picture(system: System, proof: ArrayProof, claims: Claims) -> Picture:
    """The picture of a verified certificate.

    Args:
        system: the network.
        proof: its proof, or a witness.
        claims: what is certified; none for a witness.

    Raises:
        InputError: there is no picture of such a proof, or the network is beyond :data:`LARGEST`.
    """
    if system.size > LARGEST:
        raise InputError("certificate", f"a network of {system.size} neurons", f"at most {LARGEST}", "too-large")
    if system.is_sparse:
        raise _no_picture("sparse weights", "dense weights")
    if isinstance(proof, InstabilityWitness):
        return _spectrum(system, proof)
    if isinstance(proof, SwitchingWitness):
        return _switching(system, proof)
    if isinstance(proof, SingularProof):
        conic = Conic(proof.norm, 0.0)
        return _field(system, claims, conic, _scaled(system, np.log2(proof.q)), "the scaling of the proof", norm=True)
    from_zero = not system.slope.lower.any()
    mirrored = bool((system.slope.lower == -system.slope.upper).all())
    if system.form == "lure" or not system.uniform_tau or not (from_zero or mirrored):
        if isinstance(proof, LureProof):
            return _frequency(system, proof, claims)
        raise _no_picture(f"a proof of kind {proof.kind} for such a network", "one time constant and slopes from 0")
    conic = _conic(system, claims, mirrored and not from_zero)
    if isinstance(proof, LureProof):
        scaled = _scaled(system, np.log2(proof.multipliers), dual=proof.dual)
        return _field(system, claims, conic, scaled, "the certificate's multipliers", norm=not from_zero)
    if not from_zero:
        raise _no_picture(f"a proof of kind {proof.kind} for such slopes", "slopes from 0")
    logarithms, origin = _natural(system, proof)
    return _field(system, claims, conic, _scaled(system, logarithms), origin, norm=False)


def _no_picture(given: str, expected: str) -> InputError:
    return InputError("certificate", given, f"{expected}: of others there is no picture", "no-picture")


def _natural(system: System, proof: ArrayProof) -> tuple[Array, str]:
    """log2 q of a proof that has no multipliers, and in words where it comes from; slopes in [0, g]."""
    gap = np.log2(np.maximum(system.slope.gap, 1e-12 * max(float(system.slope.gap.max()), 1e-280)))
    gap = np.zeros(system.size) if system.slope.uniform else -gap if system.form == "rate" else gap
    if isinstance(proof, SymmetricProof):
        return gap, "the one that makes A_Q symmetric, as W is"
    if isinstance(proof, AbsoluteProof):
        # abs(A_Q) <= Q^1/2 N Q^-1/2 entry by entry, and its norm is at most the certified one by Schur's test
        exponents = (proof.left_exponent - proof.right_exponent).astype(np.float64)
        return np.log2(proof.left) - np.log2(proof.right) + exponents, "diag(l / r) of the proof's vectors"
    if isinstance(proof, ProductProof):
        # makes A_Q symmetric and negative definite but for the residual E
        return np.log2(proof.inner) - np.log2(proof.outer) + gap, "the one that makes A_Q symmetric, for W = -P1 S P2"
    raise _no_picture(f"a proof of kind {proof.kind}", "a stability proof, or a witness of instability")


@dataclass(frozen=True, eq=False)
class _Scaled:
    """A_Q, the matrix M with the same eigenvalues, and its name."""

    matrix: Array
    plain: Array
    name: str
    meaning: str


def _scaled(system: System, logarithms: Array, *, dual: bool | None = None) -> _Scaled:
    """Q^1/2 M Q^-1/2 from log2 q; through logarithms, for q itself may leave the range of floats.

    Args:
        system: rate or hopfield.
        logarithms: log2 q, shape (n,).
        dual: M = GW (False), GW^T (True: the proof is about the transposed system), or, where the condition knows no
            transposition (None), GW for rate and WG for hopfield.
    """
    weights, bound = system.matrix("W"), system.slope.bound
    if dual is None and system.form == "hopfield":
        plain, name = weights * bound[None, :], "WG"
    else:
        plain, name = bound[:, None] * (weights.T if dual else weights), "GW^T" if dual else "GW"
    with np.errstate(divide="ignore", over="ignore"):
        size = np.log2(np.abs(plain)) + 0.5 * (logarithms[:, None] - logarithms[None, :])
        matrix = np.sign(plain) * np.exp2(size)
    if not np.isfinite(matrix).all():
        raise _no_picture("a scaling beyond the range of floats", "a metric of condition number below 1e300")
    meaning = "G the slope bounds"
    if system.slope.uniform:
        slope = float(bound[0])
        meaning = f"G = {slope:g} I the slope bound"
        if slope == 1.0:
            name, meaning = name.replace("G", ""), ""
    return _Scaled(np.asarray(matrix), np.asarray(plain), name, meaning)


def _conic(system: System, claims: Claims, mirrored: bool) -> Conic:
    """The conic of the certified number, uniform leak."""
    tau = float(system.tau[0])
    if claims.rate is not None:
        level = claims.rate * tau
        return Conic(1.0 - level, 0.0) if mirrored else Conic.of_rate(level)
    if claims.factor is None or system.step is None:
        raise _no_picture("a certificate without rate and factor", "a certified rate or factor")
    leak = system.step / tau
    if mirrored:
        return Conic((claims.factor - abs(1.0 - leak)) / leak, 0.0)
    return Conic.of_factor(claims.factor, leak)


def _field(system: System, claims: Claims, conic: Conic, scaled: _Scaled, origin: str, *, norm: bool) -> FieldPicture:
    field = FieldOfValues(scaled.matrix)
    outline = field.outline()
    reach = float(np.max(conic.slant(outline.normals) * outline.distances))
    slack = 1e-6 * max(conic.parameter, float(np.abs(outline.points).max()))
    if reach > conic.parameter + slack:
        raise _no_picture("a scaling whose field of values leaves the conic", "a proof by multipliers (condition lure)")
    contacts = () if norm else field.contacts(conic, outline)
    length = float(np.linalg.norm(scaled.matrix, 2)) if norm else None
    eigenvalues = _eigenvalues(scaled.plain)
    level = _level(claims)
    caption = _field_caption(system, claims, conic, scaled, origin, level, length)
    if not norm:
        caption += _contact_words(contacts, conic, reach)
    return FieldPicture(outline, conic, level, eigenvalues, contacts, length, scaled.name, caption)


def _level(claims: Claims) -> str:
    """The certified number, rounded so that it says no more than the certificate."""
    if claims.rate is not None:
        return f"rate {rounded(claims.rate, up=False)}"
    return f"factor {rounded(claims.factor or 0.0, up=True)}"


def rounded(value: float, *, up: bool) -> str:
    """Four significant digits, downwards (a rate) or upwards (a factor)."""
    text = f"{value:.4g}"
    if (float(text) < value) if up else (float(text) > value):
        unit = 10.0 ** (np.floor(np.log10(abs(value))) - 3)
        text = f"{float(text) + (unit if up else -unit):.4g}"
    return text


def _network(system: System) -> str:
    kind = {"rate": "rate network", "hopfield": "Hopfield network", "lure": "Lur'e system"}[system.form]
    time = "in continuous time" if system.continuous else "as a map"
    if system.step is not None:
        time = f"as the Euler map with step {system.step:g}"
    return f"{kind} {time} (n = {system.size})"


_EQUATIONS = {"parabola": "(|z| + Re z)/2 = 1 - c tau", "ellipse": "rho |z| + e Re z = (rho^2 - e^2)/a", "disk": ""}


def _field_caption(
    system: System, claims: Claims, conic: Conic, scaled: _Scaled, origin: str, level: str, norm: float | None
) -> str:
    meaning = f", {scaled.meaning}" if scaled.meaning else ""
    lines = [
        f"Field of values F(A_Q), A_Q = Q^1/2 {scaled.name} Q^-1/2{meaning}, of a {_network(system)}; Q: {origin}."
    ]
    if norm is not None:
        lines.append(
            f"Slopes of both signs: the certified {level} is the bound {conic.parameter:.4g} on the norm of A_Q, "
            f"which is {norm:.4g}, the radius of the disk of all u* A_Q v with |u| = |v| = 1; F(A_Q) has u = v."
        )
    else:
        equation = _EQUATIONS[conic.name]
        equation = f" {equation}" if equation else f" of radius {conic.parameter:.4g}"
        lines.append(f"It stays inside the {conic.name}{equation} of the certified {level}, focus at 0.")
        if conic.parameter <= 0.0:
            lines.append("At this rate the parabola has folded up into the negative half-line.")
    lines.append(f"Dots: the eigenvalues of {scaled.name}.")
    return " ".join(lines) + _bound_words(claims)


def _bound_words(claims: Claims) -> str:
    """What the proven bound says, rounded so that it says no more."""
    if claims.bound is None:
        return ""
    word = "rate above" if claims.rate is not None else "factor below"
    return f" No Q > 0 gives a {word} {rounded(claims.bound.level, up=claims.rate is not None)} (proven)."


def _contact_words(contacts: tuple[Contact, ...], conic: Conic, reach: float) -> str:
    if not contacts or conic.parameter <= 0.0:
        return ""
    count = sum(1 if contact.point.imag == 0.0 else 2 for contact in contacts)
    where = f"the {count} points" if count > 1 else "the point"
    return (
        f" Rings: {where} closest to the {conic.name}, {100 * reach / conic.parameter:.4g} % of the way, with tangents."
    )


def _frequency(system: System, proof: LureProof, claims: Claims) -> FrequencyPicture:
    A, B, C, gap = midpoint(system)
    if proof.dual:
        A, B, C = A.T, C.T, B.T
    if claims.rate is None and claims.factor is None:
        raise _no_picture("a certificate without rate and factor", "a certified rate or factor")
    strength = claims.rate if claims.rate is not None else -(claims.factor or 0.0)
    response = Response(Inequality(A, B, C, gap, system.continuous))
    frequencies, values = margin_curve(response, proof.multipliers, strength)
    level = _level(claims)
    place = "i w - c" if system.continuous else "rho exp(i w)"
    caption = (
        f"The certified {level} of a {_network(system)} over the frequency w: lambda_max(Re(Q^1/2 G Q^-1/2)) < 1 for "
        f"the transfer function G of the channels at s = {place}, slopes included, Q the certificate's multipliers."
    ) + _bound_words(claims)
    return FrequencyPicture(frequencies, values, system.continuous, level, caption)


def _spectrum(system: System, witness: InstabilityWitness) -> SpectrumPicture:
    slopes, upper = witness.slopes, system.slope.upper
    border, size = ("imaginary axis", "real part") if system.continuous else ("unit circle", "modulus")
    steep = bool((np.abs(slopes - upper) <= 1e-3 * system.slope.bound).all())
    where = "where every slope is at its upper end " if steep else ""
    caption = (
        f"Eigenvalues of the Jacobian of a {_network(system)} at an equilibrium {where}(dots) against the {border}: "
        f"one has a {size} above {rounded(witness.growth, up=False)} (proven), {_so(system)}."
    )
    steepest = np.zeros(0, dtype=np.complex128)
    if not steep:
        caption += " Rings: the eigenvalues with every slope at its upper end."
        steepest = _eigenvalues(_jacobian(system, upper))
    found = _eigenvalues(_jacobian(system, slopes))
    return SpectrumPicture(found, steepest, system.continuous, "at the equilibrium", caption)


def _switching(system: System, witness: SwitchingWitness) -> SpectrumPicture:
    product = np.eye(system.size)
    for slopes, duration in zip(witness.slopes, witness.durations, strict=True):
        jacobian = _jacobian(system, slopes)
        flow = scipy.linalg.expm(jacobian * duration) if system.continuous else matrix_power(jacobian, int(duration))
        product = flow @ product
    unit = "time" if system.continuous else "steps"
    caption = (
        f"Eigenvalues of the derivative of a {_network(system)} over one period of a periodic input "
        f"({len(witness.durations)} modes, {unit} {witness.durations.sum():.4g}) against the unit circle: one has a "
        f"modulus above {rounded(witness.growth, up=False)} (proven), {_so(system)}."
    )
    return SpectrumPicture(_eigenvalues(product), np.zeros(0, np.complex128), False, "over one period", caption)


def _jacobian(system: System, slopes: Array) -> Array:
    """J(D) in float64, shape (n, n)."""
    A, B, C, _ = midpoint(system)  # with the lower ends of the slopes inside A
    return np.asarray(A + (B * (slopes - system.slope.lower)) @ C)


def _eigenvalues(matrix: Array) -> Points:
    return np.linalg.eigvals(matrix).astype(np.complex128)


def _so(system: System) -> str:
    """What an instability proves: of a network, or of a class that is given by its slopes alone."""
    whom = "the network" if system.slope.activation is not None else "the class of networks with such slopes"
    return f"so {whom} contracts in no norm"
