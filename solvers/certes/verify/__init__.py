"""The trusted part: rigorous checks of proofs and witnesses. numpy only; of ours, only the value types.

Read it in this order, it is one sitting: :mod:`~certes.verify.contraction` (the numbered obligations),
:mod:`~certes.verify.definite` (one Cholesky decides), :mod:`~certes.verify.intervals`, :mod:`~certes.verify.reduction`,
then the obligations of each condition, :mod:`~certes.verify.bound` for what no certificate of a kind can reach, and
:mod:`~certes.verify.instability` for the 'no'.

The module itself is callable: ``certes.verify(certificate, weights)`` checks a whole certificate document.
"""

from certes.verify.bound import verify_bound
from certes.verify.contraction import verify_contraction
from certes.verify.instability import verify_instability
from certes.verify.report import Check, Report

__all__ = ["Check", "Report", "verify_bound", "verify_contraction", "verify_instability"]
