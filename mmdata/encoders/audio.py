"""Encoders of sound: one wave at a time, so no row depends on the padding of its neighbours."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mmdata.encoders import Prepared
from mmdata.encoders.device import inference, to_numpy
from mmdata.media.audio import Waveform, resample
from mmdata.types import EncoderCard


class AudioEncoder:
    """`forward` takes one wave `(n,) float32`, at the card's rate, to `(dim,)`."""

    def __init__(self, card: EncoderCard, forward: Callable[[NDArray[np.float32]], torch.Tensor], device: str) -> None:
        self.card = card
        self.batch_size = 16
        self.rate = int(card.preprocessing["rate"])
        self.forward = forward
        self.device = device

    def prepare(self, value: Waveform) -> Prepared:
        """A wave to the model's rate."""
        wave = resample(value, self.rate)
        return Prepared(wave, len(wave))

    def encode(self, batch: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """n waves to `(n, dim) float32`."""
        if not batch:
            return np.zeros((0, self.card.dim), np.float32)
        with inference(self.device, self.card.precision):
            features = torch.stack([self.forward(wave).float() for wave in batch])
            if self.card.normalised:
                features = torch.nn.functional.normalize(features, dim=1)
            return to_numpy(features)  # type: ignore[no-any-return]
