"""The worked example of ``POST /v1/assemblies``. A test posts the request and compares the answer.

The certificate below is also a stored sample: it must be readable for ever.
"""

from __future__ import annotations

from typing import Any

ASSEMBLY_REQUEST: dict[str, Any] = {
    "spec": {
        "modules": {
            "eye": {"form": "rate", "tensors": {"W": "eye.W"}, "activation": "tanh"},
            "hand": {"form": "rate", "tensors": {"W": "hand.W"}, "activation": "tanh"},
        },
        "couplings": [
            {"to": "hand", "from": "eye", "tensor": "forth"},
            {"to": "eye", "from": "hand", "tensor": "back"},
        ],
    },
    "tensors": {
        "eye.W": [[0.2, 0.1], [0.0, 0.3]],
        "hand.W": [[0.1]],
        "forth": [[0.5, 0.0]],
        "back": [[-0.25], [0.1]],
    },
}

_PAYLOAD = (
    "eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEiLCJwcmVkaWNhdGUiOnsiY2xhaW1zIjp7ImZhY3RvciI6bnVsbCwibGFy"
    "Z2VzdF9zdGVwIjpudWxsLCJsaXBzY2hpdHoiOm51bGwsIm5vcm0iOiJzcXJ0KHheVCBQIHgpLCBQID0gbWV0cmljIiwicmF0ZSI6MC42MjU0MDE4"
    "MTg2ODcwMDkyfSwiY29uZGl0aW9uIjp7Im5hbWUiOiJ3aG9sZSIsInZlcnNpb24iOjF9LCJjb3VwbGluZ3MiOlt7Imluc2lkZSI6ZmFsc2UsInNv"
    "dXJjZSI6ImV5ZSIsInRvIjoiaGFuZCJ9LHsiaW5zaWRlIjpmYWxzZSwic291cmNlIjoiaGFuZCIsInRvIjoiZXllIn1dLCJmb3JtYXQiOjEsIm1v"
    "ZHVsZXMiOlt7ImNlcnRpZmljYXRlIjoiMGYxN2ZlMTk0YWUzYjVkOWU5NzY4YTg3MGNjMmFhYWZjYjBmZjA5MDNmMTljNDMzMDI5NDRlMjY2Zjhk"
    "NWYxNSIsImNoYW5uZWxzIjoyLCJraW5kIjoibmV0d29yayIsIm5hbWUiOiJleWUiLCJzdGF0ZXMiOjJ9LHsiY2VydGlmaWNhdGUiOiIyNDU5ZjZj"
    "ZjQwYzI1MTUxMzFlZGY3ZmFjNWIzMjVmOTI5MDBkMGZmZjVjYTMzNzUzNGY2ZWJhNWMzMTM2NjNjIiwiY2hhbm5lbHMiOjEsImtpbmQiOiJuZXR3"
    "b3JrIiwibmFtZSI6ImhhbmQiLCJzdGF0ZXMiOjF9XSwicHJvb2YiOnsia2luZCI6Indob2xlIiwibWVkaWFUeXBlIjoiYXBwbGljYXRpb24vdm5k"
    "LnNhZmV0ZW5zb3JzIiwic2hhMjU2IjoiN2EzMGVkNGNmMmMyODkzMGQ5YWY0OTYzMjllNmIwYjlhZTEzMjdiZGE5MDEwMDM2NTdhODVjOGZiYWM4"
    "MzI5MyJ9LCJzdGVwIjpudWxsLCJ2ZXJkaWN0IjoiY29udHJhY3RpbmciLCJ2ZXJzaW9ucyI6eyJjZXJ0ZXMiOiIwLjEuMCIsIm51bXB5IjoiMi40"
    "LjYifX0sInByZWRpY2F0ZVR5cGUiOiJ1cm46Y2VydGVzOmNvbXBvc2l0aW9uOnYxIiwic3ViamVjdCI6W3siZGlnZXN0Ijp7InNoYTI1NiI6IjBm"
    "MTdmZTE5NGFlM2I1ZDllOTc2OGE4NzBjYzJhYWFmY2IwZmYwOTAzZjE5YzQzMzAyOTQ0ZTI2NmY4ZDVmMTUifSwibmFtZSI6Im1vZHVsZTpleWUi"
    "fSx7ImRpZ2VzdCI6eyJzaGEyNTYiOiIyNDU5ZjZjZjQwYzI1MTUxMzFlZGY3ZmFjNWIzMjVmOTI5MDBkMGZmZjVjYTMzNzUzNGY2ZWJhNWMzMTM2"
    "NjNjIn0sIm5hbWUiOiJtb2R1bGU6aGFuZCJ9LHsiYW5ub3RhdGlvbnMiOnsiZHR5cGUiOiJGNjQiLCJzaGFwZSI6WzEsMl19LCJkaWdlc3QiOnsi"
    "c2hhMjU2IjoiODk4Y2JmMzBiOTNmODYwODI5OTZiY2ExZmFkODMzNTFmMjA0MGQwMzA4MzJiZjQ1ZmY3OWYwNzIwZWZhMGZiYSJ9LCJuYW1lIjoi"
    "aGFuZDwtZXllIn0seyJhbm5vdGF0aW9ucyI6eyJkdHlwZSI6IkY2NCIsInNoYXBlIjpbMiwxXX0sImRpZ2VzdCI6eyJzaGEyNTYiOiIyM2VkMzFk"
    "ZWIyMGQ4YjIzNDlmZTIyZTgyMTUwNzBlYjk2NTRmNmNiZjdiNjZhYWZiMzQxMTViNGVkODNkNGM5In0sIm5hbWUiOiJleWU8LWhhbmQifV19"
)

_EYE = "0f17fe194ae3b5d9e9768a870cc2aaafcb0ff0903f19c43302944e266f8d5f15"
_HAND = "2459f6cf40c2515131edf7fac5b325f92900d0fff5ca337534f6eba5c313663c"
_WHOLE = "adacca15b4cfdc945269ccc2d2f3eb5091c785b3a2dd469624f3f507d3ecf106"


def _links(digest: str) -> dict[str, str]:
    return {"digest": digest, "href": f"/v1/certificates/{digest}", "proof": f"/v1/certificates/{digest}/proof"}


ASSEMBLY: dict[str, Any] = {
    "verdict": "contracting",
    "rate": 0.6254018186870092,
    "factor": None,
    "gate": None,
    "mode": "whole",
    "modes": {"interface": 0.6253381951912214, "exact": 0.6253381951912212, "whole": 0.6254018186870092},
    "lipschitz": 1.4116010477721432,
    "largest_step": {"step": 0.627027366095495, "factor": 0.9996078189355578},
    "whole_step": {"step": 1.5724550862167936, "factor": 0.990013372180419},
    "states": 3,
    "modules": {"eye": 0.6952781664355369, "hand": 0.899999999085184},
    "limiting": "eye",
    "edges": [
        {
            "to": "hand",
            "source": "eye",
            "inside": False,
            "strength": 0.8229863221573406,
            "slope": 0.05574531468695744,
            "limiting": True,
        },
        {
            "to": "eye",
            "source": "hand",
            "inside": False,
            "strength": 0.19856912866425647,
            "slope": 0.05574475824011082,
            "limiting": True,
        },
    ],
    "proved": ["eye", "hand"],
    "recomposed": [""],
    "reason": None,
    "detail": "rate 0.625402, proven by whole; interface 0.625338, exact 0.625338, whole 0.625402",
    "refutation": None,
    "couplings": {
        "href": f"/v1/certificates/{_WHOLE}/weights",
        "sha256": "1286b42049a9afa1a77325de1dff4dd760550f5a5b2dec008870c224c535310a",
    },
    "certificate": {
        **_links(_WHOLE),
        "signed": False,
        "documents": [
            {"kind": "network", **_links(_EYE)},
            {"kind": "network", **_links(_HAND)},
            {"kind": "assembly", **_links(_WHOLE)},
        ],
        "envelope": {"payload": _PAYLOAD, "payloadType": "application/vnd.in-toto+json", "signatures": []},
    },
    "cached": False,
}
