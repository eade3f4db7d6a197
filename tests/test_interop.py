"""The files are read by the libraries that others use, with the same keys, bytes and values."""

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import HERE
from numpy.typing import NDArray

from mmdata.config import ShardConfig
from mmdata.stages.shard import shard
from mmdata.storage.dataset import SHARDS, Dataset
from mmdata.storage.features import Features, vectors
from mmdata.storage.receipts import read_receipts
from mmdata.storage.shards import read_part, read_sample_table
from mmdata.types import Modality

SUFFIXES = {Modality.IMAGE: "png", Modality.AUDIO: "wav", Modality.TEXT: "txt"}
Samples = dict[str, dict[str, bytes]]


def tars(dataset: Dataset) -> list[str]:
    return sorted(str(path) for path in Path(dataset.url, "shards").glob("*.tar"))


@pytest.fixture(scope="module")
def samples(built: Dataset) -> Samples:
    """Number in the tar to suffix to bytes, by our own sample tables."""
    found: Samples = {}
    for receipt in read_receipts(built.store, SHARDS).values():
        for row in read_sample_table(built, receipt).to_pylist():
            parts = {s: read_part(built, receipt.shard, row, m).data for m, s in SUFFIXES.items()}
            found[f"{row['id']:09d}"] = parts | {"key": row["key"].encode()}
    return found


def test_webdataset_reads_the_same_keys_and_bytes(built: Dataset, samples: Samples) -> None:
    import webdataset

    found = {}
    for record in webdataset.WebDataset(tars(built), shardshuffle=False):
        parts = {suffix: record[suffix] for suffix in SUFFIXES.values()}
        found[record["__key__"]] = parts | {"key": json.loads(record["json"])["key"].encode()}
    assert found == samples


def test_datasets_reads_the_same_keys_and_bytes(built: Dataset, samples: Samples, tmp_path: Path) -> None:
    import datasets

    text, binary = datasets.Value("string"), datasets.Value("binary")
    about = {
        "key": text,
        "source": text,
        "metadata": {"colour": text, "count": datasets.Value("int64"), "folder": text},
    }
    # left to itself, datasets declares sounds as Audio, which it cannot write without torchcodec
    features = datasets.Features(
        {"__key__": text, "__url__": text, "png": datasets.Image(), "wav": binary, "txt": text, "json": about}
    )
    loaded = datasets.load_dataset(
        "webdataset", data_files=tars(built), split="train", cache_dir=str(tmp_path), features=features
    )
    found = {}
    for record in loaded.with_format("arrow")[:].to_pylist():
        parts = {"png": record["png"]["bytes"], "wav": record["wav"], "txt": record["txt"].encode()}
        found[record["__key__"]] = parts | {"key": record["json"]["key"].encode()}
    assert found == samples


def test_datasets_finds_out_by_itself_what_shards_of_pictures_and_texts_hold(
    corpus: Path, samples: Samples, tmp_path: Path
) -> None:
    import datasets

    config = ShardConfig(dataset=str(tmp_path / "dataset"), source=str(corpus), modalities=("image", "text"))
    shard(config, HERE)
    files = tars(Dataset.open(config.dataset))
    loaded = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    found = {}
    for record in loaded.with_format("arrow")[:].to_pylist():
        found[record["__key__"]] = {"png": record["png"]["bytes"], "txt": record["txt"].encode()}
    assert found == {number: {s: parts[s] for s in ("png", "txt")} for number, parts in samples.items()}
    assert loaded[0]["png"].size == (192, 192)


def test_ray_data_reads_the_same_keys_and_bytes(built: Dataset, samples: Samples, local_ray: None) -> None:
    import ray

    found = {}
    for record in ray.data.read_webdataset(tars(built), decoder=None).take_all():
        parts = {suffix: record[suffix] for suffix in SUFFIXES.values()}
        found[record["__key__"]] = parts | {"key": json.loads(record["json"])["key"].encode()}
    assert found == samples


# embeddings


@pytest.fixture(scope="module")
def table(built: Dataset) -> pa.Table:
    return Features(built, "minilm").to_arrow()


@pytest.fixture(scope="module")
def files(built: Dataset) -> list[str]:
    return Features(built, "minilm").files


def same(keys: list[str], found: NDArray[np.floating], table: pa.Table) -> bool:
    return keys == table["key"].to_pylist() and np.array_equal(
        found.astype(np.float32), vectors(table).astype(np.float32)
    )


def test_pyarrow_opens_the_folder(files: list[str], table: pa.Table) -> None:
    found = pa.concat_tables([pq.read_table(path) for path in files])
    assert found["embedding"].type == pa.list_(pa.float16(), 384)
    assert same(found["key"].to_pylist(), vectors(found), table)


def test_pandas_opens_the_embeddings(files: list[str], table: pa.Table) -> None:
    found = pd.concat([pd.read_parquet(path) for path in files])
    assert same(found["key"].tolist(), np.stack(found["embedding"].to_list()), table)
    assert found["count"].tolist() == table["count"].to_pylist()


def test_polars_opens_the_embeddings(files: list[str], table: pa.Table) -> None:
    found = pl.read_parquet(files)
    assert found.schema["embedding"] == pl.Array(pl.Float16, 384)
    assert same(found["key"].to_list(), found["embedding"].to_numpy(), table)
    assert found["caption"].to_list() == table["caption"].to_pylist()


def test_duckdb_opens_the_embeddings(files: list[str], table: pa.Table) -> None:
    rows = duckdb.sql("select key, embedding from read_parquet($files) order by id", params={"files": files}).fetchall()
    assert same([key for key, _ in rows], np.array([vector for _, vector in rows]), table)


def test_datasets_opens_the_embeddings_and_indexes_them(files: list[str], table: pa.Table, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    found = np.asarray(loaded.with_format("numpy")["embedding"][:])
    assert same(list(loaded["key"]), found, table)
    loaded.add_faiss_index(column="embedding")
    query = vectors(table)[17].astype(np.float32)
    _, nearest = loaded.get_nearest_examples("embedding", query, k=1)
    assert nearest["key"] == [table["key"][17].as_py()]
