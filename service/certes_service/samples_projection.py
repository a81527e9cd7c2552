"""The worked example of ``POST /v1/projections``. A test posts the request and compares the answer.

The certificate below is also a stored sample: it must be readable for ever.
"""

from __future__ import annotations

from typing import Any

#: The two weights that are 0 stay 0.
PROJECTION_REQUEST: dict[str, Any] = {
    "spec": {"form": "rate", "tensors": {"W": "W"}, "activation": "tanh", "keep": {"zeros": True}},
    "tensors": {"W": [[0.0, -2.5], [2.5, 0.0]]},
}

#: What an assembly is asked like: modules, and the matrices between them.
INTERCONNECTION_REQUEST: dict[str, Any] = {
    "spec": {
        "modules": {
            "eye": {"form": "rate", "tensors": {"W": "eye.W"}, "activation": "tanh"},
            "hand": {"form": "rate", "tensors": {"W": "hand.W"}, "activation": "tanh"},
        },
        "interconnection": {"hand/eye": "forth", "eye/hand": "back"},
        "rate": 0.2,
    },
    "tensors": {
        "eye.W": [[0.2, 0.1], [0.0, 0.3]],
        "hand.W": [[0.1]],
        "forth": [[1.0, 0.0]],
        "back": [[2.0], [1.0]],
    },
}

_PAYLOAD = (
    "eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEiLCJwcmVkaWNhdGUiOnsiY2xhaW1zIjp7ImZhY3RvciI6bnVsbCwiZmFj"
    "dG9yX2JvdW5kIjpudWxsLCJnYWluIjoxMDAuMDAwMTAwMTM4MDY3LCJncm93dGgiOm51bGwsImxhcmdlc3Rfc3RlcCI6eyJmYWN0b3IiOjAuOTk5"
    "OTk5ODk5NTM5MDU0Miwic3RlcCI6MC4wMTk5ODQwNzE3ODc3MjgyNzR9LCJtZXRyaWNfY29uZGl0aW9uX2xvZzIiOjEuMCwibm9ybSI6InNxcnQo"
    "eF5UIFAgeCksIFAgPSBtZXRyaWMiLCJyYXRlIjowLjAxLCJyYXRlX2JvdW5kIjpudWxsLCJ3ZWlnaHRfcmFkaXVzIjoyLjg1MzY2ODcxNDc0NTE2"
    "ZS0wNn0sImNvbmRpdGlvbiI6eyJuYW1lIjoibHVyZSIsInZlcnNpb24iOjF9LCJmb3JtYXQiOjIsIm1hcmdpbiI6Ni44MTY1ODc1MTY2NjcwMjc2"
    "ZS0wOSwicHJvb2YiOnsiYm91bmRfa2luZCI6bnVsbCwia2luZCI6Imx1cmUiLCJtZWRpYVR5cGUiOiJhcHBsaWNhdGlvbi92bmQuc2FmZXRlbnNv"
    "cnMiLCJzaGEyNTYiOiIxMWJiZGU3NDcxNmI1OGIzMTE1NWI1Yzc0ZGI4ZjkyYzIzOWQ0ZTAyYTQ1MjhhOTExOTQ3ZWM3NjU2MmU3YmRlIn0sInN5"
    "c3RlbSI6eyJhY3RpdmF0aW9uIjoidGFuaCIsImRpc2NyZXRlIjpmYWxzZSwiZm9ybSI6InJhdGUiLCJzbG9wZSI6bnVsbCwic3RlcCI6bnVsbCwi"
    "dGF1IjpudWxsLCJ0ZW5zb3JzIjp7IlciOiJXIn19LCJ2ZXJkaWN0IjoiY29udHJhY3RpbmciLCJ2ZXJzaW9ucyI6eyJjZXJ0ZXMiOiIwLjEuMCIs"
    "Im51bXB5IjoiMi40LjYifX0sInByZWRpY2F0ZVR5cGUiOiJ1cm46Y2VydGVzOmNvbnRyYWN0aW9uOnYxIiwic3ViamVjdCI6W3siZGlnZXN0Ijp7"
    "InNoYTI1NiI6ImY5MzNiNDU1MWI3ZTFmMjAzYjM3ZDYzZTNjNjFiNWE0NjJjNWQwNTU0ZDc4NGFmZjkwODQxNTk4MjA3NDU3Y2EifSwibmFtZSI6"
    "IndlaWdodHMtcHJvamVjdGVkLnNhZmV0ZW5zb3JzIn0seyJhbm5vdGF0aW9ucyI6eyJkdHlwZSI6IkY2NCIsInNoYXBlIjpbMiwyXX0sImRpZ2Vz"
    "dCI6eyJzaGEyNTYiOiI4YTc0YTljYTc2MzU5OGM1MThhMTE3YjE2NTYxNWE3MThkOGVjZDBiM2RhZDUwODNiNTIyNTRjZTAxZjFhNTM2In0sIm5h"
    "bWUiOiJ3ZWlnaHRzLXByb2plY3RlZC5zYWZldGVuc29ycyNXIn1dfQ=="
)

_DIGEST = "0ddfd8febd3a3890d08c4ea7faa07d781f5bed7d81b1d002c1619eeb903b4afe"

PROJECTION: dict[str, Any] = {
    "verdict": "contracting",
    "distance": 0.7353968174242806,
    "relative": 0.20800163058548568,
    "norm": "frobenius",
    "unchanged": False,
    "rate": 0.01,
    "factor": None,
    "condition": "lure",
    "shrink_distance": 0.7354186737926496,
    "fixed_scaling_distance": None,
    "distance_bound": 0.3676983259921583,
    "attempts": [
        {"condition": "absolute", "outcome": "certified", "distance": 2.135462496684282, "reason": None, "detail": ""},
        {
            "condition": "symmetric",
            "outcome": "certified",
            "distance": 3.5355339059327378,
            "reason": None,
            "detail": "",
        },
        {"condition": "singular", "outcome": "certified", "distance": 2.135465279326227, "reason": None, "detail": ""},
        {"condition": "lure", "outcome": "certified", "distance": 0.7353968174242806, "reason": None, "detail": ""},
    ],
    "result": {
        "verdict": "contracting",
        "rate": 0.01,
        "factor": None,
        "rate_bound": None,
        "factor_bound": None,
        "certified_scale": None,
        "refuted_scale": None,
        "condition": "lure",
        "reason": None,
        "detail": "proven by 'lure'",
        "claims": {
            "rate": 0.01,
            "factor": None,
            "margin": 6.8165875166670276e-09,
            "weight_radius": 2.85366871474516e-06,
            "gain": 100.000100138067,
            "largest_step": {"step": 0.019984071787728274, "factor": 0.9999998995390542},
            "metric_condition_log2": 1.0,
        },
        "witness": None,
        "certificate": {"digest": _DIGEST},
        "attempts": [
            {
                "condition": "lure",
                "outcome": "proven",
                "rate": 0.01,
                "factor": None,
                "reason": None,
                "detail": "",
                "missing_margin": None,
            }
        ],
        "also": [],
    },
    "weights": {
        "href": f"/v1/certificates/{_DIGEST}/weights",
        "name": "weights-projected.safetensors",
        "sha256": "f933b4551b7e1f203b37d63e3c61b5a462c5d0554d784aff90841598207457ca",
        "changed": ["W"],
    },
    "certificate": {
        "digest": _DIGEST,
        "href": f"/v1/certificates/{_DIGEST}",
        "proof": f"/v1/certificates/{_DIGEST}/proof",
        "signed": False,
        "envelope": {"payload": _PAYLOAD, "payloadType": "application/vnd.in-toto+json", "signatures": []},
    },
    "cached": False,
}
