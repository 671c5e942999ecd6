# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the arguments of a loader have to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from pymc.argument_checks import check_int, check_number
from pymc.data_loading.sources.layout import (
    Block,
    BlockSource,
    ExhaustedSourceError,
    Layout,
)

__all__ = [
    "Sizes",
    "check_timeout",
    "check_total_size",
    "leaves_out",
    "make_seed",
]

#: Passes on what an iterator gives, and may raise if that takes too long.
type Wait = Callable[[Iterator[Any]], Iterator[Any]]

#: How many rows are looked at together when those are counted that are finite.
STEP = 65_536


class Sizes(NamedTuple):
    """How many rows there are.

    Attributes
    ----------
    total_size : int
        Rows of the data that are fitted.
    n_read : int
        Rows of a pass over the source, as far as that is known: with those that are left out.
    """

    total_size: int
    n_read: int


def make_seed(seed: Any, function: str) -> int:
    """Check a seed; for None, draw one, so that it can be kept with a checkpoint.

    Raises
    ------
    TypeError, ValueError
        For what is no whole number from 0.

    Examples
    --------
    >>> from pymc.data_loading.arguments import make_seed
    >>> make_seed(np.int64(1), "DataLoader")
    1
    """
    if seed is None:
        return int(np.random.SeedSequence().entropy)  # type: ignore[arg-type]
    return check_int(seed, "seed", function, at_least=0)


def check_timeout(timeout: Any, n_ahead: int) -> float | None:
    """Check how many seconds to wait for rows.

    Raises
    ------
    TypeError, ValueError
    """
    if timeout is None:
        return None
    seconds = check_number(
        timeout, "timeout", "DataLoader", above=0, hint="It is a number of seconds, such as 60"
    )
    if n_ahead == 0:
        raise ValueError(
            f"timeout={timeout!r} of DataLoader needs the thread that reads ahead: write prefetch=1"
        )
    return seconds


def leaves_out(on_nan: str, layout: Layout) -> bool:
    """Tell whether `on_nan` is "skip", and rows of a source may be left out: it has floats, or nulls."""
    return on_nan == "skip" and any(f.dtype.kind == "f" or f.nullable for f in layout.fields)


def check_total_size(
    total_size: Any, source: BlockSource, on_nan: str = "raise", wait: Wait = iter
) -> Sizes:
    """Check how many rows there are in all; for ``"auto"``, ask the source or count them.

    Rows that `on_nan` leaves out are no rows of the data, so that all have to be looked at.

    Parameters
    ----------
    total_size : int or "auto"
    source : BlockSource
    on_nan : {"raise", "skip"}
    wait : callable (iterator) -> iterator
        What is read goes through it.

    Returns
    -------
    Sizes

    Raises
    ------
    TypeError, ValueError
        If it is no positive whole number; if it is ``"auto"`` and the source has no rows, or could not be
        read again after they were counted.
    """
    if isinstance(total_size, str) and total_size == "auto":
        skips = on_nan == "skip" and any(wait(leaves_out(on_nan, s.layout) for s in [source]))
        n_rows = None if skips else source.n_rows
        sizes = _count(source, skips, wait) if n_rows is None else Sizes(n_rows, n_rows)
        if sizes.n_read == 0:
            raise ValueError("the source of rows that DataLoader was given has none: it is empty")
        if sizes.total_size == 0:
            raise ValueError(
                f"on_nan='skip' of DataLoader would leave out all {sizes.n_read} rows: each has a value "
                f"that is NaN or infinite. Drop the column that is never finite"
            )
        return sizes
    if total_size is None or isinstance(total_size, str):
        raise TypeError(
            f"total_size={total_size!r} of DataLoader has to be the number of rows of the data, or 'auto'. "
            f"Without it a likelihood is not scaled from a batch to all rows, and the posterior is too wide"
        )
    total_size = check_int(total_size, "total_size", "DataLoader")
    return Sizes(total_size, source.n_rows or total_size)


def _count(source: BlockSource, finite: bool, wait: Wait) -> Sizes:
    """Count the rows, and those that are finite, by a pass, and see whether another one could follow."""
    if source.one_shot:
        raise ValueError(_COUNT_ONCE)
    n_rows, n_bad = 0, 0
    for block in wait(source.blocks()):
        n_rows += block.n_rows
        n_bad += _count_bad(block) if finite else 0
        del block  # before the next one is read
    try:
        again = n_rows == 0 or any(block.n_rows for block in wait(source.blocks()))
    except ExhaustedSourceError as error:
        raise ValueError(_COUNT_ONCE) from error
    if not again:
        raise ValueError(_COUNT_ONCE)
    return Sizes(n_rows - n_bad, n_rows)


def _count_bad(block: Block) -> int:
    starts = range(0, block.n_rows, STEP)
    return sum(
        len({bad.row for bad in block.bad_rows(start, min(start + STEP, block.n_rows))})
        for start in starts
    )


_COUNT_ONCE = (
    "total_size='auto' of DataLoader has to count the rows, and this source can be read only once, so that "
    "none would be left. Write total_size=N, or give a function that makes a new iterator for each pass, "
    "as lambda: read_blocks() does and lambda: blocks does not"
)
