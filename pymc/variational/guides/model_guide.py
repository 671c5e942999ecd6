# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""A guide that is written as a model.

.. math::

    q(z) = \prod_j q(z_j \mid z_{<j}, x)

The variables of the guide model bear the names of the latent variables, and PyMC draws them and derives their
log-density. What is fitted are the shared variables that they are computed from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import (
    ancestors,
    explicit_graph_inputs,
    toposort,
    truncated_graph_inputs,
)
from pytensor.tensor.random.op import RandomVariable, RNGConsumerOp
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.shape import shape_i
from pytensor.xtensor.type import XTensorVariable

from pymc.distributions.shape_utils import change_dist_size
from pymc.logprob.basic import logp
from pymc.minibatch.axis_tracking import indexes
from pymc.minibatch.plates import subsampled_dims
from pymc.minibatch.rebuild import rebuild
from pymc.variational.guides.base import (
    Guide,
    Latents,
    Parameter,
    ParamValues,
    SampleShape,
    Site,
    plate_shape,
    topological_order,
)
from pymc.variational.guides.distribution_checks import check_distribution, check_rows
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.lookups import batch_of, check_params
from pymc.variational.guides.reparametrize import Path, path
from pymc.variational.guides.unnumbered_rows import UnnumberedRows
from pymc.variational.stable_logs import stabilised
from pymc.variational.vectorize import at_draws

if TYPE_CHECKING:
    from pymc.model.core import Model

PYTHON = Mode(linker="py", optimizer=None)

#: How many draws of a transform are looked at.
N_PROBED = 32


@runtime_checkable
class AutoGuide(Protocol):
    """A guide as pymc-extras makes it: a model, whose variables are on the unconstrained space.

    Attributes
    ----------
    model : Model
        Its variables are named as those of the model that it is for.
    params_init_values : mapping of Variable to array
        Where each parameter starts; they are inputs of the graphs of `model`.
    """

    @property
    def model(self) -> Any: ...

    @property
    def params_init_values(self) -> Mapping[Variable, np.ndarray]: ...


class ModelGuide(Guide):
    """A guide whose distributions are those of the variables of a model.

    Parameters
    ----------
    guide : Model
        Its variables are named as the latent variables of the model that is fitted, and are on their own
        spaces. One that is named as the value variable, such as ``"sigma_log__"``, is on the
        unconstrained space. A Deterministic of such a name is a transform of other variables.
    unconstrained : bool
        Whether all variables are on the unconstrained space, by the names of the variables.
    values : mapping of Variable to SharedVariable, optional
        Shared variables that stand for inputs of the graphs of `guide`.

    Examples
    --------
    >>> import pytensor
    >>> from pymc.variational.guides.model_guide import ModelGuide
    >>> with pm.Model() as guide:
    ...     mu = pm.Normal("mu", pytensor.shared(0.0, name="m"), 1)
    ...     z = pm.Normal("z", mu, 1)
    >>> sorted(ModelGuide(guide).own)
    ['mu', 'z']
    """

    name = "model"
    takes_discrete = True
    #: What is trained; where that is None, all shared variables of floats that its distributions are
    #: computed from, but for data and what the model's own terms depend on.
    params: tuple[SharedVariable, ...] | None = None
    #: The distributions of a bound guide, in an order in which they can be drawn.
    parts: tuple[Part, ...]

    def __init__(
        self,
        guide: Any,
        *,
        unconstrained: bool = False,
        values: Mapping[Variable, Variable] = {},
    ) -> None:
        self.guide = guide
        self.unconstrained = unconstrained
        self.values_of_inputs = values

    @classmethod
    def of_auto_guide(cls, guide: AutoGuide) -> Self:
        """Take a guide of pymc-extras, with shared variables for its parameters."""
        values = {
            var: pytensor.shared(np.asarray(start, var.type.dtype), name=var.name)
            for var, start in guide.params_init_values.items()
        }
        return cls(guide.model, unconstrained=True, values=values)

    @cached_property
    def own(self) -> dict[str, Variable]:
        """The variables of the guide by their names, which may be those of latent ones."""
        return {var.name: var for var in [*self.guide.free_RVs, *self.guide.deterministics]}

    def of_model(self, model: Model) -> Self:
        """Return this guide with the names of the variables of `model` that it is for.

        Raises
        ------
        ValueError, NotImplementedError
            If the guide has what a guide cannot have.
        """
        check_guide_model(self.guide, self.own, model)
        new = copy(self)
        new.variables = tuple(
            rv.name for rv in model.free_RVs if self._written(rv, model.rvs_to_values[rv])
        )
        return new

    def _written(self, rv: Variable, value: Variable) -> tuple[Variable, bool] | None:
        """Return the variable of the guide that is of a latent one, and whether it is unconstrained."""
        if rv.name in self.own:
            return self.own[rv.name], self.unconstrained
        if value.name in self.own:
            return self.own[value.name], True
        return None

    def subject(self, name: str) -> str:
        """Return what messages call the distribution of a variable."""
        return f"the variable {name!r} of the guide model"

    def distribution_of(self, site: Site, model: Model) -> tuple[Variable, bool]:
        """Return the graph of a variable's distribution, with the variables, data and batches of `model`.

        Returns
        -------
        graph : Variable
        unconstrained : bool
            Whether it is one on the unconstrained space.
        """
        found = self._written(site.rv, site.value)
        if found is None:
            raise ValueError(
                f"the guide model has no variable {site.name!r}, but {', '.join(map(repr, self.own))}"
            )
        swaps: dict[Variable, Variable] = dict(self.values_of_inputs)
        for rv in model.free_RVs:
            other = self._written(rv, model.rvs_to_values[rv])
            if other is not None and rv is not site.rv:
                swaps[other[0]] = free_of(rv, model) if other[1] else rv
        self._check_dims(found[0], site, model)
        graph = batch_of(rebuild([found[0]], swaps)[0], model, self.guide)
        lengths, plates = self.guide.dim_lengths, subsampled_dims(model)
        # The length of a dim is last: the index of a batch is computed from that of all rows
        of_batch = {lengths[dim]: shape_i(plates[dim], 0) for dim in lengths if dim in plates}
        for rows in site.plate:
            if isinstance(rows, UnnumberedRows) and rows.dim in lengths:
                of_batch[lengths[rows.dim]] = rows.length
        [graph] = rebuild([graph], of_batch)
        check_inputs(graph, self.subject(site.name))
        return graph, found[1]

    def _check_dims(self, var: Variable, site: Site, model: Model) -> None:
        dims = self.guide.named_vars_to_dims.get(var.name)
        theirs = model.named_vars_to_dims.get(site.name)
        if dims and theirs and var.type.ndim == site.rv.type.ndim and tuple(dims) != tuple(theirs):
            raise ValueError(
                f"{self.subject(site.name)} has dims={tuple(dims)}, but in the model that is fitted it has "
                f"dims={tuple(theirs)}: rows are told by their dims, so give it these"
            )

    @property
    def data(self) -> tuple[Variable, ...]:
        """Data of the guide itself, which are not trained."""
        return tuple(self.guide.data_vars)

    def bind(self, sites: Sequence[Site], starts: InitialValues, model: Model) -> Self:
        """Return the guide of some of its variables in `model`.

        Raises
        ------
        TypeError, ValueError
            If what it has for a variable is no distribution of it, row by row.
        """
        bound = copy(self)
        parts, graphs = [], []
        for site in sites:
            subject = self.subject(site.name)
            graph, unconstrained = self.distribution_of(site, model)
            check_distribution(graph, site, model, subject, unconstrained)
            check_rows(graph, site, model, subject)
            part = Part.of(graph, site, unconstrained, model, subject)
            part.check_values(subject)
            parts.append(part)
            graphs.append(graph)
        bound.parts = parts_in_order(parts)
        bound.sites = tuple(part.site for part in bound.parts)
        bound.parameters = check_params(self.params, graphs, model, self.data)
        bound.reparametrised = all(part.reparametrised for part in parts)
        return bound

    def reads(self) -> set[Variable]:
        return set().union(*(part.reads() for part in self.parts)) - {s.rv for s in self.sites}

    @property
    def graphs(self) -> list[Variable]:
        """The distributions of a bound guide, of other variables in whose place draws come."""
        return [part.graph for part in self.parts]

    def draw(
        self,
        param_values: ParamValues,
        sample_shape: SampleShape,
        parents: Mapping[Variable, Variable],
    ) -> Latents:
        """Draw the variables one after the other, on the spaces on which the guide has them."""
        known = {**changed(param_values), **parents}
        latents = []
        for part in self.parts:
            latents.append(part.draw(known, sample_shape))
            known[part.site.rv] = part.own_space(latents[-1])
        return tuple(latents)

    def block_of(self, drawn: Mapping[Variable, Variable]) -> Latents:
        """Return the block of draws that were made elsewhere, of variables on their own spaces."""
        return tuple(
            own_to_free(part.site, drawn[part.site.rv])
            if part.unconstrained
            else drawn[part.site.rv]
            for part in self.parts
        )

    def values(self, latents: Latents, n_sample_dims: int) -> dict[Site, Variable]:
        return {
            part.site: draw if part.unconstrained else own_to_free(part.site, draw)
            for part, draw in zip(self.parts, latents, strict=True)
        }

    def logq(
        self,
        latents: Latents,
        param_values: ParamValues,
        n_sample_dims: int,
        parents: Mapping[Variable, Variable],
    ) -> Variable:
        own = {
            part.site.rv: part.own_space(draw)
            for part, draw in zip(self.parts, latents, strict=True)
        }
        known = {**changed(param_values), **parents, **own}
        terms = [part.logq_of(draw, known) for part, draw in zip(self.parts, latents, strict=True)]
        return pt.add(*terms) if len(terms) > 1 else terms[0]


def own_to_free(site: Site, draw: Variable) -> Variable:
    """Map draws of a variable from its own space to the unconstrained one."""
    if site.transform is None:
        return draw
    mark = site.rv.type.clone(shape=(None,) * site.rv.type.ndim)()
    return at_draws([site.transform.forward(mark, *site.rv.owner.inputs)], {mark: draw})[0]


def free_of(rv: Variable, model: Model) -> Variable:
    """Return a variable of a model on the unconstrained space."""
    transform = model.rvs_to_transforms[rv]
    return rv if transform is None else transform.forward(rv, *rv.owner.inputs)


def check_guide_model(guide: Any, own: Mapping[str, Variable], model: Model) -> None:
    """Raise where a guide model has what a guide cannot have.

    Raises
    ------
    ValueError, NotImplementedError
    """
    latent = {rv.name: rv for rv in model.free_RVs}
    latent |= {model.rvs_to_values[rv].name: rv for rv in model.free_RVs}
    names = ", ".join(repr(rv.name) for rv in model.free_RVs)
    for kind, found in (("observed", guide.observed_RVs), ("a Potential", guide.potentials)):
        if found:
            raise ValueError(
                f"guide of pm.fit is a model with {found[0].name!r}, which is {kind}: a guide is a "
                f"distribution of the latent variables {names}, and data come in as its parameters"
            )
    mine = [var for name, var in own.items() if name in latent]
    for var in mine:
        if isinstance(var, XTensorVariable) or isinstance(latent[var.name], XTensorVariable):
            raise NotImplementedError(
                f"guide of pm.fit is a model with {var.name!r} of pymc.dims, whose log-density is not "
                f"derived here. Write it as one of pm, such as pm.Normal({var.name!r}, dims=...), in "
                "both models, or give it 'mean_field'"
            )
    _check_names(guide, mine, latent, names)
    used: dict[Variable, str] = {}
    for var in mine:
        others = {other: other.type() for other in mine if other is not var}
        # Not of the others, which are what their own names say
        for source in sources_of(rebuild([var], others)[0]):
            for rng in source.owner.inputs:
                if isinstance(rng.type, RandomType) and used.setdefault(rng, var.name) != var.name:
                    raise ValueError(
                        f"the variables {used[rng]!r} and {var.name!r} of the guide model are transforms "
                        f"of the same random variable {source.name or str(source)!r}, so that they have "
                        "no density together: write one as a distribution that is given the other"
                    )


def _check_names(
    guide: Any, mine: Sequence[Variable], latent: Mapping[str, Variable], names: str
) -> None:
    """Raise where the names of a guide are not those of latent variables, or one has two."""
    if not mine:
        raise ValueError(
            f"guide of pm.fit is a model with the variables {[var.name for var in guide.free_RVs]}, none "
            f"of which is a latent variable of the model that is fitted: these are {names}"
        )
    twice = [var.name for var in mine if sum(latent[v.name] is latent[var.name] for v in mine) > 1]
    if twice:
        raise ValueError(
            f"guide of pm.fit is a model with {' and '.join(map(repr, twice))}, which are one variable on "
            "two spaces: leave one of them out"
        )
    found = set(ancestors(mine))
    idle = [var.name for var in guide.free_RVs if var.name not in latent and var not in found]
    if idle:
        raise ValueError(
            f"guide of pm.fit is a model with {', '.join(map(repr, idle))}, which the model that is fitted "
            f"does not have, and no variable of the guide is computed from: its latent variables are {names}"
        )


def check_inputs(graph: Variable, subject: str) -> None:
    """Raise where a graph is computed from what has no value.

    Raises
    ------
    ValueError
    """
    for var in explicit_graph_inputs([graph]):
        if not isinstance(var, SharedVariable):
            raise ValueError(
                f"{subject} is computed from {var.name or str(var)!r}, which has no value: write a parameter "
                "that is trained as pytensor.shared(0.0, name=...), and data as pm.Data"
            )


def changed(param_values: ParamValues) -> dict[Variable, Variable]:
    """Return what stands for shared variables, where it is not the variable itself."""
    return {
        old: new
        for old, new in param_values.items()
        if not isinstance(old, Parameter) and old is not new
    }


@dataclass(frozen=True, eq=False)
class Source:
    """A random variable that a distribution is computed from.

    Parameters
    ----------
    rv : Variable
    mark : Variable
        What stands for it.
    given : Variable
        The random variable, of the marks of the sources before it.
    way : Path or None
        Its draws as a function of noise, where there is one with a gradient.
    """

    rv: Variable
    mark: Variable
    parents: Variable
    way: Path | None


@dataclass(frozen=True, eq=False)
class Part:
    """The distribution of one variable.

    Parameters
    ----------
    site : Site
    unconstrained : bool
        Whether the distribution is on the unconstrained space.
    graph : Variable
        The distribution, of marks for other variables of the model.
    marks : mapping of Variable to Variable
        For each of those variables its mark.
    sources : tuple of Source
        Those that others are computed from come before these.
    draw_graph : Variable
        A draw as a function of the marks of sources.
    value : Variable
        What stands for a draw in `logq`.
    density : Variable
        Log-density at `value` on the unconstrained space, in nats, for each row.
    """

    site: Site
    unconstrained: bool
    graph: Variable
    marks: Mapping[Variable, Variable]
    sources: tuple[Source, ...]
    draw_graph: Variable
    value: Variable
    density: Variable

    @classmethod
    def of(
        cls, graph: Variable, site: Site, unconstrained: bool, model: Model, subject: str
    ) -> Part:
        """Derive how to draw and the log-density.

        Raises
        ------
        ValueError
            If PyMC cannot derive the log-density.
        """
        free = set(ancestors([graph], blockers=model.free_RVs)).intersection(model.free_RVs)
        marks = {rv: rv.type() for rv in model.free_RVs if rv in free}
        [graph] = graph_replace([graph], marks, strict=False) if marks else [graph]
        sources = chain_of(sources_of(graph))
        draw_graph = rebuild([graph], {source.rv: source.mark for source in sources})[0]
        like = site.value if unconstrained else site.rv
        value = like.type.clone(shape=(None,) * like.type.ndim)()
        [by_row] = stabilised([density_by_row(graph, value, site, unconstrained, subject)])
        return cls(site, unconstrained, graph, marks, sources, draw_graph, value, by_row)

    @property
    def reparametrised(self) -> bool:
        return all(source.way is not None for source in self.sources)

    def reads(self) -> set[Variable]:
        """Return what the distribution is computed from, up to free variables of the model."""
        return set(ancestors([self.graph])).difference(self.marks.values()).union(self.marks)

    def check_values(self, subject: str) -> None:
        """Draw a transform of random variables, and raise where its values cannot be right.

        Raises
        ------
        ValueError
            If entries share their noise, or are not in the support of the variable, or the draws of a
            continuous one have no density.
        """
        if isinstance(self.graph.owner.op, RNGConsumerOp):
            return
        draws = self.draw({rv: rv for rv in self.marks}, (N_PROBED,))
        free = draws if self.unconstrained else own_to_free(self.site, draws)
        n_noise = sum(pt.prod(shape_of(source.rv), dtype="int64") for source in self.sources)
        probed = [draws[0].size, n_noise, pt.isfinite(free).all(), draws, free]
        probed = rebuild(probed, {mark: rv for rv, mark in self.marks.items()})
        try:
            size, n_noise, finite, draws, free = pytensor.function([], probed, mode=PYTHON)()
        except (NotImplementedError, ValueError):  # such as of pm.Flat, which cannot be drawn
            return
        if size > n_noise:
            raise ValueError(
                f"{subject} has {size} entries, which are computed from {n_noise} random numbers, so that "
                "it has no density: give the random variables that it transforms its shape"
            )
        if not finite:
            raise ValueError(
                f"{subject} has draws that are no values of {self.site.name!r}, whose transform is "
                f"{self.site.transform.name!r}: write it on the variable's own space, such as pt.exp(...) "
                f"for a positive one, or name it {self.site.value.name!r} and write it unconstrained"
            )
        if draws.dtype.kind == "f":
            check_density(draws, free, subject)

    def _at(self, known: Mapping[Variable, Variable]) -> dict[Variable, Variable]:
        """Put marks in the place of variables, of which draws are known."""
        return {self.marks.get(var, var): draw for var, draw in known.items()}

    def draw(self, known: Mapping[Variable, Variable], sample_shape: SampleShape) -> Variable:
        """Draw, on the space of the distribution, given draws of other variables."""
        swaps = self._at(known)
        for source in self.sources:
            lengths = self._lengths(source, swaps)
            swaps[source.mark] = draw_source(source, lengths, swaps, sample_shape, self.site)
        if self.draw_graph in swaps:
            draw = swaps[self.draw_graph]
        else:
            draw = at_draws([self.draw_graph], swaps)[0]
        return pt.cast(draw, self.value.type.dtype)

    def _lengths(self, source: Source, swaps: Mapping[Variable, Variable]) -> list[Variable | int]:
        """Return the shape of one draw: of rows the length of the batch, also where all of them are alike."""
        rv = source.rv
        lengths: list[Any] = list(rv.type.shape)
        if rv is self.graph and not self.unconstrained:
            rows = dict(zip(self.site.plate, plate_shape(self.site.plate)))
            for k, (axis, known) in enumerate(zip(self.site.axes, self.site.rv.type.shape)):
                if k < rv.type.ndim:
                    lengths[k] = rows[axis] if axis is not None else known or lengths[k]
        if None not in lengths:
            return lengths
        # One draw of each variable has the shape that all have
        one = {old: new[(0,) * (new.type.ndim - old.type.ndim)] for old, new in swaps.items()}
        [shape] = graph_replace([pt.stack(shape_of(source.parents))], one, strict=False)
        return [shape[k] if n is None else n for k, n in enumerate(lengths)]

    def own_space(self, draw: Variable) -> Variable:
        """Map a draw to the variable's own space."""
        site = self.site
        if not self.unconstrained or site.transform is None:
            return draw
        mark = site.value.type.clone(shape=(None,) * site.value.type.ndim)()
        return at_draws([site.transform.backward(mark, *site.rv.owner.inputs)], {mark: draw})[0]

    def logq_of(self, draw: Variable, known: Mapping[Variable, Variable]) -> Variable:
        """Return the log-density of a draw, for each row."""
        found = at_draws([self.density], {**self._at(known), self.value: draw})[0]
        return pt.cast(found, pytensor.config.floatX)


def check_density(draws: np.ndarray, free: np.ndarray, subject: str) -> None:
    """Raise where draws of a continuous variable cannot be of a distribution with a density.

    Parameters
    ----------
    draws, free : array
        Draws on the space of the distribution and on the unconstrained one, along the first axis.
    subject : str

    Raises
    ------
    ValueError
        If a value comes several times, or entries are linear functions of each other.
    """
    draws, free = _that_vary(draws), _that_vary(free)
    # Two draws in float32 may be rounded to one value
    n_alike = 1 if draws.dtype == np.float64 else 2
    ordered = np.sort(draws, axis=0)
    if (ordered[n_alike:] == ordered[:-n_alike]).any():
        raise ValueError(
            f"{subject} has draws of one value, as of pt.clip or pt.round, so that it has no density: "
            "write it as a distribution with that support, such as pm.TruncatedNormal, or as a "
            "transform that can be inverted"
        )
    # Of more entries than draws the first tell as much as draws can
    few = free[:, : len(free) // 2]
    scaled = (few - few.mean(0)) / few.std(0)
    by_size = free[:, np.argsort(free[0])]
    same = (by_size[:, 1:] == by_size[:, :-1]).all(0)
    if same.any() or np.linalg.matrix_rank(scaled) < few.shape[1]:
        raise ValueError(
            f"{subject} has entries that are the same in each draw, or linear functions of each other, "
            "so that it has no density: give each entry a random number of its own"
        )


def _that_vary(draws: np.ndarray) -> np.ndarray:
    """Take the entries that differ between draws by more than rounding, one column of each."""
    draws = draws.reshape(len(draws), -1)
    rounding = 1e4 * np.finfo(draws.dtype).eps * abs(draws).max(0)
    return draws[:, np.ptp(draws, axis=0) > rounding]


def parts_in_order(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Put parts that others are computed from before these.

    Raises
    ------
    ValueError
        If some depend on each other.
    """
    ordered, left = topological_order(
        parts, lambda part: (part.site,), lambda part: part.marks.keys()
    )
    if left:
        names = ", ".join(sorted(repr(part.site.name) for part in left))
        raise ValueError(
            f"guide of pm.fit: the guides of {names} depend on each other, and none can be drawn "
            "first. Let the first of them be a function of data only"
        )
    return tuple(ordered)


def sources_of(graph: Variable) -> list[Variable]:
    """List the random variables that a graph is computed from, but not what those are computed from."""
    found: dict[Variable, None] = {}
    batches, seen, waiting = set(indexes([graph], by_shape=True)), set(), [graph]
    while waiting:
        var = waiting.pop()
        if var in seen or var in batches or var.owner is None:
            continue
        seen.add(var)
        if isinstance(var.owner.op, RNGConsumerOp):
            found[var] = None
        else:
            waiting += reversed(var.owner.inputs)
    return list(found)


def chain_of(rvs: Sequence[Variable]) -> tuple[Source, ...]:
    """Put random variables in an order in which they can be drawn, each given those before it."""
    if len(rvs) > 1:
        nodes = [node for node in toposort(list(rvs)) if isinstance(node.op, RNGConsumerOp)]
        rvs = sorted(rvs, key=lambda rv: nodes.index(rv.owner))
    sources: list[Source] = []
    for rv in rvs:
        mark = rv.type.clone(shape=(None,) * rv.type.ndim)()
        parents = rebuild([rv], {source.rv: source.mark for source in sources})[0]
        sources.append(Source(rv, mark, parents, path(parents)))
    return tuple(sources)


def shape_of(dist: Variable) -> Sequence[Variable]:
    """Return the shape of a distribution, computed from its parameters and not from a draw."""
    node = dist.owner
    if isinstance(node.op, RandomVariable):
        return node.op._infer_shape(node.op.size_param(node), node.op.dist_params(node))
    return list(drawn_anew(dist).shape)


def draw_source(
    source: Source,
    lengths: Sequence[Any],
    swaps: Mapping[Variable, Variable],
    sample_shape: SampleShape,
    site: Site,
) -> Variable:
    """Draw a random variable, with leading axes; each draw has noise of its own."""
    rv, way = source.parents, source.way
    if way is not None:
        noise = way.of_shape((*sample_shape, *lengths))
        return at_draws([way.draw], {**swaps, way.noise: noise})[0]
    draw = at_draws([drawn_anew(rv)], swaps)[0]
    n_batch = rv.type.ndim - rv.owner.op.ndim_supp
    try:
        return change_dist_size(draw, (*sample_shape, *lengths[:n_batch]))
    except (NotImplementedError, TypeError, ValueError) as error:
        raise NotImplementedError(
            f"the guide of {site.name!r} draws from {rv.owner.op}, which cannot be drawn for several "
            "values of other variables: take obj_n_mc=1, or a distribution with an Op of its own, such "
            "as pm.Normal"
        ) from error


def drawn_anew(dist: Variable) -> Variable:
    """Give a distribution a generator of its own: draws of two graphs are independent."""
    node = dist.owner
    inputs = [
        pytensor.shared(v.get_value()) if isinstance(v.type, RandomType) else v for v in node.inputs
    ]
    return node.clone_with_new_inputs(inputs).outputs[node.outputs.index(dist)]


def density_by_row(
    graph: Variable, value: Variable, site: Site, unconstrained: bool, subject: str
) -> Variable:
    """Derive the log-density at `value` on the unconstrained space, summed within each row."""
    parts = [derived_logp(graph, value, subject)]
    if site.transform is not None and not unconstrained:
        inputs = site.rv.owner.inputs
        free = site.transform.forward(value, *inputs)
        parts.append(site.transform.log_jac_det(free, *inputs))
    places = [k for k, axis in enumerate(site.axes) if axis is not None]
    if any(part.type.ndim <= place for part in parts for place in places):
        raise ValueError(
            f"{subject} couples the rows of {site.plate[0].dim!r}: it has one log-density for several. "
            "Give it a distribution that is independent along its rows, such as pm.Normal"
        )
    sums = []
    for part in parts:
        within = [k for k in range(part.type.ndim) if k not in places]
        sums.append(part.sum(within) if within else part)
    return pt.add(*sums) if len(sums) > 1 else sums[0]


def derived_logp(graph: Variable, value: Variable, subject: str) -> Variable:
    """Derive the log-probability of a distribution, or of a transform of some.

    Raises
    ------
    ValueError
    """
    sources = sources_of(graph)
    # What is not drawn is out of sight: PyMC would take the rows of a batch for a random variable
    outer = (
        [
            var
            for var in truncated_graph_inputs([graph], sources)
            if var not in sources and not isinstance(var, Constant) and indexes([var])
        ]
        if graph not in sources
        else []
    )
    hidden = {var: var.type() for var in outer}
    [alone] = graph_replace([graph], hidden, strict=False) if hidden else [graph]
    try:
        found = logp(alone, value, warn_rvs=False)
    except (NotImplementedError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"PyMC cannot derive the log-density of {subject}: {error}. Write it as one distribution, or "
            "as a transform that can be inverted of one random variable of its shape, such as "
            "pm.Deterministic('x', loc + scale * pm.Normal('noise', shape=...))"
        ) from error
    [found] = graph_replace([found], {mark: var for var, mark in hidden.items()}, strict=False)
    left = sources_of(found)
    if left:
        names = ", ".join(repr(var.name or str(var)) for var in left)
        raise ValueError(
            f"the log-density of {subject} depends on {names}, which the model does not have, so that "
            "it would have to be integrated out. A guide has no random variables but those of the "
            "model, and what a pm.Deterministic of such a name transforms. Leave it out, or add its "
            "noise to the distribution"
        )
    return found
