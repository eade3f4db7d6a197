"""`auto` against the rule of autofaiss 2.18 in the same memory: recall of each modality, and queries a second."""

import time
from collections.abc import Callable, Mapping
from math import log2, sqrt
from pathlib import Path

import faiss
import numpy as np
from lookup_data import Floats, write

from mmdata.cluster import Resources
from mmdata.config import IndexConfig
from mmdata.retrieval.metric import ready
from mmdata.retrieval.sample import draw
from mmdata.retrieval.search import Index, open_index
from mmdata.stages.index import index
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors

Find = Callable[[Floats], np.ndarray]
Side = tuple[str, int, float, Find]
"""What was chosen, its bytes, the seconds it took, and how it is asked."""
DIM, K, QUERIES, MIN_RECALL = 64, 10, 500, 0.95
ROUNDS = 5
QUERY_SECONDS = 0.010  # autofaiss' max_index_query_time_ms


def autofaiss_key(rows: int, dim: int, memory: int) -> str:
    """optimize.py, get_optimal_index_keys_v2, without memory mapping: the first key."""
    if rows < 1000:
        return "Flat"
    if rows < 10_000:
        return "HNSW15"
    links = int((memory / (4 * rows) - dim) / 2)
    if links >= 8:
        return f"HNSW{min(links, 32)}"
    lists = autofaiss_lists(rows)
    if rows < 1_000_000 and rows * (4 * dim + 8) < memory:
        return f"IVF{lists},Flat"
    bytes_ = next(
        b for b in (256, 128, 64, 48, 32, 24, 16, 8, 4) if b < dim and 4 * dim / (b + 8) >= 4 * rows * dim / memory
    )
    wide = (min(dim // bytes_, 6) + 1) * bytes_
    return f"OPQ{bytes_}_{wide},IVF{lists}{'_HNSW32' if lists >= 1000 else ''},PQ{bytes_}x8"


def autofaiss_lists(rows: int) -> int:
    if rows < 1_000_000:
        return int(2 ** round(log2(4 * sqrt(rows))))
    return 16384 if rows < 10_000_000 else 65536


def autofaiss_tune(base: faiss.Index, rows: Floats) -> dict[str, int]:
    """The largest effort within QUERY_SECONDS a query, timed on vectors of the index; recall is never looked at."""
    knob, most = knob_of(base)
    steps = [2**n for n in range(4 if knob == "efSearch" else 0, most + 1)]
    chosen = steps[0]
    for step in steps:
        since = time.perf_counter()
        for row in rows[:20, None]:
            bare_search(base, row, {knob: step})
        if (time.perf_counter() - since) / 20 > QUERY_SECONDS:
            break
        chosen = step
    return {knob: chosen}


def bare_search(base: faiss.Index, asked: Floats, effort: dict[str, int]) -> np.ndarray:
    if "efSearch" in effort:
        return base.search(asked, K, params=faiss.SearchParametersHNSW(efSearch=effort["efSearch"]))[1]
    if "nprobe" not in effort:
        return base.search(asked, K)[1]
    lists = faiss.SearchParametersIVF(nprobe=effort["nprobe"])
    if isinstance(base, faiss.IndexPreTransform):
        lists = faiss.SearchParametersPreTransform(index_params=lists)
    return base.search(asked, K, params=lists)[1]


def compare(folder: Path, shape: str, rows: int, share: float) -> None:
    """One line of the table a side, in `share` times the bytes of the vectors as float32. What is built is kept.

    The third side is the index of autofaiss with the least effort that has the recall that `auto` was asked for.
    """
    dataset = write(folder / f"{shape}-{rows}x{DIM}", shape, rows, DIM)
    memory = int(share * 4 * rows * DIM)
    every = np.concatenate([vectors(table) for _, table in Features(dataset, "image").scan(["embedding"])])
    data = ready(every, "cosine")
    asked = _asked(dataset)
    truth = {name: exact(data, queries) for name, queries in asked.items()}

    def recalls(find: Find) -> dict[str, float]:
        return {name: overlap(find(queries), truth[name]) for name, queries in asked.items()}

    sides = dict(zip(("autofaiss", "tuned by us"), autofaiss_sides(folder, shape, data, memory, recalls), strict=True))
    sides["mmdata"] = our_side(dataset, share, memory)
    speeds = by_turns({side: find for side, (_, _, _, find) in sides.items()}, asked)
    for side, (what, memory_used, seconds, find) in sides.items():
        told = ", ".join(f"{name} {recall:.3f} at {speeds[side, name]:.0f}/s" for name, recall in recalls(find).items())
        size = f"{memory_used / 1e6:.1f} of {memory / 1e6:.1f} MB"
        print(f"| {rows} {shape}, {share:g} | {side} | {what} | {size} | {told} | {seconds:.0f} s |", flush=True)


def _asked(dataset: Dataset) -> dict[str, Floats]:
    """Pictures near rows of the index, which are none of them, and texts."""
    rng = np.random.default_rng(5)
    pictures = draw(Features(dataset, "image"), QUERIES, "cosine", 123)
    noise = rng.normal(size=pictures.shape) / np.sqrt(DIM)
    texts = draw(Features(dataset, "text"), QUERIES, "cosine", 123)
    return {"image": ready(pictures + 0.2 * noise, "cosine"), "text": texts}


def exact(data: Floats, queries: Floats) -> np.ndarray:
    flat = faiss.IndexFlatIP(data.shape[1])
    flat.add(data)
    return flat.search(queries, K)[1]


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, truth, strict=True)]))


def by_turns(finds: Mapping[str, Find], asked: Mapping[str, Floats]) -> dict[tuple[str, str], float]:
    """Queries a second of each side and modality, 16 at once, in the fastest of ROUNDS rounds by turns."""
    best: dict[tuple[str, str], float] = {}
    for _ in range(ROUNDS):
        for side, find in finds.items():
            for name, queries in asked.items():
                since = time.perf_counter()
                for first in range(0, len(queries), 16):
                    find(queries[first : first + 16])
                speed = len(queries) / (time.perf_counter() - since)
                best[side, name] = max(best.get((side, name), 0.0), speed)
    return best


def autofaiss_sides(
    folder: Path, shape: str, data: Floats, memory: int, recalls: Callable[[Find], dict[str, float]]
) -> tuple[Side, Side]:
    key = autofaiss_key(*data.shape, memory)
    path = folder / f"autofaiss-{shape}-{len(data)}-{key}.faiss"
    if not path.exists():
        since = time.perf_counter()
        base = faiss.index_factory(data.shape[1], key, faiss.METRIC_INNER_PRODUCT)
        if not base.is_trained:
            base.train(data[: 100 * autofaiss_lists(len(data))])
        base.add(data)
        path.with_suffix(".seconds").write_text(str(time.perf_counter() - since))
        faiss.write_index(base, str(path))
    base = faiss.read_index(str(path))
    efforts = autofaiss_tune(base, data), our_tune(base, recalls)
    size, seconds = path.stat().st_size, float(path.with_suffix(".seconds").read_text())
    first, second = ((f"{key} {e}", size, seconds, lambda queries, e=e: bare_search(base, queries, e)) for e in efforts)
    return first, second


def our_tune(base: faiss.Index, recalls: Callable[[Find], dict[str, float]]) -> dict[str, int]:
    """The least effort, half a power of two apart, that has MIN_RECALL for every modality; else the most."""
    efforts = [{knob: round(2 ** (n / 2))} for knob, most in [knob_of(base)] for n in range(2 * most + 1)]
    for effort in efforts:
        if min(recalls(lambda queries, e=effort: bare_search(base, queries, e)).values()) >= MIN_RECALL:
            return effort
    return efforts[-1]


def knob_of(base: faiss.Index) -> tuple[str, int]:
    """What is tuned, and the power of two that it goes to."""
    if isinstance(base, faiss.IndexHNSW):
        return "efSearch", 13
    return "nprobe", int(log2(faiss.extract_index_ivf(base).nlist))


def our_side(dataset: Dataset, share: float, memory: int) -> Side:
    name = f"in-{share:g}"
    config = IndexConfig(dataset=dataset.url, features="image", name=name, memory=memory, min_recall=MIN_RECALL)
    index(config, Resources(workers=0))
    opened: Index = open_index(dataset, name)
    facts = opened.facts
    what = f"{facts.kind} {facts.parameters}"
    return what, facts.memory, facts.seconds, lambda queries: opened.search(queries, K).ids
