# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""One optimisation step as a graph, and compiled.

A step is compiled on new shared variables, so that it is a function of values only: any fit whose step has
the same graph can run it with the values of its own variables. Numbers of rows are values too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pytensor

from pytensor.compile.executor import Function
from pytensor.compile.mode import Mode, get_mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable, equal_computations
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import graph_inputs, toposort
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.type import TensorType

from pymc.minibatch.array_data import RawData
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.scaling import RowRatio, minibatch_logp
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
    "step_function",
    "step_graph",
]


class BatchInput(NamedTuple):
    """An input that a batch feed sets at each step."""

    input_index: int
    dtype: np.dtype
    batch_dtype: np.dtype  # a driver converts batches to `dtype`


@dataclass(frozen=True)
class StepGraph:
    """The graph of a step."""

    shared: tuple[SharedVariable, ...]  # the inputs, as a walk through the outputs meets them
    outputs: tuple[Variable, ...]  # the loss, if there is one, and the next values
    updated: tuple[int, ...]  # for each next value, the index of its input
    has_loss: bool
    guarded: bool = False  # a step whose loss is not finite changes generators only
    batch_inputs: tuple[BatchInput, ...] = ()
    constant_data: bool = False  # raw data become constants when it is compiled, as on JAX

    def same_as(self, other: StepGraph) -> bool:
        """Return whether the other computes the same from other values."""
        return self._signature == other._signature and equal_computations(
            list(self.outputs), list(other.outputs), list(self.shared), list(other.shared)
        )

    @property
    def _signature(self) -> tuple[object, ...]:
        # Data that become constants have to be the same
        kinds = [(type(v), v.type, v if self._is_constant(v) else None) for v in self.shared]
        return self.updated, self.has_loss, self.guarded, self.batch_inputs, kinds

    def _is_constant(self, var: SharedVariable) -> bool:
        return self.constant_data and isinstance(var, RawData)

    def with_new_variables(self) -> StepGraph:
        """Return the graph of new shared variables, but for data that become constants."""
        new = tuple(
            var
            if self._is_constant(var)
            else type(var)(type=var.type, value=host_value(var), strict=True, name=var.name)
            for var in self.shared
        )
        outputs = clone_replace(list(self.outputs), dict(zip(self.shared, new)))
        return replace(self, shared=new, outputs=tuple(outputs))

    def drop_values(self) -> None:
        """Let go of the values of new variables, which nobody reads."""
        for var in self.shared:
            if not self._is_constant(var):
                var.container.storage[0] = None


@dataclass(frozen=True)
class StepFunction:
    """A compiled step. The inputs of the function are shared variables that only a driver sets and reads.

    A step whose loop lies in the cache on disk has the key of the loop, and needs no function. Where it does,
    `compile_late` makes one.
    """

    compiled: Function | None
    updates: Mapping[int, int]  # index of an input -> index of the output that is its next value
    has_loss: bool  # the first output is the loss: a scalar, or a vector with auxiliary losses
    order: tuple[int, ...]  # for each input, its index among the inputs of the graph
    guarded: bool = False
    loss_shape: tuple[int, ...] = ()
    batch_inputs: tuple[BatchInput, ...] = ()
    loop_key: str | None = None
    compile_late: Callable[[], StepFunction] | None = None

    @property
    def linker(self) -> str:
        """The name of the linker's class. Only Numba's loops are in the cache."""
        return "NumbaLinker" if self.compiled is None else type(self.compiled.maker.linker).__name__

    @property
    def function(self) -> Function:
        """The function. One that is not compiled yet is compiled now."""
        return self.with_function().compiled

    def with_function(self) -> StepFunction:
        """Return the step with its function, without the key of a loop.

        Raises
        ------
        RuntimeError
            If the function takes its inputs in another order than the loop in the cache.
        """
        if self.compile_late is None:
            return self
        step = self.compile_late()
        if (step.order, step.updates) != (self.order, self.updates):
            raise RuntimeError(
                "A step was compiled to a function with other inputs than in the cache of PyTensor. "
                "`pytensor-cache clear` empties this cache"
            )
        return step

    def loss_buffer(self, n_steps: int) -> np.ndarray:
        """Return an array of nan for the losses of steps, shape (n_steps,) or (n_steps, n)."""
        return np.full((n_steps, *self.loss_shape), np.nan)


def step_graph(
    updates: Mapping[SharedVariable, Variable],
    loss: Variable | None,
    random_seed: int,
    guarded: bool = False,
    batch_dtypes: Mapping[SharedVariable, np.dtype] | None = None,
    constant_data: bool = False,
) -> StepGraph:
    """Collect the graph of a step. See :func:`~pymc.variational.engine.step_cache.make_step`.

    Updates of generators and minibatch indexes are added. Batch inputs that the graph does not read are left
    out. The graph is that of any number of rows, unless raw data become constants.

    Raises
    ------
    ValueError
        If it is guarded without a loss, or a batch input has an update.
    """
    if guarded and loss is None:
        raise ValueError("A guarded step says by its loss that it failed: loss=None has none.")
    losses = [] if loss is None else [loss]
    values = [key.type.filter_variable(value, allow_convert=True) for key, value in updates.items()]
    rngs = collect_default_updates([*losses, *values])
    reseed_rngs(list(rngs), random_seed)
    updates = {**rngs, **dict(zip(updates, values))}
    outputs = tuple(_row_numbers_as_inputs([*losses, *updates.values()], constant_data))
    read = [var for var in graph_inputs(outputs) if isinstance(var, SharedVariable)]
    written = [var for var in updates if var not in read]
    shared = (*read, *written)
    index = {var: i for i, var in enumerate(shared)}
    batch_dtypes = batch_dtypes or {}
    if changed := [var.name for var in batch_dtypes if var in updates]:
        raise ValueError(
            f"{changed} get their values from a stream, and have updates of their own."
        )
    batch_inputs = tuple(
        BatchInput(index[var], np.dtype(var.type.dtype), np.dtype(dtype))
        for var, dtype in batch_dtypes.items()
        if var in index
    )
    updated = tuple(index[var] for var in updates)
    return StepGraph(shared, outputs, updated, bool(losses), guarded, batch_inputs, constant_data)


def compile_step(graph: StepGraph, mode: str | Mode | None = None, **kwargs: Any) -> StepFunction:
    """Compile a graph of new variables, which become the inputs of the function."""
    plain = get_mode(mode)
    values = graph.outputs[int(graph.has_loss) :]
    with minibatch_logp():
        function = compile(
            [],
            graph.outputs[0] if graph.has_loss else [],
            updates=dict(zip((graph.shared[i] for i in graph.updated), values)),
            random_seed=False,
            mode=plain.including(*rewrites.tags(plain)),
            **kwargs,
        )
    index = {var: i for i, var in enumerate(graph.shared)}
    order = tuple(index[compiled.variable] for compiled in function.maker.inputs)
    updates = {i: output for output, i in function.maker.fgraph.update_mapping.items()}
    return step_function(graph, order, updates, function)


def step_function(
    graph: StepGraph,
    order: tuple[int, ...],
    updates: Mapping[int, int],
    compiled: Function | None,
    **late: Any,
) -> StepFunction:
    """Return the step of a graph whose function takes its inputs in `order`."""
    return StepFunction(
        compiled,
        updates,
        graph.has_loss,
        order,
        graph.guarded,
        loss_shape=graph.outputs[0].type.shape if graph.has_loss else (),
        batch_inputs=tuple(
            batch._replace(input_index=order.index(batch.input_index))
            for batch in graph.batch_inputs
        ),
        **late,
    )


def host_value(var: SharedVariable) -> Any:
    """Return the value of a shared variable on the host, where JAX may have left it on a device."""
    value = var.container.storage[0]
    if isinstance(value, np.ndarray | np.random.Generator) or not isinstance(var.type, TensorType):
        return value
    return np.array(value, dtype=var.type.dtype)


def _row_numbers_as_inputs(outputs: Sequence[Variable], constant_data: bool) -> list[Variable]:
    """Make known numbers of rows inputs, so that a fit to more data compiles nothing.

    The number of rows of an index and the total of a scale become shared scalars, and the first axis of raw
    data loses its static length. Raw data that become constants keep theirs, and so does what is drawn from them.
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
        if (n_rows := _constant_value(total)) is not None:
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


def _constant_value(number: Variable) -> int | None:
    """Return the value of a constant scalar, or of the cast of one; else None."""
    if number.owner is not None and isinstance(number.owner.op, Elemwise):
        if str(number.owner.op.scalar_op) != "Cast{int64}":
            return None
        [number] = number.owner.inputs
    if not isinstance(number, Constant) or np.ndim(number.data) != 0:
        return None
    return int(number.data)


def _of_any_length(data: RawData) -> SharedVariable:
    """Share the memory of `data`, with a first axis whose length is not static."""
    any_length = TensorType(data.type.dtype, (None, *data.type.shape[1:]))
    return RawData(type=any_length, value=data.container.data, strict=True, name=data.name)
