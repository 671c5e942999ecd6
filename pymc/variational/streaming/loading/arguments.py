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
"""What the arguments of a loader have to be."""

from __future__ import annotations

from typing import Any

import numpy as np

from pymc.variational.counts import check_count
from pymc.variational.streaming.sources.layout import ExhaustedSourceError, Source

__all__ = ["check_choice", "check_flag", "check_timeout", "check_total_size", "make_seed"]


def make_seed(seed: Any, function: str) -> int:
    """Check a seed; for None, draw one, so that it can be kept with a checkpoint.

    Raises
    ------
    TypeError, ValueError
        For what is no whole number from 0.

    Examples
    --------
    >>> from pymc.variational.streaming.loading.arguments import make_seed
    >>> make_seed(np.int64(1), "DataLoader")
    1
    """
    if seed is None:
        return int(np.random.SeedSequence().entropy)  # type: ignore[arg-type]
    return check_count("seed", seed, function, least=0)


def check_flag(argument: str, value: Any, function: str) -> bool:
    """Check a True or False.

    Raises
    ------
    TypeError
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(
            f"{argument}={value!r} of {function} has to be True or False: it is of type "
            f"{type(value).__name__}"
        )
    return bool(value)


def check_choice(argument: str, value: Any, choices: tuple[str, ...], function: str) -> Any:
    """Check one of some words.

    Raises
    ------
    ValueError
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"{argument}={value!r} of {function} has to be one of {', '.join(map(repr, choices))}"
        )
    return value


def check_timeout(timeout: Any, n_ahead: int) -> float | None:
    """Check how many seconds to wait for rows.

    Raises
    ------
    TypeError, ValueError
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool | np.bool_) or not isinstance(timeout, int | float | np.number):
        raise TypeError(
            f"timeout={timeout!r} of DataLoader has to be a number of seconds, such as 60, or None: it is "
            f"of type {type(timeout).__name__}"
        )
    if not timeout > 0:
        raise ValueError(f"timeout={timeout!r} of DataLoader has to be more than 0 seconds")
    if n_ahead == 0:
        raise ValueError(
            f"timeout={timeout!r} of DataLoader needs the thread that reads ahead: write prefetch=1"
        )
    return float(timeout)


def check_total_size(total_size: Any, source: Source) -> int:
    """Check how many rows there are in all; for ``"auto"``, ask the source or count them.

    Raises
    ------
    TypeError, ValueError
        If it is no positive whole number; if it is ``"auto"`` and the source has no rows, or could not be
        read again after they were counted.
    """
    if isinstance(total_size, str) and total_size == "auto":
        n_rows = _count(source) if source.n_rows is None else source.n_rows
        if n_rows == 0:
            raise ValueError("the source of rows that DataLoader was given has none: it is empty")
        return n_rows
    if total_size is None or isinstance(total_size, str):
        raise TypeError(
            f"total_size={total_size!r} of DataLoader has to be the number of rows of the data, or 'auto'. "
            f"Without it a likelihood is not scaled from a batch to all rows, and the posterior is too wide"
        )
    return check_count("total_size", total_size, "DataLoader")


def _count(source: Source) -> int:
    """Count the rows by a pass, and see whether another one could follow."""
    if source.one_shot:
        raise ValueError(_COUNT_ONCE)
    n_rows = sum(block.n_rows for block in source.blocks())
    try:
        again = n_rows == 0 or any(block.n_rows for block in source.blocks())
    except ExhaustedSourceError as error:
        raise ValueError(_COUNT_ONCE) from error
    if not again:
        raise ValueError(_COUNT_ONCE)
    return n_rows


_COUNT_ONCE = (
    "total_size='auto' of DataLoader has to count the rows, and this source can be read only once, so that "
    "none would be left. Write total_size=N, or give a function that makes a new iterator for each pass, "
    "as lambda: read_blocks() does and lambda: blocks does not"
)
