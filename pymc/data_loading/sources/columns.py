# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Columns of a table: which of them go into which field of a batch, and of which dtype."""

from __future__ import annotations

import re

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from pymc.data_loading.sources.layout import JSON, Field, Layout, listed

__all__ = ["Column", "Columns", "DTypes", "Schema", "SchemaError", "Selection"]

Columns = str | Sequence[str] | Mapping[str, str | Sequence[str]] | None
"""The `columns` of users: a name, a list of names, names for each field, or None for all."""

DTypes = Mapping[str, Any] | None
"""The `dtypes` of users, by column."""

#: The name that pandas writes for an index without a name
INDEX = re.compile(r"__index_level_\d+__")


class SchemaError(ValueError):
    """A column is missing, is not numeric, or differs from that of the first file or block."""


class Column(NamedTuple):
    """A column of a table.

    Attributes
    ----------
    type : str
        The table's own name of the type, for messages.
    dtype : dtype or None
        None for a column that is not numeric.
    shape : tuple of int
        The shape of a value, such as ``(768,)`` for a list of fixed size.
    of_path : bool
        Whether the values come from the path of a file. Such columns are read only if they are named.
    """

    type: str
    dtype: np.dtype | None
    shape: tuple[int, ...] = ()
    of_path: bool = False


@dataclass(frozen=True)
class Schema:
    """The columns of a table by name.

    Parameters
    ----------
    columns : dict of str to Column
        In the order of the table.
    counts : dict of str to int
        How many columns have each name.
    nullable : bool
        Whether values of any dtype may be missing.
    """

    columns: Mapping[str, Column]
    counts: Mapping[str, int]
    nullable: bool = False

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
        """Return a column of numbers.

        Raises
        ------
        SchemaError
            If there is none of this name, or several, or if it is not numeric.
        """
        if name not in self.columns:
            raise SchemaError(
                f"there is no column {name!r} in {where}. The columns are {listed(list(self.columns))}"
            )
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
    """The columns of each field, and their dtypes.

    Parameters
    ----------
    layout : Layout
        The dtype of a field is the one that NumPy gives to all of its columns together.
    schema : Schema
        Of the first table.
    where : str
        The name of that table in messages.
    sources : tuple of tuple of str
        The columns of each field.
    casts : dict of str to dtype
        The columns that users convert.
    takes_all : bool
        Whether all columns are read, so that other tables must not have others.

    Examples
    --------
    >>> from pymc.data_loading.sources.columns import Column, Schema, Selection
    >>> schema = Schema.of(
    ...     [("a", Column("float", np.dtype("f4"))), ("b", Column("int16", np.dtype("i2")))]
    ... )
    >>> Selection.of(schema, {"X": ["b", "a"], "y": "a"}, "flights.parquet").layout.fields[0]
    Field(name='X', shape=(2,), dtype=dtype('float32'), columns=('b', 'a'))
    """

    layout: Layout
    schema: Schema
    where: str
    sources: tuple[tuple[str, ...], ...]
    casts: Mapping[str, np.dtype]
    takes_all: bool

    @classmethod
    def of(cls, schema: Schema, columns: Columns, where: str, dtypes: DTypes = None) -> Selection:
        """Select columns of a table.

        Raises
        ------
        SchemaError
            If a column is not in the table, or is not numeric.
        TypeError, ValueError
            For `columns` that name nothing, or a column twice in a field; for `dtypes` that are not
            numeric, or of columns that are not selected.
        """
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
            _field(name, names, isinstance(given, str), schema, where)
            for (name, given), names in zip(named.items(), sources, strict=True)
        )
        return cls(Layout(fields), schema, where, sources, casts, takes_all)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        return tuple(dict.fromkeys(name for names in self.sources for name in names))

    @property
    def identity(self) -> list[JSON]:
        """The layout in JSON, with the columns of each field whatever their shape."""
        return [
            {**field, "columns": field["columns"] or list(names)}
            for field, names in zip(self.layout.schema, self.sources, strict=True)
        ]

    def check(self, schema: Schema, where: str) -> None:
        """Check that another table has the columns that are read, in any order.

        Whether numbers of another dtype fit is checked when they are written.

        Raises
        ------
        SchemaError
            If a column is missing, is not numeric or has values of another shape; or if all columns are
            read, and the table has others.
        """
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
    casts = {name: np.dtype(dtype).newbyteorder("=") for name, dtype in dtypes.items()}
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
            f"columns={names!r} is a set, which has no order, and the columns of a batch need the same "
            f"order in each process: give a list, {sorted(map(str, names))}"
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
    dtype = np.result_type(*(column.dtype for column in columns.values()))
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
