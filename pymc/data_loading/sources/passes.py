# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Passes over something that is opened anew each time, or can be read only once."""

from __future__ import annotations

import weakref

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

from pymc.data_loading.sources.layout import ExhaustedSourceError

__all__ = ["Passes"]


class Passes[Item]:
    """Iterators over the items of a source, one a pass.

    What was looked at beforehand is not lost: the first pass goes on from there, so that nothing is
    read twice, and an iterator serves as well as what can be read again.

    Parameters
    ----------
    open : callable
        Returns the items of a fresh pass; or the same iterator each time, which can be read once.
    has_rows : callable
        Whether an item has rows: empty ones are left out.

    Examples
    --------
    >>> from pymc.data_loading.sources.passes import Passes
    >>> passes = Passes(lambda: [[], [1, 2], [3]])
    >>> passes.peek()
    [1, 2]
    >>> list(passes.start()), list(passes.start())
    ([[1, 2], [3]], [[1, 2], [3]])
    """

    def __init__(
        self, open: Callable[[], Iterable[Item]], has_rows: Callable[[Item], bool] | None = None
    ) -> None:
        self._open = open
        self._has_rows = _not_empty if has_rows is None else has_rows
        self._last: Callable[[], Iterator[Item] | None] = _nothing
        self._begun: Iterator[Item] | None = None  # a pass of which items were looked at
        self._had_rows = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process as what opens passes: there, all begin anew."""
        return type(self), (self._open, self._has_rows)

    def peek(self) -> Item:
        """Return the first item that has rows.

        Raises
        ------
        ValueError
            If there is none.
        """
        items = self.start()
        first = next(items)
        self._begun = _resume([first], items)
        return first

    def start(self) -> Iterator[Item]:
        """Return the items of a pass that have rows, at least one.

        Raises
        ------
        ExhaustedSourceError
            If they can be read only once, and were; or if a pass before had some, and this one has none.
        ValueError
            If there never were any.
        """
        if self._begun is not None:
            begun, self._begun = self._begun, None
            return begun
        items = iter(self._open())
        if items is self._last():
            raise ExhaustedSourceError(
                f"the source gave the iterator that it had given before, a {type(items).__name__}, and "
                f"that can be read only once. Give what can be read again: a list of blocks, or a "
                f"function that returns a new iterator at each call"
            )
        self._last = _reference(items)
        filled = filter(self._has_rows, items)
        first = next(filled, _END)
        if first is not _END:
            self._had_rows = True
            return _resume([first], filled)
        if not self._had_rows:
            raise ValueError("the source has no rows: it has no blocks, or only empty ones")
        raise ExhaustedSourceError(
            "the source was read once, and is empty at the next pass: it draws on something that is "
            "used up. Give a function that opens the data anew at each call"
        )


_END: Any = object()


def _nothing() -> None:
    return None


def _reference[Item](items: Iterator[Item]) -> Callable[[], Iterator[Item] | None]:
    """Return what gives an iterator as long as others hold it: what it opened is closed with its reader."""
    try:
        return weakref.ref(items)
    except (
        TypeError
    ):  # iterators of NumPy's, of lists and the like, which have opened nothing themselves
        return lambda: items


def _resume[Item](held: list[Item], rest: Iterator[Item]) -> Iterator[Item]:
    """Yield an item, of which nothing is kept, and the rest."""
    yield held.pop()
    yield from rest


def _not_empty(item: Any) -> bool:
    """Return whether an item is not of length 0; what has no length is looked at later."""
    return not isinstance(item, Sized) or len(item) > 0
