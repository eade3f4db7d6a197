"""The samples behind the hits: by number, their parts straight from the tar."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmdata.errors import NotFound
from mmdata.storage.dataset import SHARDS, Dataset
from mmdata.storage.plan import TABLE
from mmdata.storage.receipts import read_receipts
from mmdata.storage.shards import metadata_names, read_sample_table
from mmdata.types import Modality

TABLES = 32  # sample tables that are kept
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a part lie."""

    shard: str
    suffix: str
    offset: int
    size: int
    sha256: str


class Collection:
    """The shards of a dataset as one list of samples. Safe to use from several threads."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._receipts = read_receipts(dataset.store, SHARDS)
        self._starts = self._first_ids()
        self._table = lru_cache(TABLES)(lambda shard: read_sample_table(dataset, self._receipts[shard]))

    def _first_ids(self) -> list[int]:
        """Of each shard: a row group of the plan is a shard, and a sample's id its row."""
        if not self._receipts:
            return []
        with self.dataset.store.open(TABLE) as file:
            footer = pq.read_metadata(file)
        sizes = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
        return [0, *accumulate(sizes)]

    def __bool__(self) -> bool:
        return bool(self._receipts)

    def find(self, sample: int) -> tuple[str, dict[str, Any], list[str]]:
        """The shard of a sample, its row of the sample table, and which of its columns are metadata.

        NotFound when there is none of this number, or it was left out.
        """
        shard = f"{bisect_right(self._starts, sample) - 1:06d}"
        if not self._starts or not 0 <= sample < self._starts[-1] or shard not in self._receipts:
            raise NotFound(f"there is no sample {sample}")
        table: pa.Table = self._table(shard)
        rows = table.filter(pc.equal(table["id"], sample)).to_pylist()
        if not rows:
            raise NotFound(f"sample {sample} was left out; mmdata rejects says why")
        return shard, rows[0], metadata_names(table)

    def place(self, sample: int, modality: Modality) -> Place:
        """Where a part lies. NotFound when the sample has none of this modality."""
        shard, row, _ = self.find(sample)
        suffix = row[f"{modality}_suffix"]
        if suffix is None:
            raise NotFound(f"sample {sample} has no {modality}")
        return Place(shard, suffix, *(row[f"{modality}_{column}"] for column in ("offset", "size", "sha256")))

    def read(self, place: Place, start: int, size: int) -> memoryview:
        """Bytes of a part, `size` from `start`."""
        return self.dataset.store.read_range(f"{SHARDS}/{place.shard}.tar", place.offset + start, size)

    def chunks(self, place: Place, start: int, stop: int) -> Iterator[memoryview]:
        """The same, piece by piece."""
        for first in range(start, stop, CHUNK):
            yield self.read(place, first, min(CHUNK, stop - first))
