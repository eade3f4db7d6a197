"""What the pack and the feed cost: training a head on cached features against the same steps on ready tensors.

    python benchmarks/fusion.py [ROWS]

One process, one thread; CPU seconds, so that a busy machine does not decide. Prints Parquet to pack, its peak memory,
samples of the loop on resident and on streamed features, of the same steps on batches that are there already, of a
DataLoader over the pack and of one over the Parquet, and the Python calls a batch of the loop.
"""

import cProfile
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from mmdata.fusion.feed import Batch, Feed, Plan, Where
from mmdata.fusion.losses import Balance
from mmdata.fusion.model import Architecture, FusionModel, TaskFacts
from mmdata.fusion.pack import Pack, Source, make_pack
from mmdata.fusion.train import Recipe, Run, _step
from mmdata.storage.dataset import Dataset as Stored
from mmdata.storage.features import Features
from mmdata.storage.imported import import_vectors
from mmdata.types import Modality

DIMS = {"image": 2048, "text": 768}
BATCH = 1024
ROUNDS = 3
INSTANT = 1e8  # samples/s: nothing was loaded
RECIPE = Recipe("y/accuracy", modality_dropout=0.0)


def main(rows: int) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        stored = _write(Path(folder) / "data", rows)
        subprocess.run([sys.executable, __file__, "pack", stored.url, folder], check=True)
        _compare(_pack(stored.url, folder), stored, rows)


def _pack(url: str, folder: str) -> Pack:
    return make_pack([Source(Stored.open(url), {name: name for name in DIMS})], Path(folder) / "cache")


def measure_packing(url: str, folder: str) -> None:
    """In a process of its own, since a peak is that of a process."""
    before, since = _peak(), time.process_time()
    pack = _pack(url, folder)
    rate = pack.nbytes / (time.process_time() - since) / 1e9
    print(f"Parquet to pack: {rate:.2f} GB of vectors a CPU second ({pack.nbytes / 1e6:.0f} MB)")
    more = _peak() - before
    print(f"peak memory of packing: {more / 1e6:.0f} MB more than before, {more / pack.nbytes:.2f} of the pack")


def _write(folder: Path, rows: int) -> Stored:
    stored, random = Stored.create(str(folder)), np.random.default_rng(0)
    keys = [f"{row:08d}" for row in range(rows)]
    for name, dim in DIMS.items():
        import_vectors(stored, name, Modality.IMAGE, keys, random.normal(size=(rows, dim)).astype(np.float16))
    return stored


def _compare(pack: Pack, stored: Stored, rows: int) -> None:
    target = torch.arange(rows) % 10
    feeds = {where: Feed(pack, {"y": target}, Plan(where, "")) for where in Where}
    order = feeds[Where.RESIDENT].shuffled(torch.arange(rows), 0, 0)
    ready = list(feeds[Where.RESIDENT].batches(order, BATCH))
    items = _Items(pack, target)
    parquet = _Rows(stored, target)
    sides: dict[str, Callable[[], Iterable[Batch]]] = {
        "the loop on resident features": lambda: feeds[Where.RESIDENT].batches(order, BATCH),
        "the loop on streamed features": lambda: feeds[Where.STREAMED].batches(order, BATCH),
        "the same steps on ready tensors": lambda: ready,
        "the same steps on a DataLoader over the pack": lambda: DataLoader(
            items, BATCH, shuffle=True, collate_fn=_batch
        ),
        "the same steps on a DataLoader over the Parquet": lambda: DataLoader(parquet, BATCH, collate_fn=_batch),
    }
    rates: dict[str, float] = {}
    loading: dict[str, float] = {}
    for _ in range(ROUNDS):  # the fastest round of each, all sides in each round
        for name, batches in sides.items():
            rates[name] = max(rates.get(name, 0.0), rows / _train(batches()))
            loading[name] = max(loading.get(name, 0.0), rows / _only_load(batches()))
    own = rates["the loop on resident features"]
    for name, rate in rates.items():
        print(
            f"{name}: {rate:,.0f} samples/s; the loop is {own / rate:.2f} of it; batches alone {loading[name]:,.0f}/s"
        )
    profile = cProfile.Profile()
    profile.runcall(_train, feeds[Where.RESIDENT].batches(order, BATCH))
    calls = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    print(f"Python calls: {calls / len(ready):,.0f} a batch of {BATCH}, whatever is in it")  # type: ignore[attr-defined]


def _train(batches: Iterable[Batch]) -> float:
    torch.manual_seed(0)
    task = TaskFacts("multiclass", 1.0, {}, {"classes": list(range(10))})
    model = FusionModel(Architecture(DIMS, (), "concat_mlp", 256, 1, 0.1, {"y": task}))
    balance = Balance("fixed", {"y": 1.0}, {"y": 1.0})
    run = Run(model.train(), balance, torch.optim.AdamW(model.parameters()), {}, torch.zeros(1))
    since = time.process_time()
    for batch in batches:
        _step(run, batch, RECIPE)
    return time.process_time() - since


def _only_load(batches: Iterable[Batch]) -> float:
    since = time.process_time()
    for _ in batches:
        pass
    return max(time.process_time() - since, 1e-6)


class _Items(Dataset):  # type: ignore[type-arg]
    """What people write: a sample an index."""

    def __init__(self, pack: Pack, target: torch.Tensor) -> None:
        self.arrays = {name: torch.from_numpy(one.values) for name, one in pack.inputs.items()}
        self.target = target

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: array[row] for name, array in self.arrays.items()} | {"y": self.target[row]}


class _Rows(_Items):
    """The Parquet through its rows, as `to_pylist` gives them; read once."""

    def __init__(self, stored: Stored, target: torch.Tensor) -> None:
        tables = {name: pq.read_table(Features(stored, name).files, columns=["embedding"]) for name in DIMS}
        self.columns = {name: table["embedding"] for name, table in tables.items()}
        self.target = target

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        found = {name: torch.from_numpy(np.array(column[row].values)) for name, column in self.columns.items()}
        return found | {"y": self.target[row]}


def _batch(samples: list[dict[str, torch.Tensor]]) -> Batch:
    stacked = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    there = torch.ones(len(samples), dtype=torch.bool)
    return Batch(there, {name: (stacked[name], there) for name in DIMS}, {"y": stacked["y"]})


def _peak() -> int:
    """Bytes; not ru_maxrss, which a process takes over from the one that started it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    measure_packing(*sys.argv[2:4]) if sys.argv[1:2] == ["pack"] else main(int((sys.argv[1:] or ["60000"])[0]))
