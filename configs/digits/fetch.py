"""Two halves of a written digit as a dataset: `python configs/digits/fetch.py DATASET`.

The 1,797 digits of scikit-learn, 8 x 8 pixels; nothing is downloaded. Writes the feature sets `left` and `right`, 32
pixels each, with the column `digit`.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits

from mmdata.storage.dataset import Dataset
from mmdata.storage.imported import import_vectors
from mmdata.types import Modality


def main(url: str) -> None:
    """Write the feature sets."""
    dataset = Dataset.create(url)
    pixels, digit = load_digits(return_X_y=True)
    keys = [f"digit{row:04d}" for row in range(len(pixels))]
    for name, half in zip(("left", "right"), np.split(pixels.reshape(-1, 8, 8), 2, axis=2), strict=True):
        values = half.reshape(len(half), -1).astype(np.float32)
        import_vectors(dataset, name, Modality.IMAGE, keys, values, {"digit": digit})
    sys.stdout.write(f"{url}: {len(digit)} digits in two halves\n")


if __name__ == "__main__":
    main(*sys.argv[1:2])
