"""kill -9 of a worker at every point it passes, of a run at fifty random moments, of workers for three minutes."""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashing import content, descendants, files, receipts, run_stage_apart, start_stage, undisturbed
from small_job import SAMPLES, SHARDS, STAGES, write_corpus

from mmdata.crash import POINTS
from mmdata.stages.verify import gc, verify
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features

STORE = {"store.create", "store.create.torn", "store.created"}
RECEIPT = STORE | {"receipt.files_written", "receipt.written"}
REPLACE = {"store.replace", "store.replace.torn", "store.replaced"}
IN_WORKERS: dict[str, set[str]] = {
    "shard": RECEIPT | {"shard.setup", "shard.sample", "shard.made"},
    "extract": RECEIPT
    | {"extract.load_model", "extract.model_loaded", "extract.sample", "extract.batch", "extract.encoded"},
    "index": REPLACE | {"index.part"},
    "project": RECEIPT | {"project.load_head", "project.shard"},
    "predict": RECEIPT | {"predict.load_head", "predict.shard"},
}
"""What a worker passes; the rest of the table is passed by the driver."""
CASES = [(stage, name) for stage, names in IN_WORKERS.items() for name in sorted(names)]
MOST_RUNS = 200  # to kill fifty
QUICK = [("shard", "shard.sample"), ("extract", "extract.batch"), ("extract", "receipt.files_written")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("killed") / "corpus")


@pytest.fixture(scope="module")
def before(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The dataset before each stage, and at the end."""
    return undisturbed(tmp_path_factory.mktemp("before"), corpus)[0]


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running cluster, whose workers look into this file at every point."""
    from ray.cluster_utils import Cluster

    path = tmp_path_factory.mktemp("orders") / "orders"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMDATA_CRASH", str(path))
        patch.setenv("QUICK_ENCODER_SECONDS", "0.05")
        running = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        patch.delenv("MMDATA_CRASH")
        patch.delenv("QUICK_ENCODER_SECONDS")
        patch.setenv("RAY_ADDRESS", running.address)
        yield path
        running.shutdown()


def started(stage: str, before: dict[str, Path], folder: Path) -> Path:
    dataset = folder / "dataset"
    if before[stage].exists():
        shutil.copytree(before[stage], dataset)
    return dataset


def check_whole(stage: str, dataset: Path, before: dict[str, Path], context: str) -> None:
    """Every file that an undisturbed run makes and, after a sweep, no other."""
    names = [*STAGES, "end"]
    whole = before[names[names.index(stage) + 1]]
    gc(Dataset.open(str(dataset)), 0, dry_run=False)
    assert verify(Dataset.open(str(dataset))).damaged == [], context
    found, wanted = content(dataset), content(whole)
    if stage != "index":  # a killed build takes a number
        assert sorted(files(dataset)) == sorted(files(whole)), context
        assert [n for n in wanted if found[n] != wanted[n] and not n.endswith("receipts.json")] == [], context
    for features in Dataset.open(str(dataset)).names("features"):
        rows = Features(Dataset(str(dataset)), features).to_arrow(["id"])["id"].to_pylist()
        assert sorted(rows) == sorted(set(rows)), context


def kill_a_worker(stage: str, name: str, before: dict[str, Path], corpus: Path, orders: Path, folder: Path) -> None:
    dataset = started(stage, before, folder)
    ended = run_stage_apart(stage, dataset, corpus, f"{name}:1", workers=2, orders=orders)
    assert ended.fired, f"no worker reached {name}: {ended.said}"
    assert ended.code == 0, ended.said  # the run goes on without it
    check_whole(stage, dataset, before, name)


@pytest.mark.parametrize(("stage", "name"), QUICK, ids=lambda value: value)
def test_a_worker_that_is_killed_at_a_point_loses_nothing(
    stage: str, name: str, before: dict[str, Path], corpus: Path, orders: Path, tmp_path: Path
) -> None:
    kill_a_worker(stage, name, before, corpus, orders, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", IN_WORKERS)
def test_workers_pass_the_points_that_the_table_says(
    stage: str, before: dict[str, Path], corpus: Path, orders: Path, tmp_path: Path
) -> None:
    ended = run_stage_apart(stage, started(stage, before, tmp_path), corpus, "", workers=2, orders=orders)
    assert set(ended.reached) == IN_WORKERS[stage]
    assert all(stage in POINTS[name] for name in ended.reached)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "name"), [case for case in CASES if case not in QUICK], ids=lambda value: value)
def test_a_worker_that_is_killed_at_any_point_loses_nothing(
    stage: str, name: str, before: dict[str, Path], corpus: Path, orders: Path, tmp_path: Path
) -> None:
    kill_a_worker(stage, name, before, corpus, orders, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_at_random_moments_lose_nothing(before: dict[str, Path], corpus: Path, tmp_path: Path) -> None:
    """Of runs at work: as many are started, each killed within the time that its stage takes."""
    chance = random.Random(0)
    took = {stage: seconds_of(stage, before, corpus, tmp_path / stage) for stage in STAGES}
    killed = 0
    for number in range(MOST_RUNS):
        stage = chance.choice(list(STAGES))
        dataset = started(stage, before, tmp_path / str(number))
        process = start_stage(stage, dataset, corpus)
        time.sleep(chance.uniform(0, took[stage]))
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        made = receipts(dataset) if dataset.exists() else {}
        again = run_stage_apart(stage, dataset, corpus)
        assert again.code == 0, again.said
        assert {name: when for name, when in receipts(dataset).items() if name in made} == made
        check_whole(stage, dataset, before, f"kill {number} of {stage}")
        if killed == 50:
            break
    assert killed == 50


def seconds_of(stage: str, before: dict[str, Path], corpus: Path, folder: Path) -> float:
    """What a stage takes undisturbed."""
    dataset, since = started(stage, before, folder), time.monotonic()
    assert run_stage_apart(stage, dataset, corpus).code == 0
    return time.monotonic() - since


SOAK, EVERY = 180.0, 5.0  # seconds


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_worker_killed_every_five_seconds_for_three_minutes_loses_nothing(
    before: dict[str, Path], corpus: Path, orders: Path, tmp_path: Path
) -> None:
    """Of those at work, whatever they have done; no sample is rejected for it, as `check_whole` sees."""
    end, kills, runs = time.monotonic() + SOAK, 0, 0
    due = time.monotonic() + EVERY
    while time.monotonic() < end or kills < SOAK / EVERY / 3:  # a busy machine takes longer
        stage = ["shard", "extract"][runs % 2]
        dataset = started(stage, before, tmp_path / str(runs))
        process = start_stage(stage, dataset, corpus, workers=2)
        while process.is_alive():
            time.sleep(0.1)
            workers = [pid for pid, line in descendants(os.getpid()).items() if line.startswith("ray::Actor.run")]
            if workers and time.monotonic() >= due:
                os.kill(random.Random(kills).choice(workers), signal.SIGKILL)
                kills, due = kills + 1, time.monotonic() + EVERY
        assert process.exitcode == 0, Path(f"{dataset}-said").read_text()
        check_whole(stage, dataset, before, f"run {runs}")
        runs += 1
    print(f"{kills} workers killed in {runs} runs of {SAMPLES} samples in {SHARDS} shards")
