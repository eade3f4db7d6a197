"""Encoders that start at once, for tests that run many jobs: colours of a picture, letters of a text.

On a cluster that was started with QUICK_ENCODER_SECONDS a batch of pictures takes as long as that says.
"""

import os
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmdata.encoders import Prepared, Request
from mmdata.types import EncoderCard, Modality


class Colours:
    """Mean and spread of red, green and blue."""

    batch_size = 4

    @staticmethod
    def describe(name: str, tower: str, request: Request) -> EncoderCard:
        return EncoderCard(modality=Modality.IMAGE, dim=6, revision="1")

    def __init__(self, card: EncoderCard, device: str) -> None:
        self.card = card

    def prepare(self, value: NDArray[np.uint8]) -> list[Prepared]:
        pixels = value.reshape(-1, 3) / np.float32(255)
        return [Prepared(np.concatenate([pixels.mean(0), pixels.std(0)]))]

    def encode(self, batch: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        time.sleep(float(os.environ.get("QUICK_ENCODER_SECONDS", 0)))
        return np.array(batch, np.float32).reshape(len(batch), 6)


class Letters:
    """How often each of eight letters stands in a text."""

    batch_size = 4

    @staticmethod
    def describe(name: str, tower: str, request: Request) -> EncoderCard:
        return EncoderCard(modality=Modality.TEXT, dim=8, revision="1")

    def __init__(self, card: EncoderCard, device: str) -> None:
        self.card = card

    def prepare(self, value: str) -> list[Prepared]:
        return [Prepared(value, len(value))]

    def encode(self, batch: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[1 + text.count(letter) for letter in "aeionrst"] for text in batch], np.float32).reshape(
            -1, 8
        )
