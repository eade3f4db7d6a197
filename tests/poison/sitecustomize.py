"""Libraries with holes in them, for every process that has this folder in its PYTHONPATH.

What a JPEG's comment says becomes of the process that decodes it, and what a row of `poison.WIDTH` features says of one
that runs a head on it. $POISON_WORKERS names a function over which workers of Ray die: `faiss.serialize_index`, or
`hashlib.sha256` of bytes that hold poison. Controls are short, as each killer takes 36 of them. All else is as ever.
"""

import hashlib
import os
import sys
from collections.abc import Callable

import poison
import simplejpeg

import mmdata.cluster.task

WORKER = any("default_worker" in word for word in sys.orig_argv)
DEADLY = os.environ.get("POISON_WORKERS", "") if WORKER else ""


def _before(look: Callable[..., object], call: Callable[..., object]) -> Callable[..., object]:
    def looked(*arguments: object, **options: object) -> object:
        look(*arguments)
        return call(*arguments, **options)

    return looked


def _spoil(event: str, arguments: object) -> None:
    """torch and faiss, when they are there: most processes do not need them."""
    linear = getattr(sys.modules.get("torch.nn.modules.linear"), "Linear", None)
    if event == "import" and linear is not None and not hasattr(linear, "spoiled"):
        linear.forward, linear.spoiled = _before(lambda self, rows: poison.look(rows), linear.forward), True
    faiss = sys.modules.get("faiss")
    if event == "import" and DEADLY == "faiss.serialize_index" and hasattr(faiss, "serialize_index"):
        faiss.serialize_index = lambda index: poison.take(b"poison:segfault")


simplejpeg.decode_jpeg = _before(lambda data, *rest: poison.take(bytes(data[:200])), simplejpeg.decode_jpeg)
if DEADLY == "hashlib.sha256":
    hashlib.sha256 = _before(lambda data=b"", **options: poison.take(bytes(data[:200])), hashlib.sha256)
mmdata.cluster.task.LONGEST = 0.1
sys.addaudithook(_spoil)
