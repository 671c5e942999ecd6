# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Guides: distributions that are fitted to a part of the posterior.

A guide holds no values. It names its parameters, and whoever evaluates it passes graphs for them: shared
variables, the rows of a batch, or either held constant, as some gradient estimators need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Variable
from pytensor.tensor.shape import shape_i

from pymc.minibatch.axis_tracking import Rows
from pymc.variational.configurable import Configurable
from pymc.variational.guides.unnumbered_rows import UnnumberedRows, rows_by_axis

if TYPE_CHECKING:
    from pymc.model.core import Model
    from pymc.variational.guides.initial_values import InitialValues

#: The subsampled axes of a variable, in their order; empty for a global variable.
type Plate = tuple[Rows, ...]

#: Lengths of the leading axes of a draw: outer draws, particles. Empty for one draw.
type SampleShape = tuple[Any, ...]

#: A draw of all variables of a guide, in the form that the guide likes.
type Latents = tuple[Variable, ...]


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
type ParamValues = Mapping[Parameter | SharedVariable, Variable]


class Guide(Configurable, ABC):
    """The distribution that is fitted to some latent variables: subclass it to write a guide.

    An instance that a user makes is a description, with hyperparameters alone. :meth:`bind` gives a
    copy of it for certain variables of a model, and the other methods are those of such a copy. For a
    guide that treats the values of its variables as one vector,
    :class:`~pymc.variational.guides.base.FlatGuide` has most of them.

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

    def draw(
        self,
        param_values: ParamValues,
        sample_shape: SampleShape,
        parents: Mapping[Variable, Variable],
    ) -> Latents:
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

    def values(self, latents: Latents, n_sample_dims: int) -> dict[Site, Variable]:
        """Return the value of each site from a draw with `n_lead` leading axes, on the unconstrained space."""
        raise NotImplementedError(f"{self!r} is not bound to variables")

    def logq(
        self,
        latents: Latents,
        param_values: ParamValues,
        n_sample_dims: int,
        parents: Mapping[Variable, Variable],
    ) -> Variable:
        """Return the log-density of a draw in nats, on the unconstrained space.

        It has to be a function of the draw and of `here`: estimators such as "stl" hold the one and not
        the other. The axes are the `n_lead` leading ones, then the plate's.
        """
        raise NotImplementedError(f"{self!r} is not bound to variables")

    def moments(self, param_values: ParamValues) -> tuple[Variable, Variable]:
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

    def covariance(self, param_values: ParamValues) -> Variable:
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

    def particles(self, param_values: ParamValues) -> Latents | None:
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


def topological_order[T](
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
    return draw_random(pt.random.normal, size=tuple(shape))


def draw_random(distribution: Any, *arguments: Any, size: Any) -> Variable:
    """Draw from a distribution of :mod:`pytensor.tensor.random` with a generator of its own."""
    rng = pytensor.shared(np.random.default_rng())
    return distribution(*arguments, size=size, rng=rng, return_next_rng=True)[1]


def detach(param_values: ParamValues) -> dict[Parameter | SharedVariable, Variable]:
    """Hold parameters: the same values, through which no gradient passes."""
    return {parameter: disconnected_grad(var) for parameter, var in param_values.items()}


@dataclass(frozen=True)
class Layout:
    """Where each variable of one plate is in a flat array.

    Parameters
    ----------
    sites : tuple of Site
        All of one plate.
    shapes : tuple of tuple of int
        For each site, the shape of what one row has: the value's shape without the plate's axes.
    """

    sites: tuple[Site, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, sites: Sequence[Site], point: Mapping[str, np.ndarray]) -> Layout:
        """Read the shapes from a point: the values of all rows or of a batch, by name."""
        shapes = tuple(
            tuple(
                int(n)
                for n, axis in zip(np.shape(point[site.value.name or ""]), site.axes)
                if axis is None
            )
            for site in sites
        )
        return cls(tuple(sites), shapes)

    @property
    def plate(self) -> Plate:
        return self.sites[0].plate

    @property
    def name(self) -> str:
        """What the names of parameters begin with."""
        return (self.plate[0].dim or "rows") if self.plate else "globals"

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(int(np.prod(shape)) for shape in self.shapes)

    @property
    def size(self) -> int:
        """How many numbers a row has."""
        return sum(self.sizes)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where the numbers of each site are."""
        ends = np.cumsum(self.sizes, dtype=int).tolist()
        return tuple(slice(end - size, end) for end, size in zip(ends, self.sizes))

    def entry(self, k: int) -> str:
        """Name the entry that a number of a row is of: the variable, with an index if it has several."""
        for site, shape, part in zip(self.sites, self.shapes, self.slices):
            if k < part.stop:
                at = ", ".join(map(str, np.unravel_index(k - part.start, shape))) if shape else ""
                return f"{site.name}[{at}]" if at else site.name
        raise IndexError(f"{k} is beyond the last entry")

    def shape(self) -> tuple:
        """Shape of the flat array of a batch: (size,), or (rows, size)."""
        rows = plate_shape(self.plate)
        if not rows:
            return (self.size,)
        return (pt.mul(*rows) if len(rows) > 1 else rows[0], self.size)

    def flatten(self, point: Mapping[str, np.ndarray]) -> np.ndarray:
        """Put the values of a point side by side: shape (size,), or (rows, size)."""
        n_rows = len(self.plate)
        lines = []
        for site in self.sites:
            value = np.asarray(point[site.value.name or ""])
            places = [k for k, axis in enumerate(site.axes) if axis is not None]
            moved = np.moveaxis(value, places, range(n_rows))
            sample_shape = int(np.prod(moved.shape[:n_rows])) if n_rows else 1
            lines.append(moved.reshape(sample_shape, -1))
        flat = np.concatenate(lines, axis=1)
        return flat if n_rows else flat[0]

    def split(self, flat: Variable, n_sample_dims: int) -> dict[Site, Variable]:
        """Take a flat array with `n_lead` leading axes apart, into values of the sites."""
        rows = plate_shape(self.plate)
        sample_shape = tuple(flat.shape[k] for k in range(n_sample_dims))
        values = {}
        for site, shape, place in zip(self.sites, self.shapes, self.slices):
            part = flat[..., place.start] if shape == () else flat[..., place]
            if len(rows) > 1 or len(shape) > 1 or (not rows and len(shape) > 1):
                part = part.reshape((*sample_shape, *rows, *shape))
            places = [n_sample_dims + k for k, axis in enumerate(site.axes) if axis is not None]
            now = list(range(n_sample_dims, n_sample_dims + len(rows)))
            values[site] = part if places == now else pt.moveaxis(part, now, places)
        return values

    def join(self, values: Mapping[Site, Variable], n_sample_dims: int) -> Variable:
        """Put values of the sites side by side; the inverse of `split`."""
        n_rows, parts = len(self.plate), []
        for site, size in zip(self.sites, self.sizes):
            places = [n_sample_dims + k for k, axis in enumerate(site.axes) if axis is not None]
            part = pt.moveaxis(
                values[site], places, list(range(n_sample_dims, n_sample_dims + n_rows))
            )
            sample_shape = tuple(part.shape[k] for k in range(n_sample_dims))
            parts.append(part.reshape((*sample_shape, *self.shape()[:-1], size)))
        return pt.concatenate(parts, axis=-1)

    def by_row_axes(self, logq: Variable, n_sample_dims: int) -> Variable:
        """Give a value for each row, (..., rows), the axes of the plate."""
        if len(self.plate) < 2:
            return logq
        sample_shape = tuple(logq.shape[k] for k in range(n_sample_dims))
        return logq.reshape((*sample_shape, *plate_shape(self.plate)))


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
    >>> from pymc.variational.guides.base import draw_random
    >>> from pymc.variational.guides.base import FlatGuide
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
    ...         u = draw_random(pt.random.uniform, size=(*lead, self.layout.size))
    ...         return params["low"] + pt.exp(params["log_width"]) * u
    ...
    ...     def log_density(self, z, params):
    ...         return (-params["log_width"] + 0 * z).sum(axis=-1)
    """

    layout: Layout
    params_by_name: dict[str, Parameter]

    def bind(self, sites: Sequence[Site], starts: InitialValues, model: Model) -> Self:
        bound = copy(self)
        bound.layout = Layout.of(sites, starts.point)
        bound.sites = bound.layout.sites
        prefix, plate = bound.layout.name, bound.layout.plate
        bound.params_by_name = {
            name: Parameter(f"{prefix}_{name}", np.asarray(value, pytensor.config.floatX), plate)
            for name, value in bound.start(starts).items()
        }
        bound.parameters = tuple(bound.params_by_name.values())
        return bound

    @abstractmethod
    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        """Return where each parameter starts, by name.

        Of a guide of rows the arrays have the shape (1, n), or (rows in all, n) where rows start apart.
        """

    @abstractmethod
    def sample(self, params: Mapping[str, Variable], sample_shape: SampleShape) -> Variable:
        r"""Return draws, of shape (\*lead, size), or (\*lead, rows, size)."""

    @abstractmethod
    def log_density(self, z: Variable, params: Mapping[str, Variable]) -> Variable:
        """Return the log-density in nats of draws, which takes away their last axis."""

    def values_by_name(self, param_values: ParamValues) -> dict[str, Variable]:
        """Return the graph of each parameter by its short name."""
        return {name: param_values[parameter] for name, parameter in self.params_by_name.items()}

    def draw(
        self,
        param_values: ParamValues,
        sample_shape: SampleShape,
        parents: Mapping[Variable, Variable],
    ) -> Latents:
        return (self.sample(self.values_by_name(param_values), sample_shape),)

    def values(self, latents: Latents, n_sample_dims: int) -> dict[Site, Variable]:
        return self.layout.split(latents[0], n_sample_dims)

    def logq(
        self,
        latents: Latents,
        param_values: ParamValues,
        n_sample_dims: int,
        parents: Mapping[Variable, Variable],
    ) -> Variable:
        return self.layout.by_row_axes(
            self.log_density(latents[0], self.values_by_name(param_values)), n_sample_dims
        )
