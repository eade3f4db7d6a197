"""The main job on sixty tiny samples, stage by stage, in about two seconds: to be killed, damaged and starved."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tiny_files import picture

from mmdata.cluster import Resources
from mmdata.config import (
    AlignConfig,
    ExtractConfig,
    IndexConfig,
    PredictConfig,
    ProjectConfig,
    ShardConfig,
    TrainConfig,
    check,
)
from mmdata.stages.align import align
from mmdata.stages.extract import extract
from mmdata.stages.index import index
from mmdata.stages.predict import predict
from mmdata.stages.project import project
from mmdata.stages.retry import retry
from mmdata.stages.shard import shard
from mmdata.stages.train import train_head
from mmdata.storage.dataset import Dataset

SAMPLES, SHARDS = 60, 6
BROKEN = "k17"  # has a picture that is none, and no text
HERE = Resources(workers=0)
SPECS = ("colours=quick_encoder:Colours", "letters=quick_encoder:Letters")


def write_corpus(folder: Path, samples: int = SAMPLES) -> Path:
    """Samples of a picture and a sentence, one of which is broken, with metadata."""
    chance = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(samples):
        key = f"k{number:02d}"
        colour = tuple(int(value) for value in chance.integers(0, 256, 3))
        (folder / f"{key}.png").write_bytes(b"not a picture" if key == BROKEN else picture(colour=colour))
        (folder / f"{key}.json").write_text(json.dumps({"kind": number % 3, "depth": colour[0] / 255}))
        if key != BROKEN:
            words = " ".join(chance.choice(["stone", "river", "train", "rain", "nest", "iron", "tea"], 4))
            (folder / f"{key}.txt").write_text(f"{words} {number}")
    return folder


def shard_config(dataset: str, corpus: str, **options: object) -> ShardConfig:
    return ShardConfig(dataset=dataset, source=corpus, samples_per_shard=SAMPLES // SHARDS, **options)


def train_config(dataset: str, overwrite: bool = False, seed: int = 0, trackers: tuple[str, ...] = ()) -> TrainConfig:
    return check(
        TrainConfig,
        {
            "dataset": dataset,
            "name": "kinds",
            "data": {"features": {"image": "colours", "text": "letters"}},
            "split": {"group": "key", "validation": 0.2, "test": 0.2},
            "model": {"fusion": "concat_mlp", "dim": 8},
            "tasks": {"kind": {"type": "multiclass", "column": "kind"}},
            "train": {"epochs": 3, "batch": 16, "seed": seed},
            "overwrite": overwrite,
            "trackers": list(trackers),
            "device": "cpu",
            "checkpoint": 0,
        },
        "small_job.py",
    )


STAGES: dict[str, Callable[[str, str, Resources], object]] = {
    "shard": lambda d, c, r: shard(shard_config(d, c), r),
    "extract": lambda d, c, r: extract(ExtractConfig(dataset=d, encoders=SPECS), r),
    "align": lambda d, c, r: align(
        AlignConfig(dataset=d, name="pair", features=("letters", "colours"), holdout=0.45, dim=4), r
    ),
    "index": lambda d, c, r: index(IndexConfig(dataset=d, features="pair.image"), r),
    "train": lambda d, c, r: train_head(train_config(d)),
    "project": lambda d, c, r: project(ProjectConfig(dataset=d, head="kinds"), r),
    "predict": lambda d, c, r: predict(PredictConfig(dataset=d, head="kinds"), r),
}
"""Dataset, corpus and workers to a stage of the job, in order."""


OTHERS: dict[str, Callable[[str, str, Resources], object]] = {
    "retry": lambda d, c, r: retry(Dataset.open(d), None, ()),
}
"""What else can be killed."""


def run_stage(stage: str, dataset: str, corpus: str, workers: int = 0) -> None:
    """One stage, as its command would run it."""
    os.environ["MMDATA_CACHE"] = f"{dataset}-cache"
    (STAGES | OTHERS)[stage](dataset, corpus, Resources(workers, address=os.environ.get("RAY_ADDRESS") or None))


def run_all(dataset: str, corpus: str) -> None:
    for stage in STAGES:
        run_stage(stage, dataset, corpus)
