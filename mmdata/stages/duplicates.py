"""Samples with the very bytes of an earlier one: counted always, left out when asked."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmdata.cluster import Resources, run
from mmdata.corpora import Corpus
from mmdata.storage.dataset import Dataset
from mmdata.storage.shards import read_sample_table
from mmdata.storage.store import sha256
from mmdata.storage.tables import as_json
from mmdata.types import Modality, Reason, Receipt, Sample

CHUNK = 1000  # samples that a worker reads at once


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of the plan that are hashed together."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"samples {self.start} to {self.end - 1} of the source"


def count_duplicates(dataset: Dataset, receipts: dict[str, Receipt]) -> int:
    """How many samples have the very parts of an earlier one."""
    seen: set[tuple[Any, ...]] = set()
    samples = 0
    for receipt in receipts.values():
        table = read_sample_table(dataset, receipt)
        columns = [table[f"{modality}_sha256"].to_pylist() for modality in Modality]
        seen.update(zip(*columns, strict=True))
        samples += table.num_rows
    return samples - len(seen)


def mark_duplicates(table: pa.Table, corpus: Any, modalities: tuple[Modality, ...], resources: Resources) -> pa.Table:
    """Read every sample once and mark those whose wanted parts are those of an earlier one."""
    chunks = [Chunk(start, min(start + CHUNK, table.num_rows)) for start in range(0, table.num_rows, CHUNK)]
    digests: dict[int, str] = {}
    setup = partial(_hash_setup, corpus, table, modalities)
    for ended in run(setup, _hash_chunk, chunks, resources, name="looking for duplicates"):
        if ended.error is not None:
            raise ended.error
        digests |= ended.result or {}
    first: dict[str, str] = {}
    reasons, messages = table["reason"].to_pylist(), table["message"].to_pylist()
    keys = table["key"].to_pylist()
    for row in sorted(digests):
        earlier = first.setdefault(digests[row], keys[row])
        if earlier != keys[row]:
            reasons[row], messages[row] = Reason.DUPLICATE.value, f"the same bytes as {earlier!r}"
    for name, values in (("reason", reasons), ("message", messages)):
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    return table


def _hash_setup(
    corpus: Any, table: pa.Table, modalities: tuple[Modality, ...]
) -> tuple[Corpus, pa.Table, tuple[Modality, ...]]:
    return corpus(), table, modalities


def _hash_chunk(state: tuple[Corpus, pa.Table, tuple[Modality, ...]], chunk: Chunk) -> dict[int, str]:
    corpus, table, modalities = state
    rows = table.slice(chunk.start, chunk.end - chunk.start)
    rows = rows.filter(pc.is_null(rows["reason"]))
    digests = {}
    for sample in corpus.read(rows):
        if isinstance(sample, Sample) and (wanted := [m for m in modalities if m in sample.parts]):
            digests[sample.id] = as_json({m: sha256(sample.parts[m].data) for m in wanted})
    return digests
