# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Which dims of a model are subsampled, and by which index.

A dim whose rows are subsampled is a plate: given the global variables its rows are independent. From
the `pm.Minibatch` call on, the dim's name means the rows of the batch. A free variable that has the dim
is *local*: it has a value for each row, of which a batch holds B.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pytensor.graph.basic import Variable
from pytensor.tensor.shape import shape_i
from pytensor.tensor.variable import TensorVariable
from pytensor.xtensor import as_xtensor
from pytensor.xtensor.type import XTensorVariable

from pymc.minibatch.provenance import OWN, Axes, Lost, Rows, indexes, trace
from pymc.minibatch.scaling import scale_factor
from pymc.minibatch.stream_index import is_stream

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "as_axes",
    "axes_of_dims",
    "check_of_all_rows",
    "known_axes",
    "local_axes",
    "local_scale",
    "local_shape",
    "model_indexes",
    "note_index",
    "plates_of",
    "rows_by_axis",
    "scaled_term",
    "subsampled_dims",
    "term_indexes",
    "value_axes",
]


def model_indexes(model: Model) -> list[Variable]:
    """Every minibatch index that the terms and deterministics of `model` depend on."""
    values = model.rvs_to_values
    terms = [*values, *values.values(), *model.potentials, *model.deterministics]
    dims = model.named_vars_to_dims
    return term_indexes(terms, {rv: dims.get(rv.name) or () for rv in model.free_RVs})


def term_indexes(
    terms: Sequence[Variable], free: Mapping[Variable, Sequence[str | None]]
) -> list[Variable]:
    """Every minibatch index that `terms` depend on; and that free variables, given with their dims, do.

    Of a local variable with constant parameters, only the shape is computed from the index.
    """
    found = indexes(terms)
    for rv, dims in free.items():
        of_shape = indexes([rv], by_shape=True) if dims else []
        found += [i for i in of_shape if Rows(i).dim in dims and Rows(i) not in map(Rows, found)]
    return found


def axes_of_dims(
    dims: Sequence[str | None], plates: Mapping[str, Variable]
) -> tuple[Rows | None, ...]:
    """Tell which axes of a variable with `dims` hold rows, in a model that subsamples `plates`."""
    return tuple(None if dim is None or dim not in plates else Rows(plates[dim]) for dim in dims)


def plates_of(found: Iterable[Variable]) -> dict[str, Variable]:
    """Map the dims of indexes to them."""
    return {dim: index for index in found if (dim := index.owner.op.dim) is not None}


def subsampled_dims(model: Model) -> dict[str, Variable]:
    """Map the subsampled dims of `model` to their index."""
    # A cache of what the graph says: `model_from_fgraph` fills it anew for each clone
    return plates_of(model.root._minibatch_indexes)


def local_axes(model: Model) -> dict[Variable, tuple[Rows | None, ...]]:
    """Tell which free variables of `model` have a value for each row of a batch, and on which axes.

    Parameters
    ----------
    model : Model
        One that is being written, or any clone.

    Returns
    -------
    dict
        Of the free variables with a subsampled dim, in the order of ``model.free_RVs``: an entry for
        each axis, the `Rows` that it holds, or None. The value variable has the same leading axes.

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


def local_scale(axes: tuple[Rows | None, ...], variable: str | None = None) -> TensorVariable:
    """Tell what the prior of a local variable is multiplied by: N/B for each axis of rows.

    Parameters
    ----------
    axes : tuple of Rows or None
        Those of the variable; see :func:`local_axes`.
    variable : str, optional
        Its name, which marks the ratio.

    Returns
    -------
    scalar of floatX
    """
    rows = [axis for axis in axes if axis is not None]
    lengths = [shape_i(r.index, 0) for r in rows]
    return scale_factor([r.total for r in rows], lengths, variable=variable)


def scaled_term(term: Variable, scale: Variable) -> Variable:
    """Multiply a term of the log-probability, of named dims or not, by a scalar."""
    if isinstance(term, XTensorVariable):  # products of named dims have no gradient
        return as_xtensor(term.values * scale, dims=term.type.dims)
    return term * scale


def local_shape(model: Model, dims: Sequence[str | None]) -> tuple[Variable, ...]:
    """Tell the shape of a variable with `dims`: the length of the batch on those that are subsampled.

    Raises
    ------
    ValueError
        For a dim that the model does not have.
    """
    plates, lengths = subsampled_dims(model), model.dim_lengths
    unknown = [d for d in dims if d not in plates and d not in lengths]
    if unknown:
        raise ValueError(
            f"The dims {unknown} are not among the model's, {sorted(lengths)}: give them coords, as in "
            "pm.Model(coords=...), or model.add_coord"
        )
    return tuple(shape_i(plates[d], 0) if d in plates else lengths[d] for d in dims)


def known_axes(model: Model) -> dict[Variable, Axes | Lost]:
    """Tell the axes of the local and the observed variables of `model`, and of their values.

    For :func:`~pymc.minibatch.provenance.trace` of graphs of random variables, and of graphs of
    log-probabilities, which have value variables in their place.

    Parameters
    ----------
    model : Model

    Returns
    -------
    dict
        Variables and value variables to their axes; observed ones only where they are of a batch.
    """
    root = model.root
    known: dict[Variable, Axes | Lost] = {}
    if not root._minibatch_indexes:
        return known
    for rv, rows in local_axes(model).items():
        value = root.rvs_to_values.get(rv)
        known[rv] = axes = as_axes(rows)
        if value is not None:
            known[value] = value_axes(axes, value)
    for rv in root.observed_RVs:
        value = root.rvs_to_values[rv]
        if indexes([value]):
            known[rv] = trace(value)
    return known


def value_axes(axes: Axes, value: Variable) -> Axes:
    """Tell the axes of the value of a variable: a transform may change those of a draw, which come last."""
    own = (OWN,) * max(value.type.ndim - len(axes), 0)
    return (*axes, *own)[: value.type.ndim]


def as_axes(rows: Iterable[Rows | None]) -> Axes:
    """Write axes of rows, or None, as :func:`~pymc.minibatch.provenance.trace` does."""
    return tuple(OWN if axis is None else axis for axis in rows)


def rows_by_axis(model: Model, name: str) -> tuple[Rows | None, ...]:
    """Tell which axes of a variable of `model` are rows of a batch; observed ones are as observed."""
    var = model[name]
    value = model.rvs_to_values[var] if var in model.observed_RVs else var
    axes = trace(value, known_axes(model))
    if isinstance(axes, Lost):
        return (None,) * value.type.ndim
    return tuple(axis if isinstance(axis, Rows) else None for axis in axes)


def check_of_all_rows(model: Model, dims: Iterable[str]) -> None:
    """Refuse a model that cannot be subsampled along dims: it is so already, or has missing values.

    Raises
    ------
    ValueError, NotImplementedError
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


def note_index(model: Model, index: Variable) -> None:
    """Note `index` as one of `model`; nothing where it is known already.

    Raises
    ------
    ValueError
        If the dim is subsampled in another way already, or a variable was registered on it when it
        still meant all rows.
    """
    rows, root = Rows(index), model.root
    noted = root._minibatch_indexes
    if rows in map(Rows, noted):
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
    noted.append(index)
