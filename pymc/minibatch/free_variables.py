# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Free variables of a model with minibatches: local ones have a value for each row, global ones none.

A local variable says so by its dims, and its parameters agree: along the plate they are rows of the
same index, or broadcast.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.xtensor.shape import Transpose
from pytensor.xtensor.type import XTensorVariable
from pytensor.xtensor.vectorization import XRV

from pymc.minibatch.array_data import raw_data
from pymc.minibatch.current_length import current_length
from pymc.minibatch.graph_types import ndim_supp
from pymc.minibatch.lengths import check_no_length
from pymc.minibatch.plates import as_axes, axes_of_dims, value_axes
from pymc.minibatch.provenance import NAME_THE_DIM, OWN, Axes, Axis, Lost, Rows, indexes, trace
from pymc.minibatch.stream_index import is_stream
from pymc.minibatch.terms import check_log_probability
from pymc.minibatch.total_size import check_no_diagonal

__all__ = ["batch_initval", "check_free_variable", "check_local_prior"]


def check_free_variable(
    rv: Variable,
    name: str,
    dims: Sequence[str | None] | None,
    plates: Mapping[str, Variable],
    known: Mapping[Variable, Axes | Lost] | None = None,
    free: Collection[Variable] = (),
) -> None:
    """Check that a free variable has rows of a batch where its dims say so, and nowhere else.

    Parameters
    ----------
    rv : Variable
    name : str
    dims : sequence of str or None
        Names of its axes, where there are some.
    plates : mapping of str to Variable
        The subsampled dims of the model and their index.
    known, free
        Passed on to :func:`~pymc.minibatch.provenance.trace`.

    Raises
    ------
    ValueError
        If its distribution computes with the number of rows of a batch, mixes rows, has parameters of
        rows that its dims do not name, or is not independent along a subsampled dim.
    """
    rows = axes_of_dims(dims, plates) if dims else (None,) * rv.type.ndim
    if not any(rows) and not indexes([rv], by_shape=True, known=known):
        return
    check_no_diagonal(name, [row for row in rows if row is not None])
    _check_between_draws(rv, name, rows)
    axes = trace(rv, known, free)
    if isinstance(axes, Lost):
        raise ValueError(
            f"The parameters of the free variable {name!r}: {axes.why}. What all rows share cannot "
            "depend on the rows of one batch, and a variable with a value for each row takes "
            "parameters row by row"
        )
    for k, (row, axis) in enumerate(zip(rows, axes)):
        if row is not None:
            _check_local_axis(rv, name, k, row, axis)
        elif isinstance(axis, Rows):
            raise ValueError(
                f"The free variable {name!r}, axis {k}, has parameters that are rows of {axis}, so "
                f"each row has a value of its own, and its dims ({dims}) do not say so: slots for the "
                "rows of one batch would be reused for others. Give it "
                f"dims={axis.dim or '<the dim of the rows>'!r}"
                f"{NAME_THE_DIM if axis.dim is None else ''}; if it is data, pass observed=..."
            )
    check_no_length(repr(name), [rv])


def check_local_prior(
    rv: Variable,
    name: str,
    value: Variable,
    transform: Any,
    rows: Sequence[Rows | None],
    known: Mapping[Variable, Axes | Lost],
    free: Collection[Variable] = (),
) -> None:
    """Check that the prior of a local variable, with the Jacobian of its transform, is a sum over rows.

    Parameters
    ----------
    rv : Variable
    name : str
    value : Variable
        Its value variable.
    transform : Transform or None
    rows : sequence of Rows or None
        The axes of the variable.
    known, free
        Passed on to :func:`~pymc.minibatch.provenance.trace`.

    Raises
    ------
    ValueError
        If rows depend on each other.
    """
    if any(rows):
        axes = value_axes(as_axes(rows), value)
        check_log_probability(name, rv, value, axes, known=known, free=free, transform=transform)


def _where(name: str, k: int, rows: Rows) -> str:
    return f"The free variable {name!r} has the subsampled dim {rows.dim!r} on axis {k}"


def _check_between_draws(rv: Variable, name: str, rows: Sequence[Rows | None]) -> None:
    inside = set(_draw_axes(rv))
    for k, axis in enumerate(rows):
        if axis is not None and k in inside:
            raise ValueError(
                f"{_where(name, k, axis)}, which is within one draw of its distribution "
                f"({_distribution(rv).owner.op}): its elements are not independent, so that the rows "
                "of a batch cannot be drawn without the others. Use a distribution whose draws are "
                "independent along the rows, or a dim that is not subsampled"
            )


def _distribution(rv: Variable) -> Variable:
    """Return what `rv` is a transposition of: named dims may be put in another order."""
    while rv.owner is not None and isinstance(rv.owner.op, Transpose):
        [rv] = rv.owner.inputs
    return rv


def _draw_axes(rv: Variable) -> list[int]:
    """Tell which axes of `rv` are those of one draw."""
    op = _distribution(rv).owner.op
    if isinstance(rv, XTensorVariable):
        core = op.core_dims[1] if isinstance(op, XRV) else ()
        return [k for k, dim in enumerate(rv.type.dims) if dim in core]
    ndim = rv.type.ndim
    return list(range(ndim - ndim_supp(op), ndim))


def _check_local_axis(rv: Variable, name: str, k: int, rows: Rows, axis: Axis) -> None:
    where = _where(name, k, rows)
    if isinstance(axis, Rows) and axis != rows:
        raise ValueError(
            f"{where}, by {rows}, but its parameters are rows of {axis}, so that they are out of "
            "step: put all the data into one pm.Minibatch call"
        )
    if axis is OWN:
        raise ValueError(
            f"{where}, but a parameter has values of its own there and does not broadcast: other "
            "rows would reuse them at each step. If they are data, put them into the pm.Minibatch "
            f"call; if they are a variable, give it the dim {rows.dim!r} too"
        )
    length = rv.type.shape[k]
    if length is None:
        length = current_length(rv.shape[k])
    any_length = length is None or (is_stream(rows) and rv.type.shape[k] is None)
    hidden = any_length and rows in map(Rows, indexes([rv], by_shape=True))
    if length != rows.batch_size and not hidden:
        raise ValueError(
            f"{where}, so it has {rows.batch_size} rows, those of a batch, but its length there is "
            f"{length}. Leave out shape= and size=: dims= say it"
        )


def batch_initval(
    initval: Any,
    name: str,
    rows: Sequence[Rows | None],
    shape: Sequence[Variable | int],
    known: Mapping[Variable, Axes | Lost] | None = None,
) -> Any:
    """Make an initial value of all rows, or one for each of them, one of the rows of a batch.

    Parameters
    ----------
    initval : array_like, Variable, str or None
        What the user gave. Along an axis of rows it has N entries, one for each of all rows, which
        the index then picks from, or it broadcasts.
    name : str
        The variable's name, for messages.
    rows : sequence of Rows or None
        The axes of the variable; see :func:`~pymc.minibatch.plates.local_axes`.
    shape : sequence of scalar integer
        The variable's shape: that of a batch.
    known : mapping, optional
        Passed on to :func:`~pymc.minibatch.provenance.trace`.

    Returns
    -------
    Variable, str or None
        A strategy ("support_point", "prior") stays what it is; all else has the shape `shape`.

    Raises
    ------
    ValueError
        If it has another number of rows; slots for the rows of one batch would be of others too.
    """
    if initval is None or isinstance(initval, str):
        return initval
    value = pt.as_tensor(
        initval if isinstance(initval, Variable) else raw_data(np.asarray(initval)),
        allow_xtensor_conversion=True,
    )
    axes = trace(value, known)
    for k, axis in enumerate(rows):
        at = k - len(rows) + value.type.ndim
        if axis is None or at < 0 or value.type.shape[at] == 1:
            continue
        if isinstance(axes, Lost) or axes[at] == axis:
            continue
        length, total = current_length(value.shape[at]), current_length(axis.total)
        if None not in (length, total) and length != total:
            raise ValueError(
                f"initval of {name!r} has {length} rows along the dim {axis.dim!r}, of which a batch "
                f"has {axis.batch_size} and all data {total}: give an entry for each of the {total} "
                "rows, or one value for all"
            )
        value = value[(slice(None),) * at + (axis.index,)]
    return pt.broadcast_to(value, list(shape))
