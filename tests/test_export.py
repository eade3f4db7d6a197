"""Exports are what other tools read: the same rows, the same vectors, and nothing left half done."""

from pathlib import Path

import numpy as np
import orjson
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import HERE
from made_features import clusters, write_features

from mmdata.config import ExportConfig
from mmdata.errors import ConfigError, NotFound
from mmdata.stages import export as stage
from mmdata.stages.export import FORMATS, export
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors

NEAR = 1e-5
HALF = 1e-3


def write(dataset: Dataset, features: str, to: str, out: Path) -> Path:
    summary = export(ExportConfig(dataset=dataset.url, features=features, to=to, out=str(out)), HERE)
    assert summary.rows_out == sum(r.rows_out for r in Features(dataset, features).receipts.values())
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three shards of windows, one of them without rows, and a row that no vector database takes."""
    dataset = Dataset.create(str(tmp_path_factory.mktemp("export") / "dataset"))
    rows = clusters(1200, 6)
    rows[5] = np.nan
    write_features(dataset, "f", [rows[:600], np.zeros((0, 6), np.float32), rows[600:]], windows=2)
    return dataset


def test_parquet_holds_every_row_with_its_vector_and_metadata(built: Dataset, tmp_path: Path) -> None:
    table = pq.read_table(write(built, "efficientnet-lite0", "parquet", tmp_path / "out.parquet"))
    source = Features(built, "efficientnet-lite0").to_arrow()
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 1280)
    assert np.array_equal(vectors(table), vectors(source).astype(np.float32))
    same = ["id", "key", "member", "caption", "colour", "count", "folder", "shard"]
    assert table.select(same).to_pylist() == source.select(same).to_pylist()
    assert polars.read_parquet(tmp_path / "out.parquet")["key"].to_list() == source["key"].to_pylist()


def test_hf_datasets_loads_it_and_its_faiss_index_finds(built: Dataset, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    out = write(built, "minilm", "hf", tmp_path / "out")
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["key"][:] == Features(built, "minilm").to_arrow()["key"].to_pylist()
    indexed = rows.with_format("numpy").add_faiss_index("embedding")
    _, found = indexed.get_nearest_examples("embedding", np.asarray(rows[17]["embedding"], np.float32), k=1)
    assert found["key"][0] == rows[17]["key"]


def test_lance_opens_it(made: Dataset, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    table = lance.dataset(str(write(made, "f", "lance", tmp_path / "out"))).to_table()
    assert table["key"].to_pylist() == Features(made, "f").to_arrow()["key"].to_pylist()
    assert np.array_equal(vectors(table), vectors(Features(made, "f").to_arrow()), equal_nan=True)


def test_lance_that_is_not_installed_says_how(made: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'mmdata\[lance\]'"):
        write(made, "f", "lance", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_qdrant_takes_the_collection_and_every_point(made: Dataset, tmp_path: Path) -> None:
    qdrant = pytest.importorskip("qdrant_client")
    out = write(made, "f", "qdrant", tmp_path / "out")
    collection = qdrant.models.CreateCollection(**orjson.loads((out / "collection.json").read_bytes()))
    client = qdrant.QdrantClient(":memory:")
    client.create_collection("made", vectors_config=collection.vectors)
    for path in sorted(out.glob("points-*.json")):
        client.upsert("made", qdrant.models.PointsList(**orjson.loads(path.read_bytes())).points)
    assert client.count("made").count == 1199  # without the row of NaN
    (hit,) = client.query_points("made", query=clusters(1200, 6)[700].tolist(), limit=1, with_payload=True).points
    assert (hit.id, hit.payload["key"], hit.payload["start"]) == (700, "k350", 0.0)


def test_embedding_atlas_gets_a_map_by_the_two_main_directions(made: Dataset, tmp_path: Path) -> None:
    table = pq.read_table(write(made, "f", "embedding-atlas", tmp_path / "out.parquet"))
    places = np.stack([table["projection_x"].to_numpy(), table["projection_y"].to_numpy()], axis=1)
    rows = clusters(1200, 6).astype(np.float64)
    good = np.arange(1200) != 5
    centred = rows[good] - rows[good].mean(axis=0)
    wanted = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    np.testing.assert_allclose(np.abs(places[good]), np.abs(wanted), atol=HALF)


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_there_is_left_alone_and_a_failure_leaves_nothing(
    made: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ConfigError, match="there is there; name another --out, or remove it"):
        write(made, "f", to, tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"

    def broken(self: object) -> object:
        raise OSError("no space left")

    monkeypatch.setattr(stage._Rows, "__iter__", broken)
    with pytest.raises(OSError, match="no space left"):
        write(made, "f", to, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_features_without_rows_have_nothing_to_export(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    write_features(dataset, "f", [np.zeros((0, 4), np.float32)])
    with pytest.raises(NotFound, match="features 'f' have no rows to export"):
        write(dataset, "f", "parquet", tmp_path / "out")
