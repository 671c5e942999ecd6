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
r"""Full-rank: one normal distribution of all entries, of the globals or within each row.

.. math::

    q(z) = \mathcal N(z \mid \mu, L L^\top)

with a lower triangular :math:`L` (Kucukelbir et al. 2017, "Automatic Differentiation Variational
Inference", section 2.4). Within rows, each row has a :math:`\mu` and an :math:`L` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.tensor.linalg import solve_triangular

from pymc.variational.guides.base import Block, Here, Lead, Parameter, Site, noise
from pymc.variational.guides.layout import Layout
from pymc.variational.guides.mean_field import LOG_SQRT_2PI
from pymc.variational.guides.starts import Starts

__all__ = ["FullRankGuide", "solve_lower"]


class FullRankGuide:
    """One normal distribution of globals, or of what each row has.

    Parameters
    ----------
    sites : sequence of Site
        All of one plate.
    starts : Starts
    """

    reparametrised = True

    def __init__(self, sites: Sequence[Site], starts: Starts) -> None:
        self.layout = Layout.of(sites, starts.point)
        self.sites = self.layout.sites
        name, plate, d = self.layout.name, self.layout.plate, self.layout.size
        self._places = np.tril_indices(d)
        sds = np.log1p(np.exp(starts.rhos(self.layout)))
        scales = sds[..., None] * np.eye(d, dtype=pytensor.config.floatX)
        self.loc = Parameter(f"{name}_mu", starts.means(self.layout), plate)
        self.tril = Parameter(f"{name}_L_tril", scales[..., *self._places], plate)
        self.parameters = (self.loc, self.tril)

    def _factor(self, here: Here) -> Variable:
        """The triangular factor, of shape (d, d) or (rows, d, d)."""
        flat, d = here[self.tril], self.layout.size
        empty = pt.zeros((*(flat.shape[k] for k in range(flat.type.ndim - 1)), d, d))
        return pt.set_subtensor(empty[..., *self._places], flat)

    def draw(self, here: Here, lead: Lead, given: Mapping[Variable, Variable]) -> Block:
        eps, factor = noise((*lead, *self.layout.shape())), self._factor(here)
        if not self.layout.plate:
            return (here[self.loc] + eps @ factor.T,)
        return (here[self.loc] + (factor * eps[..., None, :]).sum(axis=-1),)

    def values(self, block: Block, n_lead: int) -> dict[Site, Variable]:
        return self.layout.split(block[0], n_lead)

    def logq(
        self, block: Block, here: Here, n_lead: int, given: Mapping[Variable, Variable]
    ) -> Variable:
        factor = self._factor(here)
        standard = solve_lower(factor, block[0] - here[self.loc])
        diagonal = pt.diagonal(factor, axis1=-2, axis2=-1)
        density = -0.5 * standard**2 - pt.log(abs(diagonal)) - LOG_SQRT_2PI
        return self.layout.by_row_axes(density.sum(axis=-1), n_lead)

    def moments(self, here: Here) -> tuple[Variable, Variable]:
        """Mean and standard deviation on the unconstrained space, flat."""
        return here[self.loc], pt.sqrt((self._factor(here) ** 2).sum(axis=-1))


def solve_lower(factor: Variable, x: Variable) -> Variable:
    """Solve for each vector in the last axis of `x`; one factor for all, or one for each row."""
    if factor.type.ndim > 2 or x.type.ndim == 1:
        return solve_triangular(factor, x, lower=True, b_ndim=1)
    d = x.shape[-1]
    return solve_triangular(factor, x.reshape((-1, d)).T, lower=True, b_ndim=2).T.reshape(x.shape)
