"""Figures: how good outputs are against labels. Rows without a label (-1, NaN) are left out."""

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from mmdata.fusion.evaluate import KS, wrong_before

LOWER_IS_BETTER = ("mae", "ece", "log_loss")
COMPARED = 20_000  # rows of an alignment, since each is compared with each
BINS = 10  # of the calibration error
Rows = NDArray[np.floating]


def classification(probability: Rows, target: NDArray[np.int64]) -> dict[str, float]:
    """accuracy, balanced_accuracy, macro_f1, log_loss and ece of `(n, classes)` and `(n,)`."""
    kept = target >= 0
    probability, target = probability[kept], target[kept]
    if not len(target):
        return {}
    counts = confusion(probability, target)
    right, given, said = counts.diagonal(), counts.sum(1), counts.sum(0)
    used = given > 0
    sure = probability[np.arange(len(target)), target]
    return {
        "accuracy": float(right.sum() / given.sum()),
        "balanced_accuracy": float((right[used] / given[used]).mean()),
        "macro_f1": float((2 * right[used] / (given + said)[used]).mean()),
        "log_loss": float(-np.log(np.maximum(sure, 1e-12)).mean()),
        "ece": calibration_error(probability, target),
    }


def confusion(probability: Rows, target: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each class (row) was said to be each class (column), `(classes, classes)`."""
    classes = probability.shape[1]
    return np.bincount(target * classes + probability.argmax(1), minlength=classes**2).reshape(classes, classes)


def per_class(probability: Rows, target: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """class, rows, precision, recall and f1 of each class that has rows or is said, the worst f1 first."""
    counts = confusion(probability, target)
    right, given, said = counts.diagonal(), counts.sum(1), counts.sum(0)
    found = [
        {
            "class": name,
            "rows": int(given[place]),
            "precision": float(right[place] / said[place]) if said[place] else 0.0,
            "recall": float(right[place] / given[place]) if given[place] else 0.0,
            "f1": float(2 * right[place] / (given[place] + said[place])),
        }
        for place, name in enumerate(classes)
        if given[place] + said[place]
    ]
    return sorted(found, key=lambda one: (one["f1"], one["class"]))


def calibration_bins(probability: Rows, target: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows (confidence, accuracy, share of the rows) of each bin of confidence that has any."""
    confidence, right = probability.max(1), probability.argmax(1) == target
    at = np.minimum((confidence * BINS).astype(int), BINS - 1)
    found = [(confidence[at == b].mean(), right[at == b].mean(), (at == b).mean()) for b in np.unique(at)]
    return np.array(found)


def calibration_error(probability: Rows, target: NDArray[np.int64]) -> float:
    """Expected calibration error (Guo et al. 2017) over ten bins of equal width."""
    confidence, accuracy, share = calibration_bins(probability, target).T
    return float((share * np.abs(confidence - accuracy)).sum())


def multilabel(probability: Rows, target: Rows) -> dict[str, float]:
    """map (macro), micro_map and micro_f1 of `(n, labels)`, over the labels that occur."""
    kept = ~np.isnan(target).any(1)
    probability, target = probability[kept], target[kept].astype(int)
    used = target.any(0)
    if not used.any():
        return {}
    each = [average_precision_score(target[:, i], probability[:, i]) for i in np.flatnonzero(used)]
    return {
        "map": float(np.mean(each)),
        "micro_map": float(average_precision_score(target[:, used].ravel(), probability[:, used].ravel())),
        "micro_f1": float(f1_score(target, probability > 0.5, average="micro", zero_division=0)),
    }


def regression(value: Rows, target: Rows) -> dict[str, float]:
    """r2 and mae, in the unit of the target."""
    kept = ~np.isnan(target)
    value, target = value[kept], target[kept]
    if not len(target):
        return {}
    spread = float(((target - target.mean()) ** 2).sum())
    return {
        "r2": 1 - float(((value - target) ** 2).sum()) / max(spread, 1e-12),
        "mae": float(np.abs(value - target).mean()),
    }


def alignment(sides: dict[str, Rows], group: NDArray[np.int64]) -> dict[str, float]:
    """R@1, R@5, R@10 and the median rank of every direction between `(n, dim)` sides, and over all directions the mean
    R@10 and the mean reciprocal rank, which tells more where rows are few.

    A row that lacks a side has NaN there and is left out of its directions; of more than 20,000 the first are compared.
    """
    found: dict[str, float] = {}
    ranks = _ranks(sides, group)
    for (one, other), before in ranks.items():
        found |= {f"{one} to {other} R@{k}": float((before < k).mean()) for k in KS}
        found[f"{one} to {other} median rank"] = float(np.median(before)) + 1
    if not ranks:
        return {}
    tens = [value for name, value in found.items() if name.endswith("R@10")]
    inverse = [float((1 / (before + 1)).mean()) for before in ranks.values()]
    return {"mean R@10": float(np.mean(tens)), "mean reciprocal rank": float(np.mean(inverse)), **found}


def alignment_hits(sides: dict[str, Rows], group: NDArray[np.int64]) -> Rows:
    """For each direction and query whether the right row is among ten, `(hits,)`: their mean is about `mean R@10`."""
    return np.concatenate([before < KS[-1] for before in _ranks(sides, group).values()]).astype(float)


def _ranks(sides: dict[str, Rows], group: NDArray[np.int64]) -> dict[tuple[str, str], NDArray[np.int64]]:
    found = {}
    for one, other in permutations(sides, 2):
        kept = np.flatnonzero(np.isfinite(sides[one][:, 0]) & np.isfinite(sides[other][:, 0]))[:COMPARED]
        if len(kept):
            found[one, other] = wrong_before(sides[one][kept], sides[other][kept], group[kept])
    return found


def separation(right: Rows, wrong: Rows) -> dict[str, float]:
    """auroc and accuracy of the probabilities of true and of mixed pairs; NaN is no pair."""
    right, wrong = right[np.isfinite(right)], wrong[np.isfinite(wrong)]
    if not len(right) or not len(wrong):
        return {}
    truth = np.repeat([1, 0], [len(right), len(wrong)])
    scores = np.concatenate([right, wrong])
    return {"auroc": float(roc_auc_score(truth, scores)), "accuracy": float(((scores > 0.5) == truth).mean())}


def intervals(
    scores: Sequence[Callable[[NDArray[np.int64]], float]], rows: int, draws: int = 200, seed: int = 0
) -> list[tuple[float, float]]:
    """95% percentile bootstrap of some figures of `rows` rows: 2.5% and 97.5% quantiles over `draws` resamples.

    The same resamples serve all of them, so a difference of two figures is a paired one.
    """
    random = np.random.default_rng(seed)
    values = np.array(
        [[score(rows_drawn) for score in scores] for rows_drawn in random.integers(0, rows, (draws, rows))]
    )
    return [(float(low), float(high)) for low, high in np.nanquantile(values, [0.025, 0.975], axis=0).T]


def lower_is_better(figure: str) -> bool:
    """Of `FIGURE` or `TASK/FIGURE`."""
    return figure.rpartition("/")[2] in LOWER_IS_BETTER


def better(figure: str, value: float, than: float) -> bool:
    """Whether `value` is the better figure."""
    return value < than if lower_is_better(figure) else value > than
