"""Logistic regression on frozen features: the linear probe, and the baseline of every classification.

The strength of the regularisation is swept from strong to weak, each fit starting from the last one, and chosen on
validation (the recipe of Radford et al. 2021, appendix A.3, with a coarser grid that is then refined).
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

COARSE = tuple(10.0**power for power in range(-6, 3))
FINE = (-0.5, -0.25, 0.25, 0.5)  # powers of ten around the best coarse value
ITERATIONS = 400
Matrix = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear classifier on standardised features."""

    classes: NDArray[np.int64]  # those that the training rows have
    weight: NDArray[np.float64]  # (classes, dim)
    bias: NDArray[np.float64]
    c: float
    validation: float  # accuracy

    def probability(self, x: Matrix, classes: int) -> NDArray[np.float64]:
        """`(n, dim)` to `(n, classes)`; a class that training did not have gets zero."""
        scores = x @ self.weight.T + self.bias
        scores = np.exp(scores - scores.max(1, keepdims=True))
        found = np.zeros((len(x), classes))
        found[:, self.classes] = scores / scores.sum(1, keepdims=True)
        return found


def fit_probe(
    x: Matrix, y: NDArray[np.int64], x_validation: Matrix, y_validation: NDArray[np.int64], fine: bool = True
) -> Probe:
    """The best of a sweep over C, by accuracy on validation; the weaker of two that are equal is not taken."""
    coarse = _sweep(x, y, x_validation, y_validation, COARSE)
    best = max(coarse, key=lambda probe: probe.validation)
    if not fine:
        return best
    refined = _sweep(x, y, x_validation, y_validation, tuple(best.c * 10**power for power in FINE))
    return max([best, *refined], key=lambda probe: probe.validation)


def _sweep(x: Matrix, y: NDArray[np.int64], xv: Matrix, yv: NDArray[np.int64], cs: tuple[float, ...]) -> list[Probe]:
    model = LogisticRegression(warm_start=True, max_iter=ITERATIONS)
    found = []
    for c in cs:
        model.set_params(C=c)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the weakest C need not converge to lose
            model.fit(x, y)
        found.append(_probe(model, c, float(model.score(xv, yv))))
    return found


def _probe(model: LogisticRegression, c: float, validation: float) -> Probe:
    weight, bias = model.coef_.copy(), model.intercept_.copy()
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    return Probe(model.classes_.copy(), weight, bias, c, validation)
