# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the engine's benchmark fits: data, and the posteriors that a fit should end at.

Only NumPy and SciPy, so that each peer has the same rows. A posterior is of the unconstrained values,
such as the logarithm of a standard deviation, in the order in which the model has its variables.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import numpy as np


class Posterior(NamedTuple):
    """The Gaussian that a fit should end at, or has ended at.

    Parameters
    ----------
    mean, sd : array of float64, shape (n_values,)
    """

    mean: np.ndarray
    sd: np.ndarray

    def errors(self, right: "Posterior") -> dict[str, float]:
        """Return the largest error of a mean in posterior sds, and the extremes of the ratios of sds."""
        ratios = self.sd / right.sd
        return {
            "mean_error": float(np.max(np.abs(self.mean - right.mean) / right.sd)),
            "smallest_sd": float(np.min(ratios)),
            "largest_sd": float(np.max(ratios)),
        }


class Problem(Protocol):
    """Data, and what a fit to them should end at."""

    def reference(self) -> tuple[Posterior, ...]:
        """Return the optima of the guide, more than one where it depends on the start; or none."""


@dataclass(frozen=True)
class Normals:
    """Rows of independent normals, of unknown means and standard deviations.

    mu ~ N(0, 1e5), sd ~ HalfNormal(1), y ~ N(mu, sd), for each column: the data set of PyMC's
    variational quickstart.

    Parameters
    ----------
    data : array of float, shape (n_rows, n_columns)
    batch_size : int
    """

    data: np.ndarray
    batch_size: int

    @classmethod
    def simulate(cls, n_rows: int, n_columns: int, batch_size: int, dtype: str) -> "Normals":
        rng = np.random.default_rng(0)
        data = rng.random((n_rows, n_columns)) * rng.integers(1, 10, size=n_columns)
        data += rng.random(n_columns) * 10
        return cls(data.astype(dtype), batch_size)

    @classmethod
    def read(cls, file: str, n_rows: int, n_columns: int, batch_size: int) -> "Normals":
        """Map the first rows of a file of float32."""
        rows = np.memmap(file, dtype="float32", mode="r", shape=(n_rows, n_columns))
        return cls(rows, batch_size)

    def reference(self) -> tuple[Posterior, ...]:
        """Solve for the best mean-field Gaussian of (mu, log sd), but for the prior of mu.

        With q(mu) = N(m, t²), q(log sd) = N(a, b²), S = Σ(x - m)² + N t², E = exp(-2a + 2b²) and
        F = exp(2a + 2b²), the ELBO is -(N - 1) a - S E / 2 - F / 2 + log b + log t + constant.
        """
        n_rows = len(self.data)
        data = self.data.astype("float64")
        mean = data.mean(axis=0)
        squares = ((data - mean) ** 2).sum(axis=0)
        a, b2 = 0.5 * np.log(squares / n_rows), np.full(len(mean), 0.5 / n_rows)
        for _ in range(50):
            t2 = np.exp(2 * a - 2 * b2) / n_rows
            S, F = squares + n_rows * t2, np.exp(2 * a + 2 * b2)
            a = 0.5 * np.log(S / (n_rows - 1 + F)) + b2
            b2 = 0.5 / (n_rows - 1 + 2 * np.exp(2 * a + 2 * b2))
        sds = np.sqrt(np.concatenate([np.exp(2 * a - 2 * b2) / n_rows, b2]))
        return (Posterior(np.concatenate([mean, a]), sds),)


@dataclass(frozen=True)
class Mixture:
    """The quickstart's mixture of two narrow normals: one variable, no data."""

    weights: np.ndarray = field(default_factory=lambda: np.array([0.2, 0.8]))
    means: np.ndarray = field(default_factory=lambda: np.array([-0.3, 0.5]))
    sds: np.ndarray = field(default_factory=lambda: np.array([0.1, 0.1]))

    def reference(self) -> tuple[Posterior, ...]:
        """Return the best Gaussian near each component: ADVI finds one of them."""
        from scipy.optimize import minimize  # not where NumPyro's peer runs

        nodes, node_weights = np.polynomial.hermite_e.hermegauss(200)

        def loss(parameters: np.ndarray) -> float:
            x = parameters[0] + np.exp(parameters[1]) * nodes[:, None]
            terms = np.log(self.weights / self.sds) - 0.5 * ((x - self.means) / self.sds) ** 2
            logp = np.logaddexp.reduce(terms, axis=1)
            return -parameters[1] - float(node_weights @ logp / node_weights.sum())

        found = [
            minimize(loss, [mean, np.log(sd)], method="Nelder-Mead", options={"xatol": 1e-8}).x
            for mean, sd in zip(self.means, self.sds, strict=True)
        ]
        return tuple(Posterior(x[:1], np.exp(x[1:])) for x in found)


@dataclass(frozen=True)
class Regression:
    """A linear regression with unit noise and priors N(0, 1), on correlated columns.

    Parameters
    ----------
    X : array of float, shape (n_rows, n_columns)
    y : array of float, shape (n_rows,)
    batch_size : int
    """

    X: np.ndarray
    y: np.ndarray
    batch_size: int

    @classmethod
    def simulate(cls, n_rows: int, n_columns: int, batch_size: int, dtype: str) -> "Regression":
        rng = np.random.default_rng(1)
        X = rng.standard_normal((n_rows, n_columns)) + 0.5 * rng.standard_normal((n_rows, 1))
        y = X @ rng.standard_normal(n_columns) + rng.standard_normal(n_rows)
        return cls(X.astype(dtype), y.astype(dtype), batch_size)

    def reference(self) -> tuple[Posterior, ...]:
        """Return the posterior, which the full-rank guide holds."""
        X = self.X.astype("float64")
        covariance = np.linalg.inv(X.T @ X + np.eye(X.shape[1]))
        mean = covariance @ (X.T @ self.y.astype("float64"))
        return (Posterior(mean, np.sqrt(np.diag(covariance))),)


@dataclass(frozen=True)
class Flights:
    """Simulated rows for the model of ``examples/flights.py``, as many as it has.

    Parameters
    ----------
    features : array of float, shape (n_rows, 4)
    groups : mapping of str to array of int, shape (n_rows,)
        Airline, airport and month.
    delay : array of float, shape (n_rows,)
    batch_size : int
    """

    features: np.ndarray
    groups: Mapping[str, np.ndarray]
    delay: np.ndarray
    batch_size: int

    N_GROUPS: ClassVar[dict[str, int]] = {"carrier": 16, "origin": 3, "month": 12}

    @classmethod
    def simulate(cls, n_rows: int, batch_size: int, dtype: str) -> "Flights":
        rng = np.random.default_rng(2013)
        features = rng.standard_normal((n_rows, 4))
        groups = {name: rng.integers(0, n, size=n_rows) for name, n in cls.N_GROUPS.items()}
        delay = features @ np.array([5.0, -1.0, 2.0, -3.0]) - 5 + 15 * rng.standard_t(3, n_rows)
        for name, n in cls.N_GROUPS.items():
            shift = rng.normal(0, 5, size=n)
            delay += (shift - shift.mean())[groups[name]]
        return cls(features.astype(dtype), groups, delay.astype(dtype), batch_size)

    def reference(self) -> tuple[Posterior, ...]:
        """Return nothing: there is no closed form, fits are compared with each other."""
        return ()


PROBLEMS: dict[str, Callable[..., Problem]] = {
    "normals": Normals.simulate,
    "rows": Normals.read,
    "mixture": Mixture,
    "regression": Regression.simulate,
    "flights": Flights.simulate,
}
