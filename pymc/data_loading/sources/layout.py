# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Layouts of batches, and the interface of sources, which give rows in blocks."""

from __future__ import annotations

import math

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "BadValue",
    "Block",
    "BlockSource",
    "ExhaustedSourceError",
    "Field",
    "Layout",
    "equal_parts",
    "listed",
]

JSON = dict[str, Any]
Arrays = tuple[np.ndarray, ...]


class ExhaustedSourceError(ValueError):
    """A source that can be read only once was read again, or a later pass had no rows."""


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return names for a message or a `repr`, no more than a line of them.

    Examples
    --------
    >>> from pymc.data_loading.sources.layout import listed
    >>> listed(["a", "b", "c"], most=2)
    "'a', 'b', and 1 more"
    """
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*map(repr, names[:most]), *more])


def equal_parts(n_rows: int, length: int) -> tuple[int, ...]:
    """Return the rows of each part, if all but the last have the same `length`."""
    full, rest = divmod(n_rows, length)
    return (length,) * full + (rest,) * (rest > 0)


class BadValue(NamedTuple):
    """A value that is missing or not finite.

    Attributes
    ----------
    row : int
        The row of the block.
    field, column : str
    first_row : int
        The number that messages give to the first row of the block.
    is_null : bool
        Whether the value is missing in a column whose dtype has no NaN.
    """

    row: int
    field: str
    column: str
    first_row: int = 0
    is_null: bool = False

    def __str__(self) -> str:
        place = [f"row {self.first_row + self.row}"]
        place += [f"field {self.field!r}"] if self.field else []
        place += [f"column {self.column}"] if self.column else []
        place[-1] += " (null)" * self.is_null
        return ", ".join(place)


@dataclass(frozen=True)
class Field:
    """One array of a batch.

    Parameters
    ----------
    name : str
        The key of a dict, or ``""`` if the batch is a single array.
    shape : tuple of int
        The shape of a row: the array of a batch has shape ``(n_rows, *shape)``.
    dtype : dtype
        Bool, integers or floats, in the byte order of the machine.
    columns : tuple of str, optional
        The names of the columns along the last axis of a row, where they are known.
    nullable : bool
        Whether values of any dtype may be missing, see :meth:`Block.bad_rows`.

    Examples
    --------
    >>> from pymc.data_loading.sources.layout import Field
    >>> Field("X", (2,), np.dtype("float32"), columns=("dep_delay", "distance")).label((1,))
    "'distance'"
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    columns: tuple[str, ...] | None = None
    nullable: bool = field(default=False, repr=False, compare=False)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * math.prod(self.shape)

    def label(self, place: tuple[int, ...]) -> str:
        """Return the name of the column at a place of a row, or the place if columns have no names."""
        if self.columns is not None:
            return repr(self.columns[place[-1] if place else 0])
        return ", ".join(map(str, place))


@dataclass(frozen=True)
class Layout:
    """Names, shapes and dtypes of the arrays of a batch.

    Parameters
    ----------
    fields : tuple of Field
        One with the name ``""``, or those of a dict, in order.

    Raises
    ------
    ValueError
        If one of several fields has the name ``""``.

    Examples
    --------
    >>> from pymc.data_loading.sources.layout import Field, Layout
    >>> layout = Layout((Field("X", (2,), np.dtype("f4")), Field("y", (), np.dtype("i8"))))
    >>> layout.named, layout.row_bytes
    (True, 16)
    >>> batch = layout.batch(layout.empty(5))
    >>> batch["X"].shape, batch["y"].shape
    ((5, 2), (5,))
    """

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        if len(names) > 1 and "" in names:
            raise ValueError(
                f"the arrays of a batch are called {names}, and the name '' stands for a single array: "
                f"give each of several arrays a name"
            )

    @property
    def named(self) -> bool:
        """Whether a batch is a dict of arrays."""
        return self.fields[0].name != ""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, in all fields."""
        return sum(field.row_bytes for field in self.fields)

    def empty(self, *lengths: int) -> Arrays:
        """Return uninitialised arrays, one per field, of shape ``(*lengths, *field.shape)``."""
        return tuple(np.empty((*lengths, *f.shape), f.dtype) for f in self.fields)

    def batch(self, arrays: Arrays) -> np.ndarray | dict[str, np.ndarray]:
        """Return arrays, one per field, as users see them: an array, or a dict of arrays."""
        if not self.named:
            return arrays[0]
        return {field.name: array for field, array in zip(self.fields, arrays, strict=True)}

    @cached_property
    def schema(self) -> list[JSON]:
        """The layout in JSON, for checkpoints."""
        return [
            {
                "name": f.name,
                "shape": list(f.shape),
                "dtype": f.dtype.name,
                "columns": None if f.columns is None else list(f.columns),
            }
            for f in self.fields
        ]


class Block(ABC):
    """Rows of a source that are in memory together. They never change.

    Attributes
    ----------
    n_rows : int
    where : str
        The name of the block in messages, such as ``"part-3.parquet, row group 2"``.
    """

    n_rows: int
    where: str

    @abstractmethod
    def write(self, out: Arrays, places: np.ndarray | int, start: int, stop: int) -> bool:
        """Write rows into the arrays of a batch. Each value is copied once.

        Parameters
        ----------
        out : tuple of ndarray
            One per field of the layout, of its dtype and of shape ``(n, *field.shape)``, C-contiguous.
        places : int or array of int64, shape (stop - start,)
            The row of `out` for the first row, if they go one after another; or that of each row.
        start, stop : int
            The rows of the block to write: ``start <= row < stop``.

        Returns
        -------
        bool
            Whether no value is missing and all floats are finite. :meth:`bad_rows` lists those that are
            not.

        Raises
        ------
        ValueError
            If a number does not fit the dtype of its field, such as an integer beyond 2**53 in a float.
        """

    @abstractmethod
    def bad_rows(self, start: int, stop: int) -> list[BadValue]:
        """Return the values of rows ``start`` to ``stop`` that are missing or not finite, row by row."""


class BlockSource(ABC):
    """Rows in blocks that can be read again: the interface that a loader reads.

    Derive from :class:`pymc.Source` to read data of your own: it makes blocks of the arrays that you load.
    Derive from this class if your blocks write their rows into batches themselves.

    Attributes
    ----------
    one_shot : bool
        Whether the rows can be read only once, as those of an iterator.
    """

    one_shot: bool = False

    def __repr__(self) -> str:
        """Describe the source without reading it."""
        return f"{type(self).__name__}({', '.join(self._repr_parts())})"

    def _repr_parts(self) -> list[str]:
        return ["rows not counted" if self.n_rows is None else f"{self.n_rows:,} rows"]

    @property
    @abstractmethod
    def n_rows(self) -> int | None:
        """The number of rows, or None if it is not known without reading them."""

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """The layout of a batch. The first block may have to be read for it."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Facts in JSON by which a checkpoint recognises the data. They include no folder's name."""

    @property
    def part_lengths(self) -> tuple[int, ...] | None:
        """Rows of each part that :meth:`read` reads alone; None if blocks only come in order."""
        return None

    def read(self, part: int) -> Block:
        """Return the rows of a part, ``0 <= part < len(part_lengths)``."""
        raise NotImplementedError(f"{type(self).__name__} gives its blocks in order only.")

    def __iter__(self) -> Iterator[np.ndarray | dict[str, np.ndarray]]:
        """Yield the blocks of a fresh pass as arrays, or dicts of arrays. A missing float is NaN.

        Raises
        ------
        ValueError
            If a value is missing in a column of integers or bools, which have no NaN.
        """
        for block in self.blocks():
            arrays = self.layout.empty(block.n_rows)
            if not block.write(arrays, 0, 0, block.n_rows):
                _check_no_nulls(block)
            yield self.layout.batch(arrays)

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of a fresh pass, in order.

        Raises
        ------
        ExhaustedSourceError
            If the rows can be read only once, and were.
        """
        for part, length in enumerate(self.part_lengths or ()):
            if length:
                yield self.read(part)


def _check_no_nulls(block: Block) -> None:
    nulls = [bad for bad in block.bad_rows(0, block.n_rows) if bad.is_null]
    if nulls:
        others = f" (and {len(nulls) - 1} more in these rows)" if len(nulls) > 1 else ""
        raise ValueError(
            f"{block.where}, {nulls[0]}: a value is missing{others}, and columns of integers or bools have "
            "no NaN. Fill such values, store the column as floats, or give the source itself to "
            "pm.DataLoader(source, batch_size=128, on_nan='skip'), which leaves such rows out"
        )
