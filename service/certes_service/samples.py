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
    "eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEiLCJwcmVkaWNhdGUiOnsiY2xhaW1zIjp7ImZhY3RvciI6bnVsbCwiZm"
    "FjdG9yX2JvdW5kIjpudWxsLCJnYWluIjo0LjAwMDAwNTI0MTM4OTkyMywiZ3Jvd3RoIjpudWxsLCJsYXJnZXN0X3N0ZXAiOnsiZmFjdG9yIjow"
    "Ljk5OTkwMDE0NTk3MDI4NzUsInN0ZXAiOjAuNDk5NDk5OTg1MDE1fSwibWV0cmljX2NvbmRpdGlvbl9sb2cyIjoxLjAsIm5vcm0iOiJzcXJ0KH"
    "heVCBQIHgpLCBQID0gbWV0cmljIiwicmF0ZSI6MC4yNDk5OTk5MjI3NDk5OTk3NywicmF0ZV9ib3VuZCI6MC4yNTAwMDAwMDIyNTAwMTYzNCwi"
    "d2VpZ2h0X3JhZGl1cyI6MS4wODE1NTUxNTM5OTM1NTE0ZS0wN30sImNvbmRpdGlvbiI6eyJuYW1lIjoibHVyZSIsInZlcnNpb24iOjF9LCJmb3"
    "JtYXQiOjIsIm1hcmdpbiI6Mi43MjY0MTkwOTA0OTI5ODJlLTEwLCJwcm9vZiI6eyJib3VuZF9raW5kIjoiY29uaWMtYm91bmQiLCJraW5kIjoi"
    "bHVyZSIsIm1lZGlhVHlwZSI6ImFwcGxpY2F0aW9uL3ZuZC5zYWZldGVuc29ycyIsInNoYTI1NiI6IjUwNDcyOTU1NmRhYzQxZmE4YWVkZjk0Nz"
    "Q3ZmRjYjVkYzI4ODI2NTgyOWE3YmE4Mzc1ZTc0ZWFlYWJmYzk3MzcifSwic3lzdGVtIjp7ImFjdGl2YXRpb24iOiJ0YW5oIiwiZGlzY3JldGUi"
    "OmZhbHNlLCJmb3JtIjoicmF0ZSIsInNsb3BlIjpudWxsLCJzdGVwIjpudWxsLCJ0YXUiOm51bGwsInRlbnNvcnMiOnsiVyI6IlcifX0sInZlcm"
    "RpY3QiOiJjb250cmFjdGluZyIsInZlcnNpb25zIjp7ImNlcnRlcyI6IjAuMS4wIiwibnVtcHkiOiIyLjQuNiJ9fSwicHJlZGljYXRlVHlwZSI6"
    "InVybjpjZXJ0ZXM6Y29udHJhY3Rpb246djEiLCJzdWJqZWN0IjpbeyJkaWdlc3QiOnsic2hhMjU2IjoiMWIxOTlmNjFkMDJjMzc0NzA0NmYxOT"
    "A5YzEwMzA4M2VlNzUzNGUzNTc5YjI3OWQ3NzgwYzExMTllMGZlM2I1MyJ9LCJuYW1lIjoid2VpZ2h0cy5zYWZldGVuc29ycyJ9LHsiYW5ub3Rh"
    "dGlvbnMiOnsiZHR5cGUiOiJGNjQiLCJzaGFwZSI6WzIsMl19LCJkaWdlc3QiOnsic2hhMjU2IjoiM2JlNDk3YzY2YWY4ZTkyMjcyMmZkNjVjNj"
    "M4YzM1MjczMjE5YmE4OTNhZjQ3NmE5OTFmODM0ZTY1YTVkZjY0MCJ9LCJuYW1lIjoid2VpZ2h0cy5zYWZldGVuc29ycyNXIn1dfQ=="
)

ENVELOPE_SAMPLE: dict[str, Any] = {"payload": _PAYLOAD, "payloadType": "application/vnd.in-toto+json", "signatures": []}

PROOF_SAMPLE = (
    "uAQAAAAAAAB7ImJvdW5kLmNvc2luZSI6eyJkdHlwZSI6IkY2NCIsInNoYXBlIjpbMV0sImRhdGFfb2Zmc2V0cyI6WzAsOF19LCJib3VuZC5pbW"
    "FnaW5hcnkiOnsiZHR5cGUiOiJGNjQiLCJzaGFwZSI6WzIsMV0sImRhdGFfb2Zmc2V0cyI6WzgsMjRdfSwiYm91bmQucmVhbCI6eyJkdHlwZSI6"
    "IkY2NCIsInNoYXBlIjpbMiwxXSwiZGF0YV9vZmZzZXRzIjpbMjQsNDBdfSwiYm91bmQuc2luZSI6eyJkdHlwZSI6IkY2NCIsInNoYXBlIjpbMV"
    "0sImRhdGFfb2Zmc2V0cyI6WzQwLDQ4XX0sIm1ldHJpYyI6eyJkdHlwZSI6IkY2NCIsInNoYXBlIjpbMiwyXSwiZGF0YV9vZmZzZXRzIjpbNDgs"
    "ODBdfSwibWV0cmljX2xvd2VyIjp7ImR0eXBlIjoiRjY0Iiwic2hhcGUiOltdLCJkYXRhX29mZnNldHMiOls4MCw4OF19LCJtZXRyaWNfdXBwZX"
    "IiOnsiZHR5cGUiOiJGNjQiLCJzaGFwZSI6W10sImRhdGFfb2Zmc2V0cyI6Wzg4LDk2XX0sIm11bHRpcGxpZXJzIjp7ImR0eXBlIjoiRjY0Iiwi"
    "c2hhcGUiOlsyXSwiZGF0YV9vZmZzZXRzIjpbOTYsMTEyXX0sInNsYWNrX2lucHV0Ijp7ImR0eXBlIjoiRjY0Iiwic2hhcGUiOltdLCJkYXRhX2"
    "9mZnNldHMiOlsxMTIsMTIwXX0sInNsYWNrX3N0YXRlIjp7ImR0eXBlIjoiRjY0Iiwic2hhcGUiOltdLCJkYXRhX29mZnNldHMiOlsxMjAsMTI4"
    "XX0sInN0ZXAubWV0cmljIjp7ImR0eXBlIjoiRjY0Iiwic2hhcGUiOlsyLDJdLCJkYXRhX29mZnNldHMiOlsxMjgsMTYwXX0sInN0ZXAubWV0cm"
    "ljX2xvd2VyIjp7ImR0eXBlIjoiRjY0Iiwic2hhcGUiOltdLCJkYXRhX29mZnNldHMiOlsxNjAsMTY4XX0sInN0ZXAubWV0cmljX3VwcGVyIjp7"
    "ImR0eXBlIjoiRjY0Iiwic2hhcGUiOltdLCJkYXRhX29mZnNldHMiOlsxNjgsMTc2XX0sInN0ZXAubXVsdGlwbGllcnMiOnsiZHR5cGUiOiJGNj"
    "QiLCJzaGFwZSI6WzJdLCJkYXRhX29mZnNldHMiOlsxNzYsMTkyXX0sInN0ZXAuc2xhY2tfaW5wdXQiOnsiZHR5cGUiOiJGNjQiLCJzaGFwZSI6"
    "W10sImRhdGFfb2Zmc2V0cyI6WzE5MiwyMDBdfSwic3RlcC5zbGFja19zdGF0ZSI6eyJkdHlwZSI6IkY2NCIsInNoYXBlIjpbXSwiZGF0YV9vZm"
    "ZzZXRzIjpbMjAwLDIwOF19LCJkdWFsIjp7ImR0eXBlIjoiQk9PTCIsInNoYXBlIjpbXSwiZGF0YV9vZmZzZXRzIjpbMjA4LDIwOV19LCJzdGVw"
    "LmR1YWwiOnsiZHR5cGUiOiJCT09MIiwic2hhcGUiOltdLCJkYXRhX29mZnNldHMiOlsyMDksMjEwXX19IAJcFDMmppE8feeoDseXSz+yXiujGa"
    "Dmv7NeK6MZoOa/f+eoDseXS7/2///////vP8AoeSkAAOg/AAAAAAAAAAAAAAAAAAAAAMAoeSkAAOg/9+7Rlv7/5z+IYiC8AQDoPwAAAAAAAOA/"
    "AAAAAAAA4D9LR0IyWF+LPt+k1eo3y24+KB2dLMoH6D8AAAAAAAAAAAAAAAAAAAAAKB2dLMoH6D8AAAAAAAAAAAAAAAAAAPB/AAAAAAAA0D8AAA"
    "AAAADQPwAAAAAAAAAAAAAAAAAAAAAAAA=="
)

_UNDECIDED_PAYLOAD = (
    "eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEiLCJwcmVkaWNhdGUiOnsiY2xhaW1zIjp7ImZhY3RvciI6bnVsbCwiZm"
    "FjdG9yX2JvdW5kIjpudWxsLCJnYWluIjpudWxsLCJncm93dGgiOm51bGwsImxhcmdlc3Rfc3RlcCI6bnVsbCwibWV0cmljX2NvbmRpdGlvbl9s"
    "b2cyIjpudWxsLCJub3JtIjpudWxsLCJyYXRlIjpudWxsLCJyYXRlX2JvdW5kIjpudWxsLCJ3ZWlnaHRfcmFkaXVzIjpudWxsfSwiY29uZGl0aW"
    "9uIjp7Im5hbWUiOiJuby1xdWFkcmF0aWMtbWV0cmljIiwidmVyc2lvbiI6MX0sImZvcm1hdCI6MiwibWFyZ2luIjowLjAsInByb29mIjp7ImJv"
    "dW5kX2tpbmQiOm51bGwsImtpbmQiOiJuby1xdWFkcmF0aWMtbWV0cmljIiwibWVkaWFUeXBlIjoiYXBwbGljYXRpb24vdm5kLnNhZmV0ZW5zb3"
    "JzIiwic2hhMjU2IjoiNjhmMGU2Mzk0M2EyZDJmMzFlNzBlZTY3YzA1ZTFkOGRhZTJiNjc4NzRlY2JjOWQ4NTAyMjViZDNkMjJkYWMzOSJ9LCJz"
    "eXN0ZW0iOnsiYWN0aXZhdGlvbiI6InRhbmgiLCJkaXNjcmV0ZSI6ZmFsc2UsImZvcm0iOiJyYXRlIiwic2xvcGUiOm51bGwsInN0ZXAiOm51bG"
    "wsInRhdSI6bnVsbCwidGVuc29ycyI6eyJXIjoiVyJ9fSwidmVyZGljdCI6InVuZGVjaWRlZCIsInZlcnNpb25zIjp7ImNlcnRlcyI6IjAuMS4w"
    "IiwibnVtcHkiOiIyLjQuNiJ9fSwicHJlZGljYXRlVHlwZSI6InVybjpjZXJ0ZXM6Y29udHJhY3Rpb246djEiLCJzdWJqZWN0IjpbeyJkaWdlc3"
    "QiOnsic2hhMjU2IjoiYTBjYmMyNjliZmVhOTMzZjFiZjViMDBlNzM5YzJhM2Q0YTA0NDdmZDgwYTJmYjY1ODRlZWIyZjk4ZTUwZGNmNSJ9LCJu"
    "YW1lIjoid2VpZ2h0cy5zYWZldGVuc29ycyJ9LHsiYW5ub3RhdGlvbnMiOnsiZHR5cGUiOiJGNjQiLCJzaGFwZSI6WzIsMl19LCJkaWdlc3QiOn"
    "sic2hhMjU2IjoiYThjNDEwZGQyMjZmNTY3YjdiN2UyZjM3ODM4Nzg5ZDU4MTI2ZGEzMWQ5ZjczMjQwOGQ4ODUyZWMyM2E1ZDI2YiJ9LCJuYW1l"
    "Ijoid2VpZ2h0cy5zYWZldGVuc29ycyNXIn1dfQ=="
)

ANSWER: dict[str, Any] = {
    "verdict": "contracting",
    "rate": 0.24999992274999977,
    "factor": None,
    "rate_bound": 0.25000000225001634,
    "factor_bound": None,
    "certified_scale": None,
    "refuted_scale": None,
    "condition": "lure",
    "reason": None,
    "detail": "proven by 'lure'",
    "claims": {
        "rate": 0.24999992274999977,
        "factor": None,
        "margin": 2.726419090492982e-10,
        "weight_radius": 1.0815551539935514e-07,
        "gain": 4.000005241389923,
        "largest_step": {
            "step": 0.499499985015,
            "factor": 0.9999001459702875,
        },
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
            "condition": "lure",
            "outcome": "proven",
            "rate": 0.24999992274999977,
            "factor": None,
            "reason": None,
            "detail": "",
            "missing_margin": None,
        },
    ],
    "also": [],
    "certificate": {
        "digest": "a7d744b8cacc686b616e194595c7e4fdd02b037e50b15dc68a8a3ca2a065b94e",
        "href": "/v1/certificates/a7d744b8cacc686b616e194595c7e4fdd02b037e50b15dc68a8a3ca2a065b94e",
        "proof": "/v1/certificates/a7d744b8cacc686b616e194595c7e4fdd02b037e50b15dc68a8a3ca2a065b94e/proof",
        "signed": False,
        "envelope": ENVELOPE_SAMPLE,
    },
    "cached": False,
}

UNDECIDED: dict[str, Any] = {
    "verdict": "undecided",
    "rate": None,
    "factor": None,
    "rate_bound": -0.24999999624997943,
    "factor_bound": None,
    "certified_scale": 0.7999896000311999,
    "refuted_scale": None,
    "condition": None,
    "reason": "no_quadratic_metric",
    "detail": (
        "no constant quadratic metric serves all slopes (proven); another norm may; absolute: the best "
        "rate that 'absolute' comes to is -1.5; symmetric: W is not symmetric; product: -W is not close "
        "to a diagonally symmetrisable matrix; singular: the best rate that 'singular' comes to is -1.5;"
        " instability: no unstable equilibrium was found; lure: the best rate found is -0.25; no "
        "certificate of this kind exceeds -0.25; switching: no periodic input with an unstable orbit was"
        " found; scaled by 0.8 the weights are certified. To try: weights scaled down"
    ),
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
            "rate": -0.25000000375,
            "factor": None,
            "reason": "margin",
            "detail": "the best rate found is -0.25; no certificate of this kind exceeds -0.25",
            "missing_margin": None,
        },
        {
            "condition": "switching",
            "outcome": "nothing",
            "rate": None,
            "factor": None,
            "reason": "no-witness",
            "detail": "no periodic input with an unstable orbit was found",
            "missing_margin": None,
        },
        {
            "condition": "no-quadratic-metric",
            "outcome": "proven",
            "rate": None,
            "factor": None,
            "reason": None,
            "detail": "",
            "missing_margin": None,
        },
    ],
    "also": [],
    "certificate": {
        "digest": "81af3945a14044b35e9a407fc14867636b1de5ff6b5ab9eb9de278c309e39c1f",
        "href": "/v1/certificates/81af3945a14044b35e9a407fc14867636b1de5ff6b5ab9eb9de278c309e39c1f",
        "proof": "/v1/certificates/81af3945a14044b35e9a407fc14867636b1de5ff6b5ab9eb9de278c309e39c1f/proof",
        "signed": False,
        "envelope": {"payload": _UNDECIDED_PAYLOAD, "payloadType": "application/vnd.in-toto+json", "signatures": []},
    },
    "cached": False,
}

REPORT: dict[str, Any] = {
    "valid": True,
    "verdict": "contracting",
    "reason": None,
    "detail": "",
    "checks": [
        {
            "name": "envelope",
            "held": True,
            "detail": "a DSSE envelope in canonical form",
            "missing": None,
        },
        {
            "name": "signature",
            "held": True,
            "detail": "unsigned; no key was demanded",
            "missing": None,
        },
        {
            "name": "statement",
            "held": True,
            "detail": "well-formed, canonical and consistent",
            "missing": None,
        },
        {
            "name": "condition",
            "held": True,
            "detail": "lure version 1",
            "missing": None,
        },
        {
            "name": "weights",
            "held": True,
            "detail": "file and tensors have the stated digests: weights.safetensors#W",
            "missing": None,
        },
        {
            "name": "proof",
            "held": True,
            "detail": "the stated proof file, kind lure",
            "missing": None,
        },
        {
            "name": "words",
            "held": True,
            "detail": "norm and growth are those of the proof",
            "missing": None,
        },
        {
            "name": "range",
            "held": True,
            "detail": "rate 0.24999992274999977 > 0, no factor",
            "missing": None,
        },
        {
            "name": "shapes",
            "held": True,
            "detail": "metric (n, n) and symmetric, multipliers (m,)",
            "missing": None,
        },
        {
            "name": "metric-positive",
            "held": True,
            "detail": "P > 0",
            "missing": None,
        },
        {
            "name": "block-positive",
            "held": True,
            "detail": "Lur'e block > 2.726419090492982e-10 I at 0.24999992274999977",
            "missing": None,
        },
        {
            "name": "metric-bounds",
            "held": True,
            "detail": "lower I < P < upper I",
            "missing": None,
        },
        {
            "name": "weight-radius",
            "held": True,
            "detail": "1.0815551539935514e-07^2 <= m1 m2",
            "missing": None,
        },
        {
            "name": "metric-condition",
            "held": True,
            "detail": "cond(metric) <= 2**floor(1.0)",
            "missing": None,
        },
        {
            "name": "gain",
            "held": True,
            "detail": "gain 4.000005241389923 >= norm sqrt(cond) / decay",
            "missing": None,
        },
        {
            "name": "largest-step",
            "held": True,
            "detail": "every step up to 0.499499985015: factor 0.9999001459702875 at the largest",
            "missing": None,
        },
        {
            "name": "supported",
            "held": True,
            "detail": "claims that the condition carries",
            "missing": None,
        },
        {
            "name": "bound",
            "held": True,
            "detail": "no certificate of the condition lure reaches 0.25000000225001634",
            "missing": None,
        },
    ],
    "path": None,
    "digest": "a7d744b8cacc686b616e194595c7e4fdd02b037e50b15dc68a8a3ca2a065b94e",
    "signed": False,
    "exact": False,
}
