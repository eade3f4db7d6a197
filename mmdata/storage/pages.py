"""The values of a Parquet column straight from its pages.

Arrow decodes two levels a number of a list column, which is most of the time that reading vectors takes. Ours are
neither compressed nor encoded and have no nulls, so a page is its levels and then the numbers as they are.
Layout: https://github.com/apache/parquet-format (Thrift's compact protocol, DataPageHeader).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmdata.errors import Damage

DATA_PAGE, PLAIN, RLE = 0, 0, 3
KIND, SIZE, DATA = 1, 3, 5  # fields of a page header
VALUES, ENCODING, DEFINITIONS, REPETITIONS = 1, 2, 3, 4  # fields of a data page header


def plain_values(data: bytes, about: pq.FileMetaData, leaf: str, dtype: str, where: str) -> NDArray[Any] | None:
    """All numbers of the column `leaf`, `(n,)`, one copy; None where it is stored in any other way.

    `data` has been compared with its hash: the checksums of pages are not looked at. Damage when a page is not whole.
    """
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    place = [about.schema.column(number).path for number in range(len(about.schema))].index(leaf)
    column = about.schema.column(place)
    levels = (column.max_repetition_level > 0) + (column.max_definition_level > 0)
    chunks = [group.column(place) for group in groups]
    if any(chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page for chunk in chunks):
        return None
    count = sum(chunk.num_values for chunk in chunks)
    if not 0 <= count * np.dtype(dtype).itemsize <= len(data):  # no room is made for what is only claimed
        return None
    found = np.empty(count, dtype)
    at = 0
    try:
        for chunk in chunks:
            for count, values in _pages(memoryview(data), chunk, levels):
                if values is None or len(values) != count * found.itemsize:  # nulls, or another encoding
                    return None
                found[at : at + count] = np.frombuffer(values, dtype)
                at += count
    except (IndexError, KeyError, ValueError) as error:
        raise Damage(f"{where} is damaged: a page of {leaf} cannot be read: {error}") from error
    return found


def _pages(data: memoryview, chunk: pq.ColumnChunkMetaData, levels: int) -> Iterator[tuple[int, memoryview | None]]:
    """How many numbers each page says it has, and their bytes; None in place of those that are encoded."""
    at, left = chunk.data_page_offset, chunk.num_values
    while left > 0:
        header, at = _struct(data, at)
        body = data[at : at + header[SIZE]]
        if len(body) != header[SIZE]:
            raise ValueError(f"it ends after {len(body)} of {header[SIZE]} bytes")
        page = header[DATA] if header[KIND] == DATA_PAGE else {}
        plain = page and (page[ENCODING], page[DEFINITIONS], page[REPETITIONS]) == (PLAIN, RLE, RLE)
        if not plain:
            yield 0, None
            return
        yield page[VALUES], _behind_levels(body, levels)
        left -= page[VALUES]
        at += header[SIZE]


def _behind_levels(body: memoryview, levels: int) -> memoryview:
    for _ in range(levels):
        body = body[4 + int.from_bytes(body[:4], "little") :]
    return body


def _struct(data: memoryview, at: int) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol by field number, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _zigzag(data, at)
        fields[number], at = _value(data, at, head & 15)
    return fields, at + 1


def _value(data: memoryview, at: int, kind: int) -> tuple[Any, int]:
    if kind in (1, 2):  # a boolean is its kind
        return kind == 1, at
    if kind in (4, 5, 6):
        return _zigzag(data, at)
    if kind == 8:
        size, at = _varint(data, at)
        return bytes(data[at : at + size]), at + size
    if kind == 12:
        return _struct(data, at)
    raise ValueError(f"a page header has a field of kind {kind}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
        shift += 7


def _zigzag(data: memoryview, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
