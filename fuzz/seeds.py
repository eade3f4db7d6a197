"""Files that are whole, small and of every kind, from which the fuzzer sets out: the makers of the tests."""

import io
import tarfile
from collections.abc import Callable

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from media_files import frames, heic, mp3, photo, png16, sideways, tiff, track
from tiny_files import RED, library_tar, picture, sound, tar

from mmdata.storage.features import card_to_json
from mmdata.storage.tables import to_parquet
from mmdata.types import EncoderCard, Modality


def _tars() -> list[bytes]:
    members = (("a.jpg", b"1" * 700), ("a.txt", b"ball"), ("x" * 150 + ".txt", b"2"))
    forms = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    return [tar(), tar(("a.txt", b"1"), ("b.txt", b"2")), library_tar(forms[0], *members[:2])] + [
        library_tar(form, *members) for form in forms[1:]
    ]


def _receipts() -> list[bytes]:
    facts = {
        "stage": "shard",
        "shard": "000000",
        "fingerprint": "f",
        "inputs": {"a": "b"},
        "outputs": {"000000.tar": {"bytes": 1, "sha256": "0"}},
        "rows_in": 2,
        "rows_out": 1,
        "absent": 0,
        "rejected": {"empty": 1},
        "repaired": {},
        "seconds": {"read": 0.1},
        "counters": {},
        "versions": {"mmdata": "0"},
    }
    return [orjson.dumps(facts), card_to_json(EncoderCard(Modality.TEXT, 8)), b"{}", b"[]", b"null"]


def _tables() -> list[bytes]:
    sink = io.BytesIO()
    pq.write_table(pa.table({"key": ["a", "b"], "image": [b"1", None], "text": ["x", "y"], "n": [[1], []]}), sink)
    struct = io.BytesIO()
    pq.write_table(pa.table({"image": [{"bytes": picture(), "path": None}, {"bytes": None, "path": "b.png"}]}), struct)
    csv = b'key,image,text\na,a.png,"one, two"\nb,,three\n'
    return [csv, b'{"key":"a","text":"one"}\n{"image":5}\n', sink.getvalue(), struct.getvalue()]


def _parquets() -> list[bytes]:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(8, dtype=np.float16)), 4)
    return [to_parquet(pa.table({"key": ["a", "b"], "embedding": vectors}), plain=["embedding"]), *_tables()[2:]]


def _images() -> list[bytes]:
    kinds = [picture(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")]
    more = [photo((16, 12), progressive=True), sideways(6, "JPEG"), heic((16, 12)), frames("GIF", RED, (0, 0, 0))]
    return [*kinds, *more, tiff(np.full((2, 2, 1), 0.4, np.float32)), png16(np.zeros((2, 2, 1), np.uint16))]


def _sounds() -> list[bytes]:
    short = [sound(kind, seconds=0.02) for kind in ("WAV", "FLAC", "OGG", "AIFF")]
    tracks = [track("ipod", "aac", seconds=0.05), track("matroska", "aac", seconds=0.05), track("adts", "aac")]
    return [*short, *tracks, mp3(0.1)]


def _texts() -> list[bytes]:
    return [b"a ball", "großer Ball ☃".encode(), "Ball".encode("utf-16"), "Ball".encode("utf-32"), b"\xef\xbb\xbfa"]


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "tar": _tars,
    "receipt": _receipts,
    "table": _tables,
    "parquet": _parquets,
    "image": _images,
    "audio": _sounds,
    "text": _texts,
}
