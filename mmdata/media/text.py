"""Text to str: UTF-8, or UTF-16 or UTF-32 where a byte order mark says so."""

import codecs

from mmdata.media import Decoded, Wish
from mmdata.types import Reason, Rejected

MAX_CHARS = 65536
MARKS = {  # the longer marks first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def decode(data: bytes, _: Wish) -> Decoded:
    """A `str` without NULs and outer white space, cut to 65,536 characters (a repair, `too_long`)."""
    codec = _codec(data)
    try:
        text = _clean(data.decode(codec))
    except UnicodeDecodeError as error:
        raise Rejected(
            Reason.BAD_TEXT, f"not {codec.removesuffix('-sig').upper()}: {error.reason} at byte {error.start}"
        ) from error
    if not text:
        raise Rejected(Reason.EMPTY, "the text has no characters")
    if len(text) > MAX_CHARS:
        return Decoded(text[:MAX_CHARS], (Reason.TOO_LONG,))
    return Decoded(text)


def caption(data: bytes, length: int) -> str:
    """The first `length` characters for people to read; what is not text becomes U+FFFD."""
    return _clean(data[: 8 * length].decode(_codec(data), "replace"))[:length]


def _codec(data: bytes) -> str:
    return next((codec for mark, codec in MARKS.items() if data.startswith(mark)), "utf-8-sig")


def _clean(text: str) -> str:
    return text.replace("\0", "").strip()
