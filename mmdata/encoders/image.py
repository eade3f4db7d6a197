"""An encoder of images from any torch module and the preprocessing of its own library."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mmdata.encoders import Prepared
from mmdata.encoders.device import inference, to_device, to_numpy
from mmdata.types import EncoderCard

CPU_BATCH = 16  # larger batches fall out of the cache: 74 images/s at 16, 60 at 32 (docs/decisions.md)
GPU_BATCH = 256


class ImageEncoder:
    """`transform` takes a PIL image to a `(3, h, w) float32` tensor, `model` a batch of those to `(n, dim)`."""

    def __init__(
        self,
        card: EncoderCard,
        model: torch.nn.Module,
        transform: Callable[[Image.Image], torch.Tensor],
        device: str,
        forward: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.card = card
        self.batch_size = CPU_BATCH if device == "cpu" else GPU_BATCH
        self.model: Any = model.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.transform = transform
        self.device = device
        self.forward = forward or self.model

    def prepare(self, value: NDArray[np.uint8]) -> list[Prepared]:
        """`(height, width, 3) uint8` to the model's input."""
        return [Prepared(self.transform(Image.fromarray(value)))]

    def encode(self, batch: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """n inputs to `(n, dim) float32`."""
        if not batch:
            return np.zeros((0, self.card.dim), np.float32)
        with inference(self.device, self.card.precision):
            pixels = to_device(torch.stack(list(batch)), self.device).contiguous(memory_format=torch.channels_last)
            features = self.forward(pixels).flatten(1)
            if self.card.normalised:
                features = torch.nn.functional.normalize(features.float(), dim=1)
            return to_numpy(features)  # type: ignore[no-any-return]
