# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Layouts of batches, the interface of sources, and which columns of a table go into a batch."""

from __future__ import annotations

import math
import re

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Block", "BlockSource", "ExhaustedSourceError", "Field", "Layout", "SchemaError"]

JSON = dict[str, Any]
Arrays = tuple[np.ndarray, ...]
Columns = str | Sequence[str] | Mapping[str, str | Sequence[str]] | None
"""The `columns` of users: a name, a list of names, names for each field, or None for all."""

DTypes = Mapping[str, Any] | None
"""The `dtypes` of users, by column."""

#: The name that pandas writes for an index without a name
INDEX = re.compile(r"__index_level_\d+__")


class ExhaustedSourceError(ValueError):
    """A source that can be read only once was read again, or a later pass had no rows."""


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return names for a message or a `repr`, such as ``'a', 'b', and 1 more``."""
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*map(repr, names[:most]), *more])


def equal_parts(n_rows: int, length: int) -> tuple[int, ...]:
    """Return the rows of each part, if all but the last have the same `length`."""
    full, rest = divmod(n_rows, length)
    return (length,) * full + (rest,) * (rest > 0)


class BadValue(NamedTuple):
    """A value of a block that is missing or not finite."""

    row: int
    field: str
    column: str
    first_row: int = 0  #: the number that messages give to the first row of the block
    is_null: bool = False  #: whether it is missing, and the dtype of its column has no NaN

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
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    columns: tuple[str, ...] | None = None
    nullable: bool = field(default=False, repr=False, compare=False)

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)

    def label(self, place: tuple[int, ...]) -> str:
        """Return the column's name at a place of a row, or the place if columns have no names."""
        if self.columns is not None:
            return repr(self.columns[place[-1] if place else 0])
        return ", ".join(map(str, place))


@dataclass(frozen=True)
class Layout:
    """Names, shapes and dtypes of the arrays of a batch: one field ``""``, or those of a dict.

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
                f"the arrays of a batch are called {names}: '' names a single array, so give each a name"
            )

    @property
    def named(self) -> bool:
        """True if a batch is a dict of arrays."""
        return self.fields[0].name != ""

    @property
    def row_bytes(self) -> int:
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
            One per field, of its dtype and of shape ``(n, *field.shape)``, C-contiguous.
        places : int or array of int64, shape (stop - start,)
            The row of `out` for the first row, with the others behind it; or for each row.
        start, stop : int
            The rows of the block to write: ``start <= row < stop``.

        Returns
        -------
        bool
            Whether no value is missing and all floats are finite.

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

    def of_fields(self, names: Collection[str]) -> BlockSource:
        """Return a source of the same rows with some of the fields, or with more if that costs no reading."""
        return self

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


class SchemaError(ValueError):
    """A column is missing, is not numeric, or differs from that of the first file or block."""


class Column(NamedTuple):
    """A column of a table."""

    type: str  #: as the table calls it, for messages
    dtype: np.dtype | None  #: None if it is not numeric
    shape: tuple[int, ...] = ()  #: of a value, such as ``(768,)`` for a list of fixed size
    of_path: bool = False  #: whether the path of a file has the value; read only if it is named


@dataclass(frozen=True)
class Schema:
    """The columns of a table by name."""

    columns: Mapping[str, Column]
    counts: Mapping[str, int]  #: how many columns have each name
    nullable: bool = False  #: whether values of any dtype may be missing

    @classmethod
    def of(cls, columns: Iterable[tuple[str, Column]], *, nullable: bool = False) -> Schema:
        """Return the schema of columns, several of which may share a name."""
        pairs = list(columns)
        return cls(dict(pairs), Counter(name for name, _ in pairs), nullable)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The columns that are read by default: not those of paths, nor an index of pandas."""
        return tuple(n for n, c in self.columns.items() if not c.of_path and not INDEX.fullmatch(n))

    def find(self, name: str, where: str) -> Column:
        """Return a column; raise SchemaError unless there is one of this name, and it is numeric."""
        if name not in self.columns:
            have = listed(list(self.columns))
            raise SchemaError(f"there is no column {name!r} in {where}. The columns are {have}")
        if self.counts[name] > 1:
            raise SchemaError(
                f"{where} has {self.counts[name]} columns called {name!r}: rename all but one"
            )
        column = self.columns[name]
        if column.dtype is None:
            raise SchemaError(
                f"column {name!r} of {where} is of type {column.type}, and a model computes with numbers: "
                + _advice(name, column)
            )
        return column

    def cast(self, dtypes: Mapping[str, np.dtype]) -> Schema:
        """Return the same columns, some of them with other dtypes."""
        columns = self.columns.items()
        cast = {name: c._replace(dtype=dtypes.get(name, c.dtype)) for name, c in columns}
        return replace(self, columns=cast) if dtypes else self

    def joined(self, other: Schema) -> Schema:
        """Return the same columns, with dtypes that also hold the numbers of another schema."""
        wider = {
            name: np.result_type(column.dtype, dtype)
            for name, column in self.columns.items()
            if column.dtype is not None
            and name in other.columns
            and (dtype := other.columns[name].dtype) is not None
        }
        return self if other == self else self.cast(wider)


def _advice(name: str, column: Column) -> str:
    """Return what to do with a column that is not numeric."""
    if column.of_path and column.type == "string":
        return (
            f"folders such as {name}=1/ give numbers if all of them have integers. Convert other numbers, "
            f"such as 1.5, by dtypes={{{name!r}: 'float64'}}; leave text out by columns=[...]"
        )
    advice = "leave it out by columns=[...], or store it as integers or floats"
    if column.type.startswith(("list", "large_list")):
        advice += ". Lists need a fixed size: pa.list_(type, size) is several columns"
    elif column.type.startswith(("date", "time", "duration", "decimal", "string", "large_string")):
        is_text = column.type.startswith(("decimal", "string", "large"))
        dtype = "float64" if is_text else "int64"
        advice += f". parquet_source and arrow_source convert it by dtypes={{{name!r}: {dtype!r}}}"
    return advice


@dataclass(frozen=True)
class Selection:
    """The columns of each field of a batch, and their dtypes."""

    layout: Layout
    schema: Schema  #: of the first table
    where: str  #: the name of that table in messages
    sources: tuple[tuple[str, ...], ...]  #: the columns of each field
    casts: Mapping[str, np.dtype]  #: the columns that users convert
    takes_all: bool  #: whether all columns are read, so that other tables must not have more

    @classmethod
    def of(cls, schema: Schema, columns: Columns, where: str, dtypes: DTypes = None) -> Selection:
        """Check `columns` and `dtypes`, and return the columns that they select from a table."""
        takes_all = columns is None
        if columns is None:
            columns = schema.features
        named = columns if isinstance(columns, Mapping) else {"": columns}
        if not named or (isinstance(columns, Mapping) and not all(named)):
            raise ValueError(f"columns={columns!r} has to name at least one field, each by a name")
        sources = tuple(_check_names(names, schema) for names in named.values())
        casts = _check_dtypes(dtypes, {name for names in sources for name in names})
        schema = schema.cast(casts)
        fields = tuple(
            _field(name, names, isinstance(part, str), schema, where)
            for (name, part), names in zip(named.items(), sources, strict=True)
        )
        return cls(Layout(fields), schema, where, sources, casts, takes_all)

    def of_fields(self, names: Collection[str]) -> Selection:
        """Return the selection of some of the fields."""
        kept = [
            (field, columns)
            for field, columns in zip(self.layout.fields, self.sources)
            if field.name in names
        ]
        fields, sources = zip(*kept)
        return replace(self, layout=Layout(fields), sources=sources)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        return tuple(dict.fromkeys(name for names in self.sources for name in names))

    @property
    def identity(self) -> list[JSON]:
        """The layout in JSON, with the columns of each field."""
        return [
            {**field, "columns": field["columns"] or list(names)}
            for field, names in zip(self.layout.schema, self.sources, strict=True)
        ]

    def check(self, schema: Schema, where: str) -> None:
        """Raise SchemaError unless another table has the same columns, in any order and of any dtype."""
        schema = schema.cast(self.casts)
        if schema == self.schema:
            return
        if self.takes_all:
            self._check_all(schema, where)
        for name in self.names:
            expected, found = self.schema.columns[name].shape, schema.find(name, where).shape
            if expected != found:
                raise SchemaError(
                    f"column {name!r} of {where} has values of shape {found}, and of shape {expected} in "
                    f"{self.where}: all parts of a data set need the same"
                )

    def _check_all(self, schema: Schema, where: str) -> None:
        first, other = set(self.schema.features), set(schema.features)
        if missing := [n for n in self.schema.features if n not in other]:
            found = f"{where} lacks {listed(missing)}, which {self.where} has"
        elif extra := [n for n in schema.features if n not in first]:
            found = f"{where} has {listed(extra)}, which {self.where} does not have"
        else:
            return
        raise SchemaError(
            f"{found}: if parts of a data set differ, name the columns, columns=[...]"
        )


def _check_dtypes(dtypes: DTypes, names: set[str]) -> dict[str, np.dtype]:
    if dtypes is None:
        return {}
    if not isinstance(dtypes, Mapping):
        raise TypeError(
            f'dtypes={dtypes!r} has to be a dict from columns to dtypes, such as {{"day": "int64"}}'
        )
    if unread := [name for name in dtypes if name not in names]:
        raise ValueError(
            f"dtypes={dict(dtypes)!r} names {listed(unread)}, and the columns to read are "
            f"{listed(sorted(names))}"
        )
    casts = {name: np.dtype(dtype) for name, dtype in dtypes.items()}
    for name, dtype in casts.items():
        if dtype.kind not in "biuf":
            raise ValueError(
                f"dtypes={dict(dtypes)!r} asks for {dtype} of {name!r}, and a model computes with "
                f"numbers: integers, floats or bool"
            )
    return casts


def _check_names(names: str | Sequence[str], schema: Schema) -> tuple[str, ...]:
    if isinstance(names, set | frozenset):
        raise TypeError(
            f"columns={names!r} is a set, which has no order: give a list, {sorted(map(str, names))}"
        )
    listing = (names,) if isinstance(names, str) else tuple(names)
    if not listing or not all(isinstance(n, str) for n in listing):
        raise TypeError(
            f"columns={names!r} has to be a name, or a list of at least one name, such as "
            f"{list(schema.columns)[:2]}"
        )
    if len(set(listing)) < len(listing):
        raise ValueError(f"columns={list(listing)} names a column twice")
    return listing


def _field(name: str, names: tuple[str, ...], alone: bool, schema: Schema, where: str) -> Field:
    """Return the field of columns, which lie side by side along its last axis."""
    columns = {n: schema.find(n, where) for n in names}
    dtype = np.result_type(*(column.dtype for column in columns.values())).newbyteorder("=")
    labels = []
    for n, column in columns.items():
        if len(column.shape) > 1 and not alone:
            raise SchemaError(
                f"column {n!r} of {where} has values of shape {column.shape}, which do not fit into a row "
                f'of several columns: give it a field, columns={{"x": {n!r}, ...}}'
            )
        labels += [f"{n}[{j}]" for j in range(column.shape[0])] if column.shape else [n]
    shape = columns[names[0]].shape if alone else (len(labels),)
    return Field(name, shape, dtype, tuple(labels) if len(shape) < 2 else None, schema.nullable)
