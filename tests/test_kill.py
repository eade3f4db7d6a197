"""kill -9 of a worker, of the driver and of everything, then the same command again."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features

SAMPLES, SHARDS = 60, 10
FILES = 2 + 3 * SHARDS + 2 * SHARDS  # of an undisturbed run, without dataset.json and the two summaries
STAGING = re.compile(r"#\d+$")  # what the object store leaves of a file that it was writing
SECONDS = 120.0  # until anything that is waited for must have happened


def command(corpus: Path, dataset: Path, workers: int) -> list[str]:
    sets = [
        f"dataset={dataset}",
        f"workers={workers}",
        f"shard.source={corpus}",
        f"shard.samples_per_shard={SAMPLES // SHARDS}",
        "extract.encoders=[mel-stats]",
    ]
    return [sys.executable, "-m", "pipelines.end_to_end", *(part for s in sets for part in ("--set", s))]


def files(dataset: Path) -> dict[str, Path]:
    """The finished files of a dataset, without those that every run writes anew."""
    found = {str(path.relative_to(dataset)): path for path in dataset.rglob("*") if path.is_file()}
    return {
        name: path
        for name, path in found.items()
        if not name.endswith(("receipts.parquet", "receipts.json", "dataset.json", "encoder.json"))
        and not STAGING.search(name)
    }


def content(dataset: Path) -> dict[str, object]:
    """What a run has made: every byte of it, but for the times in the receipts."""
    made: dict[str, object] = {}
    for name, path in files(dataset).items():
        made[name] = path.read_bytes()
        if re.search(r"/\d{6}\.json$", name):
            made[name] = {k: v for k, v in orjson.loads(path.read_bytes()).items() if k not in ("seconds", "seal")}
    return made


def receipts(dataset: Path) -> dict[str, int]:
    """Name and time of writing of every receipt."""
    return {n: path.stat().st_mtime_ns for n, path in files(dataset).items() if re.search(r"/\d{6}\.json$", n)}


def descendants(pid: int) -> dict[int, str]:
    """Process id to command line of every process below `pid`."""
    below, found = {pid}, {}
    everyone = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                everyone[int(entry.name)] = (
                    int((entry / "stat").read_text().rpartition(")")[2].split()[1]),
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(),
                )
            except OSError:
                continue
    while fresh := {p: line for p, (parent, line) in everyone.items() if parent in below and p not in found}:
        found |= fresh
        below |= set(fresh)
    return found


def wait_for(condition: object, what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, f"waited {SECONDS} s for {what}"
        time.sleep(0.002)


@dataclass
class Killed:
    """What a kill left: how many receipts there were, and when they were written."""

    receipts: dict[str, int]
    mid_run: bool


def run_and_kill(corpus: Path, dataset: Path, workers: int, whom: str, moment: int, delay: float) -> Killed:
    """Start the run, kill when `moment` files are there and `delay` seconds have passed."""
    process = subprocess.Popen(
        command(corpus, dataset, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for(lambda: len(files(dataset)) >= moment or process.poll() is not None, f"{moment} files")
        time.sleep(delay)
        actors = [pid for pid, line in descendants(os.getpid()).items() if line.startswith("ray::Actor")]
        below = [*actors, *descendants(process.pid)]
        victims = {"driver": [process.pid], "everything": [process.pid, *below], "worker": actors[:1]}[whom]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if whom == "worker":
            assert process.wait(SECONDS) == 0  # the run goes on without it
        else:
            killed = process.wait(SECONDS) == -signal.SIGKILL
            left = receipts(dataset)
            wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), "Ray to end with its driver")
            return Killed(left, killed and len(left) < 2 * SHARDS)
        return Killed(receipts(dataset), bool(victims))
    finally:
        process.kill()


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    dataset = tmp_path_factory.mktemp("undisturbed") / "dataset"
    subprocess.run(command(corpus, dataset, 0), check=True, capture_output=True, timeout=SECONDS)
    made = content(dataset)
    assert len(made) == FILES
    return made


def check_kills(corpus: Path, folder: Path, undisturbed: dict[str, object], workers: int, whom: list[str]) -> None:
    chance = random.Random(f"{workers}:{whom}")
    moments = sorted(chance.sample(range(1, FILES - 1), len(whom)))
    mid_run = []
    for number, (victim, moment) in enumerate(zip(whom, moments, strict=True)):
        dataset = folder / f"dataset-{number}"
        killed = run_and_kill(corpus, dataset, workers, victim, moment, chance.uniform(0, 0.05))
        mid_run.append(killed.mid_run)
        again = subprocess.run(command(corpus, dataset, workers), capture_output=True, text=True, timeout=SECONDS)
        assert again.returncode == 0, again.stderr
        context = f"{victim} killed at file {moment} of {FILES}"
        assert content(dataset) == undisturbed, context
        assert {name: receipts(dataset)[name] for name in killed.receipts} == killed.receipts, context
        rows = Features(Dataset(str(dataset)), "mel-stats").to_arrow(["id"])
        assert rows["id"].to_pylist() == list(range(SAMPLES)), context
    assert sum(mid_run) > len(whom) / 2  # else nothing was tested


def test_a_run_in_this_process_survives_three_kills(
    corpus: Path, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    check_kills(corpus, tmp_path, undisturbed, 0, ["driver"] * 3)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A running cluster, which RAY_ADDRESS names."""
    from ray.cluster_utils import Cluster

    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", running.address)
    yield
    running.shutdown()


@pytest.mark.slow
def test_a_run_on_a_cluster_survives_the_kill_of_a_worker_of_the_driver_and_of_both(
    corpus: Path, tmp_path: Path, undisturbed: dict[str, object], cluster: None
) -> None:
    check_kills(corpus, tmp_path, undisturbed, 2, ["worker", "driver", "everything"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("workers", "whom"), [(0, ["driver"] * 10), (2, [*(["worker", "driver", "everything"] * 3), "worker"])]
)
def test_a_run_survives_ten_kills_at_random_moments(
    workers: int, whom: list[str], corpus: Path, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    check_kills(corpus, tmp_path, undisturbed, workers, whom)
