"""Media over HTTP: a type that the bytes have earned, ranges, and small pictures."""

import io
from collections.abc import Mapping

from PIL import Image

from mmdata.corpora.files import suffix_of
from mmdata.media import decode
from mmdata.media.svg import is_svg
from mmdata.types import Modality, Rejected

HEAD = 4096  # bytes that tell what a file is
UNKNOWN = "application/octet-stream"
TYPES: Mapping[str, str] = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "tif": "image/tiff",
    "avif": "image/avif",
    "heic": "image/heic",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "mp3": "audio/mpeg",
    "aac": "audio/aac",
    "m4a": "audio/mp4",
    "mov": "video/quicktime",
    "mp4": "video/mp4",
    "mkv": "video/webm",
}
TEXT = "text/plain; charset=utf-8"


def type_of(modality: Modality, head: bytes) -> str:
    """The content type of a part, from its first bytes alone; a drawing is sent as the PNG that it becomes."""
    if modality is Modality.TEXT:
        return TEXT
    if modality is Modality.IMAGE and is_svg(head):
        return "image/png"
    try:
        return TYPES[suffix_of(modality, None, head)]
    except Rejected:
        return UNKNOWN


def thumbnail(data: bytes, side: int) -> bytes:
    """A WebP whose longer side has `side` pixels at most, upright. Rejected for what is no picture."""
    picture = Image.fromarray(decode(Modality.IMAGE, data, min_side=side).value)
    picture.thumbnail((side, side))
    sink = io.BytesIO()
    picture.save(sink, "WEBP", quality=80)
    return sink.getvalue()
