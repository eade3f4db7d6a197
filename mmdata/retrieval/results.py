"""What a search found: scores and ids as arrays, and hits made of them when they are asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from mmdata.retrieval.rows import take
from mmdata.retrieval.vector_index import Floats, Ids
from mmdata.types import Hit

OWN = ("id", "key", "shard", "member", "caption", "start", "end")
COLUMNS = ("id", "key", "shard", "member", "start", "end")  # of a table of hits


@dataclass(frozen=True, slots=True)
class Results:
    """The hits of n queries, best first: `results[i]` are those of query i, `len(results)` is n.

    `scores` and `ids` are `(n, k)`; query i has `counts[i]` hits, and what lies behind them means nothing.
    """

    scores: Floats
    ids: Ids
    counts: Ids
    rows: pa.Table

    def __len__(self) -> int:
        return len(self.counts)

    def __iter__(self) -> Iterator[list[Hit]]:
        inside = np.arange(self.ids.shape[1]) < self.counts[:, None]
        records = iter(take(self.rows, self.ids[inside]).to_pylist())  # of all queries at once
        for scores, count in zip(self.scores, self.counts, strict=True):
            yield _hits(scores[:count], list(islice(records, int(count))))

    def __getitem__(self, query: int) -> list[Hit]:
        count = self.counts[query]
        return _hits(self.scores[query, :count], take(self.rows, self.ids[query, :count]).to_pylist())

    def to_table(self, first: int = 0) -> pa.Table:
        """A row a hit: query (numbered from `first`), rank, score, and id, key, shard, member and window."""
        inside = np.arange(self.ids.shape[1]) < self.counts[:, None]
        query, place = np.nonzero(inside)
        names = [name for name in COLUMNS if name in self.rows.column_names]
        found = take(self.rows.select(names), self.ids[inside])
        own = {"query": query + first, "rank": place + 1, "score": self.scores[inside]}
        return pa.table({**own, **dict(zip(names, found.columns, strict=True))})


def _hits(scores: Floats, records: Sequence[dict[str, Any]]) -> list[Hit]:
    return [
        _hit(rank, float(score), record) for rank, (score, record) in enumerate(zip(scores, records, strict=True), 1)
    ]


def _hit(rank: int, score: float, record: dict[str, Any]) -> Hit:
    window = (record["start"], record["end"]) if record.get("start") is not None else None
    return Hit(
        rank=rank,
        score=score,
        id=record["id"],
        key=record["key"],
        shard=record["shard"],
        member=record["member"],
        caption=record["caption"] or "",
        metadata={name: value for name, value in record.items() if name not in OWN and value is not None},
        window=window,
    )
