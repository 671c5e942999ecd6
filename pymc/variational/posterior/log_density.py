# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""The log-probability of draws of global variables: of all rows, or estimated from some.

The sum over N rows is estimated from m of them by a difference. Its first-order expansion about the mean of
the draws, :math:`\bar z`, needs all rows once; what remains of it is summed over the rows of a subsample S,
drawn without replacement (the control variates of Quiroz et al. 2019 that expand in the parameters):

.. math::

    \hat f(z) = f(\bar z) + \nabla f(\bar z) (z - \bar z)
        + f_S(z) - f_S(\bar z) - \nabla f_S(\bar z) (z - \bar z),

where :math:`f_S` scales its rows by N/m. Close to :math:`\bar z`, as the draws of a posterior of many rows are,
the remainder of a row is of second order, and the error far below one nat. Without the expansion the
rows of S would have a posterior of their own, many standard deviations away.

The differences among the rows of S say how large the error is, but not where the rows that matter are few
and S has none of them: those of a rare category have all the curvature of its coefficient, and without them
the remainder is 0. So the estimate is compared with the values of all rows for a few draws.

References
----------
-   Matias Quiroz, Robert Kohn, Mattias Villani, Minh-Ngoc Tran (2019)
    Speeding Up MCMC by Efficient Data Subsampling
    Journal of the American Statistical Association 114(526)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor.tensor as pt

from pytensor.gradient import grad

from pymc.minibatch.provenance import Rows
from pymc.minibatch.rebuild import rebuild
from pymc.pytensorf import compile
from pymc.variational.posterior.draw import index_variables
from pymc.variational.progress import with_bar
from pymc.variational.rows.table import rows_in_all
from pymc.variational.stabilised import stabilised

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["LogDensity", "SubsampledLogDensity", "log_density", "random_groups"]

#: Groups of rows by whose differences the error is estimated.
N_GROUPS = 16

#: Draws whose log-probability is computed of all rows, for comparison.
N_COMPARED = 8

#: Differences from these are the error, where they are so many times what the groups say of it.
LARGEST_RATIO = 2


@dataclass(frozen=True, eq=False)
class LogDensity:
    """The log-probability of draws.

    Parameters
    ----------
    values : array of float64, shape (n_draws,)
        In nats, of all rows.
    se : float
        Standard error that the draws have in common, from the subsample of the rows; it is one of the ELBO.
    se_between : float
        Standard error of differences from their mean, root mean square; it is one of weights.
    n_rows : int, optional
        How many rows were used of the longest subsampled dim, where these are not all.
    """

    values: np.ndarray
    se: float = 0.0
    se_between: float = 0.0
    n_rows: int | None = None


def log_density(
    model: Model, points: Mapping[str, np.ndarray], show: bool, options: Mapping[str, Any]
) -> LogDensity:
    """Compute the log-probability of draws, one at a time: draws by rows would be a large array.

    Parameters
    ----------
    model : Model
        Of all rows.
    points : mapping of str to array, shape (n_draws, ...)
        By name of the value variable.
    show : bool
        Whether to show a bar, once it takes a while.
    options : mapping
        Of :func:`pymc.pytensorf.compile`.
    """
    values = {value.name: value for value in model.value_vars}
    logp = compile([values[name] for name in points], model.logp(), **options)
    draws = list(zip(*points.values()))
    found = [logp(*draw) for draw in with_bar(draws, "Log-probabilities", show)]
    return LogDensity(np.array(found, dtype="float64"))


@dataclass(frozen=True, eq=False)
class SubsampledLogDensity:
    """Estimates of the log-probability of draws, from some rows of each subsampled dim.

    Parameters
    ----------
    points : mapping of str to array, shape (n_draws, ...)
        By name of the value variable.
    totals : tuple of int
        How many rows each dim has.
    values : callable (points, rows) -> array, shape (n_draws,)
        The log-probability at points, by rows of each dim.
    expand : callable (point, rows) -> log-probability, list of its gradients
        At one point.
    part : callable (share, generator) -> groups of rows
        Draws a share of all rows at random, in groups without one in common.
    all_rows : object
        What `values` and `expand` take for all rows.
    """

    points: Mapping[str, np.ndarray]
    totals: tuple[int, ...]
    values: Callable[[Mapping[str, np.ndarray], Any], np.ndarray]
    expand: Callable[[Sequence[np.ndarray], Any], tuple[Any, list[Any]]]
    part: Callable[[float, np.random.Generator], Sequence[Any]]
    all_rows: Any = None

    @classmethod
    def of(
        cls, model: Model, points: Mapping[str, np.ndarray], options: Mapping[str, Any]
    ) -> SubsampledLogDensity:
        """Compile the functions.

        Parameters
        ----------
        model : Model
            With minibatches, whose rows are replaced.
        points : mapping of str to array, shape (n_draws, ...)
        options : mapping
            Of :func:`pymc.pytensorf.compile`.
        """
        values = {value.name: value for value in model.value_vars}
        inputs = [values[name] for name in points]
        smooth = [var for var in inputs if var.type.dtype.startswith("float")]
        [logp] = stabilised([model.logp()])
        graphs = [logp, *grad(logp, smooth, disconnected_inputs="ignore")]
        indexes = index_variables(graphs)
        positions = {rows: pt.lvector(f"rows_{rows.dim}") for rows in map(Rows, indexes)}
        graphs = rebuild(graphs, {index: positions[Rows(index)] for index in indexes})
        inputs += positions.values()
        value = compile(inputs, graphs[0], on_unused_input="ignore", **options)
        expand = compile(inputs, graphs, on_unused_input="ignore", **options)
        totals = tuple(rows_in_all([rows]) for rows in positions)

        def values_at(points: Mapping[str, np.ndarray], rows: Sequence[np.ndarray]) -> np.ndarray:
            return np.array([value(*draw, *rows) for draw in zip(*points.values())], "float64")

        def expand_at(
            point: Sequence[np.ndarray], rows: Sequence[np.ndarray]
        ) -> tuple[Any, list[Any]]:
            found, *slopes = expand(*point, *rows)
            return found, slopes

        def part(share: float, rng: np.random.Generator) -> Sequence[Any]:
            return list(zip(*(random_groups(total, share, rng) for total in totals)))

        all_rows = [np.arange(total) for total in totals]
        return cls(points, totals, values_at, expand_at, part, all_rows)

    @cached_property
    def first_order(self) -> np.ndarray:
        """The expansion of all rows, at all draws."""
        return self._expansion(self.all_rows)

    @cached_property
    def exact(self) -> np.ndarray:
        """The log-probability of all rows, of the first draws; they are as good as any others."""
        some = {name: array[:N_COMPARED] for name, array in self.points.items()}
        return self.values(some, self.all_rows)

    def estimate(self, n_rows: int, rng: np.random.Generator, show: bool = False) -> LogDensity:
        """Estimate the log-probability of each draw.

        The standard errors are those of differences between groups of the rows; or, where these say much
        less, the differences from all rows, of a few draws.

        Parameters
        ----------
        n_rows : int
            How many rows of the longest dim to take, and the same share of others.
        rng : Generator
            For the rows.
        show : bool
            Whether to show a bar, once it takes a while.
        """
        share = min(n_rows / max(self.totals), 1)
        groups = self.part(share, rng)
        shown = with_bar(groups, f"Log-probabilities by {n_rows:,} rows", show)
        remainders = np.array(
            [self.values(self.points, rows) - self._expansion(rows) for rows in shown]
        )
        left = np.sqrt((1 - share) / N_GROUPS)  # of a sample without replacement
        common = remainders.mean(axis=1)
        between = (remainders - common[:, None]).var(axis=0, ddof=1)
        values = self.first_order + remainders.mean(axis=0)
        some = values[: len(self.exact)]
        with np.errstate(invalid="ignore"):  # -inf of one alone
            errors = np.where(some == self.exact, 0.0, some - self.exact)
            spread = errors.std(ddof=1)
        return LogDensity(
            values,
            _larger(
                left * common.std(ddof=1), np.hypot(errors.mean(), spread / np.sqrt(len(errors)))
            ),
            _larger(left * np.sqrt(between.mean()), spread),
            n_rows,
        )

    def _expansion(self, rows: Any) -> np.ndarray:
        """Compute the first-order expansion about the mean of the draws, at all draws."""
        center = [_center(array) for array in self.points.values()]
        at_center, slopes = self.expand(center, rows)
        steps = [
            array - middle
            for array, middle in zip(self.points.values(), center)
            if array.dtype.kind == "f"
        ]
        return at_center + sum(
            np.tensordot(step, slope, axes=slope.ndim) for step, slope in zip(steps, slopes)
        )


def _larger(stated: float, found: float) -> float:
    """Return the error that was found, if it is not by chance larger than the one stated; inf for nan."""
    if np.isnan(found):
        return np.inf
    return float(found if found > LARGEST_RATIO * stated else stated)


def random_groups(total: int, share: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw groups of rows without one in common; of few rows, each group has all."""
    rows = rng.permutation(total)
    taken = rows[: round(share * total)]
    return np.array_split(taken, N_GROUPS) if len(taken) >= 4 * N_GROUPS else [rows] * N_GROUPS


def _center(array: np.ndarray) -> np.ndarray:
    """Return the point to expand about: the mean, and a draw of what is discrete."""
    if array.dtype.kind != "f":
        return array[0]
    return array.mean(axis=0).astype(array.dtype)
