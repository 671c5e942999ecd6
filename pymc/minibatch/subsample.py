# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rewrite the graph of a full-data model to one of minibatches.

Data become rows of the batch, and so does everything computed from them row by row. Three cases differ:

- A *length*, such as ``x.shape[0]``, is that of the batch where it is the size of something, as in
  ``pt.zeros(x.shape[0])``. It stays the number of all rows where it is a number, as in
  ``w / x.shape[0]``.
- Values that are computed from data alone and mix their rows, such as ``x.mean(0)`` in a
  standardisation, stay those of all rows.
- Random variables that mix rows are left to the checks of terms, which refuse them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pytensor.graph.basic import Apply, Variable
from pytensor.graph.traversal import toposort
from pytensor.tensor.basic import Alloc, stack
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.tensor.shape import Shape, Shape_i, shape_i
from pytensor.tensor.subtensor import AdvancedIncSubtensor, AdvancedSubtensor

from pymc.minibatch.axis_tracking import (
    BROADCAST,
    OTHER,
    Axes,
    KnownAxes,
    Rows,
    Untracked,
    indexes,
    rows_of,
    static_shape,
    track_axes,
)
from pymc.minibatch.lengths import axis_of_length, size_inputs
from pymc.minibatch.positional_rows import with_lengths
from pymc.minibatch.rebuild import with_inputs


def subsample(
    outputs: Sequence[Variable],
    rows: Mapping[Variable, tuple[Variable, Axes]],
    lengths: Mapping[Variable, Variable],
    fixed: Collection[Variable] = (),
    sizes: Mapping[Apply, Mapping[int, Variable]] | None = None,
    known: KnownAxes | None = None,
) -> list[Variable]:
    """Rewrite graphs of full data to graphs of a minibatch.

    Parameters
    ----------
    outputs : sequence of Variable
    rows : mapping
        For each data variable, its rows of the batch, and the axes of these.
    lengths : mapping of Variable to Variable
        For the length of each subsampled dim, that of the batch: scalar integers.
    fixed : collection of Variable
        Variables that stay as they are.
    sizes : mapping, optional
        Nodes whose length is an input, and its replacement by axis.
    known : mapping, optional
        Axes of variables that data do not tell, such as local variables.

    Raises
    ------
    ValueError
        If a node does not fit to the rows of the batch.
    """
    graph = _Subsampled(rows, lengths, sizes or {}, known or {})
    for node in toposort(outputs, blockers=[*rows, *lengths, *fixed]):
        graph.visit(node)
    return [graph.batch.get(output, output) for output in outputs]


def _untracked_axes(var: Variable) -> Axes:
    return tuple(BROADCAST if length == 1 else OTHER for length in static_shape(var))


class _Subsampled:
    """Replacements of variables so far, as values (`batch`) and as lengths."""

    def __init__(
        self,
        rows: Mapping[Variable, tuple[Variable, Axes]],
        lengths: Mapping[Variable, Variable],
        sizes: Mapping[Apply, Mapping[int, Variable]],
        known: KnownAxes,
    ) -> None:
        self.batch = {var: new for var, (new, _) in rows.items()}
        self.lengths = dict(lengths)
        self.sizes = sizes
        # Of the full data's graph, traced as if the data were the rows of the batch
        self.axes = {**known, **{var: axes for var, (_, axes) in rows.items()}}
        self.random: set[Variable] = set()

    def visit(self, node: Apply) -> None:
        if isinstance(node.op, RNGConsumerOp) or not self.random.isdisjoint(node.inputs):
            self.random.update(node.outputs)
        elif not self._has_rows_of_inputs(node):
            return
        if isinstance(node.op, Shape | Shape_i):
            self._visit_shape(node)
            return
        sizes = set(size_inputs(node)) | self._positions(node)
        inputs = [
            self.lengths.get(var, self.batch.get(var, var))
            if k in sizes
            else self.batch.get(var, var)
            for k, var in enumerate(node.inputs)
        ]
        if node in self.sizes:
            inputs = with_lengths(node, inputs, self.sizes[node])
        if any(new is not old for new, old in zip(inputs, node.inputs)):
            if isinstance(node.op, Alloc) and self.random.isdisjoint(node.outputs):
                self.axes[node.outputs[0]] = self._filled_axes(node)
            self._replace(self.batch, node, inputs)
        of_lengths = [var for var in node.inputs if var in self.lengths]
        values = [var for var in node.inputs if var in self.batch and var not in self.lengths]
        if of_lengths and not values and not self._is_other_length(node):
            self._replace(self.lengths, node, [self.lengths.get(var, var) for var in node.inputs])

    def _visit_shape(self, node: Apply) -> None:
        [of], [shape] = node.inputs, node.outputs
        if of not in self.batch:
            return
        new, axis = self.batch[of], node.op.i if isinstance(node.op, Shape_i) else None
        if self._is_subsampled(of, axis):
            self.lengths[shape] = node.op(new)
        axes = track_axes(of, self.axes)
        if of in self.random and not isinstance(axes, Untracked):
            # As a number, and without the random variable of all rows, which the model has no more
            lengths = [
                a.total if isinstance(a, Rows) else shape_i(new, k) for k, a in enumerate(axes)
            ]
            self.batch[shape] = stack(lengths) if axis is None else lengths[axis]

    def _positions(self, node: Apply) -> set[int]:
        """Return the inputs that pick elements by position, as in ``rows[pt.arange(n), choice]``."""
        if not isinstance(node.op, AdvancedSubtensor | AdvancedIncSubtensor):
            return set()
        first = 1 if isinstance(node.op, AdvancedSubtensor) else 2
        return set(range(first, len(node.inputs))) if node.inputs[0] in self.batch else set()

    def _has_rows_of_inputs(self, node: Apply) -> bool:
        """Return whether `node`, computed from data alone, has rows wherever its inputs have."""
        if not any(var in self.batch for var in node.inputs):
            return True
        found = {output: track_axes(output, self.axes) for output in node.outputs}
        lost = any(isinstance(axes, Untracked) for axes in found.values())
        self.axes |= {out: _untracked_axes(out) for out in node.outputs} if lost else found
        return not lost

    def _filled_axes(self, node: Apply) -> Axes:
        """Return the axes of ``pt.ones(x.shape[0])``: a sum over them counts rows, so they are rows."""
        axes = track_axes(node.outputs[0], self.axes)
        if isinstance(axes, Untracked):
            return _untracked_axes(node.outputs[0])
        lengths = dict(enumerate(self.lengths.get(var) for var in node.inputs[1:]))
        lengths.update(self.sizes.get(node, {}))
        found = [
            [] if lengths[k] is None else indexes([lengths[k]], by_shape=True)
            for k in range(len(axes))
        ]
        return tuple(Rows(own[0]) if own else axis for axis, own in zip(axes, found))

    def _is_subsampled(self, var: Variable, axis: int | None) -> bool:
        axes = track_axes(var, self.axes)
        if isinstance(axes, Untracked):
            return True
        return bool(rows_of(axes)) if axis is None else isinstance(axes[axis], Rows)

    def _is_other_length(self, node: Apply) -> bool:
        """Return whether `node` is ``x.shape[k]`` of an axis that is not subsampled."""
        found = axis_of_length(node.outputs[0])
        return found is not None and not self._is_subsampled(*found)

    def _replace(
        self, memo: dict[Variable, Variable], node: Apply, inputs: Sequence[Variable]
    ) -> None:
        try:
            new_node = with_inputs(node, inputs)
        except (TypeError, ValueError, IndexError, AssertionError) as error:
            raise ValueError(
                f"pm.minibatch_model: {node} does not fit to the rows of a batch ({error}). What "
                "meets the rows of subsampled data has to be of them too, or broadcast: give a free "
                "variable with a value for each row the dims= of these rows, and so data, in pm.Data, whose "
                "place in the model does not show that they are rows. What couples the "
                "rows, such as the covariance of a Gaussian process, has none of a batch alone: use "
                "pm.gp.HSGP, or fit all rows"
            ) from error
        for old, new in zip(node.outputs, new_node.outputs, strict=True):
            new.name = new.name or old.name
            memo.setdefault(old, new)
