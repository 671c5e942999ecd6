# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Guides of a vector: the values of all their variables side by side."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Self

import numpy as np
import pytensor

from pytensor.graph.basic import Variable

from pymc.variational.guides.base import Block, Guide, Here, Lead, Parameter, Site
from pymc.variational.guides.layout import Layout
from pymc.variational.guides.starts import Starts

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["FlatGuide"]


class FlatGuide(Guide):
    """A guide of the vector of all values, or of such a vector in each row: subclass it to write your own.

    Three methods make one: :meth:`start`, :meth:`sample` and :meth:`log_density`. A bound guide has its
    variables in `layout`, whose `size` is the length of the vector.

    Attributes
    ----------
    layout : Layout
        Where each variable is in the vector.
    own : dict of str to Parameter
        Its parameters by the names that `start` gives them.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.variational.guides.base import drawn
    >>> from pymc.variational.guides.flat import FlatGuide
    >>> class Uniform(FlatGuide):
    ...     name = "uniform"
    ...
    ...     def start(self, starts):
    ...         return {
    ...             "low": starts.means(self.layout) - 1,
    ...             "log_width": np.zeros(self.layout.size),
    ...         }
    ...
    ...     def sample(self, params, lead):
    ...         u = drawn(pt.random.uniform, size=(*lead, self.layout.size))
    ...         return params["low"] + pt.exp(params["log_width"]) * u
    ...
    ...     def log_density(self, z, params):
    ...         return (-params["log_width"] + 0 * z).sum(axis=-1)
    """

    layout: Layout
    own: dict[str, Parameter]

    def bind(self, sites: Sequence[Site], starts: Starts, model: Model) -> Self:
        bound = copy(self)
        bound.layout = Layout.of(sites, starts.point)
        bound.sites = bound.layout.sites
        prefix, plate = bound.layout.name, bound.layout.plate
        bound.own = {
            name: Parameter(f"{prefix}_{name}", np.asarray(value, pytensor.config.floatX), plate)
            for name, value in bound.start(starts).items()
        }
        bound.parameters = tuple(bound.own.values())
        return bound

    @abstractmethod
    def start(self, starts: Starts) -> dict[str, np.ndarray]:
        """Return where each parameter starts, by name.

        Of a guide of rows the arrays have the shape (1, n), or (rows in all, n) where rows start apart.
        """

    @abstractmethod
    def sample(self, params: Mapping[str, Variable], lead: Lead) -> Variable:
        r"""Return draws, of shape (\*lead, size), or (\*lead, rows, size)."""

    @abstractmethod
    def log_density(self, z: Variable, params: Mapping[str, Variable]) -> Variable:
        """Return the log-density in nats of draws, which takes away their last axis."""

    def named(self, here: Here) -> dict[str, Variable]:
        """Return the graph of each parameter by its short name."""
        return {name: here[parameter] for name, parameter in self.own.items()}

    def draw(self, here: Here, lead: Lead, given: Mapping[Variable, Variable]) -> Block:
        return (self.sample(self.named(here), lead),)

    def values(self, block: Block, n_lead: int) -> dict[Site, Variable]:
        return self.layout.split(block[0], n_lead)

    def logq(
        self, block: Block, here: Here, n_lead: int, given: Mapping[Variable, Variable]
    ) -> Variable:
        return self.layout.by_row_axes(self.log_density(block[0], self.named(here)), n_lead)
