"""An encoder of text from a tokenizer and any torch module that pools."""

from collections.abc import Callable, Iterable, Sequence
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
Read = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, Iterable[torch.Tensor]]]
"""Token ids and mask, both `(n, length) int64`, to vectors `(n, dim)` and, if any, states `(n, length, token_dim)`."""
Tokenize = Callable[[str], list[Prepared]]
"""A text to token ids, in windows where it is longer than the model."""


class TextEncoder:
    """A tokenizer and a model; the card says the padding and the length it pads to, if to a fixed one."""

    def __init__(
        self, card: EncoderCard, tokenize: Tokenize, forward: Read, device: str, pad_left: bool = False
    ) -> None:
        self.card = card
        self.batch_size = CPU_BATCH if device == "cpu" else GPU_BATCH
        self.tokenize = tokenize
        self.pad = int(card.preprocessing["pad_id"])
        self.max_tokens = int(card.preprocessing["max_tokens"])
        self.full = card.preprocessing.get("padding") == "full"
        self.pad_left = pad_left  # matters where padding is read, too
        self.forward = forward
        self.device = device

    def prepare(self, value: str) -> list[Prepared]:
        """Text to token ids, in windows where it is longer than the model; or its first, counted as a repair."""
        windows = self.tokenize(value)
        if self.card.windows == Windows.CUT and len(windows) > 1:
            return [replace(windows[0], repairs=(Reason.TOO_LONG,))]
        return windows

    def encode(self, batch: Sequence[list[int]]) -> NDArray[np.float32]:
        """n lists of token ids to `(n, dim) float32`."""
        if not batch:
            return np.zeros((0, self.card.dim), np.float32)
        with inference(self.device, self.card.precision):
            vectors, _ = self.forward(*self._padded(batch))
            return self._vectors(vectors)

    def encode_tokens(self, batch: Sequence[list[int]]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """n lists of token ids to `(n, dim) float32` and n arrays `(tokens, token_dim) float32`, special ones too."""
        if not batch:
            return np.zeros((0, self.card.dim), np.float32), []
        with inference(self.device, self.card.precision):
            vectors, states = self.forward(*self._padded(batch))
            own = [to_numpy(row[self._place(ids, len(row))]) for row, ids in zip(states, batch, strict=True)]
            return self._vectors(vectors), own

    def _padded(self, batch: Sequence[list[int]]) -> list[torch.Tensor]:
        longest = self.max_tokens if self.full else max(len(ids) for ids in batch)
        padded = np.full((len(batch), longest), self.pad, np.int64)
        mask = np.full((len(batch), longest), self.full, np.int64)
        for row, ids in enumerate(batch):
            padded[row, self._place(ids, longest)] = ids
            mask[row, self._place(ids, longest)] = 1
        return [to_device(torch.from_numpy(array), self.device) for array in (padded, mask)]

    def _place(self, ids: list[int], longest: int) -> slice:
        return slice(longest - len(ids), longest) if self.pad_left else slice(len(ids))

    def _vectors(self, vectors: torch.Tensor) -> NDArray[np.float32]:
        if self.card.normalised:
            vectors = torch.nn.functional.normalize(vectors.float(), dim=1)
        return to_numpy(vectors)  # type: ignore[no-any-return]


def tokens_of(tokenizer: Tokenizer, card: EncoderCard) -> Tokenize:
    """With a tokenizer of the library tokenizers, which counts special tokens into each window."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(int(card.preprocessing["max_tokens"]))

    def tokenize(text: str) -> list[Prepared]:
        first = tokenizer.encode(text)
        return [_prepared(window) for window in (first, *first.overflowing)]

    return tokenize


def _prepared(encoding: Encoding) -> Prepared:
    places = [end for _, end in encoding.offsets]
    start = next((start for start, end in encoding.offsets if end > start), 0)
    return Prepared(encoding.ids, len(encoding.ids), start, max(places, default=0))


def mean_pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`(n, length, dim)` to `(n, dim)`: the mean over real tokens (Reimers and Gurevych 2019, arXiv 1908.10084)."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def first_token(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The state of BERT's [CLS]."""
    return states[:, 0]


def last_token(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The state of the last real token, the only one of a causal model that has seen all others."""
    return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]


def max_pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The largest of each component over real tokens."""
    return states.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(1)


POOLERS = {"mean": mean_pool, "cls": first_token, "lasttoken": last_token, "max": max_pool}
