# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Mean-field: an independent normal distribution of every entry of every variable.

.. math::

    q(z) = \prod_i \mathcal N(z_i \mid \mu_i, \mathrm{softplus}(\rho_i)^2)

on the unconstrained space (Kucukelbir et al. 2017, "Automatic Differentiation Variational Inference",
section 2.4). The variables of a plate have :math:`\mu` and :math:`\rho` for each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.variational.guides.base import FlatGuide, Params, ParamValues, SampleShape, noise
from pymc.variational.guides.initial_values import InitialValues

LOG_SQRT_2PI = 0.5 * float(np.log(2 * np.pi))


@dataclass(eq=False)
class MeanFieldGuide(FlatGuide):
    """Independent normal distributions, of global variables or of each row."""

    name = "mean_field"

    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        return {"mu": starts.means(self.layout), "rho": starts.rhos(self.layout)}

    def sample(self, params: Params, sample_shape: SampleShape) -> Variable:
        eps = noise((*sample_shape, *self.layout.shape()))
        return params["mu"] + pt.softplus(params["rho"]) * eps

    def log_density(self, z: Variable, params: Params) -> Variable:
        return log_normal(z, params["mu"], pt.softplus(params["rho"])).sum(axis=-1)

    def moments(self, param_values: ParamValues) -> tuple[Variable, Variable]:
        params = self.values_by_name(param_values)
        return params["mu"], pt.softplus(params["rho"])

    def covariance(self, param_values: ParamValues) -> Variable:
        return pt.diag(self.moments(param_values)[1] ** 2)

    def parameter_scales(self, values: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        mu, rho = self.parameters
        sd = np.logaddexp(0, values[rho])
        return {mu: sd, rho: sd / logistic(values[rho])}  # d sd = logistic(rho) d rho


def log_normal(z: Variable, mu: Variable, sd: Variable) -> Variable:
    """Return the log-density of a normal distribution, without the check of `sd` that PyMC's has."""
    standard = (z - mu) / sd
    return -0.5 * standard**2 - pt.log(sd) - LOG_SQRT_2PI


def logistic(x: np.ndarray) -> np.ndarray:
    """Return the derivative of softplus, without SciPy's `expit`, whose import takes long."""
    return -np.expm1(-np.logaddexp(0, x))
