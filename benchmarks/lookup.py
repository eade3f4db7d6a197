"""The lookup against bare FAISS, over HTTP, and `auto` against autofaiss' rule.

python benchmarks/lookup.py build     # once: 1M x 256 in MMDATA_BENCH, minutes
python benchmarks/lookup.py search    # search() and bare FAISS in one process, by turns
python benchmarks/lookup.py open      # opening the index
python benchmarks/lookup.py serve     # mmdata serve over the loopback, the client in a process of its own
python benchmarks/lookup.py auto N SHAPE SHARE ...   # settings, as 10000 clustered 1.5: memory over the vectors' bytes
"""

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
import orjson
from lookup_auto import compare
from lookup_data import CARD, Floats, write

from mmdata.cluster import Resources
from mmdata.config import IndexConfig
from mmdata.retrieval.search import Index, open_index
from mmdata.stages.index import index
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features, vectors

FOLDER = Path(os.environ.get("MMDATA_BENCH", Path(tempfile.gettempdir()) / "mmdata-bench"))
ROWS, DIM, K = int(os.environ.get("MMDATA_BENCH_ROWS", "1000000")), 256, 10
ROUNDS = 7
RATE, SECONDS, LINKS = 300, 15, 16  # of the service: asks a second, for how long, over so many connections


def big() -> Path:
    return FOLDER / f"clustered-{ROWS}x{DIM}"


def queries(count: int) -> Floats:
    """Texts of the dataset, which are no rows of the index."""
    features = Features(Dataset.open(str(big())), "text")
    _, table = next(features.scan(["embedding"]))
    return vectors(table)[:count].astype(np.float32)


def build() -> None:
    since = time.perf_counter()
    dataset = write(big(), "clustered", ROWS, DIM)
    print(f"{ROWS} x {DIM} {CARD.dtype} written in {time.perf_counter() - since:.0f} s")
    since = time.perf_counter()
    made = index(IndexConfig(dataset=dataset.url, features="image"), Resources(workers=0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"indexed in {time.perf_counter() - since:.0f} s, peak {peak:.2f} GB: {made.facts}")


def search() -> None:
    opened = open_index(str(big()), "image")
    asked = queries(4096)
    how = f"{opened.facts.kind} {opened.facts.parameters} over {len(opened)} x {DIM}, k {K}"
    print(f"{how}, load {os.getloadavg()[0]:.1f}")
    print("| queries at once | bare FAISS /s | search() /s | ratio |\n|---|---|---|---|")
    for size in (16, 64, 512):
        batches = [asked[first : first + size] for first in range(0, len(asked), size)]
        bare, ours = across(lambda b: raw(opened, b), lambda b: opened.search(b, K), batches)
        print(f"| {size} | {size / bare:.0f} | {size / ours:.0f} | {bare / ours:.3f} |")
    hot = asked[:16]
    bare, ours = by_turns(lambda: raw(opened, hot), lambda: opened.search(hot, K), 250)
    print(f"| the same 16 again and again, fastest | {16 / bare:.0f} | {16 / ours:.0f} | {bare / ours:.3f} |")
    times = np.array(
        [by_turns(lambda q=q: raw(opened, q), lambda q=q: opened.search(q, K), 5) for q in asked[:200, None]]
    )
    bare, ours = np.median(times, axis=0) * 1000
    print(f"one vector, median of 200: bare FAISS {bare:.3f} ms, search() {ours:.3f} ms, {ours - bare:.3f} ms over it")
    shown = np.median([clock(lambda q=q: opened.search(q, K)[0]) for q in asked[:200, None]]) * 1000
    print(f"with the hits and their metadata: {shown:.3f} ms")


def raw(opened: Index, batch: Floats) -> object:
    """The same structure with the same parameters, asked without mmdata."""
    base, effort = opened.vector_index.base, opened.facts.parameters
    unit = batch.copy()
    faiss.normalize_L2(unit)
    if opened.facts.kind == "hnsw":
        return base.search(unit, K, params=faiss.SearchParametersHNSW(efSearch=max(effort["efSearch"], K)))
    if opened.facts.kind == "ivf-flat":
        return base.search(unit, K, params=faiss.SearchParametersIVF(nprobe=effort["nprobe"]))
    return base.search(unit, K)


def across(
    bare: Callable[[Floats], object], ours: Callable[[Floats], object], batches: Sequence[Floats]
) -> tuple[float, float]:
    """Seconds of a batch: the mean over all batches of the fastest round of each, by turns.

    Neither side asks what the other has just made warm: between a batch and the same batch lie all the others.
    """
    best, away = np.full((2, len(batches)), np.inf), len(batches) // 2
    for _ in range(ROUNDS):
        for place, batch in enumerate(batches):
            best[0, place] = min(best[0, place], clock(lambda b=batch: bare(b)))
            best[1, place - away] = min(best[1, place - away], clock(lambda b=batches[place - away]: ours(b)))
    once, again = best.mean(axis=1)
    return float(once), float(again)


def by_turns(bare: Callable[[], object], ours: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float]:
    """The fastest round of each."""
    found = [(clock(bare), clock(ours)) for _ in range(rounds + 1)][1:]
    return min(b for b, _ in found), min(o for _, o in found)


def clock(work: Callable[[], object]) -> float:
    since = time.perf_counter()
    work()
    return time.perf_counter() - since


def opening() -> None:
    """In a fresh process each time, as a user meets it; the files are warm."""
    code = (
        "import resource, time; from mmdata.retrieval.search import open_index; import numpy as np\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; since = time.perf_counter()\n"
        f"index = open_index({str(big())!r}, 'image'); print(time.perf_counter() - since)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000)\n"
        f"asked = np.ones((1, {DIM}), np.float32); since = time.perf_counter(); index.search(asked)\n"
        "print(time.perf_counter() - since)"
    )
    rounds = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        rounds.append([float(line) for line in done.stdout.split()])
    seconds, megabytes, first = np.min(rounds, axis=0)
    print(f"open: {seconds:.3f} s, {megabytes:.0f} MB more in memory; the first search {first * 1000:.1f} ms")


def serve() -> None:
    port = 18765
    command = [sys.executable, "-c", "from mmdata.cli import main; main()", "serve", str(big()), "--port", str(port)]
    server = subprocess.Popen(command)
    try:
        bodies = [
            orjson.dumps({"index": "image", "terms": [{"vector": row.tolist()}], "k": K}) for row in queries(2000)
        ]
        print(f"load {os.getloadavg()[0]:.1f}")
        asyncio.run(_measure(port, bodies))
    finally:
        server.terminate()
        server.wait()


async def _measure(port: int, bodies: list[bytes]) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        except OSError:
            await asyncio.sleep(0.2)
    writer.close()
    await _closed(port, bodies, 3.0)  # the files become warm
    most = await _closed(port, bodies, 10.0)
    print(f"as fast as it goes over {LINKS} connections: {len(most) / 10:.0f} queries/s, {_shares(most)}")
    for rate in (RATE, 2 * RATE):
        found = await _steady(port, bodies, rate)
        print(f"{rate} queries/s asked for {SECONDS} s: {len(found) / SECONDS:.0f}/s answered, {_shares(found)}")


def _shares(seconds: list[float]) -> str:
    p50, p99, worst = np.percentile(np.array(seconds) * 1000, [50, 99, 100])
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {worst:.1f} ms"


async def _closed(port: int, bodies: list[bytes], seconds: float) -> list[float]:
    found: list[float] = []
    end = time.perf_counter() + seconds

    async def ask(link: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        number = link
        while (since := time.perf_counter()) < end:
            await _post(reader, writer, bodies[number % len(bodies)])
            found.append(time.perf_counter() - since)
            number += LINKS
        writer.close()

    await asyncio.gather(*(ask(link) for link in range(LINKS)))
    return found


async def _steady(port: int, bodies: list[bytes], rate: int) -> list[float]:
    """Asks come when they come, whether or not the one before is answered: a wait counts."""
    found: list[float] = []
    due: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (item := await due.get()) is not None:
            await _post(reader, writer, item[1])
            found.append(time.perf_counter() - item[0])
        writer.close()

    askers = [asyncio.create_task(ask()) for _ in range(LINKS)]
    begun = time.perf_counter()
    for number in range(rate * SECONDS):
        at = begun + number / rate
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        due.put_nowait((at, bodies[number % len(bodies)]))
    for _ in askers:
        due.put_nowait(None)
    await asyncio.gather(*askers)
    return found


async def _post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> bytes:
    lines = ["POST /search HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer
    length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return await reader.readexactly(length)


def auto(*arguments: str) -> None:
    settings = list(zip(*(arguments[start::3] for start in range(3)), strict=True)) or [
        (rows, shape, "1.5") for rows in ("10000", "100000", "1000000") for shape in ("clustered", "uniform")
    ]
    for rows, shape, share in settings:
        compare(FOLDER, shape, int(rows), float(share))


PARTS: dict[str, Callable[..., None]] = {
    "build": build,
    "search": search,
    "open": opening,
    "serve": serve,
    "auto": auto,
}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        PARTS[sys.argv[1]](*sys.argv[2:])
    else:
        for part in PARTS.values():
            part()
