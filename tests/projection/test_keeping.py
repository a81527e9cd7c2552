"""What has to stay stays, bit for bit or exactly; what cannot stay is an answer; what excludes itself is an error."""

from __future__ import annotations

from typing import Any

import certes
import flint
import numpy as np
import pytest
import scipy.sparse as sp
from certes.errors import InputError
from certes.projection import Keep, Projection
from certes.systems import HopfieldNetwork, Network, RateNetwork
from numpy.typing import NDArray

Array = NDArray[np.float64]

FORMS = {"rate": RateNetwork, "hopfield": HopfieldNetwork}
TIMES: dict[str, float | None] = {"continuous": None, "step 0.2": 0.2, "step 1": 1.0}
N = 6


def gaussian(n: int = N, seed: int = 0, scale: float = 3.0) -> Array:
    return scale * np.random.default_rng([n, seed]).standard_normal((n, n)) / np.sqrt(n)


def assert_certified(found: Projection, given: Network) -> Array:
    """Certified and no farther than the shrink of what may move; the new weights."""
    assert found.result.verdict == "contracting", found.attempts
    assert found.result.certificate is not None
    assert certes.verify(found.result.certificate, found.system).valid
    assert found.distance is not None
    assert not found.unchanged
    if found.shrink_distance is not None:
        assert found.distance <= found.shrink_distance
    assert found.system.dtype == given.dtype
    return found.system.matrix("W")


def assert_kept(new: Array, old: Array, movable: NDArray[np.bool_]) -> None:
    frozen = ~movable
    assert new[frozen].tobytes() == old[frozen].tobytes()
    assert not np.array_equal(new[movable], old[movable])


SETS = ["absolute", *(pytest.param(name, marks=pytest.mark.slow) for name in ("singular", "lure", "auto"))]


@pytest.mark.cases(2)
@pytest.mark.parametrize("condition", SETS)
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("form", FORMS)
def test_a_mask_is_kept_bit_for_bit(form: str, time: str, condition: str) -> None:
    W = gaussian().astype(np.float32)
    movable = np.random.default_rng(1).random((N, N)) < 0.8
    W[~movable] *= np.float32(0.1)
    W[np.nonzero(~movable)[0][0], np.nonzero(~movable)[1][0]] = -0.0
    given = FORMS[form](W, "tanh", step=TIMES[time])
    new = assert_certified(certes.project(given, condition, keep=Keep(mask=movable)), given)
    assert_kept(new, given.matrix("W"), movable)


@pytest.mark.slow
@pytest.mark.parametrize("condition", SETS)
def test_zeros_and_diagonal_are_kept(condition: str) -> None:
    W = gaussian()
    W[np.random.default_rng(2).random((N, N)) < 0.4] = 0.0
    # no scaled norm is below the modulus of an entry on the diagonal: 'singular' cannot keep -2
    np.fill_diagonal(W, [0.3, -0.7 if condition == "singular" else -2.0, 0.0, -0.5, 0.1, 0.2])
    given = RateNetwork(W, "tanh")
    eye = np.eye(N, dtype=bool)
    assert_kept(assert_certified(certes.project(given, condition, keep=Keep(zeros=True)), given), W, W != 0.0)
    assert_kept(assert_certified(certes.project(given, condition, keep=Keep(diagonal=True)), given), W, ~eye)
    both = certes.project(given, condition, keep=Keep(zeros=True, diagonal=True))
    assert_kept(assert_certified(both, given), W, (W != 0.0) & ~eye)


def test_a_mask_is_kept_by_the_descent() -> None:
    W = gaussian(4)
    movable = ~np.eye(4, dtype=bool)
    W[~movable] = [-0.0, 0.1, 0.2, -3.0]
    given = RateNetwork(W, "tanh", step=0.2)
    new = assert_certified(certes.project(given, "lure", keep=Keep(mask=movable)), given)
    assert_kept(new, W, movable)


@pytest.mark.slow
def test_what_is_kept_costs_distance_and_less_than_the_shrink() -> None:
    W = gaussian(8)
    np.fill_diagonal(W, 0.3 * np.diagonal(W))  # entries beyond 0.9 could not be kept at this rate
    free = certes.project(RateNetwork(W, "tanh"), "lure", 0.1)
    kept = certes.project(RateNetwork(W, "tanh"), "lure", 0.1, keep=Keep(diagonal=True))
    assert free.distance is not None
    assert kept.distance is not None
    assert kept.shrink_distance is not None
    assert free.distance <= kept.distance < 0.9 * kept.shrink_distance


def test_a_mask_of_numbers_and_one_that_frees_everything() -> None:
    given = RateNetwork(gaussian(4), "tanh")
    free = certes.project(given, "lure")
    every = certes.project(given, "lure", keep=Keep(mask=np.ones((4, 4))))
    assert free.system.subjects == every.system.subjects
    numbers = np.ones((4, 4), dtype=np.int64)
    numbers[1, 2] = 0
    found = certes.project(given, "lure", keep=Keep(mask=numbers.tolist()))
    assert found.system.matrix("W")[1, 2] == given.matrix("W")[1, 2]


def rank(W: Array) -> int:
    """Over the rationals: no tolerance."""
    exact = [flint.fmpq(*float(value).as_integer_ratio()) for value in W.ravel()]
    return int(flint.fmpq_mat(*W.shape, exact).rank())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_rank_is_kept_exactly_by_the_descent(dtype: Any) -> None:
    W = np.outer([3.0, -1.0, 0.1, 2.0], [1.0, 0.3, -2.0, 0.7]).astype(dtype)
    given = RateNetwork(W, "tanh", step=0.2)
    new = assert_certified(certes.project(given, "lure", keep=Keep(rank=1)), given)
    assert rank(new) == 1
    assert np.array_equal(new, new.astype(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_rank_is_kept_exactly(kept: int, dtype: Any) -> None:
    rng = np.random.default_rng(kept)
    W = (rng.standard_normal((8, kept)) @ rng.standard_normal((kept, 8)) * 1.5).astype(dtype)
    for form, step in ((RateNetwork, None), (HopfieldNetwork, 0.2)):
        given = form(W, "tanh", step=step)
        found = certes.project(given, keep=Keep(rank=kept))
        new = assert_certified(found, given)
        assert rank(new) == kept
        assert np.array_equal(new, new.astype(dtype))
        if found.shrink_distance is not None and kept < 3:
            assert found.distance is not None
            assert found.distance < found.shrink_distance


@pytest.mark.slow
def test_a_rank_is_lowered_where_the_given_one_is_higher() -> None:
    """Weights that contract but have too high a rank do move."""
    given = RateNetwork(gaussian(6, 1, 0.3), "tanh")
    assert rank(given.matrix("W")) == 6
    found = certes.project(given, keep=Keep(rank=2))
    new = assert_certified(found, given)
    assert rank(new) == 2
    values = np.linalg.svd(given.matrix("W"), compute_uv=False)
    assert found.distance == pytest.approx(float(np.linalg.norm(values[2:])), rel=1e-2)  # Eckart and Young
    assert certes.project(given, keep=Keep(rank=6)).unchanged


@pytest.mark.slow
def test_sparse_weights_keep_their_pattern() -> None:
    W = gaussian(12)
    W[np.random.default_rng(4).random(W.shape) < 0.7] = 0.0
    given = RateNetwork(sp.csr_array(W), "tanh")
    for keep in (None, Keep(zeros=True)):
        found = certes.project(given, keep=keep)
        assert found.result.verdict == "contracting"
        assert found.condition == "absolute"
        assert found.result.certificate is not None
        assert certes.verify(found.result.certificate, found.system).valid
        new: Any = found.system.tensors["W"].value
        old: Any = given.tensors["W"].value
        assert np.array_equal(new.indices, old.indices)
        assert np.array_equal(new.indptr, old.indptr)
    dense = certes.project(RateNetwork(W, "tanh"), "absolute")
    assert found.distance == pytest.approx(dense.distance, rel=1e-4)


@pytest.mark.parametrize("condition", ["symmetric", *SETS])
def test_frozen_entries_beyond_the_level_are_an_answer(condition: str) -> None:
    W = gaussian(4)
    W[1, 1] = 7.0
    given = RateNetwork(W, "tanh")
    found = certes.project(given, condition, keep=Keep(diagonal=True))
    assert found.result.verdict == "undecided"
    assert found.result.reason is not None
    assert found.result.detail
    assert found.distance is None
    assert found.condition is None
    assert found.system.subjects == given.subjects


@pytest.mark.parametrize(
    ("keep", "field", "slug"),
    [
        (Keep(mask=np.ones((3, 4))), "keep.mask", "wrong-shape"),
        (Keep(mask=np.full((4, 4), 2)), "keep.mask", "wrong-dtype"),
        (Keep(mask=np.full((4, 4), np.nan)), "keep.mask", "wrong-dtype"),
        (Keep(mask=np.full((4, 4), "yes")), "keep.mask", "wrong-dtype"),
        (Keep(mask=[[1.0], [1.0, 0.0]]), "keep.mask", "wrong-shape"),
        (Keep(rank=0), "keep.rank", "wrong-type"),
        (Keep(rank=-1), "keep.rank", "wrong-type"),
        (Keep(rank=True), "keep.rank", "wrong-type"),
        (Keep(rank=1.5), "keep.rank", "wrong-type"),  # type: ignore[arg-type]
        (Keep(rank=2, diagonal=True), "keep", "conflict"),
        (Keep(rank=2, mask=~np.eye(4, dtype=bool)), "keep", "conflict"),
    ],
)
def test_malformed_and_conflicting(keep: Keep, field: str, slug: str) -> None:
    with pytest.raises(InputError) as caught:
        certes.project(RateNetwork(gaussian(4), "tanh"), keep=keep)
    assert caught.value.field == field
    assert caught.value.slug == slug


def test_what_sparse_and_half_precision_weights_cannot_keep() -> None:
    sparse = RateNetwork(sp.csr_array(gaussian(4)), "tanh")
    for keep in (Keep(mask=np.ones((4, 4))), Keep(diagonal=True), Keep(rank=2)):
        with pytest.raises(InputError) as caught:
            certes.project(sparse, keep=keep)
        assert (caught.value.field, caught.value.slug) == ("keep", "conflict")
    half = RateNetwork(gaussian(4).astype(np.float16), "tanh")
    with pytest.raises(InputError) as caught:
        certes.project(half, keep=Keep(rank=2))
    assert (caught.value.field, caught.value.slug) == ("keep.rank", "conflict")


# --- weighted distances --------------------------------------------------------------------------------------------


def covariance(n: int, seed: int = 0, samples: int = 200) -> Array:
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((samples, n)) * np.exp(rng.normal(size=n)) @ rng.standard_normal((n, n))
    return np.asarray(states.T @ states / samples)


@pytest.mark.slow
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [200, 3])
def test_weighted_distances(form: str, time: str, rows: int) -> None:
    """The distance is sqrt(tr(D S D^T)), also for a singular S; and nobody else is nearer in it."""
    given, S = FORMS[form](gaussian(), "tanh", step=TIMES[time]), covariance(N, samples=rows)
    found = certes.project(given, weighting=S)
    moved = assert_certified(found, given) - given.matrix("W")
    assert found.norm == "weighted"
    assert found.distance == pytest.approx(float(np.sqrt(np.trace(moved @ S @ moved.T))), rel=1e-9)
    for condition in ("auto", "lure", "singular"):
        plain = certes.project(given, condition).system.matrix("W") - given.matrix("W")
        assert found.distance is not None
        assert found.distance <= float(np.sqrt(np.trace(plain @ S @ plain.T))) * (1.0 + 1e-4)


def test_a_weighted_distance() -> None:
    given, S = RateNetwork(gaussian(4), "tanh"), covariance(4, samples=2)
    found, plain = certes.project(given, "lure", weighting=S), certes.project(given, "lure")
    moved = assert_certified(found, given) - given.matrix("W")
    other = plain.system.matrix("W") - given.matrix("W")
    assert found.distance == pytest.approx(float(np.sqrt(np.trace(moved @ S @ moved.T))), rel=1e-9)
    assert found.distance < float(np.sqrt(np.trace(other @ S @ other.T)))


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["singular", "lure"])
def test_the_identity_is_the_frobenius_norm(condition: str) -> None:
    given = RateNetwork(gaussian(), "tanh", step=0.2)
    plain = certes.project(given, condition)
    assert plain.norm == "frobenius"
    for scale in (1.0, 1e-6):
        found = certes.project(given, condition, weighting=scale * np.eye(N))
        assert found.distance is not None
        assert found.distance / np.sqrt(scale) == pytest.approx(plain.distance, rel=2e-3)


@pytest.mark.parametrize(
    ("weighting", "slug"),
    [
        (np.eye(3), "wrong-shape"),
        (np.ones(4), "wrong-shape"),
        (np.full((4, 4), np.nan), "not-finite"),
        (np.zeros((4, 4)), "invalid-value"),
        (np.triu(np.ones((4, 4))), "invalid-value"),
        (np.diag([1.0, 1.0, 1.0, -0.1]), "invalid-value"),
        ("states", "invalid-value"),
        ([[1.0], [1.0, 2.0]], "invalid-value"),
    ],
)
def test_malformed_weightings(weighting: Any, slug: str) -> None:
    with pytest.raises(InputError) as caught:
        certes.project(RateNetwork(gaussian(4), "tanh"), weighting=weighting)
    assert (caught.value.field, caught.value.slug) == ("weighting", slug)
    with pytest.raises(InputError) as caught:
        certes.project(RateNetwork(sp.csr_array(gaussian(4)), "tanh"), weighting=np.eye(4))
    assert (caught.value.field, caught.value.slug) == ("weighting", "conflict")
