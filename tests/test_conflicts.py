"""Another fingerprint, plan, source or config, over each stage: refused with both sides named, and nothing changes."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_job import HERE, SPECS, run_all, run_stage, shard_config, train_config, write_corpus

from mmdata.config import AlignConfig, ExtractConfig, IndexConfig, PredictConfig, ProjectConfig
from mmdata.errors import Conflict
from mmdata.stages.align import align
from mmdata.stages.extract import extract
from mmdata.stages.index import index
from mmdata.stages.predict import predict
from mmdata.stages.project import project
from mmdata.stages.shard import shard
from mmdata.stages.train import train_head


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    run_all(str(folder / "dataset"), str(write_corpus(folder / "corpus")))
    return folder


@dataclass
class Place:
    dataset: str
    corpus: str


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Place:
    """A copy of the dataset, whose corpus is where its plan says; what a test changes there it puts back."""
    shutil.copytree(made / "dataset", tmp_path / "dataset")
    return Place(str(tmp_path / "dataset"), str(made / "corpus"))


def content(dataset: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(dataset).rglob("*") if path.is_file()}


def other_encoder(place: Place) -> None:
    """The features of `colours` as another revision of the encoder would have made them."""
    shutil.rmtree(f"{place.dataset}/features/colours")
    extract(ExtractConfig(dataset=place.dataset, encoders=("colours=quick_encoder:Colours",), dtype="float32"), HERE)


def other_shards(place: Place) -> None:
    shard(shard_config(place.dataset, place.corpus, shuffle=1, overwrite=True), HERE)


def other_plan(place: Place) -> None:
    """The plan of another dataset over the shards of this one."""
    other = f"{place.dataset}-other"
    shard(shard_config(other, place.corpus, shuffle=1), HERE)
    for name in ("plan.json", "plan.parquet"):
        shutil.copy(f"{other}/shards/{name}", f"{place.dataset}/shards/{name}")


def other_head(place: Place) -> None:
    train_head(train_config(place.dataset, overwrite=True, seed=1))


def nothing(place: Place) -> None:
    """Only the command is another one."""


def _shard(place: Place, **options: object) -> object:
    return shard(shard_config(place.dataset, place.corpus, **options), HERE)


def _extract(place: Place, *specs: str, **options: object) -> object:
    return extract(ExtractConfig(dataset=place.dataset, encoders=specs or SPECS, **options), HERE)


def _align(place: Place, **options: object) -> object:
    about = {"name": "pair", "features": ("letters", "colours"), "holdout": 0.45, "dim": 4}
    return align(AlignConfig(dataset=place.dataset, **about | options), HERE)


def _index(place: Place, **options: object) -> object:
    return index(IndexConfig(dataset=place.dataset, features="pair.image", **options), HERE)


Command = Callable[[Place], object]
CASES: dict[str, tuple[Callable[[Place], None], Command, list[str]]] = {
    "shard, another config": (
        nothing,
        lambda p: _shard(p, require=("image",)),
        ["require: there [], asked ['image']"],
    ),
    "shard, another shuffle": (
        nothing,
        lambda p: _shard(p, shuffle=3),
        ["shuffle: there None, asked 3", "sha256: there"],
    ),
    "shard, another plan": (other_plan, lambda p: _shard(p, shuffle=1), ["shard 000000 of", "plan: there '"]),
    "extract, another encoder": (
        nothing,
        lambda p: _extract(p, "colours=quick_encoder:Letters"),
        ["modality: there 'image', asked 'text'", "dim: there 6, asked 8"],
    ),
    "extract, another config": (
        nothing,
        lambda p: _extract(p, dtype="float32"),
        ["dtype: there 'float16', asked 'float32'"],
    ),
    "extract, other shards": (other_shards, _extract, ["shard 000000 of", "000000.tar: there '", "asked '"]),
    "align, another config": (nothing, lambda p: _align(p, dim=3), ["dim: there 4, asked 3"]),
    "align, other features": (other_encoder, _align, ["the head 'pair'", "colours: there '", "asked '"]),
    "index, another config": (nothing, lambda p: _index(p, metric="l2"), ["metric: there 'cosine', asked 'l2'"]),
    "index, other features": (
        nothing,
        lambda p: index(IndexConfig(dataset=p.dataset, features="pair.text", name="pair.image"), HERE),
        ["features: there 'pair.image', asked 'pair.text'", "encoder: there '"],
    ),
    "train, another config": (
        nothing,
        lambda p: train_head(train_config(p.dataset, seed=2)),
        ["something else:\n  config.train.seed: there 0, asked 2\nchoose"],
    ),
    "train, other features": (other_encoder, lambda p: run_stage("train", p.dataset, p.corpus), ["pack: there '"]),
    "project, another encoder": (
        nothing,
        lambda p: project(ProjectConfig(dataset=p.dataset, head="kinds", features={"image": "letters"}), HERE),
        ["takes 'quick_encoder:Colours' (", "not 'quick_encoder:Letters' ("],
    ),
    "project, another head": (
        other_head,
        lambda p: project(ProjectConfig(dataset=p.dataset, head="kinds"), HERE),
        ["weights_sha256: there '", "space: there 'head:kinds@"],
    ),
    "predict, another head": (
        other_head,
        lambda p: predict(PredictConfig(dataset=p.dataset, head="kinds"), HERE),
        ["shard 000000 of", "head: there '"],
    ),
    "predict, another encoder": (
        other_encoder,
        lambda p: predict(PredictConfig(dataset=p.dataset, head="kinds"), HERE),
        ["the input 'image' of the head 'kinds' takes"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused_with_both_sides_and_nothing_changes(case: str, place: Place) -> None:
    change, command, told = CASES[case]
    change(place)
    before = content(place.dataset)
    with pytest.raises(Conflict) as caught:
        command(place)
    for line in told:
        assert line in str(caught.value), str(caught.value)
    assert caught.value.exit_code == 6
    assert content(place.dataset) == before


def test_a_source_file_that_changed_is_named_and_nothing_changes(place: Place, tmp_path: Path) -> None:
    corpus, dataset = write_corpus(tmp_path / "corpus"), str(tmp_path / "mine")
    run_stage("shard", dataset, str(corpus))
    before = content(dataset)
    (corpus / "k05.txt").write_text("another text of another length")
    with pytest.raises(Conflict, match=r"1 of the sources changed, as 'k05\.png'"):
        run_stage("shard", dataset, str(corpus))
    assert content(dataset) == before
