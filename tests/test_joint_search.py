"""A model of two towers: a text asks an index of its pictures or of its sounds directly."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import libraries
import numpy as np
import pytest
import torch
from conftest import HERE
from tiny_models import save
from tiny_sounds import clap, clip, open_clip_folder, siglip, siglip2

from mmdata.config import ExtractConfig, IndexConfig, ShardConfig
from mmdata.demo import write_corpus
from mmdata.errors import Conflict
from mmdata.retrieval.ask import Narrowed, Query, ask
from mmdata.retrieval.search import open_index
from mmdata.stages.extract import extract
from mmdata.stages.index import index
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors
from mmdata.types import Modality

HALF = 2e-3  # what float16 keeps of a cosine
QUESTION = "a red star on the left"
TOWERS: dict[str, tuple[Callable[[Path], None], Callable[[Path, Any], torch.Tensor]]] = {
    "hf:{}/clip#image": (clip, libraries.joint_text),
    "hf:{}/siglip#image": (siglip, libraries.siglip_text),
    "hf:{}/siglip2#image": (siglip2, libraries.siglip_text),
    "hf:{}/clap#audio": (clap, libraries.joint_text),
    "open_clip:local-dir:{}/open_clip_folder#image": (open_clip_folder, libraries.open_clip_text),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("joint")
    write_corpus(folder / "corpus", 12)
    url = str(folder / "dataset")
    shard(ShardConfig(dataset=url, source=str(folder / "corpus")), HERE)
    return Dataset.open(url)


@pytest.mark.parametrize("spec", TOWERS)
def test_a_text_finds_the_pictures_or_sounds_that_the_library_puts_next_to_it(
    spec: str, corpus: Dataset, tmp_path: Path
) -> None:
    model, library = TOWERS[spec]
    folder = save(model, tmp_path)
    extract(ExtractConfig(dataset=corpus.url, encoders=(f"{model.__name__}={spec.format(tmp_path)}",)), HERE)
    index(IndexConfig(dataset=corpus.url, features=model.__name__), HERE)
    [answer] = ask(corpus, [model.__name__], Query.of(text=QUESTION), Narrowed(12))
    rows = Features(corpus, model.__name__).to_arrow()
    with torch.inference_mode():
        scores = vectors(rows).astype(np.float32) @ library(folder, QUESTION).numpy()
    wanted = dict(zip(rows["key"].to_pylist(), scores.tolist(), strict=True))
    assert {hit.key: hit.score for hit in answer.hits[0]} == pytest.approx(wanted, abs=HALF)
    assert [hit.score for hit in answer.hits[0]] == sorted((hit.score for hit in answer.hits[0]), reverse=True)


def test_a_model_of_other_weights_is_another_space(corpus: Dataset, tmp_path: Path) -> None:
    first, second = save(clip, tmp_path), save(clip, tmp_path / "other", seed=1)
    extract(ExtractConfig(dataset=corpus.url, encoders=(f"first=hf:{first}#image",)), HERE)
    index(IndexConfig(dataset=corpus.url, features="first"), HERE)
    with pytest.raises(Conflict, match="vectors of two spaces are not comparable"):
        open_index(corpus, "first").encode(Modality.TEXT, QUESTION, f"hf:{second}#text")


def test_patches_are_stored_beside_the_vectors_of_the_pictures(corpus: Dataset, tmp_path: Path) -> None:
    spec = f"patches=hf:{save(clip, tmp_path)}#image"
    extract(ExtractConfig(dataset=corpus.url, encoders=(spec,), tokens=9), HERE)
    rows = Features(corpus, "patches").to_arrow()
    assert [len(sequence) for sequence in rows["tokens"].to_pylist()] == [9] * 12
    assert {len(patch) for sequence in rows["tokens"].to_pylist() for patch in sequence} == {16}
