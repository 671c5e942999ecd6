# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

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
    track_axes,
)
from pymc.minibatch.plates import (
    as_axes,
    axes_of_dims,
    check_free_variable,
    check_local_prior,
    model_indexes,
    plates_of,
    term_indexes,
)
from pymc.minibatch.potentials import potential_scale, without_stated_totals
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.row_terms import is_marker
from pymc.minibatch.stream_index import streamed, streams_in
from pymc.minibatch.total_size import Term, infer_totals


class _ModelVar:
    """What says that a variable is of a model, in front of its class: axes need no names."""

    def __init__(self, name: str, dims: Sequence[str | None] = ()) -> None:
        self.name = name
        self.dims = tuple(dims)


released = _layer.run_release(globals(), ModelVar=_ModelVar)

if TYPE_CHECKING:
    # What our modules use of the release's
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


class ModelInitialFreeRV(released.ModelFreeRV):  # type: ignore[name-defined]
    """A free variable that has an initial value of its own.

    The initial value belongs to the graph, or `do`, `observe` and other transformations would lose
    it. It may refer to other variables of the model.
    """

    __props__ = ("name", "dims", "transform", "key")

    def __init__(self, name: str, dims: tuple, transform: Any, initval: Any):
        super().__init__(name, dims, transform)
        self.initval = initval
        self.key = _key_of(initval)


def _key_of(initval: Any) -> Hashable:
    """Return what tells initial values apart, after pickling too: what they are, not where."""
    if isinstance(initval, str):
        return initval
    if isinstance(initval, Variable):
        return uuid4().hex  # graphs are not compared: equal to its own copies alone
    value = np.asarray(initval)
    return value.dtype.str, value.shape, value.tobytes()


_sharing_data: ContextVar[bool] = ContextVar("_sharing_data", default=False)


@contextmanager
def sharing_data() -> Iterator[None]:
    """Let models that are made from others in here have the data of these, and the coords.

    The variables of `pm.Data`, and the lengths of dims, are the same in both: `pm.set_data` on the one
    shows in the other. Outside of it they are copied, as the release does.
    """
    token = _sharing_data.set(True)
    try:
        yield
    finally:
        _sharing_data.reset(token)


class SharedCoords(MutableMapping):
    """Coords of a model that shares its data with another one.

    New values of the dims that both have are those of both. A dim that is added is of the one alone.

    Parameters
    ----------
    of : mapping of str to tuple or None
        The coords of the other model itself.
    """

    def __init__(self, of: MutableMapping[str, Any]) -> None:
        self._of, self._names = of, dict.fromkeys(of)
        self._own: dict[str, Any] = {}

    def __getitem__(self, dim: str) -> Any:
        return self._of[dim] if dim in self._names else self._own[dim]

    def __setitem__(self, dim: str, values: Any) -> None:
        (self._of if dim in self._names else self._own)[dim] = values

    def __delitem__(self, dim: str) -> None:
        del (self._names if dim in self._names else self._own)[dim]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._names, *self._own])

    def __len__(self) -> int:
        return len(self._names) + len(self._own)

    def __repr__(self) -> str:
        return repr(self.copy())

    def copy(self) -> dict[str, Any]:
        """Return the coords as they are now."""
        return dict(self)


def deepcopy_shared_variable(var: Any) -> Any:
    if _sharing_data.get() and not isinstance(var.type, RandomType):
        return var
    return released.deepcopy_shared_variable(var)


deepcopy_shared_variable.__doc__ = released.deepcopy_shared_variable.__doc__


class WithoutInitvals:
    """A view of a model in which every initial value is the default.

    The row numbers of streams are among its variables: a clone has its own, as it has its own data.
    """

    def __init__(self, model: Model):
        self._model = model
        self.rvs_to_initial_values = dict.fromkeys(model.rvs_to_initial_values)
        numbers = (Rows(var.owner.inputs[1]).state for var in model.root._streams.values())
        self.named_vars = {**model.named_vars, **{rows.name: rows for rows in numbers}}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def fgraph_from_model(
    model: Model, inlined_views: bool = False
) -> tuple[FunctionGraph, dict[Variable, Variable]]:
    fgraph, memo = released.fgraph_from_model(WithoutInitvals(model), inlined_views)
    for rv, initval in model.rvs_to_initial_values.items():
        if initval is not None:
            old = memo[rv]
            if isinstance(initval, Variable):
                [initval] = rebuild([initval], memo)
            op = ModelInitialFreeRV(
                old.owner.op.name, old.owner.op.dims, old.owner.op.transform, initval
            )
            memo[rv] = op(*old.owner.inputs)
            fgraph.replace(old, memo[rv], import_missing=True)
    if _sharing_data.get():
        fgraph._coords = SharedCoords(model.root._coords)
    fgraph._streams = {
        name: Rows(var.owner.inputs[1]).state.name for name, var in model.root._streams.items()
    }
    return fgraph, memo


fgraph_from_model.__doc__ = released.fgraph_from_model.__doc__


def model_from_fgraph(fgraph: FunctionGraph, mutate_fgraph: bool = False) -> Any:
    if fgraph_indexes(fgraph):
        if not mutate_fgraph:
            fgraph, mutate_fgraph = _copied(fgraph), True
        scale_terms(fgraph)
    initvals = {
        node.op.name: node.op.initval
        for node in fgraph.apply_nodes
        if isinstance(node.op, ModelInitialFreeRV)
    }
    model = released.model_from_fgraph(fgraph, mutate_fgraph)
    for name, initval in initvals.items():
        if isinstance(initval, Variable):
            here = {
                var: model[var.owner.op.name]
                for var in ancestors([initval])
                if var.owner is not None and isinstance(var.owner.op, released.ModelVar)
            }
            [initval] = rebuild([initval], here)
        model.rvs_to_initial_values[model[name]] = initval
    model._minibatch_indexes.extend(model_indexes(model))
    model._streams.update(_streams_of(model, _noted(fgraph, "_streams")))
    return model


model_from_fgraph.__doc__ = released.model_from_fgraph.__doc__


def clone_model(model: Model) -> Any:
    return model_from_fgraph(fgraph_from_model(model)[0], mutate_fgraph=True)


clone_model.__doc__ = released.clone_model.__doc__


def _copied(fgraph: Any) -> Any:
    copy, memo = fgraph.clone_get_equiv(check_integrity=False, attach_feature=False)
    copy._coords = _noted(fgraph, "_coords")
    copy._dim_lengths = {k: memo.get(v, v) for k, v in _noted(fgraph, "_dim_lengths").items()}
    copy._streams = _noted(fgraph, "_streams")
    return copy


def _noted(fgraph: FunctionGraph, name: str) -> dict[str, Any]:
    """Return what :func:`fgraph_from_model` noted of a model on its graph; nothing of another graph."""
    return vars(fgraph).get(name, {})


def _streams_of(model: Model, names: Mapping[str, str]) -> dict[str, Variable]:
    """Find the streamed placeholders of a clone; those that no term uses are of a known index."""
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


def scale_terms(fgraph: Any) -> None:
    """Check the terms of a model, and scale those that a transformation has minibatched.

    `register_rv` does the same; `do`, `observe` and all that goes through a graph do not call it.
    """
    from pymc.variational.minibatch_rv import scaled_rv, unscaled_rv

    plates = plates_of(fgraph_indexes(fgraph))
    known: dict[Variable, Axes | Untracked] = {
        node.outputs[0]: as_axes(axes_of_dims(node.op.dims, plates))
        for node in fgraph.apply_nodes
        if isinstance(node.op, released.ModelFreeRV) and any(d in plates for d in node.op.dims)
    }
    free: list[Variable] = []
    for node in fgraph.toposort():
        op = node.op
        if isinstance(op, released.ModelFreeRV):
            rv, value = node.inputs
            check_free_variable(rv, op.name, op.dims, plates, known, free)
            rows = axes_of_dims(op.dims, plates)
            check_local_prior(rv, op.name, value, op.transform, rows, known, free)
            free.append(node.outputs[0])
        elif isinstance(op, released.ModelObservedRV):
            rv, value = node.inputs
            bare, given = unscaled_rv(rv)
            check_marginalized(op.name, bare, track_axes(value))
            term = Term(op.name, bare, value, op.dims, plates, fgraph._dim_lengths, known, free)
            totals = infer_totals(term, given)
            observed = node.outputs[0]
            if [total is None for total in totals] != [total is None for total in given]:
                observed = _observe_anew(fgraph, node, scaled_rv(bare, totals), value)
            known[observed] = track_axes(value)
        elif isinstance(op, released.ModelPotential):
            var, said = without_stated_totals(node.inputs[0])
            scale = potential_scale(
                var, said, name=op.name, dims=op.dims or None, known=known, free=free
            )
            if scale is not None:
                fgraph.replace(node.outputs[0], op(var * scale), import_missing=True)


def fgraph_indexes(fgraph: Any) -> list[Variable]:
    """Every minibatch index that the graph of a model depends on."""
    free = (node for node in fgraph.toposort() if isinstance(node.op, released.ModelFreeRV))
    return term_indexes(fgraph.outputs, {node.outputs[0]: node.op.dims for node in free})


def _observe_anew(fgraph: Any, node: Apply, rv: Variable, value: Variable) -> Variable:
    """Put `rv` in the place of an observed variable, whether either of them has named dims."""
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


def unscale_terms(fgraph: Any) -> None:
    """Undo the scale of subsampled axes; the one of others, where batches are fed by hand, stays."""
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
        _observe_anew(fgraph, node, bare, value)


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
