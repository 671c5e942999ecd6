# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows without an index: full data, and batches that `pm.set_data` replaces.

Both look alike. The model holds some rows of a dim, and a `total_size` says how many there are in all. Since
nothing says which rows it holds, a variable with a value for each of them would reuse the values for other
rows at the next step. A guide names the dim of such rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import toposort

from pymc.minibatch.axis_tracking import (
    BROADCAST,
    OTHER,
    Axes,
    Axis,
    Rows,
    Untracked,
    indexes,
    track_axes,
)
from pymc.minibatch.lengths import axis_of_length
from pymc.minibatch.plates import as_axes, known_axes, value_axes
from pymc.minibatch.scaling import ratios
from pymc.pytensorf import current_length
from pymc.variational.minibatch_rv import unscaled_rv

if TYPE_CHECKING:
    from pymc.model.core import Model


@dataclass(frozen=True, eq=False)
class UnnumberedRows(Rows):
    """The rows that the model holds of a dim that it does not subsample, with the index ``arange(length)``."""

    length: Variable  # of the dim; identifies the rows
    of_dim: str
    total_size: Variable | None = None  # as the user gave it

    has_row_ids = False

    @property
    def state(self) -> Variable:
        return self.length

    @property
    def n_available(self) -> Variable:
        return self.length

    @property
    def total(self) -> Variable:
        return self.length if self.total_size is None else self.total_size

    @property
    def batch_size(self) -> int:
        return current_length(self.length) or 0

    @property
    def dim(self) -> str:
        return self.of_dim

    def __str__(self) -> str:
        return f"dim {self.of_dim!r}"


class ScaledAxis(NamedTuple):
    """An axis of a term that an explicit `total_size` scales up."""

    name: str
    term: Variable  # the random variable without its scale, or the Potential
    axis: int
    length: Variable | int  # of the rows that the model holds
    total: Variable


def unnumbered_rows(model: Model, dim: str) -> UnnumberedRows:
    """Return the rows that `model` holds of a dim that it does not subsample.

    Raises
    ------
    ValueError
        If the model has no such dim, its terms disagree on the number of all rows, or the axis of a term
        with a `total_size` is unknown.

    Examples
    --------
    >>> from pymc.variational.guides.unnumbered_rows import unnumbered_rows
    >>> with pm.Model(coords={"obs": range(4)}) as model:
    ...     y = pm.Data("y", np.zeros(4), dims="obs")
    ...     rows = pm.Normal("rows", pm.Normal("mu"), observed=y, dims="obs", total_size=100)
    >>> int(unnumbered_rows(model, "obs").total.eval())
    100
    """
    if dim not in model.dim_lengths:
        raise ValueError(
            f"dim={dim!r} of pm.Amortized is no dim of the model, whose dims are "
            f"{sorted(model.dim_lengths)}"
        )
    length = model.dim_lengths[dim]
    rows = UnnumberedRows(pt.arange(length), length, dim)
    totals = _totals_along(model, rows)
    numbers = {name: current_length(total) for name, total in totals.items()}
    if len(set(numbers.values())) > 1:
        raise ValueError(
            f"dim={dim!r} of the guide: the terms on it are scaled to different numbers of rows, by "
            f"total_size={numbers}. Give all of them one total_size, or none"
        )
    total = next(iter(totals.values()), None)
    return rows if total is None else replace(rows, total_size=pt.as_tensor(total))


def _totals_along(model: Model, rows: UnnumberedRows) -> dict[str, Variable | None]:
    """Return the `total_size` of each term along some rows; that of a Potential only if it has one."""
    totals: dict[str, Variable | None] = {}
    known = named_axes(model, [rows])
    for var in [*model.observed_RVs, *model.potentials]:
        axes, explicit = _term_axes(model, var, known), explicit_totals(model, var)
        if isinstance(axes, Untracked):
            if explicit:
                raise ValueError(
                    f"dim={rows.dim!r} of the guide: {var.name!r} has total_size= and depends on these "
                    f"rows, and which of its axes they are is not known: {axes.why}. Give it "
                    f"dims={rows.dim!r}, or take total_size= off if it is no sum over rows"
                )
            continue
        for k, axis in enumerate(axes):
            if axis == rows and (k in explicit or var in model.observed_RVs):
                totals[var.name] = explicit.get(k)
    return totals


def traced_axes(
    model: Model, unnumbered: Iterable[UnnumberedRows] = ()
) -> dict[Variable, Axes | Untracked]:
    """Return the axes of data, of variables with rows and of their values, as `trace` takes them.

    Observed variables without dims have the rows that they are computed from.
    """
    known = named_axes(model, unnumbered)
    found: dict[Variable, Axes | Untracked] = {**known_axes(model), **known}
    for rv in model.observed_RVs if known else ():
        axes = _term_axes(model, rv, known)
        if not isinstance(axes, Untracked) and any(isinstance(axis, Rows) for axis in axes):
            value = model.rvs_to_values[rv]
            found[rv] = axes
            if value not in known:
                found[value] = axes[len(axes) - value.type.ndim :]
    return found


def named_axes(model: Model, unnumbered: Iterable[UnnumberedRows]) -> dict[Variable, Axes]:
    """Return the axes of variables with the dims of `unnumbered`, and of their values."""
    plates = {rows.of_dim: rows for rows in unnumbered}
    known: dict[Variable, Axes] = {}
    for name, dims in model.named_vars_to_dims.items():
        var = model.named_vars[name]
        axes = as_axes(None if dim is None else plates.get(dim) for dim in dims or ())
        if var in model.deterministics or not any(isinstance(axis, Rows) for axis in axes):
            continue
        known[var] = axes
        value = model.rvs_to_values.get(var)
        if value is not None:
            known[value] = value_axes(axes, value)
    return known


def _term_axes(model: Model, var: Variable, known: Mapping[Variable, Axes]) -> Axes | Untracked:
    """Return the axes of an observed variable or a Potential: by its dims, or by tracing its graph."""
    if var in known:
        return known[var]
    result: list[Axis] = [OTHER] * var.type.ndim
    for part in (unscaled_rv(var)[0], model.rvs_to_values.get(var, var)):
        axes = _aligned_axes(part, known, model.free_RVs)
        if isinstance(axes, Untracked):
            return axes
        for k, axis in enumerate(axes, start=var.type.ndim - len(axes)):
            if isinstance(axis, Rows):
                result[k] = axis
    return tuple(result)


def _aligned_axes(
    term: Variable, known: Mapping[Variable, Axes], free: Collection[Variable] = ()
) -> Axes | Untracked:
    """Trace the axes in `known` to `term`; everything else broadcasts, and `free` variables are leaves."""
    around: dict[Variable, Axes | Untracked] = {var: known[var] for var in known if var is not term}
    dependent = set(around)
    for node in toposort([term], blockers=list({*known, *free} - {term})):
        if dependent.isdisjoint(node.inputs):
            continue
        dependent.update(node.outputs)
        for var in node.inputs:
            if var not in dependent:
                around[var] = _broadcast_axes(var)
    return track_axes(term, around) if term in dependent else _broadcast_axes(term)


def _broadcast_axes(var: Variable) -> Axes:
    return (BROADCAST,) * getattr(var.type, "ndim", 0)


def explicit_totals(model: Model, var: Variable) -> dict[int, Variable]:
    """Return the `total_size` that the user gave for an observed variable or a Potential, by axis."""
    if var in model.observed_RVs:
        return _totals_of_observed(model, var)
    if var not in model.potentials:
        return {}
    found = [node.inputs for node in ratios(var)]
    explicit = [pair for pair in found if not indexes(pair, by_shape=True)]
    by_axis = [(axis_of_length(length), total) for total, length in explicit]
    return {axis[1]: total for axis, total in by_axis if axis is not None}


def _totals_of_observed(model: Model, var: Variable) -> dict[int, Variable]:
    """Return the totals of an observed variable, without those of a minibatch."""
    unscaled, totals = unscaled_rv(var)
    value, known = model.rvs_to_values[var], known_axes(model)
    found = {k: total for k, total in enumerate(totals) if total is not None}
    if not found or not indexes([unscaled, value], known=known):
        return found
    for part in (unscaled, value):
        axes = track_axes(part, known)
        if isinstance(axes, Untracked):
            return {}
        for k, axis in enumerate(axes, start=var.type.ndim - len(axes)):
            if isinstance(axis, Rows):
                found.pop(k, None)
    return found


def is_part(length: Variable | int, total: Variable) -> bool:
    """Return True if there are rows beyond those that the model holds, or may be."""
    now = current_length(length)
    return now is None or now != current_length(total)


def scaled_axes(model: Model) -> list[ScaledAxis]:
    """List the axes of the terms of `model` that an explicit `total_size` scales up."""
    found = []
    for var in [*model.observed_RVs, *model.potentials]:
        value = model.rvs_to_values.get(var, var)
        for k, total in explicit_totals(model, var).items():
            # The value is broadcast along leading axes that it does not have
            axis = k - (var.type.ndim - value.type.ndim)
            length = 1 if axis < 0 else value.shape[axis]
            if is_part(length, total):
                found.append(ScaledAxis(var.name, unscaled_rv(var)[0], k, length, total))
    return found


def check_no_row_values(
    model: Model, row_axes: Mapping[Variable, Sequence[Rows | None]] | None = None
) -> None:
    """Raise if a free variable has a value for each row of a batch without an index.

    `row_axes` are the rows on each axis of free variables. Along unnumbered rows, a guide has one distribution
    for any row.
    """
    scaled = scaled_axes(model)
    unnumbered = {
        rv: {k: rows for k, rows in enumerate(axes) if rows is not None and not rows.has_row_ids}
        for rv, axes in (row_axes or {}).items()
    }
    for rv, axes in unnumbered.items():
        for k, rows in axes.items():
            if is_part(rows.n_available, rows.total):
                scaled.append(ScaledAxis(rv.name, rv, k, rows.n_available, rows.total))
    for axis in scaled:
        for rv in model.free_RVs:
            for k, length in enumerate(rv.type.shape):
                if length == 1 or k in unnumbered.get(rv, ()) or rv is axis.term:
                    continue
                if _has_row_values(axis, rv, k, model):
                    raise ValueError(_reuse_message(axis, rv, k))


def dims_of_row_values(model: Model, names: Collection[str]) -> list[str]:
    """List the dims along which free variables have a value for each row of a batch without an index."""
    found = []
    for axis in scaled_axes(model):
        for name in names:
            for k, dim in enumerate(model.named_vars_to_dims.get(name) or ()):
                if dim is not None and _has_row_values(axis, model[name], k, model):
                    found.append(dim)
    return list(dict.fromkeys(found))


def _has_row_values(scaled: ScaledAxis, rv: Variable, k: int, model: Model) -> bool:
    """Return True if axis `k` of a variable is the scaled axis of the term."""
    values = UnnumberedRows(rv, pt.constant(0), f"values of {rv.name}")
    axes = tuple(values if j == k else BROADCAST for j in range(rv.type.ndim))
    found = _aligned_axes(scaled.term, {rv: axes}, model.free_RVs)
    # All rows share a value that cannot be traced to one row, such as that of a group
    return not isinstance(found, Untracked) and found[scaled.axis] == values


def _reuse_message(scaled: ScaledAxis, rv: Variable, k: int) -> str:
    length, total = current_length(scaled.length), current_length(scaled.total)
    return (
        f"{rv.name!r} has a value for each row along axis {k}, and {scaled.name!r}, which depends on it row by "
        f"row, is scaled by total_size from the {length} rows that the model holds to {total}: other rows would "
        f"reuse these values, and the prior of {total} would be counted for {length}. Compute the "
        "distribution of a row from its data, by dims= and pm.fit(guide=pm.Amortized(...)) or a guide that is a "
        "pm.Model; or give all rows to pm.Minibatch or pm.fit(batch_size=...), which keep parameters of each; "
        "if these are all rows, leave total_size out"
    )
