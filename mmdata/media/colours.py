"""Any mode of Pillow to 8-bit RGB."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms

from mmdata.types import Reason, Rejected

FULL_SCALES = (1, 255, 65535)  # what white is in images of floats or of 32-bit integers
INTENT, FLAGS = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # tag of TIFF 6.0 and its value for a negative

Repaired = tuple[NDArray[np.uint8], tuple[Reason, ...]]


def to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Repaired:
    """`(height, width, 3) uint8` and what was changed: transparency on `background`, deep grey scaled, CMYK to sRGB."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        is_negative = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
        return _grey(((65535 - values if is_negative else values) + 128) // 257), ()
    if image.mode in ("I", "F"):
        return _scaled(np.asarray(image))
    if image.mode == "CMYK":
        return _from_cmyk(image)
    if image.has_transparency_data:
        below = Image.new("RGBA", image.size, background)
        below.alpha_composite(image.convert("RGBA"))
        image = below
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), ()


def _grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


def _scaled(values: NDArray[Any]) -> Repaired:
    """By the smallest usual full scale that holds the values, else from minimum to maximum; nothing is clipped."""
    if not np.isfinite(values).all():
        raise Rejected(Reason.NONFINITE_INPUT, "the image has NaN or infinite pixels")
    low, high = float(values.min()), float(values.max())
    scale = next((scale for scale in FULL_SCALES if low >= 0 and high <= scale), None)
    if scale is not None:
        return _grey(np.rint(values * (255 / scale))), ()
    return _grey(np.rint((values - low) * (255 / (high - low or 1)))), (Reason.RESCALED,)


def _from_cmyk(image: Image.Image) -> Repaired:
    """Through the profile that the file carries; without one as 255 - ink, the way every viewer does it.

    Pillow takes every JPEG for Adobe's inverted kind, but one without Adobe's segment is not.
    """
    profile = image.info.get("icc_profile")
    if image.format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)
    if not profile:
        return np.asarray(image.convert("RGB")), ()
    try:
        inks = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        through = ImageCms.profileToProfile(image, inks, srgb, INTENT, outputMode="RGB", flags=FLAGS)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return np.asarray(image.convert("RGB")), (Reason.BAD_METADATA,)
    return np.asarray(through), ()
