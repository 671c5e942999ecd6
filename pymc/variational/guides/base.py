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
"""What a guide is: the distribution that is fitted to a part of the posterior.

A guide is a description, and holds no values. It names its parameters; whoever evaluates it passes
variables for them: shared variables, the rows of a batch, or either held constant, as gradients of
some objectives need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.shape import shape_i

from pymc.minibatch.provenance import Rows
from pymc.variational.guides.rows_there import RowsThere, rows_by_axis

__all__ = [
    "Block",
    "Guide",
    "Here",
    "Lead",
    "Parameter",
    "Plate",
    "Site",
    "held",
    "noise",
    "read_by",
    "sites_of",
]

#: The subsampled axes of a variable, in their order; empty for a global variable.
type Plate = tuple[Rows, ...]

#: Lengths of the leading axes of a draw: outer draws, particles. Empty for one draw.
type Lead = tuple[Any, ...]

#: A draw of all variables of a guide, in the form that the guide likes.
type Block = tuple[Variable, ...]


@dataclass(frozen=True, eq=False)
class Site:
    """A free variable of a model, as guides see it.

    Parameters
    ----------
    rv : Variable
    value : Variable
        Its value variable, on the unconstrained space.
    transform : Transform or None
    axes : tuple of Rows or None
        For each axis of the value, the rows that it holds; None for any other axis.
    """

    rv: Variable
    value: Variable
    transform: Any
    axes: tuple[Rows | None, ...]

    @property
    def name(self) -> str:
        return self.rv.name or ""

    @property
    def plate(self) -> Plate:
        return tuple(axis for axis in self.axes if axis is not None)


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter of a guide that has no storage yet.

    Parameters
    ----------
    name : str
    start : array of floats
        Where it starts. Of a global: its shape. Of rows: shape (1, n) where all rows start alike, or
        (rows in all, n), the rows of several axes in C order.
    plate : tuple of Rows
        The rows that each have one; empty for a global.
    """

    name: str
    start: np.ndarray
    plate: Plate = ()


#: What stands for each parameter: of rows, those of the batch, of shape (rows of the batch, n).
type Here = Mapping[Parameter | SharedVariable, Variable]


class Guide(Protocol):
    """The joint distribution of some variables, given those that are drawn before them."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """What it is a distribution of; all have one plate."""

    @property
    def parameters(self) -> tuple[Parameter | SharedVariable, ...]:
        """What a fit changes: its own parameters, and shared variables of the user."""

    @property
    def reparametrised(self) -> bool:
        """Whether gradients pass through its draws."""

    def draw(self, here: Here, lead: Lead, given: Mapping[Variable, Variable]) -> Block:
        """Draw all variables.

        Parameters
        ----------
        here : mapping
            What stands for each parameter.
        lead : tuple of int or scalar integer
            Lengths of the leading axes of the draw.
        given : mapping of Variable to Variable
            Variables of the model that were drawn before, each with its draw: axes that broadcast
            with `lead`, and then its own.
        """

    def values(self, block: Block, n_lead: int) -> dict[Site, Variable]:
        """Take a draw apart: for each site the value, on the unconstrained space, after `n_lead` axes."""

    def logq(
        self, block: Block, here: Here, n_lead: int, given: Mapping[Variable, Variable]
    ) -> Variable:
        """Log-density of a draw in nats, on the unconstrained space: axes `n_lead`, then the plate's."""


def sites_of(model: Any, there: Sequence[RowsThere] = ()) -> list[Site]:
    """List the free variables of a model by name: clones of one model have them in another order.

    Parameters
    ----------
    model : Model
    there : sequence of RowsThere
        Rows of dims that the model does not subsample.
    """
    axes = rows_by_axis(model, there)
    sites = []
    for rv in sorted(model.free_RVs, key=lambda rv: rv.name):
        value = model.rvs_to_values[rv]
        own = axes.get(rv, ())
        padded = (*own, *(None,) * (value.type.ndim - len(own)))[: value.type.ndim]
        sites.append(Site(rv, value, model.rvs_to_transforms[rv], padded))
    return sites


def plate_shape(plate: Sequence[Rows]) -> tuple[Variable, ...]:
    """Tell how many rows of each axis are in a batch, as symbols: any rows may take its place."""
    return tuple(shape_i(rows.index, 0) for rows in plate)


def noise(shape: Sequence[Any]) -> Variable:
    """Draw standard normal noise, anew at each evaluation."""
    rng = pytensor.shared(np.random.default_rng())
    return pt.random.normal(size=tuple(shape), rng=rng)


def read_by(guide: Any) -> set[Variable]:
    """Tell all that the distributions of a guide are computed from, up to free variables of the model."""
    return set(ancestors(getattr(guide, "dists", ()), getattr(guide, "free", ())))


def held(here: Here) -> dict[Parameter | SharedVariable, Variable]:
    """Hold parameters: the same values, through which no gradient passes."""
    return {parameter: disconnected_grad(var) for parameter, var in here.items()}
