# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Parts of a source that are read alone: slices of rows, all of one length but the last."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Slices"]


@dataclass(frozen=True)
class Slices:
    """Slices of rows, one after another.

    Parameters
    ----------
    n_rows : int
        Rows in all.
    length : int
        Rows of a slice, at least 1; the last one may have fewer.

    Examples
    --------
    >>> from pymc.data_loading.sources.parts import Slices
    >>> slices = Slices(n_rows=10, length=4)
    >>> slices.lengths, slices[2]
    ((4, 4, 2), slice(8, 10, None))
    """

    n_rows: int
    length: int

    @classmethod
    def of_bytes(cls, n_rows: int, row_bytes: int, n_bytes: int, multiple: int = 1) -> Slices:
        """Return slices of about `n_bytes`, each of a `multiple` of rows where data are stored so."""
        length = max(n_bytes // row_bytes, 1)
        return cls(n_rows, -(-length // multiple) * multiple)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each slice."""
        full, rest = divmod(self.n_rows, self.length)
        return (self.length,) * full + (rest,) * (rest > 0)

    def __getitem__(self, part: int) -> slice:
        """Return which rows a slice has."""
        start = part * self.length
        return slice(start, min(start + self.length, self.n_rows))
