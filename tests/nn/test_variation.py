"""Training sequences that are varied: noise, and images that are moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from certes.errors import InputError
from certes.nn.trainer import Plan
from certes.nn.variation import Variation, moved
from certes.sequences import read_data
from hypothesis import given
from hypothesis import strategies as st


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """By loops: each pixel is the one that stood where it comes from, or the nearest at the edge."""
    height, width = image.shape
    found = np.empty_like(image)
    for i in range(height):
        for j in range(width):
            found[i, j] = image[min(max(i - down, 0), height - 1), min(max(j - right, 0), width - 1)]
    return found


@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 2**32 - 1), st.booleans())
def test_images_are_moved(height: int, width: int, seed: int, pixels: bool) -> None:
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(3, height, width)).astype(np.float32)
    by = generator.integers(-8, 9, size=(3, 2))
    inputs = torch.from_numpy(images.reshape(3, -1, 1) if pixels else images)
    found = moved(inputs, (height, width), torch.from_numpy(by))
    assert found.shape == inputs.shape
    for image, (down, right), one in zip(images, by, found.numpy(), strict=True):
        assert (one.reshape(height, width) == shifted(image, int(down), int(right))).all()


def test_what_is_drawn_comes_from_seed_epoch_and_batch() -> None:
    inputs, scale = torch.randn(5, 16, 1, generator=torch.Generator().manual_seed(0)), torch.ones(1)
    varied = Variation(3, 0.1, 2, (4, 4))
    state = torch.get_rng_state()
    first = varied(inputs, scale, 1, 2)
    assert torch.equal(first, Variation(3, 0.1, 2, (4, 4))(inputs, scale, 1, 2))
    for other in (
        varied(inputs, scale, 1, 3),
        varied(inputs, scale, 2, 2),
        Variation(4, 0.1, 2, (4, 4))(inputs, scale, 1, 2),
    ):
        assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state()), "nothing else is drawn from"
    assert Variation(3)(inputs, scale, 0, 0) is inputs


def test_only_images_are_moved() -> None:
    assert read_data("digits").train.image == (8, 8)
    assert read_data("digits-pixels").train.image == (8, 8)
    assert read_data("mnist-permuted").train.image is None
    assert read_data("mnist-rows").parts(0)[1].image == (28, 28)
    with pytest.raises(InputError, match=r"plan\.jitter"):
        Variation(0, 0.0, 1, None)
    for wrong in (-1, 1001, 1.5, True):
        with pytest.raises(InputError, match=r"plan\.jitter"):
            Plan(jitter=wrong)  # type: ignore[arg-type]
