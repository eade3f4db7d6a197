"""Feature sets: vectors with the card that made them, and no others beside them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.errors import Conflict, Damage, NotFound
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import (
    LEAF,
    Features,
    card_from_json,
    card_to_json,
    claim,
    features_file,
    finished,
    same_rows,
    vectors,
)
from mmdata.storage.imported import import_vectors
from mmdata.storage.pages import plain_values
from mmdata.storage.receipts import commit
from mmdata.storage.tables import from_parquet
from mmdata.types import EncoderCard, Modality, Receipt

CARD = EncoderCard(
    name="tiny",
    spec="tiny",
    modality=Modality.TEXT,
    dim=3,
    dtype="float16",
    precision="fp32",
    normalised=False,
    space="tiny@1",
    preprocessing={"lower": True},
    revision="1",
    weights_sha256="00",
    towers={"text": "tiny"},
    versions={"torch": "2"},
)


def rows(*ids: int, **metadata) -> pa.Table:
    names = [f"{number:09d}.txt" for number in ids]
    keys = [f"key {number}" for number in ids]
    table = {"id": list(ids), "key": keys, "member": names, "caption": keys, **metadata}
    return pa.table(table)


def written(tmp_path, card: EncoderCard = CARD) -> Dataset:
    """Two shards: ids 0 and 1, and id 2."""
    dataset = Dataset.create(str(tmp_path))
    claim(dataset, card, overwrite=False)
    for shard, ids in (("000000", (0, 1)), ("000001", (2,))):
        data = features_file(card, rows(*ids, year=list(ids)), np.array([[n, n + 0.5, -n] for n in ids]))
        inputs = {f"{shard}.tar": "hash"}
        receipt = Receipt("extract", shard, card.fingerprint, inputs, {}, len(ids), len(ids), 0, {}, {}, {})
        commit(dataset.store, "features/tiny", receipt, {"parquet": data})
    return dataset


def test_vectors_come_back_as_they_were_stored(tmp_path):
    table = Features(written(tmp_path), "tiny").to_arrow()
    assert table["key"].to_pylist() == ["key 0", "key 1", "key 2"]
    assert table["shard"].to_pylist() == ["000000", "000000", "000001"]
    assert table["embedding"].type == pa.list_(pa.float16(), 3)
    assert vectors(table).tolist() == [[0, 0.5, 0], [1, 1.5, -1], [2, 2.5, -2]]


def test_a_set_is_scanned_shard_by_shard_and_column_by_column(tmp_path):
    scanned = list(Features(written(tmp_path), "tiny").scan(["id", "year"]))
    assert [(shard, table.to_pydict()) for shard, table in scanned] == [
        ("000000", {"id": [0, 1], "year": [0, 1]}),
        ("000001", {"id": [2], "year": [2]}),
    ]


def test_no_vectors_have_the_shape_of_no_vectors():
    data = features_file(CARD, rows(), np.zeros((0, 3)))
    assert vectors(pq.read_table(pa.BufferReader(data))).shape == (0, 3)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_vectors_are_stored_in_the_type_of_the_card(dtype):
    data = features_file(replace(CARD, dtype=dtype), rows(0), np.array([[1.0, 2.0, 3.0]]))
    assert vectors(pq.read_table(pa.BufferReader(data))).dtype == np.dtype(dtype)


def test_any_parquet_reader_finds_the_card_in_the_footer():
    footer = pq.read_schema(pa.BufferReader(features_file(CARD, rows(0), np.zeros((1, 3))))).metadata
    assert footer[b"mmdata.fingerprint"] == CARD.fingerprint.encode()
    assert orjson.loads(footer[b"mmdata.encoder"])["space"] == "tiny@1"


def test_a_card_survives_its_file():
    assert card_from_json(card_to_json(CARD), "here") == CARD


def test_the_fingerprint_leaves_out_name_and_versions_and_nothing_else():
    assert replace(CARD, name="other", versions={}).fingerprint == CARD.fingerprint
    changes = {
        "spec": "x",
        "modality": Modality.IMAGE,
        "dim": 4,
        "dtype": "float32",
        "precision": "bf16",
        "normalised": True,
        "space": "x",
        "preprocessing": {},
        "revision": "2",
        "weights_sha256": "11",
        "towers": {},
    }
    prints = {replace(CARD, **{name: value}).fingerprint for name, value in changes.items()}
    assert len(prints | {CARD.fingerprint}) == len(changes) + 1


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"fingerprint": "x", "modality": "smell"}'])
def test_what_is_not_a_card_is_damage(data):
    with pytest.raises(Damage, match="here is not an encoder card"):
        card_from_json(data, "here")


def test_an_edited_card_is_damage():
    with pytest.raises(Damage, match="here was edited"):
        card_from_json(card_to_json(CARD).replace(b"tiny@1", b"tiny@2"), "here")


def test_a_set_is_claimed_by_one_card(tmp_path):
    dataset = written(tmp_path)
    claim(dataset, replace(CARD, versions={"torch": "3"}), overwrite=False)
    with pytest.raises(Conflict) as caught:
        claim(dataset, replace(CARD, dim=4, precision="bf16"), overwrite=False)
    assert str(caught.value).splitlines()[1:3] == [
        "  dim: there 3, asked 4",
        "  precision: there 'fp32', asked 'bf16'",
    ]


def test_overwrite_removes_what_another_card_made(tmp_path):
    dataset = written(tmp_path)
    claim(dataset, replace(CARD, dim=4), overwrite=True)
    assert [info.path for info in dataset.store.list("features")] == ["features/tiny/encoder.json"]
    assert Features(dataset, "tiny").card.dim == 4


def test_finished_shards_are_those_made_from_the_same_files(tmp_path):
    dataset = written(tmp_path)
    content = {"000000": {"000000.tar": "hash"}, "000001": {"000001.tar": "hash"}}
    assert list(finished(dataset, CARD, content)) == ["000000", "000001"]
    with pytest.raises(Conflict, match=r"(?s)shard 000001 .*000001.tar: there 'hash', asked 'other'"):
        finished(dataset, CARD, content | {"000001": {"000001.tar": "other"}})


def test_a_file_found_is_as_good_when_card_and_samples_are_the_same():
    ours = features_file(CARD, rows(0, 1), np.zeros((2, 3)))
    assert same_rows(CARD, features_file(CARD, rows(0, 1), np.ones((2, 3))), ours) is True
    assert same_rows(CARD, features_file(CARD, rows(0, 2), np.zeros((2, 3))), ours) is False
    assert same_rows(CARD, features_file(replace(CARD, revision="2"), rows(0, 1), np.zeros((2, 3))), ours) is False
    assert same_rows(CARD, ours[:-1], ours) is False


def test_a_set_that_is_not_there_names_those_that_are(tmp_path):
    dataset = written(tmp_path)
    with pytest.raises(NotFound, match="no features 'tine'; there are: tiny"):
        Features(dataset, "tine")
    with pytest.raises(NotFound, match="there are: none yet: run mmdata extract"):
        Features(Dataset.create(str(tmp_path / "new")), "tiny")


def test_a_cut_file_is_damage(tmp_path):
    dataset = written(tmp_path)
    features = Features(dataset, "tiny")
    data = dataset.store.read("features/tiny/000001.parquet")
    dataset.store.replace("features/tiny/000001.parquet", data[:-10])
    with pytest.raises(Damage, match=r"000001.parquet is not the file .* mmdata verify .* --repair"):
        features.to_arrow()


def test_a_byte_that_is_flipped_anywhere_in_a_feature_file_is_damage_to_whoever_reads_it(tmp_path):
    dataset = written(tmp_path)
    features, path = Features(dataset, "tiny"), tmp_path / "features/tiny/000001.parquet"
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        for columns in (None, ["id"], ["embedding"]):
            with pytest.raises(Damage, match="is not the file that its receipt names"):
                features.read(features.receipts["000001"], columns)


def test_a_file_of_another_encoder_is_never_mixed_in(tmp_path):
    dataset = written(tmp_path / "a")
    other = written(tmp_path / "b", replace(CARD, revision="2"))
    for name in ("000001.parquet", "000001.json"):
        dataset.store.replace(f"features/tiny/{name}", other.store.read(f"features/tiny/{name}"))
    with pytest.raises(Conflict, match="was made by another encoder"):
        Features(dataset, "tiny").to_arrow()


def test_the_fingerprint_of_a_set_changes_with_any_vector(tmp_path):
    before = Features(written(tmp_path / "a"), "tiny").fingerprint
    assert Features(written(tmp_path / "b"), "tiny").fingerprint == before
    assert Features(written(tmp_path / "c", replace(CARD, dtype="float32")), "tiny").fingerprint != before


def test_files_are_full_paths_any_reader_opens(tmp_path):
    files = Features(written(tmp_path), "tiny").files
    assert files == [str(tmp_path / "features/tiny" / name) for name in ("000000.parquet", "000001.parquet")]
    assert pq.read_table(files)["id"].to_pylist() == [0, 1, 2]


# vectors straight from their pages


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("columns", [None, ["embedding"], ["key", "embedding"], ["key"]])
def test_a_shard_read_from_its_pages_is_what_arrow_reads(tmp_path: Path, dtype: str, columns: list[str] | None) -> None:
    dataset = Dataset.create(str(tmp_path / "d"))
    vectors_ = np.random.default_rng(0).normal(size=(9000, 70)).astype(dtype)  # two row groups, several pages
    features = import_vectors(dataset, "f", Modality.IMAGE, [f"k{n}" for n in range(9000)], vectors_)
    found = features.read(features.receipts["000000"], columns)
    by_arrow = from_parquet(dataset.store.read("features/f/000000.parquet"), "f", columns)
    assert found.equals(by_arrow)
    assert found.schema.equals(by_arrow.schema, check_metadata=True)


def test_pages_that_are_stored_in_another_way_are_left_to_arrow() -> None:
    numbers = np.arange(600, dtype=np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(numbers), 6)
    holes = pa.array([None, *column.to_pylist()[1:]], column.type)
    ways = {
        "plain": (column, {"compression": "NONE", "use_dictionary": False}),
        "compressed": (column, {"compression": "ZSTD", "use_dictionary": False}),
        "dictionary": (column, {"compression": "NONE", "use_dictionary": True}),
        "newer pages": (column, {"compression": "NONE", "use_dictionary": False, "data_page_version": "2.0"}),
        "nulls": (holes, {"compression": "NONE", "use_dictionary": False}),
    }
    found = {}
    for name, (values, options) in ways.items():
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"embedding": values}), sink, **options)
        data = sink.getvalue().to_pybytes()
        found[name] = plain_values(data, pq.read_metadata(pa.BufferReader(data)), LEAF, "float32", "f")
    plain = found.pop("plain")
    assert plain is not None
    assert np.array_equal(plain, numbers)
    assert found == dict.fromkeys(ways.keys() - {"plain"})
