"""What a network offers to an assembly, verified: a metric, a rate (factor) in it, and a Lipschitz constant in it.

    1. the question   ``arithmetic``, ``inputs``: as for every proof
    2. shapes         metric (n, n), exactly symmetric; multipliers (m,)
    3. metric         P > 0, by a Cholesky of its own
    4. rate, factor   the Lur'e block at the level is positive: P J + J^T P <= -2 c P, resp. J^T P J <= rho^2 P
    5. lipschitz      the block of a map, with K for rho and multipliers of its own, is positive: J^T P J <= K^2 P

for every slope pattern (docs/theory.md sections 2 and 13). A metric is never taken on trust: whoever uses a module in
an assembly proves it anew in that metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from certes.assemblies import InterfaceProof
from certes.systems import System
from certes.verify.intervals import Box
from certes.verify.lure import flow_block, map_block
from certes.verify.question import arrays_of, definite_check, inputs, is_symmetric
from certes.verify.reduction import enclose
from certes.verify.report import Check, Report, judged


@dataclass(frozen=True, eq=False)
class Interface:
    """What is verified of a module: of a network, or of an assembly that was verified itself.

    Attributes:
        blocks: the diagonal blocks of the metric, in the order of the states; one for a network.
        continuous: whether ``level`` is a rate (or a factor).
        level: c_i or rho_i.
        lipschitz: K_i in the metric; None where none is verified (maps: the factor is one).
    """

    blocks: tuple[Box, ...]
    continuous: bool
    level: float
    lipschitz: float | None

    @property
    def starts(self) -> list[int]:
        """First state of each block, and the number of states at the end."""
        return [0, *np.cumsum([block.mid.shape[0] for block in self.blocks]).tolist()]


def verify_interface(system: System, proof: InterfaceProof) -> tuple[Report, Interface | None]:
    """Verify that a network offers what a proof states.

    Args:
        system: the network.
        proof: the numbers.

    Returns:
        The report, and the interface if and only if the report is valid.
    """
    report = judged("contracting", _checks(system, proof))
    if not report.valid or report.verdict != "contracting":
        return report, None
    lipschitz = proof.lipschitz if proof.lipschitz > 0.0 else None
    return report, Interface((Box.exact(proof.metric),), system.continuous, proof.level, lipschitz)


def _checks(system: System, proof: InterfaceProof) -> Iterator[Check]:
    if system.is_sparse:
        yield Check("inputs", False, "dense weights")
        return
    if (failed := inputs(system, arrays_of(proof))) is not None:
        yield failed
        return
    size, channels = system.size, system.slope.lower.shape
    fits = proof.metric.shape == (size, size) and is_symmetric(proof.metric)
    fits = fits and proof.multipliers.shape == channels and proof.lipschitz_multipliers.shape == channels
    yield Check("shapes", fits, "metric (n, n) and symmetric, multipliers (m,)")
    metric = Box.exact(proof.metric)
    yield definite_check("metric-positive", metric, "P > 0")
    level = proof.level
    in_range = 0.0 < level < np.inf if system.continuous else 0.0 < level < 1.0
    yield Check(
        "range", in_range and 0.0 <= proof.lipschitz < np.inf, f"level {level!r}, Lipschitz {proof.lipschitz!r}"
    )
    form, q = enclose(system), Box.exact(proof.multipliers)
    build = flow_block if form.continuous else map_block
    yield definite_check("block-positive", build(form, metric, form.gap * q, q + q, level), f"block at {level!r}")
    if proof.lipschitz > 0.0:
        q = Box.exact(proof.lipschitz_multipliers)
        block = map_block(form, metric, form.gap * q, q + q, proof.lipschitz)
        yield definite_check("lipschitz", block, f"norm of every Jacobian <= {proof.lipschitz!r}")
