"""The plan of the shards: what a scan of the source makes of it."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.cluster import Resources
from mmdata.corpora import open_corpus
from mmdata.crash import point
from mmdata.errors import Damage, NotFound
from mmdata.stages.duplicates import mark_duplicates
from mmdata.storage.dataset import Dataset
from mmdata.storage.plan import Plan, plan_table, whole_plan
from mmdata.storage.store import sha256
from mmdata.types import Modality, Reason


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan that is not written yet."""

    plan: Plan
    table: pa.Table
    data: bytes  # of `table`, as it is stored


def planned(
    dataset: Dataset, found: Plan | None, source: str, kind: str, options: dict[str, Any], resources: Resources
) -> Planned:
    """Scan the source. With `dedup` every sample is read, unless the scan is the one that `found` was made from."""
    open_source = partial(open_corpus, source, kind, options["columns"], options["salvage"], options["outside"])
    table, ignored = open_source().scan()
    point("plan.scanned")
    if options["shuffle"] is not None:
        table = table.take(np.random.default_rng(options["shuffle"]).permutation(table.num_rows))
    table = table.add_column(0, "id", pa.array(np.arange(table.num_rows, dtype=np.int64)))
    if options["dedup"] == "exact":
        wanted = tuple(Modality(name) for name in options["modalities"])
        before = _marked_before(dataset, found, table)
        table = mark_duplicates(table, open_source, wanted, resources) if before is None else before
    starts = _starts(table["bytes"].to_numpy(), options["samples_per_shard"], options["shard_size"])
    data = plan_table(table, starts)
    plan = Plan(
        source=source,
        kind=kind,
        options=options,
        samples=table.num_rows,
        shards=len(starts),
        ignored=ignored,
        sha256=sha256(data),
    )
    return Planned(plan, table, data)


def _marked_before(dataset: Dataset, found: Plan | None, table: pa.Table) -> pa.Table | None:
    """The table of `found`, where it is this one with the duplicates marked."""
    if found is None or found.options.get("dedup") != "exact":
        return None
    try:
        marked = whole_plan(dataset, found)
    except (NotFound, Damage):  # it is written again
        return None
    is_duplicate = pc.fill_null(pc.equal(marked["reason"], Reason.DUPLICATE.value), False)
    unmarked = marked
    for name in ("reason", "message"):
        column = pc.if_else(is_duplicate, pa.scalar(None, pa.string()), marked[name])
        unmarked = unmarked.set_column(unmarked.column_names.index(name), name, column)
    return marked if unmarked.equals(table) else None


def _starts(sizes: NDArray[np.int64], samples: int, limit: int) -> list[int]:
    """First rows of the shards: a shard ends before `samples` samples or `limit` bytes are passed."""
    starts, count, total = [0], 0, 0
    for row, size in enumerate(map(int, sizes)):
        if count and (count == samples or total + size > limit):
            starts.append(row)
            count = total = 0
        count, total = count + 1, total + size
    return starts
