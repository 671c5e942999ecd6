# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Axis tracking: which axes of a variable hold rows of a minibatch.

An axis is :class:`Rows` (picked by a minibatch index), ``BROADCAST`` (one value repeated) or ``OTHER``.
:func:`track_axes` walks a graph and applies a rule of :func:`output_axes` at each node; the rules are in
``axis_rules``. Lengths are never compared: two dims of equal length stay apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from functools import singledispatch
from typing import Any, ClassVar, TypeAlias

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Constant, Variable, equal_computations
from pytensor.graph.op import HasInnerGraph, Op
from pytensor.graph.traversal import ancestors, toposort, walk
from pytensor.graph.type import HasShape
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor.shape import Shape, Shape_i

from pymc.minibatch.index import MinibatchIndexRV


@dataclass(frozen=True, eq=False)
class Rows:
    """An axis that holds the rows picked by a minibatch index."""

    index: Variable

    #: Whether the position of each row in the data is known
    has_row_ids: ClassVar[bool] = True

    @property
    def state(self) -> Variable:
        return self.index.owner.inputs[0]

    @property
    def total(self) -> Variable:
        """The number of rows of the full data: a symbolic integer, which follows the data."""
        return self.index.owner.inputs[2]

    @property
    def n_available(self) -> Variable:
        """The number of rows for which results can be computed."""
        return self.total

    @property
    def batch_size(self) -> int:
        return self.index.owner.op.batch_size

    @property
    def may_repeat(self) -> bool:
        """Whether a row may be in a batch twice."""
        return self.index.owner.op.sampling != "without_replacement"

    @property
    def dim(self) -> str | None:
        return self.index.owner.op.dim

    # Deriving a log-probability clones indexes; clones share their state
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and self.state is other.state

    def __hash__(self) -> int:
        return hash(self.state)

    def __str__(self) -> str:
        of = f" of dim {self.dim!r}" if self.dim else ""
        return f"the {self.index.owner.op.source}{of} (batch_size={self.batch_size})"


class _Kind(Enum):
    BROADCAST = "one value repeated"
    OTHER = "neither rows nor repeated: all rows of the data, the slots of a parameter"


BROADCAST, OTHER = _Kind.BROADCAST, _Kind.OTHER

Axis: TypeAlias = Rows | _Kind
Axes: TypeAlias = tuple[Axis, ...]


class Untracked(Exception):
    """Rows that cannot be followed: raised by a rule, and a result of :func:`track_axes`.

    Parameters
    ----------
    why : str
        What the Op does to the rows.
    certain : bool
        False for an Op that nothing is known about, which an explicit `total_size` may vouch for.
    by_place : bool
        Whether rows are picked by position or carried along. A sum over them may still be a sum of
        terms of one row each.
    """

    def __init__(self, why: str, certain: bool = True, by_place: bool = False) -> None:
        super().__init__(why)
        self.why, self.certain, self.by_place = why, certain, by_place

    @property
    def is_worth_trying(self) -> bool:
        """Return whether a sum over the rows may still be one of terms of one row each."""
        return self.by_place or not self.certain


KnownAxes: TypeAlias = Mapping[Variable, Axes | Untracked]


def require_tracked(axes: Axes | Untracked) -> Axes:
    """Return `axes`, or raise them if they are `Untracked`."""
    if isinstance(axes, Untracked):
        raise axes
    return axes


@singledispatch
def output_axes(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Return the axes of each output of `node`, given those of each input.

    Dispatched on the Op: registering a function adds a rule.

    Raises
    ------
    Untracked
        Where rows of a minibatch are mixed, or may be.
    """
    raise Untracked(f"the rows of a minibatch cannot be followed through {op}", certain=False)


#: The axes found so far by the running walk, for rules that need those of no input
_running: ContextVar[dict[Variable, Axes | Untracked]] = ContextVar("_running")


def track_axes(var: Variable, known: KnownAxes | None = None) -> Axes | Untracked:
    """Return what each axis of `var` is.

    Parameters
    ----------
    var : Variable
    known : mapping, optional
        Axes of variables at which to stop: an observed variable has the axes of its value, and the
        draws of a free variable differ along every axis. Any other random variable is part of a
        term, like the component of a mixture: its parameters count.
    """
    found: dict[Variable, Axes | Untracked] = dict(known or {})
    if var.owner is None:
        return found.get(var, root_axes(var))
    token = _running.set(found)
    try:
        for node in toposort([var], blockers=list(found)):
            for output, axes in zip(node.outputs, _track_node(node, found), strict=True):
                found.setdefault(output, axes)
    finally:
        _running.reset(token)
    return found[var]


def axes_so_far(var: Variable) -> Axes | Untracked:
    """Return the axes of a variable that the running walk has passed."""
    found = _running.get({})
    return found[var] if var in found else track_axes(var)


def _track_node(node: Apply, found: dict[Variable, Axes | Untracked]) -> Sequence[Axes | Untracked]:
    inputs: list[Axes] = []
    for k, var in enumerate(node.inputs):
        axes = found.setdefault(var, root_axes(var))
        if isinstance(axes, Untracked):
            if _uses_values(node.op, k):
                return [axes] * len(node.outputs)
            axes = root_axes(var)
        inputs.append(axes)
    try:
        tracked = output_axes(node.op, node, inputs)
        return [_with_length_one(axes, out) for axes, out in zip(tracked, node.outputs)]
    except Untracked as untracked:
        if isinstance(node.op, MinibatchIndexRV) or any(map(rows_of, inputs)):
            return [untracked.with_traceback(None)] * len(node.outputs)
        # No row comes in, so none is lost: only the axes of the outputs are unknown
        return [root_axes(output) for output in node.outputs]


def _with_length_one(axes: Axes, var: Variable) -> Axes:
    lengths = static_shape(var) or (None,) * len(axes)
    return tuple(
        BROADCAST if length == 1 and axis is OTHER else axis
        for axis, length in zip(axes, lengths, strict=True)
    )


def _uses_values(op: Op, k: int) -> bool:
    """Return whether the values of input `k` are in the outputs of `op`."""
    if isinstance(op, Shape | Shape_i):
        return False
    return not isinstance(op, CheckAndRaise) or k == 0  # the others are conditions


# Looking for repeated values in larger constants costs more than it tells
_LARGEST_CONSTANT = 1_000_000


def root_axes(var: Variable) -> Axes:
    """Return the axes of a variable that is not computed from rows of a batch."""
    repeated: Sequence[bool] = [length == 1 for length in static_shape(var)]
    if isinstance(var, Constant) and not isinstance(var, SharedVariable):
        if 0 < np.ndim(var.data) and 0 < np.size(var.data) <= _LARGEST_CONSTANT:
            data = np.asarray(var.data)
            repeated = [bool((data == data.take([0], k)).all()) for k in range(data.ndim)]
    return tuple(BROADCAST if is_repeated else OTHER for is_repeated in repeated)


def track_inner(op: HasInnerGraph, inputs: Sequence[Axes]) -> list[Axes]:
    """Track the inner graph of an Op."""
    known = dict(zip(op.inner_inputs, inputs, strict=True))
    return [require_tracked(track_axes(output, known)) for output in op.inner_outputs]


# Without dims on the data, nothing tells that a free variable has their rows too
NAME_THE_DIM = ", which the data in pm.Minibatch have as well, by pm.Data(..., dims=...)"


def broadcast_axis(axes: Iterable[Axis], names: Iterable[str] = ()) -> Axis:
    """Return what axes become that are broadcast together; `names` are those of the OTHER ones.

    Raises
    ------
    Untracked
        Where the rows of two indexes meet, or rows of a batch meet values that are not of it.
    """
    kinds = set(axes)
    rows = rows_of(kinds)
    if len(rows) > 1:
        raise Untracked(
            "the rows of two minibatch indexes meet on one axis, so that x and y are out of step; "
            "put the variables into one pm.Minibatch call"
        )
    if rows and OTHER in kinds:
        of = ", ".join(names)
        raise Untracked(
            f"the rows of {rows[0]} meet values that are not of the batch{f' ({of})' if of else ''}; "
            "data belong into the same pm.Minibatch call. A free variable with a slot for each row of "
            "the batch would give its slots to other rows at each step: give it a value for each row "
            f"of all by dims={rows[0].dim or '<their dim>'!r}"
            + (NAME_THE_DIM if rows[0].dim is None else "")
        )
    if rows:
        return rows[0]
    return OTHER if OTHER in kinds else BROADCAST


def broadcast_axes(inputs: Sequence[Axes], variables: Sequence[Variable], ndim: int) -> Axes:
    """Broadcast the last `ndim` axes of variables, aligned from the right.

    The axes of a variable may be only its leading ones, such as those before the core of a matrix.
    """
    result = []
    for k in range(-ndim, 0):
        aligned = [
            (axes[k], var, var.type.shape[len(axes) + k])
            for axes, var in zip(inputs, variables)
            if len(axes) >= -k
        ]
        others = [label(var) for axis, var, _ in aligned if axis is OTHER]
        axis = broadcast_axis([axis for axis, *_ in aligned], others)
        if isinstance(axis, Rows):
            _check_repeated(axis, aligned)
        result.append(axis)
    return tuple(result)


def _check_repeated(rows: Rows, aligned: Sequence[tuple[Axis, Variable, int | None]]) -> None:
    """Refuse N equal numbers beside the rows of a batch: they are data of all rows."""
    lengths = {length for axis, _, length in aligned if isinstance(axis, Rows)} - {None}
    for axis, var, length in aligned:
        if axis is BROADCAST and length not in (None, 1, *(lengths or {rows.batch_size or length})):
            raise Untracked(
                f"the rows of {rows} meet {length} values ({label(var)}) that are all alike: write one number"
            )


def refuse_rows(axes: Iterable[Axis], why: str) -> None:
    """Raise `Untracked` if any of `axes` holds rows of a minibatch."""
    if rows_of(axes):
        raise Untracked(why)


def rows_of(axes: Iterable[Axis]) -> list[Rows]:
    """Return the axes that hold rows of a minibatch."""
    return [axis for axis in axes if isinstance(axis, Rows)]


def label(var: Variable) -> str:
    """Name a variable in a message: by its name, or by its Op and the names it is computed from."""
    if var.name is not None or var.owner is None:
        return var.name or str(var)
    named = dict.fromkeys(
        v.name for v in ancestors([var]) if v.name and not isinstance(v, Constant)
    )
    of = f" of {', '.join(list(named)[:3])}" if named else ""
    return f"{var.owner.op}{of}"


# --- indexes of a graph ---
def indexes(
    variables: Iterable[Variable],
    *,
    by_shape: bool = False,
    known: KnownAxes | None = None,
) -> list[Variable]:
    """Return every minibatch index that `variables` depend on, inner graphs included; clones count once.

    A dependence on the shape of a batch alone, which is the same for all batches, only counts with
    `by_shape`. A variable in `known` depends on the indexes of its axes: the rows of a local variable
    are those of its index, though only its shape is computed from it.
    """
    found: dict[Variable, Variable] = {}
    for var in walk(list(variables), graph_parents if by_shape else _value_parents, False):
        node = var.owner
        if node is not None and isinstance(node.op, MinibatchIndexRV):
            found.setdefault(node.inputs[0], node.outputs[1])
        axes = (known or {}).get(var, ())
        for rows in () if isinstance(axes, Untracked) else rows_of(axes):
            found.setdefault(rows.state, rows.index)
    return list(found.values())


def index_variables(outputs: Iterable[Variable]) -> list[Variable]:
    """List all minibatch indexes in some graphs, clones too."""
    return [
        var
        for var in ancestors(list(outputs))
        if var.owner is not None and isinstance(var.owner.op, MinibatchIndexRV) and var.index == 1
    ]


def value_ancestors(variables: Iterable[Variable]) -> Iterator[Variable]:
    """Walk through what the values of `variables` depend on, inner graphs included."""
    return walk(list(variables), _value_parents, False)


def _value_parents(var: Variable) -> list[Variable]:
    is_shape = var.owner is not None and isinstance(var.owner.op, Shape | Shape_i)
    return [] if is_shape else graph_parents(var)


def graph_parents(var: Variable) -> list[Variable]:
    """Return what a variable is computed from, inner graphs included."""
    node = var.owner
    if node is None:
        return []
    return [*node.inputs, *(node.op.inner_outputs if isinstance(node.op, HasInnerGraph) else ())]


def same_draw(x: Variable, y: Variable) -> bool:
    """Return True if `x` and `y` are the same output of two clones of one minibatch index."""
    first, second = x.owner, y.owner
    return (
        first is not None
        and second is not None
        and isinstance(first.op, MinibatchIndexRV)
        and first.op == second.op
        and first.inputs[0] is second.inputs[0]
        and x.index == y.index
    )


def equal_updates(xs: list[Variable], ys: list[Variable], *args: object, **kwargs: Any) -> bool:
    """Return whether computations are equal, or the next states of two clones of one minibatch index.

    Deriving a log-probability clones the index and rewrites its inputs. `collect_default_updates`
    would see two different updates of one state, return none, and the batch would never move.
    """
    if len(xs) == len(ys) and all(map(same_draw, xs, ys)):
        return True
    return equal_computations(xs, ys, *args, **kwargs)


# --- types of variables and Ops ---
def ndim_of(var: Variable) -> int:
    """Return the number of axes of a variable, 0 if it is no array (a generator)."""
    return len(static_shape(var))


def static_shape(var: Variable) -> tuple[int | None, ...]:
    """Return the static shape of a variable, empty if it is no array (a generator)."""
    return var.type.shape if isinstance(var.type, HasShape) else ()


def ndim_supp(op: Op, default: int | None = 0) -> Any:
    """Return the number of axes of one draw of an Op, `default` if it draws nothing."""
    return getattr(op, "ndim_supp", default)


def extended_signature(op: Op) -> str | None:
    """Return the signature of a `SymbolicRandomVariable`, whose class imports this module; else None."""
    return getattr(op, "extended_signature", None)
