"""The recipes that compare tasks alone, together, and one after the other: each for one epoch on small features."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HERE

from mmdata.config import EvaluateConfig, SweepConfig, TrainConfig, check, load
from mmdata.stages.evaluate import evaluate
from mmdata.stages.sweep import sweep
from mmdata.stages.train import train_head
from mmdata.storage.dataset import Dataset
from mmdata.storage.imported import import_vectors
from mmdata.types import Modality

CONFIGS = Path(__file__).parent.parent / "configs"
ROWS = 300
ENCODERS = {
    "demo": {"efficientnet-lite0": Modality.IMAGE, "minilm": Modality.TEXT},
    "stamps": {"efficientnet-lite0-words": Modality.IMAGE, "minilm": Modality.TEXT},
    "mfeat": dict.fromkeys(("fac", "fou", "kar", "mor", "pix", "zer"), Modality.IMAGE),
}
LONG = ("demo/few.yaml", "stamps/joint.yaml", "stamps/transfer.yaml", "mfeat/joint.yaml")
SWEEPS = ("demo/transfer.yaml", *(pytest.param(name, marks=pytest.mark.slow) for name in LONG))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path / "cache"))


def dataset_for(recipe: str, folder: Path) -> str:
    """The feature sets and columns that a recipe names, small."""
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {name: random.integers(0, 4, ROWS) for name in ("count", "digit")}
    columns |= {name: [f"{name}{n}" for n in random.integers(0, 3, ROWS)] for name in ("colour", "folder", "category")}
    pairs = zip(columns["category"], random.integers(0, 2, ROWS), strict=True)
    columns["group"] = [f"{category}/{n}" for category, n in pairs]
    columns["caption"] = [f"caption {row}" for row in range(ROWS)]
    columns["part"] = np.array(["train", "validation", "test"])[np.arange(ROWS) % 3].tolist()
    for name, modality in ENCODERS[Path(recipe).parent.name].items():
        values = random.normal(size=(ROWS, 6)).astype(np.float32)
        import_vectors(Dataset.create(str(folder)), name, modality, columns["caption"], values, columns)
    return str(folder)


@pytest.mark.parametrize("recipe", SWEEPS)
def test_a_recipe_compares_its_settings(recipe: str, tmp_path: Path) -> None:
    url = dataset_for(recipe, tmp_path / "data")
    if recipe.endswith("transfer.yaml"):
        first = CONFIGS / recipe.replace("transfer", "pretrain")
        train_head(load(TrainConfig, str(first), [f"dataset={url}", "train.epochs=1"]))
    config = load(SweepConfig, str(CONFIGS / recipe), [f"dataset={url}", "train.train.epochs=1", "seeds=1"])
    values = config.model_dump(mode="json")
    for setting in values["settings"].values():
        setting |= {key: 1 for key in setting if key == "train.epochs"}
    table = sweep(check(SweepConfig, values, recipe), HERE)
    assert {one.setting for one in table} == set(config.settings)
    assert any(one.lead is not None for one in table)
    assert all(0 <= value <= 1 for one in table for value in one.values)


def test_two_halves_of_a_digit_say_more_than_the_better_half(tmp_path: Path) -> None:
    url = str(tmp_path / "digits")
    subprocess.run([sys.executable, str(CONFIGS / "digits/fetch.py"), url], check=True)
    train_head(load(TrainConfig, str(CONFIGS / "digits/halves.yaml"), [f"dataset={url}"]))
    table = evaluate(EvaluateConfig(dataset=url, head="halves")).beside["digit"]["table"]
    values = {one["name"]: one["value"] for one in table}
    better = max(values[f"{half}, logistic regression"] for half in ("left", "right"))
    assert values["this head"] > 0.95
    assert values["this head"] - better >= 0.07
