"""Worked examples for the OpenAPI document. A test posts the requests and compares the answers."""

from __future__ import annotations

from typing import Any

REQUEST: dict[str, Any] = {"tensors": {}}
ANSWER: dict[str, Any] = {}
UNDECIDED: dict[str, Any] = {}
ENVELOPE_SAMPLE: dict[str, Any] = {}
PROOF_SAMPLE = ""
REPORT: dict[str, Any] = {}
