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
r"""Mean-field: every entry of every variable has a normal distribution of its own.

.. math::

    q(z) = \prod_i \mathcal N(z_i \mid \mu_i, \mathrm{softplus}(\rho_i)^2)

on the unconstrained space (Kucukelbir et al. 2017, "Automatic Differentiation Variational Inference",
section 2.4). The variables of a plate have :math:`\mu` and :math:`\rho` for each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.variational.guides.base import Block, Here, Lead, Parameter, Site, noise
from pymc.variational.guides.layout import Layout
from pymc.variational.guides.starts import Starts

__all__ = ["MeanFieldGuide"]

LOG_SQRT_2PI = 0.5 * float(np.log(2 * np.pi))


class MeanFieldGuide:
    """Independent normal distributions, of globals or of each row.

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
        name, plate = self.layout.name, self.layout.plate
        self.loc = Parameter(f"{name}_mu", starts.means(self.layout), plate)
        self.rho = Parameter(f"{name}_rho", starts.rhos(self.layout), plate)
        self.parameters = (self.loc, self.rho)

    def draw(self, here: Here, lead: Lead, given: Mapping[Variable, Variable]) -> Block:
        eps = noise((*lead, *self.layout.shape()))
        return (here[self.loc] + pt.softplus(here[self.rho]) * eps,)

    def values(self, block: Block, n_lead: int) -> dict[Site, Variable]:
        return self.layout.split(block[0], n_lead)

    def logq(
        self, block: Block, here: Here, n_lead: int, given: Mapping[Variable, Variable]
    ) -> Variable:
        sd = pt.softplus(here[self.rho])
        standard = (block[0] - here[self.loc]) / sd
        density = -0.5 * standard**2 - pt.log(sd) - LOG_SQRT_2PI
        return self.layout.by_row_axes(density.sum(axis=-1), n_lead)

    def moments(self, here: Here) -> tuple[Variable, Variable]:
        """Mean and standard deviation on the unconstrained space, flat."""
        return here[self.loc], pt.softplus(here[self.rho])
