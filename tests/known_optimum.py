"""Two views whose best possible answer is known, row by row."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tiny_features import memory_pack

from mmdata.fusion.pack import Pack
from mmdata.fusion.tasks import TASKS

SHIFT = 2.0  # of a view along one direction, up or down by its bit, in standard deviations of its noise
TRAIN, TEST = 8_000, 20_000


@dataclass(frozen=True)
class Known:
    """A pack of two views, its label, and the accuracy of the exact posterior on the test rows."""

    pack: Pack
    label: NDArray[np.int64]
    bayes: float

    @property
    def facts(self) -> dict[str, list[int]]:
        return TASKS["multiclass"].learn(pa.chunked_array([self.label]))


def known(kind: str) -> Known:
    """`kind` is how the bits of the two views make the label: redundant, unique, and, xor."""
    random = np.random.default_rng(0)
    rows = TRAIN + TEST
    left, right = random.integers(0, 2, (2, rows))
    right = left if kind == "redundant" else right
    views, chance = {}, []
    for name, bit, dim in (("left", left, 12), ("right", right, 8)):
        x = random.normal(size=(rows, dim))
        x[:, 0] += SHIFT * (2 * bit - 1)
        chance.append(1 / (1 + np.exp(-2 * SHIFT * x[:, 0])))  # that the bit is one, given the view
        views[name] = x @ np.linalg.qr(random.normal(size=(dim, dim)))[0]
    label, best = RULES[kind](left, right, *chance)
    return Known(memory_pack(views), label, float((best == label)[TRAIN:].mean()))


def _both(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.bool_]:
    return p * q / (p * q + (1 - p) * (1 - q)) > 0.5


RULES = {
    "redundant": lambda a, b, p, q: (a, _both(p, q)),
    "unique": lambda a, b, p, q: (2 * a + b, 2 * (p > 0.5) + (q > 0.5)),
    "and": lambda a, b, p, q: (a & b, p * q > 0.5),
    "xor": lambda a, b, p, q: (a ^ b, p * (1 - q) + q * (1 - p) > 0.5),
}
