"""Peak memory of sharding and extraction from 1,000 to 20,000 samples: `python benchmarks/memory.py`."""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = (1_000, 5_000, 20_000)


def main() -> None:
    print("samples   shard MB   extract MB   (peak resident memory of the process that runs the stage)")
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            table = Path(folder) / f"{size}.csv"
            rows = [f"{n},sentence number {n} about a bird and a house" for n in range(size)]
            table.write_text("key,text\n" + "\n".join(rows) + "\n")
            data = f"{folder}/{size}"
            shard = _peak("shard", f"source={table}", f"dataset={data}")
            extract = _peak("extract", f"dataset={data}", "encoders=[minilm]")
            print(f"{size:7d} {shard:10.0f} {extract:12.0f}", flush=True)


def _peak(stage: str, *sets: str) -> float:
    done = subprocess.run([sys.executable, __file__, stage, *sets], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _stage(stage: str, sets: list[str]) -> None:
    from mmdata.cli import invoke

    invoke([stage, "--workers", "0", *(word for assignment in sets for word in ("--set", assignment))])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    _stage(sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else main()
