# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Numbers of rows as inputs of the compiled step, so that other data compile nothing.

The number of all rows is a constant in the graph where arrays, a loader or `total_size` say it. A step
takes it as a value instead, and arrays of rows as ones of any length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pytensor

from pytensor.compile.executor import Function
from pytensor.compile.mode import get_mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable, equal_computations
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import graph_inputs, toposort
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.type import TensorType

from pymc.minibatch.array_data import RawData
from pymc.minibatch.batch_logp import minibatch_logp
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.scaling import RowRatio
from pymc.minibatch.stream_index import StreamIndexRV
from pymc.pytensorf import collect_default_updates, compile, reseed_rngs
from pymc.variational.engine import rewrites
from pymc.variational.number_inputs import replaced

__all__ = [
    "BatchInput",
    "StepFunction",
    "StepGraph",
    "compile_step",
    "host_value",
    "step_graph",
    "with_totals_as_inputs",
]


def with_totals_as_inputs(
    outputs: Sequence[Variable], constant_data: bool = False
) -> list[Variable]:
    """Put shared scalars in the place of known numbers of all rows.

    Parameters
    ----------
    outputs : sequence of Variable
    constant_data : bool
        Whether raw data become constants of the compiled step, as on JAX. They keep their length then,
        and so does what is drawn from them.

    Returns
    -------
    list of Variable
        The number of rows of an index, and the total of a scale, are int64 scalars. The first axis of raw
        data has no static length. All else is the same, so a graph in which a number of rows is a
        constant in other places too differs from that of another number.

    Examples
    --------
    >>> from pytensor.graph.traversal import graph_inputs
    >>> from pymc.variational.engine.step import with_totals_as_inputs
    >>> batch = pm.Minibatch(np.arange(10.0), batch_size=2)
    >>> [batch] = with_totals_as_inputs([batch])
    >>> [int(var.get_value()) for var in graph_inputs([batch]) if var.name == "n_rows"]
    [10]
    """
    totals, kept = dict[Variable, int](), set[Variable]()
    nodes = list(toposort(outputs))
    for node in nodes:
        if isinstance(node.op, RowRatio):
            total = node.inputs[0]
        elif isinstance(node.op, MinibatchIndexRV):
            total = node.inputs[2]
            if constant_data and not isinstance(node.op, StreamIndexRV):
                kept.add(total)
        else:
            continue
        if (n_rows := _known(total)) is not None:
            totals[total] = n_rows
    new: dict[Variable, Variable] = {
        total: pytensor.shared(np.array(n_rows, "int64"), "n_rows", shape=())
        for total, n_rows in totals.items()
        if total not in kept
    }
    if not constant_data:
        data = {var for node in nodes for var in node.inputs if isinstance(var, RawData)}
        new |= {var: _of_any_length(var) for var in data if var.type.ndim}
    return replaced(outputs, nodes, new)


def _known(total: Variable) -> int | None:
    """Return a number that is a constant, or the cast of one."""
    if total.owner is not None and isinstance(total.owner.op, Elemwise):
        [*inputs] = total.owner.inputs
        if len(inputs) != 1 or str(total.owner.op.scalar_op) != "Cast{int64}":
            return None
        [total] = inputs
    return int(total.data) if isinstance(total, Constant) and np.ndim(total.data) == 0 else None


def _of_any_length(data: RawData) -> SharedVariable:
    """Share the memory of `data`, with a first axis whose length is not static."""
    kind = TensorType(data.type.dtype, (None, *data.type.shape[1:]))
    return RawData(type=kind, value=data.container.data, strict=True, name=data.name)


class BatchInput(NamedTuple):
    """An input that has another value at each step.

    Parameters
    ----------
    place : int
        Among the inputs.
    dtype : dtype
        Its own.
    given : dtype
        Of its batches, which a driver converts.
    """

    place: int
    dtype: np.dtype
    given: np.dtype


@dataclass(frozen=True)
class StepGraph:
    """What a step computes.

    Parameters
    ----------
    shared : tuple of SharedVariable
        The inputs, in the order in which a walk through the outputs meets them.
    outputs : tuple of Variable
        The loss, if it has one, and the next values.
    updated : tuple of int
        Of which input each next value is.
    has_loss : bool
    guarded : bool
        Whether a step whose loss is not finite leaves all but generators as it was.
    fed : tuple of BatchInput
        Which inputs have another value at each step, as a driver is told.
    constant_data : bool
        Whether raw data become constants when it is compiled, as on JAX.
    """

    shared: tuple[SharedVariable, ...]
    outputs: tuple[Variable, ...]
    updated: tuple[int, ...]
    has_loss: bool
    guarded: bool = False
    fed: tuple[BatchInput, ...] = ()
    constant_data: bool = False

    def same_as(self, other: StepGraph) -> bool:
        """Tell whether the other computes the same from other values."""
        if (self.updated, self.has_loss) != (other.updated, other.has_loss):
            return False
        if (self.guarded, self.fed) != (other.guarded, other.fed):
            return False
        if self._kinds != other._kinds:
            return False
        return equal_computations(
            list(self.outputs), list(other.outputs), list(self.shared), list(other.shared)
        )

    @property
    def _kinds(self) -> list[tuple[Any, ...]]:
        """What inputs must have alike; data that become constants are their own kind."""
        return [(type(v), v.type, v if self._is_constant(v) else None) for v in self.shared]

    def _is_constant(self, var: SharedVariable) -> bool:
        return self.constant_data and isinstance(var, RawData)

    def on_own_variables(self) -> StepGraph:
        """Put new shared variables in the place of the user's, but for data that become constants."""
        own = tuple(
            var
            if self._is_constant(var)
            else type(var)(type=var.type, value=host_value(var), strict=True, name=var.name)
            for var in self.shared
        )
        outputs = clone_replace(list(self.outputs), dict(zip(self.shared, own)))
        return replace(self, shared=own, outputs=tuple(outputs))

    def forget_values(self) -> None:
        """Let go of the values of own variables, which nobody reads."""
        for var in self.shared:
            if not self._is_constant(var):
                var.container.storage[0] = None


@dataclass(frozen=True)
class StepFunction:
    """One optimisation step, compiled, without explicit inputs.

    Parameters
    ----------
    function : Function
        Its inputs are shared variables of its own, which nobody else reads: a driver puts the values
        of a state in their place.
    updates : mapping of int to int
        Position of an input -> position of the output that is its next value. An input that is not
        among them stays as it is.
    has_loss : bool
        Whether the first output is the loss, a scalar, or a vector of it and of others beside it.
    order : tuple of int
        For each input, which of the graph's inputs it is.
    guarded : bool
        Whether a step whose loss is not finite leaves all but generators as it was.
    loss_shape : tuple of int
        Shape of the first output, () or (n,), where it is the loss.
    fed : tuple of BatchInput
        The inputs that have another value at each step.
    """

    function: Function
    updates: Mapping[int, int]
    has_loss: bool
    order: tuple[int, ...]
    guarded: bool = False
    loss_shape: tuple[int, ...] = ()
    fed: tuple[BatchInput, ...] = ()

    def loss_buffer(self, n_steps: int) -> np.ndarray:
        """Make room for the losses of steps, nan: shape (n_steps,), or (n_steps, n) of n losses."""
        return np.full((n_steps, *self.loss_shape), np.nan)


def step_graph(
    updates: Mapping[SharedVariable, Variable],
    loss: Variable | None,
    random_seed: int,
    guarded: bool = False,
    fed: Mapping[SharedVariable, np.dtype] | None = None,
    constant_data: bool = False,
) -> StepGraph:
    """Collect all that a step computes.

    Parameters
    ----------
    updates : mapping of SharedVariable to Variable
        The next values. Those of generators and minibatch indexes are added.
    loss : scalar variable, or vector of a known length, optional
        Of a vector the first entry is the loss, and the others are kept beside it.
    random_seed : int
        Seeds the generators and minibatch indexes of the graph.
    guarded : bool
        Whether the graph leaves everything as it was where its loss is not finite.
    fed : mapping of SharedVariable to dtype, optional
        What has another value at each step, and the dtype of its batches. Those that the graph does
        not read are left out.
    constant_data : bool
        Whether raw data become constants when it is compiled, as on JAX. If not, it is the graph of any
        number of rows.

    Raises
    ------
    ValueError
        If it is guarded by a loss that it has not, or what is fed has an update.
    """
    if guarded and loss is None:
        raise ValueError("A guarded step says by its loss that it failed: loss=None has none.")
    losses = [] if loss is None else [loss]
    given = [key.type.filter_variable(value, allow_convert=True) for key, value in updates.items()]
    rngs = collect_default_updates([*losses, *given])
    reseed_rngs(list(rngs), random_seed)
    updates = {**rngs, **dict(zip(updates, given))}
    outputs = tuple(with_totals_as_inputs([*losses, *updates.values()], constant_data))
    read = [var for var in graph_inputs(outputs) if isinstance(var, SharedVariable)]
    written = [var for var in updates if var not in read]
    shared = (*read, *written)
    place = {var: i for i, var in enumerate(shared)}
    updated = tuple(place[var] for var in updates)
    fed = fed or {}
    moved = [var.name for var in fed if var in updates]
    if moved:
        raise ValueError(f"{moved} get their values from a stream, and have updates of their own.")
    taken = tuple(
        BatchInput(place[var], np.dtype(var.type.dtype), np.dtype(given))
        for var, given in fed.items()
        if var in place
    )
    return StepGraph(shared, outputs, updated, bool(losses), guarded, taken, constant_data)


def compile_step(graph: StepGraph, mode: Any = None, **kwargs: Any) -> StepFunction:
    """Compile a graph.

    Parameters
    ----------
    graph : StepGraph
        On variables of its own: the function has them as its inputs.
    mode : str or Mode, optional
    **kwargs
        More of :func:`pytensor.function`'s.
    """
    values = graph.outputs[int(graph.has_loss) :]
    with minibatch_logp():
        function = compile(
            [],
            graph.outputs[0] if graph.has_loss else [],
            updates=dict(zip((graph.shared[i] for i in graph.updated), values)),
            random_seed=False,
            mode=get_mode(mode).including(rewrites.TAG),
            **kwargs,
        )
    place = {var: i for i, var in enumerate(graph.shared)}
    order = tuple(place[given.variable] for given in function.maker.inputs)
    update_of = function.maker.fgraph.update_mapping
    updates = {i: out for out, i in update_of.items()}
    loss_shape = graph.outputs[0].type.shape if graph.has_loss else ()
    fed = tuple(given._replace(place=order.index(given.place)) for given in graph.fed)
    return StepFunction(function, updates, graph.has_loss, order, graph.guarded, loss_shape, fed)


def host_value(var: SharedVariable) -> Any:
    """Return the value of a shared variable, which a function of another backend may have left."""
    value = var.container.storage[0]
    if isinstance(value, np.ndarray | np.random.Generator) or not isinstance(var.type, TensorType):
        return value
    return np.array(value, dtype=var.type.dtype)
