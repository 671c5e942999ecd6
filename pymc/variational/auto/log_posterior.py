#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""The log-posterior of a model on the unconstrained space, with its gradient, at many points in one call."""

from __future__ import annotations

import os

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.gradient import grad

from pymc.minibatch.plates import model_indexes
from pymc.minibatch.provenance import Rows
from pymc.minibatch.rebuild import rebuild
from pymc.variational.engine.compiled import Step, make_step
from pymc.variational.engine.feeds import Fed
from pymc.variational.guides.base import sites_of
from pymc.variational.guides.layout import Layout
from pymc.variational.guides.starts import Starts
from pymc.variational.posterior.draw import index_variables
from pymc.variational.rows.table import rows_in_all
from pymc.variational.stabilised import stabilised
from pymc.variational.vectorize import at_one_draw

__all__ = ["Budget", "LogPosterior", "Stopped"]

#: Points, and points times rows, of one call of compiled code, between which a fit may be stopped.
POINTS_AT_ONCE, ROWS_AT_ONCE = 256, 2**20

#: Numbers of a point from which calls are by threads; those of rows always are.
LARGE = 1000


class Stopped(Exception):
    """A fit was interrupted, or its budget is spent; `str` says which."""


@dataclass(eq=False)
class Budget:
    """What a fit has computed, and whether it may go on.

    Parameters
    ----------
    check : callable () -> None
        Called between two calls of compiled code; it raises :class:`Stopped` to end the fit.
    n_gradients : int
        Points at which the log-posterior was computed.
    n_rows : int
        Points times rows.
    """

    check: Callable[[], None] = lambda: None
    n_gradients: int = 0
    n_rows: int = 0


@dataclass(frozen=True, eq=False)
class LogPosterior:
    """The log-posterior of a model, up to a constant, as a compiled function of points.

    Parameters
    ----------
    model : Model
        Of all rows, or of minibatches of one dim.
    layout : Layout
        Where each variable is in a point.
    start : array of float64, shape (size,)
        The initial point.
    step : Step
        Its fed inputs are a point, and rows; it computes 0, the log-density and the gradient.
    n_all : int
        How many rows there are in all; 0 for a model without minibatches.
    rows : array of int64, optional
        The rows that it is of, scaled up to all.
    budget : Budget
    """

    model: Any
    layout: Layout
    start: np.ndarray
    step: Step
    n_all: int = 0
    rows: np.ndarray | None = None
    budget: Budget = field(default_factory=Budget)

    @classmethod
    def of(cls, model: Any, starts: Starts, **compile_kwargs: Any) -> LogPosterior:
        """Compile it, unless that was done before for this model.

        Parameters
        ----------
        model : Model
            Of all rows, or of minibatches of one dim: of these it is a function of the rows, too.
        starts : Starts
        **compile_kwargs
            Of :func:`pytensor.function`.
        """
        layout = Layout.of(sites_of(model), starts.point)
        start = layout.flatten(starts.point).astype("float64")
        dtype = pytensor.config.floatX
        point = pytensor.shared(start.astype(dtype), "point", shape=(layout.size,))
        fed, n_all, graphs = {point: np.dtype(dtype)}, 0, [model.logp()]
        if model_indexes(model):
            rows = pytensor.shared(np.zeros(1, "int64"), "rows", shape=(None,))
            fed[rows] = np.dtype("int64")
            found = index_variables(graphs)
            n_all = rows_in_all([Rows(found[0])])
            graphs = rebuild(graphs, dict.fromkeys(found, rows))
        values = {site.value: value for site, value in layout.split(point, 0).items()}
        [logp] = stabilised(at_one_draw(graphs, values))
        # The entry in front is what a driver takes for the loss: it goes on where the others are not finite
        outputs = pt.concatenate([pt.zeros(1), pt.atleast_1d(logp), grad(logp, point)])
        outputs = pt.specify_shape(outputs.astype(dtype), (layout.size + 2,))
        step = make_step({}, outputs, model=model, random_seed=0, fed=fed, **compile_kwargs)
        return cls(model, layout, start, step, n_all)

    @property
    def size(self) -> int:
        """How many numbers a point has."""
        return self.layout.size

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(pytensor.config.floatX)

    def of_rows(self, rows: np.ndarray) -> LogPosterior:
        """Return that of some rows, scaled up to all."""
        return replace(self, rows=np.ascontiguousarray(rows, "int64"))

    def __call__(
        self, points: np.ndarray, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute log-densities and gradients.

        Parameters
        ----------
        points : array of floats, shape (n_points, size)
        rows : array of int, shape (n_points, n_rows), optional
            The rows of each point. Default: the rows that it is of.

        Returns
        -------
        values : array of float64, shape (n_points,)
            -inf where it is nan.
        gradients : array of float64, shape (n_points, size)

        Raises
        ------
        Stopped
        """
        n_points = len(points)
        points = np.ascontiguousarray(points, pytensor.config.floatX)
        if rows is None and self.rows is not None:
            rows = np.broadcast_to(self.rows, (n_points, len(self.rows)))
        n_rows = 1 if rows is None else rows.shape[1]
        found = np.empty((n_points, self.size + 2))
        at_once = max(1, min(POINTS_AT_ONCE, ROWS_AT_ONCE // max(n_rows, self.size)))
        starts = range(0, n_points, at_once)

        def compute(k: int) -> None:
            some = slice(k, k + at_once)
            given = [array[some] for array in (points, rows) if array is not None]
            # Compiled code takes no read-only array, such as rows that were broadcast
            values = tuple(np.require(given[i], requirements=("C", "W")) for i in self.step.fed)
            driver = self.step.driver
            run = driver.run(self.step.load(), len(points[some]), Fed(driver.hold(values), 0))
            found[some] = run.losses

        # Threads: the compiled loops of Numba let others run
        threaded = (rows is not None or self.size > LARGE) and self.step.driver.name == "numba"
        n_threads = _n_cores() if threaded and len(starts) > 1 else 1
        with np.errstate(all="ignore"), ThreadPoolExecutor(n_threads) as pool:
            for k in range(0, len(starts), n_threads):
                self.budget.check()
                some = starts[k : k + n_threads]
                for _ in pool.map(compute, some) if n_threads > 1 else map(compute, some):
                    pass
                n_done = min(n_points, some[-1] + at_once) - some[0]
                self.budget.n_gradients += n_done
                self.budget.n_rows += n_done * n_rows
        values = np.where(np.isnan(found[:, 1]), -np.inf, found[:, 1])
        return values, found[:, 2:]


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
