"""Images to RGB: upright, on a background, 8 bits a channel, first frame."""

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mmdata.media import Decoded, Wish
from mmdata.media.colours import to_rgb
from mmdata.media.jpeg import decode_jpeg
from mmdata.media.svg import is_svg, rasterise
from mmdata.types import Reason, Rejected

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
BAD = (OSError, EOFError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, RuntimeError, struct.error)
"""What Pillow's plugins and libheif raise on broken files."""
JPEGS = ("JPEG", "MPO")  # MPO: a camera's JPEG with another view or a preview behind it
MAX_PIXELS = 64_000_000
MAX_ASPECT = 200  # an encoder that resizes the shorter side to 256 pixels would need gigabytes beyond
ORIENTATION = 0x0112
UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
"""EXIF 2.32, 4.6.4: what undoes each orientation but 1."""


def decode(data: bytes, wish: Wish) -> Decoded:
    """`(height, width, 3) uint8`. The size is read from the header before any pixel is."""
    if is_svg(data):
        data = rasterise(data)
    try:
        with _open(data) as image:
            _check_size(*image.size)
            pixels, repairs = _pixels(image, data, wish)
            upright, doubts = _upright(image, pixels)
            frames = (Reason.FIRST_FRAME,) if _has_more_frames(image) else ()
            return Decoded(upright, repairs + doubts + frames)
    except Image.DecompressionBombError as error:
        raise Rejected(Reason.DECODE_BOMB, f"more than twice what Pillow takes, limit {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        reason = Reason.DECODE_FAILED if data.startswith(BEGINNINGS) else Reason.UNSUPPORTED
        raise Rejected(
            reason, f"not a readable {', '.join(FORMATS)} or HEIC, or a rare kind that Pillow does not know"
        ) from error
    except BAD as error:
        raise Rejected(_why(error), str(error)) from error


def _open(data: bytes) -> Image.Image:
    if data[4:8] == b"ftyp" and data[8:12] in HEIC:
        try:
            from pillow_heif.as_plugin import HeifImageFile
        except ImportError as error:
            raise Rejected(Reason.UNSUPPORTED, "HEIC needs a decoder: pip install 'mmdata[heif]'") from error
        heif: Image.Image = HeifImageFile(io.BytesIO(data))
        return heif
    if data[8:12] == b"WEBP":
        _check_size(*_webp_size(data))  # Pillow's plugin asks for two whole pictures when it opens the file
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _webp_size(data: bytes) -> tuple[int, int]:
    """RFC 9649: 14 bits a side in the two simple forms, 24 bits in the extended one. 1 x 1 for what is none of them."""
    number = int.from_bytes(data[21:30], "little")
    if data[12:16] == b"VP8X":
        return 1 + (number >> 24 & 0xFFFFFF), 1 + (number >> 48 & 0xFFFFFF)
    if data[12:16] == b"VP8L":
        return 1 + (number & 0x3FFF), 1 + (number >> 14 & 0x3FFF)
    return max(1, number >> 40 & 0x3FFF), max(1, number >> 56 & 0x3FFF)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Rejected(Reason.DECODE_BOMB, f"{width} x {height} pixels, limit {MAX_PIXELS}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise Rejected(Reason.DECODE_BOMB, f"{width} x {height} pixels, one side over {MAX_ASPECT} times the other")


def _pixels(image: Image.Image, data: bytes, wish: Wish) -> tuple[NDArray[np.uint8], tuple[Reason, ...]]:
    if image.format in JPEGS and image.mode in ("RGB", "L"):
        pixels = decode_jpeg(data, wish.min_side)
        if pixels is not None:
            return pixels, ()
    image.load()
    return to_rgb(image, wish.background)


def _upright(image: Image.Image, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[Reason, ...]]:
    """EXIF that cannot be read leaves the picture as it is, which is a repair: it may lie on its side."""
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except BAD:
        return pixels, (Reason.BAD_METADATA,)
    return (pixels if turn is None else np.ascontiguousarray(turn(pixels))), ()


def _has_more_frames(image: Any) -> bool:
    """Whether an animation goes on, or a document has a second page, be it a broken one."""
    try:
        if image.format == "TIFF":  # alone in having no `is_animated`
            return bool(image.n_frames > 1)
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except BAD:
        return True


def _why(error: Exception) -> Reason:
    """There is one type of error for all; its words tell a cut file and a bomb in a text or a profile."""
    words = str(error).lower()
    if "too large" in words or "exceed" in words:
        return Reason.DECODE_BOMB
    cut = isinstance(error, EOFError) or "truncated" in words
    return Reason.DECODE_TRUNCATED if cut else Reason.DECODE_FAILED
