# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Guides: variational distributions of some latent variables.

A guide holds no values. It names its parameters, and its methods take a graph for each of them: shared
variables, the rows of a batch, or either behind a stop-gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Variable
from pytensor.tensor.shape import shape_i

from pymc.logprob.transforms import Transform
from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.group_batches import GroupBatch
from pymc.minibatch.group_reads import Groups
from pymc.minibatch.plates import local_axes
from pymc.variational.configurable import Configurable
from pymc.variational.guides.unnumbered_rows import UnnumberedRows, named_axes

if TYPE_CHECKING:
    from pymc.model.core import Model
    from pymc.variational.guides.initial_values import InitialValues

T = TypeVar("T")

#: The subsampled axes of a variable, in their order; empty for a global variable.
Plate: TypeAlias = tuple[Rows, ...]

#: Lengths of the leading axes of a draw: outer draws, particles. Empty for one draw.
SampleShape: TypeAlias = tuple[Any, ...]

#: A draw of all variables of a guide, in the guide's own form.
Latents: TypeAlias = tuple[Variable, ...]

#: Draws of variables of the model that a guide may depend on, on their own spaces.
Parents: TypeAlias = Mapping[Variable, Variable]

#: The parameters of a flat guide by name.
Params: TypeAlias = Mapping[str, Variable]


@dataclass(frozen=True, eq=False)
class Site:
    """A free variable of a model, as guides see it."""

    rv: Variable
    value: Variable  # on the unconstrained space
    transform: Transform | None
    axes: tuple[Rows | None, ...]  # the rows on each axis of the value; None for other axes
    groups: Groups | None = None  # those that it is about; None for all entries

    @property
    def name(self) -> str:
        return self.rv.name or ""

    @property
    def plate(self) -> Plate:
        return tuple(axis for axis in self.axes if axis is not None)

    @property
    def row_axes(self) -> list[int]:
        """The positions of the axes that hold rows."""
        return [k for k, axis in enumerate(self.axes) if axis is not None]

    def entries(self, array: np.ndarray) -> np.ndarray:
        """Return the entries that the site is about, of an array of all entries."""
        return array if self.groups is None else array[self.groups.index()]

    def whole_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of all entries, from that of those that the site is about."""
        groups = self.groups
        if groups is None:
            return tuple(shape)
        return (*shape[: groups.axis], *groups.lengths, *shape[groups.axis + 1 :])

    def numbers(self, shape: Sequence[int]) -> np.ndarray:
        """Return the number of each entry of `shape`, of one row, among all in C order."""
        whole = self.whole_shape(shape)
        return self.entries(np.arange(int(np.prod(whole))).reshape(whole)).ravel()

    def into(self, part: Variable, n_sample_dims: int, whole: Variable | float = 0.0) -> Variable:
        """Write the site's entries into `whole`, or into an array of one value."""
        if self.groups is None:
            return part
        if not isinstance(whole, Variable):
            shape = [n or length for length, n in zip(part.shape, part.type.shape)]
            axis = n_sample_dims + self.groups.axis
            shape[axis : axis + 1] = self.groups.lengths
            whole = pt.full(shape, np.array(whole, part.type.dtype))
        return pt.set_subtensor(whole[self.groups.index(n_sample_dims)], part)


def add_values(
    values: dict[Variable, Variable], of_sites: Mapping[Site, Variable], n_sample_dims: int
) -> None:
    """Add values of sites to those by value variable; entries that no site is about are 0."""
    for site, part in of_sites.items():
        values[site.value] = site.into(part, n_sample_dims, values.get(site.value, 0.0))


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter of a guide, without storage.

    The initial value of a global parameter has its shape. That of a parameter of rows has shape (1, n), the
    same for all rows, or (total rows, n), the rows of several axes in C order.
    """

    name: str
    start: np.ndarray
    plate: Plate = ()  # the rows that each have one


#: The graph of each parameter. That of a parameter of rows has shape (rows of the batch, n).
ParamValues: TypeAlias = Mapping[Parameter | SharedVariable, Variable]


#: The value of each parameter.
ParamArrays: TypeAlias = Mapping[Parameter, np.ndarray]


@runtime_checkable
class NormalGuide(Protocol):
    r"""A guide whose density is :math:`\exp(\eta \cdot T(z) + c)`, with statistics T of first and second order.

    Natural parameters :math:`\eta` add up where normal densities are multiplied.
    """

    def statistics(self, param_values: ParamValues, center: Variable) -> Variable:
        """Return the mean of T(z - center), as a graph: a vector, means first."""

    def entropy(self, param_values: ParamValues) -> Variable:
        """Return the entropy in nats, but for a constant."""

    def coordinates(self, param_values: ParamValues) -> Variable:
        """Return means, and functions of the other parameters that noisy steps have right on average.

        At rest, steps by the gradient of an ELBO have mean 0. So the squares of standard deviations are those of the
        optimum on average, and neither these nor the parameters are.
        """

    def coordinates_of(self, values: ParamArrays) -> np.ndarray:
        """Return the coordinates at some values, float64."""

    def natural(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the natural parameters."""

    def relative(self, values: ParamArrays) -> dict[Parameter, np.ndarray]:
        """Return the values that stand for these ones where parameters are relative to them."""

    def absolute(
        self, param_values: ParamValues, origin: ParamValues
    ) -> Mapping[Parameter, Variable]:
        """Return the parameters that some stand for which are relative to an origin, so that steps have its scale."""

    def of_natural(self, natural: np.ndarray) -> dict[Parameter, np.ndarray] | None:
        """Return the parameters; None if no distribution has these natural ones."""

    def centered(self, natural: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Return the natural parameters of z - center."""


class Guide(Configurable, ABC):
    """A variational distribution of some latent variables: subclass it to write a guide.

    The object that a user makes is a specification with hyperparameters alone. :meth:`bind` returns a copy
    for certain variables of a model, and the other methods belong to such a copy.
    :class:`~pymc.variational.guides.base.FlatGuide` implements most of them for a guide that treats the
    values of its variables as one vector.

    Attributes
    ----------
    name : str
        Its name in messages and reports.
    couples_rows : bool
        Whether it makes rows of a subsampled dim depend on each other. It is refused for such variables.
    needs_rows : bool
        Whether it is for variables with rows only.
    takes_discrete : bool
        Whether its variables may be discrete.
    variables : tuple of str or None
        The variables that it is for, if it names them.
    dim : str or None
        The dim of the rows that it is for, which the model need not subsample.
    takes_groups : bool
        Whether it can be for the groups of a variable that have rows, and not for all.
    reparametrised : bool
        Whether gradients pass through its draws.
    has_logq : bool
        Whether it has a density.
    sites : tuple of Site
        The variables of a bound guide, all of one plate.
    parameters : tuple of Parameter or SharedVariable
        What a fit optimises: its own parameters, and shared variables of the user.
    """

    name: str
    couples_rows: bool = False
    needs_rows: bool = False
    takes_discrete: bool = False
    variables: tuple[str, ...] | None = None
    dim: str | None = None
    takes_groups: bool = False
    reparametrised: bool = True
    has_logq: bool = True
    sites: tuple[Site, ...]
    parameters: tuple[Parameter | SharedVariable, ...]

    @property
    def plate(self) -> Plate:
        """The rows of its variables; empty for a guide of global variables."""
        return self.sites[0].plate

    @property
    def of_batch(self) -> tuple[Guide, ...]:
        """The guides that a step draws in its place, with the same parameters."""
        return (self,)

    @property
    def group_batches(self) -> tuple[GroupBatch, ...]:
        """How a batch takes groups of its variables, where it does."""
        return ()

    @abstractmethod
    def bind(self, sites: Sequence[Site], starts: InitialValues, model: Model) -> Guide:
        """Return this guide for some variables of a model.

        Parameters
        ----------
        sites : sequence of Site
            All of one plate.
        starts : InitialValues
            Initial means and standard deviations of all variables.
        model : Model
        """

    def of_saved(self, groups: Mapping[Variable, Groups]) -> Guide:
        """Return the guide of a fit that was saved, of these groups of variables that have others too."""
        return self

    def draw(
        self, param_values: ParamValues, sample_shape: SampleShape, parents: Parents
    ) -> Latents:
        """Draw all variables.

        Parameters
        ----------
        param_values : mapping
            The graph of each parameter.
        sample_shape : tuple of int or scalar integer
            Lengths of the leading axes of the draw.
        parents : mapping of Variable to Variable
            Variables of the model that were drawn before, each with its draw: axes that broadcast
            with `sample_shape`, and then its own.
        """
        raise NotImplementedError(f"{self!r} is not bound to variables")

    def values(self, latents: Latents, n_sample_dims: int) -> dict[Site, Variable]:
        """Return the unconstrained value of each site in a draw with `n_sample_dims` leading axes.

        Those of a site of some groups have no others.
        """
        raise NotImplementedError(f"{self!r} is not bound to variables")

    def logq(
        self, latents: Latents, param_values: ParamValues, n_sample_dims: int, parents: Parents
    ) -> Variable:
        """Return the log-density of a draw in nats, on the unconstrained space.

        It has to be a function of the draw and of `param_values` alone, since estimators such as "stl" stop
        the gradient through one of them. Its axes are the `n_sample_dims` leading ones, then the plate's.
        """
        raise NotImplementedError(f"{self!r} is not bound to variables")

    def moments(self, param_values: ParamValues) -> tuple[Variable, Variable]:
        """Return mean and standard deviation on the unconstrained space.

        Raises
        ------
        NotImplementedError
            If they have no closed form.
        """
        raise self._no_closed_form("mean")

    def covariance(self, param_values: ParamValues) -> Variable:
        """Return the covariance on the unconstrained space, shape (size, size).

        Raises
        ------
        NotImplementedError
            If it has no closed form.
        """
        raise self._no_closed_form("covariance")

    def _no_closed_form(self, moment: str) -> NotImplementedError:
        names = [site.name for site in self.sites]
        return NotImplementedError(
            f"the {moment} of the guide {self.name!r} of {names} has no closed form: take that of draws, "
            f"approx.sample(var_names={names})"
        )

    @property
    def has_moments(self) -> bool:
        """Return True if mean and standard deviation have a closed form."""
        return type(self).moments is not Guide.moments

    def particles(self, param_values: ParamValues) -> Latents | None:
        """Return all particles of a guide that is a set of them, and None for any other guide."""
        return None

    def parameter_scales(self, values: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        """Return the natural scale of each parameter at some values, where it is known."""
        return {}

    def reads(self) -> set[Variable]:
        """Return the variables that its distributions depend on, up to free variables of the model."""
        return set()


def sites_of(model: Model, unnumbered: Sequence[UnnumberedRows] = ()) -> list[Site]:
    """List the free variables of a model; `unnumbered` are rows of dims that it does not subsample."""
    numbered, named = local_axes(model), named_axes(model, unnumbered)
    sites = []
    for rv in model.free_RVs:
        value = model.rvs_to_values[rv]
        axes: list[Rows | None] = [None] * value.type.ndim
        for found in (numbered.get(rv, ()), named.get(rv, ())):
            # A transform may change the number of the last axes, which hold no rows
            for k, axis in enumerate(found[: len(axes)]):
                if isinstance(axis, Rows):
                    axes[k] = axis
        sites.append(Site(rv, value, model.rvs_to_transforms[rv], tuple(axes)))
    return sites


def in_dependency_order(
    items: Iterable[T], sites: Callable[[T], Sequence[Site]], reads: Callable[[T], Set[Variable]]
) -> tuple[T, ...]:
    """Sort guides, or parts of one, so that each reads sites of earlier ones only.

    Raises
    ------
    ValueError
        If some depend on each other.
    """
    left, ordered = list(items), []
    while left:
        pending = {site.rv for item in left for site in sites(item)}
        first = next((item for item in left if pending.isdisjoint(reads(item))), None)
        if first is None:
            names = sorted(repr(site.name) for item in left for site in sites(item))
            raise ValueError(
                f"guide of pm.fit: the guides of {', '.join(names)} depend on each other, and none can be "
                "drawn first. Let the first of them be a function of data only, or write all of them in one "
                "pm.Model"
            )
        ordered.append(first)
        left.remove(first)
    return tuple(ordered)


def plate_shape(plate: Sequence[Rows]) -> tuple[Variable, ...]:
    """Return the symbolic number of rows in a batch, for each axis of a plate."""
    return tuple(shape_i(rows.index, 0) for rows in plate)


def noise(shape: Sequence[Any]) -> Variable:
    """Draw standard normal noise, anew at each evaluation."""
    return draw_random(pt.random.normal, size=tuple(shape))


def draw_random(distribution: Callable[..., Any], *arguments: Any, size: Any) -> Variable:
    """Draw from a distribution of :mod:`pytensor.tensor.random` with a new generator."""
    rng = pytensor.shared(np.random.default_rng())
    return distribution(*arguments, size=size, rng=rng, return_next_rng=True)[1]


def detach(param_values: ParamValues) -> dict[Parameter | SharedVariable, Variable]:
    """Stop the gradient through parameters."""
    return {parameter: disconnected_grad(var) for parameter, var in param_values.items()}


@dataclass(frozen=True)
class Layout:
    """Positions of the variables of one plate in a flat array: a vector, or a matrix with a line per row."""

    sites: tuple[Site, ...]
    shapes: tuple[tuple[int, ...], ...]  # of one row: those of the values without the plate's axes

    @classmethod
    def of(cls, sites: Sequence[Site], point: Mapping[str, np.ndarray]) -> Layout:
        """Read the shapes from the values of all rows or of a batch, by name of the value variable."""
        shapes = []
        for site in sites:
            shape = site.entries(np.asarray(point[site.value.name or ""])).shape
            if site.plate:
                shape = tuple(n for n, axis in zip(shape, site.axes) if axis is None)
            shapes.append(tuple(map(int, shape)))
        return cls(tuple(sites), tuple(shapes))

    @property
    def plate(self) -> Plate:
        return self.sites[0].plate

    @property
    def name(self) -> str:
        """The prefix of parameter names."""
        return (self.plate[0].dim or "rows") if self.plate else "globals"

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(int(np.prod(shape)) for shape in self.shapes)

    @property
    def size(self) -> int:
        """The number of entries of a row."""
        return sum(self.sizes)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The entries of each site."""
        ends = np.cumsum(self.sizes, dtype=int).tolist()
        return tuple(slice(end - size, end) for end, size in zip(ends, self.sizes))

    def entry(self, k: int) -> str:
        """Return the name of an entry: that of the variable, with an index if it has several."""
        for site, shape, part in zip(self.sites, self.shapes, self.slices):
            if k < part.stop:
                whole = site.whole_shape(shape)
                at = np.unravel_index(site.numbers(shape)[k - part.start], whole) if shape else ()
                return f"{site.name}[{', '.join(map(str, at))}]" if shape else site.name
        raise IndexError(f"{k} is beyond the last entry")

    def shape(self) -> tuple:
        """Return the symbolic shape of the flat array of a batch: (size,), or (rows, size)."""
        rows = plate_shape(self.plate)
        if not rows:
            return (self.size,)
        return (pt.mul(*rows) if len(rows) > 1 else rows[0], self.size)

    def flatten(self, point: Mapping[str, np.ndarray]) -> np.ndarray:
        """Concatenate the values of a point: shape (size,), or (rows, size)."""
        n_row_axes = len(self.plate)
        lines = []
        for site in self.sites:
            value = site.entries(np.asarray(point[site.value.name or ""]))
            moved = np.moveaxis(value, site.row_axes, range(n_row_axes))
            lines.append(moved.reshape(int(np.prod(moved.shape[:n_row_axes])), -1))
        flat = np.concatenate(lines, axis=1)
        return flat if n_row_axes else flat[0]

    def split(self, flat: Variable, n_sample_dims: int) -> dict[Site, Variable]:
        """Split a flat array with `n_sample_dims` leading axes into the values of the sites."""
        rows = plate_shape(self.plate)
        sample_shape = tuple(flat.shape[k] for k in range(n_sample_dims))
        leading = list(range(n_sample_dims, n_sample_dims + len(rows)))
        values = {}
        for site, shape, entries in zip(self.sites, self.shapes, self.slices):
            part = flat[..., entries.start] if shape == () else flat[..., entries]
            if len(rows) > 1 or len(shape) > 1:
                part = part.reshape((*sample_shape, *rows, *shape))
            places = [n_sample_dims + k for k in site.row_axes]
            values[site] = part if places == leading else pt.moveaxis(part, leading, places)
        return values

    def join(self, values: Mapping[Site, Variable], n_sample_dims: int) -> Variable:
        """Concatenate values of the sites; the inverse of `split`."""
        leading = list(range(n_sample_dims, n_sample_dims + len(self.plate)))
        parts = []
        for site, size in zip(self.sites, self.sizes):
            places = [n_sample_dims + k for k in site.row_axes]
            part = pt.moveaxis(values[site], places, leading)
            sample_shape = tuple(part.shape[k] for k in range(n_sample_dims))
            parts.append(part.reshape((*sample_shape, *self.shape()[:-1], size)))
        return pt.concatenate(parts, axis=-1)

    def by_row_axes(self, logq: Variable, n_sample_dims: int) -> Variable:
        """Reshape a value for each row, (..., rows), to the axes of the plate."""
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
        The position of each variable in the vector.
    params_by_name : dict of str to Parameter
        Its parameters by the names in `start`.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.variational.guides.base import FlatGuide, draw_random
    >>> class Uniform(FlatGuide):
    ...     name = "uniform"
    ...
    ...     def start(self, starts):
    ...         return {
    ...             "low": starts.means(self.layout) - 1,
    ...             "log_width": np.zeros(self.layout.size),
    ...         }
    ...
    ...     def sample(self, params, sample_shape):
    ...         u = draw_random(pt.random.uniform, size=(*sample_shape, self.layout.size))
    ...         return params["low"] + pt.exp(params["log_width"]) * u
    ...
    ...     def log_density(self, z, params):
    ...         return (-params["log_width"] + 0 * z).sum(axis=-1)
    """

    takes_groups = True
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
        """Return the initial value of each parameter, by name.

        The arrays of a guide of rows have shape (1, n), or (total rows, n) if rows start differently.
        """

    @abstractmethod
    def sample(self, params: Params, sample_shape: SampleShape) -> Variable:
        r"""Return draws, of shape (\*sample_shape, size), or (\*sample_shape, rows, size)."""

    @abstractmethod
    def log_density(self, z: Variable, params: Params) -> Variable:
        """Return the log-density of draws in nats, without their last axis."""

    def conditional(self, params: Params, parents: Parents) -> Params:
        """Return the parameters, given draws of the variables that the guide :meth:`reads`."""
        return params

    def values_by_name(self, param_values: ParamValues) -> dict[str, Variable]:
        """Return the graph of each parameter by its short name."""
        return {name: param_values[param] for name, param in self.params_by_name.items()}

    def draw(
        self, param_values: ParamValues, sample_shape: SampleShape, parents: Parents
    ) -> Latents:
        params = self.conditional(self.values_by_name(param_values), parents)
        return (self.sample(params, sample_shape),)

    def values(self, latents: Latents, n_sample_dims: int) -> dict[Site, Variable]:
        return self.layout.split(latents[0], n_sample_dims)

    def logq(
        self, latents: Latents, param_values: ParamValues, n_sample_dims: int, parents: Parents
    ) -> Variable:
        params = self.conditional(self.values_by_name(param_values), parents)
        return self.layout.by_row_axes(self.log_density(latents[0], params), n_sample_dims)
