"""Sharding against `tar -cf` and `webdataset.ShardWriter` over the same files: `python benchmarks/shard.py`.

Prints seconds of the fastest of five rounds, each round running all sides one after the other, and ratios. A shard
carries the sha256 of every part and of the whole tar, so `tar` with `sha256sum` over both is a side, too.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from mmdata.cluster import Resources
from mmdata.config import ShardConfig
from mmdata.demo import write_corpus
from mmdata.stages.shard import shard

ROUNDS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_corpus(root / "demo", 1500)
        _photos(root / "photos", 1000)
        for corpus in ("demo", "photos"):
            _compare(root, corpus)


def _photos(folder: Path, count: int) -> None:
    """640 x 480 JPEG with enough noise to weigh what photos weigh, and a caption each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(small).astype(np.int16) + rng.integers(-12, 13, (480, 640, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=90)
        (folder / f"{number:05d}.txt").write_text(f"picture number {number}")


def _compare(root: Path, corpus: str) -> None:
    source = root / corpus
    files = [path for path in source.rglob("*") if path.is_file()]
    sides: dict[str, Callable[[Path], object]] = {
        "tar -cf": lambda out: _tar(source, out),
        "tar -cf and sha256sum": lambda out: _tar_and_hashes(source, out, files),
        "webdataset.ShardWriter": lambda out: _shard_writer(source, out),
        "mmdata --no-validate": lambda out: _mmdata(source, out, False),
        "mmdata": lambda out: _mmdata(source, out, True),
    }
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(ROUNDS):
        for name, side in sides.items():
            out = root / "out"
            out.mkdir()
            since = time.perf_counter()
            side(out)
            best[name] = min(best[name], time.perf_counter() - since)
            shutil.rmtree(out)
    size = sum(path.stat().st_size for path in files)
    print(f"{corpus}: {len(files)} files, {size / 1e6:.0f} MB")
    for name, seconds in best.items():
        print(f"  {name:24s} {seconds:6.2f} s   {seconds / best['tar -cf']:5.2f} x tar")


def _tar(source: Path, out: Path) -> None:
    subprocess.run(["tar", "-cf", str(out / "all.tar"), "-C", str(source), "."], check=True)


def _tar_and_hashes(source: Path, out: Path, files: list[Path]) -> None:
    _tar(source, out)
    subprocess.run(["sha256sum", *files, out / "all.tar"], check=True, stdout=subprocess.DEVNULL)


def _shard_writer(source: Path, out: Path) -> None:
    stems: dict[Path, list[Path]] = {}
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        stems.setdefault(path.with_suffix(""), []).append(path)
    with webdataset.ShardWriter(str(out / "%06d.tar"), maxcount=1000, verbose=0) as writer:
        for number, paths in enumerate(stems.values()):
            writer.write({"__key__": f"{number:09d}"} | {path.suffix[1:]: path.read_bytes() for path in paths})


def _mmdata(source: Path, out: Path, validate: bool) -> None:
    shard(ShardConfig(dataset=str(out / "data"), source=str(source), validate_media=validate), Resources(workers=0))


if __name__ == "__main__":
    main()
