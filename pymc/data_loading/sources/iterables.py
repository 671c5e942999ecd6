# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows of iterables: blocks of any size, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from pymc.data_loading.sources.items import ItemReader, read_first
from pymc.data_loading.sources.layout import Block, BlockSource, Layout
from pymc.data_loading.sources.passes import Passes
from pymc.data_loading.sources.protocols import Shaped, name_of
from pymc.data_loading.sources.values import SampleShape

__all__ = ["IterableSource"]


@dataclass(frozen=True, eq=False, repr=False)
class IterableSource(BlockSource):
    """Rows of an iterable of blocks.

    Parameters
    ----------
    open : callable
        Returns the blocks of a pass.
    n_rows : int, optional
    sample_shape : tuple of int, or dict of str to tuple, optional
        What one row is like: it tells a row from a block of rows.
    one_shot : bool
        Whether `open` is known to return one iterator each time.

    Examples
    --------
    >>> from pymc.data_loading.sources.iterables import IterableSource
    >>> source = IterableSource(lambda: [np.zeros((2, 3)), np.zeros((5, 3))])
    >>> [block.n_rows for block in source.blocks()]
    [2, 5]
    """

    open: Callable[[], Iterable[Any]]
    n_rows: int | None = None  # type: ignore[misc]
    sample_shape: SampleShape = None
    one_shot: bool = False
    _passes: Passes[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_passes", Passes(self.open, _may_have_rows))

    def _told(self) -> list[str]:
        return [_name_of(self.open), *super()._told()]

    @cached_property
    def _reader(self) -> ItemReader:
        return read_first(self._passes.peek(), self.sample_shape, "block 0")

    @property
    def layout(self) -> Layout:
        """What a batch is like. The first block is read for it, and then used in the first pass.

        Raises
        ------
        TypeError, ValueError
            If that block is nothing of numbers, or there is none.
        """
        return self._reader.layout

    @property
    def identity(self) -> dict[str, Any]:
        """Rows and schema: nothing else is known beforehand."""
        return {"kind": "iterable", "n_rows": self.n_rows, "schema": self.layout.schema}

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of a pass that have rows, counted from 0 in messages.

        Raises
        ------
        ExhaustedSourceError
            If they can be read only once, and were; or if a later pass is empty.
        TypeError, ValueError
            If a block is not like the first one.
        """
        reader = self._reader
        for number, item in enumerate(self._passes.start()):
            block = reader.block(item, f"block {number}")
            if block.n_rows:
                yield block


def _name_of(opened: Any) -> str:
    """Return how users call what they gave: the function's name, or the class."""
    while isinstance(opened, partial) and opened.args:  # of what was given
        opened = opened.args[0]
    return name_of(opened)


def _may_have_rows(item: Any) -> bool:
    """Return whether a block has rows, as far as can be seen before it is read."""
    if isinstance(item, Shaped) and isinstance(item.shape, tuple):
        return item.shape[:1] != (0,)
    if isinstance(item, dict):
        return not item or any(map(_may_have_rows, item.values()))
    return not isinstance(item, list) or len(item) > 0
