"""Bytes to arrays. Every limit and every repair of raw media lives here."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mmdata.types import Modality, Reason, Rejected

DECODERS = {
    Modality.IMAGE: "mmdata.media.image",
    Modality.AUDIO: "mmdata.media.audio",
    Modality.TEXT: "mmdata.media.text",
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image is `(height, width, 3) uint8` RGB, audio a `Waveform`, text a `str`."""

    value: Any
    repairs: tuple[Reason, ...] = ()


def decode(modality: Modality, data: bytes | memoryview) -> Decoded:
    """Decode one part. Raises Rejected, with a reason, for anything that cannot be decoded whole."""
    if len(data) == 0:
        raise Rejected(Reason.EMPTY, f"the {modality} has no bytes")
    decoder: Callable[[bytes], Decoded] = import_module(DECODERS[modality]).decode
    return decoder(bytes(data))
