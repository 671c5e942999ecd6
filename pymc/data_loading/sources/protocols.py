# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Interfaces by which objects of other libraries give rows: they share methods and no class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "ArrayLike",
    "ArrowArray",
    "ArrowDataset",
    "ArrowReader",
    "ArrowStream",
    "ArrowTable",
    "Chunked",
    "Counted",
    "Indexable",
    "IpcFile",
    "NumPyArray",
    "NumPyMemory",
    "RecordBatch",
    "Samples",
    "Shaped",
    "SharedMemory",
    "is_of",
    "name_of",
]


@runtime_checkable
class Shaped(Protocol):
    """What has the shape of an array: frames do, too."""

    shape: Any


@runtime_checkable
class ArrayLike(Shaped, Protocol):
    """What has the shape and the dtype of an array."""

    dtype: Any


@runtime_checkable
class NumPyArray(Protocol):
    """What makes an array of itself."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the array."""


@runtime_checkable
class NumPyMemory(Protocol):
    """What NumPy reads in its place."""

    __array_interface__: Any


@runtime_checkable
class SharedMemory(Protocol):
    """What all libraries of arrays read in its place."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        """Return its memory."""


@runtime_checkable
class Chunked(Protocol):
    """What may be stored in chunks, an array of h5py, zarr or dask: ``chunks[0]`` is of rows."""

    chunks: Any


@runtime_checkable
class Indexable(Protocol):
    """What has items, or slices."""

    def __getitem__(self, index: Any, /) -> Any:
        """Return some of it."""


@runtime_checkable
class Samples(Indexable, Protocol):
    """A dataset in the manner of torch: samples by their number."""

    def __len__(self) -> int:
        """Return how many there are."""


@runtime_checkable
class Counted(Protocol):
    """What may know how many rows it has, or have a method of that name."""

    n_rows: Any


@runtime_checkable
class ArrowStream(Protocol):
    """What gives record batches of Arrow."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return a stream of them."""


@runtime_checkable
class ArrowArray(Protocol):
    """What is one record batch, or column, of Arrow."""

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        """Return its schema and memory."""


@runtime_checkable
class RecordBatch(ArrowArray, Protocol):
    """What is one record batch, with names of its columns."""

    schema: Any


@runtime_checkable
class ArrowTable(Protocol):
    """What has its rows in several record batches."""

    def to_batches(self, *args: Any, **kwargs: Any) -> Iterable[Any]:
        """Return them."""


@runtime_checkable
class ArrowDataset(ArrowTable, Protocol):
    """A dataset of Arrow: files that are scanned."""

    schema: Any

    def count_rows(self, *args: Any, **kwargs: Any) -> int:
        """Return how many rows there are."""


@runtime_checkable
class ArrowReader(Protocol):
    """What reads record batches once."""

    def read_next_batch(self) -> Any:
        """Return the next one."""


@runtime_checkable
class IpcFile(Protocol):
    """A file of Arrow's IPC format."""

    num_record_batches: int

    def get_batch(self, i: int) -> Any:
        """Return one of its record batches."""


def is_of(library: str, data: Any, *classes: str) -> bool:
    """Return whether data are of a class of a library, which need not be imported.

    Examples
    --------
    >>> from pymc.data_loading.sources.protocols import is_of
    >>> is_of("numpy", np.ones(2), "ndarray"), is_of("polars", np.ones(2), "Series", "DataFrame")
    (True, False)
    """
    return any(
        cls.__name__ in classes and cls.__module__.partition(".")[0] == library
        for cls in type(data).__mro__
    )


def name_of(value: Any) -> str:
    """Return how users call a function or class, and of other things, of which class they are.

    Examples
    --------
    >>> from pymc.data_loading.sources.protocols import name_of
    >>> name_of(max), name_of(3)
    ('max', 'int')
    """
    return getattr(value, "__name__", type(value).__name__)
