"""The recipe of configs/vision_language as it stands: ResNet-50 and BERT, with weights of chance from this disk."""

import json
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import tiny_models
import torch
from PIL import Image
from safetensors.torch import save_file

from mmdata.cli import invoke
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features

CONFIGS = Path(__file__).parent.parent / "configs" / "vision_language"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}
ROWS = 36


def write_corpus(folder: Path) -> None:
    """Plain pictures, a sentence each, and a list of tags."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for row in range(ROWS):
        name = list(COLOURS)[row % 3]
        dark = row % 2 == 1
        pixels = np.array(COLOURS[name]) // (1 + dark) + random.integers(-15, 15, (24, 24, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{row}.png")
        (folder / f"{row}.txt").write_text(f"a {'dark' if dark else 'light'} {name} square number {row}")
        (folder / f"{row}.json").write_text(json.dumps({"tags": [name, *(["dark"] if dark else [])]}))


@pytest.mark.slow  # 25 million weights of chance
def test_resnet50_and_bert_from_files_to_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import resnet50

    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    save_file(resnet50(weights=None).state_dict(), tmp_path / "resnet50.safetensors")
    bert = tiny_models.save(tiny_models.bert, tmp_path)
    write_corpus(tmp_path / "corpus")
    url, place = str(tmp_path / "data"), f"dataset={tmp_path / 'data'}"
    invoke(["shard", str(tmp_path / "corpus"), url])
    vision = f"resnet50=torchvision:resnet50/{tmp_path / 'resnet50.safetensors'}"
    specs = f"encoders=[{vision}, 'bert=hf:{bert}']"
    invoke(["extract", "--config", str(CONFIGS / "extract.yaml"), "--set", place, "--set", specs])
    assert [Features(Dataset.open(url), name).card.dim for name in ("resnet50", "bert")] == [2048, 16]
    few = ["train.epochs=6", "train.batch=8", "model.dim=32", "split.test=0.3", "split.validation=0.3"]
    invoke(["train", str(CONFIGS / "joint.yaml"), *(f"--set={one}" for one in [place, *few])])
    invoke(["evaluate", url, "--head", "joint", "--missing", "each"])
    invoke(["predict", url, "--head", "joint"])
    told = orjson.loads((tmp_path / "data/heads/joint/evaluation.test.json").read_bytes())
    assert {"tags/map", "rebuild/r2 vision from all", "rebuild/r2 language from others"} <= told["figures"].keys()
    assert set(told["missing"]) == {"vision", "language"}
    assert {one["name"] for one in told["beside"]["tags"]["table"]} >= {"this head", "majority"}
    said = pq.read_table(tmp_path / "data/predictions/joint/000000.parquet")
    assert said.num_rows == ROWS
    assert {tag for tags in said["tags"].to_pylist() for tag in tags} <= {"red", "green", "blue", "dark"}
