"""The pack, the splits and the feed: what a head learns from."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_features import vectors_of, views_of

from mmdata.errors import ConfigError, Conflict
from mmdata.fusion.feed import BLOCK, Feed, Plan, Where, plan
from mmdata.fusion.labels import read_labels
from mmdata.fusion.pack import Pack, Source, make_pack
from mmdata.fusion.splits import Part, check_apart, split_by_column, split_by_hash
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors
from mmdata.types import Modality

WHERE = [Plan(where, "") for where in Where]


def two_views(folder: Path) -> Dataset:
    """Pictures of a, b, d and texts of d, c, a (in that order), with other numbers in each row."""
    pictures = np.arange(12, dtype=np.float16).reshape(4, 3)[:3]
    texts = -np.arange(6, dtype=np.float32).reshape(3, 2)
    vectors_of(folder, "pictures", pictures, list("abd"), caption=["A", "B", "D"], size=[1, 2, 3])
    vectors_of(folder, "texts", texts, list("dca"), Modality.TEXT, caption=["D", "C", "A"], size=[3, 4, 1])
    return Dataset.open(str(folder))


def packed(folder: Path, **features: str) -> Pack:
    return make_pack([Source(Dataset.open(str(folder)), features)], folder / "cache")


# the pack


def test_features_are_joined_by_key_and_what_is_missing_is_masked(tmp_path: Path) -> None:
    two_views(tmp_path)
    pack = packed(tmp_path, image="pictures", text="texts")
    assert pack.rows["key"].to_pylist() == ["a", "b", "c", "d"]
    assert pack.rows["size"].to_pylist() == [1, 2, 4, 3]
    assert pack.rows["caption"].to_pylist() == ["A", "B", "C", "D"]
    assert pack.coverage == {"image": 0.75, "text": 0.75}
    batch = Feed(pack, {}, WHERE[0]).batch(torch.tensor([3, 2, 0]))
    image, has_image = batch.inputs["image"]
    text, has_text = batch.inputs["text"]
    assert has_image.tolist() == [True, False, True]
    assert has_text.tolist() == [True, True, True]
    assert image[0].tolist() == [6, 7, 8]
    assert image[2].tolist() == [0, 1, 2]
    assert text.tolist() == [[0, -1], [-2, -3], [-4, -5]]


def test_a_pack_keeps_the_numbers_and_the_type_of_the_features(built: Dataset, tmp_path: Path) -> None:
    pack = make_pack([Source(built, {"text": "minilm", "audio": "mel-stats"})], tmp_path)
    for name, features in (("text", "minilm"), ("audio", "mel-stats")):
        table = Features(built, features).to_arrow().sort_by("key")
        one = pack.inputs[name]
        assert one.values.dtype == np.float16
        assert np.array_equal(one.values[one.starts], vectors(table))
    assert pack.nbytes == 60 * (384 + 168) * 2
    assert pack.rows["colour"].to_pylist() == Features(built, "minilm").to_arrow().sort_by("key")["colour"].to_pylist()


def test_a_pack_is_made_once_and_again_when_a_vector_changes(tmp_path: Path) -> None:
    two_views(tmp_path / "one")
    first = packed(tmp_path / "one", image="pictures")
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "one/cache").rglob("*")}
    assert packed(tmp_path / "one", image="pictures").name == first.name
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one/cache").rglob("*")} == made
    vectors_of(tmp_path / "two", "pictures", np.ones((3, 3), np.float16), list("abd"))
    assert packed(tmp_path / "two", image="pictures").name != first.name


def test_what_a_killed_run_left_in_the_cache_does_no_harm(tmp_path: Path) -> None:
    two_views(tmp_path)
    whole = packed(tmp_path, image="pictures")
    left = tmp_path / "cache" / f"{whole.name}.999"
    (tmp_path / "cache" / whole.name).rename(left)
    (left / "pack.json").unlink()
    assert len(packed(tmp_path, image="pictures")) == 3


def test_a_pack_that_is_not_what_was_written_is_made_again(tmp_path: Path) -> None:
    two_views(tmp_path)
    whole = packed(tmp_path, image="pictures")
    values = np.array(whole.inputs["image"].values)
    for path in (tmp_path / "cache" / whole.name).iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        assert np.array_equal(packed(tmp_path, image="pictures").inputs["image"].values, values)
        assert path.read_bytes() != data


def test_two_datasets_stack_and_an_input_that_one_lacks_is_missing_there(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    vectors_of(tmp_path / "one", "same", values, list("abc"))
    vectors_of(tmp_path / "two", "same", values, list("bcd"))
    vectors_of(tmp_path / "two", "sounds", values + 10, list("bcd"), Modality.AUDIO)
    sources = [
        Source(Dataset.open(str(tmp_path / "one")), {"image": "same"}),
        Source(Dataset.open(str(tmp_path / "two")), {"image": "same", "audio": "sounds"}),
    ]
    pack = make_pack(sources, tmp_path / "cache")
    assert pack.rows["source"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert pack.rows["key"].to_pylist() == list("abcbcd")
    batch = Feed(pack, {}, WHERE[0]).batch(torch.tensor([2, 5]))
    assert batch.inputs["image"][0].tolist() == [[4, 5], [4, 5]]
    assert batch.inputs["audio"][1].tolist() == [False, True]
    assert batch.inputs["audio"][0][1].tolist() == [14, 15]


def test_one_input_never_mixes_two_encoders(tmp_path: Path) -> None:
    vectors_of(tmp_path / "one", "a", np.ones((2, 3), np.float32))
    vectors_of(tmp_path / "two", "b", np.zeros((2, 3), np.float32))
    sources = [Source(Dataset.open(str(tmp_path / n)), {"image": f}) for n, f in (("one", "a"), ("two", "b"))]
    with pytest.raises(Conflict, match=r"the input 'image' would mix features of two encoders: 'vectors:a'"):
        make_pack(sources, tmp_path / "cache")


def test_tokens_are_packed_end_to_end_and_padded_a_batch(tmp_path: Path) -> None:
    tokens = [np.array(rows, np.float16).reshape(-1, 2) for rows in ([1, 2, 3, 4], [], [5, 6, 7, 8, 9, 10])]
    vectors_of(tmp_path, "patches", np.ones((3, 3), np.float16), list("abc"), tokens=tokens)
    pack = packed(tmp_path, image="patches#tokens")
    assert pack.inputs["image"].values.shape == (5, 2)
    x, mask = Feed(pack, {}, WHERE[0]).batch(torch.tensor([2, 1, 0])).inputs["image"]
    assert mask.tolist() == [[True] * 3, [False] * 3, [True, True, False]]
    assert x[0].tolist() == [[5, 6], [7, 8], [9, 10]]
    assert x[2, :2].tolist() == [[1, 2], [3, 4]]


def test_tokens_that_are_not_there_are_said_so(tmp_path: Path) -> None:
    two_views(tmp_path)
    with pytest.raises(ConfigError, match="features 'pictures' have no tokens"):
        packed(tmp_path, image="pictures#tokens")


def test_vectors_of_elsewhere_need_as_many_keys_all_different(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pictures: 2 vectors need as many keys, all different, not 2"):
        vectors_of(tmp_path, "pictures", np.ones((2, 3), np.float32), ["a", "a"])


# the plan and the feed


def test_features_are_resident_up_to_sixty_percent_of_the_free_memory() -> None:
    assert plan(60, "cpu", free=100).where is Where.RESIDENT
    assert plan(61, "cpu", free=100).where is Where.STREAMED
    assert "MiB free on cpu, of which 60% may be taken" in plan(2**20, "cpu").why


@pytest.mark.parametrize("kept", WHERE, ids=[plan.where for plan in WHERE])
def test_an_epoch_brings_every_row_once_with_its_own_target(kept: Plan, tmp_path: Path) -> None:
    rows = 3 * BLOCK + 5
    views_of(tmp_path, {"view": np.arange(rows)[:, None]})
    feed = Feed(packed(tmp_path, image="view"), {"number": torch.arange(rows)}, kept)
    order = feed.shuffled(torch.arange(rows), seed=1, epoch=2)
    seen = list(feed.batches(order, 1000))
    numbers = torch.cat([batch.targets["number"] for batch in seen])
    assert torch.equal(numbers, order)
    assert torch.equal(torch.cat([batch.inputs["image"][0] for batch in seen])[:, 0], order.float())
    assert torch.equal(numbers.sort().values, torch.arange(rows))
    assert [len(batch.rows) for batch in seen] == [1000] * 12 + [293]
    assert not torch.equal(order[:50], torch.arange(50))


@pytest.mark.parametrize("kept", WHERE, ids=[plan.where for plan in WHERE])
def test_the_order_of_an_epoch_can_be_entered_anywhere(kept: Plan, tmp_path: Path) -> None:
    views_of(tmp_path, {"view": np.zeros((2 * BLOCK, 1))})
    feed, rows = Feed(packed(tmp_path, image="view"), {}, kept), torch.arange(2 * BLOCK)
    whole = feed.shuffled(rows, 7, 3)
    assert torch.equal(feed.shuffled(rows, 7, 3, start=5000), whole[5000:])
    assert not torch.equal(feed.shuffled(rows, 7, 4), whole)
    assert not torch.equal(feed.shuffled(rows, 8, 3), whole)


# splits


def test_equal_groups_are_always_on_one_side() -> None:
    groups = [f"g{n % 400}" for n in range(2000)]
    parts = split_by_hash(groups, {Part.TEST: 0.2, Part.VALIDATION: 0.1}, seed=0)
    found = {part: {groups[row] for row in rows} for part, rows in parts.items()}
    assert found[Part.TRAIN].isdisjoint(found[Part.TEST] | found[Part.VALIDATION])
    assert found[Part.VALIDATION].isdisjoint(found[Part.TEST])
    assert sum(map(len, found.values())) == 400
    assert len(found[Part.TEST]) == pytest.approx(80, abs=30)  # 4 sigma of a binomial
    assert len(found[Part.VALIDATION]) == pytest.approx(40, abs=24)


def test_a_split_column_names_the_parts_and_leaves_out_what_it_does_not_name() -> None:
    parts = split_by_column(["train", "val", None, "test", "train"], "split")
    assert {part: rows.tolist() for part, rows in parts.items()} == {
        Part.TRAIN: [0, 4],
        Part.VALIDATION: [1],
        Part.TEST: [3],
    }


def test_a_part_of_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="the split column 'fold' holds 3, holdout; parts are called train"):
        split_by_column(["train", "holdout", "3"], "fold")


def test_a_caption_on_both_sides_is_an_error_that_names_it() -> None:
    captions = pa.chunked_array([["a dog", "a cat", None, "a dog", None]])
    parts = split_by_column(["train", "train", "train", "test", "test"], "split")
    with pytest.raises(ConfigError, match="1 values of 'caption' are in both train and test, as 'a dog'"):
        check_apart(parts, "caption", captions)
    check_apart(split_by_column(["train", "test", "train", "train", "test"], "split"), "caption", captions)


def test_keys_of_a_csv_stay_as_they_are_written_and_cells_may_span_lines(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('key,grade,note\n007,1,"two\nlines"\n8,,NaN\n')
    assert read_labels(str(path)).to_pylist() == [
        {"key": "007", "grade": 1, "note": "two\nlines"},
        {"key": "8", "grade": None, "note": None},
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"key,grade,grade\nk,1,2\n", "has 2 columns with the name 'grade'"),
        ("key,grade\nk,1\n".encode("utf-16"), "is UTF-16; iconv -f utf-16"),
        (b"key,grade\nk,9223372036854775808\nl,1\n", "column 'grade' has whole numbers of more than 63 bits"),
        (b"key;grade\nk;1\n", "needs a column 'key'; it has: key;grade"),
    ],
)
def test_labels_that_would_be_read_wrongly_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read_labels(str(tmp_path / "labels.csv"))


def test_keys_of_labels_are_strings_or_whole_numbers(tmp_path: Path) -> None:
    path = str(tmp_path / "labels.parquet")
    for keys in (["1", "2"], [1, 2], pa.array(["1", "2"]).dictionary_encode(), pa.array(["1", "2"], pa.large_string())):
        pq.write_table(pa.table({"key": keys}), path)
        assert read_labels(path)["key"].to_pylist() == ["1", "2"]
    pq.write_table(pa.table({"key": [["a"]]}), path)
    with pytest.raises(ConfigError, match=r"the keys are list<.*>; strings are due"):
        read_labels(path)
