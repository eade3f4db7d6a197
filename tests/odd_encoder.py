"""Text encoders of a package of its own that go wrong in known ways, on texts with "star"; `odd:plain` never does.

The folder mmdata_test_encoders-1.0.dist-info beside this file is what an installed package has there: its entry point.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mmdata.encoders import Prepared, Request
from mmdata.types import EncoderCard, Modality, Reason, Rejected

batches: list[int] = []  # how many texts each call that ended well had


class OddEncoder:
    """Three numbers of a text: its length, its words, its first letter."""

    batch_size = 8

    @staticmethod
    def describe(name: str, tower: str, request: Request) -> EncoderCard:
        return EncoderCard(modality=Modality.TEXT, dim=3, space="odd", revision="1")

    def __init__(self, card: EncoderCard, device: str) -> None:
        self.card = card
        self.way = card.spec.removeprefix("odd:")

    def prepare(self, value: str) -> list[Prepared]:
        if self.way == "refuses" and "star" in value:
            raise Rejected(Reason.TOO_LONG, "a star is too long")
        if self.way == "no-memory-to-prepare" and "star" in value:
            raise MemoryError
        if self.way == "nothing":
            return []
        return [Prepared(value, len(value))]

    def encode(self, batch: Sequence[str]) -> NDArray[np.float32]:
        stars = np.array(["star" in text for text in batch], bool)
        if (self.way == "three-fit" and len(batch) > 3) or (self.way == "stars-do-not-fit" and stars.any()):
            raise torch.OutOfMemoryError("out of memory")
        if self.way == "no-memory-to-encode" and stars.any():
            raise MemoryError
        if self.way == "torch-has-no-memory" and stars.any():
            torch.empty(1 << 55)
        batches.append(len(batch))
        facts = [(len(text), len(text.split()), ord(text[0])) for text in batch]
        vectors = np.array(facts, np.float32).reshape(len(batch), 3)
        if self.way == "wide":
            return np.pad(vectors, ((0, 0), (0, 1)))
        if self.way == "list":
            return vectors.tolist()
        bad = {"nan": np.nan, "zero": 0.0, "huge": 1e6, "all-nan": np.nan}.get(self.way)
        if bad is not None:
            vectors[stars | (self.way == "all-nan")] = bad
        return vectors
