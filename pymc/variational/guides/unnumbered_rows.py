# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows that no index picks: full data, and batches that are fed by hand.

The two look alike: what a dim holds now is what is seen, and of how many rows it is a part is what
`total_size` says. Which rows they are is not known, so that what has a slot for each row that is at hand would
give it to other rows at the next step. A guide says which dim they are of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytensor.tensor as pt

from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import toposort
from pytensor.tensor.shape import Shape, Shape_i
from pytensor.tensor.subtensor import Subtensor, indices_from_subtensor

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
from pymc.minibatch.current_value import current_length
from pymc.minibatch.plates import as_axes, known_axes, local_axes, value_axes
from pymc.minibatch.scaling import ratios
from pymc.variational.minibatch_rv import unscaled_rv

if TYPE_CHECKING:
    from pymc.model.core import Model


@dataclass(frozen=True, eq=False)
class UnnumberedRows(Rows):
    """The rows that a dim has now, all of them or a batch.

    Parameters
    ----------
    index : Variable
        Their places, ``arange(length)``.
    length : Variable
        How many there are: the dim's length, which tells them from other rows.
    of_dim : str
    in_all : Variable, optional
        How many rows there are in all, where a `total_size` says it.
    """

    length: Variable
    of_dim: str
    in_all: Variable | None = None

    has_row_ids = False

    @property
    def state(self) -> Variable:
        return self.length

    @property
    def n_available(self) -> Variable:
        return self.length

    @property
    def total(self) -> Variable:
        return self.length if self.in_all is None else self.in_all

    @property
    def batch_size(self) -> int:
        return current_length(self.length) or 0

    @property
    def dim(self) -> str:
        return self.of_dim

    def __str__(self) -> str:
        return f"dim {self.of_dim!r}"


class ScaledAxis(NamedTuple):
    """An axis of a term that is scaled from the rows at hand to more of them.

    Parameters
    ----------
    name : str
    term : Variable
        The random variable, not scaled, or the Potential.
    axis : int
    length, total : scalar integer
        How many rows are at hand, and how many there are in all.
    """

    name: str
    term: Variable
    axis: int
    length: Any
    total: Any


def unnumbered_rows(model: Model, dim: str) -> UnnumberedRows:
    """Take the rows that a dim of `model` has now for those of a plate.

    Parameters
    ----------
    model : Model
        It does not subsample `dim`.
    dim : str

    Raises
    ------
    ValueError
        If the model has no such dim, or its terms do not agree on how many rows there are in all, or
        which axis of one with a `total_size` they are cannot be told.

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
    return rows if total is None else replace(rows, in_all=pt.as_tensor(total))


def _totals_along(model: Model, rows: UnnumberedRows) -> dict[str, Variable | None]:
    """Return of how many rows the user said each term is a part: of a Potential its dims say enough."""
    totals: dict[str, Variable | None] = {}
    known = _named_axes(model, [rows])
    for var in [*model.observed_RVs, *model.potentials]:
        axes, by_hand = _axes_of_term(model, var, known), hand_totals(model, var)
        if isinstance(axes, Untracked):
            if by_hand:
                raise ValueError(
                    f"dim={rows.dim!r} of the guide: {var.name!r} has total_size= and depends on these "
                    f"rows, and which of its axes they are is not known: {axes.why}. Give it "
                    f"dims={rows.dim!r}, or take total_size= off if it is no sum over rows"
                )
            continue
        for k, axis in enumerate(axes):
            if axis == rows and (k in by_hand or var in model.observed_RVs):
                totals[var.name] = by_hand.get(k)
    return totals


def rows_by_axis(
    model: Model, unnumbered: Sequence[UnnumberedRows]
) -> dict[Variable, tuple[Rows | None, ...]]:
    """Return the rows on each axis of free variables: of subsampled dims, and of `unnumbered`."""
    axes, plates = dict(local_axes(model)), {rows.of_dim: rows for rows in unnumbered}
    for rv in model.free_RVs if plates else ():
        named = _axes_named(model, rv, plates)
        if any(named):
            sampled = axes.get(rv, (None,) * len(named))
            axes[rv] = tuple(one or other for one, other in zip(named, sampled))
    return axes


def traced_axes(
    model: Model, unnumbered: Iterable[UnnumberedRows] = ()
) -> dict[Variable, Axes | Untracked]:
    """Return the axes of data and variables of `model` with rows, and of their values, for `track_axes`.

    Of subsampled dims they are those of :func:`~pymc.minibatch.plates.known_axes`. Observed variables
    without dims are of the rows that they are computed from.
    """
    known = _named_axes(model, unnumbered)
    found: dict[Variable, Axes | Untracked] = {**known_axes(model), **known}
    for rv in model.observed_RVs if known else ():
        axes = _axes_of_term(model, rv, known)
        if not isinstance(axes, Untracked) and any(isinstance(axis, Rows) for axis in axes):
            value = model.rvs_to_values[rv]
            found[rv] = axes
            if value not in known:
                found[value] = axes[len(axes) - value.type.ndim :]
    return found


def _axes_named(
    model: Model, var: Variable, plates: Mapping[str, UnnumberedRows]
) -> tuple[Rows | None, ...]:
    dims = model.named_vars_to_dims.get(var.name) or ()
    return tuple(None if dim is None else plates.get(dim) for dim in dims)


def _named_axes(model: Model, unnumbered: Iterable[UnnumberedRows]) -> dict[Variable, Axes]:
    plates = {rows.of_dim: rows for rows in unnumbered}
    known: dict[Variable, Axes] = {}
    for name in model.named_vars_to_dims if plates else ():
        var = model.named_vars[name]
        axes = _axes_named(model, var, plates)
        if not any(axes) or var in model.deterministics:
            continue
        known[var] = as_axes(axes)
        value = model.rvs_to_values.get(var)
        if value is not None:
            known[value] = value_axes(known[var], value)
    return known


def _axes_of_term(model: Model, var: Variable, known: Mapping[Variable, Axes]) -> Axes | Untracked:
    """Return which axes of an observed variable or a Potential are rows: by its dims, or what it is of."""
    if var in known:
        return known[var]
    result: list[Axis] = [OTHER] * var.type.ndim
    for part in (unscaled_rv(var)[0], model.rvs_to_values.get(var, var)):
        axes = _aligned(part, known, model.free_RVs)
        if isinstance(axes, Untracked):
            return axes
        for k, axis in enumerate(axes, start=var.type.ndim - len(axes)):
            result[k] = axis if isinstance(axis, Rows) else result[k]
    return tuple(result)


def _aligned(
    term: Variable, known: Mapping[Variable, Axes], others: Collection[Variable] = ()
) -> Axes | Untracked:
    """Return which axes of `term` have an entry for each one of an axis in `known`.

    Parameters
    ----------
    term : Variable
    known : mapping of Variable to axes
        What is followed. All that is not computed from it broadcasts.
    others : collection of Variable
        Variables that are not followed further up: the free ones of a model.
    """
    around: dict[Variable, Axes | Untracked] = {var: known[var] for var in known if var is not term}
    moved = set(around)
    for node in toposort([term], blockers=list({*known, *others} - {term})):
        if moved.isdisjoint(node.inputs):
            continue
        moved.update(node.outputs)
        for var in node.inputs:
            if var not in moved:
                around[var] = _alike(var)
    return track_axes(term, around) if term in moved else _alike(term)


def _alike(var: Variable) -> Axes:
    return (BROADCAST,) * getattr(var.type, "ndim", 0)


def hand_totals(model: Model, var: Variable) -> dict[int, Variable]:
    """Return the `total_size` that the user gave of a term, by axis.

    Parameters
    ----------
    model : Model
    var : Variable
        A variable or a Potential of `model`.
    """
    if var in model.observed_RVs:
        return _totals_of_observed(model, var)
    if var not in model.potentials:
        return {}
    found = [node.inputs for node in ratios(var)]
    by_hand = [pair for pair in found if not indexes(pair, by_shape=True)]
    places = [(_axis_measured(length), total) for total, length in by_hand]
    return {k: total for k, total in places if k is not None}


def _totals_of_observed(model: Model, var: Variable) -> dict[int, Variable]:
    bare, totals = unscaled_rv(var)
    value, known = model.rvs_to_values[var], known_axes(model)
    found = {k: total for k, total in enumerate(totals) if total is not None}
    if not found or not indexes([bare, value], known=known):
        return found
    for part in (bare, value):
        axes = track_axes(part, known, model.free_RVs)
        if isinstance(axes, Untracked):
            return {}
        for k, axis in enumerate(axes, start=var.type.ndim - len(axes)):
            if isinstance(axis, Rows):
                found.pop(k, None)
    return found


def _axis_measured(length: Variable) -> int | None:
    """Return which axis ``var.shape[k]`` is the length of."""
    node = length.owner
    if node is not None and isinstance(node.op, Shape_i):
        return node.op.i
    if node is None or not isinstance(node.op, Subtensor):
        return None
    shape = node.inputs[0].owner
    [entry] = indices_from_subtensor(node.inputs[1:], node.op.idx_list)
    is_axis = shape is not None and isinstance(shape.op, Shape) and isinstance(entry, Constant)
    return int(entry.data) if is_axis else None


def is_part(length: Any, total: Any) -> bool:
    """Return whether there are other rows than those at hand, or may be."""
    now = current_length(length)
    return now is None or now != current_length(total)


def scaled_axes(model: Model) -> list[ScaledAxis]:
    """List the axes of the terms of `model` that a `total_size` given by hand scales up."""
    found = []
    for var in [*model.observed_RVs, *model.potentials]:
        value = model.rvs_to_values.get(var, var)
        for k, total in hand_totals(model, var).items():
            at = k - (var.type.ndim - value.type.ndim)  # it is broadcast along leading axes
            length = 1 if at < 0 else value.shape[at]
            if is_part(length, total):
                found.append(ScaledAxis(var.name, unscaled_rv(var)[0], k, length, total))
    return found


def check_no_slots(
    model: Model, of_rows: Mapping[Variable, Sequence[Rows | None]] | None = None
) -> None:
    """Raise where a free variable has a slot for each row of a batch that is fed by hand.

    Parameters
    ----------
    model : Model
    of_rows : mapping of Variable to sequence of Rows or None, optional
        Free variables by axis, of which those on unnumbered rows have the distribution of any row.

    Raises
    ------
    ValueError
        The message names the variable and the term, and what keeps a value for each row.
    """
    scaled = scaled_axes(model)
    unnumbered = {
        rv: {k: rows for k, rows in enumerate(axes) if rows is not None and not rows.has_row_ids}
        for rv, axes in (of_rows or {}).items()
    }
    for rv, axes in unnumbered.items():
        scaled += [
            ScaledAxis(rv.name, rv, k, rows.n_available, rows.total)
            for k, rows in axes.items()
            if is_part(rows.n_available, rows.total)
        ]
    for one in scaled:
        for rv in model.free_RVs:
            for k, length in enumerate(rv.type.shape):
                if length == 1 or k in unnumbered.get(rv, ()) or rv is one.term:
                    continue
                if _is_along(one, rv, k, model):
                    raise ValueError(_reused(one, rv, k))


def dims_of_slots(model: Model, names: Collection[str]) -> list[str]:
    """List the dims along which free variables have a value for each row of a batch fed by hand.

    Parameters
    ----------
    model : Model
    names : collection of str
        Names of free variables of `model`.
    """
    found = []
    for one in scaled_axes(model):
        for name in names:
            dims = model.named_vars_to_dims.get(name) or ()
            for k, dim in enumerate(dims):
                if dim is not None and _is_along(one, model[name], k, model):
                    found.append(dim)
    return list(dict.fromkeys(found))


def _is_along(scaled: ScaledAxis, rv: Variable, k: int, model: Model) -> bool:
    slots = UnnumberedRows(rv, pt.constant(0), f"slots of {rv.name}")
    axes = tuple(slots if j == k else BROADCAST for j in range(rv.type.ndim))
    found = _aligned(scaled.term, {rv: axes}, model.free_RVs)
    # Where a slot cannot be followed to one row, as of a group that rows point at, all rows share it
    return not isinstance(found, Untracked) and found[scaled.axis] == slots


def _reused(scaled: ScaledAxis, rv: Variable, k: int) -> str:
    now, total = current_length(scaled.length), current_length(scaled.total)
    return (
        f"{rv.name!r} has a value for each row along axis {k}, and {scaled.name!r}, which depends on it row by "
        f"row, is scaled by total_size from the {now} rows that are there to {total}: other rows would "
        f"reuse these values, and the prior of {total} would be counted for {now}. Compute the "
        "distribution of a row from its data, by dims= and pm.fit(guide=pm.Amortized(...)) or a guide that is a pm.Model; or give all "
        "rows to pm.Minibatch or pm.fit(batch_size=...), which keep parameters of each; if these are "
        "all rows, leave total_size out"
    )
