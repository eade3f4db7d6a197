"""Peak memory of sharding and extraction from 1,000 to 100,000 samples: `python benchmarks/memory.py`.

The encoder is next to none, so that 100,000 samples take a minute and what grows is the engine's alone.
"""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmdata.encoders import Prepared, Request
from mmdata.types import EncoderCard, Modality

SIZES = (1_000, 10_000, 100_000)


class Letters:
    """A text to how often it has each of eight letters."""

    batch_size = 256

    @staticmethod
    def describe(name: str, tower: str, request: Request) -> EncoderCard:
        return EncoderCard(modality=Modality.TEXT, dim=8, revision="1")

    def __init__(self, card: EncoderCard, device: str) -> None:
        self.card = card

    def prepare(self, value: str) -> list[Prepared]:
        return [Prepared(value, len(value))]

    def encode(self, batch: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[text.count(letter) for letter in "abdehinr"] for text in batch], np.float32).reshape(-1, 8)


def main() -> None:
    print("samples   shard MB   extract MB   (peak resident memory of the process that runs the stage)")
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            table = Path(folder) / f"{size}.csv"
            rows = [f"{n},sentence number {n} about a bird and a house" for n in range(size)]
            table.write_text("key,text\n" + "\n".join(rows) + "\n")
            data = f"{folder}/{size}"
            shard = _peak("shard", f"source={table}", f"dataset={data}")
            extract = _peak("extract", f"dataset={data}", "encoders=['letters=memory:Letters']")
            print(f"{size:7d} {shard:10.0f} {extract:12.0f}", flush=True)


def _peak(stage: str, *sets: str) -> float:
    done = subprocess.run(
        [sys.executable, __file__, stage, *sets], check=True, capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return float(done.stdout.split()[-1])


def _stage(stage: str, sets: list[str]) -> None:
    from mmdata.cli import invoke

    invoke([stage, "--workers", "0", *(word for assignment in sets for word in ("--set", assignment))])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    _stage(sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else main()
