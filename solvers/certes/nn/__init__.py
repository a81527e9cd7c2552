"""Recurrent networks in torch: read from weight files, trained inside a stable set, written back (extra ``train``).

    >>> from certes.nn import Classifier, read_data, repair  # doctest: +SKIP

Nothing here says that a network is contracting: a parametrisation keeps weights inside a stable set up to rounding, and
only the rounded weights that are exported are certified. Importing :mod:`certes` loads no torch; importing this does.

Raises:
    MissingExtraError: torch is not installed.
"""

from __future__ import annotations

try:
    import torch  # noqa: F401
except ImportError as error:
    from certes.errors import MissingExtraError

    raise MissingExtraError("torch", "train", "certes repair") from error

from certes.nn.assembly import Assembly
from certes.nn.cascade import CascadeNet
from certes.nn.lure import LureModule
from certes.nn.networks import Classifier
from certes.nn.outcome import Repair
from certes.nn.parametrisations import Lure
from certes.nn.ready import AdaDiagNet, GlobalWorkspaceNet, SparseComboNet, SVDComboNet
from certes.nn.repair import repair
from certes.nn.stable import Absolute, Diagonal, Fixed, Orthogonal, Singular, Symmetric
from certes.roles import Roles
from certes.sequences import DataSet, Sequences, read_data

__all__ = [
    "Absolute", "AdaDiagNet", "Assembly", "CascadeNet", "Classifier", "DataSet", "Diagonal", "Fixed",
    "GlobalWorkspaceNet", "Lure", "LureModule", "Orthogonal", "Repair", "Roles", "SVDComboNet", "Sequences",
    "Singular", "SparseComboNet", "Symmetric", "read_data", "repair",
]  # fmt: skip
