"""OpenAPI of the drawings. The pages themselves are for people."""

from __future__ import annotations

from typing import Any

from certes_service.problem_samples import problems

_SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="20"></svg>'


def _drawing(description: str, *errors: int) -> dict[str, Any]:
    content = {"image/svg+xml": {"schema": {"type": "string"}, "example": _SVG}}
    return {"responses": {200: {"description": description, "content": content}, **problems(*errors)}}


FIGURE = _drawing("The picture", 401, 404, 422, 429, 500, 501, 503)
BADGE = _drawing("The badge", 401, 404, 429, 503)
