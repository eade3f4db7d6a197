"""What is fuzzed takes every whole file, and what fuzzing has found stays found. `make fuzz` looks for more."""

import io
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from tiny_files import tar

from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS
from mmdata.storage.tables import to_parquet


def broken_page() -> bytes:
    """A Parquet file whose column of bytes cannot be read, and whose other columns can."""
    data = bytearray(SEEDS["table"]()[2])
    start = pq.read_metadata(io.BytesIO(data)).row_group(0).column(1).data_page_offset
    data[start : start + 6] = b"\xff" * 6
    return bytes(data)


def claiming_rows() -> bytes:
    """Arrow would take 34 GB for them."""
    data = to_parquet(pa.table({"text": ["a"] * 77}))
    footer = data.rindex(b"PAR1") - 4 - int.from_bytes(data[-8:-4], "little")
    head, tail = data[:footer], data[footer:]
    claims = tail.replace(b"\x16\x9a\x01", b"\x16" + varint(2 * 12_593_329_790))
    return head + claims[:-8] + (len(claims) - 8).to_bytes(4, "little") + b"PAR1"


def varint(number: int) -> bytes:
    """As Thrift writes a number, seven bits a byte."""
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


FOUND = {
    "receipt: null is no card": ("receipt", b"null"),
    "tar: the padding of the last member is cut": ("tar", tar(("a.jpg", b"1" * 700))[: 512 + 700 + 39]),
    "parquet: a column whose name is not UTF-8": (
        "parquet",
        to_parquet(pa.table({"key": ["a"]})).replace(b"key", b"k\x8ey"),
    ),
    "parquet: a row group that claims twelve billion rows": ("parquet", claiming_rows()),
    "table: a row group that claims twelve billion rows": ("table", claiming_rows()),
    "table: a page of bytes is broken": ("table", broken_page()),
    "table: a column whose name is not UTF-8": (
        "table",
        to_parquet(pa.table({"text": ["a"]})).replace(b"text", b"t\x8ext"),
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_every_whole_file_passes(name):
    for seed in SEEDS[name]():
        TARGETS[name](seed)


@pytest.mark.parametrize(("target", "data"), FOUND.values(), ids=FOUND.keys())
def test_what_was_found_stays_mended(target, data):
    TARGETS[target](data)
