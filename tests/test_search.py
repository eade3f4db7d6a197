"""Queries of every kind against finished indexes, and the refusals that name both sides."""

import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import odd_encoder
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import quick_encoder
from conftest import HERE
from made_features import make, write_features
from typer.testing import CliRunner

from mmdata.cli import app as command_line
from mmdata.config import ExtractConfig, IndexConfig, ShardConfig
from mmdata.demo import write_corpus
from mmdata.encoders import Request, describe, load_encoder
from mmdata.encoders.starters import weights_folder
from mmdata.errors import ConfigError, Conflict, NotFound, StorageError
from mmdata.retrieval import many
from mmdata.retrieval.ask import Narrowed, Query, Term, ask
from mmdata.retrieval.fold import Fold
from mmdata.retrieval.search import Index, open_index
from mmdata.stages.extract import extract
from mmdata.stages.index import index
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors
from mmdata.types import Hit, Modality

HALF = 2e-3  # what float16 keeps of a cosine of vectors with a few large numbers


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    """Twelve samples indexed by their sounds and by their pictures, and the folder of the files."""
    folder = tmp_path_factory.mktemp("sounds")
    write_corpus(folder / "corpus", 12)
    url = str(folder / "dataset")
    shard(ShardConfig(dataset=url, source=str(folder / "corpus")), HERE)
    extract(ExtractConfig(dataset=url, encoders=("mel-stats",)), HERE)
    index(IndexConfig(dataset=url, features="mel-stats"), HERE)
    return Dataset.open(url), folder / "corpus"


def hits(dataset: Dataset, name: str, k: int = 3, encoder: str | None = None, **query: object) -> list[Hit]:
    (answer,) = ask(dataset, [name], Query.of(**query), Narrowed(k), encoder)
    (found,) = answer.hits
    return found


def test_a_sentence_finds_itself(built: Dataset) -> None:
    sentence = open_index(built, "minilm").rows["caption"][7].as_py()
    first = hits(built, "minilm", text=sentence)[0]
    assert first.caption == sentence
    assert abs(first.score - 1) < HALF


def test_a_picture_finds_itself(built: Dataset, corpus: Path) -> None:
    path = sorted(corpus.rglob("*.png"))[11]
    first = hits(built, "efficientnet-lite0", image=path)[0]
    assert first.key == str(path.relative_to(corpus).with_suffix(""))
    assert abs(first.score - 1) < HALF


def test_a_sound_finds_itself(sounds: tuple[Dataset, Path]) -> None:
    dataset, corpus = sounds
    path = sorted(corpus.rglob("*.wav"))[5]
    first = hits(dataset, "mel-stats", audio=path)[0]
    assert first.key == str(path.relative_to(corpus).with_suffix(""))
    assert first.member.endswith(".wav")
    assert abs(first.score - 1) < HALF


def test_a_key_finds_itself_and_then_its_neighbours(built: Dataset) -> None:
    key = open_index(built, "minilm").rows["key"][40].as_py()
    found = hits(built, "minilm", k=60, key=key)
    assert found[0].key == key
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)
    assert len({hit.key for hit in found}) == 60


def test_the_head_answers_a_sentence_a_picture_and_a_key_alike(built: Dataset, corpus: Path) -> None:
    path = sorted(corpus.rglob("*.png"))[3]
    key = str(path.relative_to(corpus).with_suffix(""))
    by_image, by_key = hits(built, "pictures.image", image=path), hits(built, "pictures.image", key=key)
    assert by_image[0].key == by_key[0].key == key
    by_text = hits(built, "pictures.image", k=60, text=path.with_suffix(".txt").read_text())
    assert key in [hit.key for hit in by_text[:30]]  # chance is a half; this pair was seen or is near one that was


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_many_vectors_from_a_file(built: Dataset, tmp_path: Path, suffix: str) -> None:
    rows = vectors(Features(built, "minilm").to_arrow())[[3, 50]]
    path = tmp_path / f"queries.{suffix}"
    if suffix == "npy":
        np.save(path, rows)
    else:
        pq.write_table(pa.table({"embedding": [row.astype(float).tolist() for row in rows]}), path)
    (answer,) = ask(built, ["minilm"], Query.of(vectors=path), Narrowed(1))
    assert [[hit.id for hit in found] for found in answer.hits] == [[3], [50]]


def test_one_vector_may_be_flat(built: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", vectors(Features(built, "minilm").to_arrow())[9])
    assert hits(built, "minilm", vectors=tmp_path / "one.npy")[0].id == 9


def test_features_of_another_dataset_are_queries_as_they_are(built: Dataset) -> None:
    path = Path(built.url, "features/minilm/000001.parquet")
    (answer,) = ask(built, ["minilm"], Query.of(vectors=path), Narrowed(1))
    assert [found[0].id for found in answer.hits] == list(range(16, 32))


def test_vectors_of_another_space_are_refused_with_both_cards(built: Dataset) -> None:
    path = Path(built.url, "features/efficientnet-lite0/000001.parquet")
    with pytest.raises(Conflict) as caught:
        ask(built, ["minilm"], Query.of(vectors=path), Narrowed(1))
    theirs, ours = (Features(built, name).card for name in ("efficientnet-lite0", "minilm"))
    assert f"'efficientnet-lite0' (image, dim 1280, space {theirs.space})" in str(caught.value)
    assert f"'minilm' (text, dim 384, space {ours.space})" in str(caught.value)


def test_a_text_against_plain_pictures_is_refused_with_the_remedy(built: Dataset) -> None:
    with pytest.raises(Conflict) as caught:
        hits(built, "efficientnet-lite0", text="a red star")
    message = str(caught.value)
    assert "text queries cannot be compared with 'efficientnet-lite0' (image, dim 1280" in message
    assert "align it with text features (mmdata align), ask with a vector of that space, or name what makes" in message


def test_an_encoder_of_another_space_is_refused_with_both_cards(built: Dataset) -> None:
    with pytest.raises(Conflict) as caught:
        hits(built, "efficientnet-lite0", text="a red star", encoder="minilm")
    assert "'minilm' (text, dim 384" in str(caught.value)
    assert "cannot query 'efficientnet-lite0' (image, dim 1280" in str(caught.value)
    assert "vectors of two spaces are not comparable" in str(caught.value)


def test_an_encoder_of_another_modality_than_the_query_is_refused(built: Dataset) -> None:
    with pytest.raises(ConfigError, match="minilm encodes text, not image"):
        open_index(built, "minilm").encode(Modality.IMAGE, b"", encoder="minilm")


def test_an_encoder_may_be_given_for_the_query(built: Dataset) -> None:
    given = hits(built, "minilm", text="two green rings", encoder="other-name=minilm")
    assert [asdict(hit) for hit in given] == [asdict(hit) for hit in hits(built, "minilm", text="two green rings")]


def test_the_same_model_by_another_spec_is_another_space(built: Dataset) -> None:
    with pytest.raises(Conflict, match="cannot query 'minilm'"):
        hits(built, "minilm", text="two green rings", encoder=f"hf:{weights_folder()}")


@pytest.mark.parametrize(
    ("spec", "family"), [("quick_encoder:Letters", quick_encoder.Letters), ("odd:plain", odd_encoder.OddEncoder)]
)
def test_code_that_changed_since_the_index_was_made_is_refused_with_both_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, family: type
) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("a red star")
    url = str(tmp_path / "dataset")
    shard(ShardConfig(dataset=url, source=str(tmp_path / "corpus")), HERE)
    extract(ExtractConfig(dataset=url, encoders=(f"mine={spec}",)), HERE)
    index(IndexConfig(dataset=url, features="mine"), HERE)
    assert [hit.key for hit in hits(Dataset.open(url), "mine", text="a star", encoder=spec)] == ["a"]
    before = family.describe("", "", Request())
    monkeypatch.setattr(family, "describe", lambda *asked: replace(before, space="", revision="2"))
    with pytest.raises(Conflict) as caught:
        hits(Dataset.open(url), "mine", text="a star", encoder=spec)
    space = before.space or f"{spec}@1"
    assert f"{spec!r} (text, dim {before.dim}, space {spec}@2) cannot query what it wrote as" in str(caught.value)
    assert f"{spec!r} (text, dim {before.dim}, space {space})" in str(caught.value)


def test_a_query_goes_through_the_encoder_of_the_index(built: Dataset) -> None:
    encoder = load_encoder(describe("minilm"))
    wanted = encoder.encode([ready.data for ready in encoder.prepare("a blue ring")])
    assert np.array_equal(open_index(built, "minilm").encode(Modality.TEXT, "a blue ring"), wanted)


# several queries, ranges, folds and files of queries


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_several_queries_are_a_weighted_sum_of_unit_vectors(built: Dataset) -> None:
    index = open_index(built, "minilm")
    terms = ("a red star", "two rings", "blue")
    vectors = [unit(index.encode(Modality.TEXT, text)) for text in terms]
    query = Query.of(text=["a red star", "two rings::0.5", "blue::-1"])
    np.testing.assert_allclose(query.vectors(index, None), vectors[0] + 0.5 * vectors[1] - vectors[2], atol=1e-5)
    assert str(query) == "a red star + 0.5 x two rings + -1 x blue"


def test_kinds_of_queries_add_up_and_minus_takes_away(built: Dataset, corpus: Path) -> None:
    path = sorted(corpus.rglob("*.png"))[3]
    key = str(path.relative_to(corpus).with_suffix(""))
    assert hits(built, "pictures.image", image=path, text="a ring::0.2")[0].key == key
    away = hits(built, "pictures.image", k=60, image=Path(f"{path}::-1"))
    assert away[-1].key == key
    with pytest.raises(ConfigError, match="the queries cancel each other out"):
        hits(built, "minilm", text=["a star", "a star::-1"])
    with pytest.raises(ConfigError, match="a weight of 0 asks for nothing"):
        hits(built, "minilm", text="a star::0")


WEIGHTS = {
    "people::-1": ("people", -1.0),
    "at night::0.5": ("at night", 0.5),
    "a::b::+2": ("a::b", 2.0),
    "12::30": ("12", 30.0),
    "less::-.5": ("less", -0.5),
    "a::b": ("a::b", 1.0),
    "::2": ("::2", 1.0),
    "plain": ("plain", 1.0),
}


@pytest.mark.parametrize("text", WEIGHTS)
def test_a_weight_is_what_stands_behind_two_colons(text: str) -> None:
    assert Term.of("text", text) == Term("text", *WEIGHTS[text])


def test_a_range_keeps_the_hits_that_score_enough_and_may_keep_none(built: Dataset) -> None:
    index = open_index(built, "minilm")
    query = index.vector_of(index.rows["key"][5].as_py())
    scores = [hit.score for hit in index.search(query, k=60)[0]]
    for bar in (scores[20], 2.0):
        found = index.search(query, k=60, at_least=bar)[0]
        assert [hit.score for hit in found] == [score for score in scores if score >= bar]


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Forty sounds of five windows each, of which k3 and k4 are equal but for a breath."""
    dataset = Dataset.create(str(tmp_path_factory.mktemp("windows") / "dataset"))
    rows = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    rows[20:25] = rows[15:20] + 0.001
    write_features(dataset, "f", np.split(rows, 2), windows=5)
    make(dataset)
    make(dataset, name="graph", kind="hnsw")
    return dataset


@pytest.mark.parametrize("name", ["f", "graph"])
def test_a_hit_is_a_window_and_fold_keeps_the_best_of_a_sample(windows: Dataset, name: str) -> None:
    index = open_index(windows, name)
    query = index.vector_of("k7")
    every = index.search(query, k=200)[0]
    assert {hit.window for hit in every} == {(start, start + 10) for start in (0.0, 10.0, 20.0, 30.0, 40.0)}
    assert every[0].metadata == {}
    best: dict[str, Hit] = {}
    for hit in every:
        best.setdefault(hit.key, hit)
    folded = index.search(query, k=6, fold=Fold.SAMPLE)[0]
    assert [(hit.key, hit.window) for hit in folded] == [(hit.key, hit.window) for hit in list(best.values())[:6]]
    assert [hit.rank for hit in folded] == [1, 2, 3, 4, 5, 6]
    assert {hit.key for hit in index.search(query, k=500, fold=Fold.SAMPLE)[0]} == {f"k{n}" for n in range(40)}


def test_duplicates_are_shown_once(windows: Dataset) -> None:
    index = open_index(windows, "f")
    stored = index.vector_index.stored(np.array([15]))
    assert [hit.key for hit in index.search(stored, k=2)[0]] == ["k3", "k4"]
    assert {"k3", "k4"} & {hit.key for hit in index.search(stored, k=40, fold=Fold.DUPLICATES)[0]} == {"k3"}


@pytest.mark.parametrize("fold", Fold)
def test_a_range_holds_where_fold_leaves_fewer_than_were_asked_for(windows: Dataset, fold: Fold) -> None:
    index = open_index(windows, "f")
    query = index.vector_of("k7")
    scores = [hit.score for hit in index.search(query, k=60, fold=fold)[0]]
    assert len(scores) < 60
    found = index.search(query, k=60, at_least=scores[9], fold=fold)[0]
    assert [hit.score for hit in found] == scores[:10]


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf-flat"])
def test_many_duplicates_are_each_compared_with_the_few_that_are_kept(tmp_path: Path, kind: str) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    centres = np.random.default_rng(0).normal(size=(7, 16))
    rows = np.repeat(centres, 600, axis=0) + np.random.default_rng(1).normal(scale=0.01, size=(4200, 16))
    write_features(dataset, "f", [rows.astype(np.float32)])
    make(dataset, kind=kind)
    index = open_index(dataset, "f")
    queries = index.vector_index.stored(np.array([0, 4199]))
    wanted = [firsts_that_differ(index, index.search(row[None], k=4200).ids[0]) for row in queries]
    assert [len(ids) for ids in wanted] == [7, 7]
    tracemalloc.start()
    found = index.search(queries, k=8, fold=Fold.DUPLICATES)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [ids[:count].tolist() for ids, count in zip(found.ids, found.counts, strict=True)] == wanted
    assert [index.search(row[None], k=3, fold=Fold.DUPLICATES).ids[0].tolist() for row in queries] == [
        ids[:3] for ids in wanted
    ]
    assert most < 8 << 20  # all with all are 70 MB


def firsts_that_differ(index: Index, ids: np.ndarray) -> list[int]:
    unit = index.vector_index.stored(ids)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    kept: list[int] = []
    for place in range(len(ids)):
        if not (unit[kept] @ unit[place] >= 0.995).any():
            kept.append(place)
    return ids[kept].tolist()


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_a_file_of_queries_becomes_a_file_of_hits(
    windows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(many, "BATCH", 16)
    index = open_index(windows, "f")
    rows = np.random.default_rng(1).normal(size=(50, 16)).astype(np.float32)
    path, out = tmp_path / f"queries.{suffix}", tmp_path / "hits.parquet"
    np.save(path, rows) if suffix == "npy" else pq.write_table(pa.table({"embedding": list(rows)}), path)
    assert many.search_file(index, path, out, Narrowed(4)) == (50, 200)
    table = pq.read_table(out)
    wanted = [(n, h.rank, h.key, h.window[0]) for n, found in enumerate(index.search(rows, k=4)) for h in found]
    assert list(zip(*(table[c].to_pylist() for c in ("query", "rank", "key", "start")), strict=True)) == wanted
    assert many.search_file(index, path, out, Narrowed(4, at_least=2.0)) == (50, 0)
    assert pq.read_table(out).num_rows == 0
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix == ".part"] == []


def test_the_file_of_hits_makes_its_folder_and_says_where_it_cannot_be(windows: Dataset, tmp_path: Path) -> None:
    index, queries = open_index(windows, "f"), tmp_path / "queries.npy"
    np.save(queries, np.ones((1, 16), np.float32))
    out = tmp_path / "not" / "yet" / "hits.parquet"
    assert many.search_file(index, queries, out, Narrowed(4)) == (1, 4)
    assert pq.read_table(out).num_rows == 4
    with pytest.raises(StorageError, match=r"cannot access .*queries.npy/hits.parquet"):
        many.search_file(index, queries, queries / "hits.parquet", Narrowed(4))


@pytest.mark.parametrize(
    ("beside", "named"), [("--sheet=s.png", "--sheet"), ("--json", "--json"), ("--encoder=minilm", "--encoder")]
)
def test_what_a_file_of_hits_has_no_use_for_is_refused(
    windows: Dataset, tmp_path: Path, beside: str, named: str
) -> None:
    np.save(tmp_path / "queries.npy", np.ones((1, 16), np.float32))
    asked = ["--vectors", str(tmp_path / "queries.npy"), "--out", str(tmp_path / "hits.parquet"), beside]
    done = CliRunner().invoke(command_line, ["search", windows.url, "--index", "f", *asked])
    assert isinstance(done.exception, ConfigError)
    assert named in str(done.exception)
    assert not (tmp_path / "hits.parquet").exists()


def test_a_file_that_breaks_off_leaves_the_old_hits(windows: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "hits.parquet"
    out.write_bytes(b"old")
    pq.write_table(pa.table({"embedding": [[0.5] * 16] * 3 + [None]}), tmp_path / "queries.parquet")
    with pytest.raises(ConfigError, match=r"queries.parquet is neither"):
        many.search_file(open_index(windows, "f"), tmp_path / "queries.parquet", out, Narrowed(2))
    assert out.read_bytes() == b"old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["hits.parquet", "queries.parquet"]


WRONG_FILES = {
    "short.npy": (np.ones((2, 5), np.float32), r"queries of shape \(2, 5\): 'minilm' takes \(n, 384\)"),
    "deep.npy": (np.ones((2, 2, 384), np.float32), r"queries of shape \(2, 2, 384\)"),
    "nan.npy": (np.full((1, 384), np.nan, np.float32), "a query has numbers that are not finite"),
    "words.npy": (np.array(["a", "b"]), "words.npy is neither .npy nor Parquet with a column embedding of 384"),
    "objects.npy": (np.array([{}], dtype=object), "objects.npy is neither .npy nor Parquet"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_an_array_that_holds_no_queries_is_refused(built: Dataset, tmp_path: Path, name: str) -> None:
    array, message = WRONG_FILES[name]
    np.save(tmp_path / name, array, allow_pickle=True)
    with pytest.raises(ConfigError, match=message):
        hits(built, "minilm", vectors=tmp_path / name)


WRONG_TABLES = {
    "other column": pa.table({"vector": [[0.0] * 384]}),
    "short": pa.table({"embedding": [[0.0] * 5]}),
    "ragged": pa.table({"embedding": [[0.0] * 384, [0.0]]}),
    "no lists": pa.table({"embedding": [0.0] * 384}),
}


@pytest.mark.parametrize("what", WRONG_TABLES)
def test_a_table_that_holds_no_queries_is_refused(built: Dataset, tmp_path: Path, what: str) -> None:
    pq.write_table(WRONG_TABLES[what], tmp_path / "queries.parquet")
    with pytest.raises(ConfigError, match=r"queries.parquet is neither .npy nor Parquet with a column"):
        hits(built, "minilm", vectors=tmp_path / "queries.parquet")


def test_a_missing_vector_is_never_read_over(built: Dataset, tmp_path: Path) -> None:
    pq.write_table(pa.table({"embedding": [[0.0] * 384, None]}), tmp_path / "queries.parquet")
    with pytest.raises(ConfigError, match="queries"):
        hits(built, "minilm", vectors=tmp_path / "queries.parquet")


WRONG_QUERIES = {
    "no such key": ({"key": "nosuch"}, NotFound, "the index 'minilm' has no sample 'nosuch'"),
    "empty text": ({"text": "  "}, ConfigError, "the text query cannot be used: the text has no characters"),
    "no such file": ({"vectors": Path("nosuch.npy")}, ConfigError, "nosuch.npy does not exist"),
    "nothing asked": ({}, ConfigError, "ask for --text, --image, --audio, --key"),
    "vectors and a text": ({"text": "a", "vectors": Path("b")}, ConfigError, "or for --vectors"),
}


@pytest.mark.parametrize("what", WRONG_QUERIES)
def test_a_query_that_cannot_be_answered_says_why(built: Dataset, what: str) -> None:
    given, kind, message = WRONG_QUERIES[what]
    blank = dict.fromkeys(("text", "image", "audio", "key", "vectors"))
    with pytest.raises(kind, match=message):
        hits(built, "minilm", **(blank | given))


def test_a_picture_file_that_is_none_says_why(built: Dataset, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_bytes(b"not a picture")
    with pytest.raises(ConfigError, match="the image query cannot be used: not "):
        hits(built, "efficientnet-lite0", image=tmp_path / "notes.png")
    with pytest.raises(ConfigError, match=r"gone.png cannot be read: No such file"):
        hits(built, "efficientnet-lite0", image=tmp_path / "gone.png")


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(built: Dataset, k: int) -> None:
    with pytest.raises(ConfigError, match=f"k is {k}; ask for one hit at least"):
        hits(built, "minilm", k=k, text="a red star")


def test_several_indexes_need_a_choice_and_one_needs_none(built: Dataset, sounds: tuple[Dataset, Path]) -> None:
    query = Query.of(key=open_index(built, "minilm").rows["key"][0].as_py())
    with pytest.raises(NotFound, match=r"say which with --index: efficientnet-lite0, minilm, pictures.image"):
        ask(built, [], query, Narrowed(1))
    both = ask(built, ["minilm", "efficientnet-lite0"], query, Narrowed(1))
    assert [(a.index, a.modality, a.hits[0][0].id) for a in both] == [
        ("minilm", Modality.TEXT, 0),
        ("efficientnet-lite0", Modality.IMAGE, 0),
    ]
    key = open_index(sounds[0], "mel-stats").rows["key"][0].as_py()
    assert [a.index for a in ask(sounds[0], [], Query.of(key=key), Narrowed(1))] == ["mel-stats"]


def test_where_narrows_a_query_of_any_kind(built: Dataset) -> None:
    (answer,) = ask(built, ["pictures.image"], Query.of(text="a star"), Narrowed(5, ["folder=ring", "count>=2"]))
    assert {(hit.metadata["folder"], hit.metadata["count"] >= 2) for hit in answer.hits[0]} == {("ring", True)}


def test_one_open_index_answers_many_threads(built: Dataset) -> None:
    from concurrent.futures import ThreadPoolExecutor

    opened: Index = open_index(built, "minilm")
    keys = opened.rows["key"].to_pylist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda key: opened.search(opened.vector_of(key), k=1, where=["id>=0"])[0][0].key, keys))
    assert found == keys
