# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What an iterable of blocks yields: arrays, dicts of arrays, data frames, record batches, or single rows.

The first item says what all are like. The others have to agree with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pymc.data_loading.sources.arrays import ArrayBlock
from pymc.data_loading.sources.arrow import is_arrow
from pymc.data_loading.sources.arrow_columns import need_pyarrow, schema_of, table_block
from pymc.data_loading.sources.frames import (
    first_schema,
    frame_block,
    frame_schema,
    is_frame,
)
from pymc.data_loading.sources.layout import Block, Layout
from pymc.data_loading.sources.protocols import RecordBatch, Shaped
from pymc.data_loading.sources.schema import Schema, Selection
from pymc.data_loading.sources.series import is_series
from pymc.data_loading.sources.values import (
    SampleShape,
    as_field,
    as_numbers,
    check_shapes,
    equal_lengths,
    field_of,
    named_shapes,
)

__all__ = ["ItemReader", "named_parts", "read_first"]


class ItemReader(Protocol):
    """Turns items like the first one into blocks."""

    @property
    def layout(self) -> Layout:
        """What a batch is like."""
        ...

    def block(self, item: Any, where: str) -> Block:
        """Return the rows of an item."""
        ...


def read_first(item: Any, sample_shape: SampleShape, where: str) -> ItemReader:
    """Return what reads items like this one.

    Raises
    ------
    TypeError
        If it is nothing of numbers.
    ValueError
        If it has no rows along its first axis, or no numbers in a row.
    """
    for kind in (_FRAMES, _ARROW):
        if kind.has(item):
            table = TableReader.of(kind, item, where)
            if sample_shape is not None:
                check_shapes(table.layout, sample_shape, where)
            return table
    arrays = {n: as_numbers(a, _part(where, n)) for n, a in named_parts(item).items()}
    shapes = named_shapes(sample_shape, arrays, where)
    if sample_shape is None and _is_sample(arrays):
        shapes = {name: array.shape for name, array in arrays.items()}
    rows = {n: _as_rows(array, shapes[n], _part(where, n)) for n, array in arrays.items()}
    equal_lengths(rows, where, _ONE_ROW if sample_shape is None else "")
    layout = Layout(tuple(field_of(name, array, where) for name, array in rows.items()))
    return ArrayReader(layout, shapes, where)


def named_parts(item: Any) -> Mapping[str, Any]:
    """Return the arrays of an item by name: those of a dict, and a tuple's by their places.

    A tuple of numbers is an array. So is a list, unless it has arrays that none could be made of, such as
    torch's batches of (x, y) have.

    Examples
    --------
    >>> from pymc.data_loading.sources.items import named_parts
    >>> list(named_parts((np.zeros((4, 2)), np.zeros(4))))
    ['0', '1']
    """
    if isinstance(item, Mapping):
        return item
    if isinstance(item, tuple | list) and _has_parts(item):
        return {str(i): part for i, part in enumerate(item)} if len(item) > 1 else {"": item[0]}
    return {"": item}


def _has_parts(item: Sequence[Any]) -> bool:
    """Return whether a tuple or list is one of arrays, and no array itself."""
    shapes = [_shape(part) for part in item]
    are_arrays = any(len(shape) for shape in shapes)
    if isinstance(item, list):
        return are_arrays and len(set(shapes)) > 1
    lists = [isinstance(part, list | tuple) for part in item]
    return are_arrays or (any(lists) and not all(lists))


def _shape(part: Any) -> tuple[Any, ...]:
    if is_series(part):
        return (len(part),)
    return tuple(part.shape) if isinstance(part, Shaped) else ()


def _is_sample(arrays: Mapping[str, np.ndarray]) -> bool:
    """Return whether arrays by name are one row: a number among them has no rows."""
    return "" not in arrays and any(array.ndim == 0 for array in arrays.values())


def _part(where: str, name: str) -> str:
    return f"{where}[{name!r}]" if name else where


_ONE_ROW = ". If each item is one row, say what a row is like: sample_shape={}"


def _as_rows(array: np.ndarray, shape: Sequence[int] | None, where: str) -> np.ndarray:
    """Return an item with its rows along the first axis: a single row gets that axis.

    Raises
    ------
    ValueError
        If it is a number and nothing says that a row is one, or fits to no `shape`.
    """
    if shape is None:
        if array.ndim == 0:
            raise ValueError(
                f"{where} is the number {array}: a block has its rows along the first axis. If each item "
                f"is one row, say what a row is like: sample_shape=() for numbers"
            )
        return array
    if array.shape == tuple(shape):
        return array[np.newaxis]
    if array.ndim > 0 and array.shape[1:] == tuple(shape):
        return array
    raise ValueError(
        f"{where} has shape {array.shape}: by sample_shape={tuple(shape)} a row has that shape, and a "
        f"block of rows (n, *{tuple(shape)})"
    )


@dataclass(frozen=True)
class ArrayReader:
    """Reads arrays, and dicts or tuples of them.

    Parameters
    ----------
    layout : Layout
    shapes : mapping of str to tuple of int or None
        By field: the shape that tells a row from a block.
    first : str
        What messages call the first item.
    """

    layout: Layout
    shapes: Mapping[str, tuple[int, ...] | None]
    first: str

    def block(self, item: Any, where: str) -> Block:
        """Return the rows of an item.

        Raises
        ------
        TypeError
            If it is nothing of numbers, or of another dtype than the first.
        ValueError
            If it has other names, or rows of another shape, than the first.
        """
        parts = named_parts(item)
        names = [field.name for field in self.layout.fields]
        if set(parts) != set(names):
            raise ValueError(
                f"{where} has {_names(parts)}, and {self.first} has {_names(names)}: all blocks of a "
                f"source need the same"
            )
        rows = {}
        for field in self.layout.fields:
            at = _part(where, field.name)
            array = _as_rows(as_numbers(parts[field.name], at), self.shapes.get(field.name), at)
            rows[field.name] = array
            if array.shape[1:] != field.shape and array.size:
                raise ValueError(
                    f"{at} has shape {array.shape}, so its rows have shape {array.shape[1:]}; those of "
                    f"{self.first} have shape {field.shape}"
                    + _hint(array, field.shape, self.shapes.get(field.name))
                )
            if not array.size:
                continue
            if (held := as_field(array, field.dtype, at)) is None:
                both = np.result_type(array.dtype, field.dtype).name
                raise TypeError(
                    f"{at} has dtype {array.dtype}, and {self.first} has {field.dtype}: convert all "
                    f"blocks to one that holds both, .astype({both!r})"
                )
            rows[field.name] = held
        equal_lengths(rows, where)
        return ArrayBlock(self.layout, tuple(rows.values()), where)


def _names(names: Any) -> str:
    return "one array" if list(names) == [""] else ", ".join(map(repr, names))


def _hint(array: np.ndarray, shape: tuple[int, ...], given: tuple[int, ...] | None) -> str:
    if given is None and array.shape == shape:
        return f". If each item is one row, say so: sample_shape={shape}"
    return ""


@dataclass(frozen=True)
class _Tables:
    """A kind of tables.

    Parameters
    ----------
    name : str
        What messages call them.
    has : callable
        Tells whether an item is one.
    open, schema : callable
        An item as a table, and what its columns are.
    first : callable
        The columns of the first item, as all are to be read.
    block : callable
        (table, selection, where) -> its rows.
    """

    name: str
    has: Callable[[Any], bool]
    open: Callable[[Any], Any]
    schema: Callable[[Any], Schema]
    first: Callable[[Any], Schema]
    block: Callable[[Any, Selection, str], Block]


@dataclass(frozen=True)
class TableReader:
    """Reads tables of one kind, data frames for one."""

    kind: _Tables
    selection: Selection

    @classmethod
    def of(cls, kind: _Tables, item: Any, where: str) -> TableReader:
        """Read tables like this one, all columns."""
        return cls(kind, Selection.of(kind.first(kind.open(item)), None, where))

    @property
    def layout(self) -> Layout:
        """One field of all columns."""
        return self.selection.layout

    def block(self, item: Any, where: str) -> Block:
        """Return the rows of a table.

        Raises
        ------
        SchemaError
            If its columns are others than those of the first.
        TypeError
            If it is no table of this kind.
        """
        if not self.kind.has(item):
            raise TypeError(
                f"{where} is a {type(item).__name__}, and those before were {self.kind.name}"
            )
        table = self.kind.open(item)
        self.selection.check(self.kind.schema(table), where)
        return self.kind.block(table, self.selection, where)


def _is_arrow_item(item: Any) -> bool:
    return is_arrow(item) or isinstance(item, RecordBatch)


def _table(item: Any) -> Any:
    return need_pyarrow("a block of Arrow's").table(item)


def _table_schema(table: Any) -> Schema:
    return schema_of(table.schema)


_FRAMES = _Tables(
    "data frames", is_frame, lambda frame: frame, frame_schema, first_schema, frame_block
)
_ARROW = _Tables("Arrow tables", _is_arrow_item, _table, _table_schema, _table_schema, table_block)
