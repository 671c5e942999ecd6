# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Low-rank: a normal distribution whose covariance is a few factors and a diagonal.

.. math::

    q(z) = \mathcal N(z \mid \mu, U U^\top + D^2), \qquad z = \mu + U \varepsilon_r + D \varepsilon_d

with :math:`U` of shape (d, rank) and a diagonal :math:`D`, so that parameters and time grow with d and not
with its square (Ong, Nott and Smith 2018, "Gaussian variational approximation with a factor covariance
structure", section 3). Its density uses the Woodbury identity and the matrix determinant lemma.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.tensor.linalg import cholesky

from pymc.argument_checks import check_int
from pymc.variational.guides.base import FlatGuide, Params, ParamValues, SampleShape, noise
from pymc.variational.guides.full_rank import solve_lower
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.mean_field import LOG_SQRT_2PI

__all__ = ["LowRank"]

# Standard deviation of the initial factors; at 0 the loss is flat in them
INITIAL_SD = 0.01


@dataclass(eq=False)
class LowRank(FlatGuide):
    """A normal guide of global variables with a covariance of low rank and a diagonal.

    Parameters
    ----------
    rank : int
        Number of factors, at least 1; 5 by default. The number of parameters grows with it times the
        number of entries.

    Raises
    ------
    TypeError, ValueError
        If `rank` is not an integer of at least 1.

    Examples
    --------
    >>> with pm.Model():
    ...     w = pm.Normal("w", shape=20)
    ...     approx = pm.fit(10, guide=pm.LowRank(rank=3), progressbar=False)
    """

    rank: int = 5
    name = "low_rank"
    couples_rows = True

    def __post_init__(self) -> None:
        check_int(self.rank, "rank", "pm.LowRank")

    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        return {
            "mu": starts.means(self.layout),
            "rho": starts.rhos(self.layout),
            "factors": rng.normal(0, INITIAL_SD, size=(self.layout.size, self.rank)),
        }

    def sample(self, params: Params, sample_shape: SampleShape) -> Variable:
        common = noise((*sample_shape, self.rank))
        independent = noise((*sample_shape, self.layout.size))
        correlated = common @ params["factors"].T
        return params["mu"] + correlated + pt.softplus(params["rho"]) * independent

    def log_density(self, z: Variable, params: Params) -> Variable:
        sd, factors = pt.softplus(params["rho"]), params["factors"]
        standard = (z - params["mu"]) / sd
        scaled = factors / sd[:, None]
        # Woodbury: the inverse of I + V V' is I - V (I + V' V)^-1 V', where V = U / D has `rank` columns
        inner = cholesky(pt.eye(self.rank) + scaled.T @ scaled)
        explained = solve_lower(inner, standard @ scaled)
        quadratic = (standard**2).sum(axis=-1) - (explained**2).sum(axis=-1)
        # Determinant lemma: |I + V V'| = |I + V' V|
        log_det = pt.log(sd).sum() + pt.log(pt.diagonal(inner)).sum()
        return -0.5 * quadratic - log_det - self.layout.size * LOG_SQRT_2PI

    def moments(self, param_values: ParamValues) -> tuple[Variable, Variable]:
        params = self.values_by_name(param_values)
        variance = pt.softplus(params["rho"]) ** 2 + (params["factors"] ** 2).sum(axis=-1)
        return params["mu"], pt.sqrt(variance)

    def covariance(self, param_values: ParamValues) -> Variable:
        params = self.values_by_name(param_values)
        return params["factors"] @ params["factors"].T + pt.diag(pt.softplus(params["rho"]) ** 2)
