"""Worked examples for the OpenAPI document. A test posts the requests and compares the answers.

The certificate below is also a stored sample: it must verify for ever.
"""

from __future__ import annotations

from typing import Any

REQUEST: dict[str, Any] = {
    "spec": {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh"},
    "tensors": {"W": [[0.0, -1.5], [1.5, 0.0]]},
}

_PAYLOAD = (
    "eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEiLCJwcmVkaWNhdGUiOnsiY2xhaW1zIjp7ImZhY3RvciI6bnVsbCwi"
    "Z2FpbiI6NC4wMDAwMTYxMjU0MzcyNzgsImdyb3d0aCI6bnVsbCwibGFyZ2VzdF9zdGVwIjp7ImZhY3RvciI6MC45OTkwMTQzNjM0OTIxMjYy"
    "LCJzdGVwIjowLjQ5NDk5OTk5NTA1MDAwMDJ9LCJtZXRyaWNfY29uZGl0aW9uX2xvZzIiOjEuMCwibm9ybSI6InNxcnQoeF5UIFAgeCksIFAg"
    "PSBtZXRyaWMiLCJyYXRlIjowLjI0OTk5OTI0MjQ5OTk5MjYsIndlaWdodF9yYWRpdXMiOjEuMDYwNTUzODQ4NTM4MzIzNWUtMDZ9LCJjb25k"
    "aXRpb24iOnsibmFtZSI6Imx1cmUiLCJ2ZXJzaW9uIjoxfSwiZm9ybWF0IjoxLCJtYXJnaW4iOjIuNjczNTIzMTgwNjE4NTMxZS0wOSwicHJv"
    "b2YiOnsia2luZCI6Imx1cmUiLCJtZWRpYVR5cGUiOiJhcHBsaWNhdGlvbi92bmQuc2FmZXRlbnNvcnMiLCJzaGEyNTYiOiJkOWRlODc3ZDVh"
    "Y2EwYjIzZWY4MDk2NDRhNzkzMzA5MWM0NjkwMDQ1MjliYzkzNjhkNThmOGU0YWJiYTM1MTI2In0sInN5c3RlbSI6eyJhY3RpdmF0aW9uIjoi"
    "dGFuaCIsImRpc2NyZXRlIjpmYWxzZSwiZm9ybSI6InJhdGUiLCJzbG9wZSI6bnVsbCwic3RlcCI6bnVsbCwidGF1IjpudWxsLCJ0ZW5zb3Jz"
    "Ijp7IlciOiJXIn19LCJ2ZXJkaWN0IjoiY29udHJhY3RpbmciLCJ2ZXJzaW9ucyI6eyJjZXJ0ZXMiOiIwLjEuMCIsIm51bXB5IjoiMi40LjYi"
    "fX0sInByZWRpY2F0ZVR5cGUiOiJ1cm46Y2VydGVzOmNvbnRyYWN0aW9uOnYxIiwic3ViamVjdCI6W3siZGlnZXN0Ijp7InNoYTI1NiI6IjFi"
    "MTk5ZjYxZDAyYzM3NDcwNDZmMTkwOWMxMDMwODNlZTc1MzRlMzU3OWIyNzlkNzc4MGMxMTE5ZTBmZTNiNTMifSwibmFtZSI6IndlaWdodHMu"
    "c2FmZXRlbnNvcnMifSx7ImFubm90YXRpb25zIjp7ImR0eXBlIjoiRjY0Iiwic2hhcGUiOlsyLDJdfSwiZGlnZXN0Ijp7InNoYTI1NiI6IjNi"
    "ZTQ5N2M2NmFmOGU5MjI3MjJmZDY1YzYzOGMzNTI3MzIxOWJhODkzYWY0NzZhOTkxZjgzNGU2NWE1ZGY2NDAifSwibmFtZSI6IndlaWdodHMu"
    "c2FmZXRlbnNvcnMjVyJ9XX0="
)

ENVELOPE_SAMPLE: dict[str, Any] = {"payload": _PAYLOAD, "payloadType": "application/vnd.in-toto+json", "signatures": []}

PROOF_SAMPLE = (
    "qAMAAAAAAAB7Im1ldHJpYyI6eyJkdHlwZSI6IkY2NCIsInNoYXBlIjpbMiwyXSwiZGF0YV9vZmZzZXRzIjpbMCwzMl19LCJtZXRyaWNfbG93"
    "ZXIiOnsiZHR5cGUiOiJGNjQiLCJzaGFwZSI6W10sImRhdGFfb2Zmc2V0cyI6WzMyLDQwXX0sIm1ldHJpY191cHBlciI6eyJkdHlwZSI6IkY2"
    "NCIsInNoYXBlIjpbXSwiZGF0YV9vZmZzZXRzIjpbNDAsNDhdfSwibXVsdGlwbGllcnMiOnsiZHR5cGUiOiJGNjQiLCJzaGFwZSI6WzJdLCJk"
    "YXRhX29mZnNldHMiOls0OCw2NF19LCJzbGFja19pbnB1dCI6eyJkdHlwZSI6IkY2NCIsInNoYXBlIjpbXSwiZGF0YV9vZmZzZXRzIjpbNjQs"
    "NzJdfSwic2xhY2tfc3RhdGUiOnsiZHR5cGUiOiJGNjQiLCJzaGFwZSI6W10sImRhdGFfb2Zmc2V0cyI6WzcyLDgwXX0sInN0ZXAubWV0cmlj"
    "Ijp7ImR0eXBlIjoiRjY0Iiwic2hhcGUiOlsyLDJdLCJkYXRhX29mZnNldHMiOls4MCwxMTJdfSwic3RlcC5tZXRyaWNfbG93ZXIiOnsiZHR5"
    "cGUiOiJGNjQiLCJzaGFwZSI6W10sImRhdGFfb2Zmc2V0cyI6WzExMiwxMjBdfSwic3RlcC5tZXRyaWNfdXBwZXIiOnsiZHR5cGUiOiJGNjQi"
    "LCJzaGFwZSI6W10sImRhdGFfb2Zmc2V0cyI6WzEyMCwxMjhdfSwic3RlcC5tdWx0aXBsaWVycyI6eyJkdHlwZSI6IkY2NCIsInNoYXBlIjpb"
    "Ml0sImRhdGFfb2Zmc2V0cyI6WzEyOCwxNDRdfSwic3RlcC5zbGFja19pbnB1dCI6eyJkdHlwZSI6IkY2NCIsInNoYXBlIjpbXSwiZGF0YV9v"
    "ZmZzZXRzIjpbMTQ0LDE1Ml19LCJzdGVwLnNsYWNrX3N0YXRlIjp7ImR0eXBlIjoiRjY0Iiwic2hhcGUiOltdLCJkYXRhX29mZnNldHMiOlsx"
    "NTIsMTYwXX0sImR1YWwiOnsiZHR5cGUiOiJCT09MIiwic2hhcGUiOltdLCJkYXRhX29mZnNldHMiOlsxNjAsMTYxXX0sInN0ZXAuZHVhbCI6"
    "eyJkdHlwZSI6IkJPT0wiLCJzaGFwZSI6W10sImRhdGFfb2Zmc2V0cyI6WzE2MSwxNjJdfX0eAq6WAQDoPwAAAAAAAAAAAAAAAAAAAAAeAq6W"
    "AQDoP2awBgQAAOg/1VNVKQMA6D8AAAAAAADgPwAAAAAAAOA/TRmCrYjGwD6l6vFoW9+iPqWeYxaKTug/AAAAAAAAAAAAAAAAAAAAAKWeYxaK"
    "Tug/AAAAAAAAAAAAAAAAAADwfwAAAAAAANA/AAAAAAAA0D8AAAAAAAAAAAAAAAAAAAAAAAA="
)

ANSWER: dict[str, Any] = {
    "verdict": "contracting",
    "rate": 0.2499992424999926,
    "factor": None,
    "rate_bound": None,
    "factor_bound": None,
    "condition": "lure",
    "reason": None,
    "detail": "proven by 'lure'",
    "claims": {
        "rate": 0.2499992424999926,
        "factor": None,
        "margin": 2.673523180618531e-09,
        "weight_radius": 1.0605538485383235e-06,
        "gain": 4.000016125437278,
        "largest_step": {"step": 0.4949999950500002, "factor": 0.9990143634921262},
        "metric_condition_log2": 1.0,
    },
    "witness": None,
    "attempts": [
        {
            "condition": "absolute",
            "outcome": "nothing",
            "rate": -0.5,
            "factor": None,
            "reason": "margin",
            "detail": "the best rate that 'absolute' comes to is -0.5",
            "missing_margin": None,
        },
        {
            "condition": "symmetric",
            "outcome": "nothing",
            "rate": None,
            "factor": None,
            "reason": "not-applicable",
            "detail": "W is not symmetric",
            "missing_margin": None,
        },
        {
            "condition": "product",
            "outcome": "nothing",
            "rate": None,
            "factor": None,
            "reason": "not-applicable",
            "detail": "-W is not close to a diagonally symmetrisable matrix",
            "missing_margin": None,
        },
        {
            "condition": "singular",
            "outcome": "nothing",
            "rate": -0.5,
            "factor": None,
            "reason": "margin",
            "detail": "the best rate that 'singular' comes to is -0.5",
            "missing_margin": None,
        },
        {
            "condition": "instability",
            "outcome": "nothing",
            "rate": None,
            "factor": None,
            "reason": "no-witness",
            "detail": "no unstable equilibrium was found",
            "missing_margin": None,
        },
        {
            "condition": "lure",
            "outcome": "proven",
            "rate": 0.2499992424999926,
            "factor": None,
            "reason": None,
            "detail": "",
            "missing_margin": None,
        },
    ],
    "also": [],
    "certificate": {
        "digest": "53180e079f02545cbce1363dec5ba94a6ec55c3f92f078ae86845b5c5a6701c8",
        "href": "/v1/certificates/53180e079f02545cbce1363dec5ba94a6ec55c3f92f078ae86845b5c5a6701c8",
        "proof": "/v1/certificates/53180e079f02545cbce1363dec5ba94a6ec55c3f92f078ae86845b5c5a6701c8/proof",
        "signed": False,
        "envelope": ENVELOPE_SAMPLE,
    },
    "cached": False,
}

UNDECIDED: dict[str, Any] = {
    "verdict": "undecided",
    "rate": None,
    "factor": None,
    "rate_bound": None,
    "factor_bound": None,
    "condition": None,
    "reason": "margin",
    "detail": "absolute: the best rate that 'absolute' comes to is -1.5; symmetric: W is not symmetric; product: -W "
    "is not close to a diagonally symmetrisable matrix; singular: the best rate that 'singular' comes to is "
    "-1.5; instability: no unstable equilibrium was found; lure: the best rate found is -0.25. To try: "
    "weights scaled down",
    "claims": None,
    "witness": None,
    "attempts": [
        {
            "condition": "absolute",
            "outcome": "nothing",
            "rate": -1.5,
            "factor": None,
            "reason": "margin",
            "detail": "the best rate that 'absolute' comes to is -1.5",
            "missing_margin": None,
        },
        {
            "condition": "symmetric",
            "outcome": "nothing",
            "rate": None,
            "factor": None,
            "reason": "not-applicable",
            "detail": "W is not symmetric",
            "missing_margin": None,
        },
        {
            "condition": "product",
            "outcome": "nothing",
            "rate": None,
            "factor": None,
            "reason": "not-applicable",
            "detail": "-W is not close to a diagonally symmetrisable matrix",
            "missing_margin": None,
        },
        {
            "condition": "singular",
            "outcome": "nothing",
            "rate": -1.5,
            "factor": None,
            "reason": "margin",
            "detail": "the best rate that 'singular' comes to is -1.5",
            "missing_margin": None,
        },
        {
            "condition": "instability",
            "outcome": "nothing",
            "rate": None,
            "factor": None,
            "reason": "no-witness",
            "detail": "no unstable equilibrium was found",
            "missing_margin": None,
        },
        {
            "condition": "lure",
            "outcome": "nothing",
            "rate": -0.2500000125000002,
            "factor": None,
            "reason": "margin",
            "detail": "the best rate found is -0.25",
            "missing_margin": None,
        },
    ],
    "also": [],
    "certificate": None,
    "cached": False,
}

REPORT: dict[str, Any] = {
    "valid": True,
    "verdict": "contracting",
    "reason": None,
    "detail": "",
    "checks": [
        {"name": "envelope", "held": True, "detail": "a DSSE envelope in canonical form", "missing": None},
        {"name": "signature", "held": True, "detail": "unsigned; no key was demanded", "missing": None},
        {"name": "statement", "held": True, "detail": "well-formed, canonical and consistent", "missing": None},
        {"name": "condition", "held": True, "detail": "lure version 1", "missing": None},
        {
            "name": "weights",
            "held": True,
            "detail": "file and tensors have the stated digests: weights.safetensors#W",
            "missing": None,
        },
        {"name": "proof", "held": True, "detail": "the stated proof file, kind lure", "missing": None},
        {"name": "words", "held": True, "detail": "norm and growth are those of the proof", "missing": None},
        {"name": "range", "held": True, "detail": "rate 0.2499992424999926 > 0, no factor", "missing": None},
        {"name": "shapes", "held": True, "detail": "metric (n, n) and symmetric, multipliers (m,)", "missing": None},
        {"name": "metric-positive", "held": True, "detail": "P > 0", "missing": None},
        {
            "name": "block-positive",
            "held": True,
            "detail": "Lur'e block > 2.673523180618531e-09 I at 0.2499992424999926",
            "missing": None,
        },
        {"name": "metric-bounds", "held": True, "detail": "lower I < P < upper I", "missing": None},
        {"name": "weight-radius", "held": True, "detail": "1.0605538485383235e-06^2 <= m1 m2", "missing": None},
        {"name": "metric-condition", "held": True, "detail": "cond(metric) <= 2**floor(1.0)", "missing": None},
        {"name": "gain", "held": True, "detail": "gain 4.000016125437278 >= norm sqrt(cond) / decay", "missing": None},
        {
            "name": "largest-step",
            "held": True,
            "detail": "every step up to 0.4949999950500002: factor 0.9990143634921262 at the largest",
            "missing": None,
        },
        {"name": "supported", "held": True, "detail": "claims that the condition carries", "missing": None},
    ],
    "digest": "53180e079f02545cbce1363dec5ba94a6ec55c3f92f078ae86845b5c5a6701c8",
    "signed": False,
    "exact": False,
}
