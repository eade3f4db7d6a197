"""A table (csv, tsv, jsonl, Parquet) whose columns hold paths, bytes, the HF struct {bytes, path}, or text."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.csv import ConvertOptions

from mmdata.corpora import TOGETHER, left_out, scan_table
from mmdata.corpora.files import check_below, matches, read_reference, suffix_of
from mmdata.errors import ConfigError, Damage, NotFound
from mmdata.storage.delimited import json_lines, read_csv
from mmdata.storage.store import FileInfo, Store
from mmdata.storage.tables import BROKEN, as_json, open_parquet
from mmdata.types import SUFFIXES, Modality, Part, Reason, Reject, Rejected, Sample

GUESSES = {
    "key": ("key", "id", "__key__", "uid"),
    "image": ("image", "image_path", "img", "jpg", "png", "file_name", "picture"),
    "audio": ("audio", "audio_path", "sound", "wav"),
    "text": ("text", "caption", "txt", "sentence", "description"),
}
MEDIA = (Modality.IMAGE, Modality.AUDIO)
COLUMNS = [
    ("table", pa.string()),
    ("table_version", pa.string()),
    ("row_group", pa.int64()),
    ("row", pa.int64()),
    *[(f"{m}_path", pa.string()) for m in MEDIA],
    ("text", pa.string()),
    ("metadata", pa.string()),
]


@dataclass(frozen=True, slots=True)
class _Group:
    """Some rows of a table: a row group of Parquet, or all of a text table. `records` can be taken once."""

    number: int
    names: list[str]
    records: Iterable[dict[str, Any]]
    heavy: frozenset[str]  # columns of bytes, which are not in `records`: they are read with their sample
    cell_bytes: int  # of one row


class Table:
    def __init__(self, url: str, pattern: str, columns: dict[str, str], outside: bool) -> None:
        self.store = Store(url)
        self.pattern = pattern
        self.columns = columns
        self.outside = outside

    def scan(self) -> tuple[pa.Table, dict[str, int]]:
        """Reads everything but bytes. ConfigError when no column holds an image, a sound or a text."""
        infos = [info for info in self.store.list_here() if matches(info.path, self.pattern)]
        if not infos:
            raise NotFound(f"no table matches {self.store.where(self.pattern)}")
        ignored: Counter[str] = Counter()
        table = scan_table(self._all_rows(infos, ignored), COLUMNS)
        if not table.num_rows:
            raise NotFound(f"{self.store.where(self.pattern)} has no rows")
        return table, dict(sorted(ignored.items()))

    def _all_rows(self, infos: list[FileInfo], ignored: Counter[str]) -> Iterator[dict[str, Any]]:
        for info in infos:
            prefix = info.path.rpartition(".")[0] + "/" if len(infos) > 1 else ""
            for group in self._groups(info.path):
                base = {"table": info.path, "table_version": info.version, "row_group": group.number}
                yield from self._rows(group, base, prefix, ignored)

    def _groups(self, path: str) -> Iterator[_Group]:
        if not _is_parquet(path):
            yield _text_table(self.store.read(path), self.store.where(path), self.columns)
            return
        with self.store.open(path) as file:
            parquet = _open_parquet(file, self.store.where(path))
            schema = parquet.schema_arrow
            heavy = frozenset(field.name for field in schema if _holds_bytes(field.type))
            for number in range(parquet.metadata.num_row_groups):
                meta = parquet.metadata.row_group(number)
                light = [name for name in schema.names if name not in heavy]
                table = _row_group(parquet, number, light, self.store.where(path))
                records = _records(table) if table.num_columns else [{}] * meta.num_rows
                yield _Group(number, schema.names, records, heavy, meta.total_byte_size // max(1, meta.num_rows))

    def _rows(
        self, group: _Group, base: dict[str, Any], prefix: str, ignored: Counter[str]
    ) -> Iterator[dict[str, Any]]:
        if not group.names:
            return
        roles = _roles(group.names, group.heavy, self.columns)
        unread = [f"column {name} (bytes)" for name in sorted(group.heavy - set(roles.values()))]
        other = [n for n in group.names if n not in group.heavy and n not in roles.values()]
        for number, record in enumerate(group.records):
            ignored.update([*unread, *_not_taken(record, other, roles)])
            key = record.get(roles.get("key", ""))
            row = base | {"row": number, "source": f"{base['table']}:{group.number}:{number}"}
            row["key"] = f"{prefix}{group.number:03d}{number:06d}" if key in (None, "") else str(key)
            try:
                row["text"] = _as_text(record.get(roles.get("text", "")))
                row |= {f"{m}_path": self._path(m, record.get(roles.get(m, ""))) for m in MEDIA}
            except Rejected as problem:
                row |= {"reason": problem.reason.value, "message": problem.message}
            row["bytes"] = group.cell_bytes + len(row.get("text") or "")
            row["metadata"] = as_json({n: record[n] for n in other if record.get(n) is not None})
            yield row

    def _path(self, modality: Modality, cell: Any) -> str | None:
        path = _as_path(modality, cell)
        if not self.outside:
            check_below(self.store, path)
        return path

    def read(self, rows: pa.Table) -> Iterator[Sample | Reject]:
        """Reads the cells or files of each row, one row group of bytes at a time."""
        cells: dict[str, Any] = {}
        current: tuple[Any, ...] = ()
        for row in rows.to_pylist():
            place = (row["table"], row["row_group"])
            try:
                if place != current:
                    cells, current = self._cells(row), place
                yield self._sample(row, {name: column[row["row"]].as_py() for name, column in cells.items()})
            except Rejected as problem:
                yield left_out(row, problem)

    def _cells(self, row: dict[str, Any]) -> dict[str, Any]:
        info = self.store.info(row["table"])
        if info is None or info.version != row["table_version"]:
            raise Rejected(Reason.SOURCE_CHANGED, f"{row['table']} has changed since the plan was made")
        if not _is_parquet(row["table"]):
            return {}
        with self.store.open(row["table"]) as file:
            parquet = _open_parquet(file, row["table"])
            schema = parquet.schema_arrow
            held = frozenset(field.name for field in schema if _holds_bytes(field.type))
            roles = _roles(schema.names, held, self.columns)
            heavy = {m: roles[m] for m in MEDIA if roles.get(m) in held}
            table = _row_group(parquet, row["row_group"], list(heavy.values()), row["table"])
            return {m: table[name] for m, name in heavy.items()}

    def _sample(self, row: dict[str, Any], cells: dict[str, Any]) -> Sample:
        parts: dict[Modality, Part] = {}
        for modality in MEDIA:
            cell = cells.get(modality)
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            path = self._path(modality, cell) if isinstance(cell, dict) else row[f"{modality}_path"]
            if data is None and path is not None:
                data = read_reference(self.store, path)
            if data is not None:
                parts[modality] = Part(suffix_of(modality, path, data), data)
        if row["text"] is not None:
            parts[Modality.TEXT] = Part("txt", row["text"].encode())
        return Sample(row["id"], row["key"], row["source"], parts, orjson.loads(row["metadata"]))


def open_corpus(source: str, columns: dict[str, str], salvage: bool, outside: bool) -> Table:
    """A table, or several: the last part of the path may be a pattern such as `part-*.parquet`.

    A row that refers to a file that is not below the table's folder is a reject, but with `outside`. `salvage` is
    for tars and not used.
    """
    url, _, pattern = source.rpartition("/")
    return Table(url or ".", pattern, columns, outside)


def _as_text(value: Any) -> str | None:
    if isinstance(value, list | dict):
        raise Rejected(Reason.BAD_TEXT, f"the text is {as_json(value)[:80]}; a sample has one text: one row for each")
    return value if value is None or isinstance(value, str) else as_json(value)


def _as_path(modality: Modality, cell: Any) -> str | None:
    path = cell.get("path") if isinstance(cell, dict) else cell
    if path is not None and not isinstance(path, str):
        raise Rejected(Reason.UNSUPPORTED, f"the {modality} is {path!r}, which is no path")
    return path or None


def _is_parquet(path: str) -> bool:
    return path.lower().endswith(".parquet")


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return "bytes" in [kind.field(i).name for i in range(kind.num_fields)]
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _open_parquet(file: Any, where: str) -> pq.ParquetFile:
    try:
        return open_parquet(file)
    except BROKEN as error:
        raise ConfigError(f"{where} is not a Parquet file: {error}") from error


def _row_group(parquet: pq.ParquetFile, number: int, columns: list[str], where: str) -> pa.Table:
    try:
        table = parquet.read_row_group(number, columns=columns, use_threads=False)
        table.validate(full=True)  # that strings are UTF-8
        return table
    except BROKEN as error:
        raise Damage(f"{where}: row group {number} is damaged: {error}") from error


def _text_table(data: bytes, where: str, asked: dict[str, str]) -> _Group:
    if where.lower().endswith(".jsonl"):
        names = list(dict.fromkeys(name for record in json_lines(data, where) for name in record))
        return _Group(0, names, json_lines(data, where), frozenset(), 0)
    own = {*asked.values(), *(name for names in GUESSES.values() for name in names)}
    as_strings = ConvertOptions(column_types=dict.fromkeys(own, pa.string()))  # "007" stays
    table = read_csv(data, where, as_strings, "\t" if where.lower().endswith(".tsv") else ",")
    records = ({n: None if v == "" else v for n, v in record.items()} for record in _records(table))
    return _Group(0, table.column_names, records, frozenset(), 0)


def _not_taken(record: dict[str, Any], other: list[str], roles: dict[str, str]) -> Iterator[str]:
    """Columns that are metadata and look as if they led to a picture or a sound, where no column was taken for one."""
    for name in other:
        value = record.get(name)
        if isinstance(value, str) and "://" not in value:
            modality = SUFFIXES.get(value.rpartition(".")[2].lower())
            if modality in MEDIA and modality not in roles:
                yield f"column {name} (paths? --{modality}-column {name})"


def _records(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=TOGETHER):
        yield from batch.to_pylist()


def _roles(names: list[str], heavy: frozenset[str], asked: dict[str, str]) -> dict[str, str]:
    """Which column holds the key, the image, the audio and the text: as asked, else by its usual names."""
    for role, name in asked.items():
        if name not in names:
            near = get_close_matches(name, names, 1) or names
            raise ConfigError(f"the table has no column {name!r} for the {role}; did you mean {near[0]!r}?")
        if role not in MEDIA and name in heavy:
            raise ConfigError(f"column {name!r} holds bytes; the {role} must be a column of strings")
    guessed = {role: next((g for g in _free(role, names, heavy, asked)), None) for role in GUESSES}
    roles = {role: name for role, name in guessed.items() if name is not None} | asked
    if not set(roles) & set(Modality):
        raise ConfigError(
            f"no column of {', '.join(names)} looks like an image, a sound or a text; "
            "say which: --image-column, --audio-column, --text-column"
        )
    return roles


def _free(role: str, names: list[str], heavy: frozenset[str], asked: dict[str, str]) -> Iterator[str]:
    for guess in GUESSES[role]:
        if guess in names and guess not in asked.values() and (role in MEDIA or guess not in heavy):
            yield guess
