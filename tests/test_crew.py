"""Several processes that train one head on Ray Train: what one process trains, to rounding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_fusion_stages import config_of, dataset_of
from tiny_features import memory_pack

from mmdata.config import EvaluateConfig
from mmdata.errors import ConfigError
from mmdata.fusion.feed import Feed, Plan, Where, _part
from mmdata.fusion.heads import read_head, read_metrics
from mmdata.stages.evaluate import evaluate
from mmdata.stages.train import train_head

ROUNDING = 2e-3  # of a weight after some hundred steps of AdamW


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path / "cache"))


EXACT: dict[str, Any] = {
    "model": {"dim": 32, "dropout": 0.0},
    "train": {"epochs": 6, "batch": 30, "lr": 4e-3, "modality_dropout": 0.0},
    "tasks": {"kind": {"type": "multiclass", "column": "kind"}},
}


def test_two_processes_train_what_one_trains(tmp_path: Path, local_ray: None) -> None:
    dataset = dataset_of(tmp_path)
    train_head(config_of(dataset, name="alone", **EXACT))
    train_head(config_of(dataset, name="crew", **EXACT, workers=2))
    alone, crew = (read_head(dataset, name).tensors for name in ("alone", "crew"))
    assert max(float(np.abs(alone[name] - crew[name]).max()) for name in alone) < ROUNDING
    ours, theirs = (read_metrics(dataset, name)["history"] for name in ("alone", "crew"))
    assert [one["loss"]["kind"] for one in theirs] == pytest.approx([one["loss"]["kind"] for one in ours], rel=1e-3)
    judged = [evaluate(EvaluateConfig(dataset=dataset.url, head=name)).figures for name in ("alone", "crew")]
    assert judged[1]["kind/accuracy"] == pytest.approx(judged[0]["kind/accuracy"], abs=0.01)
    assert read_metrics(dataset, "crew")["best_epoch"] == read_metrics(dataset, "alone")["best_epoch"]
    assert len(list((tmp_path / "heads/crew/events").iterdir())) == 1  # one of them tells


def test_what_goes_wrong_in_a_process_is_said_as_it_is(tmp_path: Path, local_ray: None) -> None:
    config = config_of(dataset_of(tmp_path), workers=2, train={"epochs": 2, "monitor": "kind/f1"})
    with pytest.raises(ConfigError, match="monitor 'kind/f1' is no figure of the validation rows"):
        train_head(config)


def test_a_crew_shares_every_batch_and_no_row_is_left_or_taken_twice() -> None:
    feed = Feed(memory_pack({"x": np.arange(103.0)[:, None]}), {}, Plan(Where.RESIDENT, ""))
    order = feed.shuffled(torch.arange(103), 0, 0)
    whole = list(feed.batches(order, 20))
    crew = [list(feed.batches(order, 20, (rank, 3))) for rank in range(3)]
    for place, batch in enumerate(whole):
        parts = [member[place] for member in crew]
        assert sorted(torch.cat([part.rows for part in parts]).tolist()) == sorted(batch.rows.tolist())
        mean = sum(part.share * float(part.inputs["x"][0].mean()) for part in parts) / 3
        assert mean == pytest.approx(float(batch.inputs["x"][0].mean()))


def test_of_fewer_rows_than_a_crew_has_members_all_take_all() -> None:
    rows, share = _part(torch.arange(2), 2, 3)
    assert (rows.tolist(), share) == ([0, 1], 1.0)
