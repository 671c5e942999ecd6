# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What all sources of rows have in common: the layout of a batch, blocks of rows, and the source itself.

A `BlockSource` gives rows in blocks; :class:`pymc.Source` is the one to derive from. A `Block` writes its rows, once, into the arrays of a batch. What those
arrays are like is a `Layout`: one `Field`, or one for each name of a dict.
"""

from __future__ import annotations

import math

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

__all__ = ["BadValue", "Block", "BlockSource", "ExhaustedSourceError", "Field", "Layout", "shown"]

JSON = dict[str, Any]
Arrays = tuple[np.ndarray, ...]


class ExhaustedSourceError(ValueError):
    """A source that gives its rows once was asked for them again, or a later pass had none."""


def shown(names: Sequence[str], most: int = 4) -> str:
    """Return a few names for `repr`.

    Examples
    --------
    >>> from pymc.data_loading.sources.layout import shown
    >>> shown(["a", "b", "c"], most=2)
    "'a', 'b', and 1 more"
    """
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*map(repr, names[:most]), *more])


class BadValue(NamedTuple):
    """Where a value is not finite: the row of a block, the name of a field, and the column's name.

    Messages count rows from `first_row`, where the rows of a block have numbers in something larger. A
    value that is `is_null` has no number of the field's dtype, which NaN would be of floats.
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
        ``""`` for the one field of a batch that is an array; else the key of a dict.
    shape : tuple of int
        The shape of a row: the array of a batch has shape ``(n_rows, *shape)``.
    dtype : dtype
        In the machine's byte order; bool, integers or floats.
    columns : tuple of str, optional
        The names of the columns where they are known: along the last axis of a row, or of the one
        number that a row is.
    nullable : bool
        Whether values may be missing, whatever the dtype: rows that a block tells of by
        :meth:`Block.bad_rows`.

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
        """Return how messages call an entry of a row: by the column's name, else by its place."""
        if self.columns is not None:
            return repr(self.columns[place[-1] if place else 0])
        return ", ".join(map(str, place))


@dataclass(frozen=True)
class Layout:
    """What the batches of a source are like.

    Parameters
    ----------
    fields : tuple of Field
        One of the name ``""``, or those of a dict, in order.

    Examples
    --------
    >>> from pymc.data_loading.sources.layout import Field, Layout
    >>> layout = Layout((Field("X", (2,), np.dtype("f4")), Field("y", (), np.dtype("i8"))))
    >>> layout.named, layout.row_bytes
    (True, 16)
    >>> batch = layout.batch(layout.empty(5))
    >>> batch["X"].shape, batch["y"].shape
    ((5, 2), (5,))

    Raises
    ------
    ValueError
        If the name ``""`` is one of several: that array would be the whole batch.
    """

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        if len(names) > 1 and "" in names:
            raise ValueError(
                f"the arrays of a batch are called {names}, and the name '' is that of an only one: name "
                f"each of several"
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
        """Return arrays for rows, one a field, of shape ``(*lengths, *field.shape)``."""
        return tuple(np.empty((*lengths, *f.shape), f.dtype) for f in self.fields)

    def batch(self, arrays: Arrays) -> np.ndarray | dict[str, np.ndarray]:
        """Return arrays, one a field, as users see them: an array, or a dict of arrays."""
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
    """Rows as they come from a source; it never changes.

    Attributes
    ----------
    n_rows : int
    where : str
        What messages call it, such as ``"part-3.parquet, row group 2"``.
    """

    n_rows: int
    where: str

    @abstractmethod
    def write(self, out: Arrays, places: np.ndarray | int, start: int, stop: int) -> bool:
        """Write rows into the arrays of a batch; each value is copied once.

        Parameters
        ----------
        out : tuple of ndarray
            One a field of the layout, of its dtype and of shape ``(n, *field.shape)``, C-contiguous.
        places : int or array of int64, shape (stop - start,)
            Where in `out` the rows go: one after another from an int, or each to its own place.
        start, stop : int
            Which rows of the block: ``start <= row < stop``.

        Returns
        -------
        bool
            Whether no value is missing, and all floats that were written are finite. :meth:`bad_rows`
            says which are not.

        Raises
        ------
        ValueError
            If the dtype of the field does not hold a number, such as an integer too large for a float.
            The message names the block, the column and the row.
        """

    @abstractmethod
    def bad_rows(self, start: int, stop: int) -> list[BadValue]:
        """Return which values of rows ``start`` to ``stop`` are missing or not finite, in the order of rows."""


class BlockSource(ABC):
    """Rows in blocks, which can be read again: all that a loader knows of what it reads.

    Derive from :class:`pymc.Source` to read data of your own: it makes blocks of the arrays that you load.
    Derive from this class where blocks are to write their rows into batches themselves.

    Attributes
    ----------
    one_shot : bool
        Whether a second pass is known to be impossible: the source is an iterator.
    """

    one_shot: bool = False

    def __repr__(self) -> str:
        """Say what it reads, and read nothing for it."""
        return f"{type(self).__name__}({', '.join(self._told())})"

    def _told(self) -> list[str]:
        """What `repr` says: here, the number of rows."""
        return ["rows not counted" if self.n_rows is None else f"{self.n_rows:,} rows"]

    @property
    @abstractmethod
    def n_rows(self) -> int | None:
        """How many rows there are, known without reading them; None if it is not."""

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """What a batch is like. To know it, the first block may have to be read."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What tells this data set from another, in JSON: for checkpoints. It has no folder's name."""

    @property
    def part_lengths(self) -> tuple[int, ...] | None:
        """Rows of each part that :meth:`read` reads alone; None if blocks only come in order."""
        return None

    def read(self, part: int) -> Block:
        """Return the rows of a part, ``0 <= part < len(part_lengths)``."""
        raise NotImplementedError(f"{type(self).__name__} gives its blocks in order only.")

    def __iter__(self) -> Iterator[np.ndarray | dict[str, np.ndarray]]:
        """Yield the rows of a fresh pass, block by block, as a batch has them: what other loaders take.

        A float that is missing is NaN.

        Raises
        ------
        ValueError
            If a value is missing of a column that has no NaN, such as one of integers or bools.
        """
        for block in self.blocks():
            arrays = self.layout.empty(block.n_rows)
            if not block.write(arrays, 0, 0, block.n_rows):
                _check_present(block)
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


def _check_present(block: Block) -> None:
    """Raise if a value of a block is missing and has no number."""
    missing = [bad for bad in block.bad_rows(0, block.n_rows) if bad.is_null]
    if missing:
        others = f" (and {len(missing) - 1} more in these rows)" if len(missing) > 1 else ""
        raise ValueError(
            f"{block.where}, {missing[0]}: a value is missing{others}, and columns of integers or bools have "
            "no NaN. Fill such values, store the column as floats, or give the source itself to "
            "pm.DataLoader(source, batch_size=128, on_nan='skip'), which leaves such rows out"
        )
