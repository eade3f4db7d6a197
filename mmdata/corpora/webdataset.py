"""Existing WebDataset tars, read strictly: members are found by header and grouped by key, adjacent or not."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from mmdata.corpora import left_out, repaired, scan_table
from mmdata.corpora.files import matches, readable
from mmdata.corpora.folder import PARTS, read_metadata
from mmdata.errors import Damage, NotFound
from mmdata.storage.store import FileInfo, Store
from mmdata.storage.tar import Hole, Member, salvage, scan
from mmdata.types import SUFFIXES, Modality, Part, Reason, Reject, Rejected, Sample

LABEL = "cls"
"""What WebDataset names the member that holds the class of a sample."""
MEMBERS = [*PARTS, LABEL]
COLUMNS = [
    ("tar", pa.string()),
    ("tar_version", pa.string()),
    *[(f"{part}_suffix", pa.string()) for part in MEMBERS],
    *[(f"{part}_{fact}", pa.int64()) for part in MEMBERS for fact in ("offset", "size")],
]
"""A part with a suffix and no offset is lost, as the `message` of its row tells."""


NUMBER = re.compile(r"\d{9,}")
LARGEST_JSON = 16 << 20  # bytes, of one that is read for its key


class Tars:
    def __init__(self, url: str, pattern: str, salvage: bool) -> None:
        self.store = Store(url)
        self.pattern = pattern
        self.salvage = salvage

    def scan(self) -> tuple[pa.Table, dict[str, int]]:
        """Reads the headers of every tar, and of tars of our own the keys. NotFound when no member is of a sample.

        Damage, naming tar and offset, when one is not whole; with `salvage` that is a marked row for each hole.
        Where a key is in two tars, all keys get the name of their tar before them.
        """
        rows: list[dict[str, Any]] = []
        ignored: Counter[str] = Counter()
        tars = [info for info in self.store.list_here() if matches(info.path, self.pattern)]
        if not tars:
            raise NotFound(f"no tar matches {self.store.where(self.pattern)}")
        for info in tars:
            base = {"tar": info.path, "tar_version": info.version}
            with self.store.open(info.path) as file:
                members, holes = self._members(file, info)
                found = _rows(info.path, members, ignored)
                for row in found:
                    _take_own_key(row, file)
            rows += [row | base for row in [*found, *(_lost(info.path, hole) for hole in holes)]]
        if not rows:
            there = f"it has: {dict(ignored) or 'no members'}"
            raise NotFound(f"{self.store.where(self.pattern)} holds no image, audio or text files; {there}")
        _tell_apart(rows)
        return scan_table(rows, COLUMNS), dict(sorted(ignored.items()))

    def _members(self, file: BinaryIO, info: FileInfo) -> tuple[list[Member], list[Hole]]:
        if not self.salvage:
            try:
                return list(scan(file, info.size, self.store.where(info.path))), []
            except Damage as error:
                raise Damage(f"{error}; get it whole, or take what is whole of it: --salvage") from error
        found = list(salvage(file, info.size))
        return [one for one in found if isinstance(one, Member)], [one for one in found if isinstance(one, Hole)]

    def read(self, rows: pa.Table) -> Iterator[Sample | Reject]:
        """Reads the members of each row; a tar that has changed since the scan is a reject of its rows."""
        versions: dict[str, str | None] = {}
        for row in rows.to_pylist():
            if row["tar"] not in versions:
                info = self.store.info(row["tar"])
                versions[row["tar"]] = info.version if info else None
            try:
                if versions[row["tar"]] != row["tar_version"]:
                    raise Rejected(Reason.SOURCE_CHANGED, f"{row['tar']} has changed since the plan was made")
                yield self._sample(row)
            except Rejected as problem:
                yield left_out(row, problem)

    def _sample(self, row: dict[str, Any]) -> Sample:
        found = {
            part: bytes(self.store.read_range(row["tar"], row[f"{part}_offset"], row[f"{part}_size"]))
            for part in MEMBERS
            if row[f"{part}_offset"] is not None
        }
        lost = [part for part in MEMBERS if row[f"{part}_suffix"] is not None and part not in found]
        label = found.pop(LABEL, None)
        metadata, notes = read_metadata(row, found.pop("json", None))
        metadata = metadata["metadata"] if _is_own(metadata) else metadata
        metadata = metadata if label is None else {LABEL: _label(label), **metadata}
        parts = {Modality(part): Part(row[f"{part}_suffix"], data) for part, data in found.items()}
        notes += tuple(repaired(row, part, Reason.UNSUPPORTED, row["message"]) for part in lost)
        return Sample(row["id"], row["key"], row["source"], parts, metadata, notes)


def open_corpus(source: str, columns: dict[str, str], salvage: bool, outside: bool) -> Tars:
    """A tar, or several: the last part of the path may be a pattern such as `train-*.tar`.

    `columns` and `outside` are for tables and not used.
    """
    url, _, pattern = source.rpartition("/")
    return Tars(url or ".", pattern, salvage)


def _rows(tar: str, members: list[Member], ignored: Counter[str]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    surplus = []
    files_first = sorted(members, key=lambda member: member.kind != "file")
    named = [(member, *_name(member)) for member in files_first]
    plain = {(key, part) for _, key, suffix, part in named if "." not in suffix}
    for member, key, suffix, part in named:
        is_hidden = not key or key.endswith("/")
        if part is None or is_hidden:
            ignored["hidden" if is_hidden else "." + suffix if suffix else "no suffix"] += 1
            continue
        if "." in suffix and (key, part) in plain:
            ignored["." + suffix] += 1  # as KEY.depth.png beside KEY.jpg
            continue
        row = rows.setdefault(key, {"key": key, "source": f"{tar}:{key}", "bytes": 0})
        if f"{part}_suffix" in row:
            surplus.append(_second(tar, member, part, key))
            continue
        kind = suffix.rpartition(".")[2].lower()
        row[f"{part}_suffix"] = kind
        if member.kind != "file":
            row["message"] = "; ".join([*filter(None, [row.get("message")]), _no_file(member)])
            continue
        row |= {f"{part}_offset": member.offset, f"{part}_size": member.size}
        row["bytes"] += member.size
    return [*rows.values(), *surplus]


def _take_own_key(row: dict[str, Any], file: BinaryIO) -> None:
    """In a shard of mmdata the names are numbers; the key is in the .json."""
    if row.get("json_offset") is None or not NUMBER.fullmatch(row["key"]) or row["json_size"] > LARGEST_JSON:
        return
    file.seek(row["json_offset"])
    about, _ = read_metadata(row | {"id": 0}, file.read(row["json_size"]))
    if _is_own(about):
        row["key"] = str(about["key"])


def _is_own(about: dict[str, Any]) -> bool:
    return about.keys() == {"key", "source", "metadata"} and isinstance(about["metadata"], dict)


def _tell_apart(rows: list[dict[str, Any]]) -> None:
    """Tars that number their samples each from nought on have samples of the same name that are not the same."""
    tars: dict[str, str] = {}
    if all(tars.setdefault(row["key"], row["tar"]) == row["tar"] for row in rows):
        return
    for row in rows:
        if row.get("reason") is None:
            row["key"] = f"{row['tar'].removesuffix('.tar')}/{row['key']}"


def _lost(tar: str, hole: Hole) -> dict[str, Any]:
    return {
        "key": f"{tar}@{hole.start}",
        "source": f"{tar}@{hole.start}",
        "bytes": 0,
        "reason": Reason.DAMAGED.value,
        "message": f"{hole}; {hole.end - hole.start} bytes passed over",
    }


def _name(member: Member) -> tuple[str, str, str | None]:
    """Key, suffix and part of a member: the key ends at the first dot of the file's name."""
    folder, slash, name = readable(member.name).rpartition("/")
    stem, _, suffix = name.partition(".")
    part = suffix.lower() if suffix.lower() in ("json", LABEL) else SUFFIXES.get(suffix.rpartition(".")[2].lower())
    return f"{folder}{slash}{stem}", suffix, part


def _no_file(member: Member) -> str:
    kind = f"{member.kind} to {readable(member.target)}" if member.kind == "link" else f"{member.kind} entry"
    remedy = "; pack files: tar --dereference --hard-dereference" if member.kind == "link" else ""
    return f"{readable(member.name)} is a {kind}, not a plain file{remedy}"


def _label(data: bytes) -> int | str:
    text = data.decode(errors="replace").strip()
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text


def _second(tar: str, member: Member, part: str, key: str) -> dict[str, Any]:
    return {
        "key": f"{tar}:{readable(member.name)}",
        "source": f"{tar}:{readable(member.name)}",
        "bytes": member.size,
        "reason": Reason.DUPLICATE_KEY.value,
        "message": f"{key!r} has another {part} already",
    }
