# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Columns of Apache Arrow as NumPy arrays, without a copy where Arrow's memory allows it."""

from __future__ import annotations

import math

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from pymc.data_loading.sources.columns import ColumnBlock, JoinedBlock
from pymc.data_loading.sources.layout import Block
from pymc.data_loading.sources.protocols import ArrowTable
from pymc.data_loading.sources.schema import Schema, SchemaError, Selection

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["need_pyarrow", "reading", "schema_of", "table_block"]

#: What pyarrow says of a value that is not of its column's type, wherever CSV is read
CSV_CONVERSION = "CSV conversion error"


def need_pyarrow(function: str) -> Any:
    """Return pyarrow, which is optional.

    Raises
    ------
    ImportError
        With what to install.
    """
    try:
        # Optional, and it takes a tenth of a second to load
        import pyarrow
    except ImportError as error:
        raise ImportError(f"{function} reads by pyarrow: pip install pyarrow") from error
    return pyarrow


@contextmanager
def reading(where: str, *errors: type[Exception]) -> Iterator[None]:
    """Name what was read in an error of reading it.

    Parameters
    ----------
    where : str
    *errors : type
        Which errors are of reading; by default all, as damaged files show in many ways.

    Raises
    ------
    OSError
        For any of these.
    SchemaError
        For a value of a CSV file that is not of the type which its first rows let expect.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except errors or Exception as error:
        if CSV_CONVERSION in str(error):
            raise SchemaError(
                f"{where}: {error}. The types of a CSV file are inferred from its first rows, and this value is "
                f"of another: say them, pyarrow.csv.open_csv(path, convert_options=pyarrow.csv.ConvertOptions("
                f'column_types={{"x": pyarrow.float64()}})); and by null_values=[...] what stands for no value'
            ) from error
        raise OSError(
            f"{where} cannot be read; it may be damaged, cut short or not be of this format: "
            f"{type(error).__name__}: {error}"
        ) from error


def schema_of(schema: pa.Schema, beside: Iterable[str] = ()) -> Schema:
    """Return the names and NumPy's dtypes of an Arrow schema, and which columns are beside the others."""
    kinds = [_kind(field.type) for field in schema]
    return Schema(
        names=tuple(field.name for field in schema),
        dtypes=tuple(dtype for dtype, _ in kinds),
        types=tuple(str(field.type) for field in schema),
        shapes=tuple(shape for _, shape in kinds),
        beside=frozenset(beside),
        nullable=True,
    )


def _kind(type_: pa.DataType) -> tuple[np.dtype | None, tuple[int, ...]]:
    """Return the dtype and shape of a value; no dtype for what is no number, or a list of any length."""
    pyarrow = need_pyarrow("arrow_source")
    types = pyarrow.types
    if types.is_integer(type_) or types.is_floating(type_) or types.is_boolean(type_):
        return np.dtype(type_.to_pandas_dtype()), ()
    if types.is_null(type_):  # all are missing; bools become any other dtype
        return np.dtype(bool), ()
    if isinstance(type_, pyarrow.FixedShapeTensorType):
        dtype, _ = _kind(type_.value_type)
        in_order = type_.permutation in (None, sorted(type_.permutation or ()))
        return (dtype if in_order else None), tuple(type_.shape)
    if types.is_fixed_size_list(type_):
        dtype, shape = _kind(type_.value_type)
        return dtype, (type_.list_size, *shape)
    return None, ()


def table_block(table: pa.Table | pa.RecordBatch, selection: Selection, where: str) -> Block:
    """Return rows of Arrow as a block of a selection. Nulls are missing values of it.

    Parameters
    ----------
    table : pyarrow.Table or pyarrow.RecordBatch
        Its columns are found by name.
    selection : Selection
    where : str

    Raises
    ------
    ValueError
        If a value cannot be converted to the dtype that was asked for.
    """
    batches = table.to_batches() if isinstance(table, ArrowTable) else [table]
    pieces, at = [], 0
    for batch in batches:
        numbers = {
            name: _numbers(
                batch.column(name), selection.casts.get(name), f"{where}, column {name!r}"
            )
            for name in selection.names
        }
        columns = selection.arrays({name: values for name, (values, _) in numbers.items()})
        missing = tuple(
            (field.name, name, mask)
            for field, names in zip(selection.layout.fields, selection.sources, strict=True)
            for name in names
            if (mask := numbers[name][1]) is not None
        )
        pieces.append(ColumnBlock(selection.layout, columns, where, at, missing))
        at += batch.num_rows
    return pieces[0] if len(pieces) == 1 else JoinedBlock(tuple(pieces), where)


def _numbers(
    array: pa.Array, cast: np.dtype | None, where: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a column as an array of shape ``(n_rows, ...)``, not copied if its memory allows it.

    Beside it, which values are missing. Those of floats are NaN.
    """
    pyarrow = need_pyarrow("arrow_source")
    dtype, shape = _kind(array.type)
    nulls = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    if shape:
        while isinstance(array, pyarrow.FixedSizeListArray | pyarrow.ExtensionArray):
            if isinstance(array, pyarrow.ExtensionArray):
                array = array.storage
            else:  # flatten() would leave lists out that are null
                size = array.type.list_size
                array = array.values.slice(array.offset * size, len(array) * size)
        values, mask = _numbers(array, cast, where)
        n_rows = len(values) // math.prod(shape)
        if mask is not None:
            mask = mask.reshape(n_rows, -1).any(axis=1)
            nulls = mask if nulls is None else mask | nulls
        return values.reshape(n_rows, *shape), nulls
    if pyarrow.types.is_null(array.type):
        return np.zeros(len(array), bool), np.ones(len(array), bool)
    if cast is not None and (dtype is None or (dtype.kind == "f" and cast.kind == "f")):
        array, dtype = _cast(array, cast, where), cast
    if nulls is None or dtype is None or dtype.kind == "f":
        # Bits, which bools are, have to be copied
        return array.to_numpy(zero_copy_only=False), None
    return array.fill_null(dtype.type(0).item()).to_numpy(zero_copy_only=False), nulls


def _cast(array: pa.Array, dtype: np.dtype, where: str) -> pa.Array:
    """Return a column of another type: days of dates, the units of times, decimals as numbers."""
    pyarrow = need_pyarrow("arrow_source")
    type_, target = array.type, pyarrow.from_numpy_dtype(dtype)
    try:
        if pyarrow.types.is_temporal(type_):
            array = array.cast(pyarrow.int32() if type_.bit_width == 32 else pyarrow.int64())
        return array.cast(target)
    except pyarrow.ArrowException as error:
        raise ValueError(
            f"{where}: values of type {type_} cannot be converted to {dtype}, as dtypes= says: {error}"
        ) from error
