# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Which axes of a variable are rows of a minibatch, traced through the graph from the index.

An axis is one of three things: :class:`Rows`, the rows that an index picked; ``SAME``, one value
repeated (it broadcasts, or is constant along the axis); ``OWN``, anything else (the rows of the full
data, the slots of a parameter). Sizes are never compared: two dims of equal length stay apart.

:func:`trace` walks a graph from its roots and asks :func:`follow` what each Op makes of the axes of
its inputs. The rules for Ops are in :mod:`pymc.minibatch.rules`; a rule for another Op is one function
more. Where rows cannot be followed, the result is :class:`Lost`, which says where and why. That is
an error only if it reaches a term of the model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from functools import singledispatch
from typing import Any, ClassVar

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import HasInnerGraph, Op
from pytensor.graph.traversal import ancestors, toposort, walk
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor.shape import Shape, Shape_i

from pymc.minibatch.graph_types import static_shape
from pymc.minibatch.index import MinibatchIndexRV

__all__ = [
    "OWN",
    "SAME",
    "Axes",
    "Axis",
    "Lost",
    "Rows",
    "RowsLost",
    "follow",
    "found_axes",
    "indexes",
    "same_draw",
    "trace",
    "value_ancestors",
]


@dataclass(frozen=True, eq=False)
class Rows:
    """An axis that holds the rows picked by a minibatch index.

    Clones of an index (deriving a log-probability makes some) share its state, so that is what is
    compared.
    """

    index: Variable

    #: Whether it is known which rows these are, so that results can be of others
    knows_numbers: ClassVar[bool] = True

    @property
    def state(self) -> Variable:
        return self.index.owner.inputs[0]

    @property
    def total(self) -> Variable:
        """How many rows there are in all: a symbolic integer, which follows the data."""
        return self.index.owner.inputs[2]

    @property
    def at_hand(self) -> Variable:
        """How many rows results can be of."""
        return self.total

    @property
    def batch_size(self) -> int:
        return self.index.owner.op.batch_size

    @property
    def dim(self) -> str | None:
        return self.index.owner.op.dim

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and self.state is other.state

    def __hash__(self) -> int:
        return hash(self.state)

    def __str__(self) -> str:
        of = f" of dim {self.dim!r}" if self.dim else ""
        return f"the {self.index.owner.op.source}{of} (batch_size={self.batch_size})"


class _Kind(Enum):
    SAME = "the same value all along"
    OWN = "values of its own"


SAME, OWN = _Kind.SAME, _Kind.OWN

type Axis = Rows | _Kind
type Axes = tuple[Axis, ...]


@dataclass(frozen=True)
class Lost:
    """Rows that could not be followed through `op`, and why.

    Parameters
    ----------
    op : Op
        Where they were lost.
    why : str
        What it does to the rows.
    certain : bool
        True where the rows are surely mixed; False for an Op that nothing is known about, which
        an explicit `total_size` may vouch for.
    by_place : bool
        Whether rows are picked by their place or carried along: a sum over them may still be a sum of
        terms of one row each, which is worth trying.
    """

    op: Op
    why: str
    certain: bool
    by_place: bool = False

    @property
    def is_worth_trying(self) -> bool:
        """Whether a sum over the rows may still be one of terms of one row each."""
        return self.by_place or not self.certain


class RowsLost(Exception):
    """Raised by a rule: the rows of a minibatch do not come out of this node as rows."""

    def __init__(self, why: str, certain: bool = True, by_place: bool = False):
        super().__init__(why)
        self.why, self.certain, self.by_place = why, certain, by_place


@singledispatch
def follow(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Tell the axes of each output of `node`, given those of its inputs.

    Parameters
    ----------
    op : Op
        The Op of `node`, which is dispatched on.
    node : Apply
    inputs : sequence of tuple of Rows, SAME or OWN
        An entry for each input of `node`: the axes of that input.

    Returns
    -------
    list of tuple of Rows, SAME or OWN
        An entry for each output.

    Raises
    ------
    RowsLost
        Where rows of a minibatch are mixed, or may be.
    """
    raise RowsLost(f"the rows of a minibatch cannot be followed through {op}", certain=False)


def trace(
    var: Variable,
    known: Mapping[Variable, Axes | Lost] | None = None,
    free: Collection[Variable] = (),
) -> Axes | Lost:
    """Trace the axes of `var`.

    Parameters
    ----------
    var : Variable
    known : mapping, optional
        Axes of variables at which to stop: an observed variable has the axes of its value.
    free : collection of Variable
        The model's free variables, whose draws are their own along every axis. Any other random
        variable is a part of a term, as the component of a mixture is: its parameters count.

    Returns
    -------
    tuple of Rows, SAME or OWN, or Lost
        An entry for each axis of `var`.
    """
    found: dict[Variable, Axes | Lost] = dict(known or {})
    if var.owner is None:
        return found.get(var, _root_axes(var))
    token = _running.set(found)
    try:
        return _trace(var, found, free)
    finally:
        _running.reset(token)


#: What the trace that runs has found so far, for rules that meet a length and ask whose it is.
_running: ContextVar[dict[Variable, Axes | Lost]] = ContextVar("_running")


def found_axes(var: Variable) -> Axes | Lost:
    """Return the axes of a variable that the trace which asks for a rule has come across."""
    found = _running.get({})
    return found[var] if var in found else trace(var)


def _trace(
    var: Variable, found: dict[Variable, Axes | Lost], free: Collection[Variable]
) -> Axes | Lost:
    for node in toposort([var], blockers=list(found)):
        outputs = _follow_node(node, found)
        for output, axes in zip(node.outputs, outputs, strict=True):
            if output in free and not isinstance(axes, Lost):
                axes = tuple(
                    OWN if a is SAME and not one else a for a, one in zip(axes, _length_one(output))
                )
            found.setdefault(output, axes)
    return found[var]


def _follow_node(node: Apply, found: dict[Variable, Axes | Lost]) -> Sequence[Axes | Lost]:
    inputs: list[Axes] = []
    for k, var in enumerate(node.inputs):
        axes = found.setdefault(var, _root_axes(var))
        if isinstance(axes, Lost):
            if _reads(node.op, k):
                return [axes] * len(node.outputs)
            axes = _root_axes(var)
        inputs.append(axes)
    try:
        followed = follow(node.op, node, inputs)
        return [_broadcastable(axes, out) for axes, out in zip(followed, node.outputs)]
    except RowsLost as lost:
        # No row comes in: nothing is lost, only the axes of the outputs are not known
        if isinstance(node.op, MinibatchIndexRV) or any(rows_of(axes) for axes in inputs):
            return [Lost(node.op, lost.why, lost.certain, lost.by_place)] * len(node.outputs)
        return [_root_axes(output) for output in node.outputs]


def _broadcastable(axes: Axes, var: Variable) -> Axes:
    return tuple(
        SAME if one and axis is OWN else axis
        for axis, one in zip(axes, _length_one(var) or [False] * len(axes), strict=True)
    )


def _reads(op: Op, k: int) -> bool:
    """Tell whether the values of input `k` are in what `op` returns."""
    if isinstance(op, Shape | Shape_i):
        return False
    return not isinstance(op, CheckAndRaise) or k == 0  # the others are conditions


def trace_inner(op: HasInnerGraph, inputs: Sequence[Axes]) -> list[Axes]:
    """Trace through the inner graph of an Op."""
    known = dict(zip(op.inner_inputs, inputs, strict=True))
    outputs = []
    for inner in op.inner_outputs:
        axes = trace(inner, known)
        if isinstance(axes, Lost):
            raise RowsLost(axes.why, axes.certain, axes.by_place)
        outputs.append(axes)
    return outputs


# Rows of data without dims: nothing but a dim's name can say that a free variable is on them too
NAME_THE_DIM = ", which the data in pm.Minibatch have as well, by pm.Data(..., dims=...)"


def meet(axes: Iterable[Axis], names: Iterable[str] = ()) -> Axis:
    """Tell what several axes become that are broadcast together.

    Parameters
    ----------
    axes : iterable of Rows, SAME or OWN
    names : iterable of str
        What the ``OWN`` axes belong to, for the message.

    Raises
    ------
    RowsLost
        Where the rows of two indexes meet, or those of an index and values that are not of it.
    """
    kinds = set(axes)
    rows = [axis for axis in kinds if isinstance(axis, Rows)]
    if len(rows) > 1:
        raise RowsLost(
            "the rows of two minibatch indexes meet on one axis, so that x and y are out of step; "
            "put the variables into one pm.Minibatch call"
        )
    if rows and OWN in kinds:
        of = ", ".join(names)
        raise RowsLost(
            f"the rows of {rows[0]} meet values that are not of the batch{f' ({of})' if of else ''}; "
            "data belong into the same pm.Minibatch call. A free variable with a slot for each row of "
            "the batch would give its slots to other rows at each step: give it a value for each row "
            f"of all by dims={rows[0].dim or '<their dim>'!r}"
            + (NAME_THE_DIM if rows[0].dim is None else "")
        )
    if rows:
        return rows[0]
    return OWN if OWN in kinds else SAME


def meet_all(inputs: Sequence[Axes], variables: Sequence[Variable], ndim: int) -> Axes:
    """`meet` for each of the last `ndim` axes, aligned from the right as in broadcasting."""
    result = []
    for k in range(-ndim, 0):
        # The axes may be those that come before a core, as of a matrix
        aligned = [
            (axes[k], var, var.type.shape[len(axes) + k])
            for axes, var in zip(inputs, variables)
            if len(axes) >= -k
        ]
        own = [label(var) for axis, var, _ in aligned if axis is OWN]
        axis = meet([axis for axis, *_ in aligned], own)
        lengths = {n for a, _, n in aligned if isinstance(a, Rows)} - {None}
        for same, var, length in aligned:
            if same is SAME and isinstance(axis, Rows) and length not in (None, 1):
                _check_length(axis, length, lengths or {axis.batch_size or length}, var)
        result.append(axis)
    return tuple(result)


def _check_length(axis: Rows, length: int, lengths: Collection[int | None], var: Variable) -> None:
    """Refuse equal numbers of another number of rows than the batch's, which are data of all rows."""
    if length not in lengths:
        raise RowsLost(
            f"the rows of {axis} meet {length} values ({label(var)}) that are all alike: write one number"
        )


def refuse_rows(axes: Iterable[Axis], why: str) -> None:
    """Raise `RowsLost` if any of `axes` holds rows of a minibatch."""
    if any(isinstance(axis, Rows) for axis in axes):
        raise RowsLost(why)


def rows_of(axes: Iterable[Axis]) -> list[Rows]:
    """Pick the axes that hold rows of a minibatch."""
    return [axis for axis in axes if isinstance(axis, Rows)]


def label(var: Variable) -> str:
    """Name a variable in a message: its own name, or its Op and the names it is made of."""
    if var.name is not None or var.owner is None:
        return var.name or str(var)
    named = dict.fromkeys(
        v.name for v in ancestors([var]) if v.name and not isinstance(v, Constant)
    )
    of = f" of {', '.join(list(named)[:3])}" if named else ""
    return f"{var.owner.op}{of}"


def indexes(
    variables: Iterable[Variable],
    *,
    by_shape: bool = False,
    known: Mapping[Variable, Axes | Lost] | None = None,
) -> list[Variable]:
    """Every minibatch index that `variables` depend on, in inner graphs too; clones count once.

    A dependence on the shape of a batch alone, which is the same for all batches, only counts with
    `by_shape`. A variable in `known` depends on the indexes of its axes: the rows of a local variable
    are of its index, though only its shape is computed from it.
    """
    found: dict[Variable, Variable] = {}
    for var in walk(list(variables), _ancestry if by_shape else _parents, False):
        node = var.owner
        if node is not None and isinstance(node.op, MinibatchIndexRV):
            found.setdefault(node.inputs[0], node.outputs[1])
        axes = (known or {}).get(var, ())
        for rows in () if isinstance(axes, Lost) else rows_of(axes):
            found.setdefault(rows.state, rows.index)
    return list(found.values())


def value_ancestors(variables: Iterable[Variable]) -> Iterator[Variable]:
    """Walk through what the values of `variables` depend on, in inner graphs too."""
    return walk(list(variables), _parents, False)


def same_draw(x: Variable, y: Variable) -> bool:
    """Tell whether `x` and `y` are the same output of two clones of one minibatch index."""
    first, second = x.owner, y.owner
    return (
        first is not None
        and second is not None
        and isinstance(first.op, MinibatchIndexRV)
        and first.op == second.op
        and first.inputs[0] is second.inputs[0]
        and x.index == y.index
    )


def _parents(var: Variable) -> list[Variable] | None:
    is_shape = var.owner is not None and isinstance(var.owner.op, Shape | Shape_i)
    return None if is_shape else _ancestry(var)


def _ancestry(var: Variable) -> list[Variable] | None:
    node = var.owner
    if node is None:
        return None
    return [*node.inputs, *(node.op.inner_outputs if isinstance(node.op, HasInnerGraph) else ())]


def _length_one(var: Variable) -> tuple[bool, ...]:
    return tuple(length == 1 for length in static_shape(var))


# Looking for repeated values in larger constants would cost more than it tells
_LARGEST_CONSTANT = 1_000_000


def _root_axes(var: Variable) -> Axes:
    same: Sequence[bool] = _length_one(var)
    if isinstance(var, Constant) and not isinstance(var, SharedVariable):
        data: Any = var.data
        if 0 < np.ndim(data) and 0 < np.size(data) <= _LARGEST_CONSTANT:
            data = np.asarray(data)
            same = [bool((data == data.take([0], k)).all()) for k in range(data.ndim)]
    return tuple(SAME if s else OWN for s in same)
