# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A table of the parameters of a plate's rows, of which a step reads and writes the rows of a batch.

The parameters of a row and the optimizer's state of them are adjacent in memory, so that a row costs one
access to memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.data_placeholder import check_row_numbers
from pymc.minibatch.index import ROW_COUNTS_DIFFER, BatchSizeError
from pymc.minibatch.stream_index import is_stream
from pymc.pytensorf import current_length

__all__ = [
    "ParamTable",
    "aligned_zeros",
    "forget_averages",
    "line_length",
    "new_table",
    "rows_in_all",
    "swap_averages",
]

# Bytes that a processor reads from memory at once
CACHE_LINE = 64


@dataclass(frozen=True, eq=False)
class ParamTable:
    """Parameters of the rows of a plate and the optimizer's state of them: a line for each row.

    Parameters
    ----------
    plate : tuple of Rows
        One for each subsampled axis, in order; several for crossed plates.
    n_params : int
        Number of parameters of a row: the first columns.
    shared : SharedVariable
        Floats of shape (n_rows, n_columns), with the rows of several axes in C order. Neither length
        is static, so that one compiled step serves any number of rows.

    Examples
    --------
    >>> from pymc.minibatch.axis_tracking import Rows
    >>> from pymc.minibatch.index import minibatch_index
    >>> from pymc.variational.local_params.table import ParamTable
    >>> plate = (Rows(minibatch_index(rows=6, batch_size=2)),)
    >>> table = ParamTable.of(plate, np.array([[0.0, 1.0]]), "z")
    >>> table.parameters().shape
    (6, 2)
    """

    plate: tuple[Rows, ...]
    n_params: int
    shared: SharedVariable

    @classmethod
    def of(cls, plate: Sequence[Rows], start: np.ndarray, name: str) -> ParamTable:
        """Return the table of a plate, with as many rows as its data have now.

        `start` has shape (1, n_params) or (n_rows, n_params).

        Raises
        ------
        ValueError
            If the number of rows is unknown, or `start` has another one.
        """
        start, n_rows = np.asarray(start), rows_in_all(plate)
        if start.ndim != 2 or start.shape[0] not in (1, n_rows):
            raise ValueError(
                f"The parameters {name!r} of {n_rows} rows start from values of shape {start.shape}: "
                f"the shape must be (1, n), for equal values in all rows, or ({n_rows}, n)."
            )
        n_params = start.shape[1]
        value = aligned_zeros(n_rows, line_length(n_params), pytensor.config.floatX)
        value[:, :n_params] = start
        shared = pytensor.shared(value, name, shape=(None, None), borrow=True)
        return cls(tuple(plate), n_params, shared)

    @property
    def name(self) -> str:
        return self.shared.name or ""

    @property
    def n_rows(self) -> int:
        """Number of rows of the table."""
        return self._value.shape[0]

    @property
    def batch_size(self) -> int | None:
        """Number of slots of a batch; None for streams, whose batches may have any."""
        sizes = [None if is_stream(rows) else rows.batch_size for rows in self.plate]
        return None if None in sizes else int(np.prod(sizes))  # type: ignore[arg-type]

    @property
    def total(self) -> Variable:
        """Number of rows of the data, a symbolic integer."""
        return reduce(lambda n, rows: n * rows.total, self.plate, pt.constant(1, dtype="int64"))

    @property
    def has_all_rows(self) -> Variable:
        """Symbolic boolean: True if the table has as many rows as the data."""
        return pt.eq(self.total, self.shared.shape[0])

    @property
    def has_duplicates(self) -> bool:
        """True if a row may be in a batch twice."""
        return any(rows.may_repeat for rows in self.plate)

    @property
    def index(self) -> Variable:
        """The row of each slot of a batch, in C order over the plate's axes.

        It is within the table, since Numba checks no bounds. If the data have more rows by now,
        :attr:`has_all_rows` is False.
        """
        index = self.plate[0].index
        for rows in self.plate[1:]:
            n = -1 if self.batch_size is None else index.type.shape[0] * rows.batch_size
            index = (index[:, None] * rows.total + rows.index[None, :]).reshape((n,))
        return pt.minimum(index, self.shared.shape[0] - 1)

    def gather(self) -> tuple[Variable, Variable]:
        """Return the lines of a batch, and their first columns, the parameters, for a gradient."""
        lines = self.shared[self.index]
        shape = (self.batch_size, self.n_params)
        return lines, pt.specify_shape(lines[:, : self.n_params], shape)

    def all_rows(self) -> Variable:
        """Return the parameters of all rows, a symbolic matrix."""
        return self.shared[:, : self.n_params]

    @property
    def start(self) -> np.ndarray:
        """The parameters of the first row, which a new state of an optimizer may start from."""
        return self._value[0, : self.n_params].copy()

    def copied(self, memo: dict[int, Any]) -> ParamTable:
        """Copy the values; `memo` is that of :func:`copy.deepcopy`."""
        return replace(self, shared=deepcopy(self.shared, memo))

    def add_optimizer_columns(self, states: np.ndarray) -> None:
        """Set the optimizer's state of all rows to `states`, of shape (n_states,).

        The value of `shared` becomes another array unless it has as many columns.
        """
        value, n_used = self._value, self.n_params + len(states)
        if value.shape[1] != line_length(n_used, value.dtype):
            wide = aligned_zeros(len(value), line_length(n_used, value.dtype), value.dtype)
            wide[:, : self.n_params] = value[:, : self.n_params]
            self.shared.set_value(wide, borrow=True)
            value = wide
        value[:, self.n_params : n_used] = states
        value[:, n_used:] = 0

    def forget_averages(self) -> None:
        """Start the averages of the parameters anew."""
        forget_averages(self._value, self.n_params)

    def swap_averages(self) -> None:
        """Exchange the parameters of visited rows with their averages."""
        swap_averages(self._value, self.n_params)

    def parameters(self, rows: Any = None) -> np.ndarray:
        """Return the current parameters of all rows, or of some, in C order over the plate's axes.

        For all rows or a slice it is a read-only view of the table, else a copy.
        """
        params = self._value[slice(None) if rows is None else rows, : self.n_params]
        params.flags.writeable = False
        return params

    def check_rows(self) -> None:
        """Raise a ValueError if the data have another number of rows than the table."""
        n_rows = rows_in_all(self.plate)
        if n_rows != self.n_rows:
            raise ValueError(
                f"The data have {n_rows} rows, and {self.name!r} has parameters of {self.n_rows}, "
                "those of the data when it was built: a new row has none. Fit a new approximation, or "
                "give pm.set_data the old number of rows."
            )

    def check_known(self) -> None:
        """Raise a ValueError if a stream holds rows of unknown position: a step would change others."""
        for rows in self.plate:
            if is_stream(rows):
                check_row_numbers(rows, f"the variables of {self.name!r}")

    @property
    def _value(self) -> np.ndarray:
        return self.shared.get_value(borrow=True)


#: Makes the table of a plate. A fit whose rows stay with workers sets another one
new_table: ContextVar[Callable[[Sequence[Rows], np.ndarray, str], ParamTable]] = ContextVar(
    "new_table", default=ParamTable.of
)


def forget_averages(lines: np.ndarray, n_params: int) -> None:
    """Start the averages of the parameters of some lines anew."""
    _, n_visits = _average_columns(n_params)
    lines[:, n_visits] = 0


def swap_averages(lines: np.ndarray, n_params: int) -> None:
    """Exchange the parameters of visited rows with their averages."""
    mean, n_visits = _average_columns(n_params)
    visited = lines[:, n_visits, None] > 0
    params = slice(n_params)
    last = lines[:, params].copy()
    np.copyto(lines[:, params], lines[:, mean], where=visited)
    np.copyto(lines[:, mean], last, where=visited)


def _average_columns(n_params: int) -> tuple[slice, int]:
    """Return the columns of the average of the parameters, and the column of the number of visits."""
    return slice(n_params, 2 * n_params), 2 * n_params


def line_length(n_used: int, dtype: Any = None) -> int:
    """Return the number of columns of a table of which `n_used` are used.

    A line of up to 64 bytes gets a power of two of columns, so that it lies in one cache line; a
    longer one takes whole cache lines.

    Examples
    --------
    >>> from pymc.variational.local_params.table import line_length
    >>> [line_length(n, "float64") for n in (2, 7, 9)]
    [2, 8, 16]
    """
    per_line = CACHE_LINE // np.dtype(dtype or pytensor.config.floatX).itemsize
    if n_used > per_line:
        return -(-n_used // per_line) * per_line
    return 1 << max(n_used - 1, 0).bit_length()


def aligned_zeros(n_rows: int, n_columns: int, dtype: Any) -> np.ndarray:
    """Return zeros of shape (n_rows, n_columns) that begin at a cache line."""
    n_bytes = n_rows * n_columns * np.dtype(dtype).itemsize
    memory = np.zeros(n_bytes + CACHE_LINE, np.uint8)
    first = -memory.ctypes.data % CACHE_LINE
    return memory[first : first + n_bytes].view(dtype).reshape(n_rows, n_columns)


def rows_in_all(plate: Sequence[Rows]) -> int:
    """Return the number of rows of a plate, by the data as they are now.

    Raises
    ------
    ValueError
        If it depends on more than the values of shared variables, or data of the same rows differ in
        length.
    """
    n_rows = 1
    for rows in plate:
        length = current_length(rows.total)
        if length == ROW_COUNTS_DIFFER:
            raise BatchSizeError(rows.batch_size, length)
        if length is None:
            raise ValueError(
                f"The number of rows of {rows} is not known before the model runs, but each row "
                "needs parameters: take the rows from data of a known length."
            )
        n_rows *= length
    return n_rows
