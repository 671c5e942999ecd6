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
        diagonal = flat[..., self._diagonal]
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

    def statistics(self, param_values: ParamValues, center: Variable) -> Variable:
        way = param_values[self.params_by_name["mu"]] - center
        second = self.covariance(param_values) + way[:, None] * way
        return pt.concatenate([way, second[self._tril_indices]])

    def entropy(self, param_values: ParamValues) -> Variable:
        factor = self.factor(self.values_by_name(param_values))
        return pt.log(pt.diagonal(factor)).sum()

    def coordinates(self, param_values: ParamValues) -> Variable:
        covariance = self.covariance(param_values)[self._tril_indices]
        return pt.concatenate([self.moments(param_values)[0], covariance])

    def coordinates_of(self, values: ParamArrays) -> np.ndarray:
        mu, tril = self.parameters
        factor, diagonal = np.zeros((self.layout.size,) * 2), np.arange(self.layout.size)
        factor[self._tril_indices] = values[tril]
        factor[diagonal, diagonal] = np.logaddexp(0, factor[diagonal, diagonal])
        return self._joined(values[mu], factor @ factor.T)

    def natural(self, coordinates: np.ndarray) -> np.ndarray:
        mean, covariance = self._parted(coordinates)
        inverse = np.linalg.inv(np.linalg.cholesky(covariance))
        precision = inverse.T @ inverse
        return self._joined(precision @ mean, precision) * self._halves

    def of_natural(self, natural: np.ndarray) -> dict[Parameter, np.ndarray] | None:
        mu, tril = self.parameters
        slope, precision = self._parted(natural / self._halves)
        try:
            # Upper triangular: its inverse, transposed, is the factor of the covariance
            upper = np.linalg.cholesky(precision[::-1, ::-1])[::-1, ::-1]
        except np.linalg.LinAlgError:
            return None
        factor, diagonal = np.linalg.inv(upper).T, np.arange(self.layout.size)
        mean = factor @ (factor.T @ slope)
        factor[diagonal, diagonal] = rhos(factor[diagonal, diagonal])
        return {mu: mean, tril: factor[self._tril_indices]}

    def centered(self, natural: np.ndarray, center: np.ndarray) -> np.ndarray:
        slope, precision = self._parted(natural / self._halves)
        return self._joined(slope - precision @ center, precision) * self._halves

    def relative(self, values: ParamArrays) -> dict[Parameter, np.ndarray]:
        mu, tril = self.parameters
        rows, columns = self._tril_indices
        sd = self.parameter_scales(values)[tril]
        return {mu: values[mu], tril: np.where(rows == columns, values[tril], values[tril] / sd)}

    def absolute(
        self, param_values: ParamValues, origin: ParamValues
    ) -> Mapping[Parameter, Variable]:
        tril = self.params_by_name["L_tril"]
        rows, columns = self._tril_indices
        sd = self.moments(origin)[1][rows]
        return {**param_values, tril: pt.where(rows == columns, 1, sd) * param_values[tril]}

    @property
    def _diagonal(self) -> np.ndarray:
        """The places of the diagonal in a lower triangle."""
        return np.flatnonzero(np.equal(*self._tril_indices))

    @property
    def _halves(self) -> np.ndarray:
        """Factors of a slope and a precision: an entry below the diagonal stands for the one above it too."""
        rows, columns = self._tril_indices
        return np.append(np.ones(self.layout.size), np.where(rows == columns, -0.5, -1.0))

    def _joined(self, vector: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Return a vector, and the lower triangle of a symmetric matrix, as one vector."""
        return np.concatenate([vector, matrix[self._tril_indices]])

    def _parted(self, joined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Invert `_joined`."""
        size, (rows, columns) = self.layout.size, self._tril_indices
        matrix = np.empty((size, size))
        matrix[rows, columns] = matrix[columns, rows] = joined[size:]
        return joined[:size], matrix


def solve_lower(factor: Variable, x: Variable) -> Variable:
    """Solve for each vector in the last axis of `x`, with one triangular factor or one for each row."""
    if factor.type.ndim > 2 or x.type.ndim == 1:
        return solve_triangular(factor, x, lower=True, b_ndim=1)
    d = x.shape[-1]
    return solve_triangular(factor, x.reshape((-1, d)).T, lower=True, b_ndim=2).T.reshape(x.shape)
