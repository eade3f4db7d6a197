"""An encoder of images from any torch module and the preprocessing of its own library."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmdata.encoders import Prepared
from mmdata.encoders.device import inference, keep_exact, stack, to_numpy
from mmdata.encoders.folding import fold_batch_norms
from mmdata.encoders.pixels import Preparation
from mmdata.types import EncoderCard

CPU_BATCH = 16  # larger batches fall out of the cache: 74 images/s at 16, 60 at 32 (docs/decisions.md)
GPU_BATCH = 256
PICTURE = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
"""One to try a model on."""
Seen = tuple[torch.Tensor, Iterable[torch.Tensor]]
"""Vectors `(n, dim)` and n maps of patches `(token_dim, height, width)`; no maps where a model has none."""


class ImageEncoder:
    """`forward` takes inputs, `(n, 3, h, w) float32` or several tensors by name, to vectors and maps of patches."""

    def __init__(
        self,
        card: EncoderCard,
        model: torch.nn.Module,
        preparation: Preparation,
        forward: Callable[[Any], Seen],
        device: str,
    ) -> None:
        self.card = card
        self.batch_size = CPU_BATCH if device == "cpu" else GPU_BATCH
        model.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        keep_exact(model, device, card.precision)
        self.transform = preparation.transform
        self.scale = preparation.scale and tuple(
            torch.tensor(values, device=device).view(-1, 1, 1) for values in preparation.scale
        )
        self.forward = forward
        self.device = device
        with torch.inference_mode():
            fold_batch_norms(model, lambda: forward(self._inputs([self.transform(PICTURE)]))[0])

    def prepare(self, value: NDArray[np.uint8]) -> list[Prepared]:
        """`(height, width, 3) uint8` to the model's input: bytes where the library's steps allow, else floats."""
        return [Prepared(self.transform(value))]

    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """n inputs to `(n, dim) float32`."""
        if not batch:
            return np.zeros((0, self.card.dim), np.float32)
        with inference(self.device, self.card.precision):
            vectors, _ = self.forward(self._inputs(batch))
            return self._vectors(vectors)

    def encode_tokens(self, batch: Sequence[Any]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """n inputs to `(n, dim) float32` and n arrays `(patches, token_dim) float32`, row by row of the picture.

        A map of more patches than the card's `tokens` is pooled to g x g, the largest that fits.
        """
        if not batch:
            return np.zeros((0, self.card.dim), np.float32), []
        with inference(self.device, self.card.precision):
            vectors, maps = self.forward(self._inputs(batch))
            return self._vectors(vectors), [to_numpy(_patches(patches, self.card.tokens)) for patches in maps]

    def _inputs(self, batch: Sequence[Any]) -> Any:
        if isinstance(batch[0], Mapping):
            return {name: stack([one[name] for one in batch], self.device) for name in batch[0]}
        pixels = stack(batch, self.device).contiguous(memory_format=torch.channels_last)
        if self.scale is None:
            return pixels
        mean, std = self.scale
        return (pixels.float() - mean) / std

    def _vectors(self, vectors: torch.Tensor) -> NDArray[np.float32]:
        vectors = vectors.flatten(1).float()
        return to_numpy(torch.nn.functional.normalize(vectors, dim=1) if self.card.normalised else vectors)  # type: ignore[no-any-return]


def _patches(patches: torch.Tensor, most: int) -> torch.Tensor:
    """`(dim, height, width)` to `(at most `most`, dim)`."""
    height, width = patches.shape[1:]
    if height * width > most:
        side = isqrt(most)
        size = (min(side, height), min(side, width))
        patches = torch.nn.functional.adaptive_avg_pool2d(patches.float(), size)
    return patches.flatten(1).T
