# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Plates: the subsampled dims of a model, and the free variables that are local on them.

The rows of a plate are independent given the global variables. From the `pm.Minibatch` call on, the name of
its dim means the rows of the batch. A free variable with the dim is *local*: it has a value for each row,
of which a batch holds B, and its parameters are rows of the same index, or broadcast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.tensor.shape import shape_i
from pytensor.tensor.variable import TensorVariable
from pytensor.xtensor import as_xtensor
from pytensor.xtensor.shape import Transpose
from pytensor.xtensor.type import XTensorVariable
from pytensor.xtensor.vectorization import XRV

from pymc.minibatch.array_data import raw_data
from pymc.minibatch.axis_tracking import (
    NAME_THE_DIM,
    OTHER,
    Axes,
    Axis,
    KnownAxes,
    Rows,
    Untracked,
    indexes,
    ndim_supp,
    root_axes,
    track_axes,
)
from pymc.minibatch.lengths import check_no_row_count
from pymc.minibatch.scaling import scale_factor
from pymc.minibatch.stream_index import is_stream
from pymc.minibatch.total_size import check_no_diagonal
from pymc.pytensorf import current_length

if TYPE_CHECKING:
    from pymc.model.core import Model


# --- indexes and dims ---
def model_indexes(model: Model) -> list[Variable]:
    """Return every minibatch index that the terms and deterministics of `model` depend on."""
    values = model.rvs_to_values
    terms = [*values, *values.values(), *model.potentials, *model.deterministics]
    dims = model.named_vars_to_dims
    return term_indexes(terms, {rv: dims.get(rv.name) or () for rv in model.free_RVs})


def term_indexes(
    terms: Sequence[Variable], free_dims: Mapping[Variable, Sequence[str | None]]
) -> list[Variable]:
    """Return every minibatch index that `terms` and free variables, mapped to their dims, depend on."""
    found = indexes(terms)
    for rv, dims in free_dims.items():
        # Only the shape of a local variable with constant parameters is computed from the index
        of_shape = indexes([rv], by_shape=True) if dims else []
        found += [i for i in of_shape if Rows(i).dim in dims and Rows(i) not in map(Rows, found)]
    return found


def plates_of(found: Iterable[Variable]) -> dict[str, Variable]:
    """Map the dims of indexes to them."""
    return {dim: index for index in found if (dim := index.owner.op.dim) is not None}


def subsampled_dims(model: Model) -> dict[str, Variable]:
    """Map the subsampled dims of `model` to their index."""
    # A cache of what the graph says: `model_from_fgraph` fills it anew for each clone
    return plates_of(model.root._minibatch_indexes)


def note_index(model: Model, index: Variable) -> None:
    """Add `index` to those of `model`, unless it is known.

    Raises
    ------
    ValueError
        If the dim is subsampled in another way already, or a variable was registered on it when it
        still meant all rows.
    """
    rows, root = Rows(index), model.root
    known = root._minibatch_indexes
    if rows in map(Rows, known):
        return
    other = None if rows.dim is None else subsampled_dims(root).get(rows.dim)
    if other is not None and (is_stream(other) or is_stream(index)):
        raise ValueError(
            f"The dim {rows.dim!r} has the rows of {Rows(other)} and of {rows}, which would be out of step. "
            "All data of these rows come by one loader: put the others into its batches, as fields of a "
            "dict, or give them a dim of their own"
        )
    if other is not None:
        raise ValueError(
            f"The dim {rows.dim!r} is subsampled twice in one model, by {Rows(other)}, "
            f"sampling={other.owner.op.sampling!r}, and by {rows}, "
            f"sampling={index.owner.op.sampling!r}; its rows would be out of step. Use the same "
            "batch_size and sampling in both pm.Minibatch calls, and they share one index"
        )
    early = [
        rv.name for rv in root.basic_RVs if rows.dim in root.named_vars_to_dims.get(rv.name, ())
    ]
    if rows.dim is not None and early:
        call = "pm.Data of a loader" if is_stream(index) else "pm.Minibatch"
        raise ValueError(
            f"{call} subsamples the dim {rows.dim!r}, but {', '.join(map(repr, early))} was "
            f"registered with that dim before, and has all of its rows. From the call of {call} "
            f"on, {rows.dim!r} means the rows of the batch: call it first"
        )
    known.append(index)


def check_of_all_rows(model: Model, dims: Iterable[str]) -> None:
    """Check that a model can be subsampled along `dims`.

    Raises
    ------
    ValueError
        If one of them is subsampled already.
    NotImplementedError
        If observed values along one of them are missing.
    """
    dims, plates = set(dims), subsampled_dims(model)
    for dim in sorted(dims & plates.keys()):
        raise ValueError(
            f"batch_size of pm.minibatch_model has the dim {dim!r}, but the model has minibatches of it "
            f"already, {Rows(plates[dim])}: leave batch_size out"
            + (
                ", the loader has one"
                if is_stream(plates[dim])
                else ", or give the model of all rows, pm.remove_minibatch(model)"
            )
        )
    for name in sorted({rv.name.removesuffix("_observed") for rv in model.observed_RVs}):
        along = dims.intersection(model.named_vars_to_dims.get(name, ()))
        if along and f"{name}_unobserved" in model.named_vars:
            raise NotImplementedError(
                f"batch_size of pm.minibatch_model subsamples {min(along)!r}, but the observed data of "
                f"{name!r} have missing values there, which are imputed by a latent variable each, and "
                "no batch says which of these it needs. Drop or fill these rows, or observe them in a "
                "term of their own, whose dim is not subsampled"
            )


# --- axes of variables ---
def axes_of_dims(
    dims: Sequence[str | None], plates: Mapping[str, Variable]
) -> tuple[Rows | None, ...]:
    """Return the rows of each axis of a variable with `dims`, None for one that is not subsampled."""
    return tuple(None if dim is None or dim not in plates else Rows(plates[dim]) for dim in dims)


def as_axes(rows: Iterable[Rows | None]) -> Axes:
    """Return the axes of :func:`.track_axes` for rows, or None, along each axis."""
    return tuple(OTHER if axis is None else axis for axis in rows)


def value_axes(axes: Axes, value: Variable) -> Axes:
    """Return the axes of the value of a variable: a transform may change the last ones, of a draw."""
    n_new = max(value.type.ndim - len(axes), 0)
    return (*axes, *(OTHER,) * n_new)[: value.type.ndim]


def local_axes(model: Model) -> dict[Variable, tuple[Rows | None, ...]]:
    """Return the axes of the local variables of `model`, in the order of ``model.free_RVs``.

    Each axis has the `Rows` that it holds, or None. The value variable has the same leading axes.

    Examples
    --------
    >>> import numpy as np
    >>> import pymc as pm
    >>> from pymc.minibatch.plates import local_axes
    >>> with pm.Model(coords={"obs": range(100)}) as model:
    ...     batch = pm.Minibatch(pm.Data("y", np.zeros(100), dims="obs"), batch_size=10)
    ...     z = pm.Normal("z", dims="obs")
    >>> [str(rows) for rows in local_axes(model)[model["z"]]]
    ["the minibatch index of dim 'obs' (batch_size=10)"]
    """
    plates, root = subsampled_dims(model), model.root
    if not plates:
        return {}
    dims = root.named_vars_to_dims
    axes = {rv: axes_of_dims(dims.get(rv.name) or (), plates) for rv in root.free_RVs}
    return {rv: rows for rv, rows in axes.items() if any(rows)}


def known_axes(model: Model) -> dict[Variable, Axes | Untracked]:
    """Return the axes of free and observed variables of a model, and of the values of local ones.

    For :func:`.track_axes` of graphs of random variables and of log-probabilities. Observed variables are
    only those of a batch.
    """
    root = model.root
    known: dict[Variable, Axes | Untracked] = {rv: root_axes(rv) for rv in root.free_RVs}
    for rv, rows in local_axes(model).items():
        value = root.rvs_to_values.get(rv)
        known[rv] = axes = as_axes(rows)
        if value is not None:
            known[value] = value_axes(axes, value)
    for rv in root.observed_RVs:
        value = root.rvs_to_values[rv]
        if indexes([value]):
            known[rv] = track_axes(value)
    return known


def rows_by_axis(model: Model, name: str) -> tuple[Rows | None, ...]:
    """Return the rows of each axis of a variable of `model`, observed ones by their value."""
    var = model[name]
    value = model.rvs_to_values[var] if var in model.observed_RVs else var
    axes = track_axes(value, known_axes(model))
    if isinstance(axes, Untracked):
        return (None,) * value.type.ndim
    return tuple(axis if isinstance(axis, Rows) else None for axis in axes)


# --- shapes and scales of local variables ---
def local_shape(model: Model, dims: Sequence[str | None]) -> tuple[Variable, ...]:
    """Return the shape of a variable with `dims`: the length of the batch on subsampled ones.

    Raises
    ------
    ValueError
        For a dim that the model does not have.
    """
    plates, lengths = subsampled_dims(model), model.dim_lengths
    unknown = [dim for dim in dims if dim not in plates and dim not in lengths]
    if unknown:
        raise ValueError(
            f"The dims {unknown} are not among the model's, {sorted(lengths)}: give them coords, as in "
            "pm.Model(coords=...), or model.add_coord"
        )
    return tuple(shape_i(plates[dim], 0) if dim in plates else lengths[dim] for dim in dims)


def local_scale(axes: tuple[Rows | None, ...], variable: str | None = None) -> TensorVariable:
    """Return the factor of the prior of a local variable: N/B for each axis of rows.

    `variable` is its name, which marks the ratio.
    """
    rows = [axis for axis in axes if axis is not None]
    lengths = [shape_i(axis.index, 0) for axis in rows]
    return scale_factor([axis.total for axis in rows], lengths, variable=variable)


def scaled_term(term: Variable, scale: Variable) -> Variable:
    """Multiply a term of the log-probability, of named dims or not, by a scalar."""
    if isinstance(term, XTensorVariable):  # products of named dims have no gradient
        return as_xtensor(term.values * scale, dims=term.type.dims)
    return term * scale


def batch_initval(
    initval: Any,
    name: str,
    rows: Sequence[Rows | None],
    shape: Sequence[Variable | int],
    known: KnownAxes | None = None,
) -> Any:
    """Return the initial value of a local variable, of `shape` and with `rows`, for a batch.

    Along an axis of rows, that of the user has an entry for each of all N rows, which the index picks from, or
    it broadcasts. A strategy ("support_point", "prior") is returned as it is.

    Raises
    ------
    ValueError
        If it has another number of rows: those of one batch would be used for others too.
    """
    if initval is None or isinstance(initval, str):
        return initval
    value = pt.as_tensor(
        initval if isinstance(initval, Variable) else raw_data(np.asarray(initval)),
        allow_xtensor_conversion=True,
    )
    axes = track_axes(value, known)
    for k, axis in enumerate(rows):
        at = k - len(rows) + value.type.ndim
        if axis is None or at < 0 or value.type.shape[at] == 1:
            continue
        if isinstance(axes, Untracked) or axes[at] == axis:
            continue
        length, total = current_length(value.shape[at]), current_length(axis.total)
        if None not in (length, total) and length != total:
            raise ValueError(
                f"initval of {name!r} has {length} rows along the dim {axis.dim!r}, of which a batch "
                f"has {axis.batch_size} and all data {total}: give an entry for each of the {total} "
                "rows, or one value for all"
            )
        value = value[(slice(None),) * at + (axis.index,)]
    return pt.broadcast_to(value, list(shape))


# --- checks of free variables ---
def check_free_variable(
    rv: Variable,
    name: str,
    dims: Sequence[str | None] | None,
    plates: Mapping[str, Variable],
    known: KnownAxes | None = None,
) -> None:
    """Check that a free variable has rows of a batch where its dims say so, and nowhere else.

    `plates` maps the subsampled dims of the model to their index; `known` is passed on to
    :func:`.track_axes`.

    Raises
    ------
    ValueError
        If its distribution computes with the row count of a batch, mixes rows, has parameters of
        rows that its dims do not name, or is not independent along a subsampled dim.
    """
    rows = axes_of_dims(dims, plates) if dims else (None,) * rv.type.ndim
    if not any(rows) and not indexes([rv], by_shape=True, known=known):
        return
    check_no_diagonal(name, rows)
    core = _core_axes(rv)
    for k, row in enumerate(rows):
        if row is not None and k in core:
            raise ValueError(
                f"{_where(name, k, row)}, which is within one draw of its distribution "
                f"({_distribution(rv).owner.op}): its elements are not independent, so that the rows "
                "of a batch cannot be drawn without the others. Use a distribution whose draws are "
                "independent along the rows, or a dim that is not subsampled"
            )
    axes = track_axes(rv, known)
    if isinstance(axes, Untracked):
        raise ValueError(
            f"The parameters of the free variable {name!r}: {axes.why}. What all rows share cannot "
            "depend on the rows of one batch, and a variable with a value for each row takes "
            "parameters row by row"
        )
    for k, (row, axis) in enumerate(zip(rows, axes)):
        if row is not None:
            _check_local_axis(rv, name, k, row, axis)
        elif isinstance(axis, Rows):
            raise ValueError(
                f"The free variable {name!r}, axis {k}, has parameters that are rows of {axis}, so "
                f"each row has a value of its own, and its dims ({dims}) do not say so: slots for the "
                "rows of one batch would be reused for others. Give it "
                f"dims={axis.dim or '<the dim of the rows>'!r}"
                f"{NAME_THE_DIM if axis.dim is None else ''}; if it is data, pass observed=..."
            )
    check_no_row_count(repr(name), [rv])


def _where(name: str, k: int, rows: Rows) -> str:
    return f"The free variable {name!r} has the subsampled dim {rows.dim!r} on axis {k}"


def _distribution(rv: Variable) -> Variable:
    """Return what `rv` is a transposition of: named dims may be put in another order."""
    while rv.owner is not None and isinstance(rv.owner.op, Transpose):
        [rv] = rv.owner.inputs
    return rv


def _core_axes(rv: Variable) -> Sequence[int]:
    """Return the axes of `rv` that are within one draw."""
    op = _distribution(rv).owner.op
    if isinstance(rv, XTensorVariable):
        core = op.core_dims[1] if isinstance(op, XRV) else ()
        return [k for k, dim in enumerate(rv.type.dims) if dim in core]
    ndim = rv.type.ndim
    return range(ndim - ndim_supp(op), ndim)


def _check_local_axis(rv: Variable, name: str, k: int, rows: Rows, axis: Axis) -> None:
    where = _where(name, k, rows)
    if isinstance(axis, Rows) and axis != rows:
        raise ValueError(
            f"{where}, by {rows}, but its parameters are rows of {axis}, so that they are out of "
            "step: put all the data into one pm.Minibatch call"
        )
    if axis is OTHER:
        raise ValueError(
            f"{where}, but a parameter has values of its own there and does not broadcast: other "
            "rows would reuse them at each step. If they are data, put them into the pm.Minibatch "
            f"call; if they are a variable, give it the dim {rows.dim!r} too"
        )
    length = rv.type.shape[k]
    has_any_length = length is None and is_stream(rows)
    if length is None:
        length = current_length(rv.shape[k])
    # A batch of a stream may have any length; a length that is an input is unknown
    if length is None or has_any_length:
        if rows in map(Rows, indexes([rv], by_shape=True)):
            return
    if length != rows.batch_size:
        raise ValueError(
            f"{where}, so it has {rows.batch_size} rows, those of a batch, but its length there is "
            f"{length}. Leave out shape= and size=: dims= say it"
        )
