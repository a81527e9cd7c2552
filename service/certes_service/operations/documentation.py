"""OpenAPI of what an operator's tools ask."""

from __future__ import annotations

from typing import Any

from certes_service.problem_samples import problems

HEALTH: dict[str, Any] = {
    "responses": {200: {"content": {"application/json": {"example": {"status": "ok", "version": "0.1.0"}}}}}
}
READY: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Everything works",
            "content": {"application/json": {"example": {"status": "ready", "parts": ["database", "blobs", "queue"]}}},
        },
        **problems(503),
    }
}
_TEXT = (
    "# HELP certes_verdicts_total Answers that solvers came to.\n# TYPE certes_verdicts_total counter\n"
    'certes_verdicts_total{kind="certificate",verdict="contracting"} 3.0\n'
)
METRICS: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The metrics",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": _TEXT}},
        },
        **problems(401, 403, 429),
    }
}
