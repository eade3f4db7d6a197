"""Runs of a stage in processes of their own that can be killed at a named point, started in milliseconds.

A fork server imports everything once and starts no thread; each run is a fork of it.
"""

import multiprocessing
import os
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from small_job import STAGES, run_stage

SECONDS = 120  # until a run must have ended

TESTS = Path(__file__).parent
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
# the server itself looks nowhere else for what it is to import, and says nothing when it does not find it

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["crashing_preload"])


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (negative: a signal), what it said, and the points it passed."""

    code: int
    said: str
    reached: Counter[str]
    fired: bool


def start_stage(stage: str, dataset: Path, corpus: Path, orders: Path | None = None, workers: int = 0) -> Any:
    """One stage in a process of its own, started; at every point it looks into `orders`."""
    ray = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}  # address, and how to log in
    about = (stage, str(dataset), str(corpus), orders and str(orders), workers, ray)
    process = _context.Process(target=_run, args=about)
    process.start()
    return process


def run_stage_apart(
    stage: str, dataset: Path, corpus: Path, crash: str | None = None, workers: int = 0, orders: Path | None = None
) -> Ended:
    """As `start_stage`, to its end; `crash` is NAME:N, or "" to write down the points that are passed.

    With `workers` only those that were started with MMDATA_CRASH=`orders` look there.
    """
    path = orders or Path(f"{dataset}-orders")
    for suffix in ("", ".fired", ".reached"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    if crash is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(crash)
    process = start_stage(stage, dataset, corpus, None if workers else path, workers)
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"{stage} did not end within {SECONDS} s")
    log, said = Path(f"{path}.reached"), Path(f"{dataset}-said")
    reached = Counter(log.read_text().split() if log.exists() else [])
    return Ended(process.exitcode, said.read_text() if said.exists() else "", reached, Path(f"{path}.fired").exists())


def undisturbed(folder: Path, corpus: Path) -> tuple[dict[str, Path], dict[str, Counter[str]]]:
    """The dataset as it is before each stage, and at the "end", and the points that each stage passes.

    Before the first stage there is nothing at its path.
    """
    found, passed, now = {}, {}, folder / "first"
    for stage in STAGES:
        found[stage] = now
        after = folder / f"after-{stage}"
        if now.exists():
            shutil.copytree(now, after)
        ended = run_stage_apart(stage, after, corpus, "")
        assert ended.code == 0, ended.said
        passed[stage] = ended.reached
        now = after
    return found | {"end": now}, passed


def _run(stage: str, dataset: str, corpus: str, orders: str | None, workers: int, ray: dict[str, str]) -> None:
    from mmdata import crash
    from mmdata.errors import MMDataError

    crash.FILE = orders
    os.environ.update(ray)
    code = 0
    Path(dataset).parent.mkdir(parents=True, exist_ok=True)
    with open(f"{dataset}-said", "w") as log:
        os.dup2(log.fileno(), 2)
        sys.stderr = log
        try:
            run_stage(stage, dataset, corpus, workers)
        except MMDataError as error:
            log.write(f"{type(error).__name__}: {error}\n")
            code = error.exit_code
    os._exit(code)


def descendants(pid: int) -> dict[int, str]:
    """Process id to command line of every process below `pid`."""
    below, found = {pid}, {}
    everyone = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                everyone[int(entry.name)] = (parent, (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    while fresh := {p: line for p, (parent, line) in everyone.items() if parent in below and p not in found}:
        found |= fresh
        below |= set(fresh)
    return found


def files(dataset: Path) -> dict[str, Path]:
    return {str(path.relative_to(dataset)): path for path in dataset.rglob("*") if path.is_file()}


def content(dataset: Path) -> dict[str, Any]:
    """Every file as it is; of documents the facts, without their seals and without the work that a run did for them."""
    return {name: _facts(path) for name, path in files(dataset).items() if not name.endswith("receipts.parquet")}


def _facts(path: Path) -> Any:
    data = path.read_bytes()
    return _timeless(orjson.loads(data)) if path.suffix == ".json" else data


def _timeless(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {name: _timeless(value) for name, value in facts.items() if name not in ("seconds", "counters", "seal")}
    return facts


def receipts(dataset: Path) -> dict[str, int]:
    """Name and time of writing of every receipt."""
    return {n: p.stat().st_mtime_ns for n, p in files(dataset).items() if re.search(r"/\d{6}\.json$", n)}
