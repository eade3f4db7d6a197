"""What a head must beat: the simplest predictors on the same rows, in the form of the task's own outputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeCV

from mmdata.fusion.align import Columns, common_columns, fit_cca
from mmdata.fusion.feed import Feed
from mmdata.fusion.labels import labelled
from mmdata.fusion.metrics import intervals
from mmdata.fusion.model import FusionModel
from mmdata.fusion.probe import fit_probe
from mmdata.fusion.splits import hash_share
from mmdata.fusion.tasks import Align, Multiclass, Multilabel, Outputs, Regression, Task
from mmdata.types import EncoderCard

MOST = 20_000  # rows that a baseline learns from, and that it chooses by
CCA_DIM = 128  # as of mmdata align
OURS = "this head"
FOLDS = 4
RIDGES = tuple(10.0**power for power in range(-2, 6))
Matrix = NDArray[np.floating]
Score = Callable[[NDArray[np.int64]], float]


@dataclass(frozen=True, slots=True)
class Standing:
    """A predictor's main figure with its 95% interval; of a baseline also the head's lead, on the same rows."""

    name: str
    value: float
    low: float
    high: float
    lead: float | None = None
    lead_low: float | None = None
    lead_high: float | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """Standardised features, the mean over tokens, zero where missing, and who has them."""

    x: dict[str, Matrix]  # (n, dim)
    present: dict[str, NDArray[np.bool_]]  # (n,)
    scale: dict[str, Matrix]  # (dim,), what x was divided by
    cards: Mapping[str, EncoderCard]  # of the inputs that are pooled

    @property
    def all(self) -> Matrix:
        """All inputs side by side."""
        return np.concatenate([self.x[name] for name in sorted(self.x)], axis=1)


@torch.no_grad()
def features(model: FusionModel, feed: Feed, rows: NDArray[np.int64]) -> Rows:
    """The features of some rows, one at least, as the head's own standardisers see them."""
    model.eval()
    stems: dict[str, Any] = dict(model.stems.items())
    states = [model(batch.inputs) for batch in feed.batches(torch.from_numpy(rows), 4096)]
    names = states[0].standard
    return Rows(
        {name: torch.cat([state.standard[name] for state in states]).cpu().numpy() for name in names},
        {name: torch.cat([state.present[name] for state in states]).cpu().numpy() for name in names},
        {name: stem.scale.cpu().numpy() for name, stem in stems.items()},
        feed.cards,
    )


def baselines(task: Task, parts: Mapping[str, tuple[Rows, NDArray[Any]]]) -> dict[str, Outputs]:
    """Outputs of every baseline that the task has, for the rows of the part `asked`; `train` and `validation` fit it.

    A part is its rows and the task's targets; the two that fit hold one row at least, and all of theirs have a label.
    """
    maker: Callable[..., dict[str, Outputs]] | None = MAKERS.get(type(task))
    return maker(task, **parts) if maker else {}


def to_fit(rows: NDArray[np.int64], target: NDArray[Any]) -> NDArray[np.int64]:
    """Those of the rows that have a label in `target`, the same 20,000 of them at most."""
    found = np.random.default_rng(0).permutation(rows[labelled(target[rows])])[:MOST]
    return np.sort(found)


def standings(task: Task, head: Outputs, others: Mapping[str, Outputs], target: NDArray[Any]) -> list[Standing]:
    """The main figure of the head and of each baseline with its interval, and the lead of the head, paired.

    A baseline that has some of the outputs (CCA of two of three inputs) is compared with the head on those.
    """
    score, rows = task.resampled(head, target)
    if not rows:
        return []
    found = [Standing(OURS, score(np.arange(rows)), *intervals([score], rows)[0])]
    for name, outputs in others.items():
        ours, rows = task.resampled({key: head[key] for key in outputs}, target)
        theirs, _ = task.resampled(outputs, target)
        everything = np.arange(rows)
        range_, lead = intervals([theirs, _difference(ours, theirs)], rows)
        value = theirs(everything)
        found.append(Standing(name, value, *range_, ours(everything) - value, *lead))
    return found


def _difference(ours: Score, theirs: Score) -> Score:
    return lambda drawn: ours(drawn) - theirs(drawn)


def verdict(found: list[Standing]) -> str:
    """Whether the head beats the baseline that it leads least, said out loud."""
    if len(found) < 2:
        return "there is no baseline for this task"
    best = min(found[1:], key=lambda one: one.lead or 0.0)
    how = "beats" if (best.lead_low or 0.0) > 0 else "does NOT beat"
    lead = f"lead {best.lead:+.3f}, 95% {best.lead_low:+.3f} to {best.lead_high:+.3f}"
    return f"{how} the best baseline, {best.name} ({best.value:.3f}): {lead}"


def _multiclass(task: Multiclass, train: Any, validation: Any, asked: Any) -> dict[str, Outputs]:
    count, y = len(task.classes), train[1]
    share = np.bincount(y, minlength=count) / len(y)
    found: dict[str, Outputs] = {"majority": {"probability": np.tile(share, (len(asked[1]), 1))}}
    for name, (x, xv, xa) in _views(train[0], validation[0], asked[0]).items():
        probe = fit_probe(x, y, xv, validation[1], fine=False)
        found[f"{name}, logistic regression"] = {"probability": probe.probability(xa, count)}
    return found


def _multilabel(task: Multilabel, train: Any, validation: Any, asked: Any) -> dict[str, Outputs]:
    y = train[1]
    found: dict[str, Outputs] = {"majority": {"probability": np.tile(y.mean(0), (len(asked[1]), 1))}}
    for name, (x, _, xa) in _views(train[0], validation[0], asked[0]).items():
        columns = [_binary(x, y[:, i], xa) for i in range(y.shape[1])]
        found[f"{name}, logistic regression"] = {"probability": np.stack(columns, axis=1)}
    return found


def _binary(x: Matrix, y: NDArray[Any], asked: Matrix) -> NDArray[Any]:
    if len(np.unique(y)) < 2:
        return np.full(len(asked), y[0])
    model = LogisticRegression(C=1 / x.shape[1], max_iter=200).fit(x, y)
    return np.asarray(model.predict_proba(asked)[:, 1])


def _regression(task: Regression, train: Any, validation: Any, asked: Any) -> dict[str, Outputs]:
    found: dict[str, Outputs] = {"mean": {"value": np.full(len(asked[1]), task.mean)}}
    for name, (x, _, xa) in _views(train[0], validation[0], asked[0]).items():
        model = RidgeCV(alphas=RIDGES).fit(x, train[1])
        found[f"{name}, ridge regression"] = {"value": model.predict(xa) * task.scale + task.mean}
    return found


def _views(*parts: Rows) -> dict[str, tuple[Matrix, ...]]:
    views = {name: tuple(part.x[name] for part in parts) for name in parts[0].x}
    return views | ({"all inputs": tuple(part.all for part in parts)} if len(views) > 1 else {})


def _align(task: Align, train: Any, validation: Any, asked: Any) -> dict[str, Outputs]:
    """Closed-form CCA of every two inputs, as `mmdata align` fits it: its options by cross-validation on train."""
    rows, target = train
    found = {}
    for pair in combinations(task.between, 2):
        both = np.flatnonzero(rows.present[pair[0]] & rows.present[pair[1]])
        groups = [str(group) for group in target[both]]
        folds = np.array([int(FOLDS * hash_share(f"fold:{group}")) for group in groups])
        left, right = (rows.x[name][both] * rows.scale[name] for name in pair)
        fit = fit_cca(left, right, groups, folds, CCA_DIM, shared=_shared(rows, pair))
        found[f"CCA of {pair[0]} and {pair[1]}"] = {
            name: np.where(asked[0].present[name][:, None], tower.project(asked[0].x[name] * rows.scale[name]), np.nan)
            for name, tower in zip(pair, (fit.left, fit.right), strict=True)
        }
    return found


def _shared(rows: Rows, pair: tuple[str, str]) -> tuple[Columns, Columns] | None:
    """Of pooled features; tokens are in no space that a card names."""
    cards = [rows.cards[name] for name in pair if name in rows.cards]
    return common_columns(*cards) if len(cards) == len(pair) else None


MAKERS: dict[type, Callable[..., dict[str, Outputs]]] = {
    Multiclass: _multiclass,
    Multilabel: _multilabel,
    Regression: _regression,
    Align: _align,
}
