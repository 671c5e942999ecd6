# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`total_size` by itself: how many rows each axis of a term stands for, and whether it may."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable, equal_computations
from pytensor.tensor.type_other import NoneConst
from pytensor.xtensor.type import XTensorVariable

from pymc.argument_checks import check_int
from pymc.minibatch.axis_tracking import (
    BROADCAST,
    NAME_THE_DIM,
    OTHER,
    Axes,
    Axis,
    Rows,
    Untracked,
    indexes,
    ndim_supp,
    track_axes,
)
from pymc.minibatch.current_value import current_length
from pymc.minibatch.lengths import check_no_row_count
from pymc.minibatch.observed import check_none_missing
from pymc.minibatch.row_terms import check_log_probability
from pymc.minibatch.stream_index import is_stream

type Total = Variable | int | None

_ONE_CALL = "put all the data of the term into one pm.Minibatch call"
_ONE_LOADER = (
    "all the data of the term have to come from the same loader: give it dicts of arrays, or a source of "
    "all columns, and the model a pm.Data of it for each"
)


@dataclass(frozen=True)
class Term:
    """A term of the log-probability: a random variable and its observed value.

    Parameters
    ----------
    name : str
    rv : Variable
        The random variable, not scaled.
    value : Variable
        What is observed; any rank.
    dims : sequence of str or None
        Names of the axes, where there are some.
    plates : mapping of str to Variable
        The subsampled dims of the model and their index.
    dim_lengths : mapping of str to Variable
        How many rows each dim of the model has in all.
    known, free
        Passed on to :func:`~pymc.minibatch.axis_tracking.track_axes`.
    """

    name: str
    rv: Variable
    value: Variable
    dims: Sequence[str | None] | None = None
    plates: Mapping[str, Variable] = field(default_factory=dict)
    dim_lengths: Mapping[str, Variable] = field(default_factory=dict)
    known: Mapping[Variable, Axes | Untracked] = field(default_factory=dict)
    free: Collection[Variable] = ()

    def dim(self, axis: int) -> str | None:
        return self.dims[axis] if self.dims else None


def normalize_total_size(total_size: Any, ndim: int, name: str) -> list[Total]:
    """Write an explicit `total_size` as an entry for each axis.

    Parameters
    ----------
    total_size : int, scalar, vector of known length, or sequence of int, scalar, None or Ellipsis
        One number is for the leading axis; None is for an axis that is not subsampled.
    ndim : int
        How many axes the term has.
    name : str
        The term's name, for messages.

    Raises
    ------
    TypeError
        If a size is not a whole number.
    ValueError
        If a size is below 1, or there are more of them than axes.
    """
    if total_size is None:
        return [None] * ndim
    if isinstance(total_size, Variable) and total_size.type.ndim == 1:
        total_size = [total_size[k] for k in range(pt.get_vector_length(total_size))]
    elif isinstance(total_size, np.ndarray) and total_size.ndim == 1:
        total_size = list(total_size)
    sizes = list(total_size) if isinstance(total_size, list | tuple) else [total_size]
    given = str(total_size)
    dots = [k for k, size in enumerate(sizes) if size is Ellipsis]
    if len(dots) > 1:
        raise ValueError(f"Only one Ellipsis can be present in total_size of {name!r}, got {given}")
    if dots:
        sizes[dots[0] : dots[0] + 1] = [None] * max(ndim - len(sizes) + 1, 0)
    if len(sizes) > ndim:
        raise ValueError(
            f"total_size of {name!r} is {given}, which has more entries than the {ndim} axes of the "
            "variable. Give one number for the leading axis, or an entry for each axis"
        )
    return [_valid_size(size, name) for size in sizes] + [None] * (ndim - len(sizes))


def _valid_size(size: Any, name: str) -> Total:
    if size is None or (isinstance(size, Variable) and NoneConst.equals(size)):
        return None
    hint = "total_size is the number of rows of the full data: with 0 the data would not count"
    if not isinstance(size, Variable):
        return check_int(size, "total_size", repr(name), hint=hint)
    if size.type.ndim != 0 or size.type.dtype.lstrip("u")[:3] != "int":
        raise TypeError(
            f"total_size={size} of {name!r} must be a whole number; got a {size.type}. {hint}"
        )
    if (value := current_length(size)) is not None:
        check_int(value, "total_size", repr(name), hint=hint)
    return size


def infer_totals(term: Term, total_size: Any = None) -> list[Total]:
    """Tell how many rows there are in all along each axis of a term, and check the term.

    Parameters
    ----------
    term : Term
    total_size : optional
        What the user said; see :func:`normalize_total_size`. On axes traced to an index it must
        agree, on others it is taken as given (batches fed by hand).

    Returns
    -------
    list of scalar integer or None
        An entry for each axis, None where it is not subsampled.

    Raises
    ------
    ValueError
        If x and y are out of step, rows are mixed, or a total contradicts the data.
    """
    given = normalize_total_size(total_size, term.value.type.ndim, term.name)
    if not indexes([term.rv, term.value], known=term.known):
        check_not_on_plate(term.name, term.dims, term.plates)
        return given
    check_none_missing(term.name, term.rv, term.value)
    value = track_axes(term.value, term.known, term.free)
    params = track_axes(term.rv, term.known, term.free)
    vouched = any(total is not None for total in given)
    _check_traced(term, "observed value", value, vouched)
    _check_traced(term, "parameters", params, vouched or not isinstance(value, Untracked))
    if isinstance(value, Untracked) or (isinstance(params, Untracked) and vouched):
        totals = _vouched(term, given, params if isinstance(value, Untracked) else value)
    else:
        # What is lost in the parameters is tried in the log-probability
        rows = [
            _axis_rows(term, k, axis, BROADCAST if isinstance(params, Untracked) else params[k])
            for k, axis in enumerate(value)
        ]
        check_no_diagonal(term.name, [axis for axis in rows if axis is not None])
        check_no_row_count(repr(term.name), [term.rv, term.value])
        totals = [_axis_total(term, k, axis, given[k]) for k, axis in enumerate(rows)]
        value = tuple(own if axis is None else axis for axis, own in zip(rows, value))
    check_log_probability(
        term.name, term.rv, term.value, value, known=term.known, free=term.free, vouched=vouched
    )
    return totals


def _check_traced(term: Term, what: str, axes: Axes | Untracked, vouched: bool) -> None:
    """Raise where the rows of a batch are mixed, or may be and nobody says that they are not."""
    if not isinstance(axes, Untracked):
        return
    if axes.certain:
        raise ValueError(
            f"{term.name!r}, {what}: {axes.why}. Compute it of all rows before pm.Minibatch, or use "
            "pm.minibatch_model, in which what mixes the rows of data alone stays of all rows"
        )
    if not vouched:
        raise ValueError(
            f"{term.name!r}, {what}: {axes.why}. If each row of the result is of one row of the "
            "batch, and of that alone, say so by total_size=<rows in all>"
        )


def _vouched(term: Term, given: list[Total], traced: Axes | Untracked) -> list[Total]:
    """Take the totals as given where axes cannot be traced, and check what can be."""
    found = indexes([term.value]) or indexes([term.rv])
    if not set(map(Rows, indexes([term.rv]))) <= set(map(Rows, found)):
        raise ValueError(
            f"{term.name!r}: its parameters are of another minibatch index than its observed value, "
            f"so that x and y are out of step: {_advice(*found)}"
        )
    for k, axis in enumerate(() if isinstance(traced, Untracked) else traced):
        if isinstance(axis, Rows):
            _check_between_draws(term, k)
            if given[k] is None:
                raise ValueError(
                    f"{term.name!r}: axis {k} is rows of {axis}, but total_size has no entry for it"
                )
            check_given(f"{term.name!r}, axis {k}", given[k], axis)
    check_among(repr(term.name), given, found)
    return given


def _advice(*found: Variable | Rows) -> str:
    """Say how data stay in step with those of an index."""
    return _ONE_LOADER if any(map(is_stream, found)) else _ONE_CALL


def _who(index: Variable) -> str:
    """What subsamples a dim."""
    return "a loader" if is_stream(index) else "pm.Minibatch"


def check_not_on_plate(
    name: str, dims: Sequence[str | None] | None, plates: Mapping[str, Variable]
) -> None:
    """Raise where a term that depends on no minibatch has a subsampled dim.

    Raises
    ------
    ValueError
        The message names the dim.
    """
    for dim in dims or ():
        if dim is not None and dim in plates:
            raise ValueError(
                f"{name!r} has the dim {dim!r}, which {_who(plates[dim])} subsamples, but neither its "
                f"observed value nor its parameters are of the batch. In this model {dim!r} means "
                f"the rows of the batch: {_advice(plates[dim])}, or give the full data a dim of their own"
            )


def _axis_rows(term: Term, k: int, value: Axis, params: Axis) -> Rows | None:
    """Check one axis of a term, and tell of which rows it is."""
    where = f"{term.name!r}, axis {k}"
    if isinstance(value, Rows):
        rows = value
    elif isinstance(params, Rows):
        rows = _repeated(term, k, value, params)
    else:
        dim = term.dim(k)
        if dim is not None and dim in term.plates:
            raise ValueError(
                f"{where} has the dim {dim!r}, which {_who(term.plates[dim])} subsamples, but its "
                f"observed value is not of the batch: {_advice(term.plates[dim])}"
            )
        return None
    _check_between_draws(term, k)
    if isinstance(params, Rows) and params != rows:
        raise ValueError(
            f"{where}: two minibatch indexes meet, {rows} in the observed value and {params} in "
            f"the parameters, so that x and y are out of step: {_advice(rows, params)}"
        )
    if params is OTHER:
        raise ValueError(
            f"{where}: the observed value is rows of {rows}, but a parameter has values of its own "
            f"there and does not broadcast. If these are data, {_advice(rows)}. If they are a variable "
            "with a slot for each row of the batch, other rows would reuse its slots at each step: "
            f"give it dims={rows.dim or '<the dim of the rows>'!r}"
            + (NAME_THE_DIM if rows.dim is None else "")
        )
    return rows


def _repeated(term: Term, k: int, value: Axis, params: Rows) -> Rows:
    """Let values through that are the same for all rows of the batch, such as ``zeros_like(y)``."""
    if value is BROADCAST and term.value.type.shape[k] == 1 < params.batch_size:
        raise ValueError(
            f"{term.name!r}, axis {k}: its parameters are rows of {params}, but its observed value "
            "has length 1 there and would meet each of them. Give both the same axes, as by y[:, 0] "
            "for a column y"
        )
    if value is BROADCAST and indexes([term.value], by_shape=True):
        return params
    raise ValueError(
        f"{term.name!r}, axis {k}: its parameters are rows of {params}, its observed value is not, "
        f"so that x and y are out of step: {_advice(params)}"
    )


def _check_between_draws(term: Term, k: int) -> None:
    ndim_supp = _ndim_supp(term.rv)
    if k >= term.value.type.ndim - ndim_supp and not isinstance(term.rv, XTensorVariable):
        raise ValueError(
            f"{term.name!r}, axis {k}: these rows of a minibatch are within one draw of the "
            "distribution, whose elements are not independent, so no scale makes a part of them "
            "stand for all. Subsample an axis along which draws are independent"
        )


def _axis_total(term: Term, k: int, rows: Rows | None, given: Total) -> Total:
    if rows is None:
        return given
    _check_dim(term, k, rows)
    if given is not None:
        check_given(f"{term.name!r}, axis {k}", given, rows)
    return rows.total


def _ndim_supp(rv: Variable) -> int:
    return ndim_supp(rv.owner.op) if rv.owner is not None else 0


def _check_dim(term: Term, k: int, rows: Rows) -> None:
    """The name of a subsampled axis stands for all of its rows."""
    dim = term.dim(k)
    if dim is None or dim == rows.dim:
        return
    if rows.dim is not None:
        raise ValueError(
            f"{term.name!r}, axis {k}, has the dim {dim!r}, but it is rows of {rows}: give it the dim "
            f"{rows.dim!r}, or the data in pm.Minibatch the dim {dim!r}"
        )
    if dim not in term.dim_lengths:
        return
    length, total = current_length(term.dim_lengths[dim]), current_length(rows.total)
    if None not in (length, total) and length != total:
        raise ValueError(
            f"{term.name!r}, axis {k}: the dim {dim!r} has length {length}, but the axis is rows of "
            f"{rows} out of {total}. A dim keeps its full length under pm.Minibatch: give the coords "
            f"of all {total} rows, or leave dims= out"
        )


def check_given(where: str, given: Total, rows: Rows) -> None:
    """Raise where an explicit total is not the one of the rows.

    Raises
    ------
    ValueError
        The message shows both.
    """
    if isinstance(given, Variable) and equal_computations([given], [rows.total]):
        return
    said, there = current_length(given), current_length(rows.total)
    if None not in (said, there) and said != there:
        raise ValueError(
            f"{where}: total_size is {said}, but the data have {there} rows. The scale of the "
            "log-likelihood would be wrong; leave total_size out, it is known here"
        )


def check_not_fewer(name: str, given: Sequence[Total], shape: Sequence[int]) -> None:
    """Raise where there are more rows here than an explicit total says there are in all.

    Raises
    ------
    ValueError
        The message shows both.
    """
    for k, (size, here) in enumerate(zip(given, shape)):
        said = current_length(size)
        if said is not None and said < here:
            raise ValueError(
                f"total_size of {name!r} is {said} along axis {k}, but {here} rows are observed: it "
                "says how many rows there are in all, of which these are a batch"
            )


def check_among(what: str, given: Sequence[Total], found: Sequence[Variable]) -> None:
    """Raise where an explicit total is that of none of the indexes that the term depends on.

    Raises
    ------
    ValueError
        The message shows both.
    """
    totals = [current_length(Rows(index).total) for index in found]
    for k, size in enumerate(given):
        said = current_length(size)
        if said is not None and None not in totals and said not in totals:
            raise ValueError(
                f"{what}, axis {k}: total_size is {said}, but the data have "
                f"{' and '.join(map(str, totals))} rows. The scale of the log-likelihood would be wrong"
            )


def check_no_diagonal(name: str, rows: Sequence[Rows]) -> None:
    """Raise where two axes of a term are rows of one index.

    Raises
    ------
    ValueError
        The message says how to take a block instead.
    """
    if len(set(rows)) < len(rows):
        raise ValueError(
            f"{name!r}: one minibatch index on two axes picks the diagonal of the data, not a "
            "block; subsample the axes by two indexes, as batch_size=[10, 10] does"
        )
