"""Docstrings as the site shows them: roles of Sphinx become code, and parameters keep the names of the source."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:py:)?(?:func|class|mod|meth|attr|data|exc|obj):`~?([^`]+)`")


class Roles(griffe.Extension):
    """``:func:`certes.certify``` reads as code: the name, and nothing that a reader of Markdown would stumble over."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of whatever was read."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)
