"""The Lur'e inequality of a whole assembly: all states, all nonlinearities, one metric (docs/theory.md section 13).

The normal form of the whole is put together from those of the networks, every rounding enclosed: A block diagonal plus
the linear couplings, B block diagonal, C block diagonal plus the couplings inside phi; then the shift of slopes that do
not start at 0, and the Euler step. Obligations: shapes, P > 0, the block at the level.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from certes.assemblies import Assembly, Coupling, WholeProof
from certes.verify.arithmetic import is_normal, rounds_to_nearest
from certes.verify.attained import unshifted
from certes.verify.intervals import Box, plus_diagonal
from certes.verify.lure import flow_block, map_block
from certes.verify.question import arrays_of, definite_check, inputs, is_symmetric
from certes.verify.reduction import NormalForm, dense
from certes.verify.report import Check, Report, judged

Array = NDArray[np.float64]


def verify_whole(assembly: Assembly, proof: WholeProof) -> Report:
    """Verify the rate (continuous time) or factor (a map, or with a step) of an assembly as one system."""
    return judged("contracting", _checks(assembly, proof))


def _checks(assembly: Assembly, proof: WholeProof) -> Iterator[Check]:
    yield Check("arithmetic", rounds_to_nearest(64), "this process rounds to nearest")
    for path, system in assembly.leaves():
        if (failed := inputs(system, ())) is not None:
            yield Check(failed.name, False, f"{path}: {failed.detail}")
    couplings = tuple(edge.matrix for edge in _edges(assembly))
    yield Check("inputs", is_normal(*couplings, *arrays_of(proof)), "couplings and proof finite, no entry subnormal")
    form = normal_form(assembly)
    channels = form.gap.mid.shape
    fits = proof.metric.shape == (assembly.size, assembly.size) and is_symmetric(proof.metric)
    yield Check("shapes", fits and proof.multipliers.shape == channels, "metric (N, N) symmetric, multipliers (m,)")
    level = proof.level
    ranged = 0.0 < level < np.inf if assembly.continuous else 0.0 < level < 1.0
    yield Check("range", ranged, f"level {level!r}")
    metric, q = Box.exact(proof.metric), Box.exact(proof.multipliers)
    yield definite_check("metric-positive", metric, "P > 0")
    build = flow_block if form.continuous else map_block
    yield definite_check("block-positive", build(form, metric, form.gap * q, q + q, level), f"block at {level!r}")


def normal_form(assembly: Assembly, *, shifted: bool = True) -> NormalForm:
    """A (N, N), B (N, m), C (m, N) and gap (m,) of the whole, enclosed.

    Not ``shifted``: A without the slopes' lower ends, and their upper ends for the gap.

    Assemblies inside that have a step of their own are maps; their step is applied before they are coupled.
    """
    A, B, C = _plain(assembly)
    lower = np.concatenate([system.slope.lower for _, system in assembly.leaves()])
    upper = np.concatenate([system.slope.upper for _, system in assembly.leaves()])
    if lower.any() and shifted:
        A = A + (B * Box.exact(lower)[None, :]) @ C
    gap = Box.exact(upper) - Box.exact(lower) if lower.any() and shifted else Box.exact(upper)
    return NormalForm(assembly.continuous, A, B, C, gap, None)


def channels(assembly: Assembly) -> dict[str, tuple[slice, slice]]:
    """Path of every network -> its states and its nonlinearities in the whole."""
    found, state, channel = {}, 0, 0
    for path, system in assembly.leaves():
        count = len(system.slope.lower)
        found[path] = slice(state, state + system.size), slice(channel, channel + count)
        state, channel = state + system.size, channel + count
    return found


def _plain(assembly: Assembly) -> tuple[Box, Box, Box]:
    """A, B, C with slopes from 0, after the steps."""
    size, count = assembly.size, sum(len(system.slope.lower) for _, system in assembly.leaves())
    parts = {name: (np.zeros(shape), np.zeros(shape)) for name, shape in _shapes(size, count).items()}
    state = channel = 0
    heads: dict[str, tuple[slice, slice]] = {}
    for name, module in assembly.modules.items():
        if isinstance(module, Assembly):
            own = _plain(module)
        else:
            form = unshifted(module)
            own = dense(form.A), dense(form.B), dense(form.C)
        rows = slice(state, state + own[0].mid.shape[0])
        columns = slice(channel, channel + own[1].mid.shape[1])
        heads[name] = rows, columns
        for (mid, rad), box, at in zip(
            parts.values(), own, ((rows, rows), (rows, columns), (columns, rows)), strict=True
        ):
            mid[at], rad[at] = box.mid, box.rad
        state, channel = rows.stop, columns.stop
    A, B, C = (Box(mid, rad) for mid, rad in parts.values())
    linear, inside = np.zeros((size, size)), np.zeros((count, size))
    for edge in assembly.couplings:
        target, place = (inside, heads[edge.to][1]) if edge.inside else (linear, heads[edge.to][0])
        target[place, heads[edge.source][0]] = edge.matrix
    A, C = A + Box.exact(linear), C + Box.exact(inside)
    if assembly.step is None:
        return A, B, C
    step = Box(np.asarray(assembly.step), np.asarray(np.spacing(assembly.step)))
    return plus_diagonal(A * step, Box.exact(np.ones(1))), B * step, C


def _shapes(size: int, count: int) -> dict[str, tuple[int, int]]:
    return {"A": (size, size), "B": (size, count), "C": (count, size)}


def _edges(assembly: Assembly) -> Iterator[Coupling]:
    """Every coupling, of every level."""
    yield from assembly.couplings
    for module in assembly.modules.values():
        if isinstance(module, Assembly):
            yield from _edges(module)
