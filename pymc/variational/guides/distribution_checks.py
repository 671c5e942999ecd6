# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Check that a distribution that a guide has for a variable is one of that variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.op import Op
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.op import RandomVariable, RNGConsumerOp

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
)
from pymc.minibatch.axis_tracking import OTHER, Rows, Untracked, indexes, track_axes
from pymc.minibatch.current_value import current_length
from pymc.minibatch.lengths import check_no_row_count
from pymc.minibatch.minibatch import take_rows
from pymc.minibatch.plates import local_axes
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream_index import is_stream, streams_in
from pymc.pytensorf import constant_fold
from pymc.variational.guides.base import Site
from pymc.variational.guides.lookups import trainable
from pymc.variational.guides.unnumbered_rows import UnnumberedRows, traced_axes

if TYPE_CHECKING:
    from pymc.model.core import Model

#: The least and the greatest value; None where that is not a constant, or nothing is known.
type Bounds = tuple[float | None, float | None]

_UNKNOWN: Bounds = (None, None)


def check_distribution(
    dist: Any, site: Site, model: Model, subject: str, unconstrained: bool = False
) -> None:
    """Raise where a guide has no distribution of its variable.

    Parameters
    ----------
    dist : Variable
        A distribution, or a transform of some, with the variables of `model`.
    site : Site
    model : Model
    subject : str
        How messages begin.
    unconstrained : bool
        Whether it is on the unconstrained space.

    Raises
    ------
    TypeError
        If it is no distribution, or discrete where the variable is not.
    ValueError
        If it has other axes than the variable, or another support, or couples rows, or depends on variables that it cannot
        be given.
    """
    like = site.value if unconstrained else site.rv
    if not isinstance(dist, Variable) or not is_drawn(dist):
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
    for k, (length, asked) in enumerate(zip(dist.type.shape, like.type.shape)):
        if None not in (length, asked) and length not in (1, asked):
            raise ValueError(
                f"{subject} has a distribution of length {length} along axis {k}, where the variable "
                f"has length {asked}"
            )
    if (dist.type.dtype[:3] == "int") != (site.rv.type.dtype[:3] == "int"):
        raise TypeError(
            f"{subject} has a distribution of {dist.type.dtype}, but the variable is of "
            f"{site.rv.type.dtype}: discrete variables need a discrete guide, and others none"
        )
    if not unconstrained:
        check_support(dist, dist.owner.op, site, subject)
    _check_parents(dist, site, model, subject, unconstrained)


def _check_coupling(dist: Variable, site: Site, subject: str) -> None:
    """Raise where a multivariate distribution is one of several rows."""
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


def is_drawn(graph: Variable) -> bool:
    """Tell whether a graph is computed from random variables, besides the rows of a batch."""
    batches = indexes([graph], by_shape=True)
    return any(
        var.owner is not None and isinstance(var.owner.op, RNGConsumerOp)
        for var in ancestors([graph], blockers=batches)
        if var not in batches
    )


def _check_parents(
    dist: Variable, site: Site, model: Model, subject: str, unconstrained: bool
) -> None:
    axes = local_axes(model)
    plates = {rv: {axis for axis in axes.get(rv, ()) if axis is not None} for rv in model.free_RVs}
    # What those depend on in the model is no matter of the guide, which draws in an order of its own
    parents = [var for var in ancestors([dist], blockers=model.free_RVs) if var in plates]
    for parent in parents:
        if parent is site.rv or not plates[parent] <= set(site.plate):
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


def check_support(dist: Variable, op: Op, site: Site, call: str) -> None:
    """Raise where a guide draws what its variable cannot be, as far as constants tell."""
    # What a user wrote has no transform, whatever its support
    if not _is_known(op):
        return
    default = _default_transform(op, dist)
    simplex = isinstance(site.transform, SimplexTransform)
    if site.transform is not None and (
        default is None or (simplex and not isinstance(default, SimplexTransform))
    ):
        raise ValueError(
            f"{call} is {op.name or op}, which has values that {site.name!r} cannot have (its "
            f"transform is {site.transform.name!r}): give a distribution on the variable's own space, "
            f"such as {'pm.Dirichlet' if simplex else 'pm.LogNormal for a positive one'}"
        )
    least, greatest = _bounds(dist)
    for low, high in (_bounds(site.rv), _of_transform(site.transform, site.rv)):
        below = None not in (least, low) and least < low  # type: ignore[operator]
        if below or (None not in (greatest, high) and greatest > high):  # type: ignore[operator]
            raise ValueError(
                f"{call} is {op.name or op}, with values from {_text(least)} to {_text(greatest)}, but "
                f"those of {site.name!r} are from {_text(low)} to {_text(high)}, so that log p of a draw "
                "may be -inf: give a distribution on the variable's own space, such as pm.LogNormal for "
                "a positive one, pm.Beta from 0 to 1, or pm.Bernoulli for 0 and 1"
            )


def _is_known(op: Any) -> bool:
    return isinstance(op, RandomVariable) and not isinstance(op, CustomDistRV)


def _bounds(dist: Variable) -> Bounds:
    op = dist.owner.op
    if not _is_known(op):
        return _UNKNOWN
    if not op.dtype.startswith("float"):
        return _of_counts(op.name, dist.owner.inputs[2:])
    transform = _default_transform(op, dist)
    return (-np.inf, np.inf) if transform is None else _of_transform(transform, dist)


def _of_counts(name: str, params: list[Variable]) -> Bounds:
    match name:
        case "bernoulli":
            return 0, 1
        case "categorical":
            n = params[0].type.shape[-1]
            return 0, None if n is None else n - 1
        case "binomial" | "beta_binomial":
            return 0, _number(params[0])
        case "poisson" | "negative_binomial":
            return 0, np.inf
        case "geometric":
            return 1, np.inf
        case "discrete_uniform":
            return _number(params[0]), _number(params[1])
    return _UNKNOWN


def _of_transform(transform: Any, rv: Variable) -> Bounds:
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
                -np.inf if low is None else _number(low),
                np.inf if high is None else _number(high),
            )
    return _UNKNOWN


def _number(var: Any) -> float | None:
    """The value of a constant that is one number."""
    [value] = constant_fold([var], raise_not_constant=False) if isinstance(var, Variable) else [var]
    if isinstance(value, Variable) or np.size(value) == 0 or np.ptp(value) > 0:
        return None
    return float(np.ravel(value)[0])


def _text(bound: float | None) -> str:
    return "what its parameters say" if bound is None else f"{bound:g}"


_cheap_mode = Mode(linker="py", optimizer=None)


def check_rows(dist: Variable, site: Site, model: Model, subject: str) -> None:
    """Raise where a row of a distribution depends on other rows, on how many there are, or on none.

    It is read from the graph. Where that has an Op about which nothing is known, the distribution is
    computed for a batch, for the same in another order, and with another first row.

    Parameters
    ----------
    dist : Variable
        A distribution of the variable, with its axes.
    site : Site
    model : Model
    subject : str
        How messages begin.

    Raises
    ------
    ValueError
        The message names what mixes the rows, or whose length is computed with.
    """
    unnumbered = [rows for rows in site.plate if isinstance(rows, UnnumberedRows)]
    known = traced_axes(model, unnumbered)
    if not site.plate:
        found = indexes([dist], by_shape=True, known=known)
        if found:
            raise ValueError(
                f"{subject} is computed from a batch of the rows of {Rows(found[0]).dim!r}, which is another "
                "one at each step, but the variable is shared by all rows: compute it from all of the data"
            )
        return
    axes = track_axes(dist, known, model.free_RVs)
    if isinstance(axes, Untracked) and axes.certain:
        raise ValueError(_mixed(subject, site.plate, axes.why))
    check_no_row_count(subject, [dist], known)
    for place, rows in enumerate(site.axes):
        if rows is None:
            continue
        if isinstance(axes, Untracked):
            _check_values(dist, place, rows, subject, model)
            continue
        other = [k for k, axis in enumerate(axes) if axis == rows and k != place]
        if other or (isinstance(axes[place], Rows) and axes[place] != rows):
            raise ValueError(
                f"{subject} has the rows of {rows.dim!r} on another axis than axis {place}, where the "
                "variable has them"
            )
        if axes[place] is OTHER:
            raise ValueError(
                f"{subject} has values of its own along axis {place}, where the variable has {rows}: a "
                "batch has other rows at each step. Compute the parameters from the batch, or from data "
                "with that dim in pm.Data; or give each row parameters of its own by 'mean_field' or "
                "pm.Structured"
            )


def _mixed(subject: str, plate: Sequence[Rows], why: str) -> str:
    dims = " x ".join(repr(rows.dim) for rows in plate)
    return (
        f"{subject} couples the rows of {dims}: {why}. What it makes of a row must not depend on the "
        "others of the batch, as it does with batch normalisation: take means over all rows, such as "
        "X.mean(0) of the full data, or normalise within the row"
    )


def _check_values(dist: Variable, place: int, rows: Rows, subject: str, model: Model) -> None:
    """Permute a batch, and change a row of it: row by row, the others stay as they were."""
    n_rows = current_length(rows.n_available)
    if is_stream(rows):
        n_rows = current_length(rows.index.shape[0])
    n = min(rows.batch_size, n_rows or 0)
    if n_rows is None or n < 2:
        return
    density = _density_of_rows(dist, place, rows, model)
    first = np.arange(n)
    other = np.r_[n_rows - 1, first[1:]]
    plain, turned, changed = (density(order) for order in (first, first[::-1], other))
    rtol = 1e-3 if pytensor.config.floatX == "float32" else 1e-6
    for one, same in ((plain[:, ::-1], turned), (plain[:, 1:], changed[:, 1:])):
        if not np.allclose(one, same, rtol=rtol, atol=rtol, equal_nan=True):
            raise ValueError(
                _mixed(
                    subject,
                    [rows],
                    "in another order, or with another first row, the others had other distributions",
                )
            )


def _at_places(graph: Variable, rows: Rows, order: Variable) -> Variable:
    """Let a stream hold rows at some places of what it holds now; of rows that differ, if none was fed."""
    taken = {}
    for var in streams_in([graph]):
        placeholder, index = var.owner.inputs
        if Rows(index) == rows:
            value = placeholder.get_value()
            if value.dtype.kind == "f" and not value.any():
                value = np.random.default_rng(1).normal(size=value.shape).astype(value.dtype)
            taken[var] = take_rows(pt.as_tensor(value), order, 0)
    return rebuild([graph], taken)[0]


def _density_of_rows(dist: Variable, place: int, rows: Rows, model: Model) -> Any:
    """A function from places of rows to log q of the draws of two rows, at each row: (draws, rows)."""
    order = pt.lvector("order")
    draws = pytensor.function([], dist, mode=_cheap_mode)()
    within = [k for k in range(dist.type.ndim - dist.owner.op.ndim_supp) if k != place]
    densities = []
    for k in (0, -1):
        draw = np.take(draws, [k], axis=place)
        density = logp(dist, pt.repeat(draw, order.shape[0], axis=place))
        densities.append(density.sum(within) if within else density)
    graph = _at_places(pt.stack(densities), rows, order)
    swaps: dict[Variable, Variable] = {}
    if not rows.has_row_ids:
        for data in model.data_vars:
            dims = model.named_vars_to_dims.get(data.name) or ()
            if rows.dim in dims:
                swaps[data] = take_rows(data, order, dims.index(rows.dim))
    else:
        swaps = {
            index: pt.specify_shape(order, index.type.shape).astype(index.type.dtype)
            for index in indexes([graph], by_shape=True)
            if Rows(index) == rows
        }
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
    return pytensor.function([order], graph, mode=_cheap_mode, on_unused_input="ignore")
