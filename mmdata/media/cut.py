"""Whether a container says of itself that its end is missing. The readers stop at an early end without a word."""

import struct
from collections.abc import Callable

BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # what an mp4, m4a or mov begins with
EBML, SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"  # Matroska: its header, and the element that holds all the rest


def is_cut(data: bytes) -> bool:
    if data[4:8] in BOXES:
        return _boxes(data)
    check = CHECKS.get(data[:4])
    return check is not None and check(data)


def _riff(data: bytes) -> bool:
    if len(data) < 12:
        return True
    declared = struct.unpack("<I", data[4:8])[0]
    return bool(declared != 0xFFFFFFFF and declared + 8 > len(data) + 1)


def _ogg(data: bytes) -> bool:
    page = data[data.rfind(b"OggS") :]
    if len(page) < 27:  # bytes of a page's header: flags at 5, number of segments at 26, then their sizes
        return True
    is_last = bool(page[5] & 4)  # the last page carries the end-of-stream flag
    return not is_last or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _boxes(data: bytes) -> bool:
    """ISO/IEC 14496-12, 4.2: size and kind; a size of 1 is followed by a long one, 0 means to the end of the file."""
    place = 0
    while place + 16 <= len(data) and data[place + 4 : place + 8].isalnum():
        size = int.from_bytes(data[place : place + 4], "big")
        size = int.from_bytes(data[place + 8 : place + 16], "big") if size == 1 else size
        if size < 8:
            return False
        place += size
    return place > len(data)


def _matroska(data: bytes) -> bool:
    """RFC 8794: an element is an id, a size of 1 to 8 bytes, and the content. All ones is an unknown size."""
    start, size = _ebml_size(data, len(EBML))
    segment = start + size
    if data[segment : segment + 4] != SEGMENT:
        return True
    start, size = _ebml_size(data, segment + 4)
    width = start - segment - 4
    return size != (1 << 7 * width) - 1 and start + size > len(data)


def _ebml_size(data: bytes, place: int) -> tuple[int, int]:
    """Where the content starts, and its size."""
    first = int.from_bytes(data[place : place + 1], "big")
    width = 9 - first.bit_length()  # leading zeros tell how many bytes the number has
    number = int.from_bytes(data[place : place + width], "big")
    return place + width, number & ((1 << 7 * width) - 1)


CHECKS: dict[bytes, Callable[[bytes], bool]] = {b"RIFF": _riff, b"OggS": _ogg, EBML: _matroska}
