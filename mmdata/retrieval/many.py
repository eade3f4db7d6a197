"""A file of many queries to a Parquet of their hits, a batch in memory at a time."""

from pathlib import Path

import pyarrow.parquet as pq

from mmdata.retrieval.ask import Narrowed
from mmdata.retrieval.query import batches
from mmdata.retrieval.search import Index
from mmdata.storage.store import translated

BATCH = 4096  # queries


def search_file(index: Index, queries: Path, hits: Path, narrowed: Narrowed) -> tuple[int, int]:
    """Write the hits of every query of an .npy or Parquet file; how many queries and hits there were.

    A row a hit: `query` (its number in the file), `rank`, `score`, and id, key, shard, member and window. The file
    appears whole or not at all, in a folder that is made. StorageError when it cannot be written.
    """
    with translated(str(hits)):
        hits.parent.mkdir(parents=True, exist_ok=True)
        return _search_file(index, queries, hits, narrowed)


def _search_file(index: Index, queries: Path, hits: Path, narrowed: Narrowed) -> tuple[int, int]:
    asked = found = 0
    part = hits.with_name(hits.name + ".part")
    writer: pq.ParquetWriter | None = None
    try:
        for rows in batches(queries, index.card, BATCH):
            table = narrowed.search(index, rows).to_table(first=asked)
            writer = writer or pq.ParquetWriter(part, table.schema, compression="ZSTD", write_page_checksum=True)
            writer.write_table(table)
            asked, found = asked + len(rows), found + len(table)
        if writer is not None:
            writer.close()
            part.replace(hits)
    finally:
        part.unlink(missing_ok=True)
    return asked, found
