# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Placeholders of a loader's batches: `pm.Data` of a loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import walk
from pytensor.tensor.variable import TensorVariable

from pymc.exceptions import ShapeError
from pymc.minibatch.current_length import current_length
from pymc.minibatch.loaders import BatchField, BatchLayout, BatchStream, LoaderRef
from pymc.minibatch.plates import note_index
from pymc.minibatch.provenance import Rows
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream import StreamedRows, loader_of, stream_index, streamed
from pymc.pytensorf import convert_data

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["as_streamed", "stream_data"]


def stream_data(
    name: str,
    loader: BatchStream,
    model: Model,
    dims: Any = None,
    coords: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> TensorVariable:
    """Register a placeholder for the batches of a loader, or for one field of them.

    Parameters
    ----------
    name : str
        Of the placeholder, and of the field where a batch is a dict.
    loader : DataLoader
        It has a `layout`, a `batch_size` and a `total_size`.
    model : Model
    dims : str or sequence of str or None, optional
        The first is that of the rows, whose length is ``loader.total_size``.
    coords : dict, optional
        Of other dims; by default the names of the columns, where the loader knows them.
    **kwargs
        Of :func:`pytensor.shared`.

    Returns
    -------
    TensorVariable
        The rows of a batch: shape (batch_size, ...) now.

    Raises
    ------
    ValueError, ShapeError
        If the loader has no such field, `dims` do not fit to a row, or the dim has another length
        or is subsampled already.
    """
    field = _field(loader.layout, name)
    names = _check_dims(name, dims, field, loader)
    index = _shared_index(name, loader, names[0], model)
    note_index(model, index)
    zeros = convert_data(np.zeros((loader.batch_size, *field.shape), field.dtype))
    full_name = model.name_for(name)
    shared = pytensor.shared(zeros, full_name, **{"shape": (None, *field.shape), **kwargs})
    shared.tag.field, shared.tag.columns = field.name, field.columns
    _register_dims(model, names, shared, loader, field, coords or {})
    model.register_data_var(shared, dims=names if any(names) else None)
    model.root._streams[full_name] = streamed(shared, index)
    return model.root._streams[full_name]


def _field(layout: BatchLayout, name: str) -> BatchField:
    """Find the field of a placeholder: that of its name, or the only one."""
    if not layout.named:
        return layout.fields[0]
    for field in layout.fields:
        if field.name == name:
            return field
    known = ", ".join(repr(field.name) for field in layout.fields)
    raise ValueError(
        f"pm.Data({name!r}, loader): the loader's batches are dicts of {known}, and none of these is "
        f"{name!r}. Write a pm.Data for each field that the model needs, such as "
        f"pm.Data({layout.fields[0].name!r}, loader)"
    )


def _check_dims(
    name: str, dims: Any, field: BatchField, loader: BatchStream
) -> tuple[str | None, ...]:
    """Name each axis of a placeholder."""
    ndim = 1 + len(field.shape)
    if dims is None:
        return (None,) * ndim
    names = (dims,) if isinstance(dims, str) else tuple(dims)
    if len(names) != ndim:
        raise ShapeError(
            f"dims of pm.Data({name!r}, loader) are {names}, but its batches have {ndim} axes: the "
            f"{loader.batch_size} rows of a batch, and {field.shape} for each row.",
            actual=len(names),
            expected=ndim,
        )
    return names


def _shared_index(name: str, loader: BatchStream, dim: str | None, model: Model) -> Variable:
    """One index for all placeholders of a loader: a new one, or that of its other fields."""
    for other, var in model.root._streams.items():
        index = var.owner.inputs[1]
        if loader_of(index) is not loader:
            continue
        if Rows(index).dim != dim:
            raise ValueError(
                f"pm.Data({name!r}, loader) has the dim {dim!r} for its rows, but {other!r}, of the same "
                f"loader, has {Rows(index).dim!r}: the rows of both are the same, so give both one dim"
            )
        return index
    total = int(loader.total_size)
    if dim is not None and dim in model.dim_lengths:
        length = current_length(model.dim_lengths[dim])
        if length != total:
            raise ValueError(
                f"pm.Data({name!r}, loader): the dim {dim!r} has length {length} in the model, but the "
                f"loader has {total} rows (total_size). Give the rows a dim of their own, or no coords: "
                "the loader says how many there are"
            )
    index = stream_index(total, int(loader.batch_size), dim, f"rows({model.name_for(name)})")
    Rows(index).state.tag.loader = LoaderRef(loader)
    return index


def _register_dims(
    model: Model,
    names: Sequence[str | None],
    shared: Any,
    loader: BatchStream,
    field: BatchField,
    coords: Mapping[str, Any],
) -> None:
    """Register new dims: the rows by their number alone, the last axis by the names of its columns."""
    for k, dim in enumerate(names):
        if dim is None or dim in model.dim_lengths:
            continue
        values, length = coords.get(dim), pt.constant(int(loader.total_size), dtype="int64")
        if k > 0:
            fixed = shared.type.shape[k]
            length = shared.shape[k] if fixed is None else pt.constant(fixed, dtype="int64")
            if values is None and field.columns is not None and k == len(names) - 1:
                values = field.columns
        model.add_coord(dim, values, length=length)


def as_streamed(model: Model, graph: Any) -> Any:
    """Let a graph that uses the placeholders of `model` say that they have the rows of a stream.

    ``model["batch"]`` is the placeholder alone, and does not say it.
    """
    notes = model.root._streams
    if not notes or not isinstance(graph, Variable):
        return graph
    bare = {var.owner.inputs[0]: var for var in notes.values()}
    kept: dict[Variable, Variable] = {}

    def above(var: Variable) -> list[Variable]:
        if var.owner is None:
            return []
        if isinstance(var.owner.op, StreamedRows):
            kept[var] = var
            return []
        return var.owner.inputs

    if bare.keys().isdisjoint(walk([graph], above, False)):
        return graph
    return rebuild([graph], {**bare, **kept})[0]
