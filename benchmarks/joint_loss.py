"""What the joint loss does, as it is written and as it is used: `python benchmarks/joint_loss.py`.

Digits of scikit-learn (pixels from 0 to 16), left and right half as two views, alpha = beta. Literal is
L = CE + alpha (||v - M_v(z)||^2 + ||l - M_l(z)||^2) on raw features, summed over dimensions. Prints the accuracy on
test rows, the mean over seeds.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from mmdata.fusion.feed import Feed, Plan, Where
from mmdata.fusion.figures import figures
from mmdata.fusion.model import Architecture, FusionModel, TaskFacts
from mmdata.fusion.pack import Input, Pack
from mmdata.fusion.splits import Part
from mmdata.fusion.tasks import TASKS, Context
from mmdata.fusion.tasks.joint import Reconstruct
from mmdata.fusion.train import Recipe, Run, fit_standardiser, train
from mmdata.types import EncoderCard, Modality

SEEDS = 3
FORMS = ("without", "standardised, mean (ours)", "standardised, sum", "raw, mean", "raw, sum (literal)")


class Summed(Reconstruct):
    """The square summed over dimensions, as it is written."""

    def __init__(self, context: Context, alpha: Mapping[str, float]) -> None:
        super().__init__(context, {name: weight * context.inputs[name] for name, weight in alpha.items()})


class Nowhere:
    """Keeps no checkpoint."""

    def load(self, run: Run) -> bool:
        return False

    def save(self, run: Run) -> None:
        pass


def main() -> None:
    """A row a form; a column a range of the pixels and an alpha."""
    TASKS["summed"] = Summed
    torch.set_num_threads(1)
    columns = [(scale, alpha) for scale in (1.0, 16.0, 1000.0) for alpha in (0.1, 1.0)]
    print("| form | " + " | ".join(f"pixels x {scale:g}, alpha {alpha:g}" for scale, alpha in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for form in FORMS:
        found = [np.mean([accuracy(form, *column, seed) for seed in range(SEEDS)]) for column in columns]
        print(f"| {form} | " + " | ".join(f"{value:.3f}" for value in found) + " |", flush=True)


def accuracy(form: str, scale: float, alpha: float, seed: int) -> float:
    """On 600 test rows, after training on 900."""
    pixels, digit = load_digits(return_X_y=True)
    halves = (pixels * scale).astype(np.float32).reshape(-1, 8, 2, 4).transpose(2, 0, 1, 3).reshape(2, -1, 32)
    pack = Pack(
        "",
        pa.table({"key": digit}),
        {name: _input(name, half) for name, half in zip(("left", "right"), halves, strict=True)},
    )
    tasks = {"digit": TaskFacts("multiclass", 1.0, {}, {"classes": list(range(10))})}
    if form != "without":
        kind = "summed" if "sum" in form else "reconstruct"
        tasks["rebuild"] = TaskFacts(kind, 1.0, {"alpha": {"left": alpha, "right": alpha}})
    torch.manual_seed(seed)
    model = FusionModel(Architecture({"left": 32, "right": 32}, (), "concat_mlp", 64, 1, 0.1, tasks))
    rows = np.random.default_rng(seed).permutation(len(digit))
    parts = {Part.TRAIN: rows[:900], Part.VALIDATION: rows[900:1197]}
    feed = Feed(pack, {"digit": torch.from_numpy(digit), "rebuild": torch.zeros(len(digit))}, Plan(Where.RESIDENT, ""))
    if "raw" not in form:
        fit_standardiser(model, feed, torch.from_numpy(parts[Part.TRAIN]))
    recipe = Recipe("digit/accuracy", epochs=15, batch=64, lr=2e-3, balance="fixed", seed=seed, modality_dropout=0.0)
    train(model, feed, parts, recipe, Nowhere())
    return figures(model, feed, torch.from_numpy(rows[1197:]))["digit/accuracy"]


def _input(name: str, values: NDArray[np.float32]) -> Input:
    card = EncoderCard(Modality.IMAGE, 32, name, space=name)
    rows = np.arange(len(values))
    return Input(card, False, np.ascontiguousarray(values), rows, np.ones_like(rows))


if __name__ == "__main__":
    main()
