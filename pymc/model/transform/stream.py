# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a streamed model can be without its stream: a model of some rows, or of none in particular."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.minibatch.current_length import current_length
from pymc.minibatch.held_rows import HeldRows, required_rows
from pymc.minibatch.plates import model_indexes
from pymc.minibatch.provenance import Rows, indexes
from pymc.minibatch.stream import is_stream, needs_rows, streams_in
from pymc.model.core import Model
from pymc.model.fgraph import fgraph_from_model, sharing_data
from pymc.model.transform.minibatch import full_model, model_op

__all__ = [
    "every_row_model",
    "given_model",
    "held_model",
    "model_of_rows",
    "model_without_rows",
]


def given_model(model: Model) -> Model:
    """Make a model of the rows that :func:`pymc.set_data` gave to a streamed model, and of these alone.

    Raises
    ------
    ValueError
        If no rows were given, or only some of the fields.
    """
    streams = [index for index in model_indexes(model) if is_stream(index)]
    return model_of_rows(model, {Rows(index): required_rows(model, index) for index in streams})


def model_of_rows(
    model: Model,
    held: Mapping[Rows, HeldRows],
    swaps: Mapping[Variable, Variable] | None = None,
    coords: Mapping[str, Sequence[Any] | None] | None = None,
) -> Model:
    """Make a model of some rows, and of these alone.

    Parameters
    ----------
    model : Model
    held : mapping of Rows to HeldRows
        The rows of each dim that has others than all.
    swaps : mapping of Variable to Variable, optional
        What takes the place of data of the model.
    coords : mapping, optional
        Of other dims.

    Returns
    -------
    Model
        Its terms are not scaled, and other dims have all of their rows. It shares the values of the
        data that stay.
    """
    fgraph = _graph_of(model)
    fgraph._coords.update(coords or {})
    lengths = {rows.state.name: len(rows_held.numbers) for rows, rows_held in held.items()}
    for rows, rows_held in held.items():
        if rows.dim is not None:
            fgraph._coords[rows.dim] = rows_held.coords
            fgraph._dim_lengths[rows.dim] = pt.constant(len(rows_held.numbers), dtype="int64")
    states = [Rows(i).state for i in indexes(fgraph.outputs, by_shape=True) if is_stream(i)]
    numbers = {state: pt.constant(np.arange(lengths[state.name])) for state in states}
    return full_model(fgraph, replacements={**(swaps or {}), **numbers})


def held_model(model: Model) -> Model:
    """Make a model of the rows that the placeholders of a streamed model hold, whatever they are."""
    return full_model(_graph_of(model))


def every_row_model(model: Model) -> Model:
    """Build the full-data model with placeholder data.

    Parameters
    ----------
    model : Model
        A streamed one.

    Returns
    -------
    Model
        Its data of streams are nan, or 0 where they are integers.
    """
    fgraph = _graph_of(model)
    replacements: dict[Variable, Variable] = {}
    for index in indexes(fgraph.outputs, by_shape=True):
        if is_stream(index):
            rows = Rows(index)
            replacements[rows.state] = pt.arange(rows.total, dtype="int64")
    for var in streams_in(fgraph.outputs):
        total = Rows(var.owner.inputs[1]).total
        nothing = np.array(np.nan if var.type.dtype.startswith("float") else 0, var.type.dtype)
        lengths = [var.shape[k] for k in range(1, var.type.ndim)]
        replacements[var] = pt.alloc(nothing, total, *lengths)
    return full_model(fgraph, replacements=replacements)


def model_without_rows(model: Model) -> Model:
    """Make a model of what does not depend on the data of a stream: its terms and data are left out."""
    fgraph = _graph_of(model)
    kept = [
        output
        for output in fgraph.outputs
        if model_op(output).name not in fgraph._streams and not needs_rows(output)
    ]
    return full_model(fgraph, kept)


def _graph_of(model: Model) -> Any:
    with sharing_data():
        fgraph: Any = fgraph_from_model(model)[0]
    fgraph._coords = fgraph._coords.copy()  # those of some rows are not the model's
    for rows in map(Rows, filter(is_stream, model_indexes(model))):
        known = fgraph._coords.get(rows.dim)
        if known is not None and len(known) != current_length(rows.total):
            fgraph._coords[rows.dim] = None  # of rows that pm.set_data gave
    return fgraph
