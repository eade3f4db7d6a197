"""Living indexes: shards come, rows go, a reader keeps what it opened, and a killed build changes nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import HERE
from made_features import clusters, make, opened, write_features, write_shard

from mmdata.errors import Conflict, Damage, NotFound, StorageFull
from mmdata.retrieval import label
from mmdata.retrieval.build import Recipe
from mmdata.retrieval.generation import claim, publish, workspace
from mmdata.retrieval.kinds import KINDS, Terms
from mmdata.retrieval.living import build
from mmdata.retrieval.search import Index
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features
from mmdata.storage.sealed import seal

ROWS, DIM, SHARD = 2000, 8, 500
CLOSE = 0.02


def keys(index: Index) -> list[str]:
    return sorted(key for key in index.rows["key"].to_pylist() if key is not None)


def files(dataset: Dataset, name: str = "f") -> set[str]:
    return {path.name for path in Path(dataset.url, "indexes", name).iterdir()}


@pytest.fixture
def growing(tmp_path: Path) -> Dataset:
    """Three of the four shards of the features `f`; `grow` adds the fourth."""
    dataset = Dataset.create(str(tmp_path / "dataset"))
    write_features(dataset, "f", np.split(clusters(ROWS, DIM), 4)[:3])
    return dataset


def grow(dataset: Dataset) -> None:
    write_shard(dataset, Features(dataset, "f").card, 3, np.split(clusters(ROWS, DIM), 4)[3], 3 * SHARD)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_added_later_is_found_as_if_it_had_been_there(growing: Dataset, kind: str) -> None:
    make(growing, kind=kind)
    grow(growing)
    summary = make(growing, kind=kind)
    make(growing, name="at-once", kind=kind)
    later, at_once = opened(growing), opened(growing, "at-once")
    assert (summary.rows_out, summary.shards, later.facts.generation) == (ROWS, 4, "000002")
    assert keys(later) == keys(at_once) == sorted(f"k{n}" for n in range(ROWS))
    queries = clusters(300, DIM, seed=4)
    exact = np.sort(at_once.search(queries, k=10, where=["id>=0"]).scores, axis=1)[:, :1]
    recalls = [float((index.search(queries, k=10).scores >= exact - 1e-5).mean()) for index in (later, at_once)]
    assert recalls[0] > recalls[1] - CLOSE
    assert min(recalls) > 0.95 - CLOSE


@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_key_is_gone_and_never_comes_back(growing: Dataset, kind: str) -> None:
    make(growing, kind=kind)
    vectors = clusters(ROWS, DIM)
    before = opened(growing).search(vectors[7:8], k=3)[0]
    assert make(growing, kind=kind, delete=("k7", "k1200")).rejected == {"deleted": 2}
    grow(growing)
    make(growing, kind=kind)
    for again in ({}, {"overwrite": True}):
        make(growing, kind=kind, **again)
        now = opened(growing)
        assert set(keys(now)) == {f"k{n}" for n in range(ROWS)} - {"k7", "k1200"}
        assert len(now) == ROWS - 2
        assert {hit.key for hits in now.search(vectors[[7, 1200]], k=ROWS) for hit in hits} == set(keys(now))
        assert [hit.key for hit in now.search(vectors[7:8], k=2)[0]] == [hit.key for hit in before[1:]]
        assert np.allclose(now.vector_of("k1999"), vectors[1999] / np.linalg.norm(vectors[1999]), atol=1e-3)
    with pytest.raises(NotFound, match="has no sample 'k7'"):
        opened(growing).vector_of("k7")


def test_a_key_that_is_not_there_cannot_be_deleted_and_one_that_is_gone_needs_nothing(growing: Dataset) -> None:
    make(growing, delete=("k3",))
    with pytest.raises(NotFound, match=r"the index 'f' has no sample 'nosuch' to delete \(1 such keys\)"):
        make(growing, delete=("k4", "nosuch"))
    make(growing, delete=("k3",))
    assert opened(growing).facts.generation == "000001"
    assert len(opened(growing)) == 3 * SHARD - 1


def test_a_shard_that_was_made_again_takes_the_place_of_the_old_one(growing: Dataset) -> None:
    make(growing, delete=("k0",))
    card = Features(growing, "f").card
    for suffix in ("json", "parquet"):
        Path(growing.url, f"features/f/000001.{suffix}").unlink()
    write_shard(growing, card, 1, -clusters(ROWS, DIM)[SHARD : 2 * SHARD - 10], SHARD)
    make(growing)
    now = opened(growing)
    assert len(now) == 3 * SHARD - 11
    moved = -clusters(ROWS, DIM)[SHARD]
    assert now.search(moved[None], k=1)[0][0].key == f"k{SHARD}"
    assert np.allclose(now.vector_of(f"k{SHARD}"), moved / np.linalg.norm(moved), atol=1e-5)


def test_an_open_reader_goes_on_with_the_old_generation(growing: Dataset) -> None:
    make(growing)
    reader = opened(growing)
    query = clusters(ROWS, DIM)[7:8]
    before = [hit.key for hit in reader.search(query, k=50)[0]]
    make(growing, delete=("k7",))
    grow(growing)
    make(growing)
    make(growing, delete=("k8",))
    assert files(growing) == {"index.json", "000003", "000004"}  # the first is gone from the disk
    assert [hit.key for hit in reader.search(query, k=50)[0]] == before
    assert before[0] == "k7"


def test_a_killed_build_leaves_the_old_generation_and_is_swept_later(
    growing: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(growing)
    grow(growing)

    def no_space(*_: object) -> None:
        raise StorageFull("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(label, "write_rows", no_space)
        with pytest.raises(StorageFull):
            make(growing)
    assert files(growing) == {"index.json", "000001", "000002"}
    assert len(opened(growing)) == 3 * SHARD
    make(growing)
    assert len(opened(growing)) == ROWS
    make(growing, delete=("k1",))
    assert files(growing) == {"index.json", "000003", "000004"}


def test_of_two_runs_at_once_the_second_is_told(growing: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    make(growing)
    grow(growing)
    finish = label.finish

    def overtaken(*arguments: object) -> object:
        monkeypatch.setattr("mmdata.stages.index.finish", finish)
        make(growing, delete=("k1",))
        return finish(*arguments)

    monkeypatch.setattr("mmdata.stages.index.finish", overtaken)
    with pytest.raises(Conflict, match="another run has changed the index 'f' meanwhile"):
        make(growing)
    assert len(opened(growing)) == ROWS - 1


def test_beyond_a_bound_the_label_says_that_a_rebuild_is_due(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    card = write_features(dataset, "f", [clusters(SHARD, DIM)])
    make(dataset, kind="ivf-flat")
    write_shard(dataset, card, 1, clusters(200, DIM, seed=1), SHARD)
    assert make(dataset, kind="ivf-flat").facts["a rebuild is due"] == []
    write_shard(dataset, card, 2, clusters(200, DIM, seed=2), SHARD + 200)
    summary = make(dataset, kind="ivf-flat")
    assert summary.facts["a rebuild is due"] == ["400 rows came or went since it was made for 500"]
    assert summary.next.endswith("--features f --name f --overwrite")
    assert make(dataset, kind="ivf-flat", overwrite=True).facts["a rebuild is due"] == []


def test_features_of_another_encoder_are_a_conflict_and_overwrite_answers_it(growing: Dataset) -> None:
    make(growing)
    write_features_again(growing)
    with pytest.raises(Conflict, match=r"encoder: there '.*', asked '"):
        make(growing)
    make(growing, overwrite=True)
    assert len(opened(growing)) == SHARD


def write_features_again(dataset: Dataset) -> None:
    for path in Path(dataset.url, "features/f").iterdir():
        path.unlink()
    write_features(dataset, "f", [clusters(SHARD, DIM)], revision="2")


def test_a_label_and_files_that_do_not_belong_together_are_damage(growing: Dataset) -> None:
    make(growing)
    path = Path(growing.url, "indexes/f/index.json")
    about = json.loads(path.read_text())
    about["files"]["rows.arrow"]["bytes"] += 1
    del about["seal"]
    path.write_bytes(seal(about))
    with pytest.raises(Damage, match=r"rows.arrow is not the file index.json names"):
        opened(growing)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_in_an_object_store_is_indexed_and_searched_alike(tmp_path: Path, kind: str) -> None:
    here, away = Dataset.create(str(tmp_path / "dataset")), Dataset("memory:///dataset")
    for dataset in (here, away):
        write_features(dataset, "f", np.split(clusters(1000, DIM), 2))
    make(here, kind=kind)
    features, terms = Features(away, "f"), Terms(0.95, 10**9, 0)
    recipe = Recipe(features, claim(away, "f"), kind, "cosine", frozenset())
    with workspace(away, recipe.folder) as place:
        made = build(recipe, 1000, terms, HERE, lambda done, rows: None, place)
        facts = label.finish(recipe, "f", made, terms, 0.0, place)
    publish(away, recipe.folder, facts, features.card, "")
    queries = clusters(20, DIM, seed=9)
    assert np.array_equal(Index(away, "f").search(queries).ids, Index(here, "f").search(queries).ids)
    assert Index(away, "f").facts.files == Index(here, "f").facts.files
