"""What hashes and checks cost an extraction: `python benchmarks/safety_cost.py [ROUNDS [ENCODER]]`.

Two sides in one process, each after the other in every round, in turns the one or the other first: as it is, and with
everything off that proves data or looks for bad data: the SHA-256 of parts, tables, files and documents, the
checksums of Parquet pages, the limits on sizes of pictures, and the search for vectors that are no numbers. Each side
reads shards that it has made itself. Counted from the moment that the model is loaded: wall time and CPU seconds. The
figure is the median of the rounds' ratios: what slows the machine down for seconds slows both sides of a round. A
third side counts the CPU seconds that pass inside of the checks (all but those of Parquet pages), which noise touches
less.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import extract as corpora
import numpy as np

from mmdata.cluster import Resources
from mmdata.config import ExtractConfig, ShardConfig
from mmdata.media import image
from mmdata.stages import extract, rows
from mmdata.stages.shard import shard
from mmdata.storage import plan, receipts, sealed, shards, store, tables

ROUNDS = 15
CORPORA = {"efficientnet-lite0": ("image", 160), "minilm": ("text", 640)}
SIDES = ("on", "off", "inside")
HERE = Resources(workers=0)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    for spec in sys.argv[2:] or CORPORA:
        with tempfile.TemporaryDirectory() as folder:
            modality, count = CORPORA[spec]
            source = Path(folder) / "source"
            source.mkdir()
            (corpora._pictures if modality == "image" else corpora._texts)(source, count)
            for side in SIDES:
                with checks(side):
                    options = {"samples_per_shard": count // 4, "validate_media": False}
                    shard(ShardConfig(dataset=f"{folder}/{side}", source=str(source), **options), HERE)
                    once(side, f"{folder}/{side}", spec)
            report(spec, count, [round_of(folder, spec, turn) for turn in range(rounds)])


def round_of(folder: str, spec: str, turn: int) -> dict[str, dict[str, float]]:
    return {side: once(side, f"{folder}/{side}", spec) for side in (SIDES[::-1] if turn % 2 else SIDES)}


def report(spec: str, count: int, seen: list[dict[str, dict[str, float]]]) -> None:
    for what in ("wall", "cpu"):
        ratios = sorted(one["on"][what] / one["off"][what] for one in seen)
        middle = f"the middle half {ratios[len(ratios) // 4]:.3f} to {ratios[-1 - len(ratios) // 4]:.3f}"
        rate = count / median(one["on"][what] for one in seen)
        print(f"{spec}: {rate:.0f} samples a {what} second; with checks over without: {median(ratios):.3f} ({middle})")
    share = median(one["inside"]["checks"] / one["inside"]["cpu"] for one in seen)
    print(f"{spec}: {share:.2%} of the CPU seconds pass inside of checks", flush=True)


def once(side: str, url: str, spec: str) -> dict[str, float]:
    """Extract anew."""
    shutil.rmtree(f"{url}/features", ignore_errors=True)
    marks: list[tuple[float, float]] = []

    def timed(job: Any, *arguments: Any) -> Any:
        def setup() -> Any:
            state = job.setup()
            marks.append((time.perf_counter(), time.process_time()))
            inside[0] = 0.0
            return state

        summary = run_job(replace(job, setup=setup), *arguments)
        marks.append((time.perf_counter(), time.process_time()))
        return summary

    run_job = extract.run_job
    with checks(side) as inside, patch.object(extract, "run_job", timed):
        extract.extract(ExtractConfig(dataset=url, encoders=(spec,)), HERE)
    (wall, cpu), (wall_end, cpu_end) = marks
    return {"wall": wall_end - wall, "cpu": cpu_end - cpu, "checks": inside[0]}


@contextmanager
def checks(side: str) -> Iterator[list[float]]:
    """Take the checks away, or count the CPU seconds inside of them, in the list that is given."""
    inside = [0.0]
    answers: dict[str, Callable[..., Any]] = {
        "sha256": lambda data: "0" * 64,
        "_check_size": lambda *size: None,
        "isfinite": lambda values: np.broadcast_to(True, values.shape),
    }
    with ExitStack() as stack:
        stack.enter_context(patch.object(rows, "np", SimpleNamespace(**vars(np))))  # its isfinite alone
        places = [(module, "sha256") for module in (plan, receipts, sealed, shards, store)]
        for module, name in [*places, (image, "_check_size"), (rows.np, "isfinite")]:
            if side != "on":
                call = answers[name] if side == "off" else counted(getattr(module, name), inside)
                stack.enter_context(patch.object(module, name, call))
        if side == "off":
            stack.enter_context(patch.object(tables, "pq", without_checksums(tables.pq)))
        yield inside


def without_checksums(library: Any) -> SimpleNamespace:
    def write_table(*arguments: Any, **options: Any) -> None:
        library.write_table(*arguments, **options | {"write_page_checksum": False})

    def parquet_file(*arguments: Any, **options: Any) -> Any:
        return library.ParquetFile(*arguments, **options | {"page_checksum_verification": False})

    return SimpleNamespace(write_table=write_table, ParquetFile=parquet_file)


def counted(check: Callable[..., Any], inside: list[float]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        since = time.thread_time()
        try:
            return check(*arguments)
        finally:
            inside[0] += time.thread_time() - since

    return call


if __name__ == "__main__":
    main()
