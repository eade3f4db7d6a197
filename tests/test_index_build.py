"""Building: sorted or shuffled, by one process or by workers, and the recall that the label claims."""

import json
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from conftest import HERE
from made_features import Vectors, clusters, make, opened, write_features

from mmdata.cluster import Resources
from mmdata.config import IndexConfig
from mmdata.errors import ConfigError, Damage, TooManyRejects
from mmdata.retrieval import auto, generation
from mmdata.retrieval.kinds import KINDS, STORES, bytes_for, empty_store
from mmdata.retrieval.label import probes
from mmdata.retrieval.measure import own_probe, recall
from mmdata.retrieval.metric import METRICS
from mmdata.retrieval.vectors_file import codes, map_vectors, write_vectors
from mmdata.stages.index import index
from mmdata.storage.dataset import Dataset
from mmdata.types import Modality

TUNED = [kind for kind in KINDS if KINDS[kind].knob]
MEASURED = 0.02  # two standard errors of a recall of 0.95 by 500 queries


@pytest.fixture(scope="module")
def sorted_and_shuffled(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """6,000 clustered vectors in five shards: `sorted` in the order of their clusters, `shuffled` in none.

    `sorted.image`, in the same space, lies beside the texts and not among them, as pictures do.
    """
    dataset = Dataset.create(str(tmp_path_factory.mktemp("sorted") / "dataset"))
    rows = clusters(6000, 16)
    mixed = np.random.default_rng(5).permutation(rows)
    aside = clusters(600, 16, seed=2, spread=1.2) + 0.5
    write_features(dataset, "sorted", np.split(rows, 5))
    write_features(dataset, "shuffled", np.split(mixed, 5))
    write_features(dataset, "aside", [aside], modality=Modality.IMAGE)
    return dataset


def true_recall(dataset: Dataset, name: str, vectors: Vectors, queries: Vectors) -> float:
    """The share of the ten nearest, by numpy, that a search finds."""
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, vectors)]
    bar = np.sort(unit[0] @ unit[1].T, axis=1)[:, -10]
    found = opened(dataset, name).search(queries, k=10)
    return float((found.scores >= bar[:, None] - 1e-5).mean())


@pytest.mark.parametrize("kind", TUNED)
def test_sorted_input_is_as_good_as_shuffled_and_the_label_is_true(sorted_and_shuffled: Dataset, kind: str) -> None:
    dataset, labels, truths = sorted_and_shuffled, [], []
    rows = clusters(6000, 16)
    queries = clusters(400, 16, seed=3)
    for features in ("sorted", "shuffled"):
        make(dataset, features, name=f"{features}-{kind}", kind=kind)
        labels.append(opened(dataset, f"{features}-{kind}").facts.recall)
        truths.append(true_recall(dataset, f"{features}-{kind}", rows, queries))
    assert [sorted(label) for label in labels] == [["image", "text"], ["image", "text"]]
    assert min(label[modality]["10"] for label in labels for modality in label) >= 0.95
    assert abs(truths[0] - truths[1]) < 0.01 + MEASURED
    assert min(truths) > 0.95 - MEASURED
    assert abs(labels[0]["text"]["10"] - truths[0]) < 2 * MEASURED


def test_recall_of_each_modality_is_measured_on_its_own(sorted_and_shuffled: Dataset) -> None:
    dataset = sorted_and_shuffled
    make(dataset, "sorted", name="thin", kind="ivf-flat")
    found = opened(dataset, "thin")
    text = own_probe(found.vector_index, "text", 300, seed=1)
    (image,) = [p for p in probes(dataset, found.card, found.vector_index, 0) if p.modality == "image"]
    one_list = {"nprobe": 2}
    assert recall(found.vector_index, image, 10, one_list) < recall(found.vector_index, text, 10, one_list) - 0.02


def test_check_measures_again_and_finds_a_flipped_bit_that_opening_a_large_index_does_not(
    sorted_and_shuffled: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "SMALL", 1 << 16)
    dataset = sorted_and_shuffled
    make(dataset, "sorted", name="checked", kind="flat")
    assert make(dataset, "sorted", name="checked", check=True).facts["recall now"] == {
        "text": {"1": 1.0, "10": 1.0, "100": 1.0},
        "image": {"1": 1.0, "10": 1.0, "100": 1.0},
    }
    path = Path(dataset.url, "indexes/checked/000001/index.faiss")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert len(opened(dataset, "checked")) == 6000
    monkeypatch.undo()
    with pytest.raises(Damage, match=r"checked/000001/index.faiss is not the file index.json names"):
        opened(dataset, "checked")
    monkeypatch.setattr(generation, "SMALL", 1 << 16)
    with pytest.raises(Damage, match=r"checked/000001/index.faiss is not the file index.json names"):
        make(dataset, "sorted", name="checked", check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_workers_make_the_very_files_that_one_process_makes(
    sorted_and_shuffled: Dataset, local_ray: None, kind: str
) -> None:
    dataset, files = sorted_and_shuffled, []
    for name, resources in ((f"here-{kind}", HERE), (f"ray-{kind}", Resources(workers=2))):
        index(IndexConfig(dataset=dataset.url, features="sorted", name=name, kind=kind), resources)
        files.append(opened(dataset, name).facts.files)
    assert files[0] == files[1]


def test_vectors_that_are_none_never_get_in_and_are_counted(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    rows = clusters(300, 8)
    rows[7, 3], rows[8, 0], rows[250] = np.nan, np.inf, 0
    write_features(dataset, "f", np.split(rows, 3))
    summary = make(dataset)
    assert (summary.rows_in, summary.rows_out) == (300, 297)
    assert summary.rejected == {"nonfinite_output": 2, "zero_norm": 1}
    (hits,) = opened(dataset).search(rows[:1], k=300)
    assert {f"k{n}" for n in range(300)} - {hit.key for hit in hits} == {"k7", "k8", "k250"}
    with pytest.raises(TooManyRejects, match=r"3 of 300 vectors of 'f' cannot be indexed, more than .* 0.005 allows"):
        make(dataset, name="strict", max_reject_rate=0.005)


# choosing


@pytest.fixture
def tried(sorted_and_shuffled: Dataset, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """So that 6,000 rows are too many for exact search, and 3,000 of them are what is tried on."""
    monkeypatch.setattr(auto, "SAMPLE", 3000)
    return sorted_and_shuffled


def test_auto_takes_a_kind_that_has_the_recall_in_the_memory(tried: Dataset) -> None:
    make(tried, "sorted", name="small", memory=300_000)  # flat needs 384,000
    facts = opened(tried, "small").facts
    assert facts.kind == "ivf-pq"
    assert facts.memory <= 300_000
    assert min(at["10"] for at in facts.recall.values()) >= 0.95
    assert facts.parameters["rerank"] in KINDS["ivf-pq"].rerank


def test_auto_takes_the_fastest(tried: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_to_grow = {kind: replace(made, grow=lambda m, n, kind=kind: 1e-9 if kind == "hnsw" else 1e9)
                    for kind, made in KINDS.items()}  # fmt: skip
    monkeypatch.setattr(auto, "KINDS", slow_to_grow)
    make(tried, "sorted", name="fast")
    assert opened(tried, "fast").facts.kind == "hnsw"


def test_when_no_kind_can_the_message_says_what_would(tried: Dataset) -> None:
    with pytest.raises(ConfigError) as caught:
        make(tried, "sorted", name="never", memory=50_000)
    lines = str(caught.value).splitlines()
    assert lines[0] == "no index of 6000 vectors of 16 numbers has recall@10 0.95 in 50KB:"
    assert [line.split(":")[0].strip() for line in lines[1:5]] == [*KINDS]
    assert lines[-1].startswith("--memory 387KB is enough for exact search")
    assert not Path(tried.url, "indexes/never/index.json").exists()


def test_a_kind_that_is_too_large_is_refused_before_it_is_built(tried: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"hnsw: needs 2\d\d\dKB\n(.*\n)*--memory 387KB is enough for exact search"):
        make(tried, "sorted", name="large", kind="hnsw", memory=400_000)


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_of_a_kind_is_known_before_it_is_built(sorted_and_shuffled: Dataset, kind: str) -> None:
    make(sorted_and_shuffled, "sorted", name=f"weighed-{kind}", kind=kind)
    took = opened(sorted_and_shuffled, f"weighed-{kind}").facts.memory
    assert 0.9 * bytes_for(kind, 6000, 16) <= took <= bytes_for(kind, 6000, 16)


def test_too_few_vectors_for_product_codes_are_refused(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    write_features(dataset, "f", [clusters(200, 8)])
    with pytest.raises(ConfigError, match="ivf-pq learns 256 codes from as many vectors at least, not from 200"):
        make(dataset, kind="ivf-pq")


def test_the_label_is_json_with_everything_that_was_asked(sorted_and_shuffled: Dataset) -> None:
    make(sorted_and_shuffled, "sorted", name="told", kind="ivf-flat", min_recall=0.9, memory="2MB", seed=4)
    label = json.loads(Path(sorted_and_shuffled.url, "indexes/told/index.json").read_text())
    assert label["asked"] == {"min_recall": 0.9, "memory": 2_000_000, "seed": 4}
    assert label["parameters"].keys() == {"nlist", "nprobe"}
    assert (label["kind"], label["trained_for"], label["changed"], label["due"]) == ("ivf-flat", 6000, 0, [])
    assert label["seconds"] > 0
    assert label["versions"].keys() == {"mmdata", "faiss"}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", STORES)
@pytest.mark.parametrize("sizes", [(), (0,), (3, 0, 2)])
def test_vectors_written_piece_by_piece_are_the_file_that_faiss_writes(
    tmp_path: Path, metric: str, dtype: str, sizes: tuple[int, ...]
) -> None:
    rows = [clusters(size, 8, seed=size) for size in sizes]
    stores = [empty_store("ivf-pq", metric, dtype, 8) for _ in sizes]
    whole = empty_store("ivf-pq", metric, dtype, 8)
    for store, some in zip(stores, rows, strict=True):
        store.add(some)
        whole.add(some)
    write_vectors(tmp_path / "pieces", empty_store("ivf-pq", metric, dtype, 8), map(codes, stores))
    faiss.write_index(whole, str(tmp_path / "whole"))
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
    found = map_vectors(tmp_path / "pieces")
    assert np.array_equal(codes(found), codes(whole))
