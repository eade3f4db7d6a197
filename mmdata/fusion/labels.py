"""Labels of a pack's rows: from its metadata, or from a table beside it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray
from pyarrow.csv import ConvertOptions
from torch import Tensor

from mmdata.errors import ConfigError
from mmdata.fusion.splits import Part, Parts
from mmdata.fusion.tasks import TASKS
from mmdata.storage.delimited import read_csv
from mmdata.storage.tables import concat

log = logging.getLogger(__name__)
NO_LABEL = ConvertOptions(strings_can_be_null=True, column_types={"key": pa.string()})  # "007" stays
READERS: dict[str, Callable[[str], pa.Table]] = {
    "csv": lambda path: read_csv(Path(path).read_bytes(), path, NO_LABEL),
    "jsonl": pyarrow.json.read_json,
    "parquet": pyarrow.parquet.read_table,
}


def read_labels(path: str) -> pa.Table:
    """A table of labels with a column `key`. ConfigError when it is none, or has a key twice.

    A csv has no label where a cell is empty, NA, NaN or null (as pandas reads it).
    """
    suffix = path.rpartition(".")[2]
    if suffix not in READERS:
        raise ConfigError(f"{path}: labels are a table that ends in .{', .'.join(READERS)}")
    try:
        table = READERS[suffix](path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if "key" not in table.column_names:
        raise ConfigError(f"{path} needs a column 'key'; it has: {', '.join(table.column_names)}")
    keys = _strings(table["key"], path)
    if keys.null_count:
        raise ConfigError(f"{path}: {keys.null_count} rows have no key (the cell is empty, or NA, NaN or null)")
    counts = pc.value_counts(keys.combine_chunks())
    for one in counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist():
        raise ConfigError(f"{path} has the key {one['values']!r} {one['counts']} times; a sample has one row")
    return table.set_column(table.column_names.index("key"), "key", keys)


def _strings(keys: pa.ChunkedArray, path: str) -> pa.ChunkedArray:
    kind = keys.type.value_type if pa.types.is_dictionary(keys.type) else keys.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise ConfigError(f"{path}: the keys are {keys.type}; strings are due")
    return keys.cast(kind).cast(pa.string())


def add_labels(rows: pa.Table, tables: Mapping[int, pa.Table]) -> pa.Table:
    """Rows with the columns of the table of their source, joined by key; they go over metadata of the same name."""
    if not tables:
        return rows
    sources = range(pc.max(rows["source"]).as_py() + 1)
    pieces = [(rows.filter(pc.equal(rows["source"], source)), tables.get(source)) for source in sources]
    return concat([piece if table is None else _joined(piece, table) for piece, table in pieces])


def _joined(rows: pa.Table, table: pa.Table) -> pa.Table:
    place = pc.index_in(rows["key"], table["key"])
    if place.null_count == len(rows):
        raise ConfigError(
            f"no key of the labels is the key of a sample: there {_first(table['key'])}, here {_first(rows['key'])}"
        )
    unknown = table["key"].filter(pc.invert(pc.is_in(table["key"], rows["key"])))
    if len(unknown):
        told = len(unknown), len(table), _first(unknown)
        log.warning("%d of %d rows of the labels have a key of no sample that has features: %s", *told)
    names = [name for name in table.column_names if name != "key"]
    rows = rows.drop_columns([name for name in names if name in rows.column_names])
    for name in names:
        rows = rows.append_column(name, table[name].take(place))
    return rows


def _first(keys: pa.ChunkedArray) -> str:
    return ", ".join(map(repr, keys[:2].to_pylist())) or "none"


def column(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of the rows; ConfigError that names the nearest one when it is not there."""
    if name in rows.column_names:
        return rows[name]
    near = get_close_matches(name, rows.column_names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(rows.column_names)}"
    raise ConfigError(f"the samples have no column {name!r}; {hint}")


def groups(rows: pa.Table, name: str) -> list[str]:
    """The value of a column for each row, its key where that is empty."""
    values = column(rows, name).cast(pa.string())
    return pc.coalesce(values, rows["key"]).to_pylist()  # type: ignore[no-any-return]


def encode(
    rows: pa.Table,
    columns: Mapping[str, tuple[str, str | None]],
    parts: Parts,
    seen: Sequence[Part],
    known: Mapping[str, Any],
) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """Facts and targets of each task: `columns` says its type and column, `known` the facts that are learned already.

    Only labels of the parts in `seen` are read, whatever else the table holds; facts are learned from train.
    """
    shown = np.zeros(len(rows), bool)
    for part in seen:
        shown[parts[part]] = True
    facts, targets = {}, {}
    for name, (type_, label) in columns.items():
        labels = column(rows, label) if label else rows["key"]
        labels = pc.if_else(_is_label(labels, shown), labels, pa.scalar(None, labels.type))
        _check_finite(rows, labels)
        task = TASKS[type_]
        try:
            facts[name] = known[name] if name in known else task.learn(labels.take(pa.array(parts[Part.TRAIN])))
            targets[name] = task.encode(labels, facts[name])
        except ConfigError as error:
            raise ConfigError(f"task {name!r}, column {label!r}: {error}") from error
    return facts, targets


def _check_finite(rows: pa.Table, labels: pa.ChunkedArray) -> None:
    endless = rows["key"].filter(pc.is_inf(labels)) if pa.types.is_floating(labels.type) else []
    if len(endless):
        raise ConfigError(f"{len(endless)} labels are infinite, as those of {_first(endless)}; leave the cells empty")


def strangers(rows: pa.Table, name: str, target: NDArray[np.int64], asked: NDArray[np.int64]) -> int:
    """How many of the rows `asked` have a class in the column `name` that the targets do not know."""
    given = np.array(pc.fill_null(_is_label(column(rows, name), np.ones(len(rows), bool)), False))
    given &= np.array(pc.is_valid(column(rows, name)))
    return int((given & (target < 0))[asked].sum())


def _is_label(labels: pa.ChunkedArray, shown: NDArray[np.bool_]) -> pa.Array:
    """Which labels may be read and are no NaN, which says that there is none."""
    if not pa.types.is_floating(labels.type):
        return pa.array(shown)
    return pc.and_(pa.array(shown), pc.invert(pc.is_nan(labels)))


def labelled(target: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows have a label: neither -1 nor NaN, `(n,)`."""
    found: NDArray[np.bool_] = (
        target >= 0 if target.dtype.kind == "i" else ~np.isnan(target).reshape(len(target), -1).any(1)
    )
    return found


def shots(target: Tensor, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most `count` of the rows of each class, drawn by `seed`."""
    mixed = np.random.default_rng([seed, count]).permutation(rows)
    classes = target.numpy()[mixed]
    chosen = [mixed[classes == one][:count] for one in np.unique(classes[classes >= 0])]
    return np.sort(np.concatenate(chosen))
