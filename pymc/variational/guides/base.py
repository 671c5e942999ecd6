# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Guides: distributions that are fitted to a part of the posterior.

A guide holds no values. It names its parameters, and whoever evaluates it passes graphs for them: shared
variables, the rows of a batch, or either held constant, as some gradient estimators need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Variable
from pytensor.tensor.shape import shape_i

from pymc.minibatch.provenance import Rows
from pymc.variational.described import Described
from pymc.variational.guides.unnumbered_rows import UnnumberedRows, rows_by_axis

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "Block",
    "Guide",
    "Here",
    "Lead",
    "Parameter",
    "Plate",
    "Site",
    "drawn",
    "held",
    "in_order",
    "noise",
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


class Guide(Described, ABC):
    """The distribution that is fitted to some latent variables: subclass it to write a guide.

    An instance that a user makes is a description, with hyperparameters alone. :meth:`bind` gives a
    copy of it for certain variables of a model, and the other methods are those of such a copy. For a
    guide that treats the values of its variables as one vector,
    :class:`~pymc.variational.guides.flat.FlatGuide` has most of them.

    Attributes
    ----------
    name : str
        What messages and reports call it.
    couples_rows : bool
        Whether it makes rows of a subsampled dim depend on each other, so that it cannot be a guide of
        variables that have rows.
    needs_rows : bool
        Whether it is for variables with rows only.
    takes_discrete : bool
        Whether its variables may be discrete.
    variables : tuple of str or None
        The variables that it is for, where it names them.
    dim : str or None
        The dim of the rows that it is for, which the model need not subsample.
    reparametrised : bool
        Whether gradients pass through its draws.
    has_logq : bool
        Whether it has a density.
    sites : tuple of Site
        The variables of a bound guide, all of one plate.
    parameters : tuple of Parameter or SharedVariable
        What a fit changes: its own parameters, and shared variables of the user.
    """

    name: str
    couples_rows: bool = False
    needs_rows: bool = False
    takes_discrete: bool = False
    variables: tuple[str, ...] | None = None
    dim: str | None = None
    reparametrised: bool = True
    has_logq: bool = True
    sites: tuple[Site, ...]
    parameters: tuple[Parameter | SharedVariable, ...]

    @abstractmethod
    def bind(self, sites: Sequence[Site], starts: Any, model: Model) -> Guide:
        """Return this guide for some variables of a model.

        Parameters
        ----------
        sites : sequence of Site
            All of one plate.
        starts : Starts
            Where the values of all variables start, and how wide.
        model : Model
        """

    def draw(self, here: Here, lead: Lead, given: Mapping[Variable, Variable]) -> Block:
        """Draw all variables.

        Parameters
        ----------
        here : mapping
            The value of each parameter, as a graph.
        lead : tuple of int or scalar integer
            Lengths of the leading axes of the draw.
        given : mapping of Variable to Variable
            Variables of the model that were drawn before, each with its draw: axes that broadcast
            with `lead`, and then its own.
        """
        raise NotImplementedError(f"{self!r} is not bound to variables")

    def values(self, block: Block, n_lead: int) -> dict[Site, Variable]:
        """Return the value of each site from a draw with `n_lead` leading axes, on the unconstrained space."""
        raise NotImplementedError(f"{self!r} is not bound to variables")

    def logq(
        self, block: Block, here: Here, n_lead: int, given: Mapping[Variable, Variable]
    ) -> Variable:
        """Return the log-density of a draw in nats, on the unconstrained space.

        It has to be a function of the draw and of `here`: estimators such as "stl" hold the one and not
        the other. The axes are the `n_lead` leading ones, then the plate's.
        """
        raise NotImplementedError(f"{self!r} is not bound to variables")

    def moments(self, here: Here) -> tuple[Variable, Variable]:
        """Return mean and standard deviation on the unconstrained space, where they are known.

        Raises
        ------
        NotImplementedError
        """
        names = [site.name for site in self.sites]
        raise NotImplementedError(
            f"the mean of the guide {self.name!r} of {names} has no closed form: take that of draws, "
            f"approx.sample(var_names={names})"
        )

    def covariance(self, here: Here) -> Variable:
        """Return the covariance on the unconstrained space, shape (size, size), where it is known.

        Raises
        ------
        NotImplementedError
        """
        names = [site.name for site in self.sites]
        raise NotImplementedError(
            f"the covariance of the guide {self.name!r} of {names} has no closed form, or is large: take "
            f"that of draws, approx.sample(var_names={names})"
        )

    @property
    def has_moments(self) -> bool:
        """Whether mean and standard deviation are known."""
        return type(self).moments is not Guide.moments

    def particles(self, here: Here) -> Block | None:
        """Return all draws there are, of a guide that is a set of them."""
        return None

    def parameter_scales(self, values: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        """Return the natural scale of each parameter, given their values, where it is known."""
        return {}

    def reads(self) -> set[Variable]:
        """Return what its distributions are computed from, up to free variables of the model."""
        return set()


def sites_of(model: Model, unnumbered: Sequence[UnnumberedRows] = ()) -> list[Site]:
    """List the free variables of a model.

    Parameters
    ----------
    model : Model
    unnumbered : sequence of UnnumberedRows
        Rows of dims that the model does not subsample.
    """
    axes = rows_by_axis(model, unnumbered)
    sites = []
    for rv in model.free_RVs:
        value = model.rvs_to_values[rv]
        own = axes.get(rv, ())
        padded = (*own, *(None,) * (value.type.ndim - len(own)))[: value.type.ndim]
        sites.append(Site(rv, value, model.rvs_to_transforms[rv], padded))
    return sites


def in_order[T](
    items: Sequence[T], sites: Callable[[T], Sequence[Site]], reads: Callable[[T], Set[Variable]]
) -> tuple[list[T], list[T]]:
    """Put what others are computed from before these.

    Parameters
    ----------
    items : sequence
    sites : callable
        The variables that an item draws.
    reads : callable
        What an item is computed from.

    Returns
    -------
    ordered : list
    left : list
        Items that depend on each other, of which none can be drawn first.
    """
    left, ordered = list(items), []
    while left:
        pending = {site.rv for item in left for site in sites(item)}
        first = next((item for item in left if pending.isdisjoint(reads(item))), None)
        if first is None:
            break
        ordered.append(first)
        left.remove(first)
    return ordered, left


def plate_shape(plate: Sequence[Rows]) -> tuple[Variable, ...]:
    """Tell how many rows of each axis are in a batch, as symbols: any rows may take its place."""
    return tuple(shape_i(rows.index, 0) for rows in plate)


def noise(shape: Sequence[Any]) -> Variable:
    """Draw standard normal noise, anew at each evaluation."""
    return drawn(pt.random.normal, size=tuple(shape))


def drawn(distribution: Any, *arguments: Any, size: Any) -> Variable:
    """Draw from a distribution of :mod:`pytensor.tensor.random` with a generator of its own."""
    rng = pytensor.shared(np.random.default_rng())
    return distribution(*arguments, size=size, rng=rng, return_next_rng=True)[1]


def held(here: Here) -> dict[Parameter | SharedVariable, Variable]:
    """Hold parameters: the same values, through which no gradient passes."""
    return {parameter: disconnected_grad(var) for parameter, var in here.items()}
