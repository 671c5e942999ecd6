# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Transform a model of all rows to one of minibatches, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from pytensor.compile.ops import view_op
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.traversal import ancestors, explicit_graph_inputs
from pytensor.graph.type import Type
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.xtensor.type import XTensorVariable

from pymc.argument_checks import check_choice, check_int
from pymc.minibatch.array_data import raw_data
from pymc.minibatch.axis_tracking import Axes, Rows, Untracked, label, track_axes
from pymc.minibatch.index import check_batch_size, minibatch_index
from pymc.minibatch.lengths import counts_up
from pymc.minibatch.minibatch import axis_length, row_count, take_rows
from pymc.minibatch.plates import (
    as_axes,
    axes_of_dims,
    batch_initval,
    check_of_all_rows,
    known_axes,
    local_axes,
    local_shape,
    model_indexes,
    plates_of,
)
from pymc.minibatch.rebuild import FixedLengthError, all_rows, rebuild
from pymc.minibatch.shuffle import SAMPLING
from pymc.minibatch.stream_index import is_stream
from pymc.minibatch.subsample import find_positional_rows, subsample
from pymc.minibatch.total_size import warn_of_unsigned
from pymc.model.core import Model, modelcontext
from pymc.model.fgraph import (
    ModelDeterministic,
    ModelFreeRV,
    ModelNamed,
    ModelObservedRV,
    ModelVar,
    fgraph_from_model,
    fgraph_indexes,
    model_from_fgraph,
    sharing_data,
    unmarked,
    unscale_terms,
)
from pymc.model.transform.closed_over import with_closed_over_rows
from pymc.pytensorf import current_length


def remove_minibatch(model: Model | None = None) -> Model:
    """Make the same model on all rows, without :func:`pymc.Minibatch`.

    Parameters
    ----------
    model : Model, optional
        By default the one of the context. It is not changed.

    Returns
    -------
    Model
        A model of the full data, with variables of the same names, also if there is no minibatch. Its
        data and coords are those of `model`: :func:`pymc.set_data` on the one shows in the other.

    Examples
    --------
    >>> import numpy as np
    >>> import pymc as pm
    >>> with pm.Model() as model:
    ...     batch = pm.Minibatch(np.arange(100.0), batch_size=10)
    ...     y = pm.Normal("y", pm.Normal("mu"), 1, observed=batch)
    >>> full = pm.remove_minibatch(model)
    >>> full["y"].shape.eval()
    array([100])
    """
    model = modelcontext(model)
    for index in model_indexes(model):
        if is_stream(index):
            raise ValueError(
                f"pm.remove_minibatch makes a model of all rows, but those of {Rows(index)} come in batches "
                "from a loader and are not in memory. For a model of all rows, put them into pm.Data as "
                "an array; for one of some rows, give them to pm.set_data: results are about these"
            )
    with sharing_data():
        fgraph, _ = fgraph_from_model(model)
    return full_model(fgraph)


def full_model(
    fgraph: FunctionGraph,
    outputs: Sequence[Variable] | None = None,
    replacements: Mapping[Variable, Variable] | None = None,
) -> Model:
    """Make a model without indexes of a model's graph, which is changed.

    `outputs` are those of the graph that the model is to have, by default all. Variables are replaced
    by `replacements` first.
    """
    kept = None if outputs is None else {model_op(output).name for output in outputs}
    unscale_terms(fgraph)
    outputs = [out for out in fgraph.outputs if kept is None or model_op(out).name in kept]
    outputs = rebuild(outputs, replacements or {})
    full = _model_of(fgraph, all_rows(outputs, fgraph._dim_lengths))
    for rv in full.observed_RVs:
        _check_length_not_fixed(rv, full.rvs_to_values[rv])
    for rv, initval in full.rvs_to_initial_values.items():
        if isinstance(initval, Variable):
            initval = rebuild([initval], replacements or {})
            [full.rvs_to_initial_values[rv]] = all_rows(initval, full.dim_lengths)
    return full


def _check_length_not_fixed(rv: Variable, value: Variable) -> None:
    for k, (length, rows) in enumerate(zip(rv.type.shape, value.type.shape)):
        if None not in (length, rows) and length != rows:
            raise FixedLengthError(
                f"{rv.name!r} has a fixed length of {length} along axis {k}, that of a batch, so it "
                f"cannot stand for all {rows} rows of its data. Leave out its shape=, or take it and "
                "the shapes of its parameters from the batch, such as shape=batch.shape"
            )


def _model_of(fgraph: FunctionGraph, outputs: Sequence[Variable]) -> Model:
    """Make a model of `outputs`, with the coords and the order of variables of `fgraph`."""
    new = FunctionGraph(outputs=outputs, clone=False)
    new._coords, new._dim_lengths = fgraph._coords, fgraph._dim_lengths
    new._streams, new._initvals = fgraph._streams, fgraph._initvals
    old_types = {model_op(out).name: _model_node(out).outputs[0].type for out in fgraph.outputs}
    _fit_values(new, old_types)
    for node in list(new.apply_nodes):
        # Of rows of data, all rows are the data themselves, which have a name already
        if isinstance(node.op, ModelDeterministic) and unmarked(node.inputs[0]).owner is None:
            new.change_node_input(node, 0, view_op(node.inputs[0]), import_missing=True)
    model = model_from_fgraph(new, mutate_fgraph=True)
    # Points of the one model are points of the other, also where they are read by position
    order = {name: k for k, name in enumerate(old_types)}
    for variables in (
        model.free_RVs,
        model.observed_RVs,
        model.potentials,
        model.deterministics,
        model.data_vars,
    ):
        variables.sort(key=lambda var: order[var.name])
    rvs = sorted(model.rvs_to_values, key=lambda rv: order[rv.name])
    model.rvs_to_values = {rv: model.rvs_to_values[rv] for rv in rvs}
    return model


def _fit_values(fgraph: FunctionGraph, old_types: Mapping[str, Type]) -> None:
    """Give free variables of a new shape values that fit to it."""
    plates = plates_of(fgraph_indexes(fgraph))
    for node in fgraph.toposort():
        if not isinstance(node.op, ModelFreeRV):
            continue
        rows = axes_of_dims(node.op.dims, plates)
        if not any(rows) and node.outputs[0].type == old_types[node.op.name]:
            continue
        (rv, value), transform = node.inputs, node.op.transform
        fitting = rv if transform is None else transform.forward(rv, *rv.owner.inputs)
        shape = list(fitting.type.shape)
        for k, axis in enumerate(rows[: len(shape)]):
            if axis is not None:  # inner graphs hide it
                shape[k] = None if is_stream(axis) else axis.batch_size
        new = fitting.type.clone(shape=tuple(shape))(name=value.name)
        new.tag = copy(value.tag)
        fgraph.replace(node.outputs[0], node.op(rv, new), import_missing=True)


def _model_node(output: Variable) -> Apply:
    while not isinstance(output.owner.op, ModelVar):  # a conversion to named dims may follow it
        output = output.owner.inputs[0]
    return output.owner


def model_op(output: Variable) -> Any:
    """Return the `ModelVar` of an output of a model's graph."""
    return _model_node(output).op


def minibatch_model(
    model: Model | None = None,
    batch_size: int | Mapping[str, int] | None = None,
    sampling: str = "epoch",
) -> Model:
    """Make the same model on minibatches of its data.

    Parameters
    ----------
    model : Model, optional
        A model of full data; by default the one of the context. It is not changed, but shares
        its data with the result. Observed values, or :func:`pymc.Data`, have the dim that is subsampled.
        Other data, and constants, are rows of it where their entries meet, one by one, those of a
        variable that has the dim: design matrices, group indexes, offsets, weights. So models of Bambi
        are subsampled as they are.
    batch_size : int, or dict of str to int
        Rows of a batch: of the leading dim that all observed variables share, or Potentials where there
        are none, or by dim, such as ``{"obs": 500}``.
    sampling : {"epoch", "without_replacement", "with_replacement"}
        See :func:`pymc.Minibatch`.

    Returns
    -------
    Model
        A model in which everything along the subsampled dims is of the batch, but for data and
        coords, which stay full, and are those of `model`: :func:`pymc.set_data` on the one shows in
        the other. Its log-probability is an unbiased estimate of that of `model`. A free
        variable with a subsampled dim has the values of the rows of a batch, and its prior is scaled
        as the likelihood is; initial values of it go along.

    Raises
    ------
    TypeError
        If a size is not a whole number, or there is none.
    ValueError
        If nothing has a subsampled dim, observed variables do not share a leading one, or a term
        cannot be split into rows.

    Examples
    --------
    >>> import numpy as np
    >>> import pymc as pm
    >>> with pm.Model(coords={"obs": range(100)}) as model:
    ...     x = pm.Data("x", np.arange(100.0), dims="obs")
    ...     y = pm.Normal("y", pm.Normal("slope") * x, 1, observed=np.arange(100.0), dims="obs")
    >>> fast = pm.minibatch_model(model, batch_size=10)
    >>> fast["y"].shape.eval()
    array([10])
    """
    if isinstance(model, int | Mapping):
        raise TypeError(
            f"the first argument of pm.minibatch_model is the model, got {model!r}: write "
            f"pm.minibatch_model(batch_size={model!r})"
        )
    model = modelcontext(model)
    check_choice(sampling, "sampling", "pm.minibatch_model", tuple(SAMPLING))
    sizes = _sizes_by_dim(model, batch_size)
    check_of_all_rows(model, sizes)
    with sharing_data():
        fgraph, _ = fgraph_from_model(model)
    for dim in sizes:
        _open_closures(fgraph, dim)
    batches: dict[Variable, Variable] = {}
    lengths: dict[Variable, Variable] = {}
    sized: dict[Apply, dict[int, Variable]] = {}
    plates: dict[str, Variable] = {}
    coupled: dict[Variable, str] = {}
    for dim, size in sizes.items():
        found = _data_on(fgraph, dim)
        coupled |= dict.fromkeys(found.coupled, dim)
        plates[dim] = index = _draw_index(model, found.data, dim, size, sampling)
        for data, k in found.data.items():
            batches[data] = take_rows(batches.get(data, _as_shared(data)), index, k)
            if counts_up(data):  # as positions, in the batch they are those of its rows
                lengths[data] = pt.arange(index.shape[0], dtype=data.type.dtype)
        length = fgraph._dim_lengths[dim]
        lengths[length] = index.shape[0].astype(length.type.dtype)
        for node, axes in found.sizes.items():
            sized.setdefault(node, {}).update(dict.fromkeys(axes, index.shape[0]))
    known = {
        rv: as_axes(axes_of_dims(rv.owner.op.dims, plates))
        for rv in _free_variables(fgraph)
        if rv.owner.op.dims
    }
    # Named data stay full, as the rows are taken from them
    named = [out for out in fgraph.outputs if isinstance(model_op(out), ModelNamed)]
    try:
        outputs = subsample(
            [out for out in fgraph.outputs if out not in named],
            {data: (batch, _tracked_axes(batch)) for data, batch in batches.items()},
            lengths,
            # The lengths of other dims may come from data that are subsampled along another axis
            fixed=[v for v in fgraph._dim_lengths.values() if v not in lengths],
            sizes=sized,
            known=known,
        )
        batched = _model_of(fgraph, [*outputs, *named])
    except ValueError as error:
        for variable, dim in coupled.items():
            raise ValueError(
                f"pm.minibatch_model: along {dim!r} rows are coupled. {label(variable)} does not compute them "
                "one by one, as adstock, lags and running sums do not: a row needs others, which its batch does "
                'not have. Subsample a dim along which rows are independent, such as batch_size={"geo": 100}, '
                "or fit all rows. An adstock goes if it is written as a sum of lags of data alone, each times "
                "its weight"
            ) from error
        raise
    _set_batch_initvals(batched)
    for term in [*batched.observed_RVs, *batched.potentials]:
        warn_of_unsigned([term, batched.rvs_to_values.get(term, term)], term.name)
    return batched


def _draw_index(
    model: Model, data: Mapping[Variable, int], dim: str, size: int, sampling: str
) -> Variable:
    if not data:
        raise ValueError(
            f"batch_size of pm.minibatch_model has the dim {dim!r}, which no data of the model "
            f"have; the model's dims are {sorted(model.dim_lengths)}"
        )
    lengths = [axis_length(var, k) for var, k in data.items()]
    known = {n for n in map(current_length, lengths) if n is not None}
    if len(known) > 1:
        raise ValueError(
            f"pm.minibatch_model: the data on the dim {dim!r} have {' and '.join(map(str, known))} rows; "
            "rows that belong together need one number"
        )
    for n_rows in known:
        check_batch_size(size, n_rows)
    return minibatch_index(row_count(lengths), size, sampling, dim)


def _set_batch_initvals(batched: Model) -> None:
    known = known_axes(batched)
    for rv, rows in local_axes(batched).items():
        shape = local_shape(batched, batched.named_vars_to_dims[rv.name])
        initval = batched.rvs_to_initial_values[rv]
        batched.rvs_to_initial_values[rv] = batch_initval(initval, rv.name, rows, shape, known)


def _tracked_axes(batch: Variable) -> Axes:
    axes = track_axes(batch)
    if isinstance(axes, Untracked):  # one index along two axes of one variable
        raise ValueError(f"pm.minibatch_model: {axes.why}")
    return axes


def _sizes_by_dim(model: Model, batch_size: Any) -> dict[str, int]:
    if batch_size is None:
        raise TypeError(
            'pm.minibatch_model needs batch_size, a number of rows or a dict such as {"obs": 500}'
        )
    function = "pm.minibatch_model"
    if isinstance(batch_size, Mapping):
        if not batch_size:
            raise ValueError(
                'batch_size of pm.minibatch_model is empty: name a dim, as {"obs": 500}'
            )
        return {dim: check_int(n, "batch_size", function) for dim, n in batch_size.items()}
    known = model.named_vars_to_dims
    # A model may have its likelihood in Potentials; those without dims have no rows
    terms = model.observed_RVs or [term for term in model.potentials if known.get(term.name)]
    dims = {term.name: known.get(term.name, ()) for term in terms}
    leading = {d[0] if d else None for d in dims.values()}
    if len(leading) != 1 or None in leading:
        raise ValueError(
            f"batch_size={batch_size} of pm.minibatch_model is for the leading dim that all observed "
            f"variables share, or Potentials where there are none, but their dims are {dims}: give them "
            'dims, or name the dims to subsample, as in batch_size={"obs": 500}'
        )
    [dim] = leading
    return {str(dim): check_int(batch_size, "batch_size", function)}


class _OnDim(NamedTuple):
    """Variables of a model that are on a dim, by their dims."""

    data: dict[Variable, int]  # and their axis
    terms: list[tuple[Variable, int]]
    n_rows: int | None  # None where data differ, or the number is not known


def _on_dim(fgraph: FunctionGraph, dim: str) -> _OnDim:
    data: dict[Variable, int] = {}
    terms: list[tuple[Variable, int]] = []
    for node in fgraph.toposort():
        if isinstance(node.op, ModelVar) and dim in node.op.dims:
            axis = node.op.dims.index(dim)
            terms += [(var, axis) for var in node.inputs if var.owner is not None]
            if isinstance(node.op, ModelNamed | ModelObservedRV):
                root = unmarked(node.inputs[-1])
                if root.owner is None:
                    data[root] = axis
    n_rows = {current_length(axis_length(var, k)) for var, k in data.items()}
    n_rows = n_rows or {current_length(fgraph._dim_lengths.get(dim))}
    return _OnDim(data, terms, n_rows.pop() if len(n_rows) == 1 else None)


def _open_closures(fgraph: FunctionGraph, dim: str) -> None:
    """Make data that functions of a `CustomDist` close over a part of the graph."""
    n_rows = _on_dim(fgraph, dim).n_rows
    for node in fgraph.toposort():
        if n_rows and isinstance(node.op, ModelObservedRV) and dim in node.op.dims:
            rv, value = node.inputs
            opened = with_closed_over_rows(rv, node.op.dims.index(dim), n_rows)
            if opened is not rv:
                fgraph.replace(node.outputs[0], node.op(opened, value), import_missing=True)


class _Data(NamedTuple):
    """Data on a dim, with their axis; nodes with the length of the dim; variables that couple rows."""

    data: dict[Variable, int]
    sizes: Mapping[Apply, list[int]]
    coupled: Sequence[Variable]


def _data_on(fgraph: FunctionGraph, dim: str) -> _Data:
    """Find the data on a dim: `pm.Data` and observed values by their dims, others by position."""
    data, terms, n_rows = _on_dim(fgraph, dim)
    if n_rows is None:
        return _Data(data, {}, [])
    dims = {
        unmarked(node.inputs[-1]): node.op.dims
        for node in fgraph.apply_nodes
        if isinstance(node.op, ModelNamed)
    }
    found = find_positional_rows(terms, n_rows, _free_variables(fgraph))
    for var, axes in (found.data | found.ends).items():
        if var not in data and len(axes) == 1 and _is_data(var):
            [axis] = axes
            named = (dims.get(var) or (None,) * var.type.ndim)[axis]
            if named is None and current_length(axis_length(var, axis)) == n_rows:
                data[var] = axis
    return _Data(data, found.sizes, [var for var in found.coupled if not _is_data(var)])


def _is_data(var: Variable) -> bool:
    """Return whether `var` depends on data only."""
    return not any(True for _ in explicit_graph_inputs([var])) and not any(
        v.owner is not None and isinstance(v.owner.op, RNGConsumerOp) for v in ancestors([var])
    )


def _free_variables(fgraph: FunctionGraph) -> list[Variable]:
    return [node.outputs[0] for node in fgraph.toposort() if isinstance(node.op, ModelFreeRV)]


def _as_shared(data: Variable) -> Variable:
    # Raw observed values are constants, and large constants make a function uncacheable
    if not isinstance(data, Constant) or isinstance(data, XTensorVariable):
        return data
    return raw_data(np.asarray(data.data), data.name)
