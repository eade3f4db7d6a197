"""The batch jobs: by hand, with wrong keys, and through `ray job submit` on a running cluster."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from mmdata.stages.status import status
from mmdata.storage.dataset import Dataset

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
TIMEOUT = 240


def config(folder: Path, corpus: Path, **changes: object) -> Path:
    """A small job: two shards, texts and sounds, one index."""
    values = {
        "dataset": str(folder / "dataset"),
        "workers": 0,
        "shard": {"source": str(corpus), "samples_per_shard": 32},
        "extract": {"encoders": ["minilm", "mel-stats"]},
        "align": [{"name": "sounds", "features": ["minilm", "mel-stats"], "holdout": 0.4}],
        "index": [{"features": "sounds.audio"}],
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=TIMEOUT
    )


FINISHED = [("shards", 2, 60), ("features mel-stats", 2, 60), ("features minilm", 2, 60)]
FINISHED += [("features sounds.audio", 2, 60), ("features sounds.text", 2, 60)]


def made(folder: Path) -> list[tuple[str, int, int]]:
    rows = status(Dataset.open(str(folder / "dataset")))
    return [(row["what"], row["shards"], row["rows out"]) for row in rows if row["what"].startswith(("sh", "feat"))]


def test_a_job_makes_everything_and_then_has_nothing_left_to_do(corpus: Path, tmp_path: Path) -> None:
    job = config(tmp_path, corpus)
    first = run(sys.executable, "-m", "pipelines.end_to_end", str(job))
    assert first.returncode == 0, first.stderr
    assert made(tmp_path) == FINISHED
    stages = [
        "shard: 60 of 60 rows in 2 shards,",
        "extract: 120 of 120 rows in 2 shards,",
        "align: 120 of 120",
        "index: 60",
    ]
    assert [line for line in stages if line in first.stdout] == stages
    again = run(sys.executable, "-m", "pipelines.end_to_end", str(job), "--set", "workers=2")
    assert again.returncode == 0, again.stderr
    assert "extract: 120 of 120 rows in 2 shards (2 finished before)" in again.stdout


def test_each_stage_has_a_job_of_its_own(corpus: Path, tmp_path: Path) -> None:
    where = f"dataset={tmp_path / 'dataset'}"
    for stage, sets in {
        "shard": [f"source={corpus}", "samples_per_shard=32"],
        "extract": ["encoders=[mel-stats]"],
        "index": ["features=mel-stats"],
    }.items():
        arguments = [part for one in [where, *sets] for part in ("--set", one)]
        ran = run(sys.executable, "-m", f"pipelines.{stage}", *arguments)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith(f"{stage}: 60 of 60 rows in 2 shards")


def test_wrong_keys_name_the_file_the_key_and_the_nearest_name(corpus: Path, tmp_path: Path) -> None:
    align = [{"name": "a", "features": ["b", "c"], "hold_out": 0.1}]
    job = config(tmp_path, corpus, extract={"encoders": ["minilm"], "batchsize": 8}, align=align, worker=2)
    ran = run(sys.executable, "-m", "pipelines.end_to_end", str(job))
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == [
        f"error: {job}: unknown key 'extract.batchsize'; did you mean 'batch_size'?",
        f"{job}: unknown key 'align.0.hold_out'; did you mean 'holdout'?",
        f"{job}: unknown key 'worker'; did you mean 'workers'?",
    ]
    assert not (tmp_path / "dataset").exists()


def test_an_error_of_a_stage_is_the_exit_code_of_the_job(tmp_path: Path) -> None:
    ran = run(sys.executable, "-m", "pipelines.index", "--set", f"dataset={tmp_path}", "--set", "features=minilm")
    assert ran.returncode == 4
    assert ran.stderr == f"error: {tmp_path} is not a dataset; make one with: mmdata shard SOURCE {tmp_path}\n"


def test_the_keys_above_go_to_every_section_that_does_not_say_otherwise() -> None:
    from mmdata.config import EndToEndConfig, load
    from mmdata.stages import resources_of

    job = load(EndToEndConfig, str(ROOT / "configs/demo/end_to_end.yaml"), ["workers=3", "shard.workers=1"])
    assert {part.dataset for part in (job.shard, job.extract, *job.align, *job.index)} == {"demo/job"}
    assert (job.shard.workers, job.extract.workers) == (1, 3)
    assert resources_of(job.index[0]).workers == 3


@dataclass
class Head:
    """A cluster that `ray start --head` has started."""

    environment: dict[str, str]
    dashboard: str
    address: str


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """With token authentication, which Ray 2.60 asks for, and a temporary folder short enough for its sockets."""
    import tempfile

    port, dashboard, client, agent = _free_ports(4)
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    ports = {"port": port, "dashboard-port": dashboard, "ray-client-server-port": client}
    ports |= {"dashboard-agent-listen-port": agent}
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        others = {"temp-dir": folder, "include-dashboard": "true", "object-store-memory": 100_000_000}
        flags = [f"--{name}={value}" for name, value in (ports | others).items()]
        start = subprocess.Popen(
            [BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats", *flags],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{dashboard}"
        try:
            for _ in range(40):  # the dashboard takes some seconds
                if run(str(BIN / "ray"), "job", "list", "--address", url, **environment).returncode == 0:
                    break
            yield Head(environment, url, f"127.0.0.1:{port}")
        finally:
            start.terminate()
            start.wait(60)


def submit(head: Head, job: Path) -> subprocess.CompletedProcess[str]:
    entry = ["--", sys.executable, "-m", "pipelines.end_to_end", str(job)]
    options = ["--address", head.dashboard, "--working-dir", str(ROOT)]
    return run(str(BIN / "ray"), "job", "submit", *options, *entry, **head.environment)


@pytest.mark.slow
def test_a_job_runs_through_ray_job_submit(corpus: Path, tmp_path: Path, head: Head) -> None:
    job = config(tmp_path, corpus, workers=2)
    ran = submit(head, job)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert made(tmp_path) == FINISHED
    assert "succeeded" in ran.stdout


@pytest.mark.slow
def test_a_wrong_key_fails_the_submitted_job_with_its_message(corpus: Path, tmp_path: Path, head: Head) -> None:
    job = config(tmp_path, corpus, workerz=2)
    ran = submit(head, job)
    assert ran.returncode != 0
    assert "unknown key 'workerz'; did you mean 'workers'?" in ran.stdout


@pytest.mark.slow
def test_ray_address_names_the_cluster_of_a_run(corpus: Path, tmp_path: Path, head: Head) -> None:
    """Without `workers`, the pool is fitted to that cluster: two CPUs."""
    sets = [f"dataset={tmp_path / 'dataset'}", f"source={corpus}", "samples_per_shard=8"]
    arguments = [part for one in sets for part in ("--set", one)]
    ran = run(sys.executable, "-m", "pipelines.shard", *arguments, **head.environment, RAY_ADDRESS=head.address)
    assert ran.returncode == 0, ran.stderr
    jobs = run(str(BIN / "ray"), "list", "actors", "--address", head.dashboard, "--format", "yaml", **head.environment)
    actors = [actor for actor in yaml.safe_load(jobs.stdout) if actor["class_name"] == "Actor"]
    assert {actor["state"] for actor in actors} == {"DEAD"}


def ask(head: Head, call: str) -> str:
    """What a JobSubmissionClient answers, in a process that knows the token."""
    code = f"from ray.job_submission import JobSubmissionClient as C; print(C({head.dashboard!r}).{call})"
    ran = run(sys.executable, "-c", code, **head.environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip().removeprefix("JobStatus.")


def driver_of(job: Path) -> int:
    """The process id of the driver of a submitted job."""
    found = [int(pid) for pid, words in command_lines() if words[1:4] == ["-m", "pipelines.end_to_end", str(job)]]
    assert len(found) == 1, found
    return found[0]


def command_lines() -> Iterator[tuple[str, list[str]]]:
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            if entry.name.isdigit():
                yield entry.name, (entry / "cmdline").read_text().split("\0")


def receipts(folder: Path) -> dict[str, int]:
    """Name and time of writing of every receipt."""
    found = (folder / "dataset").rglob("*.json")
    return {str(path): path.stat().st_mtime_ns for path in found if re.fullmatch(r"\d{6}", path.stem)}


@pytest.mark.slow
def test_a_job_whose_driver_is_killed_is_submitted_again_and_does_what_is_left(
    corpus: Path, tmp_path: Path, head: Head
) -> None:
    job = config(tmp_path, corpus, workers=2, shard={"source": str(corpus), "samples_per_shard": 6})
    entry = f"{sys.executable} -m pipelines.end_to_end {job}"
    order = f"submit_job(entrypoint={entry!r}, runtime_env={{'working_dir': {str(ROOT)!r}}})"
    first = ask(head, order)
    await_that(lambda: len(receipts(tmp_path)) > 3, "three receipts")
    os.kill(driver_of(job), signal.SIGKILL)
    await_that(lambda: ask(head, f"get_job_status({first!r})") == "FAILED", "the end of the job")
    before = receipts(tmp_path)
    second = ask(head, order)
    await_that(lambda: ask(head, f"get_job_status({second!r})") in ("SUCCEEDED", "FAILED"), "the end of the second job")
    assert ask(head, f"get_job_status({second!r})") == "SUCCEEDED", ask(head, f"get_job_logs({second!r})")
    assert {what: rows for what, _, rows in made(tmp_path)} == {what: rows for what, _, rows in FINISHED}
    after = receipts(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(before) < len(after)


def await_that(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, f"waited {TIMEOUT} s for {what}"
        time.sleep(0.1)


@pytest.mark.slow
def test_what_a_run_exports_is_what_the_dashboard_shows(corpus: Path, tmp_path: Path, head: Head) -> None:
    """Rows, rejects and the pool, as Prometheus reads them from the agent of the node."""
    from mmdata.cluster.metrics import COUNTERS, GAUGES

    code = f"""
import time, urllib.request
import ray
from mmdata.cluster import Resources, one_connection
from mmdata.config import ShardConfig
from mmdata.stages.shard import shard

with one_connection():
    shard(ShardConfig(dataset={str(tmp_path / "dataset")!r}, source={str(corpus)!r}, samples_per_shard=6,
        require=["image"]), Resources(1, address={head.address!r}))
    time.sleep(15)  # metrics are sent every 10 s at most
    for node in ray.nodes():
        where = f"http://{{node['NodeManagerAddress']}}:{{node['MetricsExportPort']}}/metrics"
        print(urllib.request.urlopen(where, timeout=10).read().decode())
"""
    ran = run(sys.executable, "-c", code, **head.environment)
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stdout.splitlines() if line.startswith("ray_mmdata_")]
    names = {line.partition("{")[0] for line in lines}
    quiet = {"ray_mmdata_rejects_total"}  # nothing was left out
    assert names >= {f"ray_{name}_total" for name in COUNTERS} - quiet
    assert names >= {f"ray_{name}" for name in GAUGES}
    rows = [line for line in lines if line.startswith("ray_mmdata_rows_total{") and 'stage="shard"' in line]
    assert "60.0" in {line.rpartition(" ")[2] for line in rows}  # others are of runs before it, one of them killed
