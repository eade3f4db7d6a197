"""Tars, strictly: every member is found by its header, and every kind of damage is told."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_files import library_tar, tar

from mmdata.errors import Damage
from mmdata.storage.tar import END, Member, header, padding, scan

THREE = tar(("0.txt", b"a" * 700), ("1.txt", b"b" * 700), ("2.txt", b"c" * 700))
SECOND = 512 + 1024  # where the second member's header starts
THIRD = 2 * SECOND
LAST = 3 * SECOND


def scanned(data: bytes) -> list[Member]:
    return list(scan(io.BytesIO(data), len(data), "my.tar"))


def with_byte(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + bytes([value]) + data[place + 1 :]


def zeroed(data: bytes, place: int, size: int) -> bytes:
    return data[:place] + bytes(size) + data[place + size :]


def negative_size() -> bytes:
    """A member whose size is minus 512 in base 256, with a valid checksum."""
    block = bytearray(header("x", 0))
    block[124:136] = bytes([0xFF] * 10 + [0xFE, 0x00])
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return THREE[:SECOND] + bytes(block) + THREE[SECOND:]


DAMAGED = {
    "no bytes": (b"", 0),
    "not a tar": (b"not a tar at all" * 100, 0),
    "first header cut": (THREE[:100], 0),
    "first header flipped": (with_byte(THREE, 5, 99), 0),
    "header cut": (THREE[: SECOND + 200], SECOND),
    "cut between members": (THREE[:SECOND], SECOND),
    "cut in a payload": (THREE[: SECOND + 512 + 300], SECOND),
    "cut in the last payload": (THREE[: THIRD + 512 + 699], THIRD),
    "cut in the last padding": (THREE[: THIRD + 512 + 701], LAST),
    "name flipped": (with_byte(THREE, SECOND, 99), SECOND),
    "size flipped": (with_byte(THREE, SECOND + 130, 55), SECOND),
    "checksum flipped": (with_byte(THREE, SECOND + 150, 49), SECOND),
    "first header zeroed": (zeroed(THREE, 0, 512), 0),
    "header zeroed": (zeroed(THREE, SECOND, 512), SECOND),
    "whole member zeroed": (zeroed(THREE, SECOND, SECOND), SECOND),
    "no end marker": (THREE[: -len(END)], LAST),
    "half an end marker": (THREE[:-512], LAST),
    "two tars in a row": (THREE + THREE, LAST),
    "rubbish behind the end": (THREE + b"x", LAST),
    "negative size": (negative_size(), SECOND),
}


@pytest.mark.parametrize(("data", "offset"), DAMAGED.values(), ids=DAMAGED.keys())
def test_every_kind_of_damage_is_told_with_tar_and_offset(data, offset):
    with pytest.raises(Damage, match=rf"my\.tar.* at byte {offset}\b"):
        scanned(data)


def test_members_come_with_the_place_of_their_bytes():
    members = scanned(THREE)
    assert members == [Member("0.txt", 512, 700), Member("1.txt", 2048, 700), Member("2.txt", 3584, 700)]
    assert THREE[2048:2748] == b"b" * 700


def test_an_empty_tar_has_no_members():
    assert scanned(END) == []


def test_zeros_behind_the_end_are_padding():
    assert [member.name for member in scanned(THREE + bytes(10240))] == ["0.txt", "1.txt", "2.txt"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_format_are_read(form):
    data = library_tar(form, ("a/b.txt", b"1"), ("empty", b""), ("ü.txt", b"22"))
    assert [(m.name, data[m.offset : m.offset + m.size]) for m in scanned(data)] == [
        ("a/b.txt", b"1"),
        ("empty", b""),
        ("ü.txt", b"22"),
    ]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read(form):
    (member,) = scanned(library_tar(form, ("ü" * 300 + ".txt", b"1")))
    assert member.name == "ü" * 300 + ".txt"


def test_folders_and_links_hold_no_bytes_and_are_passed_over():
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, kind in (("folder", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE), ("pipe", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("file.txt"))
    assert [member.name for member in scanned(sink.getvalue())] == ["file.txt"]


def test_a_header_depends_on_name_and_size_alone():
    block = header("000000001.txt", 5)
    info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    assert (len(block), info.name, info.size) == (512, "000000001.txt", 5)
    assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=100), st.integers(0, 8**11 - 1))
def test_a_header_is_what_tarfile_writes(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    assert header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(("name", "size"), [("x" * 101, 0), ("x", 8**11), ("ü", 0)])
def test_what_no_header_holds_is_refused(name, size):
    with pytest.raises(ValueError):
        header(name, size)


@pytest.mark.parametrize(("size", "zeros"), [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)])
def test_padding_fills_the_block(size, zeros):
    assert padding(size) == bytes(zeros)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=1500), max_size=5))
def test_what_we_write_tarfile_and_the_scan_read_back(contents):
    data = tar(*[(f"{n:09d}.txt", content) for n, content in enumerate(contents)])
    assert [data[m.offset : m.offset + m.size] for m in scanned(data)] == contents
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [archive.extractfile(info).read() for info in archive] == contents


@settings(deadline=None)
@given(st.integers(0, len(THREE) - 1))
def test_a_tar_cut_anywhere_is_damage(length):
    with pytest.raises(Damage):
        scanned(THREE[:length])
