# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Full-rank: one normal distribution of all entries, of global variables or within each row.

.. math::

    q(z) = \mathcal N(z \mid \mu, L L^\top)

with a lower triangular :math:`L`, whose diagonal is the softplus of its parameters (Kucukelbir et al. 2017,
"Automatic Differentiation Variational Inference", section 2.4). Within rows, each row has its own
:math:`\mu` and :math:`L`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.tensor.linalg import solve_triangular

from pymc.variational.guides.base import FlatGuide, Params, ParamValues, SampleShape, noise
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.mean_field import LOG_SQRT_2PI, logistic

#: Initial diagonal parameters without a start_sigma: 1.31 after the softplus, as in PyMC.
INITIAL_DIAGONAL = 1.0


@dataclass(eq=False)
class FullRankGuide(FlatGuide):
    """One normal distribution of global variables, or of the variables of each row.

    Parameters
    ----------
    of_rows : bool
        Whether it is for variables with rows, with a covariance within each row.
    """

    of_rows: bool = False

    @property
    def name(self) -> str:  # type: ignore[override]
        return "row_full_rank" if self.of_rows else "full_rank"

    @property
    def couples_rows(self) -> bool:  # type: ignore[override]
        return not self.of_rows

    @property
    def needs_rows(self) -> bool:  # type: ignore[override]
        return self.of_rows

    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        diagonal = starts.rhos(self.layout, default=INITIAL_DIAGONAL)
        factor = diagonal[..., None] * np.eye(self.layout.size)
        return {"mu": starts.means(self.layout), "L_tril": factor[..., *self._tril_indices]}

    @property
    def _tril_indices(self) -> tuple[np.ndarray, np.ndarray]:
        return np.tril_indices(self.layout.size)

    def factor(self, params: Params) -> Variable:
        """Return the triangular factor, of shape (d, d) or (rows, d, d)."""
        flat, d = params["L_tril"], self.layout.size
        rows, columns = self._tril_indices
        diagonal = flat[..., np.flatnonzero(rows == columns)]
        # A positive diagonal: each covariance has one factor then
        entries = pt.set_subtensor(diagonal, pt.softplus(diagonal))
        empty = pt.zeros((*(flat.shape[k] for k in range(flat.type.ndim - 1)), d, d))
        return pt.set_subtensor(empty[..., rows, columns], entries)

    def sample(self, params: Params, sample_shape: SampleShape) -> Variable:
        eps, factor = noise((*sample_shape, *self.layout.shape())), self.factor(params)
        if not self.layout.plate:
            return params["mu"] + eps @ factor.T
        return params["mu"] + (factor * eps[..., None, :]).sum(axis=-1)

    def log_density(self, z: Variable, params: Params) -> Variable:
        factor = self.factor(params)
        standard = solve_lower(factor, z - params["mu"])
        log_diagonal = pt.log(pt.diagonal(factor, axis1=-2, axis2=-1))
        return (-0.5 * standard**2 - log_diagonal - LOG_SQRT_2PI).sum(axis=-1)

    def moments(self, param_values: ParamValues) -> tuple[Variable, Variable]:
        params = self.values_by_name(param_values)
        return params["mu"], pt.sqrt((self.factor(params) ** 2).sum(axis=-1))

    def covariance(self, param_values: ParamValues) -> Variable:
        factor = self.factor(self.values_by_name(param_values))
        return factor @ factor.T

    def parameter_scales(self, values: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        mu, tril = self.parameters
        entries, (rows, columns) = values[tril], self._tril_indices
        diagonal = rows == columns
        factor = np.where(diagonal, np.logaddexp(0, entries), entries)
        sd = np.sqrt(np.bincount(rows, weights=factor**2))  # the norm of each row of the factor
        return {mu: sd, tril: sd[rows] / np.where(diagonal, logistic(entries), 1)}


def solve_lower(factor: Variable, x: Variable) -> Variable:
    """Solve for each vector in the last axis of `x`, with one triangular factor or one for each row."""
    if factor.type.ndim > 2 or x.type.ndim == 1:
        return solve_triangular(factor, x, lower=True, b_ndim=1)
    d = x.shape[-1]
    return solve_triangular(factor, x.reshape((-1, d)).T, lower=True, b_ndim=2).T.reshape(x.shape)
