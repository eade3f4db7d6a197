"""Sharding: the plan first, the same bytes every time, every sample in or in the rejects, and only what is missing."""

import shutil

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_files import picture, sound, tar

from mmdata.cluster import Resources
from mmdata.config import ShardConfig
from mmdata.corpora.folder import Folder
from mmdata.errors import ConfigError, Conflict, Damage, NotFound, TooManyRejects
from mmdata.stages import Summary
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset
from mmdata.storage.receipts import read_receipts, read_rejects
from mmdata.storage.shards import read_part, read_sample_table
from mmdata.storage.tables import concat, from_parquet
from mmdata.types import Modality, Outcome, Reason

HERE = Resources(workers=0)
PNG, WAV = picture(), sound()
REJECTED, REPAIRED = Outcome.REJECTED, Outcome.REPAIRED


def write(folder, files: dict[str, bytes]):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def texts(folder, count: int = 6):
    return write(folder, {f"{n}.txt": b"text %d" % n for n in range(count)})


def run(source, dataset, resources: Resources = HERE, watch=lambda *told: None, **options) -> Summary:
    return shard(ShardConfig(source=str(source), dataset=str(dataset), **options), resources, watch)


def contents(dataset) -> dict[str, bytes]:
    """The files of the shards themselves: tars and sample tables."""
    store = Dataset.open(str(dataset)).store
    wanted = [info.path for info in store.list("shards") if info.path.endswith((".tar", ".samples.parquet"))]
    return {path: store.read(path) for path in wanted}


def versions(dataset) -> dict[str, str]:
    return {info.path: info.version for info in Dataset.open(str(dataset)).store.list("shards")}


def samples(dataset) -> list[dict]:
    opened = Dataset.open(str(dataset))
    receipts = read_receipts(opened.store, "shards").values()
    return concat([read_sample_table(opened, receipt) for receipt in receipts]).to_pylist()


def keys(dataset) -> list[str]:
    return [row["key"] for row in samples(dataset)]


def rejects(dataset) -> list[tuple]:
    rows = read_rejects(Dataset.open(str(dataset)).store, "shards")
    return [(row.key, row.part, row.outcome, row.reason) for row in rows]


# the same bytes


def test_shards_are_the_same_when_made_twice(corpus, tmp_path):
    run(corpus, tmp_path / "a", samples_per_shard=16)
    run(corpus, tmp_path / "b", samples_per_shard=16)
    assert list(contents(tmp_path / "a"))[::2] == [f"shards/00000{n}.samples.parquet" for n in range(4)]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_shards_are_the_same_from_a_copy_of_the_source(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "elsewhere")
    run(corpus, tmp_path / "a", samples_per_shard=16)
    run(tmp_path / "elsewhere", tmp_path / "b", samples_per_shard=16)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_shards_are_the_same_on_ray_workers_and_without(corpus, tmp_path, local_ray):
    run(corpus, tmp_path / "a", samples_per_shard=16, dedup="exact")
    run(corpus, tmp_path / "b", Resources(workers=2), samples_per_shard=16, dedup="exact")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_seed_gives_one_order_and_another_seed_another(tmp_path):
    source = texts(tmp_path / "source", 20)
    for name, seed in (("none", None), ("one", 1), ("again", 1), ("two", 2)):
        run(source, tmp_path / name, shuffle=seed, samples_per_shard=6)
    assert contents(tmp_path / "one") == contents(tmp_path / "again")
    assert keys(tmp_path / "none") == sorted(str(n) for n in range(20))
    assert keys(tmp_path / "one") != keys(tmp_path / "two")
    assert sorted(keys(tmp_path / "one")) == sorted(keys(tmp_path / "two")) == keys(tmp_path / "none")


# the plan


def test_a_shard_ends_at_its_number_of_samples(tmp_path):
    run(texts(tmp_path / "source", 7), tmp_path / "d", samples_per_shard=3)
    receipts = read_receipts(Dataset.open(str(tmp_path / "d")).store, "shards")
    assert {name: receipt.rows_out for name, receipt in receipts.items()} == {"000000": 3, "000001": 3, "000002": 1}
    assert [row["id"] for row in samples(tmp_path / "d")] == list(range(7))


def test_a_shard_ends_before_its_number_of_bytes(tmp_path):
    source = write(tmp_path / "source", {f"{n}.txt": b"x" * size for n, size in enumerate((40, 60, 1, 500, 1))})
    run(source, tmp_path / "d", shard_size=100)
    receipts = read_receipts(Dataset.open(str(tmp_path / "d")).store, "shards")
    assert [receipt.rows_out for receipt in receipts.values()] == [2, 1, 1, 1]


def test_the_plan_is_a_row_group_a_shard_and_names_every_source(tmp_path):
    run(texts(tmp_path / "source", 5), tmp_path / "d", samples_per_shard=2)
    plan = pq.ParquetFile(tmp_path / "d/shards/plan.parquet")
    facts = orjson.loads((tmp_path / "d/shards/plan.json").read_bytes())
    assert [plan.metadata.row_group(n).num_rows for n in range(3)] == [2, 2, 1]
    assert plan.read()["source"].to_pylist() == [f"{n}.txt" for n in range(5)]
    assert (facts["samples"], facts["shards"], facts["options"]["samples_per_shard"]) == (5, 3, 2)


def test_what_is_no_media_is_counted_in_the_plan(tmp_path):
    source = write(texts(tmp_path / "source", 1), {"a.pdf": b"", "b.pdf": b"", "README": b"", ".hidden": b""})
    summary = run(source, tmp_path / "d")
    assert summary.facts["ignored"] == {".pdf": 2, "hidden": 1, "no suffix": 1}
    assert orjson.loads((tmp_path / "d/shards/plan.json").read_bytes())["ignored"] == summary.facts["ignored"]


# keys and metadata


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=6, unique=True))
def test_any_key_of_a_table_survives(tmp_path_factory, wanted):
    folder = tmp_path_factory.mktemp("keys")
    lines = [orjson.dumps({"key": key, "text": f"text of {key}"}) for key in wanted]
    (folder / "a.jsonl").write_bytes(b"\n".join(lines))
    run(folder / "a.jsonl", folder / "d", samples_per_shard=2, max_reject_rate=1)
    assert keys(folder / "d") == wanted


def test_weird_names_survive(tmp_path):
    names = ["a.b.c", "A", "a", "d/e/f", "ü☃", "e\u0301", "\u00e9", "x y", "tab\t", "l\ni", f"{'n' * 150}/{'m' * 150}"]
    source = write(tmp_path / "source", {f"{name}.txt": name.encode() for name in names})
    run(source, tmp_path / "d", samples_per_shard=3)
    dataset = Dataset.open(str(tmp_path / "d"))
    rows = samples(tmp_path / "d")
    assert [row["key"] for row in rows] == sorted(names)
    read = [read_part(dataset, f"{row['id'] // 3:06d}", row, Modality.TEXT).data.decode() for row in rows]
    assert read == sorted(names)


def test_metadata_of_different_types_and_with_our_names_comes_through(tmp_path):
    files = {f"{n}.txt": b"text %d" % n for n in range(3)}
    jsons = {"0.json": b'{"year": 1, "key": "x"}', "1.json": b'{"year": "two", "id": 7}', "2.json": b'{"year": [3]}'}
    run(write(tmp_path / "source", files | jsons), tmp_path / "d", samples_per_shard=1)
    rows = samples(tmp_path / "d")
    assert [row["year"] for row in rows] == ["1", "two", "[3]"]
    assert [(row["id"], row["id_"], row["key"], row["key_"]) for row in rows] == [
        (0, None, "0", "x"),
        (1, 7, "1", None),
        (2, None, "2", None),
    ]


def test_captions_are_readable_whatever_the_encoding(tmp_path):
    source = {"a.txt": "großer Ball".encode("utf-16"), "b.txt": "\ufeffgroßer Ball\r\n".encode(), "c.txt": b"x" * 9999}
    run(write(tmp_path / "source", source), tmp_path / "d")
    assert [row["caption"] for row in samples(tmp_path / "d")] == ["großer Ball", "großer Ball", "x" * 500]


# every sample is in or in the rejects


MESS = {
    "fine.png": PNG,
    "fine.txt": b"text",
    "half.png": picture(size=(64, 64))[:-30],
    "half.txt": b"still here",
    "broken.png": b"no picture",
    "empty.txt": b"",
    "latin.txt": "größer".encode("latin-1"),
    "twice.jpg": picture("JPEG"),
    "twice.png": PNG,
    "badmeta.txt": b"text",
    "badmeta.json": b"{",
    "alone.json": b"{}",
    "sound.wav": WAV[:-100],
}
MESS_REJECTS = [
    ("alone", "", REJECTED, Reason.MISSING_PART),
    ("badmeta", "json", REPAIRED, Reason.BAD_METADATA),
    ("broken", "image", REJECTED, Reason.UNSUPPORTED),
    ("empty", "text", REJECTED, Reason.EMPTY),
    ("half", "image", REPAIRED, Reason.DECODE_TRUNCATED),
    ("latin", "text", REJECTED, Reason.BAD_TEXT),
    ("sound", "audio", REJECTED, Reason.DECODE_TRUNCATED),
    ("twice.png", "", REJECTED, Reason.DUPLICATE_KEY),
]


@pytest.mark.parametrize("per_shard", [1, 3, 1000])
def test_a_messy_folder_is_all_accounted_for(tmp_path, per_shard):
    summary = run(write(tmp_path / "source", MESS), tmp_path / "d", samples_per_shard=per_shard, max_reject_rate=1)
    assert keys(tmp_path / "d") == ["badmeta", "fine", "half", "twice"]
    assert rejects(tmp_path / "d") == MESS_REJECTS
    assert (summary.rows_in, summary.rows_out, sum(summary.rejected.values())) == (10, 4, 6)
    assert summary.repaired == {"bad_metadata": 1, "decode_truncated": 1}
    receipts = read_receipts(Dataset.open(str(tmp_path / "d")).store, "shards").values()
    assert [r.rows_in for r in receipts] == [r.rows_out + sum(r.rejected.values()) for r in receipts]


def test_a_part_that_cannot_be_decoded_does_not_lose_its_sample(tmp_path):
    run(write(tmp_path / "source", MESS), tmp_path / "d", max_reject_rate=1)
    half = samples(tmp_path / "d")[2]
    assert (half["key"], half["image_suffix"], half["caption"]) == ("half", None, "still here")


def test_without_validation_nothing_is_decoded(tmp_path):
    summary = run(write(tmp_path / "source", MESS), tmp_path / "d", validate_media=False, max_reject_rate=1)
    assert keys(tmp_path / "d") == ["badmeta", "broken", "empty", "fine", "half", "latin", "sound", "twice"]
    assert summary.rejected == {"duplicate_key": 1, "missing_part": 1}
    assert summary.repaired == {"bad_metadata": 1}


def test_only_the_modalities_asked_for_are_taken(tmp_path):
    source = write(tmp_path / "source", {"a.png": PNG, "a.txt": b"text", "b.txt": b"text"})
    run(source, tmp_path / "d", modalities=["image"], max_reject_rate=1)
    (row,) = samples(tmp_path / "d")
    assert (row["key"], row["image_suffix"], row["text_suffix"], row["caption"]) == ("a", "png", None, None)
    assert rejects(tmp_path / "d") == [("b", "", REJECTED, Reason.MISSING_PART)]


def test_a_sample_without_a_required_part_is_a_reject(tmp_path):
    source = write(tmp_path / "source", {"a.png": PNG, "a.txt": b"t", "b.txt": b"t", "c.png": b"bad", "c.txt": b"t"})
    run(source, tmp_path / "d", require=["image", "text"], max_reject_rate=1)
    assert keys(tmp_path / "d") == ["a"]
    assert rejects(tmp_path / "d") == [
        ("b", "", REJECTED, Reason.MISSING_PART),
        ("c", "image", REJECTED, Reason.UNSUPPORTED),
    ]


def test_a_shard_of_rejects_alone_is_an_empty_tar(tmp_path):
    source = write(tmp_path / "source", {"a.png": b"bad", "b.txt": b"good"})
    run(source, tmp_path / "d", samples_per_shard=1, max_reject_rate=1)
    assert (tmp_path / "d/shards/000000.tar").read_bytes() == bytes(1024)
    assert keys(tmp_path / "d") == ["b"]


def test_too_many_rejects_end_the_run_and_keep_what_was_done(tmp_path):
    files = {f"a{n}.png": b"bad" for n in range(2)} | {f"b{n}.txt": b"good" for n in range(8)}
    source = write(tmp_path / "source", files)
    with pytest.raises(TooManyRejects) as caught:
        run(source, tmp_path / "d", samples_per_shard=2, max_reject_rate=0.1)
    done = versions(tmp_path / "d")
    assert str(caught.value) == (
        "2 of 10 samples are left out, more than --max-reject-rate 0.1 allows: 2 unsupported\n"
        f"see which: mmdata rejects {tmp_path}/d"
    )
    assert "shards/000000.json" in done
    summary = run(source, tmp_path / "d", samples_per_shard=2, max_reject_rate=0.2)
    assert (summary.rows_in, summary.rows_out, summary.rejected) == (10, 8, {"unsupported": 2})
    assert versions(tmp_path / "d")["shards/000000.json"] == done["shards/000000.json"]


def test_a_source_file_that_goes_while_sharding_is_a_reject(tmp_path):
    source = texts(tmp_path / "source", 3)
    run(source, tmp_path / "d", watch=lambda *told: (source / "1.txt").unlink(missing_ok=True), max_reject_rate=1)
    assert keys(tmp_path / "d") == ["0", "2"]
    assert rejects(tmp_path / "d") == [("1", "", REJECTED, Reason.SOURCE_MISSING)]


def test_a_source_file_that_changes_while_sharding_is_a_reject(tmp_path):
    source = texts(tmp_path / "source", 3)
    run(source, tmp_path / "d", watch=lambda *told: (source / "1.txt").write_text("changed it"), max_reject_rate=1)
    assert keys(tmp_path / "d") == ["0", "2"]
    assert rejects(tmp_path / "d") == [("1", "", REJECTED, Reason.SOURCE_CHANGED)]


# duplicates


TWINS = {"a.png": PNG, "a.txt": b"one", "b.png": PNG, "b.txt": b"one", "c.png": PNG, "c.txt": b"two", "d.txt": b"one"}


def test_duplicates_are_counted_and_kept(tmp_path):
    summary = run(write(tmp_path / "source", TWINS), tmp_path / "d", samples_per_shard=1)
    assert summary.facts["duplicates"] == 1
    assert keys(tmp_path / "d") == ["a", "b", "c", "d"]


def test_duplicates_are_left_out_when_asked(tmp_path):
    source = write(tmp_path / "source", TWINS)
    summary = run(source, tmp_path / "d", dedup="exact", max_reject_rate=1)
    assert summary.facts["duplicates"] == 0
    assert keys(tmp_path / "d") == ["a", "c", "d"]
    assert rejects(tmp_path / "d") == [("b", "", REJECTED, Reason.DUPLICATE)]


def test_duplicates_are_looked_for_once(tmp_path, monkeypatch):
    source = write(tmp_path / "source", TWINS)
    run(source, tmp_path / "d", dedup="exact", max_reject_rate=1)
    read = []
    monkeypatch.setattr(Folder, "read", lambda self, rows: read.append(rows))
    summary = run(source, tmp_path / "d", dedup="exact", max_reject_rate=1)
    assert (summary.rows_out, summary.shards_before, read) == (3, summary.shards, [])
    with pytest.raises(Conflict, match="dedup: there 'exact', asked 'none'"):
        run(source, tmp_path / "d", max_reject_rate=1)


def test_duplicates_are_those_of_the_parts_asked_for(tmp_path):
    source = write(tmp_path / "source", TWINS)
    run(source, tmp_path / "d", dedup="exact", modalities=["image"], max_reject_rate=1)
    assert keys(tmp_path / "d") == ["a"]
    assert rejects(tmp_path / "d") == [
        ("b", "", REJECTED, Reason.DUPLICATE),
        ("c", "", REJECTED, Reason.DUPLICATE),
        ("d", "", REJECTED, Reason.MISSING_PART),
    ]


# again


def test_the_same_command_again_changes_nothing(tmp_path):
    source = texts(tmp_path / "source")
    run(source, tmp_path / "d", samples_per_shard=2)
    before = versions(tmp_path / "d")
    summary = run(source, tmp_path / "d", samples_per_shard=2)
    assert versions(tmp_path / "d") == before
    assert (summary.shards, summary.shards_before, summary.rows_now, summary.rows_out) == (3, 3, 0, 6)


def test_only_a_missing_shard_is_made(tmp_path):
    source = texts(tmp_path / "source")
    run(source, tmp_path / "d", samples_per_shard=2)
    before, files = versions(tmp_path / "d"), contents(tmp_path / "d")
    for suffix in ("json", "tar", "samples.parquet"):
        (tmp_path / f"d/shards/000001.{suffix}").unlink()
    summary = run(source, tmp_path / "d", samples_per_shard=2)
    after = versions(tmp_path / "d")
    assert contents(tmp_path / "d") == files
    assert (summary.shards_before, summary.rows_now) == (2, 2)
    assert {path for path in after if after[path] == before[path] and path.startswith("shards/0")} == {
        f"shards/{name}.{suffix}" for name in ("000000", "000002") for suffix in ("json", "tar", "samples.parquet")
    }


def test_a_run_that_is_broken_off_goes_on_where_it_stood(tmp_path):
    source = texts(tmp_path / "source", 8)
    run(source, tmp_path / "whole", samples_per_shard=1)

    def stop(stage: str, done: int, total: int, rows: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "d", watch=stop, samples_per_shard=1)
    assert 3 <= len(read_receipts(Dataset.open(str(tmp_path / "d")).store, "shards")) < 8
    run(source, tmp_path / "d", samples_per_shard=1)
    assert contents(tmp_path / "d") == contents(tmp_path / "whole")


def test_a_half_written_file_without_a_receipt_is_replaced(tmp_path):
    source = texts(tmp_path / "source")
    run(source, tmp_path / "d", samples_per_shard=2)
    files = contents(tmp_path / "d")
    (tmp_path / "d/shards/000001.json").unlink()
    (tmp_path / "d/shards/000001.tar").write_bytes(b"half")
    run(source, tmp_path / "d", samples_per_shard=2)
    assert contents(tmp_path / "d") == files


def test_a_finished_dataset_needs_its_source_no_more(tmp_path):
    source = texts(tmp_path / "source")
    run(source, tmp_path / "d")
    shutil.rmtree(source)
    assert run(source, tmp_path / "d").rows_out == 6
    with pytest.raises(NotFound):
        run(source, tmp_path / "d", samples_per_shard=2)
    with pytest.raises(NotFound):
        run(tmp_path / "other", tmp_path / "d")


def test_an_unfinished_dataset_needs_its_source(tmp_path):
    source = texts(tmp_path / "source")
    run(source, tmp_path / "d")
    (tmp_path / "d/shards/000000.json").unlink()
    shutil.rmtree(source)
    with pytest.raises(NotFound):
        run(source, tmp_path / "d")


def test_another_option_is_a_conflict_with_both_sides_named(tmp_path):
    source = texts(tmp_path / "source")
    run(source, tmp_path / "d")
    before = versions(tmp_path / "d")
    with pytest.raises(Conflict) as caught:
        run(source, tmp_path / "d", shuffle=3, require=["text"])
    lines = str(caught.value).splitlines()
    assert lines[0] == f"the plan of {tmp_path}/d was made from something else:"
    assert "  require: there [], asked ['text']" in lines
    assert "  shuffle: there None, asked 3" in lines
    assert lines[-1] == "use another dataset, or --overwrite to make all shards again"
    assert versions(tmp_path / "d") == before


def test_another_source_is_a_conflict_that_names_what_changed(tmp_path):
    source = texts(tmp_path / "source")
    run(source, tmp_path / "d")
    (source / "0.txt").unlink()
    (source / "1.txt").write_text("another text")
    write(source, {"7.txt": b"new", "8.txt": b"new"})
    with pytest.raises(Conflict) as caught:
        run(source, tmp_path / "d")
    lines = str(caught.value).splitlines()
    assert "  samples: there 6, asked 7" in lines
    assert "  1 of the sources gone, as '0.txt'" in lines
    assert "  2 of the sources new, as '7.txt'" in lines
    assert "  1 of the sources changed, as '1.txt'" in lines


def test_another_place_of_the_source_is_a_conflict(tmp_path):
    run(texts(tmp_path / "a"), tmp_path / "d")
    with pytest.raises(Conflict, match=f"source: there '{tmp_path}/a', asked '{tmp_path}/b'"):
        run(texts(tmp_path / "b"), tmp_path / "d")


def test_overwrite_makes_everything_again(tmp_path):
    source = texts(tmp_path / "source")
    run(source, tmp_path / "d", samples_per_shard=1)
    (source / "0.txt").unlink()
    summary = run(source, tmp_path / "d", samples_per_shard=3, overwrite=True)
    assert (summary.shards, summary.shards_before, summary.rows_out) == (2, 0, 5)
    run(source, tmp_path / "fresh", samples_per_shard=3)
    assert contents(tmp_path / "d") == contents(tmp_path / "fresh")


def test_overwrite_keeps_what_was_made_from_the_same(tmp_path):
    source = texts(tmp_path / "source")
    run(source, tmp_path / "d", samples_per_shard=2)
    (tmp_path / "d/shards/000001.json").unlink()
    summary = run(source, tmp_path / "d", samples_per_shard=2, overwrite=True)
    assert (summary.shards, summary.shards_before) == (3, 2)


def test_overwrite_from_a_source_that_is_not_there_deletes_nothing(tmp_path):
    run(texts(tmp_path / "source"), tmp_path / "d")
    before = versions(tmp_path / "d")
    with pytest.raises(NotFound):
        run(tmp_path / "typo", tmp_path / "d", overwrite=True)
    assert versions(tmp_path / "d") == before


def test_a_plan_of_a_killed_run_is_written_anew(tmp_path):
    source = texts(tmp_path / "source")
    run(source, tmp_path / "whole")
    Dataset.create(str(tmp_path / "d")).store.create("shards/plan.parquet", b"of another plan")
    run(source, tmp_path / "d")
    assert contents(tmp_path / "d") == contents(tmp_path / "whole")


def test_a_plan_that_was_damaged_is_told(tmp_path):
    source = texts(tmp_path / "source")
    run(source, tmp_path / "d")
    (tmp_path / "d/shards/plan.json").write_text("{")
    with pytest.raises(Damage, match=r"plan\.json is damaged"):
        run(source, tmp_path / "d")


# sources


def test_a_dataset_in_its_own_source_is_refused_before_anything_is_written(tmp_path):
    source = texts(tmp_path / "source")
    with pytest.raises(ConfigError, match=f"the dataset {source}/data lies in its source {source}"):
        run(source, source / "data")
    assert not (source / "data").exists()


def test_a_dataset_may_lie_beside_its_table(tmp_path):
    (tmp_path / "a.csv").write_text("key,text\na,one\n")
    run(tmp_path / "*.csv", tmp_path / "data")
    run(tmp_path / "*.csv", tmp_path / "data")
    assert keys(tmp_path / "data") == ["a"]


def test_a_source_that_is_not_there_leaves_nothing_behind(tmp_path):
    with pytest.raises(NotFound, match="nowhere does not exist"):
        run(tmp_path / "nowhere", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_damaged_tar_stops_the_run_before_any_shard(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar(("x.txt", b"one"), ("y.txt", b"two"))[:1100])
    with pytest.raises(Damage, match=r"a\.tar: truncated header at byte 1024"):
        run(tmp_path / "a.tar", tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("kind", ["folder", "tar", "jsonl"])
def test_the_same_samples_from_any_kind_of_source_have_the_same_parts(tmp_path, kind):
    files = {"a.png": PNG, "a.txt": b"one", "b.png": picture(colour=(0, 0, 255)), "b.txt": b"two"}
    write(tmp_path / "folder", files)
    (tmp_path / "a.tar").write_bytes(tar(*sorted(files.items())))
    table = '{"key":"a","image":"folder/a.png","text":"one"}\n{"key":"b","image":"folder/b.png","text":"two"}'
    (tmp_path / "a.jsonl").write_text(table)
    run(tmp_path / {"folder": "folder", "tar": "a.tar", "jsonl": "a.jsonl"}[kind], tmp_path / "d")
    rows, dataset = samples(tmp_path / "d"), Dataset.open(str(tmp_path / "d"))
    pictures = [read_part(dataset, "000000", row, Modality.IMAGE).data for row in rows]
    assert [(row["key"], row["caption"]) for row in rows] == [("a", "one"), ("b", "two")]
    assert pictures == [files["a.png"], files["b.png"]]


def test_the_receipts_are_also_one_table(tmp_path):
    run(texts(tmp_path / "source"), tmp_path / "d", samples_per_shard=2)
    table = from_parquet((tmp_path / "d/shards/receipts.parquet").read_bytes(), "receipts")
    assert table["shard"].to_pylist() == ["000000", "000001", "000002"]
    assert table["rows_out"].to_pylist() == [2, 2, 2]
