"""What media are sent as: a type that the bytes have earned, and small pictures."""

import io
import re
from collections.abc import Mapping

from PIL import Image

from mmdata.corpora.files import suffix_of
from mmdata.media import decode
from mmdata.media.svg import is_svg, rasterise
from mmdata.types import Modality, Rejected

HEAD = 4096  # bytes that tell what a file is
UNKNOWN = "application/octet-stream"
SVG = "image/svg+xml"  # what it is, but never what it is sent as
SENT_AS = {SVG: "image/png"}
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
"""Content type by the suffix that the first bytes mean. Nothing here is run by a browser."""
TEXT = "text/plain; charset=utf-8"
RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


def type_of(modality: Modality, head: bytes) -> str:
    """The content type of a part, from its first bytes alone."""
    if modality is Modality.TEXT:
        return TEXT
    if modality is Modality.IMAGE and is_svg(head):
        return SVG
    try:
        return TYPES[suffix_of(modality, None, head)]
    except Rejected:
        return UNKNOWN


def drawn(data: bytes) -> bytes:
    """A drawing as the PNG that is sent instead. Rejected for one that cannot be drawn."""
    return rasterise(data)


def thumbnail(data: bytes, side: int) -> bytes:
    """A WebP whose longer side has `side` pixels at most, upright. Rejected for what is no picture."""
    picture = Image.fromarray(decode(Modality.IMAGE, data, min_side=side).value)
    picture.thumbnail((side, side))
    sink = io.BytesIO()
    picture.save(sink, "WEBP", quality=80)
    return sink.getvalue()


def span(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte + 1 of a Range header; None where all is to be sent, as for several ranges at once.

    Raises ValueError for a range that lies outside (RFC 9110, 14.1.2).
    """
    match = RANGE.fullmatch((header or "").strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
    if start >= stop:
        raise ValueError(header)
    return start, stop
