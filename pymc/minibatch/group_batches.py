# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Group effects at the cost of a batch: log-probabilities of the groups of a batch's rows.

A model reads the effect of the group of each row, :math:`e_{g(i)}`. With :math:`n_g` rows of group g,

.. math::

    \sum_{g: n_g > 0} h(e_g) = \sum_i h(e_{g(i)}) / n_{g(i)}

so that a batch of rows, scaled by N/B, estimates the sum over groups without bias, and touches no other groups.
A row that reads several groups, :math:`e_{g(i)} - e_{h(i)}`, has a share of each, and :math:`n_g` counts all reads.
Here the graphs of a model that read all effects become graphs of those in the slots of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.traversal import ancestors, toposort
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor.shape import Shape
from pytensor.tensor.variable import TensorVariable

from pymc.minibatch.at_rows import at_rows, picked_rows
from pymc.minibatch.axis_tracking import (
    Rows,
    Untracked,
    index_variables,
    indexes,
    label,
    track_axes,
)
from pymc.minibatch.group_counts import (
    checked_counts,
    counts_in_memory,
    counts_of_stream,
    refusal,
    shares_of,
    why_uncountable,
)
from pymc.minibatch.group_reads import Groups, children_first
from pymc.minibatch.plates import local_axes
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.scaling import minibatch_logp
from pymc.minibatch.stream_index import is_stream
from pymc.pytensorf import current_length, equal_computations

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "GroupBatch",
    "GroupRows",
    "batch_terms",
    "group_batches",
    "logps_of",
    "variables_by_batch",
]


@dataclass(frozen=True, eq=False)
class GroupRows(Rows):
    """The groups of the rows of a batch, as lines of a table of all groups."""

    index: Any = None  # of no batch
    rv: Any = None
    n_groups: int = 0
    of_batch: Any = None  # the rows
    n_reads: int = 1  # of groups by each row

    @property
    def state(self) -> Variable:
        return self.rv

    @property
    def total(self) -> Variable:
        return pt.constant(self.n_groups, dtype="int64")

    @property
    def batch_size(self) -> int | None:  # type: ignore[override]
        return None if is_stream(self.of_batch) else self.n_reads * self.of_batch.batch_size

    @property
    def may_repeat(self) -> bool:
        return True

    @property
    def dim(self) -> str:
        return self.rv.name

    def __str__(self) -> str:
        return f"the groups of {self.rv.name!r} in a batch"


@dataclass(frozen=True, eq=False)
class GroupBatch:
    """A variable with a value for each group, of which a batch takes those of its rows.

    Parameters
    ----------
    rv : Variable
    axis : int
        The axis of the groups.
    value : Variable
        Of all groups, on the unconstrained space.
    slots : tuple of Variable
        Of the group of each row of a batch, in its place: shape (B, ...). One for each index.
    indexes : tuple of Variable
        The group of each row of a batch, shape (B,); several if a row reads several groups.
    rows : Rows
        The rows of the batch.
    shares : SharedVariable, shape (n_groups,)
        The share of each read of a group in its prior, one over their number; 0 for groups without rows.
    is_counted : bool
        Whether the rows are counted in the data in memory, which may change.
    """

    rv: Variable
    axis: int
    value: Variable
    slots: tuple[Variable, ...]
    indexes: tuple[Variable, ...]
    rows: Rows
    shares: SharedVariable
    is_counted: bool = True

    @property
    def lines(self) -> GroupRows:
        """The groups of a batch in a table of all groups."""
        index = self.indexes[0] if len(self.indexes) == 1 else pt.concatenate(self.indexes)
        return GroupRows(index, self.rv, self.n_groups, self.rows, len(self.indexes))

    @property
    def n_groups(self) -> int:
        return len(self.shares.get_value(borrow=True))

    @property
    def with_rows(self) -> Groups | None:
        """The groups with rows; None if all have some."""
        has_rows = self.shares.get_value(borrow=True) > 0
        return (
            None
            if has_rows.all()
            else Groups(self.axis, np.flatnonzero(has_rows), (self.n_groups,))
        )

    @property
    def of_zeros(self) -> Variable:
        """An array of the shape of the value of all groups."""
        others = list(self.slots[0].shape[1:])
        shape = [*others[: self.axis], np.int64(self.n_groups), *others[self.axis :]]
        return self.value.type.filter_variable(pt.zeros(shape, self.value.type.dtype))

    @property
    def counts(self) -> np.ndarray:
        """The number of reads of each group: int64, shape (n_groups,)."""
        return np.rint(shares_of(self.shares.get_value(borrow=True))).astype("int64")

    def count_rows(self) -> bool:
        """Count the rows of each group as the data are now; return True if they have changed."""
        if not self.is_counted:
            return False
        old = self.shares.get_value(borrow=True)
        counts = counts_in_memory(self.rv, self.indexes, len(old))
        new = shares_of(counts).astype(old.dtype)
        if np.array_equal(old, new):
            return False
        self.shares.set_value(new)
        return True

    @property
    def axes(self) -> tuple[Rows | None, ...]:
        """The rows on each axis of `slots`."""
        return (self.rows, *(None,) * (self.value.type.ndim - 1))


def group_batches(
    model: Model, rvs: Sequence[Variable], counts: Mapping[str, Any] | None = None
) -> list[GroupBatch]:
    """Return how a batch takes the groups of some variables: first of those that no other depends on.

    `counts` are numbers of reads of each group, by variable, where they are not to be counted in the data. Those
    of a loader are counted in a pass over its rows.

    Raises
    ------
    ValueError
        If a step needs more groups of one of them than those of its rows.

    Examples
    --------
    >>> from pymc.minibatch.group_batches import group_batches
    >>> with pm.Model(coords={"user": range(4)}) as model:
    ...     user, y = pm.Minibatch(np.array([0, 3, 3]), np.zeros(3), batch_size=2)
    ...     effect = pm.Normal("effect", dims="user")
    ...     rows = pm.Normal("rows", effect[user], 1, observed=y)
    >>> group_batches(model, [effect])[0].shares.get_value()
    array([1. , 0. , 0. , 0.5])
    """
    found: list[GroupBatch] = []
    terms = logps_of(model)
    for rv in children_first(model, rvs):
        batch, terms = _batch_of(model, rv, terms, (counts or {}).get(rv.name))
        found.append(batch)
    uncounted = [b for b in found if is_stream(b.rows) and b.rv.name not in (counts or {})]
    for rows in dict.fromkeys(batch.rows for batch in uncounted):
        of_rows = [batch for batch in uncounted if batch.rows == rows]
        counted = counts_of_stream(rows, [(b.rv, b.indexes, b.n_groups) for b in of_rows])
        for batch, of_groups in zip(of_rows, counted):
            batch.shares.set_value(shares_of(of_groups).astype(batch.shares.type.dtype))
    return found


def variables_by_batch(model: Model) -> list[Variable]:
    """Return the variables whose groups a batch can take, of which it has less than a quarter."""
    found: list[Variable] = []
    terms = logps_of(model)
    for rv in children_first(model, [rv for rv in model.free_RVs if rv.type.ndim]):
        try:
            batch, of_batch = _batch_of(model, rv, terms)
        except ValueError:
            continue
        if batch.n_groups > 4 * len(batch.indexes) * batch.rows.batch_size:
            terms = of_batch
            found.append(rv)
    return found


def logps_of(model: Model) -> dict[Variable, Variable]:
    """Return the log-probability of each variable and Potential, element by element, as functions of values."""
    variables = [*model.basic_RVs, *model.potentials]
    with minibatch_logp():
        logps = model.logp(vars=variables, sum=False)
    by_row = {
        node.outputs[0]: picked.of(at_rows(node.inputs[0], picked.index, picked.axis))
        for node in toposort(logps)
        if (picked := picked_rows(node)) is not None and indexes([picked.index])
    }
    return dict(zip(variables, rebuild(logps, by_row)))


def batch_terms(
    terms: Mapping[Variable, Variable], batches: Sequence[GroupBatch]
) -> dict[Variable, Variable]:
    """Return the terms of the groups of a batch: functions of the slots, where they were ones of all groups.

    Those of the groups have an element for each row, with its share in them.
    """
    terms = dict(terms)
    for batch in batches:
        for rv, logp in zip(terms, _with_one_index(list(terms.values()), batch.rows)):
            terms[rv] = logp
        own = [_of_rows(terms[batch.rv], index, batch.axis) for index in batch.indexes]
        shares = [batch.shares[index] for index in batch.indexes]
        parts = [part * pt.shape_padright(n, part.type.ndim - 1) for part, n in zip(own, shares)]
        terms[batch.rv] = reduce(pt.add, parts)
        graphs = list(terms.values())
        reads = {
            node.outputs[0]: pt.moveaxis(slots, 0, axis)
            for node, found, axis in _reads(graphs, batch.value)
            for slots, index in zip(batch.slots, batch.indexes)
            if axis == batch.axis and _are_equal(found, index)
        }
        # Terms may count the entries of a group, of which no value is needed
        counted = [
            node
            for node in toposort(graphs)
            if isinstance(node.op, Shape) and batch.value in set(ancestors(node.inputs))
        ]
        arrays = rebuild([node.inputs[0] for node in counted], {batch.value: batch.of_zeros})
        reads |= {node.outputs[0]: array.shape for node, array in zip(counted, arrays)}
        graphs = _without_checks(rebuild(graphs, reads), batch.value)
        terms = dict(zip(terms, graphs))
    return terms


def _without_checks(graphs: list[Variable], value: Variable) -> list[Variable]:
    """Leave out checks of the parameters of all groups, such as that scales are positive.

    A parameter that is not valid makes the loss nan, which a fit reports.
    """
    depends = {value}
    bypassed = set()
    for node in toposort(graphs):
        is_check = isinstance(node.op, CheckAndRaise) and node.inputs[0] not in depends
        if is_check and not depends.isdisjoint(node.inputs[1:]):
            bypassed.add(node)
        elif not depends.isdisjoint(node.inputs):
            depends.update(node.outputs)
    return rebuild(graphs, {}, bypass=bypassed.__contains__) if bypassed else graphs


def _with_one_index(graphs: list[Variable], rows: Rows) -> list[Variable]:
    """Replace clones of the index of `rows`, which deriving a log-probability makes, by itself."""
    clones = {
        var: rows.index
        for var in index_variables(graphs)
        if var is not rows.index and Rows(var) == rows
    }
    return rebuild(graphs, clones) if clones else graphs


def _batch_of(
    model: Model, rv: Variable, terms: Mapping[Variable, Variable], counts: Any = None
) -> tuple[GroupBatch, dict[Variable, Variable]]:
    """Return how a batch takes the groups of a variable, and the terms of the groups of a batch."""
    value = model.rvs_to_values[rv]
    if not isinstance(rv, TensorVariable):
        raise refusal(rv, "it has named dims, for which there is no such form yet")
    if local_axes(model).get(rv):
        raise refusal(rv, "it has a value for each row, of which a batch takes its own already")
    others = [logp for var, logp in terms.items() if var is not rv]
    found = [(index, axis) for _, index, axis in _reads(others, value)]
    if not found:
        raise refusal(
            rv,
            "no term reads it by the group of each row of a batch alone, as effect[group]",
        )
    reads, axes = [index for index, _ in found], {axis for _, axis in found}
    if len(axes) > 1:
        raise refusal(rv, f"groups are read along several axes, {sorted(axes)}")
    [axis] = axes
    if axis >= terms[rv].type.ndim:
        raise refusal(rv, "its prior is one of all groups together")
    rows = _rows_of(rv, reads, counts is not None)
    indexes: list[Variable] = []
    for index in _with_one_index(reads, rows):
        if not set(ancestors([index])).isdisjoint(model.value_vars):
            raise refusal(rv, f"the index {label(index)} depends on latent variables")
        if not any(_are_equal(index, known) for known in indexes):
            indexes.append(index)
    n_groups = current_length(rv.shape[axis])
    if n_groups is None:
        raise refusal(rv, "the number of its groups depends on inputs")
    if counts is not None:
        total = current_length(rows.total)
        n_reads = None if total is None else total * len(indexes)
        counts = checked_counts(rv, counts, n_groups, n_reads)
    elif is_stream(rows):
        counts = np.zeros(n_groups, dtype="int64")  # until all variables are counted together
    shares = shares_of(counts_in_memory(rv, indexes, n_groups) if counts is None else counts)
    shape = (None, *value.type.shape[:axis], *value.type.shape[axis + 1 :])
    slots = tuple(value.type.clone(shape=shape)(f"{value.name}_of_batch") for _ in indexes)
    shares = shares.astype(pytensor.config.floatX)
    shared = pytensor.shared(shares, f"{rv.name}_shares", shape=(n_groups,))
    batch = GroupBatch(rv, axis, value, slots, tuple(indexes), rows, shared, counts is None)
    of_batch = batch_terms(terms, [batch])
    for var, logp in of_batch.items():
        if value in set(ancestors([logp])):
            what = "its prior is" if var is rv else f"{var.name!r} is"
            raise refusal(rv, f"{what} not computed group by group")
    return batch, of_batch


def _rows_of(rv: Variable, reads: Sequence[Variable], has_counts: bool) -> Rows:
    """Return the rows by whose groups a variable is read."""
    rows: dict[Rows, Variable] = {}
    for index in reads:
        axes = track_axes(index)
        found = [] if isinstance(axes, Untracked) else [a for a in axes if isinstance(a, Rows)]
        if not found:
            raise refusal(rv, f"{label(index)}, by which it is read, has rows not of a minibatch")
        rows.setdefault(found[0], index)
    if len(rows) > 1:
        names = " and ".join(map(label, rows.values()))
        raise refusal(rv, f"it is read by {names}, which have rows of different minibatches")
    [(of_batch, index)] = rows.items()
    if is_stream(of_batch) and not has_counts and (why := why_uncountable(index, of_batch)):
        raise refusal(
            rv,
            f"{label(index)}, by which it is read, comes from a loader, and how many rows each group has "
            f"cannot be counted, since {why}: give the numbers, groups={{{rv.name!r}: counts}}, such as the "
            "sum of np.bincount(..., minlength=...) over the batches of one pass",
        )
    return of_batch


def _are_equal(index: Variable, other: Variable) -> bool:
    return index is other or equal_computations([index], [other])


def _reads(graphs: Sequence[Variable], value: Variable) -> Iterator[tuple[Apply, Variable, int]]:
    """Yield the nodes of graphs that pick rows of `value` alone, with their index array and its axis."""
    for node in toposort(graphs):
        if (
            node.inputs[0] is value
            and (picked := picked_rows(node)) is not None
            and picked.is_alone
        ):
            yield node, picked.index, picked.axis


def _of_rows(var: Variable, index: Variable, axis: int) -> Variable:
    """Return `var` at the rows of an index, and these on the first axis."""
    return pt.moveaxis(at_rows(var, index, axis), axis, 0)
