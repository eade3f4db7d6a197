"""Tars that others made: grouped by key, adjacent or not; damage stops the scan."""

import subprocess
import tarfile

import pyarrow as pa
import pytest
from tiny_files import library_tar, picture, sound, tar

from mmdata.cluster import Resources
from mmdata.config import ShardConfig
from mmdata.corpora import open_corpus
from mmdata.errors import ConfigError, Damage, NotFound
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset
from mmdata.storage.receipts import read_receipts, read_rejects
from mmdata.storage.shards import read_sample_table
from mmdata.types import Modality, Outcome, Reason, Reject, Sample

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


def test_the_class_of_a_sample_is_metadata(tmp_path):
    members = [("x.png", PNG), ("x.cls", b"7\n"), ("y.png", PNG), ("y.cls", b"bird"), ("y.json", b'{"cls": "cat"}')]
    assert [sample.metadata for sample in read(written(tmp_path, *members))] == [{"cls": 7}, {"cls": "cat"}]


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
    _, ignored = scanned(written(tmp_path, ("x.txt", b"one"), ("x.pyd", b"7"), ("README", b""), ("._x.txt", b"")))
    assert ignored == {".pyd": 1, "hidden": 1, "no suffix": 1}


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
    with pytest.raises(
        Damage, match=rf"{tmp_path}/b\.tar: truncated header at byte 1024, after 1 members; .*--salvage"
    ):
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
    receipts = read_receipts(sharded.store, "shards")
    assert [row["key"] for row in rows] == read_sample_table(sharded, receipts["000000"])["key"].to_pylist()
    assert {row["image_suffix"] for row in rows} == {"png"}
    assert ignored == {}


def test_what_is_no_file_is_a_reject_and_never_followed(tmp_path):
    kinds = {"x.png": tarfile.SYMTYPE, "y.png": tarfile.LNKTYPE, "z.png": tarfile.CHRTYPE, "README": tarfile.SYMTYPE}
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("/abs/x.txt"))
        archive.addfile(tarfile.TarInfo("../../up.txt"))
    rows, ignored = scanned(tmp_path / "a.tar")
    assert ignored == {"no suffix": 1}
    assert [row["key"] for row in rows] == ["/abs/x", "../../up", "x", "y", "z"]  # a key is never a path
    summary = shard(ShardConfig(dataset=f"{tmp_path}/d", source=f"{tmp_path}/a.tar", max_reject_rate=1), Resources())
    assert (summary.rows_in, summary.rows_out, summary.rejected) == (5, 0, {"empty": 2, "unsupported": 3})
    remedy = "pack files: tar --dereference --hard-dereference"
    told = {r.key: r.message for r in read_rejects(Dataset(f"{tmp_path}/d").store, "shards")}
    assert told["x"] == f"x.png is a link to /etc/passwd, not a plain file; {remedy}"
    assert told["z"] == "z.png is a device entry, not a plain file"
    assert not (tmp_path.parent.parent / "up.txt").exists()


def test_a_part_that_is_a_link_is_listed_and_the_others_of_its_sample_are_kept(tmp_path):
    (tmp_path / "source").mkdir()
    for n in range(2):
        (tmp_path / f"source/{n}.png").write_bytes(PNG)
    (tmp_path / "source/0.txt").write_text("a red square")
    (tmp_path / "source/1.txt").hardlink_to(tmp_path / "source/0.txt")
    names = ["0.png", "0.txt", "1.png", "1.txt"]
    subprocess.run(["tar", "-cf", "../a.tar", *names], cwd=tmp_path / "source", check=True)
    config = ShardConfig(dataset=f"{tmp_path}/d", source=f"{tmp_path}/a.tar")
    summary = shard(config, Resources())
    assert (summary.rows_out, summary.rejected, summary.repaired) == (2, {}, {"unsupported": 1})
    (note,) = read_rejects(Dataset(config.dataset).store, "shards")
    assert (note.key, note.part, note.outcome) == ("1", TEXT, Outcome.REPAIRED)
    assert note.message.startswith("1.txt is a link to 0.txt, not a plain file; pack files: tar --dereference")
    needing = ShardConfig(dataset=f"{tmp_path}/e", source=config.source, require=("text",), max_reject_rate=1)
    assert shard(needing, Resources()).rejected == {"unsupported": 1}
    pictures = ShardConfig(dataset=f"{tmp_path}/f", source=config.source, modalities=("image",))
    assert shard(pictures, Resources()).repaired == {}


def test_a_tar_without_a_sample_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"a\.tar holds no image, audio or text files; it has: no members"):
        scanned(written(tmp_path))
    with pytest.raises(NotFound, match=r"it has: \{'\.pdf': 1\}"):
        scanned(written(tmp_path, ("x.pdf", b"1")))


def test_tars_that_number_their_samples_alike_keep_them_all_under_the_names_of_the_tars(tmp_path):
    for name in ("a", "b"):
        written(tmp_path, ("000.txt", name.encode()), ("001.txt", b"1"), name=f"{name}.tar")
    assert [(s.key, s.parts[TEXT].data) for s in read(tmp_path / "*.tar")] == [
        ("a/000", b"a"),
        ("a/001", b"1"),
        ("b/000", b"b"),
        ("b/001", b"1"),
    ]


def test_shards_of_our_own_give_their_keys_and_metadata_back(tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    for key in ("sub/ü v1.5", "plain"):
        (source / f"{key}.txt").write_text(key)
        (source / f"{key}.json").write_text('{"year": 7}')
    shard(ShardConfig(dataset=str(tmp_path / "d"), source=str(source), samples_per_shard=1), Resources())
    samples = read(tmp_path / "d/shards/*.tar")
    assert {s.key: s.metadata for s in samples} == {
        "plain": {"year": 7},
        "sub/ü v1.5": {"folder": "sub", "year": 7},
    }


def test_salvage_keeps_what_is_whole_and_counts_each_hole_as_a_reject(tmp_path):
    data = bytearray(tar(*[(f"{n:02d}.txt", b"text %d" % n) for n in range(20)]))
    data[1024 * 7 + 2] ^= 1
    (tmp_path / "a.tar").write_bytes(data[:-1024])
    with pytest.raises(Damage, match=r"a\.tar: .* at byte 7168, after 7 members"):
        scanned(tmp_path / "a.tar")
    table, _ = open_corpus(str(tmp_path / "a.tar"), "webdataset", {}, salvage=True).scan()
    rows = table.to_pylist()
    assert [row["key"] for row in rows if row["reason"] is None] == [f"{n:02d}" for n in range(20) if n != 7]
    lost = {row["key"]: row["message"] for row in rows if row["reason"] == Reason.DAMAGED}
    assert list(lost) == ["a.tar@7168", "a.tar@20480"]
    assert lost["a.tar@7168"] == "bad checksum at byte 7168, after 7 members; 1024 bytes passed over"
    assert lost["a.tar@20480"] == "the end marker is missing at byte 20480, after 19 members; 0 bytes passed over"


def test_a_damaged_shard_of_our_own_is_salvaged_under_its_own_keys(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for n in range(30):
        (source / f"key {n}.txt").write_text(f"text {n}")
    shard(ShardConfig(dataset=str(tmp_path / "d"), source=str(source)), Resources())
    path = tmp_path / "d/shards/000000.tar"
    path.write_bytes(path.read_bytes()[:40_000])
    config = ShardConfig(dataset=str(tmp_path / "e"), source=str(path), salvage=True, max_reject_rate=0.2)
    summary = shard(config, Resources())
    assert (summary.rows_in, summary.rows_out) == (21, 19)
    assert summary.rejected == {"damaged": 1, "missing_part": 1}  # of the last sample only the .json was whole
    table = read_sample_table(Dataset(config.dataset), read_receipts(Dataset(config.dataset).store, "shards")["000000"])
    assert set(table["key"].to_pylist()) < {f"key {n}" for n in range(30)}


def test_salvage_is_for_tars(tmp_path):
    with pytest.raises(ConfigError, match="--salvage is for tars"):
        open_corpus(str(tmp_path), "folder", {}, salvage=True)
