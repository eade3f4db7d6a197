"""An encoder of sound from a library's extractor and any torch module.

Sounds are batched only where no row then depends on its neighbours: with a mask where the model is exact under
padding, by equal length where it is not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mmdata.encoders import Prepared, Windows
from mmdata.encoders.device import inference, to_device, to_numpy
from mmdata.media.audio import Waveform, resample
from mmdata.types import EncoderCard, Reason

BATCH = 16
CPU_SAMPLES = 1 << 19  # of sound in one forward: wav2vec2's first layer makes 400 bytes of each sample
GPU_SAMPLES = 1 << 23
Arrays = dict[str, NDArray[np.generic]]
Heard = tuple[torch.Tensor, Iterable[torch.Tensor]]
"""Vectors `(n, dim)` and n sequences of frames `(t, token_dim)`; none of them where a model has none."""


class AudioEncoder:
    """`extract` takes a wave, at the card's rate, to the model's inputs by name, `forward` batches of them to vectors.

    Inputs whose shapes differ are padded with zeros at the end where the model is `maskable`, else encoded apart.
    `samples (n,) int64` says how long each one is.
    """

    def __init__(
        self,
        card: EncoderCard,
        extract: Callable[[NDArray[np.float32]], Arrays],
        forward: Callable[[Mapping[str, torch.Tensor], torch.Tensor], Heard],
        device: str,
        maskable: bool = False,
    ) -> None:
        self.card = card
        self.batch_size = BATCH
        self.rate = int(card.preprocessing["rate"])
        seconds = card.preprocessing.get("window_seconds")
        self.longest = None if seconds is None else round(seconds * self.rate)  # samples of a window
        self.extract = extract
        self.forward = forward
        self.device = device
        self.maskable = maskable

    def prepare(self, value: Waveform) -> list[Prepared]:
        """A wave to the model's inputs, in windows where it is longer than `window_seconds` of the card."""
        wave = resample(value, self.rate)
        longest = self.longest or len(wave)
        starts = range(0, max(len(wave), 1), max(longest, 1))
        if self.card.windows == Windows.CUT and len(starts) > 1:
            return [self._prepared(wave, 0, longest, (Reason.TOO_LONG,))]
        return [self._prepared(wave, start, longest) for start in starts]

    def _prepared(
        self, wave: NDArray[np.float32], start: int, longest: int, repairs: tuple[Reason, ...] = ()
    ) -> Prepared:
        window = wave[start : start + longest]
        data = {**self.extract(window), "samples": np.int64(len(window))}
        return Prepared(data, len(window), start / self.rate, (start + len(window)) / self.rate, repairs)

    def encode(self, batch: Sequence[Arrays]) -> NDArray[np.float32]:
        """n inputs to `(n, dim) float32`."""
        vectors, _ = self._run(batch, tokens=False)
        return vectors

    def encode_tokens(self, batch: Sequence[Arrays]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """n inputs to `(n, dim) float32` and n arrays `(frames, token_dim) float32`."""
        return self._run(batch, tokens=True)

    def _run(self, batch: Sequence[Arrays], tokens: bool) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        vectors = np.zeros((len(batch), self.card.dim), np.float32)
        sequences: dict[int, NDArray[np.float32]] = {}
        with inference(self.device, self.card.precision):
            for rows in self._together(batch):
                found, frames = self._forward([batch[row] for row in rows])
                vectors[rows] = to_numpy(found)
                if tokens:
                    sequences.update(zip(rows, map(to_numpy, frames), strict=True))
        return vectors, [sequences[row] for row in sorted(sequences)]

    def _forward(self, batch: Sequence[Arrays]) -> Heard:
        samples = torch.tensor([int(one["samples"]) for one in batch])
        names = batch[0].keys() - {"samples"}
        inputs = {name: to_device(_stack([one[name] for one in batch]), self.device) for name in names}
        vectors, frames = self.forward(inputs, samples.to(self.device))
        vectors = vectors.float()
        return torch.nn.functional.normalize(vectors, dim=1) if self.card.normalised else vectors, frames

    def _together(self, batch: Sequence[Arrays]) -> list[list[int]]:
        """The rows of each forward, the longest first."""
        most = CPU_SAMPLES if self.device == "cpu" else GPU_SAMPLES
        sizes = [max(array.size for array in one.values()) for one in batch]
        groups: list[list[int]] = []
        for row in sorted(range(len(batch)), key=lambda row: -sizes[row]):
            longest = sizes[groups[-1][0]] if groups else 0
            alike = self.maskable or sizes[row] == longest
            if groups and alike and (len(groups[-1]) + 1) * longest <= most:
                groups[-1].append(row)
            else:
                groups.append([row])
        return groups


def _stack(arrays: Sequence[NDArray[np.generic]]) -> torch.Tensor:
    longest = max(array.shape[-1] if array.ndim else 0 for array in arrays)
    if arrays[0].ndim == 0 or all(array.shape[-1] == longest for array in arrays):
        return torch.from_numpy(np.stack(arrays))
    return torch.from_numpy(np.stack([np.pad(array, (0, longest - len(array))) for array in arrays]))


def mean_of_frames(states: torch.Tensor, counts: torch.Tensor) -> Heard:
    """States `(n, frames, dim)`, the first `counts` of which are real: their means, and they themselves."""
    real = [row[: int(count)].float() for row, count in zip(states, counts.tolist(), strict=True)]
    return torch.stack([row.mean(0) for row in real]), real


def shortest(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """The samples that the convolutions in front of a model need to give one frame."""
    samples = 1
    for kernel, stride in reversed(list(zip(kernels, strides, strict=True))):
        samples = (samples - 1) * stride + kernel
    return samples
