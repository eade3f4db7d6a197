"""Native crashes, exits, hangs and floods of memory on demand, and an encoder that has them."""

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.encoders import Prepared, Request
from mmdata.types import EncoderCard, Modality


def take(data: bytes) -> None:
    """Do what the data says."""
    if b"poison:segfault" in data:
        ctypes.string_at(0)
    if b"poison:exit" in data:
        os._exit(1)
    if b"poison:kill" in data:
        os.kill(os.getpid(), signal.SIGKILL)
    if b"poison:hang" in data:
        time.sleep(1e6)
    if b"poison:hold" in data:  # and no other thread may run
        ctypes.PyDLL(None).sleep(1_000_000)
    if b"poison:memory" in data:
        _flood()


WIDTH = 11
WORDS = (b"poison:segfault",)
FAR = 5.0  # standard deviations


def look(rows: Any) -> None:
    """Do what a row says that is far out in one of its first dimensions."""
    if rows.shape[-1] == WIDTH:
        for place, word in enumerate(WORDS):
            if (rows[..., place] > FAR).any():
                take(word)


def _flood() -> None:
    """More memory than the control group $POISON_CGROUP allows, which the kernel ends."""
    with open(os.environ["POISON_CGROUP"] + "/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))
    held = []
    while True:
        held.append(bytearray(os.urandom(1 << 20)) * 16)


class Sensitive:
    """A text to its number of letters and words; in `prepare` or in `encode`, as its name says, it takes poison."""

    batch_size = 4

    @staticmethod
    def describe(name: str, tower: str, request: Request) -> EncoderCard:
        return EncoderCard(modality=Modality.TEXT, dim=2, revision="1")

    def __init__(self, card: EncoderCard, device: str) -> None:
        self.card = card

    def prepare(self, value: str) -> list[Prepared]:
        if not self.card.spec.endswith(":encode"):
            take(value.encode())
        return [Prepared(value, len(value))]

    def encode(self, batch: Sequence[str]) -> NDArray[np.float32]:
        for text in batch:
            take(text.encode())
        return np.array([(len(text), len(text.split())) for text in batch], np.float32).reshape(-1, 2)
