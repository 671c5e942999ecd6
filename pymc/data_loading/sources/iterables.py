# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows of iterables of blocks, which come in order, and of datasets of samples."""

from __future__ import annotations

import weakref

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np

from pymc.data_loading.sources.arrays import (
    SampleShape,
    Shaped,
    as_field,
    as_numbers,
    equal_lengths,
    field_of,
    is_series,
    label_of,
    named_shapes,
)
from pymc.data_loading.sources.copying import ColumnBlock
from pymc.data_loading.sources.layout import (
    JSON,
    Block,
    BlockSource,
    ExhaustedSourceError,
    Field,
    Layout,
    equal_parts,
)

#: Samples that are gathered at once
PART_SAMPLES = 1024


class ItemReader(Protocol):
    """Turns the items of an iterable into blocks."""

    @property
    def layout(self) -> Layout: ...

    @property
    def identity(self) -> list[JSON]: ...

    def block(self, item: Any, where: str) -> Block: ...


@dataclass(eq=False, repr=False)
class IterableSource(BlockSource):
    """Rows of an iterable of blocks, which is opened anew for each pass."""

    open: Callable[[], Iterable[Any]]  #: returns the items of a pass
    read_first: Callable[[Any, str], ItemReader]  #: (item, where) -> the reader of items like it
    n_rows: int | None = None  # type: ignore[assignment]
    one_shot: bool = False  #: whether `open` is known to return the same iterator each time
    item: str = "block"  #: the name of an item in messages
    kind: str = "iterable"  #: of source, in `identity`
    _peeked: Iterator[Any] | None = None  # a pass of which the first item was looked at
    _last: Callable[[], Iterator[Any] | None] = lambda: None
    _had_rows: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Begin anew in another process."""
        args = self.open, self.read_first, self.n_rows, self.one_shot, self.item, self.kind
        return type(self), args

    def _repr_parts(self) -> list[str]:
        opened: object = self.open
        while isinstance(opened, partial) and opened.args:
            opened = opened.args[0]
        return [name_of(opened), *super()._repr_parts()]

    @cached_property
    def _reader(self) -> ItemReader:
        items = self._start()
        first = next(items)
        self._peeked = _resume([first], items)
        return self.read_first(first, f"{self.item} 0")

    @property
    def layout(self) -> Layout:
        return self._reader.layout

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind, "n_rows": self.n_rows, "schema": self._reader.identity}

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of a pass that have rows. Messages count them from 0."""
        reader = self._reader
        for number, item in enumerate(self._start()):
            block = reader.block(item, f"{self.item} {number}")
            if block.n_rows:
                yield block

    def _start(self) -> Iterator[Any]:
        """Return the items of a pass that have rows, at least one."""
        if self._peeked is not None:
            items, self._peeked = self._peeked, None
            return items
        items = iter(self.open())
        if items is self._last():
            raise ExhaustedSourceError(
                f"the source gave the iterator that it had given before, a {type(items).__name__}, which can "
                f"be read only once. Give a list of blocks, or a function that returns a new iterator"
            )
        self._last = _reference(items)
        filled = filter(_may_have_rows, items)
        for first in filled:
            self._had_rows = True
            return _resume([first], filled)
        if not self._had_rows:
            raise ValueError("the source has no rows: it has no blocks, or only empty ones")
        raise ExhaustedSourceError(
            "the source was read once, and is empty at the next pass. Give a function that opens the data "
            "anew at each call"
        )


def name_of(value: object) -> str:
    """Return the name of a function or class; of anything else, that of its class."""
    return getattr(value, "__name__", type(value).__name__)


def _reference(items: Iterator[Any]) -> Callable[[], Iterator[Any] | None]:
    """Return a weak reference, so that an iterator closes its file when its reader is done."""
    try:
        return weakref.ref(items)
    except TypeError:  # iterators of lists, arrays and the like, which open no files
        return lambda: items


def _resume(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    """Yield an item, without a reference to it, and the rest."""
    yield first.pop()
    yield from rest


def _may_have_rows(item: object) -> bool:
    """Return whether an item may have rows, as far as is known before it is read."""
    if isinstance(item, Shaped) and isinstance(item.shape, tuple):
        return item.shape[:1] != (0,)
    if isinstance(item, dict):
        return not item or any(map(_may_have_rows, item.values()))
    return not isinstance(item, list) or len(item) > 0


def named_parts(item: Any) -> Mapping[str, Any]:
    """Return the arrays of an item by name: those of a dict, and of a tuple by their places.

    A tuple of numbers is an array. So is a list, unless it has arrays of different shapes, as torch's
    batches of (x, y) have.

    Examples
    --------
    >>> from pymc.data_loading.sources.iterables import named_parts
    >>> list(named_parts((np.zeros((4, 2)), np.zeros(4))))
    ['0', '1']
    """
    if isinstance(item, Mapping):
        return item
    if isinstance(item, tuple | list) and _has_arrays(item):
        return {str(i): part for i, part in enumerate(item)} if len(item) > 1 else {"": item[0]}
    return {"": item}


def _has_arrays(item: Sequence[Any]) -> bool:
    """Return whether a tuple or list has several arrays, and is not itself one."""
    shapes = [
        (len(part),) if is_series(part) else tuple(part.shape) if isinstance(part, Shaped) else ()
        for part in item
    ]
    any_array = any(len(shape) for shape in shapes)
    if isinstance(item, list):
        return any_array and len(set(shapes)) > 1
    lists = [isinstance(part, list | tuple) for part in item]
    return any_array or (any(lists) and not all(lists))


@dataclass(frozen=True)
class ArrayReader:
    """Turns arrays, or dicts or tuples of them, into blocks like the first one."""

    layout: Layout
    shapes: Mapping[
        str, tuple[int, ...] | None
    ]  #: the shape that tells a row from a block, by field
    first: str  #: the name of the first item in messages

    @classmethod
    def of(cls, item: Any, sample_shape: SampleShape, where: str) -> ArrayReader:
        """Return the reader of items like this one."""
        arrays = {n: as_numbers(a, label_of(where, n)) for n, a in named_parts(item).items()}
        shapes = named_shapes(sample_shape, arrays, where)
        if sample_shape is None and "" not in arrays and any(a.ndim == 0 for a in arrays.values()):
            # A number beside arrays has no rows, so that the item is one row
            shapes = {name: array.shape for name, array in arrays.items()}
        rows = {n: _as_rows(array, shapes[n], label_of(where, n)) for n, array in arrays.items()}
        hint = ". If each item is one row, say what a row is like: sample_shape={}"
        equal_lengths(rows, where, hint if sample_shape is None else "")
        layout = Layout(tuple(field_of(name, array, where) for name, array in rows.items()))
        return cls(layout, shapes, where)

    @property
    def identity(self) -> list[JSON]:
        return self.layout.schema

    def block(self, item: Any, where: str) -> ColumnBlock:
        parts = named_parts(item)
        names = [field.name for field in self.layout.fields]
        if set(parts) != set(names):
            found, expected = (
                "one array" if n == [""] else ", ".join(map(repr, n)) for n in (list(parts), names)
            )
            raise ValueError(
                f"{where} has {found}, and {self.first} has {expected}: all blocks of a source need the same"
            )
        rows = {
            f.name: self._rows(parts[f.name], f, label_of(where, f.name))
            for f in self.layout.fields
        }
        equal_lengths(rows, where)
        return ColumnBlock(self.layout, tuple((array,) for array in rows.values()), where)

    def _rows(self, part: Any, field: Field, where: str) -> np.ndarray:
        shape = self.shapes.get(field.name)
        array = _as_rows(as_numbers(part, where), shape, where)
        if not array.size:
            return array
        if array.shape[1:] != field.shape:
            is_row = shape is None and array.shape == field.shape
            hint = f". If each item is one row, say so: sample_shape={field.shape}"
            raise ValueError(
                f"{where} has shape {array.shape}, so its rows have shape {array.shape[1:]}; those of "
                f"{self.first} have shape {field.shape}" + hint * is_row
            )
        if (converted := as_field(array, field.dtype, where)) is None:
            both = np.result_type(array.dtype, field.dtype).name
            raise TypeError(
                f"{where} has dtype {array.dtype}, and {self.first} has {field.dtype}: convert all blocks to "
                f"one that holds both, .astype({both!r})"
            )
        return converted


def _as_rows(array: np.ndarray, shape: Sequence[int] | None, where: str) -> np.ndarray:
    """Return an item with its rows along the first axis. An array of the `shape` is a single row."""
    if shape is None:
        if array.ndim == 0:
            raise ValueError(
                f"{where} is the number {array}: a block has its rows along the first axis. If each item is "
                f"one row, say what a row is like: sample_shape=() for numbers"
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


@dataclass(frozen=True, eq=False, repr=False)
class SampleSource(BlockSource):
    """Rows of a dataset in the manner of torch: ``dataset[i]`` is a row, or a tuple or dict of parts."""

    dataset: Any

    @property
    def n_rows(self) -> int:
        return len(self.dataset)

    def _repr_parts(self) -> list[str]:
        return [f"samples of {type(self.dataset).__name__}", *super()._repr_parts()]

    @cached_property
    def part_lengths(self) -> tuple[int, ...]:
        return equal_parts(self.n_rows, PART_SAMPLES)

    @cached_property
    def layout(self) -> Layout:
        if self.n_rows == 0:
            raise ValueError("the dataset has no rows: its length is 0")
        first = self._sample(0)
        return Layout(tuple(field_of(n, a[np.newaxis], "sample 0") for n, a in first.items()))

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "samples", "n_rows": self.n_rows, "schema": self.layout.schema}

    def read(self, part: int) -> Block:
        n_rows, start = self.part_lengths[part], part * PART_SAMPLES
        arrays = self.layout.empty(n_rows)
        for i in range(n_rows):
            for out, value in zip(arrays, self._like_first(start + i), strict=True):
                out[i] = value
        return ColumnBlock(self.layout, tuple((array,) for array in arrays), "the dataset", start)

    def _like_first(self, i: int) -> list[np.ndarray]:
        """Return a sample, if it is like the first one."""
        sample, fields = self._sample(i), self.layout.fields
        if {n: a.shape for n, a in sample.items()} == {f.name: f.shape for f in fields}:
            converted = [as_field(sample[f.name], f.dtype, f"sample {i}") for f in fields]
            values = [value for value in converted if value is not None]
            if len(values) == len(fields):
                return values
        found = {n: (array.shape, array.dtype.name) for n, array in sample.items()}
        expected = {f.name: (f.shape, f.dtype.name) for f in fields}
        raise ValueError(
            f"sample {i} is not like sample 0: {found} and {expected} (shape and dtype)"
        )

    def _sample(self, i: int) -> dict[str, np.ndarray]:
        sample = self.dataset[i]
        parts = named_parts(tuple(sample) if isinstance(sample, tuple | list) else sample)
        return {n: as_numbers(part, label_of(f"sample {i}", n)) for n, part in parts.items()}
