"""An encoder of text from a tokenizer and any torch module that pools."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from mmdata.encoders import Prepared, Windows
from mmdata.encoders.device import inference, to_device, to_numpy
from mmdata.types import EncoderCard, Reason

CPU_BATCH = 32
GPU_BATCH = 512


class TextEncoder:
    """`forward` takes token ids and mask, both `(n, length) int64`, to `(n, dim)`."""

    def __init__(
        self,
        card: EncoderCard,
        tokenizer: Tokenizer,
        forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        device: str,
    ) -> None:
        self.card = card
        self.batch_size = CPU_BATCH if device == "cpu" else GPU_BATCH
        self.tokenizer = tokenizer
        self.pad = int(card.preprocessing["pad_id"])
        self.max_tokens = int(card.preprocessing["max_tokens"])
        self.full = card.preprocessing.get("padding") == "full"
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.max_tokens)
        self.forward = forward
        self.device = device

    def prepare(self, value: str) -> list[Prepared]:
        """Text to token ids, in windows where it is longer than the model."""
        first = self.tokenizer.encode(value)
        if self.card.windows == Windows.CUT and first.overflowing:
            return [replace(_prepared(first), repairs=(Reason.TOO_LONG,))]
        return [_prepared(window) for window in (first, *first.overflowing)]

    def encode(self, batch: Sequence[list[int]]) -> NDArray[np.float32]:
        """n lists of token ids to `(n, dim) float32`."""
        if not batch:
            return np.zeros((0, self.card.dim), np.float32)
        longest = self.max_tokens if self.full else max(len(ids) for ids in batch)
        padded = np.full((len(batch), longest), self.pad, np.int64)
        mask = np.full((len(batch), longest), self.full, np.int64)
        for row, ids in enumerate(batch):
            padded[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        with inference(self.device, self.card.precision):
            features = self.forward(*(to_device(torch.from_numpy(a), self.device) for a in (padded, mask)))
            if self.card.normalised:
                features = torch.nn.functional.normalize(features.float(), dim=1)
            return to_numpy(features)  # type: ignore[no-any-return]


def _prepared(encoding: Encoding) -> Prepared:
    places = [end for _, end in encoding.offsets]
    start = next((start for start, end in encoding.offsets if end > start), 0)
    return Prepared(encoding.ids, len(encoding.ids), start, max(places, default=0))


def mean_pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`(n, length, dim)` to `(n, dim)`: the mean over real tokens (Reimers and Gurevych 2019, arXiv 1908.10084)."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
