"""What hashes and checks cost an extraction: `python benchmarks/safety_cost.py [ROUNDS [ENCODER]]`.

Two sides, a process each, in turns, and in the other order in every second round: as it is, and with everything off
that proves data or looks for bad data: the SHA-256 of parts, tables, files and documents, the checksums of Parquet
pages, the limits on sizes of pictures, and the search for vectors that are no numbers. Each side reads shards that it
has made itself. Counted from the moment that the model is loaded: wall time and CPU seconds of the process. A third
side counts the CPU seconds that pass inside of the checks (all but those of Parquet pages), which noise touches less.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import extract as corpora

ROUNDS = 5
CORPORA = {"efficientnet-lite0": ("image", 480), "minilm": ("text", 1200)}
SIDES = ("on", "off", "inside")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        for spec in sys.argv[2:] or CORPORA:
            modality, count = CORPORA[spec]
            source = Path(folder) / modality
            source.mkdir()
            (corpora._pictures if modality == "image" else corpora._texts)(source, count)
            seen = []
            for turn in range(rounds):
                sides = SIDES[::-1] if turn % 2 else SIDES
                seen.append({side: _run(side, str(source), f"{folder}/{spec}-{side}", spec) for side in sides})
            _report(spec, count, seen)


def _run(side: str, source: str, url: str, spec: str) -> dict[str, float]:
    command = [sys.executable, __file__, side, source, url, spec]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _report(spec: str, count: int, seen: list[dict[str, dict[str, float]]]) -> None:
    for what in ("wall", "cpu"):
        ratios = sorted(one["on"][what] / one["off"][what] for one in seen)
        spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
        rate = count / median(one["on"][what] for one in seen)
        print(f"{spec}: {rate:.0f} samples a {what} second; with checks over without: {median(ratios):.3f} ({spread})")
    share = median(one["inside"]["checks"] / one["inside"]["cpu"] for one in seen)
    print(f"{spec}: {share:.2%} of the CPU seconds pass inside of checks", flush=True)


def one(side: str, source: str, url: str, spec: str) -> dict[str, float]:
    from mmdata.cluster import Resources
    from mmdata.config import ExtractConfig, ShardConfig
    from mmdata.stages import extract
    from mmdata.stages.shard import shard

    inside = _turn(side)
    here = Resources(workers=0)
    count = len(list(Path(source).iterdir()))
    shard(ShardConfig(dataset=url, source=source, samples_per_shard=count // 8, validate_media=False), here)
    shutil.rmtree(f"{url}/features", ignore_errors=True)
    marks: list[tuple[float, float]] = []

    def mark() -> None:
        marks.append((time.perf_counter(), time.process_time()))

    def timed(job: Any, *arguments: Any) -> Any:
        def setup() -> Any:
            state = job.setup()
            mark()
            inside[0] = 0.0
            return state

        summary = run_job(replace(job, setup=setup), *arguments)
        mark()
        return summary

    run_job, extract.run_job = extract.run_job, timed
    extract.extract(ExtractConfig(dataset=url, encoders=(spec,)), here)
    (wall, cpu), (wall_end, cpu_end) = marks
    return {"wall": wall_end - wall, "cpu": cpu_end - cpu, "checks": inside[0]}


def _turn(side: str) -> list[float]:
    """Take the checks away, or count the CPU seconds inside of them, in the list that is returned."""
    import numpy as np

    from mmdata.media import image
    from mmdata.stages import rows
    from mmdata.storage import plan, receipts, sealed, shards, store, tables

    inside = [0.0]
    answers: dict[str, Callable[..., Any]] = {
        "sha256": lambda data: "0" * 64,
        "_check_size": lambda *size: None,
        "isfinite": lambda values: np.broadcast_to(True, values.shape),
    }
    rows.np = SimpleNamespace(**vars(np))  # its isfinite alone
    places = [(module, "sha256") for module in (plan, receipts, sealed, shards, store)]
    for module, name in [*places, (image, "_check_size"), (rows.np, "isfinite")]:
        if side != "on":
            setattr(module, name, answers[name] if side == "off" else _counted(getattr(module, name), inside))
    if side == "off":
        library = tables.pq
        tables.pq = SimpleNamespace(
            write_table=lambda *a, **k: library.write_table(*a, **{**k, "write_page_checksum": False}),
            ParquetFile=lambda *a, **k: library.ParquetFile(*a, **{**k, "page_checksum_verification": False}),
        )
    return inside


def _counted(check: Callable[..., Any], inside: list[float]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        since = time.thread_time()
        try:
            return check(*arguments)
        finally:
            inside[0] += time.thread_time() - since

    return call


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        print(json.dumps(one(*sys.argv[1:])))
    else:
        main()
