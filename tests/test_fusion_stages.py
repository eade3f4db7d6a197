"""The verbs that learn, on a small dataset: train, evaluate, predict, project, probe, sweep."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import HERE
from tiny_features import vectors_of

from mmdata.cluster import Resources
from mmdata.config import (
    EvaluateConfig,
    IndexConfig,
    PredictConfig,
    ProbeConfig,
    ProjectConfig,
    SweepConfig,
    TrainConfig,
    check,
)
from mmdata.errors import ConfigError, Conflict, NotFound
from mmdata.fusion.heads import read_head, read_metrics
from mmdata.fusion.trackers import find_tracker
from mmdata.retrieval.search import open_index
from mmdata.stages.evaluate import evaluate
from mmdata.stages.index import index
from mmdata.stages.predict import predict
from mmdata.stages.probe import probe
from mmdata.stages.project import project
from mmdata.stages.sweep import sweep
from mmdata.stages.train import describe_training, train_head
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors
from mmdata.types import Modality

ROWS = 400
HALF = 2e-3  # what float16 keeps of a fused state


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path / "cache"))


def dataset_of(folder: Path, spoiled_test: bool = False) -> Dataset:
    """Pictures of three kinds and texts of most of them; with `spoiled_test` the labels of test are wrong."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 3, ROWS)
    shared = random.normal(size=(ROWS, 6))
    views = {"pictures": 10, "words": 8}
    part = np.array(["train", "validation", "test"])[np.arange(ROWS) % 10 // 4]
    label = np.where((part == "test") & spoiled_test, 2 - kind, kind)
    for name, dim in views.items():
        x = np.concatenate([2 * np.eye(3)[kind], shared], axis=1) @ random.normal(size=(9, dim))
        x = (x + 0.3 * random.normal(size=x.shape)).astype(np.float16)
        rows = np.arange(ROWS if name == "pictures" else ROWS - 60)
        vectors_of(
            folder,
            name,
            x[rows],
            [f"k{row:04d}" for row in rows],
            Modality.IMAGE if name == "pictures" else Modality.TEXT,
            caption=[f"caption {row}" for row in rows],
            kind=[["cat", "dog", "owl"][k] for k in label[rows]],
            size=(shared[:, 0] * 5 + 20)[rows],
            part=part[rows],
        )
    return Dataset.open(str(folder))


def config_of(dataset: Dataset, **changes: Any) -> TrainConfig:
    values = {
        "dataset": dataset.url,
        "name": "kinds",
        "data": {"features": {"image": "pictures", "text": "words"}},
        "split": {"column": "part"},
        "model": {"dim": 32},
        "tasks": {
            "kind": {"type": "multiclass", "column": "kind"},
            "size": {"type": "regression", "column": "size"},
        },
        "train": {"epochs": 20, "batch": 32, "lr": 4e-3},
        "device": "cpu",
    }
    return check(TrainConfig, values | changes, "the test")


ALIGN = {"common": {"type": "align", "between": ["image", "text"], "dim": 8}}


# train


def test_a_dry_run_says_what_would_be_trained_on(tmp_path: Path) -> None:
    plan = describe_training(config_of(dataset_of(tmp_path)))
    assert plan["rows"] == {"train": 160, "validation": 160, "test": 80}
    assert plan["coverage"] == {"image": 1.0, "text": 0.85}
    assert plan["labels"]["kind"] == {"train": 160, "validation": 160}
    assert plan["classes"] == {"kind": 3}
    assert plan["fusion"] == "concat_mlp"
    assert plan["monitor"] == "tasks/mean"
    assert plan["features"].startswith("resident: 0.0 MiB of features")
    assert not (tmp_path / "heads").exists()


def test_a_head_is_trained_once_and_judged_beside_its_baselines(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    first = train_head(config_of(dataset))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "heads/kinds").iterdir()}
    assert train_head(config_of(dataset)).facts == first.facts
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "heads/kinds").iterdir()} == written
    assert sorted(path.name for path in written) == ["events", "head.json", "head.safetensors", "metrics.json"]

    found = evaluate(EvaluateConfig(dataset=dataset.url, head="kinds", missing=("each",)))
    assert found.rows == 80
    assert found.figures["kind/accuracy"] > 0.9
    names = [one["name"] for one in found.beside["kind"]["table"]]
    assert names == [
        "this head",
        "majority",
        "image, logistic regression",
        "text, logistic regression",
        "all inputs, logistic regression",
    ]
    assert [one["name"] for one in found.beside["size"]["table"]][1:3] == ["mean", "image, ridge regression"]
    for one in found.beside["kind"]["table"]:
        assert one["low"] <= one["value"] <= one["high"]
    assert "the best baseline" in found.beside["kind"]["verdict"]
    assert list(found.missing) == ["image", "text"]
    assert found.missing["image"]["kind/accuracy"] > 0.7  # the text is left, where there is one
    report = (tmp_path / "heads/kinds/report.md").read_text()
    assert found.beside["kind"]["verdict"] in report
    assert "| image |" in report
    for picture in ("curves.png", "kind.confusion.png", "kind.calibration.png", "size.values.png"):
        assert picture in report
        assert (tmp_path / "heads/kinds" / picture).read_bytes().startswith(b"\x89PNG")
    told = json.loads(dataset.store.read("heads/kinds/evaluation.test.json"))["classes"]["kind"]
    assert {one["class"] for one in told} == {"cat", "dog", "owl"}
    assert sum(one["rows"] for one in told) == 80
    right = sum(one["recall"] * one["rows"] for one in told)
    assert right / 80 == pytest.approx(found.figures["kind/accuracy"])
    assert [f"| {one['class']} | {one['rows']} |" in report for one in told] == [True] * 3


def test_a_head_that_does_not_beat_its_baseline_says_so(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    train_head(config_of(dataset, train={"epochs": 1, "lr": 1e-6}))
    found = evaluate(EvaluateConfig(dataset=dataset.url, head="kinds"))
    assert found.beside["kind"]["verdict"].startswith("does NOT beat the best baseline")


def test_the_same_seed_gives_the_same_weights_report_and_pictures(tmp_path: Path) -> None:
    dataset, found = dataset_of(tmp_path), []
    for _ in range(2):
        train_head(config_of(dataset, train={"epochs": 2, "batch": 32}, overwrite=True))
        evaluate(EvaluateConfig(dataset=dataset.url, head="kinds"))
        files = [path for path in (tmp_path / "heads/kinds").iterdir() if path.is_file() and path.name != "head.json"]
        found.append({path.name: path.read_bytes() for path in files})  # head.json proves the logs, which hold the time
    assert {"head.safetensors", "metrics.json", "report.md", "kind.confusion.png"} < found[0].keys()
    assert found[0] == found[1]


def test_a_class_that_training_has_not_is_left_out_and_counted(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    part = ["train", "validation", "test"]
    rows = [f"k{row:04d},{'cat' if row % 2 else 'dog'},{part[row % 10 // 4]}" for row in range(390)]
    rows += [f"k{row:04d},emu,test" for row in range(390, 400)]
    (tmp_path / "labels.csv").write_text("\n".join(["key,animal,part", *rows, ""]))
    data = {"features": {"image": "pictures"}, "labels": str(tmp_path / "labels.csv")}
    train_head(config_of(dataset, data=data, tasks={"animal": {"type": "multiclass", "column": "animal"}}))
    found = evaluate(EvaluateConfig(dataset=dataset.url, head="kinds"))
    assert found.strange == {"animal": 10}
    assert (found.rows, found.beside["animal"]["rows"]) == (88, 78)
    report = (tmp_path / "heads/kinds/report.md").read_text()
    assert "10 rows are of a class that training has not; they are left out." in report
    assert "concat_mlp on image (pictures, 10 numbers)" in report


def test_labels_of_test_cannot_change_a_head(tmp_path: Path) -> None:
    heads = []
    for name, spoiled in (("right", False), ("wrong", True)):
        dataset = dataset_of(tmp_path / name, spoiled_test=spoiled)
        train_head(config_of(dataset))
        heads.append(read_head(dataset, "kinds").sha256)
    assert heads[0] == heads[1]


def test_the_epoch_of_several_tasks_is_chosen_by_all_but_rebuilding(tmp_path: Path) -> None:
    rebuild = {"type": "reconstruct", "alpha": {"image": 0.1}}
    dataset = dataset_of(tmp_path)
    tasks = config_of(dataset).model_dump(mode="json")["tasks"]
    train_head(config_of(dataset, tasks=tasks | {"rebuild": rebuild}))
    metrics = read_metrics(dataset, "kinds")
    means = [epoch["validation"]["tasks/mean"] for epoch in metrics["history"]]
    first = metrics["history"][0]["validation"]
    assert means[0] == pytest.approx((first["kind/accuracy"] + first["size/r2"]) / 2)
    assert metrics["best_epoch"] == int(np.argmax(means))
    alone = config_of(dataset, tasks={"rebuild": rebuild, "kind": tasks["kind"]})
    assert describe_training(alone)["monitor"] == "kind/accuracy"


def test_another_config_under_the_same_name_is_refused(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    train_head(config_of(dataset))
    with pytest.raises(Conflict, match="choose another --name, or --overwrite"):
        train_head(config_of(dataset, model={"dim": 16}))
    train_head(config_of(dataset, model={"dim": 16}, overwrite=True))
    assert read_head(dataset, "kinds").model["dim"] == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"k": {"type": "multiclass", "column": "kinds"}}}, "have no column 'kinds'; did you mean 'kind'"),
        ({"tasks": {"k": {"type": "regression", "column": "kind"}}}, "task 'k', column 'kind': a regression column"),
        ({"tasks": {"k": {"type": "align", "between": ["image", "sound"]}}}, "tasks.k names sound; the inputs are"),
        (
            {"shots": 3, "tasks": {"k": {"type": "regression", "column": "size"}}},
            "shots counts rows a class, and the task 'k' is regression",
        ),
        ({"split": {"validation": 0.0}}, "the split leaves no row for validation"),
    ],
)
def test_what_cannot_be_learned_is_refused_with_its_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_head(config_of(dataset_of(tmp_path), **changes))


def test_labels_come_from_a_table_and_rows_without_one_train_other_tasks(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    (tmp_path / "labels.csv").write_text("key,grade\n" + "".join(f"k{row:04d},{row % 2}\n" for row in range(100)))
    data = {"features": {"image": "pictures"}, "labels": str(tmp_path / "labels.csv")}
    tasks = {
        "kind": {"type": "multiclass", "column": "kind"},
        "grade": {"type": "multiclass", "column": "grade"},
    }
    config = config_of(dataset, data=data, tasks=tasks)
    assert describe_training(config)["labels"] == {
        "kind": {"train": 160, "validation": 160},
        "grade": {"train": 40, "validation": 40},
    }
    train_head(config)
    assert read_metrics(dataset, "kinds")["validation"]["kind/accuracy"] > 0.8


@pytest.mark.parametrize("gap", ["", "NA", "NaN"])
def test_a_cell_of_a_table_that_is_empty_is_no_label(tmp_path: Path, gap: str) -> None:
    lines = [f"k{row:04d},{gap},{gap}" if row % 2 else f"k{row:04d},{'ab'[row % 4 // 2]},{row}" for row in range(200)]
    (tmp_path / "labels.csv").write_text("\n".join(["key,letter,number", *lines]))
    data = {"features": {"image": "pictures"}, "labels": str(tmp_path / "labels.csv")}
    tasks = {
        "letter": {"type": "multiclass", "column": "letter"},
        "number": {"type": "regression", "column": "number"},
    }
    found = describe_training(config_of(dataset_of(tmp_path), data=data, tasks=tasks))
    assert found["classes"] == {"letter": 2}
    assert list(found["labels"].values()) == [{"train": 40, "validation": 40}] * 2


def test_nan_of_a_number_is_no_class(tmp_path: Path) -> None:
    vectors_of(tmp_path, "views", np.ones((8, 2), np.float32), grade=[0.0, 1.0, np.nan, 1.0] * 2)
    data, split = {"features": {"image": "views"}}, {"group": "key", "validation": 0.4, "test": 0.1}
    tasks = {"grade": {"type": "multiclass", "column": "grade"}}
    found = describe_training(config_of(Dataset.open(str(tmp_path)), data=data, split=split, tasks=tasks))
    assert found["classes"] == {"grade": 2}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("k0000,1\nk0001,inf", "1 labels are infinite, as those of 'k0001'; leave the cells empty"),
        ("k0000,1\nk0001,2\nk0000,3", "labels.csv has the key 'k0000' 2 times; a sample has one row"),
        ("k0000,1\nNA,2", "labels.csv: 1 rows have no key"),
        ("k0000,1\nk0001,18446744073709551615", "column 'grade' has whole numbers of more than 63 bits"),
        ('k0000,1\nk0001,"2\nk0002,3', "labels.csv: line 3 opens a quote that its cell does not close"),
    ],
)
def test_labels_that_no_head_can_learn_from_are_refused_before_training(
    rows: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text(f"key,grade\n{rows}\n")
    data = {"features": {"image": "pictures"}, "labels": str(tmp_path / "labels.csv")}
    tasks = {"grade": {"type": "regression", "column": "grade"}}
    with pytest.raises(ConfigError, match=message):
        describe_training(config_of(dataset_of(tmp_path), data=data, tasks=tasks))


def test_labels_of_no_sample_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grades = "".join(f"k{n:04d},{n % 7}\n" for n in range(60))
    (tmp_path / "labels.csv").write_text(f"key,grade\n{grades}nope,1\n")
    data = {"features": {"image": "pictures"}, "labels": str(tmp_path / "labels.csv")}
    tasks = {"grade": {"type": "regression", "column": "grade"}}
    describe_training(config_of(dataset_of(tmp_path), data=data, tasks=tasks))
    assert "1 of 61 rows of the labels have a key of no sample that has features: 'nope'" in caplog.text


def test_a_training_that_ends_in_no_numbers_writes_no_head(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    config = config_of(dataset, train={"epochs": 2, "lr": 1e30})
    with pytest.raises(ConfigError, match="is nan after epoch 1, and no head is written; lower"):
        train_head(config)
    assert not (Path(dataset.url) / "heads" / config.name / "head.json").exists()


def test_labels_of_other_samples_are_refused_with_both_keys(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("key,grade\npictures/k0000,1\npictures/k0001,2\n")
    data = {"features": {"image": "pictures"}, "labels": str(tmp_path / "labels.csv")}
    with pytest.raises(ConfigError, match=r"there 'pictures/k0000', 'pictures/k0001', here 'k0000', 'k0001'"):
        describe_training(config_of(dataset_of(tmp_path), data=data))


def test_two_datasets_train_one_head_each_with_its_own_task(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "one")
    random = np.random.default_rng(1)
    values = np.load(tmp_path / "x.npy") if (tmp_path / "x.npy").exists() else random.normal(size=(60, 5))
    other = vectors_of(
        tmp_path / "two",
        "sounds",
        values.astype(np.float32),
        modality=Modality.AUDIO,
        loud=(values[:, 0] > 0).astype(int),
        part=np.array(["train", "validation"])[np.arange(60) % 2],
    )
    data = [{"features": {"image": "pictures"}}, {"dataset": other.dataset.url, "features": {"audio": "sounds"}}]
    tasks = {
        "kind": {"type": "multiclass", "column": "kind"},
        "loud": {"type": "multiclass", "column": "loud"},
    }
    config = config_of(dataset, data=data, tasks=tasks, train={"epochs": 15, "batch": 32, "lr": 4e-3})
    assert describe_training(config)["coverage"] == pytest.approx({"image": 400 / 460, "audio": 60 / 460}, abs=1e-3)
    train_head(config)
    figures = read_metrics(dataset, "kinds")["validation"]
    assert figures["kind/accuracy"] > 0.85
    assert figures["loud/accuracy"] > 0.8


def test_a_new_task_on_the_frozen_stems_of_another_head(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    train_head(config_of(dataset))
    tasks = {"size": {"type": "regression", "column": "size"}}
    train_head(config_of(dataset, name="sizes", init="kinds", freeze="stems", tasks=tasks))
    old, new = (read_head(dataset, name).tensors for name in ("kinds", "sizes"))
    stems = [name for name in old if name.startswith("stems.")]
    assert stems
    assert all(np.array_equal(old[name], new[name]) for name in stems)
    assert not np.array_equal(old["fusion.steps.0.weight"], new["fusion.steps.0.weight"])


@pytest.mark.slow
def test_a_process_killed_with_signal_9_goes_on_to_the_same_head(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    train = {"epochs": 60, "batch": 16, "lr": 1e-3, "patience": 60}
    config = config_of(dataset, name="cut", train=train, checkpoint=0).model_dump(mode="json")
    (tmp_path / "cut.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-c", "from mmdata.cli import main; main()", "train", str(tmp_path / "cut.yaml")]
    checkpoint = tmp_path / "heads/cut/checkpoint.safetensors"
    for _ in range(2):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and not checkpoint.exists():
            time.sleep(0.05)
        time.sleep(1.0)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -9
    subprocess.run(command, check=True, capture_output=True)
    train_head(config_of(dataset, name="whole", train=train))
    assert read_head(dataset, "cut").sha256 == read_head(dataset, "whole").sha256
    assert not checkpoint.exists()


# predict, project, search


def test_predictions_are_what_the_head_says_and_are_made_once(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    train_head(config_of(dataset))
    summary = predict(PredictConfig(dataset=dataset.url, head="kinds"), HERE)
    assert (summary.rows_in, summary.rows_out) == (400, 400)
    table = pq.read_table(tmp_path / "predictions/kinds/000000.parquet")
    assert table.column_names == ["id", "key", "kind", "kind.probability", "size"]
    assert table["key"].to_pylist() == [f"k{row:04d}" for row in range(ROWS)]
    truth = dict(zip(*(Features(dataset, "pictures").to_arrow()[c].to_pylist() for c in ("key", "kind")), strict=True))
    right = [truth[k] == said for k, said in zip(table["key"].to_pylist(), table["kind"].to_pylist(), strict=True)]
    assert np.mean(right) > 0.9
    assert predict(PredictConfig(dataset=dataset.url, head="kinds"), HERE).rows_now == 0
    train_head(config_of(dataset, model={"dim": 16}, overwrite=True))
    with pytest.raises(Conflict, match="make it again with --overwrite"):
        predict(PredictConfig(dataset=dataset.url, head="kinds"), HERE)


def test_a_head_says_which_pairs_match_and_nothing_of_half_a_pair(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    tasks = {"pair": {"type": "match", "between": ["image", "text"]}}
    train = {"epochs": 60, "batch": 32, "lr": 4e-3, "patience": 60}
    train_head(config_of(dataset, tasks=tasks, train=train, model={"dim": 64}))
    found = evaluate(EvaluateConfig(dataset=dataset.url, head="kinds"))
    assert found.figures["pair/auroc"] > 0.8
    assert found.beside["pair"]["verdict"] == "there is no baseline for this task"
    predict(PredictConfig(dataset=dataset.url, head="kinds"), HERE)
    said = pq.ParquetFile(f"{dataset.url}/predictions/kinds/000000.parquet").read()
    assert said["pair.probability"].is_valid().to_pylist() == [row < ROWS - 60 for row in range(ROWS)]


def test_a_head_goes_to_another_dataset_and_says_the_same_there(tmp_path: Path) -> None:
    dataset, new = dataset_of(tmp_path / "old"), dataset_of(tmp_path / "new")
    train_head(config_of(dataset))
    with pytest.raises(NotFound, match="has no head 'kinds'; there are: none yet"):
        predict(PredictConfig(dataset=new.url, head="kinds"), HERE)
    for one, source in ((dataset, None), (new, dataset.url), (new, dataset.url), (new, None)):
        predict(PredictConfig(dataset=one.url, head="kinds", head_from=source), HERE)
    said = [pq.ParquetFile(f"{one.url}/predictions/kinds/000000.parquet").read() for one in (dataset, new)]
    assert said[0].equals(said[1])
    assert read_head(new, "kinds").sha256 == read_head(dataset, "kinds").sha256
    train_head(config_of(dataset, overwrite=True, train={"epochs": 1}))
    with pytest.raises(Conflict, match="has another head 'kinds' than"):
        predict(PredictConfig(dataset=new.url, head="kinds", head_from=dataset.url), HERE)


def test_a_head_predicts_where_an_input_is_missing_what_it_says_of_rows_without_it(tmp_path: Path) -> None:
    dataset, new = dataset_of(tmp_path / "old"), dataset_of(tmp_path / "new")
    train_head(config_of(dataset))
    predict(PredictConfig(dataset=dataset.url, head="kinds"), HERE)
    shutil.rmtree(f"{new.url}/features/words")
    options = {"dataset": new.url, "head": "kinds", "head_from": dataset.url}
    with pytest.raises(NotFound, match="words"):
        predict(PredictConfig(**options), HERE)
    for missing, message in ((("sound",), "has no input 'sound'"), (("image", "text"), "every input .* is missing")):
        with pytest.raises(ConfigError, match=message):
            predict(PredictConfig(**options, missing=missing), HERE)
    predict(PredictConfig(**options, missing=("text",)), HERE)
    whole, half = (pq.ParquetFile(f"{one.url}/predictions/kinds/000000.parquet").read() for one in (dataset, new))
    assert half["key"].equals(whole["key"])
    without_text = slice(ROWS - 60, ROWS)  # in both datasets
    assert half["kind"][without_text].equals(whole["kind"][without_text])
    for column in ("kind.probability", "size"):
        found, wanted = (np.array(table[column][without_text]) for table in (half, whole))
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_workers_predict_what_this_process_predicts(tmp_path: Path, local_ray: None) -> None:
    dataset = dataset_of(tmp_path)
    train_head(config_of(dataset))
    predict(PredictConfig(dataset=dataset.url, head="kinds"), HERE)
    here = (tmp_path / "predictions/kinds/000000.parquet").read_bytes()
    predict(PredictConfig(dataset=dataset.url, head="kinds", overwrite=True), Resources(workers=1))
    assert (tmp_path / "predictions/kinds/000000.parquet").read_bytes() == here


def test_features_of_another_encoder_are_refused(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    train_head(config_of(dataset))
    vectors_of(tmp_path, "others", np.ones((3, 10), np.float16))
    with pytest.raises(Conflict, match="the input 'image' of the head 'kinds' takes 'vectors:pictures'"):
        predict(PredictConfig(dataset=dataset.url, head="kinds", features={"image": "others"}), HERE)


def test_an_aligned_head_projects_each_input_and_a_row_finds_its_other_side(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    train_head(config_of(dataset, tasks=ALIGN, train={"epochs": 15, "batch": 80, "lr": 4e-3}))
    summary = project(ProjectConfig(dataset=dataset.url, head="kinds"), HERE)
    assert summary.facts["features"] == ["kinds.image", "kinds.text"]
    image, text = (Features(dataset, f"kinds.{name}") for name in ("image", "text"))
    assert (len(image.to_arrow()), len(text.to_arrow())) == (400, 340)
    assert image.card.space == text.card.space == f"head:kinds@{read_head(dataset, 'kinds').sha256[:12]}"
    assert np.linalg.norm(vectors(text.to_arrow()).astype(np.float32), axis=1) == pytest.approx(np.ones(340), abs=HALF)
    index(IndexConfig(dataset=dataset.url, features="kinds.image"), HERE)
    words = Features(dataset, "words").to_arrow()
    queries = read_head(dataset, "kinds").tower("text").project(vectors(words)[:100])
    assert np.abs(queries - vectors(text.to_arrow())[:100].astype(np.float32)).max() < HALF
    hits = open_index(dataset, "kinds.image").search(queries, k=10)
    found = [key in {hit.key for hit in one} for key, one in zip(words["key"].to_pylist(), hits, strict=False)]
    assert np.mean(found) > 0.5  # chance: 10 of 400
    report = evaluate(EvaluateConfig(dataset=dataset.url, head="kinds"))
    assert report.beside["common"]["table"][1]["name"] == "CCA of image and text"


def test_a_head_without_alignment_projects_its_fused_state(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    train_head(config_of(dataset))
    project(ProjectConfig(dataset=dataset.url, head="kinds"), HERE)
    fused = Features(dataset, "kinds.fused")
    assert (fused.card.dim, len(fused.to_arrow())) == (32, 400)
    assert fused.card.towers == {"image": "head:kinds#image", "text": "head:kinds#text"}
    last = vectors(fused.to_arrow())[-1].astype(np.float32)  # a row that has no text
    alone = read_head(dataset, "kinds").tower("image").project(vectors(Features(dataset, "pictures").to_arrow())[-1:])
    assert np.abs(alone[0] - last).max() < HALF * max(1, np.abs(last).max())


# probe, sweep


def test_the_probe_finds_what_is_linear_and_few_shots_find_less(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    values = {"dataset": dataset.url, "features": ["pictures"], "column": "kind", "split": {"column": "part"}}
    whole = probe(check(ProbeConfig, values, "the test"))
    few = probe(check(ProbeConfig, values | {"shots": 1, "seeds": 5}, "the test"))
    assert whole.mean > 0.9
    assert whole.low <= whole.mean <= whole.high
    assert whole.rows == {"train": 160, "validation": 160, "test": 80}
    assert len(few.accuracy) == 5
    assert 1 / 3 < few.mean < whole.mean


def test_a_task_without_a_label_on_validation_has_no_baseline_and_no_probe(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    table = "\n".join(["key,grade", *(f"k{row:04d},{row % 2}" for row in range(400) if row % 10 // 4 != 1)])
    (tmp_path / "labels.csv").write_text(table)
    data = {"features": {"image": "pictures"}, "labels": str(tmp_path / "labels.csv")}
    tasks = {"kind": {"type": "multiclass", "column": "kind"}, "grade": {"type": "multiclass", "column": "grade"}}
    train_head(config_of(dataset, data=data, tasks=tasks, train={"epochs": 2}))
    found = evaluate(EvaluateConfig(dataset=dataset.url, head="kinds"))
    assert found.beside["grade"]["verdict"] == "there is no baseline for this task"
    assert len(found.beside["kind"]["table"]) == 3
    asked = {
        "dataset": dataset.url,
        "features": ["pictures"],
        "column": "grade",
        "labels": str(tmp_path / "labels.csv"),
    }
    with pytest.raises(ConfigError, match="no row of validation has a label in the column 'grade'"):
        probe(check(ProbeConfig, asked | {"split": {"column": "part"}}, "the test"))


def test_a_sweep_trains_every_setting_with_every_seed_and_sorts_them(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    train = config_of(dataset).model_dump(mode="json", exclude={"dataset", "name"})
    values = {"dataset": dataset.url, "name": "lr", "train": train, "over": {"train.lr": [1e-6, 4e-3]}, "seeds": 2}
    table = sweep(check(SweepConfig, values, "the test"), HERE)
    assert [one.setting for one in table] == ["train.lr 0.004", "train.lr 1e-06"]
    assert table[0].heads == ["lr-1-0", "lr-1-1"]
    assert table[0].mean == pytest.approx(np.mean(table[0].values))
    assert table[0].lead == pytest.approx(table[0].mean - table[1].mean)
    assert table[0].lead_interval[0] < table[0].lead < table[0].lead_interval[1]
    assert table[1].lead is None
    assert read_head(dataset, "lr-1-1").made_from["config"]["train"]["seed"] == 1


def test_named_settings_are_judged_on_test_and_the_lower_error_is_the_better(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    train = config_of(dataset).model_dump(mode="json", exclude={"dataset", "name"})
    train["train"]["monitor"] = "kind/log_loss"
    settings = {"short": {"train.epochs": 1, "train.lr": 1e-5}, "alone": {"tasks": {"kind": train["tasks"]["kind"]}}}
    values = {"dataset": dataset.url, "name": "s", "train": train, "settings": settings, "part": "test"}
    alone, short = sweep(check(SweepConfig, values, "the test"), HERE)
    assert (alone.setting, short.setting) == ("alone", "short")
    assert alone.mean < short.mean
    assert alone.interval is None  # of one seed
    judged = json.loads(dataset.store.read("heads/s-1-0/evaluation.test.json"))["figures"]
    assert alone.values == [judged["kind/log_loss"]]


def test_few_labels_of_one_task_leave_the_others_theirs(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    joint = describe_training(config_of(dataset, shots=5))
    alone = describe_training(config_of(dataset, shots=5, tasks={"kind": {"type": "multiclass", "column": "kind"}}))
    assert joint["labels"]["kind"] == {"train": 15, "validation": 160}
    assert joint["labels"]["size"]["train"] == joint["rows"]["train"] == 160
    assert alone["rows"]["train"] == 15


# trackers


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would read: records of a length, a checksum, an event, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
            at += size + 16
    return found


class Told:
    """A tracker of a user's own."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any]) -> None:
        self.file, self.epochs = folder.parent / "told.json", [name, config["train"]["epochs"]]

    def epoch(self, told: dict[str, Any]) -> None:
        self.epochs.append(told["epoch"])

    def close(self, whole: bool) -> None:
        self.file.write_text(json.dumps([*self.epochs, whole]))


def test_every_epoch_goes_to_tensorboard_and_to_a_tracker_of_ones_own(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    config = config_of(dataset, trackers=["tensorboard", f"{__name__}:Told"])
    train_head(config)
    history = read_metrics(dataset, "kinds")["history"]
    found = scalars(tmp_path / "heads/kinds/events")
    assert found["loss/size"] == [(one["epoch"], pytest.approx(one["loss"]["size"])) for one in history]
    wanted = [(one["epoch"], pytest.approx(one["validation"]["kind/accuracy"])) for one in history]
    assert found["validation/kind/accuracy"] == wanted
    told = json.loads((tmp_path / "heads/kinds/told.json").read_text())
    assert told == ["kinds", 20, *(one["epoch"] for one in history), True]
    with pytest.raises(ConfigError, match="there is no tracker 'neptune'"):
        train_head(config_of(dataset, name="other", trackers=["neptune"]))
    for no_tracker in ("os:system", "pathlib:Path"):
        with pytest.raises(ConfigError, match=rf"{no_tracker}' is no class with epoch\(told\) and close\(whole\)"):
            describe_training(config_of(dataset, trackers=[no_tracker]))
    train_head(config_of(dataset, trackers=[], overwrite=True))
    assert not list((tmp_path / "heads/kinds/events").glob("*"))


def test_a_tracker_is_found_in_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_tracker.py").write_text("from test_fusion_stages import Told\n\nclass Mine(Told):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert find_tracker("my_own_tracker:Mine").__name__ == "Mine"


class Cut(Told):
    """A tracker that ends the run in its third epoch."""

    def epoch(self, told: dict[str, Any]) -> None:
        if told["epoch"] == 2:
            raise KeyboardInterrupt


def test_mlflow_has_one_run_of_a_head_that_was_killed_and_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    dataset = dataset_of(tmp_path)
    with pytest.raises(ConfigError, match=r"mlflow at file:.*MLFLOW_TRACKING_URI names a server"):
        train_head(config_of(dataset, trackers=["mlflow"]))  # mlflow wants to be told that files are meant
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with pytest.raises(KeyboardInterrupt):
        train_head(config_of(dataset, trackers=["mlflow", f"{__name__}:Cut"], checkpoint=0))
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("mmdata").experiment_id])
    assert run.info.status == "KILLED"
    train_head(config_of(dataset, trackers=["mlflow"]))
    run = client.get_run(run.info.run_id)
    assert (run.info.status, run.info.run_name, run.data.params["train.lr"]) == ("FINISHED", "kinds", "0.004")
    history = read_metrics(dataset, "kinds")["history"]
    found = client.get_metric_history(run.info.run_id, "validation/kind/accuracy")
    wanted = [(one["epoch"], one["validation"]["kind/accuracy"]) for one in history]
    assert sorted({(one.step, one.value) for one in found}) == wanted


def test_wandb_has_the_figures_without_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    train_head(config_of(dataset_of(tmp_path / "data"), trackers=["wandb"], train={"epochs": 2}))
    id_ = (tmp_path / "data/heads/kinds/events/wandb.run").read_text()
    (written,) = (tmp_path / "wandb").glob(f"offline-run-*-{id_}/run-{id_}.wandb")
    assert b"validation/kind/accuracy" in written.read_bytes()
