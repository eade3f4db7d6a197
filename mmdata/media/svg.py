"""Drawings in SVG to PNG."""

import re

from mmdata.types import Reason, Rejected

SIDE = 512  # pixels of the longer side of a rasterised drawing; the other keeps its ratio
FOREIGN_REFERENCE = re.compile(rb"<(?:image|use|feImage)\b[^>]*?href\s*=\s*[\"'](?!#|data:)")


def is_svg(data: bytes) -> bool:
    return data[:4096].lstrip()[:1] == b"<" and b"<svg" in data[:4096]


def rasterise(data: bytes) -> bytes:
    """The bytes of a PNG. Rejected without `resvg-py`, for a drawing that opens other files, and for a broken one."""
    if FOREIGN_REFERENCE.search(data):
        raise Rejected(Reason.UNSUPPORTED, "the SVG refers to another file, which is never opened")
    try:
        import resvg_py
    except ImportError as error:
        raise Rejected(Reason.UNSUPPORTED, "SVG needs a rasteriser: pip install 'mmdata[svg]'") from error
    try:
        drawn = resvg_py.svg_to_bytes(svg_string=data.decode(), width=SIDE, height=SIDE, skip_system_fonts=True)
    except (ValueError, UnicodeDecodeError) as error:
        raise Rejected(Reason.DECODE_FAILED, f"not a drawable SVG: {error}") from error
    return bytes(drawn)
