# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Which columns of a table go into which field, of which dtype, and whether all shards have them."""

from __future__ import annotations

import math
import re

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pymc.data_loading.sources.layout import Arrays, Field, Layout

__all__ = ["Columns", "DTypes", "Schema", "SchemaError", "Selection", "listed"]

Columns = str | Sequence[str] | Mapping[str, str | Sequence[str]] | None
"""What users say of columns: a name, a list of names, names for each field, or None for all."""

DTypes = Mapping[str, Any] | None
"""What users say of the dtypes of columns: by name."""

#: What pandas calls an index without a name
INDEX = re.compile(r"__index_level_\d+__")


class SchemaError(ValueError):
    """Columns that are not there, are not numbers, or differ from those of the first shard."""


@dataclass(frozen=True)
class Schema:
    """The columns of a table.

    Parameters
    ----------
    names : tuple of str
        In the order of the table.
    dtypes : tuple of (dtype or None)
        None for what is not a number.
    types : tuple of str
        What the table itself calls the types of columns, for messages.
    shapes : tuple of tuple of int
        The shape of a value of each column, such as ``(768,)`` for a list of fixed size. By default
        values are numbers.
    beside : frozenset of str
        Columns that count only where they are asked for, such as those of a file's path.
    nullable : bool
        Whether values of any dtype may be missing.
    """

    names: tuple[str, ...]
    dtypes: tuple[np.dtype | None, ...]
    types: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...] = ()
    beside: frozenset[str] = frozenset()
    nullable: bool = False

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """Where each name is: there may be thousands, and each is asked for."""
        places: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            places.setdefault(name, []).append(i)
        return places

    @cached_property
    def features(self) -> tuple[str, ...]:
        """All columns, but for those beside, and an index that pandas has written."""
        return tuple(n for n in self.names if n not in self.beside and not INDEX.fullmatch(n))

    def _place(self, name: str, where: str) -> int:
        places = self._places.get(name, [])
        if not places:
            raise SchemaError(
                f"column {name!r} was asked for, and there is none of this name in {where}, but {listed(self.names)}"
            )
        if len(places) > 1:
            raise SchemaError(
                f"column {name!r} was asked for, and there are {len(places)} of this name in {where}: "
                f"rename all but one"
            )
        return places[0]

    def dtype(self, name: str, where: str) -> np.dtype:
        """Return the dtype of a column.

        Raises
        ------
        SchemaError
            If it is not there, or twice, or holds no numbers.
        """
        place = self._place(name, where)
        dtype = self.dtypes[place]
        if dtype is None and name in self.beside and self.types[place] == "string":
            raise SchemaError(
                f"column {name!r} of {where} is of type string, and a model computes with numbers: it is a "
                f"partition, and folders such as {name}=1/ give numbers where all of them have integers. Other "
                f"numbers, such as 1.5, are converted where you say so: dtypes={{{name!r}: 'float64'}}; text is "
                "left out by columns=[...]"
            )
        if dtype is None:
            raise SchemaError(
                f"column {name!r} of {where} is of type {self.types[place]}, and a model computes with numbers: "
                f"leave it out by columns=[...], or store it as integers or floats"
                + _cast_hint(name, self.types[place])
            )
        return dtype

    def shape(self, name: str, where: str) -> tuple[int, ...]:
        """Return the shape of a value of a column: ``()`` for a number."""
        place = self._place(name, where)
        return self.shapes[place] if self.shapes else ()

    def cast(self, dtypes: Mapping[str, np.dtype]) -> Schema:
        """Return the same columns with other dtypes for some."""
        if not dtypes:
            return self
        pairs = zip(self.names, self.dtypes, strict=True)
        return replace(self, dtypes=tuple(dtypes.get(name, own) for name, own in pairs))

    def joined(self, other: Schema) -> Schema:
        """Return the same columns with dtypes that hold those of another schema too."""
        if other == self:
            return self
        dtypes = tuple(
            mine if theirs is None or mine is None else np.result_type(mine, theirs)
            for mine, theirs in zip(self.dtypes, map(other._dtype_or_none, self.names), strict=True)
        )
        return replace(self, dtypes=dtypes)

    def _dtype_or_none(self, name: str) -> np.dtype | None:
        places = self._places.get(name)
        return self.dtypes[places[0]] if places else None


def _cast_hint(name: str, type_: str) -> str:
    if type_.startswith(("list", "large_list")):
        return ". Lists have to be of one size: pa.list_(type, size) is several columns"
    if not type_.startswith(("date", "time", "duration", "decimal", "string", "large_string")):
        return ""
    dtype = "float64" if type_.startswith(("decimal", "string", "large")) else "int64"
    return f". parquet_source and arrow_source convert it where you say so: dtypes={{{name!r}: {dtype!r}}}"


@dataclass(frozen=True)
class Selection:
    """Which columns of a table are which fields.

    Parameters
    ----------
    layout : Layout
        Each field with its columns. The dtype of a field is the one that NumPy gives to all of its
        columns together.
    schema : Schema
        Of the table that was selected from.
    where : str
        What messages call that table.
    sources : tuple of tuple of str
        The columns of each field.
    casts : dict of str to dtype
        Which columns are converted.
    takes_all : bool
        Whether all columns were asked for, so that another table must not have others.

    Examples
    --------
    >>> from pymc.data_loading.sources.schema import Schema, Selection
    >>> f4, i2 = np.dtype("f4"), np.dtype("i2")
    >>> schema = Schema(("a", "b", "c"), (f4, i2, None), ("float", "int16", "string"))
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
        """Select columns.

        Raises
        ------
        SchemaError
            If a column is not there, or is not numeric.
        TypeError, ValueError
            For `columns` that name nothing, or name a column twice in a field; for `dtypes` that are of
            no numbers, or of columns that are not selected.
        """
        takes_all = columns is None
        if columns is None:
            columns = schema.features
        named = columns if isinstance(columns, Mapping) else {"": columns}
        if not named or (isinstance(columns, Mapping) and not all(named)):
            raise ValueError(f"columns={columns!r} has to name at least one field, each by a name")
        sources = tuple(_names(part, columns, schema) for part in named.values())
        casts = _check_dtypes(dtypes, {name for names in sources for name in names})
        schema = schema.cast(casts)
        fields = tuple(
            _field(name, names, isinstance(part, str), schema, where)
            for (name, part), names in zip(named.items(), sources, strict=True)
        )
        return cls(Layout(fields), schema, where, sources, casts, takes_all)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        return tuple(dict.fromkeys(name for names in self.sources for name in names))

    @property
    def identity(self) -> list[dict[str, Any]]:
        """The layout in JSON, with the columns of each field, whatever their shape."""
        return [
            {**field, "columns": field["columns"] or list(names)}
            for field, names in zip(self.layout.schema, self.sources, strict=True)
        ]

    def check(self, schema: Schema, where: str) -> None:
        """Check that another shard has the columns that are read, in any order, as numbers.

        Whether numbers of another dtype fit is seen when they are read.

        Raises
        ------
        SchemaError
            If columns are missing, or one that is read has no numbers or values of another shape; if all
            columns are read, and there are others.
        """
        schema = schema.cast(self.casts)
        if schema == self.schema:
            return
        if self.takes_all:
            self._check_all(schema, where)
        for name in self.names:
            schema.dtype(name, where)
            expected, found = self.schema.shape(name, self.where), schema.shape(name, where)
            if expected != found:
                raise SchemaError(
                    f"column {name!r} of {where} has values of shape {found}, and of shape {expected} in "
                    f"{self.where}: all parts of a data set need the same"
                )

    def _check_all(self, schema: Schema, where: str) -> None:
        first, other = set(self.schema.features), set(schema.features)
        advice = (
            "name the columns to read, columns=[...], where parts of a data set differ in others"
        )
        if missing := [n for n in self.schema.features if n not in other]:
            raise SchemaError(f"{where} lacks {listed(missing)}, which {self.where} has: {advice}")
        if extra := [n for n in schema.features if n not in first]:
            raise SchemaError(
                f"{where} has {listed(extra)}, which {self.where} does not have: {advice}"
            )

    def arrays(self, columns: Mapping[str, np.ndarray]) -> tuple[Arrays, ...]:
        """Return the columns of each field."""
        return tuple(tuple(columns[name] for name in names) for names in self.sources)


def _check_dtypes(dtypes: DTypes, names: set[str]) -> dict[str, np.dtype]:
    """Return the dtypes that users ask for."""
    if dtypes is None:
        return {}
    if not isinstance(dtypes, Mapping):
        raise TypeError(
            f"dtypes={dtypes!r} has to be a dict from names of columns to dtypes, such as "
            f'{{"day": "int64"}}'
        )
    if unread := [name for name in dtypes if name not in names]:
        raise ValueError(
            f"dtypes={dict(dtypes)!r} names {listed(unread)}, and the columns to read are "
            f"{listed(sorted(names))}"
        )
    asked = {name: np.dtype(dtype).newbyteorder("=") for name, dtype in dtypes.items()}
    if other := [name for name, dtype in asked.items() if dtype.kind not in "biuf"]:
        raise ValueError(
            f"dtypes={dict(dtypes)!r} asks for {asked[other[0]]} of {other[0]!r}, and a model computes with "
            f"numbers: integers, floats or bool"
        )
    return asked


def _names(part: str | Sequence[str], columns: Columns, schema: Schema) -> tuple[str, ...]:
    """Return the columns of a field."""
    if isinstance(part, set | frozenset):
        raise TypeError(
            f"columns={part!r} is a set, which has no order, and that of the columns of a batch has to "
            f"be the same in each process: give a list, {sorted(map(str, part))}"
        )
    names = (part,) if isinstance(part, str) else tuple(part)
    if not names or not all(isinstance(n, str) for n in names):
        raise TypeError(
            f"columns={part!r} has to be a name, or a list of at least one name, such as "
            f"{list(schema.names[:2])}"
        )
    return names


def _field(field: str, names: tuple[str, ...], alone: bool, schema: Schema, where: str) -> Field:
    """Return a field of some columns, one after another along its last axis."""
    dtype = np.result_type(*(schema.dtype(name, where) for name in names))
    if len(set(names)) < len(names):
        raise ValueError(f"columns={list(names)} names a column twice")
    shapes = [schema.shape(name, where) for name in names]
    if matrices := [n for n, s in zip(names, shapes, strict=True) if len(s) > 1 and not alone]:
        raise SchemaError(
            f"column {matrices[0]!r} of {where} has values of {schema.shape(matrices[0], where)}, which do "
            f'not go into a row of several columns: give it a field, columns={{"x": {matrices[0]!r}, ...}}'
        )
    shape = shapes[0] if alone else (sum(math.prod(s) for s in shapes),)
    labels = [
        label
        for name, s in zip(names, shapes, strict=True)
        for label in ([name] if s == () else [f"{name}[{j}]" for j in range(s[0])])
    ]
    return Field(field, shape, dtype, tuple(labels) if len(shape) < 2 else None, schema.nullable)


def listed(names: Sequence[str]) -> str:
    """Return names for a message, not more than a line of them."""
    shown = ", ".join(map(repr, names[:8]))
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
