"""Names of files, what kind of file some bytes are, and the file that a table refers to."""

import os
from fnmatch import fnmatchcase
from pathlib import Path

from mmdata.errors import NotFound, StorageError
from mmdata.storage.store import Store
from mmdata.types import SUFFIXES, Modality, Reason, Rejected

MAGIC: list[tuple[bytes, int, str]] = [
    (b"\xff\xd8\xff", 0, "jpg"),
    (b"\x89PNG", 0, "png"),
    (b"GIF8", 0, "gif"),
    (b"WEBP", 8, "webp"),
    (b"BM", 0, "bmp"),
    (b"II*\0", 0, "tif"),
    (b"MM\0*", 0, "tif"),
    (b"WAVE", 8, "wav"),
    (b"fLaC", 0, "flac"),
    (b"OggS", 0, "ogg"),
    (b"ID3", 0, "mp3"),
    *[(bytes([0xFF, second]), 0, "mp3") for second in (0xFB, 0xFA, 0xF3, 0xF2)],
    *[(bytes([0xFF, second]), 0, "aac") for second in (0xF1, 0xF9)],
    (b"ftypavif", 4, "avif"),
    (b"ftypavis", 4, "avif"),
    *[(b"ftyp" + brand, 4, "heic") for brand in (b"hei", b"hev", b"mif1", b"msf1")],
    (b"ftypM4A", 4, "m4a"),
    (b"ftypqt", 4, "mov"),
    (b"ftyp", 4, "mp4"),
    (b"\x1aE\xdf\xa3", 0, "mkv"),
]
"""Bytes, where they stand, and the suffix they mean: the first of the wanted modality counts."""


def readable(name: str) -> str:
    """A name as it is, but for bytes that are no UTF-8, which become escapes like `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def matches(path: str, pattern: str) -> bool:
    """Whether a file matches a pattern as in a shell: `*` is no folder."""
    return "/" not in path and fnmatchcase(path, pattern)


def suffix_of(modality: Modality, path: str | None, data: bytes) -> str:
    """From the path where it has a known suffix, else from the first bytes. Rejected when neither tells."""
    suffix = (path or "").rpartition(".")[2].lower()
    if SUFFIXES.get(suffix) is modality:
        return suffix
    for magic, place, meaning in MAGIC:
        if data[place : place + len(magic)] == magic and SUFFIXES[meaning] is modality:
            return meaning
    raise Rejected(Reason.UNSUPPORTED, f"neither its name nor its first bytes say what kind of {modality} it is")


def check_below(store: Store, path: str | None) -> None:
    """Rejected unless a path that stands in a table leads below the table's folder, whatever it is written like."""
    if path is None or (store.local is not None and "://" in path):
        return  # nothing, or what is never fetched
    if store.local is not None:
        is_below = os.path.normpath(os.path.join(store.url, path)).startswith(f"{store.url.rstrip('/')}/")  # noqa: PTH118
    else:
        is_below = ".." not in path.split("/") and not path.startswith("/")
        is_below = is_below and ("://" not in path or path.startswith(f"{store.url}/"))
    if not is_below:
        raise Rejected(Reason.OUTSIDE, f"{path} is not below the table's folder; --outside if you trust the table")


def read_reference(store: Store, path: str) -> bytes:
    """The file at a path that stands in a table, relative to the table's folder or full."""
    if path.startswith("pipe:"):
        raise Rejected(Reason.UNSUPPORTED, f"{path} is a command; references are not run")
    if "://" in path and path.partition("://")[0] != store.url.partition("://")[0]:
        raise Rejected(Reason.UNSUPPORTED, f"{path} is not in the store of its table; references are not fetched")
    try:
        if "://" in path:
            folder, _, name = path.rpartition("/")
            return Store(folder).read(name)
        if store.local is not None and (store.local / path).exists() and not (store.local / path).is_file():
            raise Rejected(Reason.UNSUPPORTED, f"{path} is not a file")
        return store.read(path)
    except (OSError, ValueError, StorageError) as error:
        missing = isinstance(error, NotFound) or not Path(path).name
        raise Rejected(Reason.SOURCE_MISSING, f"{path} {'does not exist' if missing else error}") from error
