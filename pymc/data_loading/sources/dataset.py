# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`IterableDataset`, and the source of rows of whatever a loader is given."""

from __future__ import annotations

import os

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import partial
from numbers import Number
from typing import Any, NamedTuple

import numpy as np

from pymc.argument_checks import check_int
from pymc.data_loading.sources.arrays import ArraySource
from pymc.data_loading.sources.arrow import arrow_source, check_not_lazy, is_arrow
from pymc.data_loading.sources.frames import FrameSource, is_frame
from pymc.data_loading.sources.items import named_parts
from pymc.data_loading.sources.iterables import IterableSource
from pymc.data_loading.sources.layout import BlockSource
from pymc.data_loading.sources.protocols import (
    ArrowReader,
    Counted,
    Samples,
    name_of,
)
from pymc.data_loading.sources.samples import SampleSource
from pymc.data_loading.sources.torch_loaders import (
    check_torch_loader,
    is_torch_loader,
    tensors_of,
)
from pymc.data_loading.sources.values import (
    SampleShape,
    as_numbers,
    check_shapes,
    is_array,
)

__all__ = ["KINDS", "IterableDataset", "Kind", "as_source"]


class IterableDataset:
    """Rows that come in blocks and can be read again, in the manner of ``torch.utils.data``.

    Give it a function that opens the data, or derive a class from it that has ``__iter__``.

    Parameters
    ----------
    blocks : callable or iterable
        A function without arguments that returns an iterable of blocks, a new one at each call; or an
        iterable of blocks that can be read again. A block is an array of rows of shape (n, ...), a dict
        or tuple of such arrays, a data frame of pandas, or an Arrow table. Blocks may differ in their
        number of rows, and be empty.
    n_rows : int, optional
        How many rows there are, where it is known. Else a loader counts them once.
    sample_shape : tuple of int, or dict of str to tuple, optional
        The shape of one row. With it an item of this very shape is one row, and not a block: ``()`` for
        numbers, ``(3,)`` for vectors of three. Without it, rows are along the first axis of an item.

    Raises
    ------
    TypeError
        If `blocks` is neither; if `n_rows` or `sample_shape` is not of whole numbers.
    ValueError
        If `n_rows` is below 1, or a length in `sample_shape` is.

    Examples
    --------
    >>> def read_days():
    ...     for day in range(3):
    ...         yield np.full((4, 2), day)
    >>> days = pm.IterableDataset(read_days, n_rows=12)
    >>> sum(len(block) for block in days)
    12

    The same as a class, for data that are generated:

    >>> class Noise(pm.IterableDataset):
    ...     n_rows = 1_000
    ...
    ...     def __iter__(self):
    ...         rng = np.random.default_rng(1)
    ...         for _ in range(10):
    ...             yield rng.normal(size=(100, 2))
    >>> next(iter(Noise())).shape
    (100, 2)
    """

    n_rows: int | None = None
    sample_shape: SampleShape = None
    _blocks: Callable[[], Iterable[Any]] | Iterable[Any] | None = None

    def __init__(
        self,
        blocks: Callable[[], Iterable[Any]] | Iterable[Any] | None = None,
        n_rows: int | None = None,
        sample_shape: SampleShape = None,
    ) -> None:
        if isinstance(blocks, np.ndarray) or not (
            blocks is None or callable(blocks) or isinstance(blocks, Iterable)
        ):
            raise TypeError(
                f"blocks of IterableDataset is of type {type(blocks).__name__}: it has to be a function "
                f"that opens the data, or an iterable of blocks. An array can be given to a loader itself"
            )
        self._blocks = blocks
        if n_rows is not None:
            self.n_rows = check_int(n_rows, "n_rows", "IterableDataset")
        if sample_shape is not None:
            self.sample_shape = check_sample_shape(sample_shape)

    def __repr__(self) -> str:
        """Say what it reads, and read nothing for it."""
        blocks = [name_of(self._blocks)]
        known = [] if self.n_rows is None else [f"n_rows={self.n_rows}"]
        shape = [] if self.sample_shape is None else [f"sample_shape={self.sample_shape}"]
        parts = [*(blocks if self._blocks is not None else []), *known, *shape]
        return f"{type(self).__name__}({', '.join(parts)})"

    def __iter__(self) -> Iterator[Any]:
        """Return the blocks of a fresh pass."""
        if self._blocks is None:
            raise TypeError(
                f"{type(self).__name__} has no blocks: give IterableDataset a function that opens them, "
                f"or define __iter__"
            )
        return iter(self._blocks() if callable(self._blocks) else self._blocks)


def check_sample_shape(shape: Any) -> SampleShape:
    """Return the shape of a row as a tuple, or as a dict of tuples.

    Raises
    ------
    TypeError
        If it is no sequence of whole numbers.
    ValueError
        If a length is below 1.
    """
    if shape is None:
        return None
    if isinstance(shape, Mapping):
        return {str(name): _one_shape(one) for name, one in shape.items()}
    return _one_shape(shape)


def _one_shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple | list):
        raise TypeError(
            f"sample_shape={shape!r} has to be the shape of one row: () for a number, (3,) for three"
        )
    return tuple(check_int(n, "sample_shape", "a loader") for n in shape)


def as_source(data: Any, *, sample_shape: Any = None) -> BlockSource:
    """Return the rows of whatever a loader is given.

    Parameters
    ----------
    data : array, dict of arrays, DataFrame, Arrow table, BlockSource, IterableDataset, iterable or callable
        Arrays, memory-maps, and arrays of h5py, zarr or dask, whose slices are read: rows are along the
        first axis, and nothing is copied as a whole. One column of pandas, polars or Arrow is one too. An
        iterable of blocks, or a function without arguments that opens one. A list of rows, each a list of
        as many numbers. A loader of torch: the rows are those of its ``.dataset``; its own batches, their
        order and their number are not looked at, so that it must not choose among rows, or change them.
    sample_shape : tuple of int, or dict of str to tuple, optional
        See :class:`IterableDataset`. Where the shape of a row is known, it has to be this one.

    Raises
    ------
    TypeError, ValueError
        If `data` are none of these, or have no rows of numbers; if `sample_shape` contradicts them.

    Examples
    --------
    >>> from pymc.data_loading.sources.dataset import as_source
    >>> as_source(np.zeros((6, 2, 3))).n_rows
    6
    >>> as_source(lambda: ([i, i] for i in range(4)), sample_shape=(2,)).layout.fields[0].shape
    (2,)
    """
    shape = check_sample_shape(sample_shape)
    source = next(kind for kind in KINDS if kind.has(data, shape)).open(data, shape)
    taken = isinstance(source, ArraySource | IterableSource) and source is not data
    if shape is not None and not taken:  # its rows have a shape, whatever is said
        check_shapes(source.layout, shape, repr(source))
    return source


def _refuse_path(data: Any, shape: SampleShape) -> BlockSource:
    raise TypeError(
        f"{data!r} is a path: open it as pm.parquet_source({data!r}), or give a function that reads it"
    )


def _from_arrays(data: Any, shape: SampleShape) -> BlockSource:
    return ArraySource.of(data, "data", shape)


def _from_dataset(data: IterableDataset, shape: SampleShape) -> BlockSource:
    return _iterable(data, shape if shape is not None else check_sample_shape(data.sample_shape))


def _iterable(data: Any, shape: SampleShape) -> BlockSource:
    n_rows = data.n_rows if isinstance(data, Counted) else None
    if callable(n_rows):  # a method of the user's
        n_rows = None
    if n_rows is not None:
        n_rows = check_int(n_rows, "n_rows", type(data).__name__)
    if isinstance(data, Iterator):
        return IterableSource(partial(iter, data), n_rows, shape, one_shot=True)
    if isinstance(data, Iterable):
        once = isinstance(data, IterableDataset) and isinstance(data._blocks, Iterator)
        return IterableSource(partial(iter, data), n_rows, shape, one_shot=once)
    if callable(data):
        return IterableSource(partial(_opened, data, shape), n_rows, shape)
    check_not_lazy(data)
    raise TypeError(
        f"rows cannot come from a {type(data).__name__}: give an array, a dict of arrays, a data frame, "
        f"pm.parquet_source(...), an iterable of blocks, or a function without arguments that returns one"
    )


def _opened(factory: Callable[[], Any], shape: SampleShape) -> Iterable[Any]:
    blocks = factory()
    once = isinstance(blocks, ArrowReader)
    if isinstance(blocks, Mapping) or is_frame(blocks) or is_array(blocks):
        return [blocks]
    if _is_table(blocks, shape):
        return [np.asarray(blocks)]
    if is_arrow(blocks) and not once:
        return [blocks]  # which is one block: its items would be rows, columns or names
    if not isinstance(blocks, Iterable):
        check_not_lazy(blocks)
        raise TypeError(
            f"the function that opens the data returned a {type(blocks).__name__}: it has to return an "
            f"iterable of blocks"
        )
    return blocks


def _is_table(data: Any, shape: SampleShape) -> bool:
    """Return whether data are a list of rows, each a list of as many numbers, and no list of blocks."""
    if not isinstance(data, list | tuple) or not data:
        return False
    if not all(isinstance(row, list | tuple) and len(row) == len(data[0]) > 0 for row in data):
        return False
    numbers = all(isinstance(value, Number | np.number | np.bool_) for row in data for value in row)
    return numbers and (shape is None or shape == (len(data[0]),))


def _has_samples(data: Any) -> bool:
    """Return whether data are a dataset of torch's kind: samples by number, and no iterator."""
    return isinstance(data, Samples) and not isinstance(data, Iterable)


def _from_torch(loader: Any, shape: SampleShape) -> BlockSource:
    """Return the rows of the dataset of somebody else's loader."""
    check_torch_loader(loader)
    dataset = loader.dataset
    if isinstance(dataset, BlockSource | Mapping) or is_frame(dataset):
        return as_source(dataset, sample_shape=shape)
    if (tensors := tensors_of(dataset)) is not None:
        named = (
            {"": tensors[0]} if len(tensors) == 1 else {str(i): t for i, t in enumerate(tensors)}
        )
        return ArraySource.of(named, "the loader's dataset", shape)
    streams = any(cls.__name__ == "IterableDataset" for cls in type(dataset).__mro__)
    if isinstance(dataset, Samples) and not streams:
        if is_array(dataset):
            return ArraySource.of(dataset, "the loader's dataset", shape)
        return SampleSource(dataset)
    if shape is None and loader.batch_size is not None and isinstance(dataset, Iterable):
        n_rows = len(dataset) if isinstance(dataset, Sized) else None
        return IterableSource(partial(map, _one_row, dataset), n_rows)
    return _iterable(dataset, shape)


def _one_row(sample: Any) -> dict[str, np.ndarray]:
    """Return a sample as a block of one row."""
    return {n: as_numbers(part, "a sample")[np.newaxis] for n, part in named_parts(sample).items()}


class Kind(NamedTuple):
    """A kind of data, and the source of its rows.

    Parameters
    ----------
    has : callable (data, sample_shape) -> bool
        Tells whether data are of it.
    open : callable (data, sample_shape) -> BlockSource
    """

    has: Callable[[Any, SampleShape], bool]
    open: Callable[[Any, SampleShape], BlockSource]


#: All kinds of data that a loader takes: the first one that fits is that of the data.
KINDS = (
    Kind(lambda data, _: isinstance(data, BlockSource), lambda data, _: data),
    Kind(lambda data, _: isinstance(data, str | bytes | os.PathLike), _refuse_path),
    Kind(lambda data, _: isinstance(data, IterableDataset), _from_dataset),
    Kind(lambda data, _: is_frame(data), lambda data, _: FrameSource.of(data)),
    Kind(lambda data, _: is_arrow(data), lambda data, _: arrow_source(data)),
    Kind(lambda data, _: isinstance(data, Mapping), _from_arrays),
    Kind(lambda data, _: is_array(data), _from_arrays),
    Kind(_is_table, _from_arrays),
    Kind(lambda data, _: is_torch_loader(data), _from_torch),
    Kind(lambda data, _: _has_samples(data), lambda data, _: SampleSource(data)),
    Kind(lambda data, _: True, _iterable),
)
