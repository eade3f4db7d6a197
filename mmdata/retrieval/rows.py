"""The rows behind the ids of an index: an Arrow file that is mapped, not read, so that it opens at once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.errors import Damage
from mmdata.storage.tables import concat

ROWS = "rows.arrow"
BATCH = 1 << 17  # rows of a record batch: few, so that opening is quick; small enough to be written one by one
HEAVY = ("embedding", "tokens")


def about(table: pa.Table, shard: str) -> pa.Table:
    """What an index keeps of a shard of features: everything but the vectors, and the shard's name."""
    light = table.drop_columns([name for name in HEAVY if name in table.column_names]).replace_schema_metadata(None)
    return light.append_column("shard", pa.array([shard] * len(light), pa.string()))


def write_rows(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write tables whose metadata may differ as one; a batch is in memory at a time."""
    rows = concat(tables)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        for start in range(0, len(rows), BATCH):
            writer.write_table(rows.slice(start, BATCH).combine_chunks())


def open_rows(path: Path) -> pa.Table:
    """The table, on the disk until a part of it is asked for. Damage when it is none."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise Damage(f"{path} is damaged: {error}") from error


def take(rows: pa.Table, numbers: NDArray[np.int64]) -> pa.Table:
    """Rows by their numbers, in this order. Only they are touched: `Table.take` copies whole columns of text."""
    batches = [batch for batch in rows.to_batches() if len(batch)]
    if not len(numbers) or not batches:
        return rows.slice(0, 0)
    starts = np.cumsum([0, *(len(batch) for batch in batches)])
    homes = np.searchsorted(starts, numbers, side="right") - 1
    order = np.argsort(homes, kind="stable")
    pieces = [batches[home].take(pa.array(numbers[homes == home] - starts[home])) for home in np.unique(homes)]
    return pa.Table.from_batches(pieces).combine_chunks().take(pa.array(np.argsort(order, kind="stable")))


def to_bytes(table: pa.Table) -> bytes:
    """The table of one part."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_bytes(data: bytes) -> pa.Table:
    """What `to_bytes` wrote."""
    return pa.ipc.open_file(pa.BufferReader(data)).read_all()


def blank(rows: pa.Table, dead: NDArray[np.bool_]) -> pa.Table:
    """The rows with every value of the dead ones gone."""
    keep = pa.array(~dead)
    columns = [pc.if_else(keep, column, pa.scalar(None, column.type)) for column in rows.columns]
    return pa.table(dict(zip(rows.column_names, columns, strict=True)))
