"""Parquet as bytes: page checksums always, deterministic, and metadata that fits any corpus."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.errors import Damage
from mmdata.types import Modality

BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What Arrow raises on a Parquet file that is none, or is damaged."""
MOST_ROWS = 1 << 24  # of a row group; ours have 65,536, and the defaults of others are about a million
PART_COLUMNS = ("suffix", "offset", "size", "sha256")
RESERVED = frozenset(
    {"id", "key", "source", "member", "caption", "embedding", "tokens", "start", "end", "shard", "score", "rank"}
    | {f"{part}_{column}" for part in [*Modality, "json"] for column in PART_COLUMNS}
)
"""Columns of our own, which a metadata field cannot take."""


def to_parquet(table: pa.Table, *, plain: Sequence[str] = (), row_group_size: int = 65536) -> bytes:
    """A Parquet file. Columns in `plain` get no dictionary, no compression and no statistics (vectors)."""
    names = _leaf_columns(table.schema, plain)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=row_group_size,
        compression={leaf: "NONE" if column in plain else "ZSTD" for leaf, column in names.items()},
        use_dictionary=[leaf for leaf, column in names.items() if column not in plain],
        write_statistics=[leaf for leaf, column in names.items() if column not in plain],
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def _leaf_columns(schema: pa.Schema, plain: Sequence[str]) -> dict[str, str]:
    """Parquet's name of each column's leaf, and the column: lists add a step for each level."""
    return {_leaf(field.name, field.type) if field.name in plain else field.name: field.name for field in schema}


def _leaf(name: str, kind: pa.DataType) -> str:
    nested = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    return _leaf(f"{name}.list.element", kind.value_type) if nested else name


def from_parquet(data: bytes, where: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table written by `to_parquet`; Damage, naming `where`, when a page fails its checksum.

    In this thread alone: with `pq.read_table` one of Arrow's threads may still hold the bytes when the
    interpreter ends, which now and then aborts the process.
    """
    try:
        file = open_parquet(pa.BufferReader(data))
        return file.read(columns=list(columns) if columns else None, use_threads=False)
    except BROKEN as error:
        raise Damage(f"{where} is damaged: {error}") from error


def open_parquet(source: Any) -> pq.ParquetFile:
    """A Parquet file whose pages are checked. Raises one of `BROKEN` for a file that is none, or that claims too much.

    Arrow makes room for as many rows as a row group says it has, before it looks for them.
    """
    file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False)
    about = file.metadata
    rows = [about.row_group(number).num_rows for number in range(about.num_row_groups)]
    if sum(rows) != about.num_rows or any(not 0 <= count <= MOST_ROWS for count in rows):
        raise pa.ArrowInvalid(f"its row groups claim {sum(rows)} rows, the file {about.num_rows}")
    return file


def metadata_columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, pa.Array]:
    """One column a metadata field; nested values and fields of mixed type become JSON strings.

    A field named like one of our own columns gets an underscore behind its name, and so does one that is
    named like that with underscores already: no two fields meet, in no shard.
    """
    records = list(rows)
    names = sorted({name for record in records for name in record})
    return {
        name + "_" if name.rstrip("_") in RESERVED else name: _column([r.get(name) for r in records]) for name in names
    }


def _column(values: list[Any]) -> pa.Array:
    if all(isinstance(value, str | int | float | bool | None) for value in values):
        try:
            column = pa.array(values)
        except (pa.ArrowException, OverflowError):
            column = None
        if column is not None:
            return column
    return pa.array([None if v is None else v if isinstance(v, str) else as_json(v) for v in values], pa.string())


def as_json(value: Any) -> str:
    """Compact JSON with sorted keys, so equal values give equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str).decode()


def concat(tables: Sequence[pa.Table]) -> pa.Table:
    """Stack tables whose metadata columns may differ; a column of mixed types becomes strings."""
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for column in table.schema:
            kinds.setdefault(column.name, set()).add(column.type)
    for name, types in kinds.items():
        types.discard(pa.null())
        if len(types) > 1 and not all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in types):
            tables = [_as_string(table, name) for table in tables]
    return pa.concat_tables(tables, promote_options="permissive")


def _as_string(table: pa.Table, name: str) -> pa.Table:
    if name not in table.column_names:
        return table
    place = table.column_names.index(name)
    values = [None if v is None else v if isinstance(v, str) else as_json(v) for v in table[name].to_pylist()]
    return table.set_column(place, name, pa.array(values, pa.string()))
