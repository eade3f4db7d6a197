"""Tar, strictly: what the library readers skip without a word is an error here."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from mmdata.errors import Damage

BLOCK = 512
END = bytes(2 * BLOCK)
LARGEST_HEADER = 1 << 20  # bytes, of a long name or of the fields of a PAX header
BEYOND = "ends at byte"
SEARCH = 1 << 20  # bytes looked through at once, a multiple of BLOCK
NAME = 100  # bytes of a header that hold the name


def _template() -> bytes:
    info = tarfile.TarInfo()
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


TEMPLATE = _template()
TEMPLATE_SUM = sum(TEMPLATE[:148]) + 8 * ord(" ") + sum(TEMPLATE[156:])  # the checksum counts itself as spaces


@dataclass(frozen=True, slots=True)
class Member:
    """An entry of a tar: its bytes are `size` bytes from `offset`.

    `kind` is "file", or what is never taken: "link" (to `target`), "device", "sparse" or "unknown".
    """

    name: str
    offset: int
    size: int
    kind: str = "file"
    target: str = ""


@dataclass(frozen=True, slots=True)
class Hole:
    """A stretch of a tar, in bytes, that cannot be read; `members` came before it."""

    start: int
    end: int
    members: int
    problem: str

    def __str__(self) -> str:
        return f"{self.problem} at byte {self.start}, after {self.members} members"


def header(name: str, size: int) -> bytes:
    """The 512-byte USTAR header of a member: fixed time, owner and mode, so equal content gives equal bytes.

    It is what `tarfile` writes for a name of 100 ASCII characters at most and a size below 8 GiB, ten times as fast.
    Raises ValueError for any other.
    """
    encoded = name.encode("ascii")
    if len(encoded) > NAME or size >= 8**11:
        raise ValueError(f"no USTAR header holds the name {name!r} and the size {size}")
    digits = b"%011o" % size
    total = TEMPLATE_SUM + sum(encoded) + sum(digits) - sum(TEMPLATE[124:135])
    return b"%b%b%b%b%06o\0 %b" % (
        encoded.ljust(NAME, b"\0"),
        TEMPLATE[NAME:124],
        digits,
        TEMPLATE[135:148],
        total,
        TEMPLATE[156:],
    )


def padding(size: int) -> bytes:
    """Zeros that fill the last block of a member."""
    return bytes(-size % BLOCK)


def scan(file: BinaryIO, size: int, where: str) -> Iterator[Member]:
    """The members of a tar of `size` bytes, from its headers alone; folders are passed over.

    Raises Damage, naming the offset and how many members came before, for a bad header, a member that ends
    behind the end of the file, a hole of zeros, and a missing end marker.
    """
    for found in _walk(file, size, 0, 0):
        if isinstance(found, Hole):
            raise Damage(f"{where}: {found}")
        yield found


def salvage(file: BinaryIO, size: int) -> Iterator[Member | Hole]:
    """As `scan`, but goes on behind each hole at the next header whose checksum is right.

    A member that ends behind the end of the tar takes all the rest, unless that is whole from its next header to the
    end marker: then the tar is not cut and the member's size is wrong.
    """
    start = members = 0
    while start < size or start == 0:
        hole = None
        for found in _walk(file, size, start, members):
            if isinstance(found, Hole):
                hole = replace(found, end=_behind(file, size, found))
            else:
                members += 1
                yield found
        if hole is None:
            return
        yield hole
        start = max(hole.end, 1)


def _walk(file: BinaryIO, size: int, start: int, members: int) -> Iterator[Member | Hole]:
    """The members from byte `start` on, until the end or the first hole, whose `end` is that of the file."""
    archive = tarfile.TarFile(fileobj=cast(BinaryIO, _Headers(file)), mode="w")  # "r" would read a header by itself
    archive.offset = start
    while True:
        start = archive.offset
        file.seek(start)
        found = _entry(archive)
        if isinstance(found, tarfile.TarInfo):
            end = found.offset_data + found.size
            problem = f"{found.name!r} {BEYOND} {end} of {size}; its header is" if end > size else ""
            if found.size < 0 or archive.offset <= start:
                problem = f"a header of {found.size} bytes"
        else:
            problem = found or _behind_the_end(file, size, start)
        if problem:
            yield Hole(start, max(start, size), members, problem)
        if problem or not isinstance(found, tarfile.TarInfo):
            return
        if not found.isdir():
            members += 1
            yield Member(found.name, found.offset_data, found.size, _kind(found), found.linkname)


def _entry(archive: tarfile.TarFile) -> tarfile.TarInfo | str:
    """The entry that begins here, else what is wrong with it: nothing where the end marker begins."""
    try:
        return tarfile.TarInfo.fromtarfile(archive)
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        return ""
    except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
        return "the end marker is missing"
    except tarfile.HeaderError as error:
        return str(error)
    except (ValueError, LookupError, ArithmeticError, RecursionError):
        return "a bad header"


class _Headers:
    """A file of which no header can make the reader ask for more than a megabyte."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LARGEST_HEADER:
            raise tarfile.HeaderError(f"a header of {size} bytes")
        return self._read(size)


def _kind(info: tarfile.TarInfo) -> str:
    if info.sparse is not None or info.type == tarfile.GNUTYPE_SPARSE:
        return "sparse"
    if info.isreg():
        return "file"
    if info.issym() or info.islnk():
        return "link"
    return "device" if info.isdev() else "unknown"


def _behind_the_end(file: BinaryIO, size: int, start: int) -> str:
    """What is wrong with the end marker at `start`, or nothing."""
    file.seek(start)
    if size - start < len(END):
        return "the end marker is cut"
    while chunk := file.read(1 << 20):
        if any(chunk):
            return "there is a hole of zeros, with data behind it,"
    return ""


def _behind(file: BinaryIO, size: int, hole: Hole) -> int:
    """Where to go on behind a hole; the end of the file when there is nothing."""
    place = _next_header(file, size, hole.start)
    if BEYOND in hole.problem and any(isinstance(one, Hole) for one in _walk(file, size, place, 0)):
        return size  # what is behind it is in the member, and may look like headers
    return place


def _next_header(file: BinaryIO, size: int, behind: int) -> int:
    """Where the first whole header behind the one at byte `behind` is; the end of the file when there is none."""
    place = behind + BLOCK
    while place < size:
        file.seek(place)
        chunk = file.read(SEARCH)
        for start in range(0, len(chunk) - BLOCK + 1, BLOCK):
            if chunk[start + 257 : start + 262] == b"ustar" and _is_header(chunk[start : start + BLOCK]):
                return place + start
        place += SEARCH
    return max(size, behind)


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
