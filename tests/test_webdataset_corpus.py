"""Tars that others made: grouped by key, adjacent or not; damage stops the scan."""

import tarfile

import pyarrow as pa
import pytest
from tiny_files import library_tar, picture, sound, tar

from mmdata.corpora import open_corpus
from mmdata.errors import Damage, NotFound
from mmdata.types import Modality, Reason, Reject, Sample

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
PNG, JPEG, WAV = picture(), picture("JPEG"), sound()


def scanned(source):
    table, ignored = open_corpus(str(source), "webdataset", {}).scan()
    return table.to_pylist(), ignored


def planned(source) -> pa.Table:
    table, _ = open_corpus(str(source), "webdataset", {}).scan()
    return table.add_column(0, "id", pa.array(range(table.num_rows)))


def read(source, table: pa.Table | None = None) -> list[Sample | Reject]:
    return list(open_corpus(str(source), "webdataset", {}).read(planned(source) if table is None else table))


def written(tmp_path, *members: tuple[str, bytes], name: str = "a.tar"):
    (tmp_path / name).write_bytes(tar(*members))
    return tmp_path / name


def test_members_of_one_key_are_one_sample(tmp_path):
    source = written(tmp_path, ("x.png", PNG), ("x.txt", b"one"), ("x.json", b'{"year": 1}'), ("y.wav", WAV))
    first, second = read(source)
    assert (first.key, first.source, first.metadata) == ("x", "a.tar:x", {"year": 1})
    assert {m: (p.suffix, p.data) for m, p in first.parts.items()} == {IMAGE: ("png", PNG), TEXT: ("txt", b"one")}
    assert (second.key, list(second.parts)) == ("y", [AUDIO])


def test_members_that_are_not_neighbours_are_still_one_sample(tmp_path):
    source = written(tmp_path, ("x.png", PNG), ("y.png", PNG), ("x.txt", b"one"), ("y.txt", b"two"))
    assert [(s.key, s.parts[TEXT].data) for s in read(source)] == [("x", b"one"), ("y", b"two")]


def test_suffixes_are_taken_in_any_case_and_keys_as_they_are(tmp_path):
    source = written(tmp_path, ("X.PNG", PNG), ("x.Txt", b"one"))
    assert [(s.key, [p.suffix for p in s.parts.values()]) for s in read(source)] == [("X", ["png"]), ("x", ["txt"])]


def test_a_key_ends_at_the_first_dot_of_the_name_and_folders_may_have_dots(tmp_path):
    source = written(tmp_path, ("v1.2/x.left.png", PNG), ("v1.2/x.caption.txt", b"one"))
    (sample,) = read(source)
    assert (sample.key, sorted(sample.parts)) == ("v1.2/x", [IMAGE, TEXT])


def test_a_second_image_of_one_key_is_a_counted_reject(tmp_path):
    rows, _ = scanned(written(tmp_path, ("x.left.png", PNG), ("x.right.png", PNG)))
    assert [(row["key"], row["reason"]) for row in rows] == [("x", None), ("a.tar:x.right.png", "duplicate_key")]


def test_members_that_are_no_media_are_counted(tmp_path):
    _, ignored = scanned(written(tmp_path, ("x.txt", b"one"), ("x.cls", b"7"), ("README", b""), ("._x.txt", b"")))
    assert ignored == {".cls": 1, "hidden": 1, "no suffix": 1}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_keys(tmp_path, form):
    (tmp_path / "a.tar").write_bytes(library_tar(form, ("ü" * 300 + ".txt", b"one"), ("日本/☃.txt", b"two")))
    assert [sample.key for sample in read(tmp_path / "a.tar")] == ["ü" * 300, "日本/☃"]


def test_a_name_that_is_not_utf8_is_escaped(tmp_path):
    (tmp_path / "a.tar").write_bytes(library_tar(tarfile.GNU_FORMAT, ("caf\udce9.txt", b"one")))
    (sample,) = read(tmp_path / "a.tar")
    assert (sample.key, sample.parts[TEXT].data) == ("caf\\xe9", b"one")


def test_a_pattern_takes_tars_in_order_and_not_those_of_subfolders(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, text in (("b-2.tar", b"two"), ("b-1.tar", b"one"), ("c.tar", b"no"), ("sub/b-3.tar", b"no")):
        written(tmp_path, (f"{name[0:3]}.txt".replace("/", ""), text), name=name)
    assert [(s.key, s.parts[TEXT].data) for s in read(tmp_path / "b-*.tar")] == [("b-1", b"one"), ("b-2", b"two")]


def test_a_key_that_comes_in_two_tars_is_a_counted_reject(tmp_path):
    written(tmp_path, ("x.txt", b"one"), name="a.tar")
    written(tmp_path, ("x.txt", b"two"), name="b.tar")
    first, second = scanned(tmp_path / "*.tar")[0]
    assert (first["source"], first["reason"]) == ("a.tar:x", None)
    assert (second["source"], second["reason"]) == ("b.tar:x", "duplicate_key")
    assert second["message"] == "the key is taken by a.tar:x"


def test_bad_metadata_is_left_out_and_noted(tmp_path):
    source = written(tmp_path, ("x.txt", b"one"), ("x.json", b"[1]"), ("y.txt", b"two"))
    first, second = read(source)
    assert (first.key, first.metadata, [note.reason for note in first.notes]) == ("x", {}, [Reason.BAD_METADATA])
    assert (second.key, second.notes) == ("y", ())


@pytest.mark.parametrize("order", [1, -1])
def test_the_plain_suffix_is_the_picture_and_a_longer_one_beside_it_is_counted(tmp_path, order):
    source = written(tmp_path, *[("x.depth.png", PNG), ("x.jpg", JPEG)][::order], ("y.thumb.png", PNG))
    first, second = read(source)
    assert (first.parts[IMAGE].suffix, first.parts[IMAGE].data) == ("jpg", JPEG)
    assert second.parts[IMAGE].data == PNG
    assert scanned(source)[1] == {".depth.png": 1}


def test_a_damaged_tar_stops_the_scan_and_is_named_with_the_offset(tmp_path):
    written(tmp_path, ("x.txt", b"one"), name="a.tar")
    bad = written(tmp_path, ("y.txt", b"two"), ("z.txt", b"three"), name="b.tar")
    bad.write_bytes(bad.read_bytes()[:1100])
    with pytest.raises(Damage, match=rf"{tmp_path}/b\.tar: truncated header at byte 1024, after 1 members"):
        scanned(tmp_path / "*.tar")


def test_a_tar_that_changes_after_the_plan_rejects_its_rows(tmp_path):
    written(tmp_path, ("x.txt", b"one"), name="a.tar")
    changed = written(tmp_path, ("y.txt", b"two"), ("z.txt", b"three"), name="b.tar")
    plan = planned(tmp_path / "*.tar")
    changed.write_bytes(tar(("y.txt", b"2"), ("y2.txt", b"2"), ("z.txt", b"3")))
    kept, *rejects = read(tmp_path / "*.tar", plan)
    assert kept.key == "x"
    assert [(r.key, r.reason) for r in rejects] == [("y", Reason.SOURCE_CHANGED), ("z", Reason.SOURCE_CHANGED)]


def test_no_tar_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=rf"no tar matches {tmp_path}/\*\.tar"):
        scanned(tmp_path / "*.tar")
    with pytest.raises(NotFound):
        scanned(tmp_path / "typo" / "a.tar")


def test_our_own_shards_can_be_a_source(sharded):
    rows, ignored = scanned(f"{sharded.url}/shards/000000.tar")
    assert [row["key"] for row in rows[:2]] == ["000000000", "000000001"]
    assert {row["image_suffix"] for row in rows} == {"png"}
    assert ignored == {}
