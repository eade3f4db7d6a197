"""Regularised canonical correlation analysis in closed form: two frozen encoders, one space.

Hotelling 1936; the ridge is that of Vinod 1976 (canonical ridge). Both views are whitened with a ridge, the
SVD of their cross-covariance gives the directions, and each direction is weighted by its correlation, as
Gong et al. 2014 (arXiv 1212.4522) do for retrieval by cosine. Where both sides hold vectors of one space already (two
towers of CLIP, or efficientnet-lite0-words beside minilm), the cosine there is added to that of the fit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mmdata.fusion.evaluate import recall_at
from mmdata.fusion.heads import Head
from mmdata.fusion.pack import Pack
from mmdata.types import EncoderCard

Matrix = NDArray[np.float64]
RIDGES = ((1.0, 1.0), (3.0, 1.0), (3.0, 3.0), (10.0, 3.0), (10.0, 10.0))  # times the mean variance of a direction
SHARES = (0.0, 0.5, 0.7, 1.0)  # weights of what the sides share before, against what is fitted
Columns = tuple[int, int]
"""First and one behind the last."""
JUDGED = 5_000  # pairs of a fold: their number squared is what a recall costs
SMALL = 1e-6


@dataclass(frozen=True, slots=True)
class Tower:
    """One side of a head: `(n, dim_in)` features to `(n, dim + shared)` unit rows of the common space."""

    mean: Matrix  # (dim_in,)
    scale: Matrix  # (dim_in,)
    centre: Matrix  # (dim_in,)
    weight: Matrix  # (dim_in, dim)
    shared: NDArray[np.int64]  # (shared,), columns of the features that are in a space with the other side's
    share: Matrix  # (1,), their weight

    @property
    def dim(self) -> int:
        """Dimensions of what comes out."""
        return int(self.weight.shape[1]) + len(self.shared)

    def project(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Standardise, scale to unit length, project, add what is shared, scale to unit length."""
        fitted = _unit((_unit((features - self.mean) / self.scale) - self.centre) @ self.weight)
        if not len(self.shared):
            return fitted.astype(np.float32)
        before = _unit(features[:, self.shared] - self.mean[self.shared])
        return _unit(np.concatenate([fitted, self.share * before], axis=1)).astype(np.float32)


def tower(head: Head, name: str) -> Tower:
    """The tower of one input of a head on disk."""
    return Tower(*(head.tensors[f"{name}.{field}"] for field in Tower.__slots__))


def projector(head: Head) -> Callable[[Pack], dict[str, NDArray[np.floating]]]:
    """The outputs of all rows of a pack, `(n, dim)` an input; NaN where a row lacks it."""
    towers = {name: tower(head, name) for name in head.inputs}

    def project(pack: Pack) -> dict[str, NDArray[np.floating]]:
        found = {}
        for name, one in pack.inputs.items():
            there = one.lengths > 0
            found[name] = np.full((len(pack), head.outputs[name]), np.nan, np.float32)
            found[name][there] = towers[name].project(one.values[one.starts[there]].astype(np.float64))
        return found

    return project


def tensors_of(towers: Mapping[str, Tower]) -> dict[str, Matrix]:
    """Towers as the tensors of a head."""
    return {f"{name}.{field}": getattr(one, field) for name, one in towers.items() for field in Tower.__slots__}


@dataclass(frozen=True, slots=True)
class Fit:
    """The towers of both sides, and what did best on validation pairs."""

    left: Tower
    right: Tower
    ridges: tuple[float, float]
    share: float
    correlations: Matrix  # canonical, of the training pairs, as small as the ridges make them, (dim,)


def common_space(cards: Mapping[str, EncoderCard]) -> dict[str, Columns]:
    """The columns of each input that are vectors of one space: of the first that two have, empty where none is."""
    held = {
        name: {card.space: (0, card.dim)}
        | {space: tuple(at) for space, at in card.preprocessing.get("holds", {}).items()}
        for name, card in cards.items()
    }
    for space in (space for spaces in held.values() for space in spaces):
        found = {name: spaces[space] for name, spaces in held.items() if space in spaces}
        if len(found) > 1:
            return found
    return {}


def common_columns(one: EncoderCard, other: EncoderCard) -> tuple[Columns, Columns] | None:
    """The same of two features; None where there are none."""
    found = common_space({"one": one, "other": other})
    return (found["one"], found["other"]) if found else None


def fit_cca(
    left: NDArray[np.floating],
    right: NDArray[np.floating],
    groups: Sequence[str],
    folds: NDArray[np.int64],
    dim: int,
    choices: Sequence[tuple[float, float]] = RIDGES,
    shared: tuple[Columns, Columns] | None = None,
) -> Fit:
    """Fit on pairs, `(n, dim_left)` and `(n, dim_right)`.

    The two ridges are one of `choices`, and then the weight of the columns `shared` one of SHARES: what has the best
    R@10, both ways, over the `folds` `(n,)` of a cross-validation; pairs of one group must be in one fold. The fit
    that is returned uses all pairs.
    """
    held = [folds == fold for fold in np.unique(folds)]
    views = [_Views.of(left[~rows], right[~rows], shared) for rows in held]

    def found(ridges: tuple[float, float], share: float) -> float:
        total = 0.0
        for rows, view in zip(held, views, strict=True):
            judged = np.flatnonzero(rows)[:JUDGED]
            fit, names = view.solve(ridges, dim, share), [groups[row] for row in judged]
            a, b = fit.left.project(left[judged]), fit.right.project(right[judged])
            total += recall_at(a, b, names)["R@10"] + recall_at(b, a, names)["R@10"]
        return total

    ridges = max(choices, key=lambda one: found(one, 0.0)) if len(choices) > 1 else choices[0]
    share = max(SHARES, key=lambda one: found(ridges, one)) if shared else 0.0
    return _Views.of(left, right, shared).solve(ridges, dim, share)


@dataclass(frozen=True, slots=True)
class _Side:
    """One side, standardised: its scaler, and the factors of its SVD that all ridges share."""

    scaler: tuple[Matrix, Matrix, Matrix]
    shared: NDArray[np.int64]
    values: Matrix  # (rank,), singular
    vectors: Matrix  # (dim, rank)

    def root(self, ridge: float) -> Matrix:
        """Of the ridged variance of each direction, `(rank,)`."""
        variance = self.values**2
        root: Matrix = np.sqrt(variance + ridge * float(variance.sum()) / len(self.vectors))
        return root


@dataclass(frozen=True, slots=True)
class _Views:
    """Both sides, and how their directions correlate, `(rank, rank)`: what all ridges share."""

    left: _Side
    right: _Side
    cross: Matrix

    @classmethod
    def of(
        cls, left: NDArray[np.floating], right: NDArray[np.floating], shared: tuple[Columns, Columns] | None
    ) -> "_Views":
        (x, *x_scaler), (y, *y_scaler) = _standardised(left), _standardised(right)
        a, b = (np.arange(*columns) for columns in shared or ((0, 0), (0, 0)))
        one, other = _Side(tuple(x_scaler), a, *_factors(x)), _Side(tuple(y_scaler), b, *_factors(y))  # type: ignore[arg-type]
        return cls(one, other, one.vectors.T @ (x.T @ y) @ other.vectors)

    def solve(self, ridges: tuple[float, float], dim: int, share: float) -> Fit:
        roots = [side.root(ridge) for side, ridge in zip((self.left, self.right), ridges, strict=True)]
        u, s, v = _largest(self.cross / roots[0][:, None] / roots[1], dim)
        towers = [
            Tower(*side.scaler, side.vectors @ (turn / root[:, None] * s), *_shared(side, share))
            for side, root, turn in zip((self.left, self.right), roots, (u, v), strict=True)
        ]
        return Fit(towers[0], towers[1], ridges, share, s)


def _shared(side: _Side, share: float) -> tuple[NDArray[np.int64], Matrix]:
    return (side.shared if share else side.shared[:0]), np.array([share])


def _factors(x: Matrix) -> tuple[Matrix, Matrix]:
    """Singular values and right singular vectors, from the smaller of the two Gram matrices."""
    wide = len(x) < x.shape[1]
    values, vectors = scipy.linalg.eigh(x @ x.T if wide else x.T @ x, check_finite=False)
    kept = values > SMALL**2 * max(float(values[-1]), SMALL)
    root = np.sqrt(values[kept])
    return root, (x.T @ vectors[:, kept] / root if wide else vectors[:, kept])


def _largest(matrix: Matrix, dim: int) -> tuple[Matrix, Matrix, Matrix]:
    """The `dim` largest singular values, falling, between their vectors `(rows, dim)` and `(columns, dim)`."""
    if matrix.shape[0] < matrix.shape[1]:
        u, s, v = _largest(matrix.T, dim)
        return v, s, u
    size = matrix.shape[1]
    values, v = scipy.linalg.eigh(matrix.T @ matrix, subset_by_index=[max(0, size - dim), size - 1], check_finite=False)
    s, v = np.sqrt(np.maximum(values[::-1], SMALL**2)), v[:, ::-1]
    return matrix @ v / s, s, v


def _standardised(features: NDArray[np.floating]) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    raw = features.astype(np.float64)
    mean, scale = raw.mean(axis=0), raw.std(axis=0) + SMALL
    unit = _unit((raw - mean) / scale)
    centre = unit.mean(axis=0)
    return unit - centre, mean, scale, centre


def _unit(rows: Matrix) -> Matrix:
    unit: Matrix = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SMALL)
    return unit
