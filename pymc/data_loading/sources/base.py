# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`Source`: rows in parts, which can be read again. Subclass it to read data of your own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pymc.data_loading.sources.items import ItemReader, read_first
from pymc.data_loading.sources.layout import Block, BlockSource, Layout

__all__ = ["Source"]


class Source(BlockSource):
    """Rows in parts, which are read alone and in any order: subclass it to read data of your own.

    Two methods make one: `part_lengths` says how many rows each part has, and `load` reads a part. All else
    has a default. Rows are shuffled within windows and part by part, and a fit goes on where it stopped
    without reading what comes before. For rows that come in order only, :class:`IterableDataset` is
    simpler.

    Examples
    --------
    >>> class Squares(pm.Source):
    ...     part_lengths = (3, 3, 2)
    ...
    ...     def load(self, part):
    ...         return np.arange(3 * part, 3 * part + self.part_lengths[part]) ** 2.0
    >>> loader = pm.DataLoader(Squares(), batch_size=4)
    >>> [batch.tolist() for batch in loader]
    [[0.0, 1.0, 4.0, 9.0], [16.0, 25.0, 36.0, 49.0]]
    """

    @property
    @abstractmethod
    def part_lengths(self) -> tuple[int, ...]:
        """Rows of each part: a property, or an attribute of the class."""

    @abstractmethod
    def load(self, part: int) -> Any:
        """Read the rows of a part.

        Parameters
        ----------
        part : int
            Which one, ``0 <= part < len(part_lengths)``.

        Returns
        -------
        array, dict of arrays, DataFrame or Arrow table
            Rows along the first axis, as many as `part_lengths` says, and alike in all parts.
        """

    @property
    def n_rows(self) -> int:
        """How many rows there are in all parts."""
        return sum(self.part_lengths)

    @property
    def layout(self) -> Layout:
        """What a batch is like. The first part is read for it."""
        return self._reader.layout

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells this data set from another, in JSON: for checkpoints. It has no folder's name."""
        return {
            "kind": type(self).__qualname__,
            "n_rows": self.n_rows,
            "schema": self.layout.schema,
        }

    def read(self, part: int) -> Block:
        """Return the rows of a part as a block."""
        return self._reader.block(self.load(part), f"part {part} of {self!r}")

    @cached_property
    def _reader(self) -> ItemReader:
        """Reads items like the first part that has rows."""
        part = next((part for part, length in enumerate(self.part_lengths) if length), None)
        if part is None:
            raise ValueError(f"{self!r} has no rows: part_lengths is {self.part_lengths}")
        return read_first(self.load(part), None, f"part {part} of {self!r}")
