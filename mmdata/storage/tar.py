"""Tar, strictly: what the library readers skip without a word is an error here."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mmdata.errors import Damage

BLOCK = 512
END = bytes(2 * BLOCK)
NAME = 100  # bytes of a header that hold the name


def _template() -> bytes:
    info = tarfile.TarInfo()
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


TEMPLATE = _template()
TEMPLATE_SUM = sum(TEMPLATE[:148]) + 8 * ord(" ") + sum(TEMPLATE[156:])  # the checksum counts itself as spaces


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar: its bytes are `size` bytes from `offset`."""

    name: str
    offset: int
    size: int


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
    """The regular members of a tar of `size` bytes, from its headers alone.

    Raises Damage, naming the offset and how many members came before, for a bad header, a member that ends
    behind the end of the file, a hole of zeros, and a missing end marker. Links, devices and folders are
    passed over: they hold no bytes.
    """
    try:
        archive = tarfile.TarFile(fileobj=file, mode="r")  # reads the first header itself; start again
    except tarfile.ReadError as error:
        raise Damage(f"{where}: {error} at byte 0, after 0 members") from error
    archive.offset = 0
    count = 0
    while True:
        start = archive.offset
        file.seek(start)
        try:
            info = tarfile.TarInfo.fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            return _check_end(file, size, start, f"{where}: after {count} members")
        except tarfile.HeaderError as error:
            raise Damage(f"{where}: {error} at byte {start}, after {count} members") from error
        if info.offset_data + info.size > size or archive.offset <= start:
            end = info.offset_data + info.size
            raise Damage(f"{where}: {info.name!r} at byte {start} ends at byte {end} of {size}, after {count} members")
        if info.isreg():
            count += 1
            yield Member(info.name, info.offset_data, info.size)


def _check_end(file: BinaryIO, size: int, start: int, where: str) -> None:
    file.seek(start)
    rest = size - start
    if rest < len(END):
        raise Damage(f"{where} the end marker at byte {start} is cut")
    while chunk := file.read(1 << 20):
        if any(chunk):
            raise Damage(f"{where} there is a hole of zeros at byte {start}, and data behind it")
