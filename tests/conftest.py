"""A small real corpus, a dataset made from it, and one Ray for the whole session. Nothing is downloaded."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmdata.cluster import Resources
from mmdata.config import AlignConfig, ExtractConfig, IndexConfig, ShardConfig
from mmdata.demo import write_corpus
from mmdata.stages.align import align
from mmdata.stages.extract import extract
from mmdata.stages.index import index
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset

HERE = Resources(workers=0)
STARTERS = ("minilm", "efficientnet-lite0", "mel-stats")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty samples with a picture, a sentence and a sound each, in folders by shape. Do not write into it."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, 60)
    return folder


@pytest.fixture(scope="session")
def built(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A finished dataset: four shards, the starters' features, two heads, indexes. Do not write into it."""
    url = str(tmp_path_factory.mktemp("built") / "dataset")
    shard(ShardConfig(dataset=url, source=str(corpus), samples_per_shard=16), HERE)
    extract(ExtractConfig(dataset=url, encoders=STARTERS), HERE)
    align(AlignConfig(dataset=url, name="pictures", features=("minilm", "efficientnet-lite0"), holdout=0.4), HERE)
    for features in ("minilm", "efficientnet-lite0", "pictures.image"):
        index(IndexConfig(dataset=url, features=features), HERE)
    return Dataset.open(url)


@pytest.fixture
def sharded(corpus: Path, tmp_path: Path) -> Dataset:
    """A fresh dataset of four shards and nothing else, to write into."""
    url = str(tmp_path / "dataset")
    shard(ShardConfig(dataset=url, source=str(corpus), samples_per_shard=16), HERE)
    return Dataset.open(url)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A local Ray of two CPUs, shared by the session."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="warning")
    yield
    ray.shutdown()
