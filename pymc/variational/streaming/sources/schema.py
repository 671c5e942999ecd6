#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""Which columns of a table go into which field, and whether all shards have the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pymc.variational.streaming.sources.layout import Arrays, Field, Layout

__all__ = ["Columns", "Schema", "SchemaError", "Selection", "listed"]

Columns = str | Sequence[str] | Mapping[str, str | Sequence[str]] | None
"""What users say of columns: a name, a list of names, names for each field, or None for all."""


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
    """

    names: tuple[str, ...]
    dtypes: tuple[np.dtype | None, ...]
    types: tuple[str, ...]

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """Where each name is: there may be thousands, and each is asked for."""
        places: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            places.setdefault(name, []).append(i)
        return places

    def dtype(self, name: str, where: str) -> np.dtype:
        """Return the dtype of a column.

        Raises
        ------
        SchemaError
            If it is not there, or twice, or holds no numbers.
        """
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
        dtype = self.dtypes[places[0]]
        if dtype is None:
            raise SchemaError(
                f"column {name!r} of {where} is of type {self.types[places[0]]}, and a model computes with numbers: "
                f"leave it out by columns=[...], or store it as integers or floats"
            )
        return dtype


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

    Examples
    --------
    >>> from pymc.variational.streaming.sources.schema import Schema, Selection
    >>> f4, i2 = np.dtype("f4"), np.dtype("i2")
    >>> schema = Schema(("a", "b", "c"), (f4, i2, None), ("float", "int16", "string"))
    >>> Selection.of(schema, {"X": ["b", "a"], "y": "a"}, "flights.parquet").layout.fields[0]
    Field(name='X', shape=(2,), dtype=dtype('float32'), columns=('b', 'a'))
    """

    layout: Layout
    schema: Schema
    where: str

    @classmethod
    def of(cls, schema: Schema, columns: Columns, where: str) -> Selection:
        """Select columns.

        Raises
        ------
        SchemaError
            If a column is not there, or is not numeric.
        TypeError, ValueError
            For `columns` that name nothing, or name a column twice in a field.
        """
        if columns is None:
            columns = schema.names
        named = columns if isinstance(columns, Mapping) else {"": columns}
        if not named or (isinstance(columns, Mapping) and not all(named)):
            raise ValueError(f"columns={columns!r} has to name at least one field, each by a name")
        return cls(
            Layout(tuple(_field(name, part, schema, where) for name, part in named.items())),
            schema,
            where,
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        return tuple(dict.fromkeys(c for f in self.layout.fields for c in f.columns or ()))

    def check(self, schema: Schema, where: str) -> None:
        """Check that another shard has the same columns, in any order.

        Raises
        ------
        SchemaError
            If columns are missing, or there are others, or one that is read is of another type.
        """
        if schema == self.schema:
            return
        first, other = set(self.schema.names), set(schema.names)
        if missing := [n for n in self.schema.names if n not in other]:
            raise SchemaError(f"{where} lacks {listed(missing)}, which {self.where} has: {_SAME}")
        if extra := [n for n in schema.names if n not in first]:
            raise SchemaError(
                f"{where} has {listed(extra)}, which {self.where} does not have: {_SAME}"
            )
        for name in self.names:
            expected, found = self.schema.dtype(name, self.where), schema.dtype(name, where)
            if expected != found:
                raise SchemaError(
                    f"column {name!r} of {where} is {found}, and {expected} in {self.where}: {_SAME}"
                )

    def arrays(self, columns: Mapping[str, np.ndarray]) -> tuple[Arrays, ...]:
        """Return the columns of each field."""
        return tuple(tuple(columns[c] for c in f.columns or ()) for f in self.layout.fields)


_SAME = "all parts of a data set need the same columns, of the same types"


def _field(name: str, columns: str | Sequence[str], schema: Schema, where: str) -> Field:
    if isinstance(columns, set | frozenset):
        raise TypeError(
            f"columns={columns!r} is a set, which has no order, and that of the columns of a batch has to "
            f"be the same in each process: give a list, {sorted(map(str, columns))}"
        )
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    if not names or not all(isinstance(n, str) for n in names):
        raise TypeError(
            f"columns={columns!r} has to be a name, or a list of at least one name, such as "
            f"{list(schema.names[:2])}"
        )
    dtype = np.result_type(*(schema.dtype(n, where) for n in names))
    if len(set(names)) < len(names):
        raise ValueError(f"columns={list(names)} names a column twice")
    return Field(name, () if isinstance(columns, str) else (len(names),), dtype, names)


def listed(names: Sequence[str]) -> str:
    """Return names for a message, not more than a line of them."""
    shown = ", ".join(map(repr, names[:8]))
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
