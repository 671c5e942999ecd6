# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""A guide that is written as a model.

.. math::

    q(z) = \prod_j q(z_j \mid z_{<j}, x)

The variables of the guide model have the names of the latent variables. PyMC draws them and derives their
log-density. A fit trains the shared variables that they are computed from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors, explicit_graph_inputs
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.shape import shape_i
from pytensor.xtensor.type import XTensorVariable

from pymc.minibatch.plates import subsampled_dims
from pymc.minibatch.rebuild import rebuild
from pymc.variational.guides.base import (
    Guide,
    Latents,
    Parameter,
    ParamValues,
    Parents,
    SampleShape,
    Site,
    in_dependency_order,
)
from pymc.variational.guides.distribution_checks import check_distribution, check_rows
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.latent_distribution import (
    LatentDistribution,
    random_sources,
    to_unconstrained,
)
from pymc.variational.guides.lookups import batch_in_model, guide_parameters
from pymc.variational.guides.unnumbered_rows import UnnumberedRows

if TYPE_CHECKING:
    from pymc.model.core import Model


@runtime_checkable
class AutoGuide(Protocol):
    """A guide of pymc-extras: a model on the unconstrained space, with initial values of its inputs."""

    @property
    def model(self) -> Model: ...

    @property
    def params_init_values(self) -> Mapping[Variable, np.ndarray]: ...


class ModelGuide(Guide):
    """A guide with the distributions of the variables of a model.

    Its variables have the names of latent variables of the model that is fitted, and are on their own spaces.
    One with the name of a value variable, such as ``"sigma_log__"``, is on the unconstrained space, and so are
    all if `unconstrained`. A Deterministic of such a name is a transform of other variables. `values` are
    shared variables that replace inputs of the graphs of `guide`.

    Examples
    --------
    >>> import pytensor
    >>> from pymc.variational.guides.model_guide import ModelGuide
    >>> with pm.Model() as guide:
    ...     mu = pm.Normal("mu", pytensor.shared(0.0, name="m"), 1)
    ...     z = pm.Normal("z", mu, 1)
    >>> sorted(ModelGuide(guide).guide_vars)
    ['mu', 'z']
    """

    name = "model"
    takes_discrete = True
    #: The shared variables to train. Default: all that its distributions are computed from, without
    #: data and those that the model's own terms depend on.
    params: tuple[SharedVariable, ...] | None = None
    #: The distributions of a bound guide, in an order in which they can be drawn.
    distributions: tuple[LatentDistribution, ...]

    def __init__(
        self,
        guide: Model,
        *,
        unconstrained: bool = False,
        values: Mapping[Variable, Variable] = {},
    ) -> None:
        self.guide = guide
        self.unconstrained = unconstrained
        self.values_of_inputs = values

    @classmethod
    def of_auto_guide(cls, guide: AutoGuide) -> Self:
        """Convert a guide of pymc-extras, with shared variables for its parameters."""
        values = {
            var: pytensor.shared(np.asarray(start, var.type.dtype), name=var.name)
            for var, start in guide.params_init_values.items()
        }
        return cls(guide.model, unconstrained=True, values=values)

    @cached_property
    def guide_vars(self) -> dict[str, Variable]:
        """The variables of the guide that may stand for latent ones, by name."""
        return {var.name: var for var in [*self.guide.free_RVs, *self.guide.deterministics]}

    def for_model(self, model: Model) -> Self:
        """Check this guide and return it with the names of its variables in `model`."""
        check_guide_model(self.guide, self.guide_vars, model)
        new = copy(self)
        new.variables = tuple(
            rv.name for rv in model.free_RVs if self._find(rv, model.rvs_to_values[rv])
        )
        return new

    def _find(self, rv: Variable, value: Variable) -> tuple[Variable, bool] | None:
        """Return the guide's variable for a latent one, and whether it is unconstrained."""
        if rv.name in self.guide_vars:
            return self.guide_vars[rv.name], self.unconstrained
        if value.name in self.guide_vars:
            return self.guide_vars[value.name], True
        return None

    def subject(self, name: str) -> str:
        """Return the name of a variable's distribution in messages."""
        return f"the variable {name!r} of the guide model"

    def distribution_of(self, site: Site, model: Model) -> tuple[Variable, bool]:
        """Return the graph of a variable's distribution, and whether that is on the unconstrained space.

        The graph has the variables, data and batches of `model`.
        """
        found = self._find(site.rv, site.value)
        if found is None:
            raise ValueError(
                f"the guide model has no variable {site.name!r}, but {', '.join(map(repr, self.guide_vars))}"
            )
        var, unconstrained = found
        swaps: dict[Variable, Variable] = dict(self.values_of_inputs)
        for rv in model.free_RVs:
            other = self._find(rv, model.rvs_to_values[rv])
            if other is not None and rv is not site.rv:
                transform = model.rvs_to_transforms[rv]
                if other[1] and transform is not None:
                    swaps[other[0]] = transform.forward(rv, *rv.owner.inputs)
                else:
                    swaps[other[0]] = rv
        self._check_dims(var, site, model)
        graph = batch_in_model(rebuild([var], swaps)[0], model, self.guide)
        lengths, plates = self.guide.dim_lengths, subsampled_dims(model)
        # The length of a dim comes last: the index of a batch is computed from that of all rows
        batch_lengths = {lengths[dim]: shape_i(plates[dim], 0) for dim in lengths if dim in plates}
        for rows in site.plate:
            if isinstance(rows, UnnumberedRows) and rows.dim in lengths:
                batch_lengths[lengths[rows.dim]] = rows.length
        [graph] = rebuild([graph], batch_lengths)
        for var in explicit_graph_inputs([graph]):
            if not isinstance(var, SharedVariable):
                raise ValueError(
                    f"{self.subject(site.name)} is computed from {var.name or str(var)!r}, which has no "
                    "value: write a parameter that is trained as pytensor.shared(0.0, name=...), and data "
                    "as pm.Data"
                )
        return graph, unconstrained

    def _check_dims(self, var: Variable, site: Site, model: Model) -> None:
        dims = self.guide.named_vars_to_dims.get(var.name)
        model_dims = model.named_vars_to_dims.get(site.name)
        same_rank = var.type.ndim == site.rv.type.ndim
        if dims and model_dims and same_rank and tuple(dims) != tuple(model_dims):
            raise ValueError(
                f"{self.subject(site.name)} has dims={tuple(dims)}, but in the model that is fitted it has "
                f"dims={tuple(model_dims)}: rows are told by their dims, so give it these"
            )

    @property
    def data(self) -> tuple[Variable, ...]:
        """Data of the guide itself, which are not trained."""
        return tuple(self.guide.data_vars)

    def bind(self, sites: Sequence[Site], starts: InitialValues, model: Model) -> Self:
        bound = copy(self)
        distributions, graphs = [], []
        for site in sites:
            subject = self.subject(site.name)
            graph, unconstrained = self.distribution_of(site, model)
            check_distribution(graph, site, model, subject, unconstrained)
            check_rows(graph, site, model, subject)
            dist = LatentDistribution.of(graph, site, unconstrained, model, subject)
            dist.check_draws(subject)
            distributions.append(dist)
            graphs.append(graph)
        bound.distributions = in_dependency_order(
            distributions, lambda dist: (dist.site,), lambda dist: dist.placeholders.keys()
        )
        bound.sites = tuple(dist.site for dist in bound.distributions)
        bound.parameters = guide_parameters(self.params, graphs, model, self.data)
        bound.reparametrised = all(dist.reparametrised for dist in distributions)
        return bound

    def reads(self) -> set[Variable]:
        read = set().union(*(dist.reads() for dist in self.distributions))
        return read - {site.rv for site in self.sites}

    def draw(
        self, param_values: ParamValues, sample_shape: SampleShape, parents: Parents
    ) -> Latents:
        """Draw the variables one after the other, on the spaces on which the guide has them."""
        known = {**_replaced(param_values), **parents}
        latents = []
        for dist in self.distributions:
            draw = dist.draw(known, sample_shape)
            known[dist.site.rv] = dist.to_constrained(draw)
            latents.append(draw)
        return tuple(latents)

    def latents_from(self, draws: Mapping[Variable, Variable]) -> Latents:
        """Return the latents of draws on the variables' own spaces."""
        return tuple(
            to_unconstrained(dist.site, draws[dist.site.rv])
            if dist.unconstrained
            else draws[dist.site.rv]
            for dist in self.distributions
        )

    def values(self, latents: Latents, n_sample_dims: int) -> dict[Site, Variable]:
        pairs = zip(self.distributions, latents, strict=True)
        return {dist.site: dist.to_unconstrained(draw) for dist, draw in pairs}

    def logq(
        self, latents: Latents, param_values: ParamValues, n_sample_dims: int, parents: Parents
    ) -> Variable:
        pairs = list(zip(self.distributions, latents, strict=True))
        constrained = {dist.site.rv: dist.to_constrained(draw) for dist, draw in pairs}
        known = {**_replaced(param_values), **parents, **constrained}
        terms = [dist.logq(draw, known) for dist, draw in pairs]
        return pt.add(*terms) if len(terms) > 1 else terms[0]


def _replaced(param_values: ParamValues) -> dict[Variable, Variable]:
    """Return the graphs of shared variables that are not the variables themselves."""
    return {
        old: new
        for old, new in param_values.items()
        if not isinstance(old, Parameter) and old is not new
    }


def check_guide_model(guide: Model, guide_vars: Mapping[str, Variable], model: Model) -> None:
    """Raise if a model cannot be a guide of another one."""
    latent = {rv.name: rv for rv in model.free_RVs}
    latent |= {model.rvs_to_values[rv].name: rv for rv in model.free_RVs}
    names = ", ".join(repr(rv.name) for rv in model.free_RVs)
    for kind, found in (("observed", guide.observed_RVs), ("a Potential", guide.potentials)):
        if found:
            raise ValueError(
                f"guide of pm.fit is a model with {found[0].name!r}, which is {kind}: a guide is a "
                f"distribution of the latent variables {names}, and data come in as its parameters"
            )
    shared = [var for name, var in guide_vars.items() if name in latent]
    for var in shared:
        if isinstance(var, XTensorVariable) or isinstance(latent[var.name], XTensorVariable):
            raise NotImplementedError(
                f"guide of pm.fit is a model with {var.name!r} of pymc.dims, whose log-density is not "
                f"derived here. Write it as one of pm, such as pm.Normal({var.name!r}, dims=...), in "
                "both models, or give it 'mean_field'"
            )
    _check_names(guide, shared, latent, names)
    _check_noise(shared)


def _check_names(
    guide: Model, shared: Sequence[Variable], latent: Mapping[str, Variable], names: str
) -> None:
    """Raise if a guide has no latent variable, one under two names, or a variable without a purpose."""
    if not shared:
        raise ValueError(
            f"guide of pm.fit is a model with the variables {[var.name for var in guide.free_RVs]}, none "
            f"of which is a latent variable of the model that is fitted: these are {names}"
        )
    rvs = [latent[var.name] for var in shared]
    twice = [var.name for var, rv in zip(shared, rvs) if rvs.count(rv) > 1]
    if twice:
        raise ValueError(
            f"guide of pm.fit is a model with {' and '.join(map(repr, twice))}, which are one variable on "
            "two spaces: leave one of them out"
        )
    used = set(ancestors(shared))
    idle = [var.name for var in guide.free_RVs if var.name not in latent and var not in used]
    if idle:
        raise ValueError(
            f"guide of pm.fit is a model with {', '.join(map(repr, idle))}, which the model that is fitted "
            f"does not have, and no variable of the guide is computed from: its latent variables are {names}"
        )


def _check_noise(shared: Sequence[Variable]) -> None:
    """Raise if two variables of a guide transform the same random variable."""
    # The generator identifies the noise: clones of a random variable share it
    used: dict[Variable, str] = {}
    for var in shared:
        # Draws of the others may be used, but not the noise that these are made of
        others = {other: other.type() for other in shared if other is not var}
        for source in random_sources(rebuild([var], others)[0]):
            for rng in source.owner.inputs:
                if isinstance(rng.type, RandomType) and used.setdefault(rng, var.name) != var.name:
                    raise ValueError(
                        f"the variables {used[rng]!r} and {var.name!r} of the guide model are transforms "
                        f"of the same random variable {source.name or str(source)!r}, so that they have "
                        "no density together: write one as a distribution that is given the other"
                    )
