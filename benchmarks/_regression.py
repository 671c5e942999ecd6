# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The regression that the benchmarks of the patch against the release fit: the same code for both."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import pymc as pm


@dataclass(frozen=True)
class Regression:
    """Data of a linear regression.

    Parameters
    ----------
    X : array of float, shape (n_rows, n_columns)
    y : array of float, shape (n_rows,)
    """

    X: np.ndarray
    y: np.ndarray

    @classmethod
    def simulate(cls, n_rows: int, n_columns: int, dtype: Any) -> "Regression":
        rng = np.random.default_rng(1)
        X = rng.standard_normal((n_rows, n_columns), dtype=dtype)
        w = rng.standard_normal(n_columns, dtype=dtype)
        return cls(X, X @ w + rng.standard_normal(n_rows, dtype=dtype))

    def model(self, batch_size: int | None) -> pm.Model:
        """Return the model of minibatches, or of all rows.

        The patch needs no ``total_size``; it is given because the release does.
        """
        n_rows, n_columns = self.X.shape
        total_size = None if batch_size is None else n_rows
        with pm.Model() as model:
            X, y = self.X, self.y
            if batch_size is not None:
                X, y = pm.Minibatch(X, y, batch_size=batch_size)
            w = pm.Normal("w", 0, 1, shape=n_columns)
            sigma = pm.HalfNormal("sigma", 1)
            pm.Normal("y", pm.math.dot(X, w), sigma, observed=y, total_size=total_size)
        return model


def check_side(patched: bool) -> None:
    """Raise unless ``import pymc`` found what was to be measured."""
    if hasattr(pm, "_layer") != patched:
        wanted = "the patch" if patched else "plain PyMC"
        raise RuntimeError(f"to measure {wanted}, but import pymc found {pm.__file__}")
