"""Images to RGB: upright, on white, 8 bits a channel, first frame."""

import io
import re
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mmdata.media import Decoded
from mmdata.types import Reason, Rejected

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
MAX_PIXELS = 64_000_000
MAX_ASPECT = 200  # an encoder that resizes the shorter side to 256 pixels would need gigabytes beyond
SVG_SIDE = 512  # pixels of the longer side of a rasterised drawing; the other keeps its ratio
FOREIGN_REFERENCE = re.compile(rb"<(?:image|use|feImage)\b[^>]*?href\s*=\s*[\"'](?!#|data:)")

warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode(data: bytes) -> Decoded:
    """`(height, width, 3) uint8`. The size is read from the header before any pixel is."""
    if _is_svg(data):
        data = _rasterise(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.width, image.height)
            return Decoded(_rgb(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Rejected(Reason.DECODE_BOMB, str(error)) from error
    except UnidentifiedImageError as error:
        reason = Reason.DECODE_FAILED if data.startswith(BEGINNINGS) else Reason.UNSUPPORTED
        raise Rejected(reason, f"not a readable {', '.join(FORMATS)}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        cut = "truncated" in str(error) or isinstance(error, EOFError)
        raise Rejected(Reason.DECODE_TRUNCATED if cut else Reason.DECODE_FAILED, str(error)) from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Rejected(Reason.DECODE_BOMB, f"{width} x {height} pixels, limit {MAX_PIXELS}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise Rejected(Reason.DECODE_BOMB, f"{width} x {height} pixels, one side over {MAX_ASPECT} times the other")


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode in ("I", "F"):
        return _scaled(np.asarray(upright))
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        upright = Image.alpha_composite(white, rgba)
    return np.asarray(upright.convert("RGB"))


def _scaled(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Deep grey to 8 bits: 16-bit values divided by 257, others stretched from their minimum to their maximum."""
    values = grey.astype(np.float64)
    if not np.isfinite(values).all():
        raise Rejected(Reason.NONFINITE_INPUT, "the image has NaN or infinite pixels")
    low, high = (0.0, 65535.0) if values.min() >= 0 and 1 < values.max() <= 65535 else (values.min(), values.max())
    scaled = (values - low) * (255.0 / (high - low or 1.0))
    return np.repeat(scaled.round().astype(np.uint8)[:, :, None], 3, axis=2)


def _is_svg(data: bytes) -> bool:
    return data.lstrip()[:1] == b"<" and b"<svg" in data[:4096]


def _rasterise(data: bytes) -> bytes:
    if FOREIGN_REFERENCE.search(data):
        raise Rejected(Reason.UNSUPPORTED, "the SVG refers to another file, which is never opened")
    try:
        import resvg_py
    except ImportError as error:
        raise Rejected(Reason.UNSUPPORTED, "SVG needs a rasteriser: pip install 'mmdata[svg]'") from error
    try:
        drawn = resvg_py.svg_to_bytes(svg_string=data.decode(), width=SVG_SIDE, height=SVG_SIDE, skip_system_fonts=True)
    except (ValueError, UnicodeDecodeError) as error:
        raise Rejected(Reason.DECODE_FAILED, f"not a drawable SVG: {error}") from error
    return bytes(drawn)
