"""Ctrl-C, a kind kill, and what a run says while it goes: real processes, with and without Ray."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from test_kill import descendants
from test_poison import corpus

from mmdata.stages.status import status
from mmdata.storage.dataset import Dataset

ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "poison")])}
MMDATA = str(Path(sys.executable).parent / "mmdata")


def start(source: Path, data: Path, workers: int) -> subprocess.Popen[str]:
    """A run that ends its first shard, and hangs in the second."""
    command = [MMDATA, "shard", str(source), str(data), "--samples-per-shard", "20", "--workers", str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def wait_for(condition: object, what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)


@pytest.mark.parametrize(("workers", "number"), [(0, signal.SIGINT), (0, signal.SIGTERM), (1, signal.SIGINT)])
def test_a_run_that_is_stopped_ends_at_once_and_says_how_to_go_on(
    workers: int, number: signal.Signals, tmp_path: Path
) -> None:
    source, data = corpus(tmp_path / "corpus", {25: "poison:hang", 45: "poison:hang"}), tmp_path / "data"
    process = start(source, data, workers)
    try:
        wait_for((data / "shards/000000.json").exists, "the first shard")
        below = descendants(process.pid)
        process.send_signal(number)
        since = time.monotonic()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert time.monotonic() - since < 30  # two samples hang for ever; 10 s on a machine of its own
    last = errors.splitlines()[-1]
    again = f"mmdata shard {source} {data} --samples-per-shard 20 --workers {workers}"
    assert last == f"stopped by {number.name}; what is finished stays. To go on: {again}"
    wait_for(lambda: not [pid for pid in below if Path(f"/proc/{pid}").exists()], f"{below} to end", 30)
    (row,) = status(Dataset.open(str(data)))
    assert row["left"] == 2


NATIVE = """
import hashlib
from mmdata.ending import run_to_end
print("in native code", flush=True)
run_to_end(lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000), debug=False)  # an hour
"""


@pytest.mark.slow
def test_native_code_in_the_main_thread_is_not_waited_for() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", NATIVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.startswith("\nstopped by SIGTERM; what is finished stays.")


def test_elsewhere_than_on_a_terminal_progress_is_lines_of_json(tmp_path: Path) -> None:
    source, data = corpus(tmp_path / "corpus", {}), tmp_path / "data"
    process = start(source, data, 0)
    out, errors = process.communicate(timeout=100)
    told = [orjson.loads(line) for line in errors.splitlines()]
    assert out.startswith("shard: 60 of 60 rows in 3 shards")
    last = told[-1]
    assert {key: last[key] for key in ("event", "stage", "shards_done", "shards", "rows", "seconds_left")} == {
        "event": "progress",
        "stage": "shard",
        "shards_done": 3,
        "shards": 3,
        "rows": 60,
        "seconds_left": None,
    }
    assert last["rows_per_second"] > 0


def test_on_a_terminal_progress_is_one_line_with_rate_and_time_left(tmp_path: Path) -> None:
    source, data = corpus(tmp_path / "corpus", {}), tmp_path / "data"
    ours, theirs = pty.openpty()
    command = [MMDATA, "shard", str(source), str(data), "--samples-per-shard", "20"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=ENVIRONMENT)
    os.close(theirs)
    told = b""
    while chunk := read(ours):
        told += chunk
    assert process.wait(100) == 0
    lines = told.decode().split("\r\x1b[K")
    assert lines[1] == "  shard: 0 of 3 shards"
    assert re.fullmatch(r"  shard: 1 of 3 shards, \d+ rows/s, \d+ s left", lines[2])
    assert re.fullmatch(r"  shard: 3 of 3 shards, \d+ rows/s\s+", lines[4])


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 10_000)
    except OSError:  # its other end is closed
        return b""
