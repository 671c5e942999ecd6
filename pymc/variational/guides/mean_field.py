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

from pymc.variational.guides.base import (
    FlatGuide,
    ParamArrays,
    Parameter,
    Params,
    ParamValues,
    SampleShape,
    noise,
)
from pymc.variational.guides.initial_values import InitialValues, rhos

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

    def statistics(self, param_values: ParamValues, center: Variable) -> Variable:
        mean, sd = self.moments(param_values)
        return pt.concatenate([mean - center, (mean - center) ** 2 + sd**2])

    def entropy(self, param_values: ParamValues) -> Variable:
        return pt.log(self.moments(param_values)[1]).sum()

    def coordinates(self, param_values: ParamValues) -> Variable:
        mean, sd = self.moments(param_values)
        return pt.concatenate([mean, sd**2])

    def coordinates_of(self, values: ParamArrays) -> np.ndarray:
        mu, rho = self.parameters
        return np.concatenate([values[mu], np.logaddexp(0, values[rho].astype("float64")) ** 2])

    def natural(self, coordinates: np.ndarray) -> np.ndarray:
        mean, variance = np.split(coordinates, 2)
        return np.concatenate([mean / variance, -0.5 / variance])

    def of_natural(self, natural: np.ndarray) -> dict[Parameter, np.ndarray] | None:
        mu, rho = self.parameters
        slope, half = np.split(natural, 2)
        precision = -2 * half
        if not (precision > 0).all():
            return None
        return {mu: slope / precision, rho: rhos(precision**-0.5)}

    def relative(self, values: ParamArrays) -> dict[Parameter, np.ndarray]:
        return {parameter: values[parameter] for parameter in self.parameters}

    def absolute(
        self, param_values: ParamValues, origin: ParamValues
    ) -> Mapping[Parameter, Variable]:
        return {parameter: param_values[parameter] for parameter in self.parameters}

    def centered(self, natural: np.ndarray, center: np.ndarray) -> np.ndarray:
        slope, half = np.split(natural, 2)
        return np.concatenate([slope + 2 * half * center, half])


def log_normal(z: Variable, mu: Variable, sd: Variable) -> Variable:
    """Return the log-density of a normal distribution, without the check of `sd` that PyMC's has."""
    standard = (z - mu) / sd
    return -0.5 * standard**2 - pt.log(sd) - LOG_SQRT_2PI


def logistic(x: np.ndarray) -> np.ndarray:
    """Return the derivative of softplus, without SciPy's `expit`, whose import takes long."""
    return -np.expm1(-np.logaddexp(0, x))
