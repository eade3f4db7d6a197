"""Feature sets as extract writes them, with vectors of our own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from conftest import HERE
from numpy.typing import NDArray

from mmdata.config import IndexConfig
from mmdata.retrieval.search import Index
from mmdata.stages import Summary
from mmdata.stages.index import index
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import claim, features_file
from mmdata.storage.receipts import commit
from mmdata.types import EncoderCard, Modality, Receipt

Vectors = NDArray[np.floating]


def made_card(name: str, dim: int, *, modality: Modality = Modality.TEXT, space: str = "made") -> EncoderCard:
    return EncoderCard(
        name=name,
        spec=f"made:{name}",
        modality=modality,
        dim=dim,
        dtype="float32",
        precision="fp32",
        normalised=False,
        space=f"made:{space}",
        preprocessing={},
        revision="1",
        weights_sha256="",
        towers={"text": f"made:{name}"},
    )


def write_shard(
    dataset: Dataset, card: EncoderCard, number: int, vectors: Vectors, first: int, windows: int = 1
) -> None:
    """One shard; its keys are k0, k1 ... from `first`, each with `windows` rows in a row."""
    ids = [first + row // windows for row in range(len(vectors))]
    columns = {"id": ids, "key": [f"k{i}" for i in ids], "member": [f"{i:09d}.txt" for i in ids]}
    columns |= {"caption": [f"caption {i}" for i in ids]}
    starts = np.arange(len(vectors)) % windows * 10.0
    spans = np.stack([starts, starts + 10], axis=1).astype(np.float32) if windows > 1 else None
    data = features_file(card, pa.table(columns), vectors, spans=spans)
    receipt = Receipt("extract", f"{number:06d}", card.fingerprint, {}, {}, len(ids), len(ids), 0, {}, {}, {})
    commit(dataset.store, f"features/{card.name}", receipt, {"parquet": data})


def write_features(
    dataset: Dataset, name: str, shards: Sequence[Vectors], windows: int = 1, **card: object
) -> EncoderCard:
    """A feature set of text, in the space `made:made` if `card` says nothing else."""
    made = replace(made_card(name, shards[0].shape[1]), **card)
    claim(dataset, made, overwrite=False)
    first = 0
    for number, vectors in enumerate(shards):
        write_shard(dataset, made, number, vectors, first, windows)
        first += len(vectors) // windows
    return made


def clusters(rows: int, dim: int, *, seed: int = 0, groups: int = 40, spread: float = 0.6) -> Vectors:
    """`(rows, dim)` vectors about some centres, in the order of the centres, as a corpus that is sorted."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(groups, dim))
    return (centres[np.sort(rng.integers(0, groups, rows))] + spread * rng.normal(size=(rows, dim))).astype(np.float32)


def make(dataset: Dataset, features: str = "f", **options: object) -> Summary:
    return index(IndexConfig(dataset=dataset.url, features=features, **options), HERE)


def opened(dataset: Dataset, name: str = "f") -> Index:
    return Index(dataset, name)
