"""What the frame costs: extraction against its own encoder and decoder in a bare loop: `python benchmarks/extract.py`.

The ceiling is the time of a bare decode loop (one thread a core) plus the time of a bare loop of the same
encoder over inputs that lie decoded in memory, in whichever of the two ways is faster: one batch with all
threads of torch, or one batch a core with one thread each. Extraction is timed from the end of its first shard
to that of its last, so that starting Ray and loading the model are no part of it; the second shard, which is
in work beside the first, is not counted, so the rate is a lower bound.
"""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmdata.cluster import IN_FLIGHT, Resources, threads_of
from mmdata.config import ExtractConfig, ShardConfig
from mmdata.encoders import Encoder, describe, load_encoder
from mmdata.encoders.device import configure
from mmdata.media import decode
from mmdata.stages.extract import extract
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset
from mmdata.storage.receipts import read_receipts
from mmdata.storage.shards import read_parts, read_sample_table
from mmdata.types import Modality

WORDS = ("a", "small", "red", "bird", "sits", "on", "the", "roof", "of", "an", "old", "house", "near", "water")
CORES = threads_of(Resources(workers=0))
SHARDS = 12


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for spec, modality, count in (("efficientnet-lite0", Modality.IMAGE, 1800), ("minilm", Modality.TEXT, 6000)):
            source = root / spec
            source.mkdir()
            (_pictures if modality is Modality.IMAGE else _texts)(source, count)
            _compare(root, source, spec, modality, count)


def _pictures(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        small = rng.integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC).save(
            folder / f"{number:05d}.jpg", quality=90
        )


def _texts(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        words = rng.choice(WORDS, int(rng.integers(4, 60)))
        (folder / f"{number:05d}.txt").write_text(" ".join(words))


def _compare(root: Path, source: Path, spec: str, modality: Modality, count: int) -> None:
    url = str(root / f"{spec}-data")
    shard(ShardConfig(dataset=url, source=str(source), samples_per_shard=count // SHARDS), Resources(workers=0))
    decode_seconds, encode_seconds = _bare(url, spec, modality)
    ceiling = count / (decode_seconds + encode_seconds)
    rates = {"bare decode": count / decode_seconds, "bare encode": count / encode_seconds, "both": ceiling}
    print(f"{spec}: {count} samples, {CORES} cores")
    print("  " + ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items()))
    for name, resources in {"in-process": Resources(0), "on Ray, 1 worker": Resources(1, cpus=float(CORES))}.items():
        rate = _rate(url, spec, resources, count // SHARDS)
        print(f"  {name}: {rate:.0f}/s, {rate / ceiling:.2f} of the ceiling", flush=True)


def _rate(url: str, spec: str, resources: Resources, per_shard: int) -> float:
    ends: list[float] = []

    def watch(stage: str, done: int, total: int, rows: int) -> None:
        if rows:
            ends.append(time.perf_counter())

    extract(ExtractConfig(dataset=url, encoders=(spec,), overwrite=True), resources, watch)
    return per_shard * (len(ends) - IN_FLIGHT) / (ends[-1] - ends[0])


def _bare(url: str, spec: str, modality: Modality) -> tuple[float, float]:
    """Seconds to decode everything, and to encode everything."""
    configure()
    encoder = load_encoder(describe(spec))
    parts = list(_parts(Dataset.open(url), modality))
    with ThreadPoolExecutor(CORES) as pool:
        since = time.perf_counter()
        ready = list(pool.map(lambda part: encoder.prepare(decode(modality, part).value), parts))
        decode_seconds = time.perf_counter() - since
    ready.sort(key=lambda prepared: prepared.length)
    size = encoder.batch_size
    batches = [[p.data for p in ready[start : start + size]] for start in range(0, len(ready), size)]
    return decode_seconds, min(_one_batch_at_a_time(encoder, batches), _one_batch_a_core(encoder, batches))


def _parts(dataset: Dataset, modality: Modality) -> Any:
    for name, receipt in read_receipts(dataset.store, "shards").items():
        for _, found in read_parts(dataset, name, read_sample_table(dataset, receipt), {modality}):
            yield bytes(found[modality])


def _one_batch_at_a_time(encoder: Encoder, batches: Sequence[list[Any]]) -> float:
    torch.set_num_threads(CORES)
    encoder.encode(batches[0])
    since = time.perf_counter()
    for batch in batches:
        encoder.encode(batch)
    seconds = time.perf_counter() - since
    torch.set_num_threads(1)
    return seconds


def _one_batch_a_core(encoder: Encoder, batches: Sequence[list[Any]]) -> float:
    with ThreadPoolExecutor(CORES, initializer=configure) as pool:
        list(pool.map(encoder.encode, batches[:CORES]))
        since = time.perf_counter()
        list(pool.map(encoder.encode, batches))
        return time.perf_counter() - since


if __name__ == "__main__":
    main()
