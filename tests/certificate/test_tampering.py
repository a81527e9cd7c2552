"""The tampering matrix: every byte class of certificate, proof and weights; each refusal with its own reason."""

from __future__ import annotations

import json
import shutil
from functools import reduce

import ml_dtypes
import numpy as np
import pytest
from certes.certificate import REASONS, Certificate, build, verify_certificate
from certes.certificate.envelope import Envelope
from certes.errors import CertesError, InputError
from certes.proofs import AbsoluteProof, Claims
from certes.spec import SystemSpec
from certes.systems import RateNetwork
from certes.weights import read_weights, to_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.certificate.certificate_cases import NAMES, Case, N, cases
from tests.certificate.tampering import DELETE, arrays_of, canonical, change, check, edited, forged, leaves

# --- signed, and the key is demanded: no byte may change -----------------------------------------------------------

SIGNED = {"malformed", "unsupported-format", "bad-signature", "untrusted-key"}


def test_every_byte_of_a_signed_envelope(keys, tmp_path) -> None:
    case = cases()["lure-rate"]
    certificate = case.certificate.sign(keys.private)
    seen: dict[str | None, int] = {}
    random = np.random.default_rng(5)
    for position in range(len(certificate.document)):
        changed = bytearray(certificate.document)
        changed[position] ^= 1 << random.integers(8)
        report = check(tmp_path, bytes(changed), certificate.proof, case.file, key=keys.public)
        assert not report.valid
        seen[report.reason] = seen.get(report.reason, 0) + 1
    assert set(seen) == SIGNED, seen
    assert verify_certificate(certificate, case.file, key=keys.public).valid


def test_every_field_of_a_signed_statement(case: Case, keys, tmp_path) -> None:
    certificate = case.certificate.sign(keys.private)
    for path in leaves(json.loads(certificate.payload)):
        for value in (DELETE, lambda old: [old], lambda old: old + 1 if isinstance(old, (int, float)) else "x"):
            report = check(tmp_path, edited(certificate, path, value), certificate.proof, case.file, key=keys.public)
            assert report.reason == "bad-signature", (path, report)


def test_parts_of_the_envelope(keys, other_keys, tmp_path) -> None:
    case = cases()["symmetric"]
    certificate = case.certificate.sign(keys.private)
    content = json.loads(certificate.document)

    def reason(path: tuple[str | int, ...], value: object, key: bytes | None = keys.public) -> str | None:
        document = canonical(change(content, path, value))
        return check(tmp_path, document, certificate.proof, case.file, key=key).reason

    first = ("signatures", 0)
    assert reason((*first, "keyid"), lambda old: old) is None
    assert reason((*first, "keyid"), lambda old: "0" + old[1:]) == "untrusted-key"
    assert reason((*first, "sig"), lambda old: ("B" if old[0] == "A" else "A") + old[1:]) == "bad-signature"
    assert reason((*first, "sig"), "") == "bad-signature"
    assert reason((*first, "sig"), "AAAA") == "bad-signature"
    assert reason((*first, "sig"), "no base64") == "malformed"
    assert reason(first, lambda old: {**old, "cert": "x"}) == "malformed"
    assert reason(("signatures",), lambda old: old * 2) == "malformed"
    assert reason(("signatures",), []) == "unsigned"
    assert reason(("signatures",), [], None) is None  # nobody asked for a signature
    assert reason(("signatures",), DELETE) == "malformed"
    assert reason(("payloadType",), "application/json") == "unsupported-format"
    assert reason(("payload",), "") == "bad-signature"
    assert reason(("payload",), "", None) == "malformed"
    assert reason(("more",), 1) == "malformed"
    assert reason(("payload",), lambda old: old.rstrip("=") + "====") == "malformed"

    wrong = case.certificate.sign(other_keys.private)
    assert verify_certificate(wrong, case.file, key=keys.public).reason == "untrusted-key"
    keyid = certificate.keyids[0]
    spoofed = canonical(change(json.loads(wrong.document), (*first, "keyid"), keyid))
    assert check(tmp_path, spoofed, certificate.proof, case.file, key=keys.public).reason == "bad-signature"


def test_a_signature_of_another_certificate(keys) -> None:
    one, two = (cases()[name].certificate.sign(keys.private) for name in ("symmetric", "product"))
    mixed = Envelope(one.payload, signatures=two.envelope.signatures).to_bytes()
    report = verify_certificate(Certificate(mixed, one.proof), cases()["symmetric"].file, key=keys.public)
    assert report.reason == "bad-signature"


def test_the_payload_type_is_signed(keys) -> None:
    """The same payload signed as something else is no signed certificate."""
    case = cases()["symmetric"]
    elsewhere = Envelope(case.certificate.payload, "application/json").sign(keys.private)
    moved = Envelope(case.certificate.payload, signatures=elsewhere.signatures).to_bytes()
    report = verify_certificate(Certificate(moved, case.certificate.proof), case.file, key=keys.public)
    assert report.reason == "bad-signature"


def test_without_a_key_the_report_says_that_nothing_was_checked(keys) -> None:
    case = cases()["symmetric"]
    for certificate, word in ((case.certificate, "unsigned"), (case.certificate.sign(keys.private), "NOT CHECKED")):
        report = verify_certificate(certificate, case.file)
        assert report.valid
        assert any(item.name == "signature" and word in item.detail for item in report.checks)


# --- unsigned: every edit that makes a claim false -----------------------------------------------------------------

CLAIMS = ("predicate", "claims")
SYSTEM = ("predicate", "system")
PROOF = ("predicate", "proof")
CONDITION = ("predicate", "condition")

FALSE = [
    ("lure-rate", (*CLAIMS, "rate"), 0.95, "obligation-failed"),
    ("lure-rate", (*CLAIMS, "rate"), -0.3, "false-claim"),
    ("lure-rate", (*CLAIMS, "rate"), 1e300, "obligation-failed"),
    ("lure-rate", (*CLAIMS, "rate"), None, "false-claim"),
    ("lure-rate", (*CLAIMS, "factor"), 0.5, "false-claim"),
    ("lure-rate", (*CLAIMS, "gain"), 6.0, "false-claim"),
    ("lure-rate", (*CLAIMS, "gain"), -7.0, "false-claim"),
    ("lure-rate", (*CLAIMS, "weight_radius"), 0.11, "false-claim"),
    ("lure-rate", (*CLAIMS, "metric_condition_log2"), 1.0, "false-claim"),
    ("lure-rate", (*CLAIMS, "largest_step", "step"), 1.9, "false-claim"),
    ("lure-rate", (*CLAIMS, "largest_step", "step"), -0.5, "false-claim"),
    ("lure-rate", (*CLAIMS, "largest_step", "factor"), 0.5, "false-claim"),
    ("lure-rate", (*CLAIMS, "norm"), "the Euclidean norm", "false-claim"),
    ("lure-rate", (*CLAIMS, "norm"), None, "false-claim"),
    ("lure-rate", (*CLAIMS, "growth"), 0.1, "false-claim"),
    ("lure-rate", ("predicate", "margin"), 0.9, "obligation-failed"),
    ("lure-rate", ("predicate", "verdict"), "not_contracting", "false-claim"),
    ("lure-rate", (*SYSTEM, "activation"), "gelu", "false-claim"),  # holds, but not the radius
    ("lure-rate", (*SYSTEM, "form"), "hopfield", "false-claim"),
    ("lure-rate", (*SYSTEM, "step"), 0.5, "false-claim"),
    ("lure-rate", (*SYSTEM, "tau"), 10.0, "obligation-failed"),
    ("lure-rate", (*CONDITION, "name"), "symmetric", "false-claim"),
    ("lure-general", (*CONDITION, "name"), "symmetric", "false-claim"),
    ("lure-hopfield", (*SYSTEM, "form"), "rate", "false-claim"),
    ("lure-map", (*CLAIMS, "factor"), 0.5, "obligation-failed"),
    ("lure-map", (*CLAIMS, "factor"), 1.0, "false-claim"),
    ("lure-map", (*SYSTEM, "step"), 1.9, "obligation-failed"),
    ("lure-map", (*SYSTEM, "step"), None, "false-claim"),
    ("lure-map", (*SYSTEM, "activation"), "leaky_relu:1.5", "malformed"),
    ("lure-map", (*SYSTEM, "activation"), "leaky_relu:0.10", "malformed"),
    ("lure-map", (*SYSTEM, "activation"), "leaky_relu:٠.١", "malformed"),
    ("lure-tau", (*SYSTEM, "tau"), [1.0, 1.0, 30.0, 1.0], "obligation-failed"),
    ("lure-tau", (*SYSTEM, "tau"), [1.0, 1.0, 1.5], "malformed"),
    ("lure-general", (*SYSTEM, "slope", 1, 1), 20.0, "obligation-failed"),
    ("lure-general", (*SYSTEM, "slope", 1, 1), -1.0, "malformed"),
    ("lure-general", (*SYSTEM, "discrete"), True, "false-claim"),
    ("absolute", (*CLAIMS, "rate"), 0.9, "false-claim"),
    ("absolute", (*CLAIMS, "gain"), 1e-3, "false-claim"),
    ("absolute", (*CLAIMS, "weight_radius"), 1e-9, "false-claim"),
    ("absolute", ("predicate", "margin"), 1e-9, "false-claim"),
    ("absolute-map", (*CLAIMS, "factor"), 0.6, "false-claim"),
    ("absolute-sparse", (*SYSTEM, "activation"), None, "malformed"),
    ("symmetric", (*CLAIMS, "rate"), 0.99, "obligation-failed"),
    ("symmetric", (*SYSTEM, "step"), 0.5, "false-claim"),
    ("product", (*CLAIMS, "rate"), 1.0, "false-claim"),
    ("product", (*SYSTEM, "activation"), "gelu", "obligation-failed"),
    ("singular", (*CLAIMS, "rate"), 0.6, "false-claim"),
    ("singular", (*SYSTEM, "slope"), [-2.0, 1.0], "obligation-failed"),
    ("singular-map", (*CLAIMS, "factor"), 0.7, "false-claim"),
    ("singular-map", (*SYSTEM, "step"), 0.1, "false-claim"),
    ("witness", (*CLAIMS, "growth"), 0.5, "false-claim"),
    ("witness", (*CLAIMS, "growth"), None, "false-claim"),
    ("witness", (*CLAIMS, "rate"), 0.5, "false-claim"),
    ("witness", ("predicate", "verdict"), "contracting", "false-claim"),
    ("witness", (*SYSTEM, "slope"), [0.0, 0.4], "obligation-failed"),  # narrowed: now it would contract
    ("witness", (*SYSTEM, "form"), "lure", "malformed"),
    ("witness", (*CLAIMS, "rate_bound"), 0.5, "malformed-proof"),
    ("lure-rate", ("predicate", "verdict"), "undecided", "false-claim"),
    ("lure-rate", (*CLAIMS, "rate_bound"), 0.99, "malformed-proof"),  # without its arrays
    ("lure-rate", (*CLAIMS, "factor_bound"), 0.01, "false-claim"),
    ("lure-rate", (*PROOF, "bound_kind"), "conic-bound", "malformed-proof"),
    ("lure-bound", (*CLAIMS, "rate_bound"), 0.9 - 1e-12, "false-claim"),  # the truth is 0.9
    ("lure-bound", (*CLAIMS, "rate_bound"), 0.2, "false-claim"),
    ("lure-bound", (*CLAIMS, "rate_bound"), -1.0, "false-claim"),
    ("lure-bound", (*CLAIMS, "rate_bound"), None, "malformed-proof"),
    ("lure-bound", (*CLAIMS, "factor_bound"), 0.1, "false-claim"),
    ("lure-bound", (*CLAIMS, "rate"), 0.95, "obligation-failed"),
    ("lure-bound", (*PROOF, "bound_kind"), None, "malformed-proof"),
    ("lure-bound", (*PROOF, "bound_kind"), "norm-bound", "malformed-proof"),
    ("lure-bound", (*PROOF, "bound_kind"), "lure", "unknown-condition"),
    ("lure-bound", (*PROOF, "bound_kind"), "magic", "unknown-condition"),
    ("lure-bound", (*SYSTEM, "tau"), 0.5, "false-claim"),
    ("lure-bound", (*SYSTEM, "tau"), [1.0, 1.0, 1.0, 0.875], "false-claim"),
    ("lure-bound", (*SYSTEM, "activation"), "gelu", "false-claim"),
    ("lure-bound", (*SYSTEM, "activation"), "sigmoid", "false-claim"),  # narrower slopes: better rates are possible
    ("lure-map-bound", (*CLAIMS, "factor_bound"), 0.5525, "false-claim"),  # the truth is 0.55249...
    ("lure-map-bound", (*CLAIMS, "factor_bound"), 0.95, "false-claim"),
    ("lure-map-bound", (*CLAIMS, "rate_bound"), 0.9, "false-claim"),
    ("lure-map-bound", (*SYSTEM, "step"), 0.75, "false-claim"),
    ("lure-general-bound", (*CLAIMS, "rate_bound"), 0.9, "false-claim"),
    ("lure-general-bound", (*SYSTEM, "slope"), [0.0, 0.5], "false-claim"),
    ("singular-bound", (*CLAIMS, "rate_bound"), 0.5 - 1e-12, "false-claim"),
    ("singular-bound", (*SYSTEM, "slope"), [-0.5, 0.5], "false-claim"),
    ("singular-bound", (*SYSTEM, "slope"), [-0.75, 1.0], "false-claim"),
    ("no-metric", ("predicate", "verdict"), "contracting", "false-claim"),
    ("no-metric", ("predicate", "verdict"), "not_contracting", "false-claim"),
    ("no-metric", (*CONDITION, "name"), "switching", "unknown-condition"),
    ("no-metric", (*CONDITION, "name"), "lure", "unknown-condition"),
    ("no-metric", (*CLAIMS, "rate"), 0.5, "false-claim"),
    ("no-metric", (*CLAIMS, "growth"), 2.0, "false-claim"),
    ("no-metric", (*CLAIMS, "norm"), "sqrt(x^T P x), P = metric", "false-claim"),
    ("no-metric", ("predicate", "margin"), 0.5, "false-claim"),
    ("no-metric", (*SYSTEM, "activation"), "sigmoid", "obligation-failed"),
    ("switching", (*CLAIMS, "growth"), 1.25, "false-claim"),
    ("switching", (*CLAIMS, "growth"), None, "false-claim"),
    ("switching", (*CLAIMS, "rate"), 0.5, "false-claim"),
    ("switching", ("predicate", "verdict"), "undecided", "false-claim"),
    ("switching", ("predicate", "verdict"), "contracting", "false-claim"),
    ("switching", (*CONDITION, "name"), "instability", "unknown-condition"),
    ("switching", (*CONDITION, "version"), 2, "unknown-condition"),
    ("switching", (*SYSTEM, "slope"), [0.0, 0.4], "obligation-failed"),
    ("switching", (*SYSTEM, "form"), "hopfield", "obligation-failed"),
    ("switching", (*SYSTEM, "tau"), 0.1, "obligation-failed"),
]


@pytest.mark.parametrize(("name", "path", "value", "reason"), FALSE)
def test_false_claim(name: str, path: tuple[str | int, ...], value: object, reason: str, tmp_path) -> None:
    case = cases()[name]
    certificate = case.certificate
    report = check(tmp_path, edited(certificate, path, value), certificate.proof, case.file)
    assert not report.valid
    assert report.reason == reason, report.detail
    assert report.verdict == "undecided"
    assert report.detail
    assert not report.checks[-1].held


STRUCTURE = [
    (("_type",), "https://in-toto.io/Statement/v2", "unsupported-format"),
    (("_type",), DELETE, "malformed"),
    (("predicateType",), "urn:certes:contraction:v2", "unsupported-format"),
    (("predicate", "format"), 4, "unsupported-format"),
    (("predicate", "format"), 3, "malformed"),  # of gated cells only
    (("predicate", "format"), 1, "malformed"),  # it has no entries for a bound
    (("predicate", "verdict"), "stable", "malformed"),
    ((*CLAIMS, "rate_bound"), DELETE, "malformed"),
    ((*CLAIMS, "rate_bound"), "0.9", "malformed"),
    ((*CLAIMS, "rate_bound"), 1, "malformed"),
    ((*CLAIMS, "factor_bound"), DELETE, "malformed"),
    ((*PROOF, "bound_kind"), DELETE, "malformed"),
    ((*PROOF, "bound_kind"), 1, "malformed"),
    (("predicate", "format"), True, "malformed"),
    (("predicate", "format"), 1.0, "malformed"),
    (("predicate",), [], "malformed"),
    (("predicate", "more"), 1, "malformed"),
    (("predicate", "versions"), DELETE, "malformed"),
    (("predicate", "margin"), -1.0, "malformed"),
    (("predicate", "margin"), 0, "malformed"),  # an integer is not the canonical form of a float
    ((*CLAIMS, "rate"), "0.3", "malformed"),
    ((*CLAIMS, "rate"), True, "malformed"),
    ((*CLAIMS, "rate"), 10**400, "malformed"),
    ((*CLAIMS, "rate"), DELETE, "malformed"),
    ((*CONDITION, "name"), "magic", "unknown-condition"),
    ((*CONDITION, "name"), "absolute", "unknown-condition"),
    ((*CONDITION, "version"), 2, "unknown-condition"),
    ((*PROOF, "kind"), "magic", "unknown-condition"),
    ((*PROOF, "kind"), "singular", "unknown-condition"),
    ((*PROOF, "sha256"), "0" * 64, "wrong-proof"),
    ((*PROOF, "sha256"), "0" * 64 + "\n", "malformed"),
    ((*PROOF, "sha256"), "../../x", "malformed"),
    ((*PROOF, "mediaType"), "application/x-pickle", "malformed"),
    ((*SYSTEM, "input_tensor"), "x", "malformed"),
    ((*SYSTEM, "form"), "torch-rnn", "malformed"),
    ((*SYSTEM, "tensors"), {}, "malformed"),
    ((*SYSTEM, "tensors", "W"), "readout.weight", "malformed"),
    ((*SYSTEM, "discrete"), 0, "malformed"),
    ((*SYSTEM, "step"), -1.0, "malformed"),
    (("subject",), [], "malformed"),
    (("subject",), lambda old: old[1:], "malformed"),
    (("subject",), lambda old: old[:1], "malformed"),
    (("subject",), lambda old: [*old, old[1]], "malformed"),
    (("subject",), lambda old: [*old, {**old[1], "name": "net.safetensors#other"}], "malformed"),
    (("subject", 0, "digest", "sha256"), "0" * 64, "wrong-file"),
    (("subject", 0, "name"), "other.safetensors", "malformed"),
    (("subject", 1, "name"), "net.safetensors#other", "malformed"),
    (("subject", 1, "digest", "sha256"), "0" * 64, "wrong-weights"),
    (("subject", 1, "digest", "sha256"), "A" * 64, "malformed"),
    (("subject", 1, "digest", "md5"), "x", "malformed"),
    (("subject", 1, "annotations", "dtype"), "BF16", "wrong-weights"),
    (("subject", 1, "annotations", "shape"), [16], "wrong-weights"),
    (("subject", 1, "annotations", "shape"), [2, 8], "wrong-weights"),
    (("subject", 1, "annotations"), DELETE, "malformed"),
]


@pytest.mark.parametrize(("path", "value", "reason"), STRUCTURE)
def test_structure(path: tuple[str | int, ...], value: object, reason: str, tmp_path) -> None:
    case = cases()["lure-rate"]
    report = check(tmp_path, edited(case.certificate, path, value), case.certificate.proof, case.file)
    assert report.reason == reason, report.detail


def test_every_field_of_an_unsigned_statement(case: Case, tmp_path) -> None:
    """Unsigned, every field deleted or of another type: refused. (A shorter shape is not that of the weights.)"""
    certificate = case.certificate
    for path in leaves(json.loads(certificate.payload)):
        for value in (DELETE, lambda old: [[old]], {"a": 1}):
            report = check(tmp_path, edited(certificate, path, value), certificate.proof, case.file)
            allowed = ("wrong-weights",) if "shape" in path else ("malformed", "unsupported-format")
            assert report.reason in (*allowed, "malformed"), (path, report)


def test_payload_that_is_not_canonical(tmp_path) -> None:
    case = cases()["lure-rate"]
    payload = case.certificate.payload
    for changed in (
        payload + b"\n",
        b" " + payload,
        payload.replace(b":0.3,", b":3e-1,"),
        payload.replace(b":0.3,", b":0.30,"),
        payload.replace(b":0.3,", b":NaN,"),
        payload.replace(b":0.3,", b":Infinity,"),
        payload.replace(b":0.3,", b":1e999,"),
        payload.replace(b'"rate":0.3', b'"rate":0.1,"rate":0.3'),
        payload.replace(b"tanh", b"\\u0074anh"),
        payload.replace(b"tanh", b"\xff\xff\xff\xff"),
        payload.replace(b"tanh", b"\\ud800"),
        b"\xef\xbb\xbf" + payload,
        payload[:-1],
        b"",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ):
        assert changed != payload
        report = check(tmp_path, Envelope(changed).to_bytes(), case.certificate.proof, case.file)
        assert report.reason == "malformed", changed[:40]


# --- the proof -----------------------------------------------------------------------------------------------------


def test_proof_file(case: Case, tmp_path) -> None:
    certificate = case.certificate
    document, proof = certificate.document, certificate.proof
    assert check(tmp_path, document, None, case.file).reason == "missing-proof"
    assert verify_certificate((document, None), case.file).reason == "missing-proof"
    assert verify_certificate((document, proof), case.file).valid
    assert verify_certificate((document, proof + b"x"), case.file).reason == "wrong-proof"
    assert verify_certificate((document + b"x", proof), case.file).reason == "malformed"
    for position in range(0, len(proof), max(1, len(proof) // 60)):
        changed = bytearray(proof)
        changed[position] ^= 0x10
        assert check(tmp_path, document, bytes(changed), case.file).reason == "wrong-proof"
    for changed in (proof[:-1], proof[: len(proof) // 2], b"", proof + b"\0"):
        assert check(tmp_path, document, changed, case.file).reason == "wrong-proof"
    with pytest.raises(InputError) as caught:
        Certificate(document, proof + b"\0")
    assert caught.value.slug == "wrong-proof"


def test_swapped_proofs(tmp_path) -> None:
    one, two = cases()["lure-rate"], cases()["lure-map"]
    assert check(tmp_path, one.certificate.document, two.certificate.proof, one.file).reason == "wrong-proof"


def test_every_array_of_a_forged_proof(case: Case, tmp_path) -> None:
    """The forger updates the digest. Missing, added, of another type or shape, not finite: all refused."""
    certificate = case.certificate
    used = set(arrays_of(certificate.proof))
    if case.claims.gain is None and case.claims.metric_condition_log2 is None and case.proof.kind == "lure":
        used -= {"metric_lower", "metric_upper"}  # nothing that rests on them is claimed
    if case.claims.largest_step is not None:
        used -= {"step.metric_lower", "step.metric_upper"}
    for name in arrays_of(certificate.proof):
        edits = {
            "missing": lambda arrays, name=name: {key: array for key, array in arrays.items() if key != name},
            "renamed": lambda arrays, name=name: {key + ("x" if key == name else ""): a for key, a in arrays.items()},
            "single": lambda arrays, name=name: {**arrays, name: arrays[name].astype(np.float32)},
            "bfloat16": lambda arrays, name=name: {**arrays, name: arrays[name].astype(ml_dtypes.bfloat16)},
            "deeper": lambda arrays, name=name: {**arrays, name: arrays[name][None]},
        }
        for label, edit in edits.items():
            report = check(tmp_path, *forged(certificate, edit), case.file)
            assert report.reason == "malformed-proof", (name, label, report)
        array = arrays_of(certificate.proof)[name]
        if array.ndim:
            report = check(
                tmp_path, *forged(certificate, lambda arrays, n=name: {**arrays, n: arrays[n][:-1]}), case.file
            )
            assert report.reason in ("obligation-failed", "false-claim"), (name, report)
        if array.dtype == np.float64 and name in used:
            for value in (np.nan, np.inf, -np.inf, 5e-324):
                if (name, value) == ("input", 5e-324) or (array.ndim == 0 and name == "horizon" and value == 5e-324):
                    continue
                report = check(
                    tmp_path,
                    *forged(certificate, lambda arrays, n=name, v=value: {**arrays, n: np.full_like(arrays[n], v)}),
                    case.file,
                )
                assert not report.valid, (name, value)
                assert report.reason in ("obligation-failed", "false-claim")


FORGED = [
    ("lure-rate", "metric", lambda a: -a, "obligation-failed"),
    ("lure-rate", "metric", lambda a: a + np.triu(np.full_like(a, 1e-9), 1), "obligation-failed"),
    ("lure-rate", "metric", lambda a: 10 * a, "obligation-failed"),
    ("lure-rate", "multipliers", lambda a: -a, "obligation-failed"),
    ("lure-rate", "multipliers", lambda a: 0 * a, "obligation-failed"),
    ("lure-rate", "dual", np.logical_not, "false-claim"),
    ("lure-rate", "metric_lower", lambda a: a + 0.6, "obligation-failed"),
    ("lure-rate", "metric_upper", lambda a: a - 1.5, "obligation-failed"),
    ("lure-rate", "slack_state", lambda a: a + 10, "obligation-failed"),
    ("lure-rate", "slack_state", lambda a: -a, "obligation-failed"),
    ("lure-rate", "slack_input", lambda a: a + 10, "obligation-failed"),
    ("lure-rate", "slack_input", lambda a: 0 * a, "false-claim"),
    ("lure-rate", "step.metric", lambda a: -a, "false-claim"),
    ("lure-rate", "step.multipliers", lambda a: -a, "false-claim"),
    ("absolute", "right", lambda a: -a, "obligation-failed"),
    ("absolute", "right_exponent", lambda a: a + np.array([0, 40, 0, 0]), "false-claim"),
    ("absolute", "left", lambda a: 2 * a, "obligation-failed"),
    ("absolute", "left_exponent", lambda a: a + np.array([0, 0, 0, 2**62]), "malformed-proof"),
    ("absolute", "left_exponent", lambda a: a + np.array([0, 0, 0, 2**40]), "malformed-proof"),
    ("absolute", "right_exponent", lambda a: np.array([0, 0, 0, -(2**63)]), "malformed-proof"),
    ("absolute", "right_exponent", lambda a: a + np.array([0, 2**39, 0, 0]), "false-claim"),
    ("symmetric", "negative", np.logical_not, "false-claim"),  # another norm
    ("product", "core", lambda a: -a, "obligation-failed"),
    ("product", "core", lambda a: a * 1.001, "obligation-failed"),
    ("product", "outer", lambda a: -a, "obligation-failed"),
    ("product", "inner", lambda a: 2 * a, "obligation-failed"),
    ("product", "residual", lambda a: 0 * a - 1.0, "obligation-failed"),
    ("product", "metric_lower", lambda a: a * 10, "obligation-failed"),
    ("product", "metric_upper", lambda a: a / 2, "obligation-failed"),
    ("singular", "norm", lambda a: a / 2, "obligation-failed"),
    ("singular", "norm", lambda a: a * 2, "false-claim"),
    ("singular", "q", lambda a: a * np.array([1e6, 1.0, 1.0, 1.0]), "obligation-failed"),
    ("singular", "q", lambda a: -a, "obligation-failed"),
    ("witness", "lyapunov", lambda a: -a, "obligation-failed"),
    ("witness", "direction", lambda a: a[::-1], "obligation-failed"),
    ("witness", "slopes", lambda a: 1.5 * a, "obligation-failed"),
    ("witness", "input", lambda a: a + 1.0, "obligation-failed"),
    ("witness", "start", lambda a: a * 0, "obligation-failed"),
    ("witness", "start_other", lambda a: -a, "obligation-failed"),
    ("witness", "horizon", lambda a: a / 100, "obligation-failed"),
    ("witness", "horizon", lambda a: a * 1e300, "obligation-failed"),
    ("witness", "growth", lambda a: a + 2.0, "false-claim"),
    ("lure-bound", "bound.sine", lambda a: -a, "false-claim"),
    ("lure-bound", "bound.sine", lambda a: np.nextafter(a, -2.0), "false-claim"),  # just outside the disk
    ("lure-bound", "bound.cosine", lambda a: a + 1.0, "false-claim"),
    ("lure-bound", "bound.real", lambda a: 0 * a, "false-claim"),
    ("lure-bound", "bound.real", lambda a: a[::-1], "false-claim"),
    ("lure-bound", "bound.imaginary", lambda a: -a, "false-claim"),
    ("lure-bound", "bound.imaginary", lambda a: 1e-200 * a, "false-claim"),
    ("lure-map-bound", "bound.imaginary", lambda a: -a, "false-claim"),
    ("lure-general-bound", "bound.columns", lambda a: np.vstack([a[:N], -a[N:]]), "false-claim"),
    ("lure-general-bound", "bound.columns", lambda a: np.vstack([a[:N], 1.01 * a[N:]]), "false-claim"),
    ("lure-general-bound", "bound.columns", lambda a: 0 * a, "false-claim"),
    ("lure-general-bound", "bound.dual", np.logical_not, "false-claim"),
    ("singular-bound", "bound.columns", lambda a: 0 * a, "false-claim"),
    ("singular-bound", "bound.columns", lambda a: a[:, :1], "false-claim"),
    ("no-metric", "slopes", lambda a: 1.5 * a, "obligation-failed"),
    ("no-metric", "slopes", lambda a: 0.5 * a, "obligation-failed"),
    ("no-metric", "pattern", lambda a: 0 * a, "obligation-failed"),
    ("no-metric", "pattern", lambda a: a + 1, "obligation-failed"),
    ("no-metric", "columns", lambda a: a[:, ::-1], "obligation-failed"),
    ("no-metric", "columns", lambda a: 0 * a, "obligation-failed"),
    ("switching", "points", lambda a: a + 1.0, "obligation-failed"),
    ("switching", "slopes", lambda a: 0.5 * a, "obligation-failed"),
    ("switching", "durations", lambda a: 0.5 * a, "obligation-failed"),
    ("switching", "durations", lambda a: -a, "obligation-failed"),
    ("switching", "ramp", lambda a: a + 0.1, "obligation-failed"),
    ("switching", "lyapunov", lambda a: -a, "obligation-failed"),
    ("switching", "direction", lambda a: a[::-1], "obligation-failed"),
    ("switching", "growth", lambda a: a + 2.0, "false-claim"),
    ("switching", "largest_input", lambda a: a / 10, "obligation-failed"),
    ("switching", "start", lambda a: a * 0, "obligation-failed"),
    ("switching", "start_other", lambda a: a + 0.01, "obligation-failed"),
    ("switching", "periods", lambda a: a + 0.5, "obligation-failed"),
    ("switching", "periods", lambda a: a / 6, "obligation-failed"),
]


@pytest.mark.parametrize(("name", "array", "edit", "reason"), FORGED)
def test_forged_proof(name: str, array: str, edit, reason: str, tmp_path) -> None:
    case = cases()[name]

    def apply(arrays):
        return {**arrays, array: np.array(edit(arrays[array]), dtype=arrays[array].dtype)}

    report = check(tmp_path, *forged(case.certificate, apply), case.file)
    assert report.reason == reason, report.detail


def test_exponents_that_wrap_around(tmp_path) -> None:
    """Differences of exponents near -2**63 wrap: both ratios of a pair would look tiny, whatever the weights."""
    smallest = np.array([0, -(2**63)])
    half = np.full(2, 0.5)
    proof = AbsoluteProof(half, smallest, half.copy(), smallest.copy())
    system = RateNetwork([[0.0, 1e3], [1e3, 0.0]], "tanh")
    certificate = build(system, "contracting", "absolute", 1, proof, Claims(rate=0.99))
    assert verify_certificate(certificate, system).reason == "malformed-proof"


def test_forged_proof_files_that_are_none(tmp_path) -> None:
    case = cases()["symmetric"]
    import hashlib
    import pickle

    bad_bool = case.certificate.proof[:-1] + b"\x02"
    for proof in (b"", b"x" * 100, pickle.dumps({"negative": False}), case.certificate.proof + b"\0", bad_bool):
        document = edited(case.certificate, (*PROOF, "sha256"), hashlib.sha256(proof).hexdigest())
        assert check(tmp_path, document, proof, case.file).reason == "malformed-proof"


# --- the weights ---------------------------------------------------------------------------------------------------


def test_every_weight_tensor(case: Case, tmp_path) -> None:
    certificate = case.certificate
    used = {name.partition("#")[2] for name in [s.name for s in certificate.statement.subject[1:]]}
    assert used < set(case.file.tensors)
    for name, entry in case.file.tensors.items():
        raw = entry.raw()
        start = case.weights.index(raw)
        for position in {0, len(raw) // 2, len(raw) - 1}:
            changed = bytearray(case.weights)
            changed[start + position] ^= 1
            report = verify_certificate(certificate, bytes(changed))
            assert report.reason == ("wrong-weights" if name in used else "wrong-file"), name
            assert name in used or "same" in report.detail
            if name in used:
                assert name.removesuffix(".indptr") in report.detail or name.rpartition(".")[0] in report.detail


def test_weight_file_in_other_ways(case: Case) -> None:
    certificate = case.certificate
    assert verify_certificate(certificate, None).reason == "missing-weights"
    renamed = case.weights.replace(b"made for the tests", b"made for the Tests")
    assert verify_certificate(certificate, renamed).reason == "wrong-file"
    assert verify_certificate(certificate, to_bytes({"x": np.zeros((4, 4))})).reason == "wrong-weights"
    for truncated in (case.weights[:-1], case.weights[:4], b""):
        with pytest.raises(InputError) as caught:
            verify_certificate(certificate, truncated)
        assert caught.value.field == "weights"


def test_tensor_of_another_type_with_the_same_values() -> None:
    case = cases()["lure-rate"]
    values = case.system.matrix("W")
    assert verify_certificate(case.certificate, {"W": values.astype(np.float32)}).valid
    assert verify_certificate(case.certificate, {"W": values}).reason == "wrong-weights"
    assert verify_certificate(case.certificate, {"W": values.astype(np.float32).T.copy()}).reason == "wrong-weights"
    assert verify_certificate(case.certificate, {"W": values.astype(">f4")}).valid  # the same little-endian bytes
    assert verify_certificate(case.certificate, {"W": np.full((4, 4), np.nan, np.float32)}).reason == "wrong-weights"


def test_system_with_other_dynamics() -> None:
    case = cases()["lure-rate"]
    for other in ({"step": 0.5}, {"activation": "relu"}, {"form": "hopfield"}, {"tau": 2.0}):
        system = SystemSpec.parse({**case.spec, **other}).system(case.file)
        assert verify_certificate(case.certificate, system).reason == "wrong-system"


@pytest.mark.parametrize("one", NAMES)
def test_weights_of_another_network(one: str) -> None:
    for other in NAMES:
        if cases()[one].weights != cases()[other].weights:
            report = verify_certificate(cases()[one].certificate, cases()[other].weights)
            assert report.reason in ("wrong-weights", "wrong-file")


# --- anything at all -----------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(name=st.sampled_from(NAMES), part=st.sampled_from(["document", "proof", "weights"]), data=st.data())
def test_random_damage_is_never_valid_and_never_a_crash(name: str, part: str, data, tmp_path_factory) -> None:
    from tests.certificate.conftest import make_keys

    keys, case = make_keys(1), cases()[name]
    certificate = case.certificate.sign(keys.private)
    parts = {"document": certificate.document, "proof": certificate.proof, "weights": case.weights}
    original = parts[part]
    start = data.draw(st.integers(0, len(original) - 1))
    length = data.draw(st.integers(0, 12))
    parts[part] = original[:start] + data.draw(st.binary(max_size=12)) + original[start + length :]
    folder = tmp_path_factory.mktemp("damage")
    try:
        report = check(folder, parts["document"], parts["proof"], parts["weights"], key=keys.public)
    except CertesError:
        return
    finally:
        shutil.rmtree(folder)
    assert report.valid == (parts[part] == original)
    assert report.reason is None or report.reason in REASONS


def test_unreadable_paths(tmp_path, keys) -> None:
    case = cases()["symmetric"]
    for bad in (tmp_path / "none.json", tmp_path, "a\0b"):
        with pytest.raises(InputError, match="certificate"):
            verify_certificate(bad, case.file)
    with pytest.raises(InputError, match="key"):
        verify_certificate(case.certificate, case.file, key=tmp_path / "none.pem")
    for bad_key in (b"", b"no key", keys.private, b"x" * 100_000):
        with pytest.raises(InputError, match="key"):
            verify_certificate(case.certificate.sign(keys.private), case.file, key=bad_key)
    for bad_key in (b"", keys.public):
        with pytest.raises(InputError, match="key"):
            case.certificate.sign(bad_key)
    with pytest.raises(InputError):
        read_weights(tmp_path)


# --- what an unsigned edit leaves valid is true ---------------------------------------------------------------------

NUMBERS = [
    (name, path)
    for name in NAMES
    for path in leaves(json.loads(cases()[name].certificate.payload)["predicate"], ("predicate",))
    if len(path) > 1
    and path[1] in ("claims", "margin", "system")
    and isinstance(reduce(lambda part, step: part[step], path, json.loads(cases()[name].certificate.payload)), float)
]


@settings(max_examples=80)
@given(
    place=st.sampled_from(NUMBERS),
    factor=st.sampled_from([0.0, -1.0, 0.5, 0.9, 0.999999, 1.000001, 1.1, 2.0, 8.0]) | st.floats(0.3, 3.0),
)
def test_edited_numbers_that_stay_valid_are_true(place, factor: float, tmp_path_factory) -> None:
    """The judge is the exact audit, other code in rational arithmetic."""
    pytest.importorskip("flint")
    name, path = place
    case = cases()[name]
    folder = tmp_path_factory.mktemp("edit")
    document = edited(case.certificate, path, lambda old: old * factor)
    if check(folder, document, case.certificate.proof, case.file).valid:
        report = check(folder, document, case.certificate.proof, case.file, exact=True)
        assert report.valid, (path, factor, report)


@settings(max_examples=80)
@given(
    name=st.sampled_from(NAMES), data=st.data(), size=st.sampled_from([1e-9, 1e-3, 0.1, 1.0]), seed=st.integers(0, 99)
)
def test_edited_proofs_that_stay_valid_are_true(name: str, data, size: float, seed: int, tmp_path_factory) -> None:
    pytest.importorskip("flint")
    case = cases()[name]
    arrays = arrays_of(case.certificate.proof)
    floats = sorted(key for key, array in arrays.items() if array.dtype == np.float64)
    if not floats:
        return
    key = data.draw(st.sampled_from(floats))
    noise = size * np.random.default_rng(seed).normal(size=arrays[key].shape)
    noise = noise + noise.T if noise.shape == noise.T.shape else noise
    folder = tmp_path_factory.mktemp("edit")
    document, proof = forged(case.certificate, lambda old: {**old, key: old[key] + noise})
    if check(folder, document, proof, case.file).valid:
        assert check(folder, document, proof, case.file, exact=True).valid


# --- the exact audit -----------------------------------------------------------------------------------------------


def test_exact_audit(case: Case) -> None:
    pytest.importorskip("flint")
    report = verify_certificate(case.certificate, case.file, exact=True)
    assert report.valid, report.detail
    assert report.checks[-1].name == "exact-audit"


def test_exact_audit_has_the_last_word(monkeypatch) -> None:
    """When the rigorous verifier is (made) wrong, the audit still refuses, with its own reason."""
    pytest.importorskip("flint")
    from certes.certificate import check as module
    from certes.verify import Report

    case = cases()["lure-rate"]
    wrong = edited(case.certificate, (*CLAIMS, "rate"), 0.95)
    monkeypatch.setattr(module, "verify_contraction", lambda *_: Report("contracting"))
    assert verify_certificate(Certificate(wrong, case.certificate.proof), case.file).valid
    report = verify_certificate(Certificate(wrong, case.certificate.proof), case.file, exact=True)
    assert report.reason == "exact-audit-failed"


def test_exact_audit_may_be_undecided(monkeypatch) -> None:
    pytest.importorskip("flint")
    from certes import exact
    from certes.verify import Report

    monkeypatch.setattr(exact, "audit", lambda *_: Report("undecided", (), "exact-audit-undecided", "too large"))
    case = cases()["lure-rate"]
    assert verify_certificate(case.certificate, case.file, exact=True).reason == "exact-audit-undecided"
