# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.type import RandomType
from pytensor.xtensor import as_xtensor
from pytensor.xtensor.basic import TensorFromXTensor
from pytensor.xtensor.type import XTensorVariable

import pymc._layer as _layer

from pymc.minibatch.axis_rules import check_marginalized
from pymc.minibatch.axis_tracking import (
    BROADCAST,
    OTHER,
    Axes,
    Rows,
    Untracked,
    output_axes,
    root_axes,
    track_axes,
)
from pymc.minibatch.plates import (
    as_axes,
    axes_of_dims,
    check_free_variable,
    model_indexes,
    plates_of,
    term_indexes,
    value_axes,
)
from pymc.minibatch.potentials import potential_scale, without_stated_totals
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream_index import streamed, streams_in
from pymc.minibatch.sum_over_rows import check_log_probability, is_marker
from pymc.minibatch.total_size import Term, infer_totals


class _ModelVar:
    """A variable of a model, whose axes need no names: `dims` may be None."""

    def __init__(self, name: str, dims: Sequence[str | None] = ()) -> None:
        self.name = name
        self.dims = tuple(dims)


released = _layer.run_release(globals(), ModelVar=_ModelVar)

if TYPE_CHECKING:
    # What our modules use of the release's
    class ModelDeterministic(Op):
        dims: tuple[str, ...]

    class ModelFreeRV(Op):
        dims: tuple[str, ...]
        transform: Any

    class ModelNamed(Op):
        dims: tuple[str, ...]

    class ModelObservedRV(Op):
        dims: tuple[str, ...]

    class ModelVar(Op):
        name: str

    from pymc.model.core import Model


_sharing_data: ContextVar[bool] = ContextVar("_sharing_data", default=False)


@contextmanager
def sharing_data() -> Iterator[None]:
    """Let models that are made from others in this context share their data and coords.

    The variables of `pm.Data`, and the lengths of dims, are the same in both models: `pm.set_data` on the
    one shows in the other. Outside of it they are copied.
    """
    token = _sharing_data.set(True)
    try:
        yield
    finally:
        _sharing_data.reset(token)


class SharedCoords(MutableMapping):
    """Coords of a model that shares its data with another one.

    New values of the dims that both have are those of both. A new dim belongs to one model.
    """

    def __init__(self, other: MutableMapping[str, Any]) -> None:
        self._other, self._shared = other, dict.fromkeys(other)
        self._own: dict[str, Any] = {}

    def __getitem__(self, dim: str) -> Any:
        return self._other[dim] if dim in self._shared else self._own[dim]

    def __setitem__(self, dim: str, values: Any) -> None:
        (self._other if dim in self._shared else self._own)[dim] = values

    def __delitem__(self, dim: str) -> None:
        del (self._shared if dim in self._shared else self._own)[dim]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._shared, *self._own])

    def __len__(self) -> int:
        return len(self._shared) + len(self._own)

    def __repr__(self) -> str:
        return repr(self.copy())

    def copy(self) -> dict[str, Any]:
        return dict(self)


@wraps(released.deepcopy_shared_variable)
def deepcopy_shared_variable(var: SharedVariable) -> SharedVariable:
    if _sharing_data.get() and not isinstance(var.type, RandomType):
        return var
    return released.deepcopy_shared_variable(var)


class WithoutInitvals:
    """A view of a model in which every initial value is the default.

    The row numbers of streams are among its variables: a clone has a copy of them, as of its data.
    """

    def __init__(self, model: Model):
        self._model = model
        self.rvs_to_initial_values = dict.fromkeys(model.rvs_to_initial_values)
        numbers = (Rows(var.owner.inputs[1]).state for var in model.root._streams.values())
        self.named_vars = {**model.named_vars, **{rows.name: rows for rows in numbers}}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@wraps(released.fgraph_from_model)
def fgraph_from_model(
    model: Model, inlined_views: bool = False
) -> tuple[FunctionGraph, dict[Variable, Variable]]:
    initvals, streams, coords = model.rvs_to_initial_values, model.root._streams, model.root._coords
    fgraph, memo = released.fgraph_from_model(WithoutInitvals(model), inlined_views)
    # Initial values, which may refer to other variables, and the row numbers of streams, by name
    fgraph._initvals = {
        rv.name: rebuild([initval], memo)[0] if isinstance(initval, Variable) else initval
        for rv, initval in initvals.items()
        if initval is not None
    }
    fgraph._streams = {name: Rows(var.owner.inputs[1]).state.name for name, var in streams.items()}
    if _sharing_data.get():
        fgraph._coords = SharedCoords(coords)
    return fgraph, memo


@wraps(released.model_from_fgraph)
def model_from_fgraph(fgraph: FunctionGraph, mutate_fgraph: bool = False) -> Model:
    notes = vars(fgraph)
    initvals, streams = notes.get("_initvals", {}), notes.get("_streams", {})
    if fgraph_indexes(fgraph):
        if not mutate_fgraph:
            fgraph, mutate_fgraph = _copy_graph(fgraph), True
        scale_terms(fgraph)
    model = released.model_from_fgraph(fgraph, mutate_fgraph)
    for rv in model.free_RVs:
        if rv.name in initvals:
            initval = initvals[rv.name]
            if isinstance(initval, Variable):
                variables = {
                    var: model[var.owner.op.name]
                    for var in ancestors([initval])
                    if var.owner is not None and isinstance(var.owner.op, released.ModelVar)
                }
                [initval] = rebuild([initval], variables)
            model.rvs_to_initial_values[rv] = initval
    model._minibatch_indexes.extend(model_indexes(model))
    model._streams.update(_find_streams(model, streams))
    return model


def _copy_graph(fgraph: FunctionGraph) -> FunctionGraph:
    copy, memo = fgraph.clone_get_equiv(check_integrity=False, attach_feature=False)
    notes = vars(fgraph)
    copy._coords = notes.get("_coords", {})
    copy._dim_lengths = {dim: memo.get(n, n) for dim, n in notes.get("_dim_lengths", {}).items()}
    return copy


def _find_streams(model: Model, names: Mapping[str, str]) -> dict[str, Variable]:
    """Find the streamed placeholders of a clone, also those that no term uses, by their row numbers."""
    values = model.rvs_to_values.values()
    terms = [*model.basic_RVs, *values, *model.potentials, *model.deterministics]
    used = {var.owner.inputs[0]: var for var in streams_in(terms)}
    indexes = {rows.state.name: rows.index for rows in map(Rows, model._minibatch_indexes)}
    result = {}
    for data in model.data_vars:
        if not isinstance(data, SharedVariable):
            continue
        if data in used:
            result[data.name] = used[data]
        elif data.name in names:
            index = indexes.get(names[data.name])
            if index is not None:  # else no term uses the stream
                result[data.name] = streamed(data, index)
    return result


def scale_terms(fgraph: FunctionGraph) -> None:
    """Check the terms of a model, and scale those that a transformation has minibatched.

    `register_rv` does the same, but is not called for models that are made from graphs.
    """
    from pymc.variational.minibatch_rv import scaled_rv, unscaled_rv

    plates = plates_of(fgraph_indexes(fgraph))
    known: dict[Variable, Axes | Untracked] = {}  # of what the next terms may depend on
    for node in fgraph.toposort():
        op = node.op
        if isinstance(op, released.ModelFreeRV):
            rv, value = node.inputs
            check_free_variable(rv, op.name, op.dims, plates, known)
            rows = axes_of_dims(op.dims, plates)
            [free] = node.outputs
            known[free] = root_axes(free)
            if any(rows):  # a local variable, whose prior, with the Jacobian, is scaled
                known[free] = axes = as_axes(rows)
                of_value = value_axes(axes, value)
                check_log_probability(
                    op.name, rv, value, of_value, known=known, transform=op.transform
                )
        elif isinstance(op, released.ModelObservedRV):
            rv, value = node.inputs
            bare, old_totals = unscaled_rv(rv)
            check_marginalized(op.name, bare, track_axes(value))
            term = Term(op.name, bare, value, op.dims, plates, fgraph._dim_lengths, known)
            totals = infer_totals(term, old_totals)
            observed = node.outputs[0]
            if [total is None for total in totals] != [total is None for total in old_totals]:
                observed = _replace_observed(fgraph, node, scaled_rv(bare, totals), value)
            known[observed] = track_axes(value)
        elif isinstance(op, released.ModelPotential):
            var, old_total = without_stated_totals(node.inputs[0])
            scale = potential_scale(var, old_total, name=op.name, dims=op.dims or None, known=known)
            if scale is not None:
                fgraph.replace(node.outputs[0], op(var * scale), import_missing=True)


def unmarked(var: Variable) -> Variable:
    """Return what a variable of a model's graph is without the Op that names it."""
    while var.owner is not None and isinstance(var.owner.op, released.ModelVar):
        var = var.owner.inputs[0]
    return var


def fgraph_indexes(fgraph: FunctionGraph) -> list[Variable]:
    """Return every minibatch index that the graph of a model depends on."""
    free = (node for node in fgraph.toposort() if isinstance(node.op, released.ModelFreeRV))
    return term_indexes(fgraph.outputs, {node.outputs[0]: node.op.dims for node in free})


def _replace_observed(
    fgraph: FunctionGraph, node: Apply, rv: Variable, value: Variable
) -> Variable:
    """Replace an observed variable by one of `rv`; either may have named dims."""
    [old] = node.outputs
    if isinstance(value, XTensorVariable) and not isinstance(rv, XTensorVariable):
        value = value.values
    observed = new = node.op(rv, value)
    if isinstance(old, XTensorVariable) and not isinstance(new, XTensorVariable):
        new = as_xtensor(new, dims=old.type.dims)
    elif isinstance(new, XTensorVariable) and not isinstance(old, XTensorVariable):
        new = new.values
    fgraph.replace(old, new, import_missing=True)
    return observed


def unscale_terms(fgraph: FunctionGraph) -> None:
    """Undo the scale of subsampled axes. That of other axes, by an explicit total_size, stays."""
    from pymc.variational.minibatch_rv import scaled_rv, unscaled_rv

    for node in fgraph.toposort():
        if not isinstance(node.op, released.ModelObservedRV):
            continue
        rv, value = node.inputs
        bare, totals = unscaled_rv(rv)
        axes = track_axes(value)
        if bare is rv or not isinstance(axes, tuple):
            continue
        left = [None if isinstance(a, Rows) else t for a, t in zip(axes, totals)]
        if any(total is not None for total in left):
            bare = scaled_rv(bare, left)
        elif bare.owner is not None and isinstance(bare.owner.op, TensorFromXTensor):
            [bare] = bare.owner.inputs
            value = as_xtensor(value, dims=bare.type.dims)
        _replace_observed(fgraph, node, bare, value)


@is_marker.register(released.ModelVar)
def _(op: Op) -> bool:
    return True


@output_axes.register(released.ModelVar)
def _(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [inputs[0]]


@output_axes.register(released.ModelObservedRV)
def _(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [inputs[1]]


@output_axes.register(released.ModelFreeRV)
def _(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    lengths = node.outputs[0].type.shape
    return [tuple(OTHER if a is BROADCAST and n != 1 else a for a, n in zip(inputs[0], lengths))]
