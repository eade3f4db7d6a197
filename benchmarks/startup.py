"""Start-up: `mmdata --help`, and stages with nothing to do: `python benchmarks/startup.py`."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mmdata.demo import write_corpus

MMDATA = [str(Path(sys.executable).parent / "mmdata")]
ROUNDS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus, data = f"{folder}/corpus", f"{folder}/data"
        write_corpus(Path(corpus), 40)
        stages = {
            "shard": ["shard", corpus, data],
            "extract": ["extract", data, "--encoder", "minilm", "--encoder", "efficientnet-lite0"],
            "index": ["index", data, "--features", "minilm"],
        }
        for arguments in stages.values():
            subprocess.run([*MMDATA, *arguments], check=True, capture_output=True)
        bare = _best([sys.executable, "-c", "pass"])
        print(f"python -c pass: {bare:.2f} s")
        print(f"mmdata --help: {_best([*MMDATA, '--help']):.2f} s")
        for name, arguments in stages.items():
            print(f"mmdata {name} with nothing to do: {_best([*MMDATA, *arguments]):.2f} s")


def _best(command: list[str]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        since = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - since)
    return min(seconds)


if __name__ == "__main__":
    main()
