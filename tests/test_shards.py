"""A shard is a plain tar with a table beside it that finds any part and proves it."""

import io
import tarfile

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_files import picture, sound

from mmdata.errors import Damage, NotFound
from mmdata.storage.dataset import Dataset
from mmdata.storage.receipts import commit
from mmdata.storage.shards import (
    ShardWriter,
    member_name,
    metadata_names,
    pack,
    read_part,
    read_parts,
    read_sample_table,
)
from mmdata.storage.store import sha256
from mmdata.storage.tables import from_parquet
from mmdata.types import Modality, Part, Receipt, Sample

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
PNG, WAV = picture(), sound()

KEYS = [
    "plain",
    "with.dots.in.it",
    "a/b/c",
    "/leading",
    "trailing/",
    "../up",
    "ünï☃ 日本",
    "e\u0301",
    "\u00e9",
    "x" * 300,
    "Case",
    "case",
    "tab\t and\nline",
    "'quoted' \"twice\"",
    "back\\slash",
    "",
    ".hidden",
    "000000001.jpg",
    "NULL",
    "nul\0inside",
]


def sample(number: int, key: str = "key", metadata=None, **parts: bytes) -> Sample:
    kinds = {"png": IMAGE, "wav": AUDIO, "txt": TEXT}
    return Sample(
        number,
        key,
        f"source of {key}",
        {kinds[suffix]: Part(suffix, data) for suffix, data in parts.items()},
        metadata or {},
    )


def written(tmp_path, *samples: Sample) -> tuple[Dataset, Receipt]:
    writer = ShardWriter()
    for one in samples:
        writer.add(pack(one))
    count = len(samples)
    receipt = Receipt("shard", "000000", "f", {}, {}, count, count, 0, {}, {}, {})
    dataset = Dataset.create(str(tmp_path / "dataset"))
    return dataset, commit(dataset.store, "shards", receipt, writer.files())


def test_a_shard_is_a_tar_whose_members_are_numbered(tmp_path):
    dataset, _ = written(tmp_path, sample(7, png=PNG, txt=b"a ball", wav=WAV), sample(8, txt=b"none"))
    with tarfile.open(fileobj=io.BytesIO(dataset.store.read("shards/000000.tar"))) as archive:
        contents = {info.name: archive.extractfile(info).read() for info in archive}
    assert list(contents) == [
        "000000007.json",
        "000000007.png",
        "000000007.txt",
        "000000007.wav",
        "000000008.json",
        "000000008.txt",
    ]
    assert (contents["000000007.png"], contents["000000007.wav"]) == (PNG, WAV)
    assert orjson.loads(contents["000000007.json"]) == {"key": "key", "source": "source of key", "metadata": {}}


def test_the_sample_table_finds_every_part(tmp_path):
    dataset, receipt = written(tmp_path, sample(7, png=PNG, txt=b"a ball"))
    (row,) = read_sample_table(dataset, receipt).to_pylist()
    tar = dataset.store.read("shards/000000.tar")
    start, size = row["image_offset"], row["image_size"]
    assert (row["id"], row["key"], row["source"]) == (7, "key", "source of key")
    assert (row["image_suffix"], row["text_suffix"], row["audio_suffix"]) == ("png", "txt", None)
    assert tar[start : start + size] == PNG
    assert row["image_sha256"] == sha256(PNG)


def test_parts_are_read_one_by_one(tmp_path):
    dataset, receipt = written(tmp_path, sample(7, png=PNG, txt=b"a ball"))
    (row,) = read_sample_table(dataset, receipt).to_pylist()
    assert read_part(dataset, "000000", row, IMAGE) == Part("png", PNG)
    assert read_part(dataset, "000000", row, TEXT) == Part("txt", b"a ball")
    with pytest.raises(NotFound, match="sample 'key' has no audio"):
        read_part(dataset, "000000", row, AUDIO)


def test_wanted_parts_are_read_in_order_and_absent_ones_left_out(tmp_path):
    dataset, receipt = written(tmp_path, sample(0, png=PNG), sample(1, txt=b"one"), sample(2, png=PNG, txt=b"two"))
    table = read_sample_table(dataset, receipt)
    found = list(read_parts(dataset, "000000", table, {TEXT}))
    assert found == [(1, {TEXT: b"one"}), (2, {TEXT: b"two"})]


def test_parts_far_apart_are_read_without_what_lies_between(tmp_path):
    far = bytes(5_000_000)
    dataset, receipt = written(tmp_path, *[sample(n, wav=far, txt=b"text %d" % n) for n in range(3)])
    table = read_sample_table(dataset, receipt)
    texts = [bytes(parts[TEXT]) for _, parts in read_parts(dataset, "000000", table, {TEXT})]
    both = [(bytes(p[TEXT]), len(p[AUDIO])) for _, p in read_parts(dataset, "000000", table, {TEXT, AUDIO})]
    assert texts == [b"text 0", b"text 1", b"text 2"]
    assert both == [(b"text 0", 5_000_000), (b"text 1", 5_000_000), (b"text 2", 5_000_000)]


def test_an_empty_shard_has_no_parts(tmp_path):
    dataset, receipt = written(tmp_path)
    table = read_sample_table(dataset, receipt)
    assert table.num_rows == 0
    assert list(read_parts(dataset, "000000", table, {IMAGE})) == []
    assert dataset.store.read("shards/000000.tar") == bytes(1024)


def test_a_flipped_byte_of_a_part_is_damage(tmp_path):
    dataset, receipt = written(tmp_path, sample(0, "good", txt=b"good"), sample(1, "bad", txt=b"bad"))
    table = read_sample_table(dataset, receipt)
    row = table.to_pylist()[1]
    tar = bytearray(dataset.store.read("shards/000000.tar"))
    tar[row["text_offset"]] ^= 1
    dataset.store.replace("shards/000000.tar", tar)
    with pytest.raises(Damage, match=f"shard 000000: the text of 'bad' at byte {row['text_offset']} is damaged"):
        read_part(dataset, "000000", row, TEXT)
    with pytest.raises(Damage, match=f"000000.tar: the text at byte {row['text_offset']} is damaged"):
        list(read_parts(dataset, "000000", table, {TEXT}))


def test_a_sample_table_that_is_not_its_receipts_is_damage(tmp_path):
    dataset, receipt = written(tmp_path, sample(0, txt=b"one"))
    other, _ = written(tmp_path / "other", sample(0, txt=b"two"))
    dataset.store.replace("shards/000000.samples.parquet", other.store.read("shards/000000.samples.parquet"))
    with pytest.raises(Damage, match=r"000000\.samples\.parquet is not the file that its receipt names"):
        read_sample_table(dataset, receipt)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_survives(tmp_path, key):
    dataset, receipt = written(tmp_path, sample(0, key, txt=b"text"))
    (row,) = read_sample_table(dataset, receipt).to_pylist()
    about = dataset.store.read_range("shards/000000.tar", row["json_offset"], row["json_size"])
    assert row["key"] == key
    assert orjson.loads(about)["key"] == key


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8))
def test_any_keys_survive_together(keys):
    writer = ShardWriter()
    for number, key in enumerate(keys):
        writer.add(pack(sample(number, key, txt=b"text")))
    assert from_parquet(writer.files()["samples.parquet"], "here")["key"].to_pylist() == keys


def test_metadata_becomes_columns_and_never_takes_one_of_ours(tmp_path):
    metadata = {"year": 1999, "key": "theirs", "tags": ["a", "b"], "score": 0.5}
    dataset, receipt = written(tmp_path, sample(0, "ours", metadata, txt=b"text"), sample(1, txt=b"text"))
    table = read_sample_table(dataset, receipt)
    assert metadata_names(table) == ["key_", "score_", "tags", "year"]
    assert table["key"].to_pylist() == ["ours", "key"]
    assert table["key_"].to_pylist() == ["theirs", None]
    assert table["tags"].to_pylist() == ['["a","b"]', None]
    assert table["year"].type == pa.int64()


def test_the_caption_is_what_the_caller_says():
    writer = ShardWriter()
    writer.add(pack(sample(0, txt=b"text"), "a caption"))
    writer.add(pack(sample(1, png=PNG)))
    assert from_parquet(writer.files()["samples.parquet"], "here")["caption"].to_pylist() == ["a caption", None]


def test_equal_samples_give_equal_bytes():
    one, two = ShardWriter(), ShardWriter()
    one.add(pack(sample(0, metadata={"a": 1, "b": 2}, png=PNG, txt=b"text")))
    two.add(pack(sample(0, metadata={"b": 2, "a": 1}, txt=b"text", png=PNG)))
    assert one.files() == two.files()


@pytest.mark.parametrize(("number", "name"), [(0, "000000000.jpg"), (42, "000000042.jpg"), (10**9, "1000000000.jpg")])
def test_member_names_are_numbers_of_nine_digits_or_more(number, name):
    assert member_name(number, "jpg") == name
