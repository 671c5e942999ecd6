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
"""Columns of Apache Arrow as NumPy arrays, without a copy where Arrow's memory allows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from pymc.variational.streaming.sources.columns import ColumnBlock, JoinedBlock
from pymc.variational.streaming.sources.layout import Block
from pymc.variational.streaming.sources.schema import Schema, Selection
from pymc.variational.streaming.sources.series import series_numbers

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["need_pyarrow", "reading", "schema_of", "table_block"]


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
        raise ImportError(
            f'{function} reads by pyarrow: pip install "pymc-minibatch[stream]"'
        ) from error
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
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except errors or Exception as error:
        raise OSError(
            f"{where} cannot be read; it may be damaged, cut short or not be of this format: "
            f"{type(error).__name__}: {error}"
        ) from error


def schema_of(schema: pa.Schema) -> Schema:
    """Return the names and NumPy's dtypes of an Arrow schema."""
    return Schema(
        names=tuple(field.name for field in schema),
        dtypes=tuple(_dtype(field.type) for field in schema),
        types=tuple(str(field.type) for field in schema),
    )


def _dtype(type_: pa.DataType) -> np.dtype | None:
    types = need_pyarrow("arrow_source").types
    plain = (types.is_integer, types.is_floating, types.is_boolean)
    return np.dtype(type_.to_pandas_dtype()) if any(is_(type_) for is_ in plain) else None


def table_block(table: pa.Table | pa.RecordBatch, selection: Selection, where: str) -> Block:
    """Return rows of Arrow as a block of a selection.

    Parameters
    ----------
    table : pyarrow.Table or pyarrow.RecordBatch
    selection : Selection
        Its columns are found by name.
    where : str

    Raises
    ------
    ValueError
        If a value is null: the message names its column and row.
    """
    batches = table.to_batches() if hasattr(table, "to_batches") else [table]
    pieces, at = [], 0
    for batch in batches:
        columns = {
            name: series_numbers(batch.column(name), f"{where}, column {name!r}", at)
            for name in selection.names
        }
        pieces.append(ColumnBlock(selection.layout, selection.arrays(columns), where, at))
        at += batch.num_rows
    return pieces[0] if len(pieces) == 1 else JoinedBlock(tuple(pieces), where)
