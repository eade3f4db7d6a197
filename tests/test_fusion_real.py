"""Heads on real data that a script fetches: `pytest -m real`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmdata.config import EvaluateConfig, TrainConfig, load
from mmdata.stages.evaluate import evaluate
from mmdata.stages.train import train_head

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.real
def test_six_views_of_a_digit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path / "cache"))
    url = str(tmp_path / "mfeat")
    subprocess.run([sys.executable, str(CONFIGS / "mfeat/fetch.py"), url], check=True)
    train_head(load(TrainConfig, str(CONFIGS / "mfeat/digit.yaml"), [f"dataset={url}"]))
    found = evaluate(EvaluateConfig(dataset=url, head="digit", missing=("each",)))
    values = {one["name"]: one["value"] for one in found.beside["digit"]["table"]}
    three = [figures["digit/accuracy"] for left, figures in found.missing.items() if left.count(" and ") == 2]
    assert len(three) == 20
    assert values["this head"] >= 0.97
    assert values["this head"] >= values["all inputs, logistic regression"] - 0.01
    assert np.mean(three) >= 0.935


@pytest.mark.real
def test_emoji_are_listed_with_their_pictures_and_families(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(CONFIGS / "emoji/fetch.py"), str(tmp_path)], check=True)
    rows = [json.loads(line) for line in (tmp_path / "emoji.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["key"] for row in rows}) == 1911
    assert all((tmp_path / row["image"]).read_bytes().startswith(b"\x89PNG") for row in rows)
    assert {row["text"] for row in rows if row["family"] == "cook"} == {"cook", "man cook", "woman cook"}
    assert len({row["category"] for row in rows}) == 10
