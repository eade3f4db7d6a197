"""Files below one local folder or object-store prefix. A file appears whole or not at all."""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import Any, BinaryIO, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore

from mmdata.crash import point, tear
from mmdata.errors import ConfigError, NotFound, StorageError, StorageFull
from mmdata.storage.remote import Ranges, has_timeouts, open_remote, problem, put_new, repeat
from mmdata.storage.walk import walk

READ_AHEAD = 1 << 20  # bytes of an object read at once
LARGE = 8 << 20  # bytes that may take longer to send than an answer may take
Data = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class FileInfo:
    """`version` changes when the content does (the store's e-tag; size and time on a local disk).

    It is empty for a pipe, a socket or a device, which would be read without end.
    """

    path: str
    size: int
    version: str
    modified: float  # seconds since 1970, by the clock of the store


def is_below(name: str) -> bool:
    """Whether a relative path that stands in a document leads below the document's own folder."""
    return not {"", ".", ".."} & set(name.split("/")) and "\0" not in name


def sha256(data: Data) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Failures of the system and of object stores as a StorageError that names `what`."""
    try:
        yield
    except (BaseError, OSError) as error:
        if "://" in what:
            raise problem(what, error) from error
        if isinstance(error, FileNotFoundError):
            raise NotFound(f"{what} does not exist") from error
        reason = str(error).split("\n")[0]
        if "No space left" in str(error):
            raise StorageFull(f"no space left to write {what}; free some and run the same command again") from error
        raise StorageError(f"cannot access {what}: {reason}") from error


class Store:
    """Create-if-absent files below `url`: a local path, or s3://, gs://, az://, file://.

    Credentials and endpoints come from the environment, as obstore documents. Pickles as its URL. What writes or
    deletes raises ConfigError for a path that leads out of it; whether reading may is the caller's to say, as
    `--outside` does for the files that a table refers to.
    """

    def __init__(self, url: str) -> None:
        remote = "://" in url and not url.startswith("file://")
        self.url = url.rstrip("/") if remote else str(Path(url.removeprefix("file://")).resolve())
        self.local = None if remote else Path(self.url)
        self._store: Any = self._open()
        self._patient: Any = None

    def _open(self) -> Any:
        if self.local is not None:
            with translated(self.url):
                if self.local.exists() and not self.local.is_dir():
                    raise ConfigError(f"{self.url} is a file, not a folder")
                return LocalStore(self.local, mkdir=False) if self.local.exists() else None
        return self._remote()

    def _remote(self, *, stalls: bool = True) -> Any:
        try:
            return open_remote(self.url, stalls=stalls)
        except (BaseError, ValueError) as error:
            raise ConfigError(f"cannot open {self.url}: {str(error).splitlines()[0]}") from error

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.url,)

    def _reading(self) -> Any:
        self._store = self._store or self._open()
        if self._store is None:
            raise NotFound(f"{self.url} does not exist")
        return self._store

    def _writing(self) -> Any:
        if self._store is None and self.local is not None:
            with translated(self.url):
                self.local.mkdir(parents=True, exist_ok=True)
                self._store = LocalStore(self.local)
        return self._store

    def _sending(self, size: int) -> Any:
        if size <= LARGE or not has_timeouts(self.url):
            return self._writing()
        self._patient = self._patient or self._remote(stalls=False)
        return self._patient

    def where(self, path: str) -> str:
        """The full URL or path of a file."""
        return f"{self.url}/{path}"

    def _keep_inside(self, path: str) -> None:
        if not is_below(path):
            raise ConfigError(f"{path!r} leads out of {self.url}; nothing there is written or deleted")

    def create(self, path: str, data: Data) -> bool:
        """Write a file that is not there yet; False, and nothing changed, when it is."""
        self._keep_inside(path)
        point("store.create")
        tear("store.create.torn", len(data))
        with translated(self.where(path)):
            created = self._create(path, data)
        if created:
            point("store.created")
        return created

    def _create(self, path: str, data: Data) -> bool:
        if self.local is None:
            return put_new(self._sending(len(data)), path, data)
        try:
            obstore.put(self._writing(), path, memoryview(data), mode="create")
        except AlreadyExistsError:
            return False
        return True

    def replace(self, path: str, data: Data) -> None:
        """Write a file in one step, over an old one if there is one."""
        self._keep_inside(path)
        point("store.replace")
        tear("store.replace.torn", len(data))
        with translated(self.where(path)):
            repeat(lambda: obstore.put(self._sending(len(data)), path, memoryview(data), mode="overwrite"))
        point("store.replaced")

    def read(self, path: str) -> bytes:
        """The whole file; NotFound when it is not there."""
        with translated(self.where(path)):
            if self.local is not None:
                with open(os.path.join(self.url, path), "rb") as file:  # noqa: PTH118, PTH123  a Path costs more than a read
                    return file.read()
            return repeat(lambda: bytes(obstore.get(self._reading(), path).bytes()))

    def read_range(self, path: str, start: int, size: int) -> memoryview:
        """`size` bytes from `start`; StorageError when the file is shorter."""
        if size == 0:
            return memoryview(b"")
        with translated(self.where(path)):
            data = memoryview(self._range(path, start, size))
        if len(data) != size:
            raise StorageError(f"{self.where(path)} ends at byte {start + len(data)}, not {start + size}")
        return data

    def _range(self, path: str, start: int, size: int) -> Any:
        if self.local is None:
            return repeat(lambda: obstore.get_range(self._reading(), path, start=start, length=size))
        with (self.local / path).open("rb") as file:
            file.seek(start)
            return file.read(size)

    def open(self, path: str) -> BinaryIO:
        """A seekable, buffered reader."""
        with translated(self.where(path)):
            if self.local is not None:
                return (self.local / path).open("rb")
            size = repeat(lambda: obstore.head(self._reading(), path))["size"]
        ranges = Ranges(lambda start, count: self.read_range(path, start, count), size)
        return cast(BinaryIO, io.BufferedReader(ranges, READ_AHEAD))

    def info(self, path: str) -> FileInfo | None:
        """Size and version, or None when the file is not there."""
        try:
            with translated(self.where(path)):
                if self.local is not None:
                    return _local_info(path, os.stat(os.path.join(self.url, path)))  # noqa: PTH116, PTH118
                return _info(repeat(lambda: obstore.head(self._reading(), path)))
        except NotFound:
            return None

    def list_here(self) -> list[FileInfo]:
        """Every file at the top, none of a folder, sorted by path; empty when there is none."""
        if self.local is not None:
            with translated(self.url):
                return _list_top(self.local) if self.local.is_dir() else []
        with translated(self.url):
            found = repeat(lambda: obstore.list_with_delimiter(self._reading())["objects"])
            return sorted((_info(meta) for meta in found), key=lambda info: info.path)

    def list(self, prefix: str = "") -> list[FileInfo]:
        """Every file below `prefix`, sorted by path; empty when there is none."""
        if self.local is not None:
            return _list_local(self.local, prefix)
        with translated(self.where(prefix)):
            found = repeat(lambda: [*obstore.list(self._reading(), prefix=prefix or None, chunk_size=1000)])
            return sorted((_info(meta) for chunk in found for meta in chunk), key=lambda info: info.path)

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens when it is not there."""
        self._keep_inside(path)
        point("store.delete")
        with translated(self.where(path)):
            if self.local is not None:
                (self.local / path).unlink(missing_ok=True)
            else:
                repeat(lambda: obstore.delete(self._reading(), path))
        point("store.deleted")


def _info(meta: Any) -> FileInfo:
    return FileInfo(
        meta["path"],
        meta["size"],
        meta["e_tag"] or meta["last_modified"].isoformat(),
        meta["last_modified"].timestamp(),
    )


def _local_info(path: str, status: os.stat_result) -> FileInfo:
    is_file = S_ISREG(status.st_mode) or S_ISLNK(status.st_mode)  # a link here leads nowhere
    version = f"{status.st_mtime_ns:x}-{status.st_size:x}" if is_file else ""
    return FileInfo(path, status.st_size, version, status.st_mtime)


def _list_top(folder: Path) -> list[FileInfo]:
    with os.scandir(folder) as entries:
        files = [_local_info(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    return sorted(files, key=lambda info: info.path)


def _list_local(root: Path, prefix: str) -> list[FileInfo]:
    folder = root / prefix
    if not folder.is_dir():
        return []
    above = prefix.rstrip("/") + "/" if prefix else ""
    with translated(str(folder)):
        return sorted((_local_info(above + path, status) for path, status in walk(folder)), key=lambda i: i.path)
