"""Samples that end the process that reads them, or never end: found, left out with their reason, the rest done."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray.cloudpickle
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from poison.poison import WIDTH
from tiny_features import views_of

import mmdata.cluster.actors
import mmdata.cluster.pool
import mmdata.cluster.task
from mmdata.cluster import Done, Limits, Resources, Task, WorkerDied, in_work, run
from mmdata.cluster.task import IN_VAIN, MOST_LOST, NODES, PROVEN, Order, Step
from mmdata.cluster.vigil import overdue
from mmdata.config import TrainConfig, check
from mmdata.errors import ModelError
from mmdata.stages.status import rejects, status
from mmdata.stages.train import train_head
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features
from mmdata.storage.receipts import read_rejects
from mmdata.types import Reason

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import this file

ROOT = Path(__file__).parent.parent
POISON = {"segfault": 3, "exit": 40, "kill": 41, "hang": 77}  # which sample of a hundred does what
ONE = Resources(workers=1, limits=Limits(sample=1.0))


def search(order: Order, killers: Collection[int], chance: float = 0.0, seed: int = 0) -> tuple[int, int]:
    """Do an order as workers would that die over `killers` and, in a part of all calls, of something else.

    How many died, and how many calls there were.
    """
    dice, deaths, calls, left = random.Random(seed), 0, 0, True
    while left and not order.given_up:
        task, times, _ = order.call
        there = set(task.only) if task.only is not None else set(range(SAMPLES)) - set(task.without)
        died = bool(there & set(killers)) or any(dice.random() < chance for _ in range(times))
        left, deaths, calls = died or task.only is not None, deaths + died, calls + 1
        if died:
            order.died(Reason.CRASH)
        elif left:
            order.passed()
    return deaths, calls


SAMPLES = 1000


def order() -> Order:
    return Order(Task("000000"), lambda task: range(SAMPLES))


def test_one_killer_in_a_thousand_costs_nine_workers() -> None:
    suspect = order()
    deaths, calls = search(suspect, {777})
    assert suspect.lost == {777: Reason.CRASH}
    assert (deaths, calls) == (9, 77)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, SAMPLES - 1), min_size=1, max_size=MOST_LOST))
def test_exactly_the_killers_are_lost(killers: set[int]) -> None:
    suspect = order()
    deaths, _ = search(suspect, killers)
    assert set(suspect.lost) == killers
    assert deaths <= 2 + 7 * len(killers)


@pytest.mark.parametrize("chance", [0.05, 0.1, 0.2, 0.4, 0.8])
def test_where_workers_die_by_chance_no_healthy_sample_is_lost(chance: float) -> None:
    """Nor where one does kill: that one is found, or the shard is given up."""
    lost = []
    for seed in range(40):
        healthy, poisoned = order(), order()
        search(healthy, set(), chance, seed)
        search(poisoned, {777}, chance, seed)
        lost += [*healthy.lost, *(poisoned.lost.keys() - {777})]
        assert 777 in poisoned.lost or poisoned.given_up
    assert lost == []


def test_a_killer_is_found_where_one_call_in_twenty_dies_by_chance() -> None:
    for seed in range(100):
        suspect = order()
        search(suspect, {777}, 0.05, seed)
        assert (suspect.lost, suspect.given_up) == ({777: Reason.CRASH}, "")


def test_chance_strikes_an_innocent_as_rarely_as_the_docstring_says() -> None:
    """At the rate at which it does so most."""
    dice, strikes, trials = random.Random(0), 0, 50_000
    for _ in range(trials):
        one = Order(Task("a"), lambda task: range(1), deaths=1)
        one.died(Reason.CRASH)
        while one.trials and not one.strikes:
            died = any(dice.random() < 0.11 for _ in range(one.call[1]))
            one.died(Reason.CRASH) if died else one.passed()
        strikes += one.strikes
    assert 0.0036 < strikes / trials < 0.0056  # 0.11 for the first death, times 0.0415; three deviations


def test_a_worker_that_does_not_answer_or_a_machine_that_goes_convicts_no_one() -> None:
    suspect = order()
    for _ in range(PROVEN):
        suspect.died(Reason.TIMEOUT)
    suspect.died(Reason.TIMEOUT)
    suspect.passed()
    assert suspect.step is Step.STAND
    for _ in range(NODES):
        suspect.gone()
        assert (suspect.step, suspect.given_up) == (Step.CONTROL, "")
    suspect.gone()
    assert suspect.given_up.startswith("workers keep dying, whatever they do, and shard 000000 was never done")
    assert suspect.lost == {}


def test_a_shard_that_loses_sample_after_sample_is_given_up() -> None:
    suspect = order()
    search(suspect, set(range(SAMPLES)))
    assert suspect.given_up.startswith(f"more than {MOST_LOST} samples of shard 000000 kill or hang a worker")
    assert len(suspect.lost) == MOST_LOST + 1


def test_a_shard_whose_samples_are_innocent_is_given_up_after_three_rounds() -> None:
    suspect = order()
    deaths = 0
    while not suspect.given_up:
        if suspect.trials:
            suspect.passed()
        else:
            deaths += 1
            suspect.died(Reason.CRASH)
    assert (deaths, suspect.lost) == (6, {})


def test_where_workers_always_die_nothing_is_said_of_any_sample() -> None:
    suspect = order()
    deaths, _ = search(suspect, set(), 1.0)
    assert suspect.given_up.startswith("workers keep dying, whatever they do, and shard 000000 was never done")
    assert (deaths, suspect.lost) == (PROVEN + IN_VAIN, {})


def test_what_is_in_work_is_known_by_its_samples() -> None:
    with in_work("000001", 5), in_work("000002", 6, 7):
        time.sleep(0.02)
        late = overdue(0.01)
        assert late is not None
        assert (late.shard, late.samples) == ("000001", (5,))
        assert overdue(60.0) is None
    assert overdue(0.0) is None


@pytest.fixture
def short_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmdata.cluster.task, "LONGEST", 0.1)


def nothing() -> None:
    pass


def a_hundred(state: None, task: Task) -> list[int]:
    """The samples that it could do."""
    ids = task.only if task.only is not None else [n for n in range(100) if n not in task.without]
    for sample in ids:
        with in_work(task.shard, sample):
            if task.shard == "poisoned" and sample == POISON["segfault"]:
                ctypes.string_at(0)
            if task.shard == "poisoned" and sample == POISON["exit"]:
                os._exit(1)
            if task.shard == "poisoned" and sample == POISON["kill"]:
                os.kill(os.getpid(), signal.SIGKILL)
            if task.shard == "poisoned" and sample == POISON["hang"]:
                time.sleep(1e6)
    return [] if task.only is not None else [n for n in range(100) if n not in task.without]


def outcomes(ended: Iterator[Done]) -> dict:
    return {done.item.shard: done.result if done.error is None else done.error for done in ended}


def hundred(task: Task) -> range:
    return range(100)


def test_samples_that_kill_or_hang_are_found_and_the_rest_of_their_shard_is_done(
    local_ray: None, short_controls: None, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [Task("poisoned"), Task("innocent"), Task("another")]
    ended = outcomes(run(nothing, a_hundred, tasks, ONE, samples=hundred))
    every = list(range(100))
    assert ended == {
        "poisoned": [n for n in every if n not in POISON.values()],
        "innocent": every,
        "another": every,
    }
    told = [record.getMessage() for record in caplog.records if "is left out" in record.getMessage()]
    assert sorted(told) == [
        "sample 3 of shard poisoned is left out: crash",
        "sample 40 of shard poisoned is left out: crash",
        "sample 41 of shard poisoned is left out: crash",
        "sample 77 of shard poisoned is left out: timeout",
    ]


def hold(state: None, task: Task) -> list[int]:
    """A call that hangs and lets no other thread of its process run; no one knows in which sample."""
    if 7 in (range(10) if task.only is None else task.only) and 7 not in task.without:
        ctypes.PyDLL(None).sleep(1_000_000)
    return [1] if task.only is None else []


def test_a_worker_that_does_not_answer_is_killed_and_its_sample_found(
    local_ray: None, short_controls: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmdata.cluster.pool, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(mmdata.cluster.actors, "LOOK_EVERY", 0.2)
    ended = outcomes(run(nothing, hold, [Task("a")], ONE, samples=lambda task: range(10)))
    assert ended == {"a": [1]}


def slow_shard(state: None, task: Task) -> list[int]:
    if task.shard == "slow" and 5 not in task.without and (task.only is None or 5 in task.only):
        time.sleep(1e6)  # and the sample in work is not told
    return [1] if task.only is None else []


def test_a_shard_over_its_time_is_tried_sample_by_sample(local_ray: None, short_controls: None) -> None:
    limited = Resources(workers=1, limits=Limits(sample=1.0, shard=1.0))
    tasks = [Task("slow"), Task("quick")]
    assert outcomes(run(nothing, slow_shard, tasks, limited, samples=lambda task: range(10))) == {
        "slow": [1],
        "quick": [1],
    }


def die_in_company(state: None, task: Task) -> list[int]:
    if task.only is None:
        os._exit(1)
    return []


def test_a_shard_that_kills_but_none_of_its_samples_does_is_an_error_that_says_so(local_ray: None) -> None:
    ended = outcomes(run(nothing, die_in_company, [Task("a")], ONE, samples=lambda task: range(10)))
    assert isinstance(ended["a"], WorkerDied)
    assert str(ended["a"]).startswith(
        "shard a kills its workers, and none of its samples does so by itself; the last: "
    )


def test_a_hang_in_this_process_is_an_error_that_says_how_to_go_on() -> None:
    code = """
import time, os
from mmdata.cluster import Limits, Resources, Task, in_work, run
from mmdata.errors import ModelError

def work(state, task):
    with in_work(task.shard, 12):
        time.sleep(1e6)

try:
    list(run(int, work, [Task("000003")], Resources(0, limits=Limits(sample=0.3))))
except ModelError as error:
    print(error, flush=True)
    os._exit(error.exit_code)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert ran.returncode == ModelError.exit_code, ran.stderr
    assert ran.stdout.startswith("shard 000003: sample 12 is in work for ")
    assert "over --sample-timeout 0.3; run the same command with --workers 1" in ran.stdout


def picture(path: Path, comment: str) -> None:
    noise = np.random.default_rng(len(path.stem)).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(path, comment=comment)


def corpus(folder: Path, poison: dict[int, str]) -> Path:
    """Sixty pictures with a caption; some hold poison."""
    folder.mkdir()
    for number in range(60):
        picture(folder / f"{number:02d}.jpg", poison.get(number, "harmless"))
        (folder / f"{number:02d}.txt").write_text(f"number {number} {poison.get(number, '')}")
    return folder


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "poison")])
    return subprocess.run(
        [sys.executable, "-c", "from mmdata.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"PYTHONPATH": paths} | environment,
    )


def left_out(dataset: Path, stage: str) -> dict[str, str]:
    return {row["key"]: row["reason"] for row in rejects(Dataset.open(str(dataset)), stage)}


def test_pictures_that_crash_or_hang_their_decoder_are_rejects_of_the_shard_stage(tmp_path: Path) -> None:
    source = corpus(tmp_path / "corpus", {7: "poison:segfault", 23: "poison:hang"})
    arguments = ["shard", str(source), str(tmp_path / "data"), "--samples-per-shard", "20", "--workers", "1"]
    ran = cli(*arguments, "--sample-timeout", "5")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("shard: 58 of 60 rows in 3 shards")  # and nothing of Ray's before it
    assert left_out(tmp_path / "data", "shards") == {"07": "crash", "23": "timeout"}
    (row,) = status(Dataset.open(str(tmp_path / "data")))
    assert (row["shards"], row["rows in"], row["rows out"]) == (3, 60, 58)
    keys = [key for path in sorted((tmp_path / "data/shards").glob("*.samples.parquet")) for key in keys_of(path)]
    assert keys == [f"{n:02d}" for n in range(60) if n not in (7, 23)]


def keys_of(path: Path) -> list[str]:
    return pq.read_table(path, columns=["key"])["key"].to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["prepare", "encode"])
def test_texts_that_crash_or_hang_an_encoder_are_rejects_of_the_extract_stage(where: str, tmp_path: Path) -> None:
    poison = {33: "poison:hang", 34: "poison:exit"}  # side by side, so in one batch
    source = corpus(tmp_path / "corpus", {})
    for number, what in poison.items():
        (source / f"{number:02d}.txt").write_text(what)
    data = str(tmp_path / "data")
    assert cli("shard", str(source), data, "--samples-per-shard", "20").returncode == 0
    arguments = ["extract", data, "--encoder", f"s=poison:Sensitive:{where}", "--workers", "1"]
    ran = cli(*arguments, "--sample-timeout", "5", "--max-reject-rate", "0.1")
    assert ran.returncode == 0, ran.stderr
    assert left_out(tmp_path / "data", "s") == {"33": "timeout", "34": "crash"}
    features = Features(Dataset.open(data), "s").to_arrow(["key"])["key"].to_pylist()
    assert features == [f"{n:02d}" for n in range(60) if n not in poison]


@pytest.mark.slow
def test_what_has_no_samples_to_leave_out_is_given_up_and_says_what_and_how_to_go_on(tmp_path: Path) -> None:
    """The part of an index, and a stretch of the source in the search for duplicates."""
    dataset = views_of(tmp_path / "data", {"signals": np.random.default_rng(0).normal(size=(60, 4))})
    arguments = ["index", dataset.url, "--features", "signals", "--workers", "1"]
    ran = cli(*arguments, POISON_WORKERS="faiss.serialize_index")
    assert (ran.returncode, ran.stdout) == (4, "")
    assert GIVEN_UP.format("index: shard 000000") in ran.stderr
    assert "\nrun the same command again to go on\n" in ran.stderr
    again = cli(*arguments[:-2])
    assert again.returncode == 0, again.stderr

    source = corpus(tmp_path / "corpus", {7: "poison:segfault"})
    arguments = ["shard", str(source), str(tmp_path / "new"), "--dedup", "exact", "--workers", "1"]
    ran = cli(*arguments, POISON_WORKERS="hashlib.sha256")
    assert (ran.returncode, ran.stdout) == (4, "")
    assert GIVEN_UP.format("looking for duplicates: samples 0 to 59 of the source") in ran.stderr
    assert "\nrun the same command again to go on\n" in ran.stderr


GIVEN_UP = "error: {} killed 3 workers; the last: The actor is dead because its worker process has died."
POISONED = {"k00005": "crash"}


def dataset_with_a_head(folder: Path) -> str:
    """Sixty rows of features, one of which is far out in a dimension that says what becomes of who takes it."""
    rows = np.random.default_rng(0).normal(size=(60, WIDTH)).astype(np.float32)
    for place, key in enumerate(POISONED):
        rows[int(key[1:]), place] = 1000
    dataset = views_of(folder, {"signals": rows}, kind=[f"{row % 2}" for row in range(60)])
    facts = {
        "dataset": dataset.url,
        "name": "kinds",
        "data": {"features": {"signals": "signals"}},
        "tasks": {"kind": {"type": "multiclass", "column": "kind"}},
        "train": {"epochs": 1},
        "device": "cpu",
    }
    train_head(check(TrainConfig, facts, "the test"))
    return dataset.url


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("stage", "folder"), [("predict", "predictions/kinds"), ("project", "features/kinds.fused")])
def test_rows_that_crash_a_head_are_rejects_of_its_stage(
    stage: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path / "cache"))
    data = dataset_with_a_head(tmp_path / "data")
    arguments = [stage, data, "--head", "kinds", "--workers", "1", "--sample-timeout", "5", "--max-reject-rate", "0.1"]
    ran = cli(*arguments)
    assert ran.returncode == 0, ran.stderr
    store = Dataset.open(data).store
    assert {row.key: row.reason.value for row in read_rejects(store, folder)} == POISONED
    keys = keys_of(tmp_path / "data" / folder / "000000.parquet")
    assert keys == [f"k{n:05d}" for n in range(60) if f"k{n:05d}" not in POISONED]


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A control group of 300 MB, which only root can make."""
    folder = Path("/sys/fs/cgroup/memory") / f"mmdata-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(300 << 20))
    except OSError as error:
        pytest.skip(f"no control groups: {error}")
    yield folder
    assert any(time.sleep(0.2) or not (folder / "cgroup.procs").read_text() for _ in range(100))
    folder.rmdir()


@pytest.mark.slow
def test_a_picture_that_floods_the_memory_is_a_reject_for_memory(small_memory: Path, tmp_path: Path) -> None:
    source = corpus(tmp_path / "corpus", {11: "poison:memory"})
    arguments = ["shard", str(source), str(tmp_path / "data"), "--samples-per-shard", "20", "--workers", "1"]
    ran = cli(*arguments, POISON_CGROUP=str(small_memory))
    assert ran.returncode == 0, ran.stderr
    assert left_out(tmp_path / "data", "shards") == {"11": "oom"}
