"""What the frame costs: extraction against its own encoder and decoder in a bare loop: `python benchmarks/extract.py`.

The ceiling is the time of a bare decode loop (one thread a core) plus the time of a bare loop of the same
encoder over inputs that lie prepared in memory, sorted by length, in whichever of the two ways is faster: one
batch with all threads of torch, or one batch a core with one thread each. The rate of an extraction is its rows
over the seconds from its first worker's readiness to its last shard; what comes before and after is its fixed cost.
Every side runs in a process of its own, all sides in each round, and the median round counts.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from mmdata.heap import ENVIRONMENT

WORDS = ("a", "small", "red", "bird", "sits", "on", "the", "roof", "of", "an", "old", "house", "near", "water")
ROUNDS = 3
DEMO = 1920  # samples, in shards of 80
ONE_PASS = ("minilm,efficientnet-lite0,mel-stats", "minilm,efficientnet-lite0,efficientnet-words,mel-stats")
"""An encoder a modality, none of which shares a decoder; and two that share one, as a pass over pictures has."""
WORKERS = {"in-process": 0, "1 worker on Ray": 1, "2 workers on Ray": 2, "4 workers on Ray": 4}
CORPORA = {"efficientnet-lite0": ("image", 2400, 200), "minilm": ("text", 6000, 1000)}
"""Modality, samples and samples a shard, for 20 s or more: ends weigh little then."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for spec, (modality, count, per_shard) in CORPORA.items():
            url = _dataset(Path(folder), modality, count, per_shard)
            sides = [*WORKERS, *(["sentence-transformers"] if modality == "text" else [])]
            rounds = [{side: _run(side, url, spec) for side in ["bare", *sides]} for _ in range(ROUNDS)]
            _report(spec, count, {side: _median([seen[side] for seen in rounds]) for side in ["bare", *sides]})
        _one_pass(Path(folder))


def _one_pass(root: Path) -> None:
    """Several encoders in one run against the sum of what each takes to encode prepared inputs."""
    from mmdata.cluster import Resources
    from mmdata.config import ShardConfig
    from mmdata.demo import write_corpus
    from mmdata.stages.shard import shard

    url = str(root / "demo-data")
    write_corpus(root / "demo", DEMO)
    shard(ShardConfig(dataset=url, source=str(root / "demo"), samples_per_shard=80), Resources(workers=0))
    ratios: dict[str, list[float]] = {specs: [] for specs in ONE_PASS}
    for _ in range(ROUNDS):
        alone = {spec: _run("bare", url, spec)["encode"] for spec in set(",".join(ONE_PASS).split(","))}
        for specs, seen in ratios.items():
            seen.append(_run("in-process", url, specs)["seconds"] / sum(alone[spec] for spec in specs.split(",")))
    for specs, seen in ratios.items():
        print(f"{specs} in one pass over {DEMO} samples: {median(seen):.2f} x the sum of the encoders' own compute")


def _median(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {what: median(seen[what] for seen in rounds) for what in rounds[0]}


def _dataset(root: Path, modality: str, count: int, per_shard: int) -> str:
    from mmdata.cluster import Resources
    from mmdata.config import ShardConfig
    from mmdata.stages.shard import shard

    source, url = root / modality, str(root / f"{modality}-data")
    source.mkdir()
    (_pictures if modality == "image" else _texts)(source, count)
    shard(ShardConfig(dataset=url, source=str(source), samples_per_shard=per_shard), Resources(workers=0))
    return url


def _pictures(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=90)


def _texts(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        words = rng.choice(WORDS, int(rng.integers(4, 60)))
        (folder / f"{number:05d}.txt").write_text(" ".join(words))


def _report(spec: str, count: int, sides: dict[str, dict[str, float]]) -> None:
    bare = sides.pop("bare")
    ceiling = count / (bare["decode"] + bare["encode"])
    print(f"{spec}: {count} samples, ceiling {ceiling:.0f}/s")
    print(f"  bare decode {count / bare['decode']:.0f}/s, bare encode {count / bare['encode']:.0f}/s")
    for side, seen in sides.items():
        rate = count / seen["seconds"]
        print(f"  {side}: {rate:.0f}/s, {rate / ceiling:.2f} of the ceiling, {seen['fixed']:.1f} s fixed", flush=True)


def _run(side: str, url: str, spec: str) -> dict[str, float]:
    """In a process that keeps freed memory from its start, as `mmdata` does before its first thread."""
    command, env = [sys.executable, __file__, side, url, spec], os.environ | ENVIRONMENT
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    seen: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seen


def extraction(workers: int, url: str, specs: str) -> dict[str, float]:
    """Seconds of the work, and seconds before and after it."""
    from mmdata.cluster import default_resources
    from mmdata.config import ExtractConfig
    from mmdata.stages.extract import extract

    shutil.rmtree(f"{url}/features", ignore_errors=True)
    config = ExtractConfig(dataset=url, encoders=tuple(specs.split(",")))
    summary = extract(config, default_resources(workers, None, 0.0, None))
    fixed = summary.phases["start"] + summary.phases["end"]
    return {"seconds": summary.seconds - fixed, "fixed": fixed}


def sentence_transformers(url: str, spec: str) -> dict[str, float]:
    """The library's own `encode` on the same texts, in the order of the corpus."""
    from sentence_transformers import SentenceTransformer

    from mmdata.encoders.starters import weights_folder

    began = time.perf_counter()
    model = SentenceTransformer(str(weights_folder()), device="cpu")
    texts = [part.decode() for part in _parts(url, "text")]
    model.encode(texts[:32])
    start = time.perf_counter() - began
    since = time.perf_counter()
    model.encode(texts, batch_size=32)
    return {"seconds": time.perf_counter() - since, "fixed": start}


def bare(url: str, spec: str) -> dict[str, float]:
    """Seconds to decode everything, and to encode everything."""
    from mmdata.cluster import threads
    from mmdata.encoders import describe, load_encoder
    from mmdata.encoders.device import configure
    from mmdata.heap import keep_freed_memory
    from mmdata.media import decode

    keep_freed_memory()
    configure()
    cores = threads()
    encoder = load_encoder(describe(spec))
    parts = list(_parts(url, encoder.card.modality))
    with ThreadPoolExecutor(cores) as pool:
        since = time.perf_counter()
        prepared = pool.map(lambda part: encoder.prepare(decode(encoder.card.modality, part).value), parts)
        ready = [one for windows in prepared for one in windows]
        decode_seconds = time.perf_counter() - since
    ready.sort(key=lambda one: one.length)
    size = encoder.batch_size
    batches = [[one.data for one in ready[start : start + size]] for start in range(0, len(ready), size)]
    ways = (_one_batch_a_core, _one_batch_at_a_time)
    return {"decode": decode_seconds, "encode": min(way(encoder, batches, cores) for way in ways)}


def _parts(url: str, modality: str) -> Any:
    from mmdata.storage.dataset import Dataset
    from mmdata.storage.receipts import read_receipts
    from mmdata.storage.shards import read_parts, read_sample_table
    from mmdata.types import Modality

    dataset, wanted = Dataset.open(url), Modality(modality)
    for name, receipt in read_receipts(dataset.store, "shards").items():
        for _, found in read_parts(dataset, name, read_sample_table(dataset, receipt), {wanted}):
            yield bytes(found[wanted])


def _one_batch_at_a_time(encoder: Any, batches: Sequence[list[Any]], cores: int) -> float:
    import torch

    torch.set_num_threads(cores)
    encoder.encode(batches[0])
    since = time.perf_counter()
    for batch in batches:
        encoder.encode(batch)
    return time.perf_counter() - since


def _one_batch_a_core(encoder: Any, batches: Sequence[list[Any]], cores: int) -> float:
    from mmdata.encoders.device import configure

    with ThreadPoolExecutor(cores, initializer=configure) as pool:
        list(pool.map(encoder.encode, batches[:cores]))
        since = time.perf_counter()
        list(pool.map(encoder.encode, batches))
        return time.perf_counter() - since


SIDES = {
    "bare": bare,
    "sentence-transformers": sentence_transformers,
    **{side: partial(extraction, workers) for side, workers in WORKERS.items()},
}

if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print(json.dumps(SIDES[sys.argv[1]](sys.argv[2], sys.argv[3])))
