"""Regularised canonical correlation analysis in closed form: two frozen encoders, one space.

Hotelling 1936; the ridge is that of Vinod 1976 (canonical ridge). Both views are whitened with a ridge, the
SVD of their cross-covariance gives the directions, and each direction is weighted by its correlation, as
Gong et al. 2014 (arXiv 1212.4522) do for retrieval by cosine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mmdata.fusion.evaluate import recall_at
from mmdata.fusion.heads import Head
from mmdata.fusion.pack import Pack

Matrix = NDArray[np.float64]
RIDGES = ((1.0, 1.0), (3.0, 1.0), (3.0, 3.0), (10.0, 3.0), (10.0, 10.0))  # times the mean variance of a direction
JUDGED = 5_000  # pairs of a fold: their number squared is what a recall costs
SMALL = 1e-6


@dataclass(frozen=True, slots=True)
class Tower:
    """One side of a head: `(n, dim_in)` features to `(n, dim)` unit rows of the common space."""

    mean: Matrix  # (dim_in,)
    scale: Matrix  # (dim_in,)
    centre: Matrix  # (dim_in,)
    weight: Matrix  # (dim_in, dim)

    def project(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Standardise, scale to unit length, project, scale to unit length."""
        projected = (_unit((features - self.mean) / self.scale) - self.centre) @ self.weight
        return _unit(projected).astype(np.float32)


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
    """The towers of both sides, and the ridges that did best on validation pairs."""

    left: Tower
    right: Tower
    ridges: tuple[float, float]
    correlations: Matrix  # canonical, of the training pairs, as small as the ridges make them, (dim,)


def fit_cca(
    left: NDArray[np.floating],
    right: NDArray[np.floating],
    groups: Sequence[str],
    folds: NDArray[np.int64],
    dim: int,
    choices: Sequence[tuple[float, float]] = RIDGES,
) -> Fit:
    """Fit on pairs, `(n, dim_left)` and `(n, dim_right)`.

    The two ridges are one of `choices`: the pair with the best R@10, both ways, over the `folds` `(n,)` of a
    cross-validation; pairs of one group must be in one fold. The fit that is returned uses all pairs.
    """
    scores = dict.fromkeys(choices, 0.0)
    for fold in np.unique(folds):
        held = folds == fold
        judged = np.flatnonzero(held)[:JUDGED]
        names = [groups[row] for row in judged]
        views = _Views.of(left[~held], right[~held])
        for ridges in choices:
            fit = views.solve(ridges, dim)
            a, b = fit.left.project(left[judged]), fit.right.project(right[judged])
            scores[ridges] += recall_at(a, b, names)["R@10"] + recall_at(b, a, names)["R@10"]
    best = max(choices, key=lambda ridges: scores[ridges])
    return _Views.of(left, right).solve(best, dim)


@dataclass(frozen=True, slots=True)
class _Views:
    """Both sides standardised, with the eigenvectors of their covariances: what all ridges share."""

    scalers: tuple[tuple[Matrix, Matrix, Matrix], tuple[Matrix, Matrix, Matrix]]
    eigen: tuple[tuple[Matrix, Matrix], tuple[Matrix, Matrix]]
    cross: Matrix

    @classmethod
    def of(cls, left: NDArray[np.floating], right: NDArray[np.floating]) -> "_Views":
        (x, *x_scaler), (y, *y_scaler) = _standardised(left), _standardised(right)
        eigen = [scipy.linalg.eigh(z.T @ z / len(z)) for z in (x, y)]
        return cls((tuple(x_scaler), tuple(y_scaler)), tuple(eigen), x.T @ y / len(x))  # type: ignore[arg-type]

    def solve(self, ridges: tuple[float, float], dim: int) -> Fit:
        whiten = [_inverse_root(*eigen, ridge) for eigen, ridge in zip(self.eigen, ridges, strict=True)]
        u, s, vt = scipy.linalg.svd(whiten[0] @ self.cross @ whiten[1], full_matrices=False)
        weights = whiten[0] @ u[:, :dim] * s[:dim], whiten[1] @ vt[:dim].T * s[:dim]
        towers = [Tower(*scaler, weight) for scaler, weight in zip(self.scalers, weights, strict=True)]
        return Fit(towers[0], towers[1], ridges, s[:dim])


def _standardised(features: NDArray[np.floating]) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    raw = features.astype(np.float64)
    mean, scale = raw.mean(axis=0), raw.std(axis=0) + SMALL
    unit = _unit((raw - mean) / scale)
    centre = unit.mean(axis=0)
    return unit - centre, mean, scale, centre


def _inverse_root(values: Matrix, vectors: Matrix, ridge: float) -> Matrix:
    shrunk = np.maximum(values, 0) + ridge * max(float(values.mean()), SMALL)
    root: Matrix = (vectors * shrunk**-0.5) @ vectors.T
    return root


def _unit(rows: Matrix) -> Matrix:
    unit: Matrix = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SMALL)
    return unit
