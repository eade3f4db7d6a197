"""Tars, strictly: every member is found by its header, and every kind of damage is told."""

import io
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_files import library_tar, tar

from mmdata.errors import Damage
from mmdata.storage.tar import END, Hole, Member, header, padding, salvage, scan

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


def test_folders_are_passed_over_and_what_is_no_file_says_so():
    sink = io.BytesIO()
    kinds = {"folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE}
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, kind in (kinds | {"disk": tarfile.BLKTYPE, "odd": b"Z"}).items():
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("file.txt"))
    assert {member.name: member.kind for member in scanned(sink.getvalue())} == {
        "link": "link",
        "hard": "link",
        "pipe": "device",
        "disk": "device",
        "odd": "unknown",
        "file.txt": "file",
    }


def salvaged(data: bytes) -> tuple[list[str], list[Hole]]:
    found = list(salvage(io.BytesIO(data), len(data)))
    return [m.name for m in found if isinstance(m, Member)], [h for h in found if isinstance(h, Hole)]


LEFT = {
    "not a tar": [],
    "no bytes": [],
    "first header cut": [],
    "first header flipped": ["1.txt", "2.txt"],
    "header cut": ["0.txt"],
    "cut between members": ["0.txt"],
    "cut in a payload": ["0.txt"],
    "cut in the last payload": ["0.txt", "1.txt"],
    "cut in the last padding": ["0.txt", "1.txt", "2.txt"],
    "name flipped": ["0.txt", "2.txt"],
    "size flipped": ["0.txt", "2.txt"],
    "checksum flipped": ["0.txt", "2.txt"],
    "first header zeroed": ["1.txt", "2.txt"],
    "header zeroed": ["0.txt", "2.txt"],
    "whole member zeroed": ["0.txt", "2.txt"],
    "no end marker": ["0.txt", "1.txt", "2.txt"],
    "half an end marker": ["0.txt", "1.txt", "2.txt"],
    "two tars in a row": ["0.txt", "1.txt", "2.txt", "0.txt", "1.txt", "2.txt"],
    "rubbish behind the end": ["0.txt", "1.txt", "2.txt"],
    "negative size": ["0.txt", "1.txt", "2.txt"],
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_salvage_takes_every_member_that_is_whole_and_tells_each_hole(kind):
    data, offset = DAMAGED[kind]
    names, (hole, *more) = salvaged(data)
    assert (names, hole.start, more) == (LEFT[kind], offset, [])
    assert offset <= hole.end <= max(len(data), offset)


def test_salvage_goes_on_behind_each_of_several_holes():
    names = [f"{n}.txt" for n in range(9)]
    data = bytearray(tar(*[(name, b"x" * 700) for name in names]))
    for member in (2, 5, 6):
        data[member * SECOND + 3] ^= 1
    left, holes = salvaged(bytes(data))
    assert left == ["0.txt", "1.txt", "3.txt", "4.txt", "7.txt", "8.txt"]
    assert [(hole.start, hole.end, hole.members) for hole in holes] == [
        (2 * SECOND, 3 * SECOND, 2),
        (5 * SECOND, 7 * SECOND, 4),
    ]


def test_nothing_is_salvaged_from_inside_a_member_that_is_cut():
    inner = tar(("inner.txt", b"i" * 100))
    outer = tar(("0.txt", b"a"), ("inner.tar", inner * 50))
    names, (hole,) = salvaged(outer[: 4 * 512 + 3 * len(inner)])
    assert names == ["0.txt"]
    assert "'inner.tar' ends at byte" in hole.problem


def extended(kind: bytes, size: int) -> bytes:
    """A header of a long name or of PAX fields that claims `size` bytes."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_what_is_behind_a_member_with_a_wrong_size_is_salvaged_where_it_is_whole_to_the_end():
    lying = THREE[:SECOND] + extended(tarfile.REGTYPE, 10 << 30) + THREE[SECOND + 512 :]
    names, (hole,) = salvaged(lying)
    assert (names, hole.start, hole.end) == (["0.txt", "2.txt"], SECOND, THIRD)
    names, (hole,) = salvaged(lying[:-512])  # which may be a cut of 10 GB
    assert (names, hole.start, hole.end) == (["0.txt"], SECOND, len(lying) - 512)


HOSTILE = {
    "a file of 10 GB": extended(tarfile.REGTYPE, 10 << 30),
    "a long name of 10 GB": extended(tarfile.GNUTYPE_LONGNAME, 10 << 30),
    "PAX fields of 10 GB": extended(tarfile.XHDTYPE, 10 << 30),
    "PAX fields for all of 10 GB": extended(tarfile.XGLTYPE, 10 << 30),
    "names without end": extended(tarfile.GNUTYPE_LONGNAME, 512) * 4000,
    "fields without end": (extended(tarfile.XHDTYPE, 512) + b"9" * 512) * 2000,
}


@pytest.mark.parametrize("block", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_costs_no_memory_and_is_damage_with_its_offset(block):
    tracemalloc.start()
    with pytest.raises(Damage, match=rf"my\.tar.* at byte {SECOND}, after 1 members"):
        scanned(THREE[:SECOND] + block + THREE[SECOND:])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20


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
