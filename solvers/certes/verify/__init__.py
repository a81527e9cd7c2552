"""The trusted part: rigorous checks of proofs and witnesses. numpy only; of ours, only the value types.

Read it in this order, it is one sitting: :mod:`~certes.verify.contraction` (the numbered obligations),
:mod:`~certes.verify.definite` (one Cholesky decides), :mod:`~certes.verify.intervals`, :mod:`~certes.verify.reduction`,
then the obligations of each condition; :mod:`~certes.verify.interface`, :mod:`~certes.verify.composition` and
:mod:`~certes.verify.whole` for assemblies; :mod:`~certes.verify.bound` and :mod:`~certes.verify.no_metric` for what
cannot be proven; :mod:`~certes.verify.instability` and :mod:`~certes.verify.switching` for the 'no'. Gated cells have
both in :mod:`~certes.verify.gated` (on :mod:`~certes.verify.elementary`) and :mod:`~certes.verify.gated_instability`.

The module itself is callable: ``certes.verify(certificate, weights)`` checks a whole certificate document.
"""

from certes.verify.bound import verify_bound
from certes.verify.composition import verify_flow, verify_maps
from certes.verify.contraction import verify_contraction
from certes.verify.gated import verify_gated
from certes.verify.gated_instability import verify_gated_instability
from certes.verify.instability import verify_instability
from certes.verify.interface import verify_interface
from certes.verify.no_metric import verify_no_metric
from certes.verify.report import Check, Report
from certes.verify.switching import verify_switching
from certes.verify.whole import verify_whole

__all__ = [
    "Check",
    "Report",
    "verify_bound",
    "verify_contraction",
    "verify_flow",
    "verify_gated",
    "verify_gated_instability",
    "verify_instability",
    "verify_interface",
    "verify_maps",
    "verify_no_metric",
    "verify_switching",
    "verify_whole",
]
