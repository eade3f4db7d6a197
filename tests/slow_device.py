"""An encoder that keeps a pretended device busy for 10 ms a batch, one batch at a time, and writes down when."""

import threading
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmdata.encoders import Prepared, Request
from mmdata.types import EncoderCard, Modality

DIM, TOKEN_DIM = 2, 3
SECONDS = 0.01
device = threading.Lock()
busy: list[tuple[float, float]] = []  # from, to


class SlowDevice:
    """A text to the number of its letters and words; its tokens are the lengths of its words, three times each."""

    batch_size = 2

    @staticmethod
    def describe(name: str, tower: str, request: Request) -> EncoderCard:
        return EncoderCard(modality=Modality.TEXT, dim=DIM, revision="1", token_dim=TOKEN_DIM)

    def __init__(self, card: EncoderCard, device: str) -> None:
        self.card = card

    def prepare(self, value: str) -> list[Prepared]:
        return [Prepared(value, len(value))]

    def encode(self, batch: Sequence[str]) -> NDArray[np.float32]:
        with device:
            since = time.perf_counter()
            time.sleep(SECONDS)
            busy.append((since, time.perf_counter()))
        return np.array([(len(text), len(text.split())) for text in batch], np.float32).reshape(-1, DIM)

    def encode_tokens(self, batch: Sequence[str]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        words = [np.repeat([[len(word)] for word in text.split()], TOKEN_DIM, 1).astype(np.float32) for text in batch]
        return self.encode(batch), words
