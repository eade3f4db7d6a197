"""Indexes: the same answers as numpy, in every metric and kind, with every filter, and files that are proved."""

import hashlib
import json
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest
from conftest import HERE
from made_features import make, write_features
from numpy.typing import NDArray

from mmdata.config import IndexConfig
from mmdata.errors import ConfigError, Conflict, Damage, NotFound
from mmdata.retrieval.kinds import KINDS
from mmdata.retrieval.metric import METRICS
from mmdata.retrieval.search import open_index
from mmdata.retrieval.where import Filter, select
from mmdata.stages.index import index
from mmdata.storage.dataset import Dataset
from mmdata.types import Hit

SCORE = 1e-4  # of float32 sums, where the vectors have lengths of about 5
DIM, SHARDS, ROWS = 12, 3, 200


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, NDArray[np.float32]]:
    """A dataset with one feature set of 600 random vectors in three shards, and those vectors."""
    dataset = Dataset.create(str(tmp_path_factory.mktemp("cloud") / "dataset"))
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(SHARDS * ROWS, DIM)) + rng.integers(0, 3, (SHARDS * ROWS, 1))).astype(np.float32)
    write_features(dataset, "cloud", list(vectors.reshape(SHARDS, ROWS, DIM)))
    for metric in METRICS:
        for kind in KINDS:
            index(
                IndexConfig(dataset=dataset.url, features="cloud", name=f"{kind}-{metric}", kind=kind, metric=metric),
                HERE,
            )
    return dataset, vectors


def scores(vectors: NDArray[np.float32], queries: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """`(queries, vectors)`, higher is nearer, by the definition of the metric."""
    if metric == "l2":
        return -((queries[:, None] - vectors[None]) ** 2).sum(-1)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, vectors)]
    return unit[0] @ unit[1].T if metric == "cosine" else queries @ vectors.T


def ids(hits: list[Hit]) -> list[int]:
    return [hit.id for hit in hits]


@pytest.mark.parametrize("metric", METRICS)
def test_flat_answers_are_those_of_brute_force(cloud, metric: str) -> None:
    dataset, vectors = cloud
    queries = np.random.default_rng(1).normal(size=(20, DIM)).astype(np.float32)
    exact = scores(vectors, queries, metric)
    best = np.argsort(-exact, axis=1)[:, :7]
    found = open_index(dataset, f"flat-{metric}").search(queries, k=7)
    assert [ids(hits) for hits in found] == best.tolist()
    got = np.array([[hit.score for hit in hits] for hits in found])
    assert np.abs(got - np.take_along_axis(exact, best, axis=1)).max() < SCORE
    assert [hit.rank for hit in found[0]] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("metric", METRICS)
def test_ivf_answers_are_exact_when_every_list_is_probed(cloud, metric: str) -> None:
    dataset, vectors = cloud
    queries = np.random.default_rng(1).normal(size=(20, DIM)).astype(np.float32)
    found = open_index(dataset, f"ivf-flat-{metric}").search(queries, k=7, where=["id>=0"])  # a filter probes all lists
    assert [ids(hits) for hits in found] == np.argsort(-scores(vectors, queries, metric), axis=1)[:, :7].tolist()


def test_ivf_has_sensible_parameters_and_finds_a_stored_vector_first(cloud) -> None:
    dataset, vectors = cloud
    opened = open_index(dataset, "ivf-flat-cosine")
    assert opened.facts.parameters["nlist"] == opened.vector_index.lists == 15  # 39 training vectors a list
    assert 1 <= opened.facts.parameters["nprobe"] < 15
    assert [ids(hits)[0] for hits in opened.search(vectors[::50], k=1)] == list(range(0, 600, 50))


def test_training_rows_come_from_all_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmdata.retrieval.kinds.TRAIN_PER_LIST", 4)  # so that 60 of the 600 rows are drawn
    dataset = Dataset.create(str(tmp_path / "dataset"))
    far_apart = 10 * np.eye(SHARDS, DIM)[:, None] + np.random.default_rng(0).normal(size=(SHARDS, ROWS, DIM))
    write_features(dataset, "sorted", list(far_apart.astype(np.float32)))
    files = []
    for name in ("one", "again"):
        index(
            IndexConfig(dataset=dataset.url, features="sorted", name=name, kind="ivf-flat", metric="l2", seed=3), HERE
        )
        files.append(Path(dataset.url, f"indexes/{name}/000001/index.faiss").read_bytes())
    one = open_index(dataset, "one")
    centroids = faiss.downcast_index(one.vector_index.base.quantizer).reconstruct_n(0, 15)
    assert set(centroids.argmax(axis=1).tolist()) == {0, 1, 2}
    assert files[0] == files[1]


def test_auto_is_exact_for_a_small_set(cloud) -> None:
    dataset, _ = cloud
    index(IndexConfig(dataset=dataset.url, features="cloud", name="by-itself"), HERE)
    assert open_index(dataset, "by-itself").facts.kind == "flat"


@pytest.mark.parametrize("kind", KINDS)
def test_k_above_the_number_of_rows_gives_every_row_once(cloud, kind: str) -> None:
    dataset, vectors = cloud
    (hits,) = open_index(dataset, f"{kind}-cosine").search(vectors[:1], k=10_000, where=["id<600"])
    assert sorted(ids(hits)) == list(range(600))


def test_no_query_has_no_answer(cloud) -> None:
    assert list(open_index(cloud[0], "flat-cosine").search(np.zeros((0, DIM), np.float32))) == []


def test_plain_faiss_opens_the_file(cloud) -> None:
    dataset, vectors = cloud
    plain = faiss.read_index(f"{dataset.url}/indexes/flat-ip/000001/index.faiss")
    assert plain.ntotal == 600
    assert plain.d == DIM
    assert np.array_equal(plain.reconstruct_n(0, 600), vectors)
    assert faiss.read_index(f"{dataset.url}/indexes/ivf-flat-l2/000001/index.faiss").metric_type == faiss.METRIC_L2


def test_hits_carry_key_shard_member_caption_and_metadata(built: Dataset) -> None:
    opened = open_index(built, "efficientnet-lite0")
    row = opened.rows.to_pylist()[33]
    (hits,) = opened.search(opened.vector_of(row["key"]), k=1)
    assert hits[0].key == row["key"]
    assert (hits[0].id, hits[0].shard, hits[0].member) == (33, "000002", "000000033.png")
    assert hits[0].caption == row["caption"]
    assert hits[0].metadata == {"colour": row["colour"], "count": row["count"], "folder": row["folder"]}
    assert abs(hits[0].score - 1) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_vector_of_a_key_is_the_stored_one(cloud, kind: str) -> None:
    dataset, vectors = cloud
    assert np.array_equal(open_index(dataset, f"{kind}-ip").vector_of("k321"), vectors[321:322])


# filters

ROWS_TO_FILTER = pa.table(
    {
        "key": ["a", "b", "c", "d", "e"],
        "count": pa.array([1, 2, 3, None, 10]),
        "weight": pa.array([0.5, 1.5, float("nan"), 2.5, None]),
        "ok": pa.array([True, False, True, None, False]),
        "folder": ["birds", "birds/sea", "cats", None, "Birds"],
    }
)
FILTERS = {
    "count=2": "b",
    "count != 2": "ace",
    "count<3": "ab",
    "count<=3": "abc",
    "count>2": "ce",
    "count>=3": "ce",
    "count~1": "ae",
    "weight>1": "bd",
    "weight<=0.5": "a",
    "ok=true": "ac",
    "ok!=true": "be",
    "folder=birds": "a",
    "folder!=birds": "bce",
    "folder~bird": "ab",
    "folder>=c": "c",
    "key=d": "d",
    "folder=x=y": "",
    "folder=": "",
}


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_lets_through_the_rows_it_describes(text: str) -> None:
    assert "".join("abcde"[row] for row in select(ROWS_TO_FILTER, [text])) == FILTERS[text]


def test_filters_are_joined_by_and() -> None:
    assert select(ROWS_TO_FILTER, ["count>1", "folder~s", "ok=true"]).tolist() == [2]
    assert select(ROWS_TO_FILTER, []) is None


WRONG_FILTERS = {
    "count": "write FIELD=VALUE, with one of = != < <= > >= ~",
    "=3": "write FIELD=VALUE",
    "cuont=3": "no field 'cuont'; did you mean 'count'?",
    "zzz=3": "no field 'zzz'; there are: key, count, weight, ok, folder",
    "count=three": "count is int64, and 'three' is not",
    "count<2.5.1": "count is int64, and '2.5.1' is not",
    "count==3": "write FIELD=VALUE, with one of = != < <= > >= ~",
    "count=>3": "write FIELD=VALUE",
    "ok=maybe": "ok is bool, and 'maybe' is not",
    "weight>heavy": "weight is double, and 'heavy' is not",
}


@pytest.mark.parametrize("text", WRONG_FILTERS)
def test_a_wrong_filter_says_what_is_wrong(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        select(ROWS_TO_FILTER, [text])
    assert str(caught.value).startswith(f"where {text!r}: ")
    assert WRONG_FILTERS[text] in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("ok", 2), ("ok", 0.5), ("count", True), ("weight", False)])
def test_a_bool_is_no_number_and_a_number_no_bool(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{value!r} is not"):
        select(ROWS_TO_FILTER, [Filter(field, "=", value)])


def test_a_fraction_bounds_whole_numbers() -> None:
    rows = pa.table({"count": [1, 2, 3, 4], "my field": ["a", "b", "a", "b"]})
    assert select(rows, ["count>=2.5"]).tolist() == select(rows, [Filter("count", ">=", 2.5)]).tolist() == [2, 3]
    assert select(rows, ["my field = b", "count<.5"]).tolist() == []
    assert select(rows, ["my field = b"]).tolist() == [1, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_filtered_search_is_brute_force_over_the_rows_that_pass(cloud, kind: str) -> None:
    dataset, vectors = cloud
    (hits,) = open_index(dataset, f"{kind}-cosine").search(vectors[:1], k=5, where=["id>=100", "id<110"])
    order = np.argsort(-scores(vectors[100:110], vectors[:1], "cosine")[0])[:5] + 100
    assert ids(hits) == order.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_that_nothing_passes_gives_no_hits(cloud, kind: str) -> None:
    dataset, vectors = cloud
    found = open_index(dataset, f"{kind}-cosine").search(vectors[:2], where=["id=9999"])
    assert list(found) == [[], []]


# making it again


@pytest.fixture
def small(tmp_path: Path) -> Dataset:
    """A dataset with the features `f` in two shards and their index."""
    dataset = Dataset.create(str(tmp_path / "dataset"))
    write_features(dataset, "f", list(np.random.default_rng(0).normal(size=(2, 40, 4)).astype(np.float32)))
    make(dataset)
    return dataset


def test_a_finished_index_is_left_alone(small: Dataset) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(small.url, "indexes/f").iterdir()}
    make(small)
    assert {path: path.stat().st_mtime_ns for path in Path(small.url, "indexes/f").iterdir()} == before


@pytest.mark.parametrize(("options", "line"), [({"kind": "ivf-flat"}, "kind: there 'flat', asked 'ivf-flat'"),
                                               ({"metric": "l2"}, "metric: there 'cosine', asked 'l2'")])  # fmt: skip
def test_other_options_are_a_conflict(small: Dataset, options: dict[str, str], line: str) -> None:
    with pytest.raises(Conflict) as caught:
        make(small, **options)
    assert str(caught.value).split("\n")[1:-1] == [f"  {line}"]


def test_features_without_vectors_cannot_be_indexed(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    write_features(dataset, "f", [np.zeros((0, 4), np.float32)])
    with pytest.raises(NotFound, match="features 'f' have no vectors to index"):
        make(dataset)


def test_a_missing_index_lists_what_there_is(small: Dataset) -> None:
    with pytest.raises(NotFound, match=r"has no index 'nosuch'; there are: f$"):
        open_index(small, "nosuch")
    with pytest.raises(NotFound, match=r"has no features 'nosuch'; there are: f$"):
        index(IndexConfig(dataset=small.url, features="nosuch"), HERE)


@pytest.mark.parametrize("file", ["index.faiss", "rows.arrow"])
def test_a_damaged_file_is_damage_that_names_it(small: Dataset, file: str) -> None:
    path = Path(small.url, "indexes/f/000001", file)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damage, match=f"indexes/f/000001/{file} is not the file index.json names; make it again"):
        open_index(small, "f")
    path.unlink()
    with pytest.raises(Damage, match=f"indexes/f/000001/{file} is gone; make it again"):
        open_index(small, "f")
    make(small, overwrite=True)
    assert len(open_index(small, "f")) == 80


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"sha256": {}, "encoder": {}}'])
def test_an_index_json_that_is_none_is_damage_and_overwrite_answers_it(small: Dataset, text: str) -> None:
    Path(small.url, "indexes/f/index.json").write_text(text)
    with pytest.raises(Damage, match=r"index\.json"):
        open_index(small, "f")
    make(small, overwrite=True)
    assert len(open_index(small, "f")) == 80


def test_what_a_killed_run_left_is_no_index_and_the_same_command_finishes(small: Dataset) -> None:
    Path(small.url, "indexes/f/index.json").unlink()
    with pytest.raises(NotFound, match="has no index 'f'; there are: none yet"):
        open_index(small, "f")
    make(small)
    assert len(open_index(small, "f")) == 80
    assert sorted(path.name for path in Path(small.url, "indexes/f").iterdir()) == ["000002", "index.json"]


def test_index_json_says_what_the_index_is(small: Dataset) -> None:
    facts = json.loads(Path(small.url, "indexes/f/index.json").read_text())
    assert facts["encoder"]["space"] == "made:made"
    assert (facts["features"], facts["kind"], facts["metric"], facts["rows"]) == ("f", "flat", "cosine", 80)
    assert facts["asked"] == {"min_recall": 0.95, "memory": 4_000_000_000, "seed": 0}
    assert facts["recall"] == {"text": {"1": 1.0, "10": 1.0, "100": 1.0}}
    data = Path(small.url, "indexes/f/000001/index.faiss").read_bytes()
    assert facts["memory"] == facts["files"]["index.faiss"]["bytes"] == len(data)
    assert facts["files"]["index.faiss"]["sha256"] == hashlib.sha256(data).hexdigest()
