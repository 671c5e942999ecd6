# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""A structured guide: rows whose mean is affine in global variables.

.. math::

    q(z_i \mid g) = \mathcal N(z_i \mid \mu_i + C_i (g - g_0), \mathrm{diag}(\sigma_i)^2)

on the unconstrained space, with :math:`\mu_i`, :math:`C_i` and :math:`\sigma_i` for each row and the initial global
variables :math:`g_0`. So it has the correlations of rows that share global variables (Hoffman and
Blei 2015, "Structured stochastic variational inference"; Tan and Nott 2018 for the affine mean), and a step
costs as much as one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytensor

from pytensor.graph.basic import Variable

from pymc.variational.guides.base import FlatGuide, Layout, Params, Parents, Site, sites_of
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.latent_distribution import to_unconstrained
from pymc.variational.guides.mean_field import MeanFieldGuide

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["Structured"]


class Structured(FlatGuide):
    """Normal distributions of each row, whose means are affine in global variables.

    Parameters
    ----------
    given : sequence of str or variable, optional
        The global variables; by default all continuous ones.

    Raises
    ------
    TypeError, ValueError
        If `given` is not a list. In :func:`pymc.fit`, if it names no continuous global variable.

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
    #: Layout of the global variables of a bound guide, and their initial values.
    global_layout: Layout
    center: np.ndarray

    def __init__(self, given: Sequence[str | Variable] | None = None) -> None:
        is_list = isinstance(given, Sequence) and not isinstance(given, str | Variable)
        if given is not None and not is_list:
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
        bound = copy(self)
        bound.global_layout = Layout.of(self._globals(model), starts.point)
        bound.center = bound.global_layout.flatten(starts.point).astype(pytensor.config.floatX)
        return super(Structured, bound).bind(sites, starts, model)

    def _globals(self, model: Model) -> list[Site]:
        known = {
            site.name: site
            for site in sites_of(model)
            if not site.plate and site.value.type.dtype.startswith("float")
        }
        names = list(known) if self.given is None else self.given
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise ValueError(
                f"given={names} of pm.Structured has to name continuous global variables of the model, which "
                f"are {list(known)}: leave out {unknown}, or take 'mean_field' where there is none"
            )
        return [known[name] for name in names]

    def reads(self) -> set[Variable]:
        return {site.rv for site in self.global_layout.sites}

    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        return {
            "mu": starts.means(self.layout),
            "rho": starts.rhos(self.layout),
            "slopes": np.zeros((1, self.layout.size * self.global_layout.size)),
        }

    def conditional(self, params: Params, parents: Parents) -> Params:
        """Replace the mean of each row by that given the global variables, shape (..., rows, size)."""
        sites = self.global_layout.sites
        free = {site: to_unconstrained(site, parents[site.rv]) for site in sites}
        n_sample_dims = max(x.type.ndim - site.value.type.ndim for site, x in free.items())
        # From their start, so that mu is the mean of a row there
        deviation = self.global_layout.join(free, n_sample_dims) - self.center
        slopes = params["slopes"].reshape((-1, self.layout.size, self.global_layout.size))
        shift = (slopes * deviation[..., None, None, :]).sum(axis=-1)
        return {**params, "mu": params["mu"] + shift}

    # Given the global variables, rows are mean-field
    sample = MeanFieldGuide.sample
    log_density = MeanFieldGuide.log_density
