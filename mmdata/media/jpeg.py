"""The fast way for JPEGs in RGB or grey: libjpeg-turbo straight into an array."""

from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from mmdata.types import Reason, Rejected

DAMAGE = "Corrupt JPEG data"  # how libjpeg's warnings about broken entropy coding begin
MIN_FACTOR = 2  # libjpeg scales by eighths, but 7/8 takes longer than the whole image


def decode_jpeg(data: bytes, min_side: int) -> NDArray[np.uint8] | None:
    """`(height, width, 3) uint8`, not yet upright, or None for what must be left to Pillow.

    Above 0, `min_side` lets an image be decoded at 1/2, 1/4 or 1/8 as long as no side falls below it.
    Rejected for broken data, which Pillow would show as a grey or shifted picture.
    """
    smaller = {"min_height": min_side, "min_width": min_side, "min_factor": MIN_FACTOR} if min_side else {}
    try:
        pixels: NDArray[Any] = simplejpeg.decode_jpeg(data, "RGB", **smaller)
    except ValueError as error:
        if str(error).startswith(DAMAGE):
            raise Rejected(Reason.DECODE_FAILED, str(error)) from error
        return None
    return pixels
