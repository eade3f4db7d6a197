"""Bytes to arrays. Every limit and every repair of raw media lives here."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mmdata.media.memory import with_room
from mmdata.types import Modality, Reason, Rejected

DECODERS = {
    Modality.IMAGE: "mmdata.media.image",
    Modality.AUDIO: "mmdata.media.audio",
    Modality.TEXT: "mmdata.media.text",
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image is `(height, width, 3) uint8` RGB, audio a `Waveform`, text a `str`.

    `repairs` says what of the content was lost or is in doubt; a routine conversion of colours is no repair.
    """

    value: Any
    repairs: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller of `decode` chose. Only images look at it."""

    min_side: int
    background: tuple[int, int, int]


def decode(
    modality: Modality,
    data: bytes | memoryview,
    *,
    min_side: int = 0,
    background: tuple[int, int, int] = (255, 255, 255),
) -> Decoded:
    """Decode one part. Raises Rejected, with a reason, for what cannot be decoded whole, or needs too much memory.

    `min_side`: where it saves work, an image may be decoded smaller, but its shorter side never to fewer pixels
    than this; 0 is the exact image. `background`: the RGB below transparent pixels. Threads may call it at once.
    """
    if len(data) == 0:
        raise Rejected(Reason.EMPTY, f"the {modality} has no bytes")
    decoder: Callable[[bytes, Wish], Decoded] = import_module(DECODERS[modality]).decode
    return with_room(lambda: decoder(bytes(data), Wish(min_side, background)))
