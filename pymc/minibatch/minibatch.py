# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.Minibatch`: random rows of several variables, by one index for each dim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Constant, Variable
from pytensor.tensor.shape import shape_i
from pytensor.tensor.variable import TensorVariable
from pytensor.xtensor import as_xtensor
from pytensor.xtensor.type import XTensorVariable

from pymc.argument_checks import check_choice, check_int
from pymc.minibatch.array_data import numbers_of, raw_data
from pymc.minibatch.axis_tracking import label
from pymc.minibatch.index import (
    ROW_COUNTS_DIFFER,
    minibatch_index,
)
from pymc.minibatch.plates import note_index, subsampled_dims
from pymc.minibatch.shuffle import SAMPLING
from pymc.minibatch.stream_index import refuse_loader
from pymc.minibatch.total_size import is_valid_observed
from pymc.pytensorf import current_length, floatX

if TYPE_CHECKING:
    from pymc.model.core import Model


@dataclass(frozen=True)
class _Axis:
    """An axis of the variable at `position` of the call, which is to be subsampled."""

    position: int
    variable: Variable
    axis: int
    dim: str | None
    batch_size: int

    @property
    def length(self) -> Variable | int:
        return axis_length(self.variable, self.axis)

    def __str__(self) -> str:
        unnamed = self.variable.owner is None and self.variable.name is None
        name = f"argument {self.position + 1}" if unnamed else label(self.variable)
        return f"{name} (axis {self.axis})"


def Minibatch(
    variable: Any,
    *variables: Any,
    batch_size: int | Sequence | Mapping[str, int] | None = None,
    sampling: str = "epoch",
) -> Variable | list[Variable] | tuple[Variable, ...]:
    """Take random rows of data, the same rows of all of them, new ones at each evaluation.

    A term of the model whose observed value is of a minibatch counts for all rows: its
    log-probability is multiplied by N / B, N rows in all and B in the batch, found from the graph.

    Parameters
    ----------
    variable : array_like, pandas object, tensor or XTensorVariable; or dict
        Data of shape (N, ...), of any rank above 0 and any dtype; floats become ``floatX``. A dict
        ``{data: batch_size}`` has a size for each variable; its keys must be symbolic, such as those of
        :func:`pymc.Data`.
    *variables
        Further data with the same number of rows.
    batch_size : int, sequence, or dict of str to int
        Rows of a batch. A sequence is for the leading axes, ``None`` for an axis taken in full and
        ``...`` for as many of these as it takes: ``[2, ..., 10]`` subsamples the first axis and the
        last. A dict is by the names of dims: ``{"obs": 500, "feature": 10}``.
    sampling : {"epoch", "without_replacement", "with_replacement"}
        How rows are drawn. ``"epoch"``: each row once a pass, in a fresh order each pass; a batch may
        hold the end of a pass and the beginning of the next. ``"without_replacement"``: the rows of
        a batch are distinct, batches are independent. ``"with_replacement"``: all are independent.

    Returns
    -------
    Variable, list of Variable, or tuple of Variable
        For one variable, its rows; for several, a list in their order; for a dict, a tuple. Shape
        (B, ...), dtype and kind (tensor or XTensorVariable) as the data's.

    Raises
    ------
    TypeError
        If a size is not a whole number, or a key of the dict is not symbolic.
    ValueError
        If `sampling` is unknown, data are random, a batch is empty or larger than the data, the data
        differ in their number of rows, a dim is unknown, or a dim is subsampled in two ways.
    NotImplementedError
        If integers are masked. NaN may be in data, but not in observed values: the variable that
        observes it raises, unless it is a `CustomDist` with its own `logp`.

    Notes
    -----
    All variables of a call share one :class:`~pymc.minibatch.index.MinibatchIndexRV` for each axis,
    so that x and y cannot get out of step. Two calls in one model that subsample a dim alike share it too.
    In a model, the dim means the rows of the batch after this call. A free variable with this dim has a
    value for each row, a batch takes those of its rows, and the prior is scaled to all rows.

    Arrays become shared variables. An expression of data may be computed in full at each evaluation:
    prepare data in NumPy.

    Examples
    --------
    >>> X = np.random.default_rng(1).normal(size=(1000, 3))
    >>> y = X @ [1.0, 2.0, 3.0]
    >>> X_batch, y_batch = pm.Minibatch(X, y, batch_size=50)
    >>> X_batch.type.shape, y_batch.type.shape
    ((50, 3), (50,))
    >>> with pm.Model() as model:
    ...     w = pm.Normal("w", shape=3)
    ...     lik = pm.Normal("y", X_batch @ w, 1, observed=y_batch)

    References
    ----------
    .. [1] Hoffman et al. (2013). Stochastic Variational Inference. JMLR 14.
    """
    from pymc.model.core import Model  # which imports this module

    check_choice(sampling, "sampling", "pm.Minibatch", tuple(SAMPLING))
    requests = _read_arguments(variable, variables, batch_size)
    data = [_as_data(value) for value, _ in requests]
    model: Model | None = Model.get_context(error_if_none=False)  # type: ignore[attr-defined]
    _check_dims_known(batch_size, data, model)
    axes = [
        _Axis(position, full, axis, dim, size)
        for position, (full, (_, sizes)) in enumerate(zip(data, requests))
        for axis, dim, size in _subsampled_axes(sizes, full, _dims(full, model))
    ]
    # An int or a sequence is for axes by their place, so that axes of one place share an index
    by_place = not isinstance(variable, Mapping) and not isinstance(batch_size, Mapping)
    batches = list(data)
    for group in _group_axes(axes, by_place):
        index = _shared_index(group, sampling, model)
        for use in group:
            batches[use.position] = take_rows(batches[use.position], index, use.axis)
    for batch, full in zip(batches, data):
        batch.name = f"minibatch({full.name})" if full.name else "minibatch"
    if isinstance(variable, Mapping):
        return tuple(batches)
    return batches if variables else batches[0]


def take_rows(data: Any, index: Variable, axis: int) -> Variable:
    """Take the rows `index` of `data` along `axis`; `data` is a tensor or has named dims."""
    if isinstance(data, XTensorVariable):
        dim = data.type.dims[axis]
        return data.isel({dim: as_xtensor(index, dims=(dim,))})
    return data[(slice(None),) * axis + (index,)]


def axis_length(data: Any, axis: int) -> Variable | int:
    """Return the length of `data` along `axis`: a number if it cannot change."""
    static = data.type.shape[axis]
    if static is not None:
        return static
    return shape_i(data.values if isinstance(data, XTensorVariable) else data, axis)


def row_count(lengths: Sequence[Variable | int]) -> Variable | int:
    """Return the common number of rows of data, of which ints are equal.

    Where symbolic lengths differ, it is ROW_COUNTS_DIFFER, from which no batch can be drawn. It is no
    `Assert`, which JAX drops: a draw checks its number of rows on every backend.
    """
    fixed = [n for n in lengths if isinstance(n, int)]
    length, *others = [n for n in lengths if not isinstance(n, int)] + fixed[:1]
    if not others:
        return length
    agree = pt.all([pt.eq(length, other) for other in others])
    return pt.switch(agree, length, np.int64(ROW_COUNTS_DIFFER))


def _read_arguments(
    variable: Any, variables: Sequence[Any], batch_size: Any
) -> list[tuple[Any, Any]]:
    """Return each data argument with its batch_size."""
    if not isinstance(variable, Mapping):
        if batch_size is None:
            raise TypeError(
                "pm.Minibatch needs batch_size, the number of rows of a batch, such as "
                "pm.Minibatch(x, y, batch_size=500)"
            )
        return [(value, batch_size) for value in (variable, *variables)]
    if variables or batch_size is not None:
        raise TypeError(
            "pm.Minibatch takes one dict {data: batch_size} and no other data or batch_size; got "
            f"{len(variables)} more and batch_size={batch_size!r}"
        )
    if not variable:
        raise ValueError("pm.Minibatch got an empty dict: give {data: batch_size}")
    for key in variable:
        if not isinstance(key, Variable):
            raise TypeError(
                f"a key of the dict given to pm.Minibatch is {repr(key)[:50]} of type {type(key).__name__}; "
                "keys must be symbolic: put the data into pm.Data, or use the form "
                "pm.Minibatch(x, y, batch_size=...)"
            )
    return list(variable.items())


def _as_data(value: Any) -> Variable:
    refuse_loader(value, "data of pm.Minibatch")
    if isinstance(value, Variable):
        if not is_valid_observed(value):
            raise ValueError(
                f"{label(value)} is not valid for pm.Minibatch, only non-random variables are "
                "allowed: data are arrays, pm.Data, shared variables and expressions of these"
            )
        if not isinstance(value, TensorVariable | XTensorVariable):
            raise TypeError(f"pm.Minibatch takes dense data, got {value} of type {value.type}")
        return value
    try:
        original = array = np.asanyarray(numbers_of(value))
    except ValueError as error:
        raise TypeError(
            "pm.Minibatch got a sequence that is no array; several data are arguments of their own, "
            "as in pm.Minibatch(x, y, batch_size=...)"
        ) from error
    if array.dtype.kind not in "biufc":
        raise TypeError(
            f"pm.Minibatch takes dense numeric data, got a {type(value).__name__} of dtype "
            f"{array.dtype}. Encode categories as numbers (.cat.codes), and make sparse data dense"
        )
    if isinstance(array, np.ma.MaskedArray):
        array = _fill_masked(array)
    # Integers are kept as they are: counts and codes may be large
    if array.dtype.kind == "f":
        array = floatX(array)
    # A copy, which the conversion may have made: the user may go on to write into the array
    return raw_data(np.array(array) if np.may_share_memory(array, original) else array)


def _fill_masked(array: np.ma.MaskedArray) -> np.ndarray:
    """Write NaN for masked values."""
    n_masked = int(np.ma.count_masked(array))
    if not n_masked:
        return np.ma.getdata(array)
    if array.dtype.kind not in "fc":
        raise NotImplementedError(
            f"pm.Minibatch got data of dtype {array.dtype} with {n_masked} masked values, and there is no "
            "NaN of that dtype to stand for them. Drop or fill these rows, or, if the model handles NaN in "
            "them, give floats: array.astype(float).filled(np.nan)"
        )
    return array.filled(np.nan)


def _dims(variable: Variable, model: Model | None) -> tuple[str | None, ...]:
    if isinstance(variable, XTensorVariable):
        return variable.type.dims
    dims = None
    if model is not None and model.root.named_vars.get(variable.name) is variable:
        dims = model.root.named_vars_to_dims.get(variable.name)
    return tuple(dims or (None,) * variable.type.ndim)


def _quoted(names: Sequence[str], separator: str = ", ") -> str:
    return separator.join(map(repr, names))


def _check_dims_known(batch_size: Any, data: Sequence[Variable], model: Model | None) -> None:
    if isinstance(batch_size, Mapping):
        dims = {dim for variable in data for dim in _dims(variable, model) if dim is not None}
        unknown = [dim for dim in batch_size if dim not in dims]
        if unknown and dims:
            raise ValueError(
                f"batch_size of pm.Minibatch has the dim {_quoted(unknown)}, which none "
                f"of the data has; their dims are {_quoted(sorted(dims))}"
            )


def _subsampled_axes(
    batch_size: Any, variable: Variable, dims: tuple[str | None, ...]
) -> list[tuple[int, str | None, int]]:
    """Return axis, dim and batch size of each axis of a variable that is to be subsampled."""
    name = "an array" if variable.owner is None and variable.name is None else label(variable)
    ndim = variable.type.ndim
    if isinstance(batch_size, Mapping):
        named = [(k, dim) for k, dim in enumerate(dims) if dim in batch_size]
        if not named:
            raise ValueError(
                f"batch_size of pm.Minibatch is for the dims {_quoted(list(batch_size))}, but "
                f"{name} has the dims {dims}: name one of its dims (pm.Data takes dims=..., "
                "which are known inside of the model's context), or leave it out of the call"
            )
        return [(k, dim, _check_size(batch_size[dim])) for k, dim in named]
    if isinstance(batch_size, np.ndarray):
        batch_size = batch_size.tolist()
    sizes = list(batch_size) if isinstance(batch_size, list | tuple) else [batch_size]
    if sum(size is Ellipsis for size in sizes) > 1:
        raise ValueError(f"batch_size of pm.Minibatch may have one Ellipsis, got {batch_size}")
    at = next((k for k, size in enumerate(sizes) if size is Ellipsis), None)
    if at is not None:
        sizes[at : at + 1] = [None] * (ndim - len(sizes) + 1)
    if ndim == 0:
        raise ValueError(
            f"pm.Minibatch takes data with at least one axis, got the scalar {variable}"
        )
    if len(sizes) > ndim:
        raise ValueError(
            f"batch_size of pm.Minibatch is {batch_size}, for {len(sizes)} axes, but {name} has {ndim}"
        )
    axes = [(k, dims[k], _check_size(n)) for k, n in enumerate(sizes) if n is not None]
    if not axes:
        raise ValueError(f"batch_size of pm.Minibatch is {batch_size}, which subsamples no axis")
    return axes


def _check_size(size: object) -> int:
    hint = "batch_size is the number of rows of a batch"
    return check_int(size, "batch_size", "pm.Minibatch", hint=hint)


def _group_axes(axes: Sequence[_Axis], by_place: bool) -> list[list[_Axis]]:
    """Group the axes that share one index: those of one dim, and nameless ones in the same place."""
    dims_at: dict[int, list[str]] = {}
    for use in axes:
        dims = dims_at.setdefault(use.axis, [])
        if use.dim is not None and use.dim not in dims:
            dims.append(use.dim)
    groups: dict[Any, list[_Axis]] = {}
    for use in axes:
        dims = dims_at[use.axis]
        if len(dims) > 1 and by_place:
            raise ValueError(
                f"pm.Minibatch: axis {use.axis} of the data is the dim {_quoted(dims, ' and ')}, "
                "which one index cannot subsample both. To subsample each of them by an index of its "
                f"own, name them: batch_size={{{dims[0]!r}: ..., {dims[1]!r}: ...}}"
            )
        if len(dims) > 1 and use.dim is None:
            raise ValueError(
                f"pm.Minibatch: axis {use.axis} is the dim {_quoted(dims, ' and ')} of other "
                f"data, so which of these {label(use.variable)} has is not known: give it dims "
                "by pm.Data(..., dims=...)"
            )
        key = use.dim if use.dim is not None else dims[0] if dims else use.axis
        groups.setdefault(key, []).append(use)
    return list(groups.values())


def _shared_index(group: Sequence[_Axis], sampling: str, model: Model | None) -> Variable:
    """Return one index for all of `group`: a new one, or the one that the model has for this dim."""
    sizes = sorted({use.batch_size for use in group})
    if len(sizes) > 1:
        raise ValueError(
            f"pm.Minibatch: batch_size is {' and '.join(map(str, sizes))} for axes that share one "
            f"index, {' and '.join(map(str, group))}: rows that belong together need one size"
        )
    [size] = sizes
    _check_lengths(group, size)
    dim = next((use.dim for use in group if use.dim is not None), None)
    known = subsampled_dims(model).get(dim) if model is not None and dim is not None else None
    if known is not None:
        op = known.owner.op
        if (op.batch_size, op.sampling) == (size, sampling):
            return _reuse_index(known, group)
    index = minibatch_index(row_count([use.length for use in group]), size, sampling, dim)
    if model is not None:
        note_index(model, index)
    return index


def _reuse_index(index: Variable, group: Sequence[_Axis]) -> Variable:
    """Use the index of another call: the same draw, from a number of rows that is checked again."""
    state, _, total = index.owner.inputs
    n_rows = current_length(total)
    for use in group:
        length = current_length(use.length)
        if None not in (n_rows, length) and length != n_rows:
            raise ValueError(
                f"pm.Minibatch: {use} has {length} rows, but the dim {use.dim!r}, which the model "
                f"subsamples already, has {n_rows}"
            )
    if isinstance(total, Constant) and all(isinstance(use.length, int) for use in group):
        return index
    rows = row_count([total, *(use.length for use in group)])
    clone = index.owner.op.make_node(state, None, rows).outputs[1]
    clone.name = index.name
    return clone


def _check_lengths(group: Sequence[_Axis], size: int) -> None:
    lengths = {str(use): current_length(use.length) for use in group}
    known = {length for length in lengths.values() if length is not None}
    if len(known) > 1:
        rows = ", ".join(f"{use} has {n}" for use, n in lengths.items())
        raise ValueError(
            f"pm.Minibatch takes the same rows of all data, but their numbers of rows differ: {rows}"
        )
    if known and size > min(known):
        raise ValueError(
            f"batch_size of pm.Minibatch is {size}, but the data ({' and '.join(lengths)}) have "
            f"{min(known)} rows: a batch cannot be larger than the data"
        )
