# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""A structured guide: rows whose mean is affine in global variables.

.. math::

    q(z_i \mid g) = \mathcal N(z_i \mid \mu_i + C_i (g - g_0), \mathrm{diag}(\sigma_i)^2)

on the unconstrained space, with :math:`\mu_i`, :math:`C_i` and :math:`\sigma_i` for each row and :math:`g_0` where
the global variables start. So the guide has the correlations that the rows have by what they share (Hoffman and
Blei 2015, "Structured stochastic variational inference"; Tan and Nott 2018 for the affine mean), and a step
costs as much as one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.variational.guides.base import (
    FlatGuide,
    Latents,
    Layout,
    ParamValues,
    SampleShape,
    Site,
    noise,
    sites_of,
)
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.mean_field import LOG_SQRT_2PI
from pymc.variational.guides.model_guide import own_to_free

if TYPE_CHECKING:
    from pymc.model.core import Model


class Structured(FlatGuide):
    """Normal distributions of each row, whose means are affine in global variables.

    Parameters
    ----------
    given : sequence of str or variable, optional
        The global variables; by default all that are continuous.

    Raises
    ------
    TypeError, ValueError
        If `given` is no list; by :func:`pymc.fit`, if one is no continuous global variable.

    Examples
    --------
    >>> y = np.random.default_rng(1).normal(size=20)
    >>> with pm.Model(coords={"obs": range(20)}) as model:
    ...     batch = pm.Minibatch(pm.Data("y", y, dims="obs"), batch_size=10)
    ...     mu = pm.Normal("mu")
    ...     z = pm.Normal("z", mu, 1, dims="obs")
    ...     rows = pm.Normal("rows", z, 1, observed=batch, dims="obs")
    >>> approx = pm.fit(5, model=model, guide={z: pm.Structured(given=["mu"])}, progressbar=False)
    >>> approx.sample(10).posterior["z"].shape
    (1, 10, 20)
    """

    name = "structured"
    needs_rows = True
    #: Where each global variable is in a vector, and that vector at the start, of a bound guide.
    above: Layout
    center: np.ndarray

    def __init__(self, given: Sequence[str | Variable] | None = None) -> None:
        if given is not None and (
            isinstance(given, str | Variable) or not isinstance(given, Sequence)
        ):
            raise TypeError(
                f"given={given!r} of pm.Structured has to be a list of global variables: write "
                f"given=[{given!r}]"
            )
        self.given = given and [var if isinstance(var, str) else str(var.name) for var in given]

    def __repr__(self) -> str:
        return f"Structured(given={self.given!r})"

    def config(self) -> dict[str, Any]:
        return {"given": self.given}

    def bind(self, sites: Sequence[Site], starts: InitialValues, model: Model) -> Self:
        """Return the guide of variables of rows.

        Raises
        ------
        ValueError
            If a variable in `given` is no continuous global variable of `model`.
        """
        bound = copy(self)
        bound.above = Layout.of(self._globals(model), starts.point)
        bound.center = bound.above.flatten(starts.point).astype(pytensor.config.floatX)
        return super(Structured, bound).bind(sites, starts, model)

    def reads(self) -> set[Variable]:
        return {site.rv for site in self.above.sites}

    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        return {
            "mu": starts.means(self.layout),
            "rho": starts.rhos(self.layout),
            "slopes": np.zeros((1, self.layout.size * self.above.size)),
        }

    def mean(self, params: Mapping[str, Variable], given: Mapping[Variable, Variable]) -> Variable:
        """Return the mean of each row, given the global variables: shape (..., rows, size)."""
        free = {site: own_to_free(site, given[site.rv]) for site in self.above.sites}
        n_sample_dims = max(x.type.ndim - site.value.type.ndim for site, x in free.items())
        away = self.above.join(free, n_sample_dims) - self.center
        slopes = params["slopes"].reshape((-1, self.layout.size, self.above.size))
        return params["mu"] + (slopes * away[..., None, None, :]).sum(axis=-1)

    def sample(self, params: Mapping[str, Variable], sample_shape: SampleShape) -> Variable:
        """Draw deviations from the mean."""
        return pt.softplus(params["rho"]) * noise((*sample_shape, *self.layout.shape()))

    def log_density(self, z: Variable, params: Mapping[str, Variable]) -> Variable:
        """Return the log-density of deviations from the mean."""
        sd = pt.softplus(params["rho"])
        return (-0.5 * (z / sd) ** 2 - pt.log(sd) - LOG_SQRT_2PI).sum(axis=-1)

    def draw(
        self,
        param_values: ParamValues,
        sample_shape: SampleShape,
        given: Mapping[Variable, Variable],
    ) -> Latents:
        params = self.values_by_name(param_values)
        return (self.mean(params, given) + self.sample(params, sample_shape),)

    def logq(
        self,
        latents: Latents,
        param_values: ParamValues,
        n_sample_dims: int,
        given: Mapping[Variable, Variable],
    ) -> Variable:
        params = self.values_by_name(param_values)
        deviation = latents[0] - self.mean(params, given)
        return self.layout.by_row_axes(self.log_density(deviation, params), n_sample_dims)

    def _globals(self, model: Model) -> list[Site]:
        known = {site.name: site for site in sites_of(model) if not site.plate}
        known = {name: s for name, s in known.items() if s.value.type.dtype.startswith("float")}
        names = list(known) if self.given is None else self.given
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise ValueError(
                f"given={names} of pm.Structured has to name continuous global variables of the model, which "
                f"are {list(known)}: leave out {unknown}, or take 'mean_field' where there is none"
            )
        return [known[name] for name in names]
