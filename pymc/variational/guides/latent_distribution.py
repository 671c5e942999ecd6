# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Reparametrized draws and the log-density of one variable of a guide model, derived from its graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.gradient import NullTypeGradError
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, toposort, truncated_graph_inputs, walk
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.random.basic import (
    HalfNormalRV,
    LogNormalRV,
    MvNormalRV,
    NormalRV,
    StudentTRV,
)
from pytensor.tensor.random.op import RandomVariable, RNGConsumerOp
from pytensor.tensor.random.type import RandomType

from pymc.distributions.shape_utils import change_dist_size
from pymc.logprob.basic import icdf, logp
from pymc.minibatch.axis_tracking import indexes
from pymc.minibatch.rebuild import rebuild
from pymc.variational.guides.base import SampleShape, Site, draw_random, noise, plate_shape
from pymc.variational.stable_logs import stabilised
from pymc.variational.vectorize import at_draws

if TYPE_CHECKING:
    from pymc.model.core import Model

PYTHON = Mode(linker="py", optimizer=None)

#: Number of draws by which a transform of random variables is checked.
N_CHECKED_DRAWS = 32


class Reparametrization(NamedTuple):
    """A draw as a function of noise that does not depend on its parameters."""

    draw: Variable
    noise: Variable  # a placeholder of the same rank
    draw_noise: Callable[[Sequence[Any]], Variable]  # of a shape, anew at each evaluation


class RandomSource(NamedTuple):
    """A random variable that the distribution of a latent variable is computed from."""

    rv: Variable
    placeholder: Variable  # takes the place of `rv` in graphs
    conditional: Variable  # `rv` with the placeholders of the sources before it
    reparam: Reparametrization | None  # None if its draws have no gradient


@dataclass(frozen=True, eq=False)
class LatentDistribution:
    """The distribution of one variable of a guide."""

    site: Site
    unconstrained: bool  # whether it is on the unconstrained space
    graph: Variable
    placeholders: Mapping[Variable, Variable]  # of other variables of the model in `graph`
    sources: tuple[RandomSource, ...]  # in an order in which they can be drawn
    draw_graph: Variable  # a draw as a function of the placeholders of sources
    value: Variable  # a placeholder for a draw in `density`
    density: Variable  # on the unconstrained space, in nats, for each row

    @classmethod
    def of(
        cls, graph: Variable, site: Site, unconstrained: bool, model: Model, subject: str
    ) -> LatentDistribution:
        """Derive draws and the log-density; `subject` begins the message if PyMC cannot."""
        free = set(ancestors([graph], blockers=model.free_RVs))
        placeholders = {rv: rv.type() for rv in model.free_RVs if rv in free}
        if placeholders:
            [graph] = graph_replace([graph], placeholders, strict=False)
        sources = _in_order(random_sources(graph))
        draw_graph = rebuild([graph], {source.rv: source.placeholder for source in sources})[0]
        value = _of_any_length(site.value if unconstrained else site.rv)
        [density] = stabilised([density_by_row(graph, value, site, unconstrained, subject)])
        return cls(site, unconstrained, graph, placeholders, sources, draw_graph, value, density)

    @property
    def reparametrised(self) -> bool:
        return all(source.reparam is not None for source in self.sources)

    def reads(self) -> set[Variable]:
        """Return the variables that it depends on, up to free variables of the model."""
        found = set(ancestors([self.graph]))
        return found.difference(self.placeholders.values()).union(self.placeholders)

    def draw(self, known: Mapping[Variable, Variable], sample_shape: SampleShape) -> Variable:
        """Draw, on the space of the distribution, with the draws of other variables in `known`."""
        swaps = self._with_placeholders(known)
        for source in self.sources:
            shape = self._draw_shape(source, swaps)
            swaps[source.placeholder] = _draw_source(
                source, shape, swaps, sample_shape, self.site.name
            )
        if self.draw_graph in swaps:
            draw = swaps[self.draw_graph]
        else:
            draw = at_draws([self.draw_graph], swaps)[0]
        return pt.cast(draw, self.value.type.dtype)

    def logq(self, draw: Variable, known: Mapping[Variable, Variable]) -> Variable:
        """Return the log-density of a draw, for each row."""
        swaps = {**self._with_placeholders(known), self.value: draw}
        return pt.cast(at_draws([self.density], swaps)[0], pytensor.config.floatX)

    def to_constrained(self, draw: Variable) -> Variable:
        """Map a draw to the variable's own space."""
        site = self.site
        if not self.unconstrained or site.transform is None:
            return draw
        value = _of_any_length(site.value)
        constrained = site.transform.backward(value, *site.rv.owner.inputs)
        return at_draws([constrained], {value: draw})[0]

    def to_unconstrained(self, draw: Variable) -> Variable:
        """Map a draw to the unconstrained space."""
        return draw if self.unconstrained else to_unconstrained(self.site, draw)

    def _with_placeholders(self, known: Mapping[Variable, Variable]) -> dict[Variable, Variable]:
        return {self.placeholders.get(var, var): draw for var, draw in known.items()}

    def _draw_shape(
        self, source: RandomSource, swaps: Mapping[Variable, Variable]
    ) -> list[Variable | int]:
        """Return the shape of one draw, in which axes of rows are as long as the batch."""
        rv = source.rv
        lengths: list[Any] = list(rv.type.shape)
        if rv is self.graph and not self.unconstrained:
            # Also where all rows are alike, so that the graph has length 1 there
            rows = dict(zip(self.site.plate, plate_shape(self.site.plate)))
            for k, (axis, known) in enumerate(zip(self.site.axes, self.site.rv.type.shape)):
                if k < rv.type.ndim:
                    lengths[k] = rows[axis] if axis is not None else known or lengths[k]
        if None not in lengths:
            return lengths
        # The first draw of each variable tells the shape of all
        one = {old: new[(0,) * (new.type.ndim - old.type.ndim)] for old, new in swaps.items()}
        [shape] = graph_replace([pt.stack(_shape_of(source.conditional))], one, strict=False)
        return [shape[k] if n is None else n for k, n in enumerate(lengths)]

    def check_draws(self, subject: str) -> None:
        """Draw a transform of random variables, and raise if it has no density or another support."""
        if isinstance(self.graph.owner.op, RNGConsumerOp):
            return
        draws = self.draw({rv: rv for rv in self.placeholders}, (N_CHECKED_DRAWS,))
        free = self.to_unconstrained(draws)
        n_noise = sum(pt.prod(_shape_of(source.rv), dtype="int64") for source in self.sources)
        checked = [draws[0].size, n_noise, pt.isfinite(free).all(), draws, free]
        checked = rebuild(checked, {new: rv for rv, new in self.placeholders.items()})
        try:
            size, n_noise, finite, draws, free = pytensor.function([], checked, mode=PYTHON)()
        except (NotImplementedError, ValueError):  # such as of pm.Flat, which cannot be drawn
            return
        if size > n_noise:
            raise ValueError(
                f"{subject} has {size} entries, which are computed from {n_noise} random numbers, so that "
                "it has no density: give the random variables that it transforms its shape"
            )
        if not finite:
            transform = self.site.transform
            raise ValueError(
                f"{subject} has draws that are no values of {self.site.name!r}, whose transform is "
                f"{transform.name if transform else None!r}: write it on the variable's own space, such as pt.exp(...) "
                f"for a positive one, or name it {self.site.value.name!r} and write it unconstrained"
            )
        if draws.dtype.kind == "f":
            check_density(draws, free, subject)


def check_density(draws: np.ndarray, free: np.ndarray, subject: str) -> None:
    """Raise if a value comes several times, or entries are linear functions of each other.

    `draws` are on the space of the distribution and `free` on the unconstrained one, along the first axis.
    """
    draws, free = _varying_entries(draws), _varying_entries(free)
    # Two draws in float32 may be rounded to one value
    n_alike = 1 if draws.dtype == np.float64 else 2
    ordered = np.sort(draws, axis=0)
    if (ordered[n_alike:] == ordered[:-n_alike]).any():
        raise ValueError(
            f"{subject} has draws of one value, as of pt.clip or pt.round, so that it has no density: "
            "write it as a distribution with that support, such as pm.TruncatedNormal, or as a "
            "transform that can be inverted"
        )
    # The rank of more entries than draws says nothing
    few = free[:, : len(free) // 2]
    scaled = (few - few.mean(0)) / few.std(0)
    by_size = free[:, np.argsort(free[0])]
    same = (by_size[:, 1:] == by_size[:, :-1]).all(0)
    if same.any() or np.linalg.matrix_rank(scaled) < few.shape[1]:
        raise ValueError(
            f"{subject} has entries that are the same in each draw, or linear functions of each other, "
            "so that it has no density: give each entry a random number of its own"
        )


def _varying_entries(draws: np.ndarray) -> np.ndarray:
    """Return the entries that differ between draws by more than rounding, a column for each."""
    draws = draws.reshape(len(draws), -1)
    rounding = 1e4 * np.finfo(draws.dtype).eps * abs(draws).max(0)
    return draws[:, np.ptp(draws, axis=0) > rounding]


def to_unconstrained(
    site: Site, draw: Variable, parents: Mapping[Variable, Variable] = {}
) -> Variable:
    """Map draws of a variable from its own space to the unconstrained one.

    `parents` are draws of variables that its bounds depend on.
    """
    if site.transform is None:
        return draw
    value = _of_any_length(site.rv)
    free = site.transform.forward(value, *site.rv.owner.inputs)
    return at_draws([free], {**parents, value: draw})[0]


def random_sources(graph: Variable) -> list[Variable]:
    """List the random variables that a graph is computed from, but not those above them."""
    batches = set(indexes([graph], by_shape=True))

    def is_random(var: Variable) -> bool:
        return var.owner is not None and isinstance(var.owner.op, RNGConsumerOp)

    def parents(var: Variable) -> Iterable[Variable]:
        stops = var.owner is None or var in batches or is_random(var)
        return () if stops else reversed(var.owner.inputs)

    found = walk([graph], parents, bfs=False)
    return [var for var in found if var not in batches and is_random(var)]


def _in_order(rvs: Sequence[Variable]) -> tuple[RandomSource, ...]:
    """Sort random variables so that each is drawn after those that it depends on."""
    if len(rvs) > 1:
        nodes = [node for node in toposort(list(rvs)) if isinstance(node.op, RNGConsumerOp)]
        rvs = sorted(rvs, key=lambda rv: nodes.index(rv.owner))
    sources: list[RandomSource] = []
    for rv in rvs:
        placeholder = _of_any_length(rv)
        conditional = rebuild([rv], {source.rv: source.placeholder for source in sources})[0]
        sources.append(RandomSource(rv, placeholder, conditional, reparametrize(conditional)))
    return tuple(sources)


#: Draws as functions of normal noise, by the Op of the distribution.
OF_NORMAL_NOISE: dict[type[RandomVariable], Callable[..., Variable]] = {
    NormalRV: lambda eps, loc, scale: loc + scale * eps,
    LogNormalRV: lambda eps, loc, scale: pt.exp(loc + scale * eps),
    HalfNormalRV: lambda eps, loc, scale: loc + scale * abs(eps),
    MvNormalRV: lambda eps, loc, cov: loc + (pt.linalg.cholesky(cov) @ eps[..., None])[..., 0],
}


def reparametrize(dist: Variable) -> Reparametrization | None:
    """Write a draw of a distribution as a function of noise, or return None if none has a gradient.

    Gradients pass through such draws to the parameters (Kingma and Welling 2014, "Auto-encoding variational
    Bayes", section 2.4).

    Examples
    --------
    >>> from pymc.variational.guides.latent_distribution import reparametrize
    >>> import pytensor.tensor as pt
    >>> a = pt.scalar("a")
    >>> reparametrize(pm.Exponential.dist(a)) is None, reparametrize(pm.Gamma.dist(a, 1.0)) is None
    (False, True)
    """
    if not dist.type.dtype.startswith("float"):
        return None
    eps = pt.tensor(dtype=dist.type.dtype, shape=(None,) * dist.type.ndim)
    op = dist.owner.op
    for kind, function in OF_NORMAL_NOISE.items():
        if isinstance(op, kind):
            return Reparametrization(function(eps, *op.dist_params(dist.owner)), eps, noise)
    if isinstance(op, StudentTRV):
        return _scaled_student(dist, eps)
    return _inverse_cdf(dist, eps)


def _scaled_student(dist: Variable, eps: Variable) -> Reparametrization | None:
    """Scale standard draws, if the degrees of freedom are a constant."""
    freedom, loc, scale = dist.owner.op.dist_params(dist.owner)
    while freedom.owner is not None and isinstance(freedom.owner.op, DimShuffle):
        freedom = freedom.owner.inputs[0]
    if not isinstance(freedom, Constant) or freedom.data.size != 1:
        return None

    def standard(shape: Sequence[Any]) -> Variable:
        return draw_random(pt.random.t, freedom.data.item(), size=tuple(shape))

    return Reparametrization(loc + scale * eps, eps, standard)


def _inverse_cdf(dist: Variable, eps: Variable) -> Reparametrization | None:
    """Invert the distribution function at uniform noise, if that has a gradient."""
    if getattr(dist.owner.op, "ndim_supp", 0) != 0:
        return None
    inputs = dist.owner.inputs
    floats = [v for v in inputs if str(getattr(v.type, "dtype", "")).startswith("float")]
    try:
        draw = icdf(dist, eps)
        pytensor.grad(draw.sum(), floats, disconnected_inputs="ignore")
    except (NotImplementedError, NullTypeGradError):
        return None
    return Reparametrization(draw, eps, _open_uniform)


def _open_uniform(shape: Sequence[Any]) -> Variable:
    # The inverse distribution function may be infinite at 0 and 1
    tiny = np.finfo(pytensor.config.floatX).eps
    return draw_random(pt.random.uniform, tiny, 1 - tiny, size=tuple(shape))


def _of_any_length(var: Variable) -> Variable:
    return var.type.clone(shape=(None,) * var.type.ndim)()


def _shape_of(dist: Variable) -> Sequence[Variable]:
    """Return the shape of a distribution, computed from its parameters and not from a draw."""
    node = dist.owner
    if isinstance(node.op, RandomVariable):
        return node.op._infer_shape(node.op.size_param(node), node.op.dist_params(node))
    return list(_with_new_generator(dist).shape)


def _draw_source(
    source: RandomSource,
    shape: Sequence[Any],
    swaps: Mapping[Variable, Variable],
    sample_shape: SampleShape,
    name: str | None,
) -> Variable:
    """Draw a random variable with leading axes; each draw has its own noise."""
    rv, reparam = source.conditional, source.reparam
    if reparam is not None:
        eps = reparam.draw_noise((*sample_shape, *shape))
        return at_draws([reparam.draw], {**swaps, reparam.noise: eps})[0]
    op, n_batch = rv.owner.op, rv.type.ndim - rv.owner.op.ndim_supp
    if isinstance(op, RandomVariable):
        params = at_draws(op.dist_params(rv.owner), swaps)
        size = (*sample_shape, *shape[:n_batch])
        return op.make_node(pytensor.shared(np.random.default_rng()), size, *params).outputs[1]
    draw = at_draws([_with_new_generator(rv)], swaps)[0]
    try:
        return change_dist_size(draw, (*sample_shape, *shape[:n_batch]))
    except (NotImplementedError, TypeError, ValueError) as error:
        raise NotImplementedError(
            f"the guide of {name!r} draws from {rv.owner.op}, which cannot be drawn for several "
            "values of other variables: take obj_n_mc=1, or a distribution with an Op of its own, such "
            "as pm.Normal"
        ) from error


def draw_given(
    rv: Variable, parents: Mapping[Variable, Variable], sample_shape: SampleShape
) -> Variable:
    """Draw a variable of a model, given draws of the variables that it depends on."""
    dist = _with_new_generator(rv)
    shape = graph_replace(
        list(_shape_of(dist)),
        {old: new[(0,) * (new.type.ndim - old.type.ndim)] for old, new in parents.items()},
        strict=False,
    )
    source = RandomSource(dist, dist, dist, None)
    return _draw_source(source, shape, parents, sample_shape, rv.name)


def _with_new_generator(dist: Variable) -> Variable:
    # Draws of two graphs have to be independent
    node = dist.owner
    inputs = [
        pytensor.shared(v.get_value()) if isinstance(v.type, RandomType) else v for v in node.inputs
    ]
    return node.clone_with_new_inputs(inputs).outputs[node.outputs.index(dist)]


def density_by_row(
    graph: Variable, value: Variable, site: Site, unconstrained: bool, subject: str
) -> Variable:
    """Derive the log-density at `value` on the unconstrained space, summed within each row."""
    parts = [_derive_logp(graph, value, subject)]
    if site.transform is not None and not unconstrained:
        inputs = site.rv.owner.inputs
        free = site.transform.forward(value, *inputs)
        parts.append(site.transform.log_jac_det(free, *inputs))
    if any(part.type.ndim <= axis for part in parts for axis in site.row_axes):
        raise ValueError(
            f"{subject} couples the rows of {site.plate[0].dim!r}: it has one log-density for several. "
            "Give it a distribution that is independent along its rows, such as pm.Normal"
        )
    sums = []
    for part in parts:
        within = [k for k in range(part.type.ndim) if k not in site.row_axes]
        sums.append(part.sum(within) if within else part)
    return pt.add(*sums) if len(sums) > 1 else sums[0]


def _derive_logp(graph: Variable, value: Variable, subject: str) -> Variable:
    """Derive the log-density of a distribution, or of a transform of one."""
    sources = random_sources(graph)
    # PyMC would take the rows of a batch, which are drawn too, for a random variable: hide them
    hidden = {}
    if graph not in sources:
        for var in truncated_graph_inputs([graph], sources):
            if var not in sources and not isinstance(var, Constant) and indexes([var]):
                hidden[var] = var.type()
    [visible] = graph_replace([graph], hidden, strict=False) if hidden else [graph]
    try:
        density = logp(visible, value, warn_rvs=False)
    except (NotImplementedError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"PyMC cannot derive the log-density of {subject}: {error}. Write it as one distribution, or "
            "as a transform that can be inverted of one random variable of its shape, such as "
            "pm.Deterministic('x', loc + scale * pm.Normal('noise', shape=...))"
        ) from error
    [density] = graph_replace([density], {new: var for var, new in hidden.items()}, strict=False)
    if left := random_sources(density):
        names = ", ".join(repr(var.name or str(var)) for var in left)
        raise ValueError(
            f"the log-density of {subject} depends on {names}, which the model does not have, so that "
            "it would have to be integrated out. A guide may have the random variables of the model, and "
            "those that a pm.Deterministic of such a name transforms, but no others. Leave it out, or add "
            "its noise to the distribution"
        )
    return density
