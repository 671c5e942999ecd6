# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Mean-field: every entry of every variable has a normal distribution of its own.

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

from pymc.variational.guides.base import FlatGuide, ParamValues, SampleShape, noise
from pymc.variational.guides.initial_values import InitialValues

LOG_SQRT_2PI = 0.5 * float(np.log(2 * np.pi))


@dataclass(eq=False)
class MeanFieldGuide(FlatGuide):
    """Independent normal distributions, of globals or of each row."""

    name = "mean_field"

    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        return {"mu": starts.means(self.layout), "rho": starts.rhos(self.layout)}

    def sample(self, params: Mapping[str, Variable], sample_shape: SampleShape) -> Variable:
        eps = noise((*sample_shape, *self.layout.shape()))
        return params["mu"] + pt.softplus(params["rho"]) * eps

    def log_density(self, z: Variable, params: Mapping[str, Variable]) -> Variable:
        sd = pt.softplus(params["rho"])
        standard = (z - params["mu"]) / sd
        return (-0.5 * standard**2 - pt.log(sd) - LOG_SQRT_2PI).sum(axis=-1)

    def moments(self, param_values: ParamValues) -> tuple[Variable, Variable]:
        params = self.values_by_name(param_values)
        return params["mu"], pt.softplus(params["rho"])

    def covariance(self, param_values: ParamValues) -> Variable:
        return pt.diag(self.moments(param_values)[1] ** 2)

    def parameter_scales(self, values: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        mu, rho = self.parameters
        return dict(zip((mu, rho), normal_scales(values[rho])))


def normal_scales(rho: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the natural scales of means and of `rho`, where ``sd = log1p(exp(rho))``."""
    sd = np.logaddexp(0, rho)
    return sd, sd / logistic(rho)  # d sd = logistic(rho) d rho


def logistic(x: np.ndarray) -> np.ndarray:
    """Return the derivative of softplus; SciPy's `expit` would load much that PyMC does not."""
    return -np.expm1(-np.logaddexp(0, x))
