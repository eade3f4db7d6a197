"""Text encoders of a package of its own that go wrong in known ways, on texts with "star"; `odd:plain` never does.

The folder mmdata_test_encoders-1.0.dist-info beside this file is what an installed package has there: its entry point.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmdata.encoders import Prepared, Request
from mmdata.encoders.weights import read_json
from mmdata.types import EncoderCard, Modality, Reason, Rejected

batches: list[int] = []  # how many texts each call that ended well had


WRONG: dict[str, Callable[[NDArray[np.float32]], Any]] = {
    "wide": lambda vectors: np.pad(vectors, ((0, 0), (0, 1))),
    "list": lambda vectors: vectors.tolist(),
    "complex": lambda vectors: vectors + 1j,
    "tensor": torch.from_numpy,
    "raises": lambda vectors: {}["no such word"],
    "raises-ours": lambda vectors: read_json(Path("nowhere.json")),
}
"""What an encoder may give in place of vectors."""
WRONG_TOKENS: dict[str, Callable[[NDArray[np.float32]], Any]] = {
    "tokens-none": lambda vectors: None,
    "tokens-alone": lambda vectors: [vectors],
    "tokens-string": lambda vectors: (vectors, "a" * len(vectors)),
    "tokens-lists": lambda vectors: (vectors, [[[0.0, 0.0]]] * len(vectors)),
    "tokens-tensors": lambda vectors: (vectors, list(torch.zeros(len(vectors), 1, 2))),
    "tokens-few": lambda vectors: (vectors, [np.zeros((1, 2), np.float32)]),
    "tokens-wide": lambda vectors: (vectors, [np.zeros((1, 3), np.float32)] * len(vectors)),
}
"""What an encoder may give in place of vectors and token vectors."""
WRONG_INPUTS: dict[str, Callable[[str], Any]] = {
    "raw": lambda text: text,
    "length-text": lambda text: Prepared(text, "long"),
    "length-negative": lambda text: Prepared(text, -1),
    "start-none": lambda text: Prepared(text, 1, None),
    "repairs-text": lambda text: Prepared(text, 1, repairs=("cut",)),
}
"""What prepare may give in place of whole inputs."""


class OddEncoder:
    """Three numbers of a text: its length, its words, its first letter."""

    batch_size = 8

    @staticmethod
    def describe(name: str, tower: str, request: Request) -> EncoderCard:
        token_dim = 2 if name.startswith("tokens") else 0
        return EncoderCard(modality=Modality.TEXT, dim=3, space="odd", revision="1", token_dim=token_dim)

    def __init__(self, card: EncoderCard, device: str) -> None:
        self.card = card
        self.way = card.spec.removeprefix("odd:")

    def prepare(self, value: str) -> list[Prepared]:
        if self.way == "refuses" and "star" in value:
            raise Rejected(Reason.TOO_LONG, "a star is too long")
        if self.way == "no-memory-to-prepare" and "star" in value:
            raise MemoryError
        if self.way == "breaks" and "star" in value:
            return [Prepared(value, {}["star"])]
        if self.way == "leaves" and "star" in value:
            raise SystemExit(3)
        if self.way in WRONG_INPUTS:
            return [WRONG_INPUTS[self.way](value)]
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
        if self.way in WRONG:
            return WRONG[self.way](vectors)
        bad = {"nan": np.nan, "zero": 0.0, "huge": 1e6, "all-nan": np.nan, "all-huge": 1e6}.get(self.way)
        if bad is not None:
            vectors[stars | self.way.startswith("all")] = bad
        return vectors

    def encode_tokens(self, batch: Sequence[str]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        vectors = self.encode(batch)
        if self.way in WRONG_TOKENS:
            return WRONG_TOKENS[self.way](vectors)
        bad = {"tokens-nan": np.nan, "tokens-huge": 1e6}.get(self.way, 0)
        return vectors, [np.full((6, 2), bad if "star" in text else 40_000, np.float32) for text in batch]
