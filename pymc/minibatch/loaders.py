# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Interface by which a graph knows a loader: sizes and the layout of its batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

__all__ = [
    "BatchField",
    "BatchLayout",
    "BatchStream",
    "LoaderRef",
    "gives_rows",
    "is_loader",
    "refuse_loader",
]


class BatchField(Protocol):
    """One array of a batch: name, shape and dtype of a row, and the names of its columns."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    @property
    def columns(self) -> tuple[str, ...] | None: ...


class BatchLayout(Protocol):
    """The fields of a batch, and whether it is a dict of them."""

    @property
    def fields(self) -> Sequence[BatchField]: ...
    @property
    def named(self) -> bool: ...


@runtime_checkable
class BatchStream(Protocol):
    """What a graph knows of a loader, such as :class:`pymc.Loader`: what its batches are like."""

    @property
    def layout(self) -> BatchLayout: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def total_size(self) -> int: ...


@runtime_checkable
class _Rows(Protocol):
    """A source of rows, which has no batches."""

    layout: Any

    def blocks(self) -> Iterator[Any]: ...


def is_loader(value: Any) -> bool:
    """Return whether `value` is a loader: it gives batches, and says what they are like."""
    return isinstance(value, BatchStream)


def gives_rows(value: Any) -> bool:
    """Return whether `value` gives rows, or batches of them, and does not say what batches are like."""
    if is_loader(value) or hasattr(
        value, "__array__"
    ):  # a frame, whose columns may have such names
        return False
    batches = hasattr(value, "batch_size")
    return isinstance(value, _Rows) or (
        batches and (isinstance(value, Iterable) or hasattr(value, "dataset"))
    )


def refuse_loader(value: Any, what: str) -> None:
    """Raise where a loader stands in the place of data.

    Raises
    ------
    TypeError
        The message says what to write.
    """
    if is_loader(value):
        raise TypeError(
            f"{what} is a loader, which gives batches, and no data of the model. Write "
            'batch = pm.Data("batch", loader, dims=("obs", "column")) first, and use what it returns, such as '
            "observed=batch[:, 2]"
        )


class LoaderRef:
    """Reference to the loader of a stream: it stays with the graph, and not with copies in other processes."""

    def __init__(self, loader: BatchStream | None) -> None:
        self.loader = loader

    def __deepcopy__(self, memo: dict[int, Any]) -> LoaderRef:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return LoaderRef, (None,)
