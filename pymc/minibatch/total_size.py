# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Observed values, and the number of rows in all along each axis of a term."""

from __future__ import annotations

import warnings

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable, equal_computations
from pytensor.graph.traversal import ancestors
from pytensor.scalar import Neg, Sub
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.tensor.type_other import NoneConst
from pytensor.xtensor.type import XTensorVariable

from pymc.argument_checks import check_int
from pymc.minibatch.axis_tracking import (
    BROADCAST,
    NAME_THE_DIM,
    OTHER,
    Axes,
    Axis,
    KnownAxes,
    Rows,
    Untracked,
    graph_parents,
    indexes,
    ndim_supp,
    track_axes,
)
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.lengths import check_no_row_count
from pymc.minibatch.rebuild import all_rows
from pymc.minibatch.stream_index import is_stream
from pymc.minibatch.sum_over_rows import check_log_probability
from pymc.pytensorf import current_length, current_value


# --- observed values ---
def check_observed(observed: Variable) -> None:
    """Raise TypeError where an observed value depends on a random variable.

    It may depend on data and on minibatch indexes. The message shows the path to the variable.
    """
    path = _random_ancestor(observed)
    if path:
        culprit = path[-1].name or str(path[-1].owner.op)
        steps = " <- ".join(v.name or str(v.owner.op if v.owner else v) for v in path)
        raise TypeError(
            "Variables that depend on other nodes cannot be used for observed data. "
            f"The observed value depends on the random variable {culprit!r} ({steps}), so "
            "it would change at each evaluation. It may depend on data (arrays, pm.Data, "
            "shared variables) and on pm.Minibatch only. To condition on draws of "
            f"{culprit!r}, draw them first: observed=pm.draw(...)"
        )


def is_valid_observed(var: object) -> bool:
    """Return True if `var` may be observed; all that is not symbolic may."""
    return not isinstance(var, Variable) or not _random_ancestor(var)


def _random_ancestor(var: Variable) -> tuple[Variable, ...]:
    """Return a path from `var` to a random variable other than a minibatch index, or an empty one."""
    paths: list[tuple[Variable, ...]] = [(var,)]
    seen = set()
    while paths:
        path = paths.pop()
        node = path[-1].owner
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node.op, RNGConsumerOp) and not isinstance(node.op, MinibatchIndexRV):
            return path
        paths.extend((*path, parent) for parent in graph_parents(path[-1]))
    return ()


def check_none_missing(name: str, rv: Variable, value: Variable) -> None:
    """Raise NotImplementedError where observed rows of a minibatch have NaN.

    A latent variable would impute each missing value, and the rows of a batch change at each step. A ``logp=``
    of the user may leave NaN out, and NaN in a covariate is up to the model.
    """
    found = indexes([value])
    if not found or any(map(is_stream, found)) or _has_user_logp(rv):
        return
    if not any(map(_has_nan, ancestors([value]))):
        return
    [full] = all_rows([value])
    # The value itself: NaN of the data may have been filled in it
    observed = current_value(full.values if isinstance(full, XTensorVariable) else full)
    n_missing = 0 if observed is None else int(np.isnan(observed).sum())
    if n_missing:
        raise NotImplementedError(
            f"{name!r} observes rows of a minibatch with {n_missing} missing values (NaN), which would be "
            "imputed by a latent variable each. Drop or fill these rows, or observe them in a term of "
            "their own without pm.Minibatch. A pm.CustomDist whose logp= leaves NaN out may observe them"
        )


def _has_user_logp(rv: Variable) -> bool:
    from pymc.distributions.custom import CustomDistRV, CustomSymbolicDistRV  # imports this package

    op = rv.owner.op if rv.owner is not None else None
    if isinstance(op, CustomDistRV | CustomSymbolicDistRV):
        return isinstance(op, CustomDistRV) or not op.inline_logprob
    # A class of the user
    return op is not None and not type(op).__module__.startswith(("pymc.", "pytensor."))


def _has_nan(root: Variable) -> bool:
    if isinstance(root, SharedVariable):
        data = root.get_value(borrow=True)
    elif isinstance(root, Constant):
        data = root.data
    else:
        return False
    return np.asarray(data).dtype.kind in "fc" and bool(np.isnan(data).any())


def warn_of_unsigned(terms: Iterable[Variable], name: str) -> None:
    """Warn if terms of variable `name` depend on a difference of unsigned integers of a batch.

    The data keep their dtype: integers index groups, and a byte is an eighth of a float.
    """
    for var in ancestors(list(terms)):
        node = var.owner
        if (
            node is not None
            and isinstance(node.op, Elemwise)
            and isinstance(node.op.scalar_op, Sub | Neg)
            and var.type.dtype.startswith("uint")
            and indexes([var])
        ):
            wrapped = np.array(3, var.type.dtype) - np.array(5, var.type.dtype)
            warnings.warn(
                f"{name!r} depends on a difference of {var.type.dtype} of a minibatch: unsigned integers wrap "
                f'below zero, 3 - 5 is {wrapped}. Write x.astype("float64") before it is subtracted',
                UserWarning,
                stacklevel=4,
            )
            return


# --- totals of a term ---
Total: TypeAlias = Variable | int | None

_ONE_CALL = "put all the data of the term into one pm.Minibatch call"
_ONE_LOADER = (
    "all the data of the term have to come from the same loader: give it dicts of arrays, or a source of "
    "all columns, and the model a pm.Data of it for each"
)


@dataclass(frozen=True)
class Term:
    """A term of the log-probability: a random variable, not scaled, and its observed value.

    `plates` maps the subsampled dims of the model to their index, and `dim_lengths` each dim to its full
    length. `known` is passed on to :func:`.track_axes`.
    """

    name: str
    rv: Variable
    value: Variable
    dims: Sequence[str | None] | None = None
    plates: Mapping[str, Variable] = field(default_factory=dict)
    dim_lengths: Mapping[str, Variable] = field(default_factory=dict)
    known: KnownAxes = field(default_factory=dict)

    def dim(self, axis: int) -> str | None:
        return self.dims[axis] if self.dims else None


def normalize_total_size(total_size: Any, ndim: int, name: str) -> list[Total]:
    """Return the `total_size` of a user as an entry for each of `ndim` axes.

    It is an int, a scalar, a vector of known length, or a sequence of int, scalar, None or Ellipsis. One
    number is for the leading axis; None is for an axis that is not subsampled.

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
    text = str(total_size)
    dots = [k for k, size in enumerate(sizes) if size is Ellipsis]
    if len(dots) > 1:
        raise ValueError(f"Only one Ellipsis can be present in total_size of {name!r}, got {text}")
    if dots:
        sizes[dots[0] : dots[0] + 1] = [None] * max(ndim - len(sizes) + 1, 0)
    if len(sizes) > ndim:
        raise ValueError(
            f"total_size of {name!r} is {text}, which has more entries than the {ndim} axes of the "
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
    """Check a term, and return the number of rows in all along each axis.

    An axis that is not subsampled has None. A `total_size` of the user has to agree on axes tracked to
    an index, and is taken as stated on others (batches fed by hand).

    Raises
    ------
    ValueError
        If x and y are out of step, rows are mixed, or a total contradicts the data.
    """
    stated = normalize_total_size(total_size, term.value.type.ndim, term.name)
    if not indexes([term.rv, term.value], known=term.known):
        check_not_on_plate(repr(term.name), term.dims, term.plates)
        return stated
    check_none_missing(term.name, term.rv, term.value)
    value = track_axes(term.value, term.known)
    params = track_axes(term.rv, term.known)
    is_vouched = any(total is not None for total in stated)
    _check_tracked(term, "observed value", value, is_vouched)
    _check_tracked(term, "parameters", params, is_vouched or not isinstance(value, Untracked))
    if isinstance(value, Untracked):
        totals = _vouched_totals(term, stated, params)
    elif isinstance(params, Untracked) and is_vouched:
        totals = _vouched_totals(term, stated, value)
    else:
        # Untracked parameters are tried in the log-probability
        params_axes = (BROADCAST,) * len(value) if isinstance(params, Untracked) else params
        rows = [_axis_rows(term, k, axis, params_axes[k]) for k, axis in enumerate(value)]
        check_no_diagonal(term.name, rows)
        check_no_row_count(repr(term.name), [term.rv, term.value])
        totals = [_axis_total(term, k, axis, stated[k]) for k, axis in enumerate(rows)]
        value = tuple(axis if axis is not None else other for axis, other in zip(rows, value))
    check_log_probability(
        term.name,
        term.rv,
        term.value,
        value,
        known=term.known,
        is_vouched=is_vouched,
    )
    return totals


def _check_tracked(term: Term, what: str, axes: Axes | Untracked, is_vouched: bool) -> None:
    """Raise where rows are mixed, or may be and no `total_size` vouches that they are not."""
    if not isinstance(axes, Untracked):
        return
    if axes.certain:
        raise ValueError(
            f"{term.name!r}, {what}: {axes.why}. Compute it of all rows before pm.Minibatch, or use "
            "pm.minibatch_model, in which what mixes the rows of data alone stays of all rows"
        )
    if not is_vouched:
        raise ValueError(
            f"{term.name!r}, {what}: {axes.why}. If each row of the result is of one row of the "
            "batch, and of that alone, say so by total_size=<rows in all>"
        )


def _vouched_totals(term: Term, stated: list[Total], tracked: Axes | Untracked) -> list[Total]:
    """Return the stated totals of a term that is not tracked, and check what can be checked."""
    found = list(map(Rows, indexes([term.value]) or indexes([term.rv])))
    if not set(map(Rows, indexes([term.rv]))) <= set(found):
        raise ValueError(
            f"{term.name!r}: its parameters are of another minibatch index than its observed value, "
            f"so that x and y are out of step: {_advice(*found)}"
        )
    for k, axis in enumerate(() if isinstance(tracked, Untracked) else tracked):
        if isinstance(axis, Rows):
            _check_between_draws(term, k)
            if stated[k] is None:
                raise ValueError(
                    f"{term.name!r}: axis {k} is rows of {axis}, but total_size has no entry for it"
                )
            check_stated(f"{term.name!r}, axis {k}", stated[k], [axis])
    for k, total in enumerate(stated):
        check_stated(f"{term.name!r}, axis {k}", total, found)
    return stated


def _advice(*subsampled: Variable | Rows) -> str:
    return _ONE_LOADER if any(map(is_stream, subsampled)) else _ONE_CALL


def check_not_on_plate(
    where: str, dims: Sequence[str | None] | None, plates: Mapping[str, Variable]
) -> None:
    """Raise ValueError where a term, or an axis of one, has a subsampled dim and is of no minibatch."""
    for dim in dims or ():
        if dim is not None and dim in plates:
            subsampler = "a loader" if is_stream(plates[dim]) else "pm.Minibatch"
            raise ValueError(
                f"{where} has the dim {dim!r}, which {subsampler} subsamples, but neither its "
                f"observed value nor its parameters are of the batch. In this model {dim!r} means "
                f"the rows of the batch: {_advice(plates[dim])}, or give the full data a dim of their own"
            )


def _axis_rows(term: Term, k: int, value: Axis, params: Axis) -> Rows | None:
    """Check one axis of a term, and return its rows."""
    where = f"{term.name!r}, axis {k}"
    if isinstance(value, Rows):
        rows = value
    elif isinstance(params, Rows):
        _check_repeated_value(term, k, value, params)
        rows = params
    else:
        check_not_on_plate(where, [term.dim(k)], term.plates)
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


def _check_repeated_value(term: Term, k: int, value: Axis, params: Rows) -> None:
    """Let through a value that is the same for all rows of the batch, such as ``zeros_like(y)``."""
    if value is BROADCAST and term.value.type.shape[k] == 1 < params.batch_size:
        raise ValueError(
            f"{term.name!r}, axis {k}: its parameters are rows of {params}, but its observed value "
            "has length 1 there and would meet each of them. Give both the same axes, as by y[:, 0] "
            "for a column y"
        )
    if value is not BROADCAST or not indexes([term.value], by_shape=True):
        raise ValueError(
            f"{term.name!r}, axis {k}: its parameters are rows of {params}, its observed value is not, "
            f"so that x and y are out of step: {_advice(params)}"
        )


def _check_between_draws(term: Term, k: int) -> None:
    n_core = 0 if term.rv.owner is None else ndim_supp(term.rv.owner.op)
    if k >= term.value.type.ndim - n_core and not isinstance(term.rv, XTensorVariable):
        raise ValueError(
            f"{term.name!r}, axis {k}: these rows of a minibatch are within one draw of the "
            "distribution, whose elements are not independent, so no scale makes a part of them "
            "stand for all. Subsample an axis along which draws are independent"
        )


def _axis_total(term: Term, k: int, rows: Rows | None, stated: Total) -> Total:
    if rows is None:
        return stated
    _check_dim(term, k, rows)
    check_stated(f"{term.name!r}, axis {k}", stated, [rows])
    return rows.total


def _check_dim(term: Term, k: int, rows: Rows) -> None:
    """Raise where the dim of an axis does not stand for all of its rows."""
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


def check_stated(where: str, stated: Total, candidates: Sequence[Rows]) -> None:
    """Raise ValueError where a stated total is that of none of the rows that an axis may hold."""
    totals = [rows.total for rows in candidates]
    if isinstance(stated, Variable) and any(equal_computations([stated], [n]) for n in totals):
        return
    length, lengths = current_length(stated), list(map(current_length, totals))
    if length is not None and None not in lengths and length not in lengths:
        raise ValueError(
            f"{where}: total_size is {length}, but the data have {' and '.join(map(str, lengths))} rows. "
            "The scale of the log-likelihood would be wrong. Leave total_size out, as the data tell it, or "
            "state their number of rows"
        )


def check_not_fewer(name: str, stated: Sequence[Total], shape: Sequence[int]) -> None:
    """Raise ValueError where more rows are observed than a stated total says there are in all."""
    for k, (total, n_observed) in enumerate(zip(stated, shape)):
        length = current_length(total)
        if length is not None and length < n_observed:
            raise ValueError(
                f"total_size of {name!r} is {length} along axis {k}, but {n_observed} rows are observed: it "
                "says how many rows there are in all, of which these are a batch"
            )


def check_no_diagonal(name: str, rows: Iterable[Rows | None]) -> None:
    """Raise ValueError where two axes of a term are rows of one index."""
    found = [axis for axis in rows if axis is not None]
    if len(set(found)) < len(found):
        raise ValueError(
            f"{name!r}: one minibatch index on two axes picks the diagonal of the data, not a "
            "block; subsample the axes by two indexes, as batch_size=[10, 10] does"
        )
