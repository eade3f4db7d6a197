"""Encoders of sound: one wave at a time, so no row depends on the padding of its neighbours."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mmdata.encoders import Prepared, Windows
from mmdata.encoders.device import inference, to_numpy
from mmdata.media.audio import Waveform, resample
from mmdata.types import EncoderCard, Reason


class AudioEncoder:
    """`forward` takes one wave `(n,) float32`, at the card's rate, to `(dim,)`."""

    def __init__(self, card: EncoderCard, forward: Callable[[NDArray[np.float32]], torch.Tensor], device: str) -> None:
        self.card = card
        self.batch_size = 16
        self.rate = int(card.preprocessing["rate"])
        seconds = card.preprocessing.get("window_seconds")
        self.longest = None if seconds is None else round(seconds * self.rate)  # samples of a window
        self.forward = forward
        self.device = device

    def prepare(self, value: Waveform) -> list[Prepared]:
        """A wave to the model's rate, in windows where it is longer than `window_seconds` of the card."""
        wave = resample(value, self.rate)
        if self.longest is None or len(wave) <= self.longest:
            return [Prepared(wave, len(wave), end=len(wave) / self.rate)]
        starts = range(0, len(wave), self.longest)
        windows = [wave[start : start + self.longest] for start in starts]
        if self.card.windows == Windows.CUT:
            return [Prepared(windows[0], self.longest, end=self.longest / self.rate, repairs=(Reason.TOO_LONG,))]
        return [
            Prepared(window, len(window), start / self.rate, (start + len(window)) / self.rate)
            for start, window in zip(starts, windows, strict=True)
        ]

    def encode(self, batch: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """n waves to `(n, dim) float32`."""
        if not batch:
            return np.zeros((0, self.card.dim), np.float32)
        with inference(self.device, self.card.precision):
            features = torch.stack([self.forward(wave).float() for wave in batch])
            if self.card.normalised:
                features = torch.nn.functional.normalize(features, dim=1)
            return to_numpy(features)  # type: ignore[no-any-return]
