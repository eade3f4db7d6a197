"""Raw corpora to samples: a folder, a table, or WebDataset tars, local or in an object store.

A corpus is scanned once, by the driver, into a table with one row a sample, in an order that depends on
nothing but the source. Workers read their rows of that table.
"""

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from mmdata.errors import ConfigError
from mmdata.types import Outcome, Reason, Reject, Rejected, Sample

TABLE_SUFFIXES = ("csv", "tsv", "jsonl", "parquet")
SOURCES = f"a folder, a table (.{', .'.join(TABLE_SUFFIXES)}) or uncompressed tars (.tar, or a pattern as 'x-*.tar')"

PLANNED = [("key", pa.string()), ("source", pa.string()), ("bytes", pa.int64())]
PROBLEM = [("reason", pa.string()), ("message", pa.string())]
"""Columns of every scan: `bytes` is the size as far as it is known; `reason` marks a row that is no sample."""


TOGETHER = 10_000  # rows of a scan that go into Arrow at once


class Corpus(Protocol):
    def scan(self) -> tuple[pa.Table, dict[str, int]]:
        """One row a sample, and how many files of which suffix were no part of any."""

    def read(self, rows: pa.Table) -> Iterator[Sample | Reject]:
        """The samples of some rows of the scan (with the column `id` added), in order."""


KINDS = {
    "folder": "mmdata.corpora.folder",
    "table": "mmdata.corpora.table",
    "webdataset": "mmdata.corpora.webdataset",
}


def kind_of(source: str) -> str:
    """Which corpus a SOURCE is, by its name: a `.tar` or a pattern of tars, a table, else a folder.

    ConfigError for a file of another name.
    """
    suffix = source.rstrip("/").rpartition(".")[2].lower()
    if suffix == "tar":
        return "webdataset"
    if suffix in TABLE_SUFFIXES:
        return "table"
    if Path(source.removeprefix("file://")).is_file():
        raise ConfigError(f"{source} is a file; a SOURCE is {SOURCES}")
    return "folder"


def open_corpus(
    source: str, kind: str, columns: dict[str, str], salvage: bool = False, outside: bool = False
) -> Corpus:
    """The corpus at `source`. `columns` names the columns of a table that hold key, image, audio and text.

    With `salvage`, what is whole of damaged tars is taken. A table is data: it leads to files below its own folder
    alone, but with `outside`.
    """
    if kind not in KINDS:
        raise ConfigError(f"no corpus kind {kind!r}; there are: {', '.join(KINDS)}")
    if salvage and kind != "webdataset":
        raise ConfigError(f"--salvage is for tars, and {source} is a {kind}")
    module: Any = import_module(KINDS[kind])
    return module.open_corpus(source, columns, salvage, outside)  # type: ignore[no-any-return]


def left_out(row: dict[str, Any], problem: Rejected) -> Reject:
    """The reject of a whole row of a scan."""
    return Reject(row["id"], row["key"], row["source"], "", Outcome.REJECTED, problem.reason, problem.message)


def repaired(row: dict[str, Any], part: str, reason: Reason, message: str) -> Reject:
    """The note that one part of a row was left out and the others are kept."""
    return Reject(row["id"], row["key"], row["source"], part, Outcome.REPAIRED, reason, message)


def scan_table(rows: Iterable[dict[str, Any]], columns: list[tuple[str, pa.DataType]]) -> pa.Table:
    """A scan from its rows, which are taken one after the other: a row costs five times as much in Python as in Arrow.

    A key that comes twice is marked, so the second is a reject and not a second row.
    """
    seen: dict[str, str] = {}
    schema = pa.schema(PLANNED + columns + PROBLEM)
    batches, waiting = [], list[dict[str, Any]]()
    for row in rows:
        if row.get("reason") is None and seen.setdefault(row["key"], row["source"]) != row["source"]:
            row["reason"] = Reason.DUPLICATE_KEY.value
            row["message"] = f"the key is taken by {seen[row['key']]}"
        waiting.append(row)
        if len(waiting) == TOGETHER:
            batches.append(pa.RecordBatch.from_pylist(waiting, schema))
            waiting.clear()
    batches.append(pa.RecordBatch.from_pylist(waiting, schema))
    return pa.Table.from_batches(batches, schema).combine_chunks()
