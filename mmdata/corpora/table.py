"""A table (csv, tsv, jsonl, Parquet) whose columns hold paths, bytes, the HF struct {bytes, path}, or text."""

from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from mmdata.corpora import scan_table
from mmdata.corpora.files import read_reference, suffix_of
from mmdata.errors import ConfigError, NotFound
from mmdata.storage.store import Store
from mmdata.storage.tables import as_json
from mmdata.types import Modality, Outcome, Part, Reason, Reject, Rejected, Sample

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


class Table:
    def __init__(self, url: str, pattern: str, columns: dict[str, str]) -> None:
        self.store = Store(url)
        self.pattern = pattern
        self.columns = columns

    def scan(self) -> tuple[pa.Table, dict[str, int]]:
        """Reads everything but bytes. ConfigError when no column holds an image, a sound or a text."""
        infos = [info for info in self.store.list() if fnmatchcase(info.path, self.pattern)]
        if not infos:
            raise NotFound(f"no table matches {self.store.where(self.pattern)}")
        rows: list[dict[str, Any]] = []
        ignored: Counter[str] = Counter()
        for info in infos:
            for group, table, cell_bytes in self._groups(info.path):
                base = {"table": info.path, "table_version": info.version, "row_group": group}
                prefix = info.path.rpartition(".")[0] + "/" if len(infos) > 1 else ""
                rows += self._rows(table, base, prefix, cell_bytes, ignored)
        return scan_table(rows, COLUMNS), dict(sorted(ignored.items()))

    def _groups(self, path: str) -> Iterator[tuple[int, pa.Table, int]]:
        """Number, table without its bytes, and bytes per row of each row group; a text table is one group."""
        if not path.endswith(".parquet"):
            yield 0, _read_text_table(self.store, path), 0
            return
        with self.store.open(path) as file:
            parquet = _open_parquet(file, self.store.where(path))
            light = [f.name for f in parquet.schema_arrow if not _holds_bytes(f.type)]
            for group in range(parquet.metadata.num_row_groups):
                meta = parquet.metadata.row_group(group)
                table = parquet.read_row_group(group, columns=light, use_threads=False)
                for field in parquet.schema_arrow:
                    if field.name not in light:  # present, but not read: its cells are read with their sample
                        table = table.append_column(field.name, pa.nulls(meta.num_rows, pa.binary()))
                yield group, table, meta.total_byte_size // max(1, meta.num_rows)

    def _rows(
        self, table: pa.Table, base: dict[str, Any], prefix: str, cell_bytes: int, ignored: Counter[str]
    ) -> Iterator[dict[str, Any]]:
        roles = _roles(table, self.columns)
        bytes_columns = {f.name for f in table.schema if _holds_bytes(f.type)}
        for name in sorted(bytes_columns - set(roles.values())):
            ignored[f"column {name} (bytes)"] += table.num_rows
        other = [n for n in table.column_names if n not in bytes_columns and n not in roles.values()]
        for number, record in enumerate(table.to_pylist()):
            key = record.get(roles.get("key", ""))
            row = base | {"row": number, "source": f"{base['table']}:{base['row_group']}:{number}"}
            row["key"] = f"{prefix}{base['row_group']:03d}{number:06d}" if key is None else str(key)
            row["text"] = _as_text(record.get(roles.get("text", "")))
            for modality in MEDIA:
                name = roles.get(modality, "")
                row[f"{modality}_path"] = None if name in bytes_columns else record.get(name)
            row["bytes"] = cell_bytes + len(row["text"] or "")
            row["metadata"] = as_json({n: record[n] for n in other if record[n] is not None})
            yield row

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
                yield Reject(
                    row["id"],
                    row["key"],
                    row["source"],
                    "",
                    Outcome.REJECTED,
                    problem.reason,
                    problem.message,
                )

    def _cells(self, row: dict[str, Any]) -> dict[str, Any]:
        info = self.store.info(row["table"])
        if info is None or info.version != row["table_version"]:
            raise Rejected(Reason.SOURCE_CHANGED, f"{row['table']} has changed since the plan was made")
        if not row["table"].endswith(".parquet"):
            return {}
        with self.store.open(row["table"]) as file:
            parquet = _open_parquet(file, row["table"])
            roles = _roles(parquet.schema_arrow.empty_table(), self.columns)
            heavy = {
                m: roles[m] for m in MEDIA if m in roles and _holds_bytes(parquet.schema_arrow.field(roles[m]).type)
            }
            table = parquet.read_row_group(row["row_group"], columns=list(heavy.values()), use_threads=False)
            return {m: table[name] for m, name in heavy.items()}

    def _sample(self, row: dict[str, Any], cells: dict[str, Any]) -> Sample:
        parts: dict[Modality, Part] = {}
        for modality in MEDIA:
            cell = cells.get(modality)
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            path = (cell.get("path") if isinstance(cell, dict) else None) or row[f"{modality}_path"]
            if data is None and path is not None:
                data = read_reference(self.store, path)
            if data is not None:
                parts[modality] = Part(suffix_of(modality, path, data), data)
        if row["text"] is not None:
            parts[Modality.TEXT] = Part("txt", row["text"].encode())
        return Sample(row["id"], row["key"], row["source"], parts, orjson.loads(row["metadata"]))


def open_corpus(source: str, columns: dict[str, str]) -> Table:
    """A table, or several: the last part of the path may be a pattern such as `part-*.parquet`."""
    url, _, pattern = source.rpartition("/")
    return Table(url or ".", pattern, columns)


def _as_text(value: Any) -> str | None:
    return None if value is None else value if isinstance(value, str) else str(value)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return "bytes" in [kind.field(i).name for i in range(kind.num_fields)]
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _open_parquet(file: Any, where: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{where} is not a Parquet file: {error}") from error


def _read_text_table(store: Store, path: str) -> pa.Table:
    data = pa.BufferReader(store.read(path))
    try:
        if path.endswith(".jsonl"):
            return pyarrow.json.read_json(data, read_options=pyarrow.json.ReadOptions(use_threads=False))
        delimiter = "\t" if path.endswith(".tsv") else ","
        return pyarrow.csv.read_csv(
            data,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        )
    except pa.ArrowException as error:
        raise ConfigError(f"{store.where(path)} cannot be read as a table: {error}") from error


def _roles(table: pa.Table, asked: dict[str, str]) -> dict[str, str]:
    """Which column holds the key, the image, the audio and the text: as asked, else by its usual names."""
    names = table.column_names
    for role, name in asked.items():
        if name not in names:
            near = get_close_matches(name, names, 1) or names
            raise ConfigError(f"the table has no column {name!r} for the {role}; did you mean {near[0]!r}?")
    guessed = {
        role: next((g for g in guesses if g in names and g not in asked.values()), None)
        for role, guesses in GUESSES.items()
    }
    roles = {role: name for role, name in guessed.items() if name is not None} | asked
    if not set(roles) & set(Modality):
        raise ConfigError(
            f"no column of {', '.join(names)} looks like an image, a sound or a text; "
            "say which: --image-column, --audio-column, --text-column"
        )
    return roles
