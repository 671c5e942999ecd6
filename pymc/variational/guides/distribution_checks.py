# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Checks of the distribution that a guide model or an encoder has for a variable.

It needs the axes and the support of its variable, and its rows have to be independent. A batch holds some
of the rows, and others at each step. If a row of the guide depended on the others of its batch, no single
distribution would be fitted, and log q summed over rows would not be its density.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.graph.op import Op
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.op import RandomVariable

from pymc.distributions.custom import CustomDistRV
from pymc.distributions.distribution import (  # type: ignore[attr-defined]  # of the release
    SymbolicRandomVariable,
)
from pymc.distributions.transforms import _default_transform
from pymc.logprob.basic import logp
from pymc.logprob.transforms import (
    CircularTransform,
    IntervalTransform,
    LogOddsTransform,
    LogTransform,
    SimplexTransform,
    Transform,
)
from pymc.minibatch.axis_tracking import OTHER, Rows, Untracked, indexes, track_axes
from pymc.minibatch.lengths import check_no_row_count
from pymc.minibatch.minibatch import take_rows
from pymc.minibatch.plates import local_axes
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream_index import is_stream, streams_in
from pymc.pytensorf import constant_fold, current_length
from pymc.variational.guides.base import Site
from pymc.variational.guides.latent_distribution import PYTHON, random_sources
from pymc.variational.guides.lookups import trainable
from pymc.variational.guides.unnumbered_rows import UnnumberedRows, traced_axes

if TYPE_CHECKING:
    from pymc.model.core import Model

#: Lower and upper bound of a support; None if unknown or not constant.
Bounds: TypeAlias = tuple[float | None, float | None]

UNKNOWN_BOUNDS: Bounds = (None, None)


def check_distribution(
    dist: object, site: Site, model: Model, subject: str, unconstrained: bool = False
) -> None:
    """Raise if a guide's distribution does not fit the axes, type and support of its variable.

    Messages begin with `subject`.
    """
    like = site.value if unconstrained else site.rv
    if not isinstance(dist, Variable) or not random_sources(dist):
        raise TypeError(
            f"{subject} has to be a distribution such as pm.Normal.dist(mu, sigma), got "
            f"{type(dist).__name__} {dist}"
        )
    if dist.type.ndim != like.type.ndim:
        raise ValueError(
            f"{subject} has a distribution of {dist.type.ndim} axes, but the variable has "
            f"{like.type.ndim}: give its parameters a value for each row and each entry of it"
        )
    _check_coupling(dist, site, subject)
    for k, (length, expected) in enumerate(zip(dist.type.shape, like.type.shape)):
        if None not in (length, expected) and length not in (1, expected):
            raise ValueError(
                f"{subject} has a distribution of length {length} along axis {k}, where the variable "
                f"has length {expected}"
            )
    if (dist.type.dtype[:3] == "int") != (site.rv.type.dtype[:3] == "int"):
        raise TypeError(
            f"{subject} has a distribution of {dist.type.dtype}, but the variable is of "
            f"{site.rv.type.dtype}: discrete variables need a discrete guide, and others none"
        )
    if not unconstrained:
        _check_support(dist, site, subject)
    _check_parents(dist, site, model, subject, unconstrained)


def _check_coupling(dist: Variable, site: Site, subject: str) -> None:
    """Raise if a multivariate distribution spans several rows."""
    op = dist.owner.op
    if not isinstance(op, RandomVariable | SymbolicRandomVariable):
        return
    for rows in site.axes[dist.type.ndim - op.ndim_supp :]:
        if rows is not None:
            raise ValueError(
                f"{subject} is one {op.name or type(op).__name__} of the rows of {rows.dim!r}, so that it "
                "couples the rows, of which a batch has only some: give it a distribution that is "
                "independent along its rows, such as pm.Normal, or one such as pm.MvNormal within each row"
            )


def _check_parents(
    dist: Variable, site: Site, model: Model, subject: str, unconstrained: bool
) -> None:
    axes = local_axes(model)
    plates = {rv: {axis for axis in axes.get(rv, ()) if axis is not None} for rv in model.free_RVs}
    # The parents of these in the model do not matter: the guide draws in its own order
    for parent in ancestors([dist], blockers=model.free_RVs):
        if parent in plates and (parent is site.rv or not plates[parent] <= set(site.plate)):
            raise ValueError(
                f"{subject} depends on {parent.name!r}, which is the variable itself or local to other "
                "rows: a distribution of rows is given data, global variables, and other local ones of "
                "its rows, and one of globals is given globals"
            )
    if site.transform is None or unconstrained:
        return
    constrained = site.transform.backward(site.value, *site.rv.owner.inputs)
    moving = [rv.name for rv in model.free_RVs if rv in set(ancestors([constrained]))]
    if moving:
        raise ValueError(
            f"the support of {site.name!r} depends on {moving[0]!r}, which {subject} cannot follow: leave "
            "the variable to 'mean_field', or scale one of a fixed support in the model"
        )


def _check_support(dist: Variable, site: Site, subject: str) -> None:
    """Raise if a distribution has values that its variable cannot have, as far as constants tell."""
    op = dist.owner.op
    if not _has_known_support(op):
        return
    default = _default_transform(op, dist)
    simplex = isinstance(site.transform, SimplexTransform)
    if site.transform is not None and (
        default is None or (simplex and not isinstance(default, SimplexTransform))
    ):
        raise ValueError(
            f"{subject} is {op.name or op}, which has values that {site.name!r} cannot have (its "
            f"transform is {site.transform.name!r}): give a distribution on the variable's own space, "
            f"such as {'pm.Dirichlet' if simplex else 'pm.LogNormal for a positive one'}"
        )
    lower, upper = _bounds(dist)
    for low, high in (_bounds(site.rv), _transform_bounds(site.transform, site.rv)):
        below = lower is not None and low is not None and lower < low
        above = upper is not None and high is not None and upper > high
        if below or above:
            raise ValueError(
                f"{subject} is {op.name or op}, with values from {_text(lower)} to {_text(upper)}, but "
                f"those of {site.name!r} are from {_text(low)} to {_text(high)}, so that log p of a draw "
                "may be -inf: give a distribution on the variable's own space, such as pm.LogNormal for "
                "a positive one, pm.Beta from 0 to 1, or pm.Bernoulli for 0 and 1"
            )


def _has_known_support(op: Op) -> bool:
    # A CustomDist has no transform, whatever its support
    return isinstance(op, RandomVariable) and not isinstance(op, CustomDistRV)


def _bounds(dist: Variable) -> Bounds:
    op = dist.owner.op
    if not _has_known_support(op):
        return UNKNOWN_BOUNDS
    if not op.dtype.startswith("float"):
        return _discrete_bounds(op.name, dist.owner.inputs[2:])
    transform = _default_transform(op, dist)
    return (-np.inf, np.inf) if transform is None else _transform_bounds(transform, dist)


def _discrete_bounds(name: str, params: list[Variable]) -> Bounds:
    match name:
        case "bernoulli":
            return 0, 1
        case "categorical":
            n = params[0].type.shape[-1]
            return 0, None if n is None else n - 1
        case "binomial" | "beta_binomial":
            return 0, _constant(params[0])
        case "poisson" | "negative_binomial":
            return 0, np.inf
        case "geometric":
            return 1, np.inf
        case "discrete_uniform":
            return _constant(params[0]), _constant(params[1])
    return UNKNOWN_BOUNDS


def _transform_bounds(transform: Transform | None, rv: Variable) -> Bounds:
    match transform:
        case LogTransform():
            return 0.0, np.inf
        case LogOddsTransform() | SimplexTransform():
            return 0.0, 1.0
        case CircularTransform():
            return -np.pi, np.pi
        case IntervalTransform():
            low, high = transform.args_fn(*rv.owner.inputs)
            return (
                -np.inf if low is None else _constant(low),
                np.inf if high is None else _constant(high),
            )
    return UNKNOWN_BOUNDS


def _constant(var: Variable | float) -> float | None:
    """Return the value of a constant whose entries are all the same number."""
    [value] = constant_fold([var], raise_not_constant=False) if isinstance(var, Variable) else [var]
    if isinstance(value, Variable) or np.size(value) == 0 or np.ptp(value) > 0:
        return None
    return float(np.ravel(value)[0])


def _text(bound: float | None) -> str:
    return "what its parameters say" if bound is None else f"{bound:g}"


def check_rows(dist: Variable, site: Site, model: Model, subject: str) -> None:
    """Raise if a row of a distribution depends on other rows, on their number, or on no row.

    The graph tells. If it has an Op without a rule for rows, the distribution is computed for a batch, for
    the same rows in another order, and with another first row.
    """
    unnumbered = [rows for rows in site.plate if isinstance(rows, UnnumberedRows)]
    known = traced_axes(model, unnumbered)
    if not site.plate:
        batches = indexes([dist], by_shape=True, known=known)
        if batches:
            raise ValueError(
                f"{subject} is computed from a batch of the rows of {Rows(batches[0]).dim!r}, which is another "
                "one at each step, but the variable is shared by all rows: compute it from all of the data"
            )
        return
    axes = track_axes(dist, known)
    # An Op that nothing is known about may treat rows apart: _check_values finds out
    if isinstance(axes, Untracked) and axes.certain:
        raise ValueError(_coupled(subject, site.plate, axes.why))
    check_no_row_count(subject, [dist], known)
    for k, rows in enumerate(site.axes):
        if rows is None:
            continue
        if isinstance(axes, Untracked):
            _check_values(dist, k, rows, subject, model)
            continue
        elsewhere = any(axis == rows for j, axis in enumerate(axes) if j != k)
        if elsewhere or (isinstance(axes[k], Rows) and axes[k] != rows):
            raise ValueError(
                f"{subject} has the rows of {rows.dim!r} on another axis than axis {k}, where the "
                "variable has them"
            )
        if axes[k] is OTHER:
            raise ValueError(
                f"{subject} has values of its own along axis {k}, where the variable has {rows}: a "
                "batch has other rows at each step. Compute the parameters from the batch, or from data "
                "with that dim in pm.Data; or give each row parameters of its own by 'mean_field' or "
                "pm.Structured"
            )


def _coupled(subject: str, plate: Sequence[Rows], why: str) -> str:
    dims = " x ".join(repr(rows.dim) for rows in plate)
    return (
        f"{subject} couples the rows of {dims}: {why}. The distribution of a row must not depend on the "
        "others of the batch, as it does with batch normalisation: take means over all rows, such as "
        "X.mean(0) of the full data, or normalise within the row"
    )


def _check_values(dist: Variable, axis: int, rows: Rows, subject: str, model: Model) -> None:
    """Raise if permuting a batch, or replacing its first row, changes the density of the other rows."""
    n_rows = current_length(rows.index.shape[0] if is_stream(rows) else rows.n_available)
    n = min(rows.batch_size, n_rows or 0)
    if n_rows is None or n < 2:
        return
    # The density, and not the parameters: it has a value for each row whatever the distribution is
    density = _density_of_rows(dist, axis, rows, model)
    first = np.arange(n)
    other = np.r_[n_rows - 1, first[1:]]
    plain, reversed_, replaced = (density(order) for order in (first, first[::-1], other))
    rtol = 1e-3 if pytensor.config.floatX == "float32" else 1e-6
    for found, expected in ((reversed_, plain[:, ::-1]), (replaced[:, 1:], plain[:, 1:])):
        if not np.allclose(expected, found, rtol=rtol, atol=rtol, equal_nan=True):
            why = "in another order, or with another first row, the others had other distributions"
            raise ValueError(_coupled(subject, [rows], why))


def _density_of_rows(
    dist: Variable, axis: int, rows: Rows, model: Model
) -> Callable[[np.ndarray], np.ndarray]:
    """Compile log q of two draws at some rows of the data: a function from positions to (2, rows)."""
    order = pt.lvector("order")
    draws = pytensor.function([], dist, mode=PYTHON)()
    within = [k for k in range(dist.type.ndim - dist.owner.op.ndim_supp) if k != axis]
    densities = []
    for k in (0, -1):
        draw = np.take(draws, [k], axis=axis)
        density = logp(dist, pt.repeat(draw, order.shape[0], axis=axis))
        densities.append(density.sum(within) if within else density)
    graph = _with_rows_of_stream(pt.stack(densities), rows, order)
    swaps: dict[Variable, Variable] = {}
    if rows.has_row_ids:
        for index in indexes([graph], by_shape=True):
            if Rows(index) == rows:
                positions = pt.specify_shape(order, index.type.shape)
                swaps[index] = positions.astype(index.type.dtype)
    else:
        for data in model.data_vars:
            dims = model.named_vars_to_dims.get(data.name) or ()
            if rows.dim in dims:
                swaps[data] = take_rows(data, order, dims.index(rows.dim))
    # Weights may start at 0, where nothing depends on anything
    rng = np.random.default_rng(0)
    for shared in trainable([graph], model):
        value = shared.get_value()
        moved = value + rng.normal(scale=0.1, size=value.shape)
        swaps[shared] = pt.constant(np.asarray(moved, dtype=value.dtype))
    found = set(ancestors([graph]))
    used: Mapping[Variable, Variable] = {old: new for old, new in swaps.items() if old in found}
    if used:
        [graph] = graph_replace([graph], used, strict=False)
    return pytensor.function([order], graph, mode=PYTHON, on_unused_input="ignore")


def _with_rows_of_stream(graph: Variable, rows: Rows, order: Variable) -> Variable:
    """Take rows of the values that a stream holds now; of random ones before the first batch."""
    rows_of = {}
    for var in streams_in([graph]):
        placeholder, index = var.owner.inputs
        if Rows(index) == rows:
            value = placeholder.get_value()
            if value.dtype.kind == "f" and not value.any():
                value = np.random.default_rng(1).normal(size=value.shape).astype(value.dtype)
            rows_of[var] = take_rows(pt.as_tensor(value), order, 0)
    return rebuild([graph], rows_of)[0]
