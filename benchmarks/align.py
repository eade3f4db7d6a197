"""Text to image on captions that no fit has seen, over many splits: `python benchmarks/align.py STAMPS_DATASET`.

    make stamps
    mmdata extract stamps/dataset --encoder efficientnet-lite0
    python benchmarks/align.py stamps/dataset

A split holds a fifth of the captions out, by their hash. CCA chooses ridges and the share of the class names by
cross-validation on the others; the trained heads are those of configs/stamps/space.yaml, and a tenth of the others
chooses their epoch. Splits 0 to 5 were looked at while the methods were made, 10 to 19 were not.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from joint_loss import Nowhere
from numpy.typing import NDArray

from mmdata.config import TrainConfig, load
from mmdata.fusion.align import Columns, common_columns, fit_cca
from mmdata.fusion.evaluate import chance_at, recall_at
from mmdata.fusion.feed import Feed, Plan, Where
from mmdata.fusion.figures import run_tasks
from mmdata.fusion.model import FusionModel
from mmdata.fusion.pack import Input, Pack
from mmdata.fusion.splits import Part, hash_share
from mmdata.fusion.train import fit_standardiser, train
from mmdata.stages.align import FOLDS, _chosen, _pairs
from mmdata.stages.learning import Lesson, architecture
from mmdata.stages.train import recipe_of
from mmdata.storage.dataset import Dataset
from mmdata.storage.features import Features
from mmdata.types import EncoderCard

SPLITS = {"looked at": range(6), "not looked at": range(10, 20)}
WORDS = slice(1280, 1664)  # of efficientnet-lite0-words
DIM = 256
RECIPE = Path(__file__).parent.parent / "configs/stamps/space.yaml"
Matrix = NDArray[np.floating]


def main(url: str) -> None:
    """A row a method, a column a set of splits: R@10 text to image, image to text, and their spread."""
    torch.set_num_threads(1)
    dataset = Dataset.open(url)
    text, plain, words = (Features(dataset, n) for n in ("minilm", "efficientnet-lite0", "efficientnet-lite0-words"))
    x, y, groups = _pairs(text, plain)
    _, z, same = _pairs(text, words)
    assert groups == same
    shared = common_columns(text.card, words.card)
    for label, splits in SPLITS.items():
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in splits:
            held = _chosen(groups, 0.2, f"{seed}:holdout")
            names = [group for group, is_held in zip(groups, held, strict=True) if is_held]
            found.setdefault("chance", []).append((chance_at(names)["R@10"],) * 2)
            zero = _unit(x - x[~held].mean(0)), _unit(z[:, WORDS] - z[~held, WORDS].mean(0))
            found.setdefault("efficientnet-words, no pair seen", []).append(_recall(*zero, held, names))
            for name, images, in_common in (
                ("efficientnet-lite0", y, None),
                ("efficientnet-lite0-words", z, shared),
            ):
                since = time.process_time()
                sides = _fit(x, images, groups, held, seed, in_common)
                seconds = time.process_time() - since
                found.setdefault(f"CCA, {name}", []).append(_recall(*sides, held, names))
            pack = _pack(groups, {"text": (text.card, x), "image": (words.card, z)})
            for loss in ("infonce", "siglip"):
                sides = _train(pack, groups, held, seed, loss)
                found.setdefault(f"{loss}, efficientnet-lite0-words", []).append(_recall(*sides, held, names))
        for name, each in found.items():
            (there, back), (spread, _) = np.mean(each, 0), np.std(each, 0)
            print(
                f"{label}, {len(splits)} splits: {name}: R@10 {there:.3f} (sd {spread:.3f}), back {back:.3f}",
                flush=True,
            )
    print(f"the last fit took {seconds:.1f} CPU seconds")


def _fit(
    x: Matrix, y: Matrix, groups: list[str], held: NDArray[np.bool_], seed: int, shared: tuple[Columns, Columns] | None
) -> tuple[Matrix, Matrix]:
    train = [group for group, is_held in zip(groups, held, strict=True) if not is_held]
    folds = np.array([int(FOLDS * hash_share(f"{seed}:fold:{group}")) for group in train])
    fit = fit_cca(x[~held], y[~held], train, folds, DIM, shared=shared)
    return fit.left.project(x), fit.right.project(y)


def _pack(groups: list[str], inputs: dict[str, tuple[EncoderCard, Matrix]]) -> Pack:
    rows = np.arange(len(groups))
    return Pack(
        "",
        pa.table({"key": groups}),
        {name: Input(card, False, values, rows, np.ones_like(rows)) for name, (card, values) in inputs.items()},
    )


def _train(pack: Pack, groups: list[str], held: NDArray[np.bool_], seed: int, loss: str) -> tuple[Matrix, Matrix]:
    changes = [f"tasks.space.loss={loss}", f"train.seed={seed}"]
    config = load(TrainConfig, str(RECIPE), changes)
    chooses = _chosen(groups, 0.1, f"{seed}:validation") & ~held
    parts = {Part.TRAIN: np.flatnonzero(~held & ~chooses), Part.VALIDATION: np.flatnonzero(chooses)}
    targets = {"space": torch.from_numpy(np.unique(groups, return_inverse=True)[1])}
    torch.manual_seed(seed)
    model = FusionModel(architecture(config, Lesson(pack, pack.rows, parts, {"space": {}}, targets)))
    feed = Feed(pack, targets, Plan(Where.RESIDENT, ""))
    fit_standardiser(model, feed, torch.from_numpy(parts[Part.TRAIN]))
    train(model, feed, parts, recipe_of(config), Nowhere())
    outputs = run_tasks(model, feed, torch.arange(len(groups)))["space"]
    return outputs["text"], outputs["image"]


def _recall(x: Matrix, y: Matrix, held: NDArray[np.bool_], names: list[str]) -> tuple[float, float]:
    return recall_at(x[held], y[held], names)["R@10"], recall_at(y[held], x[held], names)["R@10"]


def _unit(rows: Matrix) -> Matrix:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "stamps/dataset")
