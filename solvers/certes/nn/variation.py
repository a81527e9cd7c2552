"""What makes each look at a training sequence a little different: noise, and images that are moved.

What is drawn for a batch comes from (seed, epoch, number of the batch) alone, on the CPU and for the whole batch: so a
training can be resumed to the bit, and several processes that share a batch draw the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from certes.errors import InputError


@dataclass(frozen=True)
class Variation:
    """How inputs are varied.

    Attributes:
        seed: of what is drawn.
        noise: standard deviation of the noise, in units of ``scale``.
        jitter: pixels by which an image is moved at most, up or down and left or right.
        image: (height, width) of the images that the sequences are; None: they are none.

    Raises:
        InputError: images are to be moved, and there are none.
    """

    seed: int
    noise: float = 0.0
    jitter: int = 0
    image: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.jitter and self.image is None:
            expected = "0 for sequences that are no images read in order"
            raise InputError("plan.jitter", str(self.jitter), expected, "unsupported")

    def __call__(self, inputs: Tensor, scale: Tensor, epoch: int, batch: int) -> Tensor:
        """Inputs of a batch, varied.

        Args:
            inputs: shape (N, T, features).
            scale: unit of the noise, shape (features,).
            epoch: and
            batch: which look it is.
        """
        if not (self.noise or self.jitter):
            return inputs
        draws = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) * 1_000_003 + batch)
        if self.noise:
            inputs = inputs + self.noise * scale * torch.randn(inputs.shape, generator=draws).to(inputs.device)
        if self.jitter:
            assert self.image is not None
            by = torch.randint(-self.jitter, self.jitter + 1, (len(inputs), 2), generator=draws)
            inputs = moved(inputs, self.image, by.to(inputs.device))
        return inputs


def moved(inputs: Tensor, image: tuple[int, int], by: Tensor) -> Tensor:
    """Sequences that are images, each moved; what comes in is what stood at the edge.

    Args:
        inputs: shape (N, T, features), an image read row by row or pixel by pixel.
        image: (height, width).
        by: down and to the right, shape (N, 2), whole numbers.
    """
    height, width = image
    pixels = inputs.reshape(-1, height, width)
    places = [
        (torch.arange(size, device=inputs.device) - by[:, k, None]).clamp(0, size - 1)
        for k, size in enumerate((height, width))
    ]
    which = torch.arange(len(pixels), device=inputs.device)[:, None, None]
    return pixels[which, places[0][:, :, None], places[1][:, None, :]].reshape(inputs.shape)
