"""Every family of candidates near the boundary, and how many of each make one unit of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tests.verify import bound_candidates
from tests.verify.near_boundary import (
    Candidate,
    Generator,
    absolute,
    bounds,
    extremes,
    gram_singular,
    hopeless,
    integer_singular,
    largest_step,
    lure_level,
    lure_number,
    margins,
    product,
    radius,
    singular,
    symmetric,
)

#: Family and how many bases of it make up one unit of work.
FAMILIES: tuple[tuple[Callable[[Generator], Iterator[Candidate]], int], ...] = (
    (lure_level, 11),
    (lure_number, 7),
    (radius, 4),
    (bounds, 2),
    (margins, 3),
    (largest_step, 3),
    (symmetric, 4),
    (product, 2),
    (singular, 3),
    (absolute, 4),
    (integer_singular, 6),
    (gram_singular, 8),
    (extremes, 3),
    (hopeless, 1),
    (bound_candidates.conic, 2),
    (bound_candidates.norm, 2),
    (bound_candidates.lure, 2),
    (bound_candidates.misplaced, 1),
)


#: Families that need no bisection, so that a search through them costs next to nothing.
CHEAP = (hopeless, bound_candidates.misplaced, gram_singular, integer_singular)


def candidates(
    seed: int, unit: int, families: tuple[Callable[[Generator], Iterator[Candidate]], ...] | None = None
) -> Iterator[tuple[str, Candidate]]:
    """One unit of work (or its part in some families), reproducible from (seed, unit), each candidate with its name."""
    for index, (family, count) in enumerate(FAMILIES):
        for base in range(count if families is None or family in families else 0):
            rng = np.random.default_rng([seed, unit, index, base])
            for number, candidate in enumerate(family(rng)):
                yield f"seed={seed} unit={unit} {family.__name__}[{base}][{number}]", candidate
