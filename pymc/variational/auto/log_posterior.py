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

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.gradient import grad

from pymc.variational.engine.compiled import Step, make_step
from pymc.variational.engine.feeds import Fed
from pymc.variational.guides.base import sites_of
from pymc.variational.guides.layout import Layout
from pymc.variational.guides.starts import Starts
from pymc.variational.stabilised import stabilised
from pymc.variational.vectorize import at_one_draw

__all__ = ["LogPosterior", "Stopped"]

#: Points of one call of compiled code, between which a fit may be stopped.
AT_ONCE = 256


class Stopped(Exception):
    """A fit was interrupted, or its budget is spent; `str` says which."""


@dataclass(eq=False)
class LogPosterior:
    """The log-posterior of a model, up to a constant, as a compiled function of points.

    Parameters
    ----------
    model : Model
        Of all rows.
    layout : Layout
        Where each variable is in a point.
    start : array of float64, shape (size,)
        The initial point.
    step : Step
        Its fed input is a point; it computes 0, the log-density and the gradient.
    check : callable () -> None
        Called between two calls of compiled code; it raises :class:`Stopped` to end the fit.
    n_evaluations : int
        Points at which it was computed.
    """

    model: Any
    layout: Layout
    start: np.ndarray
    step: Step
    check: Callable[[], None] = lambda: None
    n_evaluations: int = field(default=0, init=False)

    @classmethod
    def of(cls, model: Any, starts: Starts, **compile_kwargs: Any) -> LogPosterior:
        """Compile it, unless that was done before for this model.

        Parameters
        ----------
        model : Model
            Of all rows.
        starts : Starts
        **compile_kwargs
            Of :func:`pytensor.function`.
        """
        layout = Layout.of(sites_of(model), starts.point)
        start = layout.flatten(starts.point).astype("float64")
        dtype = pytensor.config.floatX
        point = pytensor.shared(start.astype(dtype), "point", shape=(layout.size,))
        values = {site.value: value for site, value in layout.split(point, 0).items()}
        [logp] = stabilised(at_one_draw([model.logp()], values))
        # The entry in front is what a driver takes for the loss: it goes on where the others are not finite
        outputs = pt.concatenate([pt.zeros(1), pt.atleast_1d(logp), grad(logp, point)])
        outputs = pt.specify_shape(outputs.astype(dtype), (layout.size + 2,))
        fed = {point: np.dtype(dtype)}
        step = make_step({}, outputs, model=model, random_seed=0, fed=fed, **compile_kwargs)
        return cls(model, layout, start, step)

    @property
    def size(self) -> int:
        """How many numbers a point has."""
        return self.layout.size

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute log-densities and gradients.

        Parameters
        ----------
        points : array of floats, shape (n_points, size)

        Returns
        -------
        values : array of float64, shape (n_points,)
            -inf where it is nan.
        gradients : array of float64, shape (n_points, size)

        Raises
        ------
        Stopped
        """
        n_points, driver = len(points), self.step.driver
        found = np.empty((n_points, self.size + 2))
        points = np.ascontiguousarray(points, pytensor.config.floatX)
        with np.errstate(all="ignore"):
            for k in range(0, n_points, AT_ONCE):
                self.check()
                some = points[k : k + AT_ONCE]
                fed = Fed(driver.hold((some,)), 0)
                found[k : k + AT_ONCE] = driver.run(self.step.load(), len(some), fed).losses
                self.n_evaluations += len(some)
        values = np.where(np.isnan(found[:, 1]), -np.inf, found[:, 1])
        return values, found[:, 2:]
