"""The nearest stable weights: one file per stable set, see :mod:`certes.projection.base`.

Importing this package loads no scipy; the stable sets load when they are asked.
"""

from __future__ import annotations

from certes.projection.base import Projection
from certes.projection.keeping import Keep
from certes.projection.project import project

__all__ = ["Keep", "Projection", "project"]
