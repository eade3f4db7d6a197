"""A folder: files with the same stem are one sample, whose key is their path below the folder, suffix off."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import orjson
import pyarrow as pa

from mmdata.corpora import left_out, repaired, scan_table
from mmdata.corpora.files import readable
from mmdata.errors import NotFound, StorageError
from mmdata.storage.store import FileInfo, Store
from mmdata.types import SUFFIXES, Modality, Part, Reason, Reject, Rejected, Sample

PARTS = [*Modality, "json"]
COLUMNS = [(f"{part}_{fact}", pa.string()) for part in PARTS for fact in ("path", "version")]


class Folder:
    def __init__(self, url: str) -> None:
        self.store = Store(url)

    def scan(self) -> tuple[pa.Table, dict[str, int]]:
        """Lists the folder once; opens no file. NotFound when there is no media file in it."""
        stems: dict[str, list[tuple[str, FileInfo]]] = {}
        ignored: Counter[str] = Counter()
        unusable: list[dict[str, Any]] = []
        for info in self.store.list():
            stem, suffix = _split(info.path)
            part = "json" if suffix == "json" else SUFFIXES.get(suffix)
            if any(name.startswith(".") for name in info.path.split("/")):
                ignored["hidden"] += 1
            elif part is None:
                ignored["." + readable(suffix) if suffix else "no suffix"] += 1
            elif readable(info.path) != info.path:
                unusable.append(_unusable(info, "the name is not UTF-8; rename the file"))
            elif not info.version:
                unusable.append(_unusable(info, "this is a pipe, a socket or a device, not a file"))
            else:
                stems.setdefault(stem, []).append((part, info))
        rows = chain.from_iterable(_rows(stem, files) for stem, files in sorted(stems.items()))
        table = scan_table(chain(rows, unusable), COLUMNS)
        if not table.num_rows and self.store.local is not None and not self.store.local.exists():
            raise NotFound(f"{self.store.url} does not exist")
        if not table.num_rows:
            there = f"{dict(ignored) or 'none'}{_hint(ignored)}"
            raise NotFound(f"{self.store.url} holds no image, audio or text files; it has: {there}")
        return table, dict(sorted(ignored.items()))

    def read(self, rows: pa.Table) -> Iterator[Sample | Reject]:
        """Reads the files of each row; one that is gone or has changed since the scan is a reject."""
        for row in rows.to_pylist():
            try:
                yield self._sample(row)
            except Rejected as problem:
                yield left_out(row, problem)

    def _sample(self, row: dict[str, Any]) -> Sample:
        found = {part: self._read(row, part) for part in PARTS if row[f"{part}_path"] is not None}
        metadata, notes = read_metadata(row, found.pop("json", None))
        folder = row["key"].rpartition("/")[0]
        if folder:
            metadata = {"folder": folder, **metadata}
        parts = {Modality(part): Part(_split(row[f"{part}_path"])[1], data) for part, data in found.items()}
        return Sample(row["id"], row["key"], row["source"], parts, metadata, notes)

    def _read(self, row: dict[str, Any], part: str) -> bytes:
        path = row[f"{part}_path"]
        try:
            data = self.store.read(path)
        except NotFound as error:
            raise Rejected(Reason.SOURCE_MISSING, f"{path} is gone since the plan was made") from error
        except StorageError as error:
            raise Rejected(Reason.SOURCE_MISSING, str(error)) from error
        info = self.store.info(path)
        if info is None or info.version != row[f"{part}_version"]:
            raise Rejected(Reason.SOURCE_CHANGED, f"{path} has changed since the plan was made")
        return data


def _hint(ignored: Mapping[str, int]) -> str:
    return "; for tars write the source as '.../*.tar'" if ".tar" in ignored else ""


def open_corpus(source: str, columns: dict[str, str], salvage: bool, outside: bool) -> Folder:
    """The corpus of a folder or prefix; the rest is for tables and tars and not used."""
    return Folder(source)


def _split(path: str) -> tuple[str, str]:
    """`a/b.v2.JPG` to (`a/b.v2`, `jpg`)."""
    folder, _, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if not dot or not stem:
        return path, ""
    return f"{folder}/{stem}" if folder else stem, suffix.lower()


def _unusable(info: FileInfo, message: str) -> dict[str, Any]:
    name = readable(info.path)
    return {"key": name, "source": name, "bytes": 0, "reason": Reason.UNSUPPORTED.value, "message": message}


def _rows(stem: str, files: list[tuple[str, FileInfo]]) -> Iterator[dict[str, Any]]:
    """The sample of a stem, and a marked row for each file that would be a second part of the same kind."""
    row: dict[str, Any] = {"key": stem, "bytes": 0}
    surplus = []
    for part, info in files:
        if f"{part}_path" in row:
            surplus.append((part, info))
            continue
        row |= {f"{part}_path": info.path, f"{part}_version": info.version}
        row["bytes"] += info.size
    row["source"] = next(row[f"{part}_path"] for part in PARTS if f"{part}_path" in row)
    if set(part for part, _ in files) == {"json"}:
        row |= {
            "reason": Reason.MISSING_PART.value,
            "message": "metadata without an image, a sound or a text",
        }
    yield row
    for part, info in surplus:
        yield {
            "key": info.path,
            "source": info.path,
            "bytes": info.size,
            "reason": Reason.DUPLICATE_KEY.value,
            "message": f"{row[f'{part}_path']} is already the {part} of {stem!r}; rename one of the two",
        }


def read_metadata(row: dict[str, Any], data: bytes | None) -> tuple[dict[str, Any], tuple[Reject, ...]]:
    """The object in a sample's .json. One that is none is left out, which is a repair: the media are kept."""
    if data is None:
        return {}, ()
    try:
        metadata = orjson.loads(data)
        problem = None if isinstance(metadata, dict) else "the .json is not an object"
    except orjson.JSONDecodeError as error:
        problem = f"the .json is not JSON: {error}"
    if problem is None:
        return metadata, ()
    return {}, (repaired(row, "json", Reason.BAD_METADATA, problem),)
