# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.Source`, `pm.IterableDataset`, and the source of the rows of any data that a loader takes."""

from __future__ import annotations

import os

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import cached_property, partial
from numbers import Number
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from pymc.argument_checks import check_int
from pymc.data_loading.sources.arrays import (
    ArraySource,
    Indexable,
    SampleShape,
    as_numbers,
    check_shapes,
    is_array,
)
from pymc.data_loading.sources.arrow import (
    ArrowReader,
    TableReader,
    TableSource,
    arrow_source,
    check_not_lazy,
    is_arrow,
    is_table,
)
from pymc.data_loading.sources.iterables import (
    ArrayReader,
    ItemReader,
    IterableSource,
    SampleSource,
    name_of,
    named_parts,
)
from pymc.data_loading.sources.layout import Block, BlockSource, Layout

__all__ = ["IterableDataset", "Source"]

#: Samplers of torch that give all rows of a data set; the last one goes with its iterable data sets
SAMPLERS = {"SequentialSampler", "RandomSampler", "_InfiniteConstantSampler"}
#: Functions by which torch makes batches unless users set another: they change no value
COLLATES = {"default_collate", "default_convert"}


@runtime_checkable
class Samples(Protocol):
    """A dataset in the manner of torch: samples by their number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


@runtime_checkable
class Counted(Protocol):
    n_rows: Any


class Source(BlockSource):
    """Rows in parts, which are read alone and in any order: subclass it to read data of your own.

    A subclass has two methods: `part_lengths` says how many rows each part has, and `load` reads a part.
    Everything else has a default. Rows are shuffled within windows and part by part, and a fit resumes
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
            The number of the part, ``0 <= part < len(part_lengths)``.

        Returns
        -------
        array, dict of arrays, DataFrame or Arrow table
            Rows along the first axis, as many as `part_lengths` says, and alike in all parts.
        """

    @property
    def n_rows(self) -> int:
        """The number of rows in all parts."""
        return sum(self.part_lengths)

    @property
    def layout(self) -> Layout:
        """The layout of a batch. The first part is read for it."""
        return self._reader.layout

    @property
    def identity(self) -> Mapping[str, Any]:
        """Facts in JSON by which a checkpoint recognises the data. They include no folder's name."""
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
        part = next((part for part, length in enumerate(self.part_lengths) if length), None)
        if part is None:
            raise ValueError(f"{self!r} has no rows: part_lengths is {self.part_lengths}")
        return read_first(self.load(part), f"part {part} of {self!r}")


def read_first(item: Any, where: str, sample_shape: SampleShape = None) -> ItemReader:
    """Return the reader of items like this one: arrays, a dict or tuple of them, or a table."""
    if not is_table(item):
        return ArrayReader.of(item, sample_shape, where)
    reader = TableReader.of(item, where)
    if sample_shape is not None:
        check_shapes(reader.layout, sample_shape, where)
    return reader


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
        The number of rows, if it is known. Otherwise a loader counts them once.
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
                f"blocks of IterableDataset is of type {type(blocks).__name__}: it has to be a function that "
                f"opens the data, or an iterable of blocks. A loader takes an array itself"
            )
        self._blocks = blocks
        if n_rows is not None:
            self.n_rows = check_int(n_rows, "n_rows", "IterableDataset")
        if sample_shape is not None:
            self.sample_shape = check_sample_shape(sample_shape)

    def __repr__(self) -> str:
        """Describe the dataset without reading it."""
        parts = [] if self._blocks is None else [name_of(self._blocks)]
        parts += [] if self.n_rows is None else [f"n_rows={self.n_rows}"]
        parts += [] if self.sample_shape is None else [f"sample_shape={self.sample_shape}"]
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
    """Return the shape of a row as a tuple, or as a dict of tuples; raise if it is none."""
    if shape is None:
        return None
    if isinstance(shape, Mapping):
        return {str(name): _check_shape(one) for name, one in shape.items()}
    return _check_shape(shape)


def _check_shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple | list):
        raise TypeError(
            f"sample_shape={shape!r} has to be the shape of one row: () for a number, (3,) for three"
        )
    return tuple(check_int(n, "sample_shape", "a loader") for n in shape)


def as_source(data: Any, *, sample_shape: Any = None) -> BlockSource:
    """Return the source of the rows of any data that a loader takes, see :class:`pymc.DataLoader`."""
    shape = check_sample_shape(sample_shape)
    source = _open(data, shape)
    uses_shape = isinstance(source, ArraySource | IterableSource) and source is not data
    if shape is not None and (is_arrow(data) or not uses_shape):
        check_shapes(source.layout, shape, repr(source))
    return source


def _open(data: Any, shape: SampleShape) -> BlockSource:
    """Return the source of the rows of data. The first kind that fits counts."""
    if isinstance(data, BlockSource):
        return data
    if isinstance(data, str | bytes | os.PathLike):
        raise TypeError(
            f"{data!r} is a path: open it as pm.parquet_source({data!r}), or give a function that reads it"
        )
    if isinstance(data, IterableDataset):
        return _iterable(data, check_sample_shape(data.sample_shape) if shape is None else shape)
    if isinstance(data, pd.DataFrame):
        return TableSource.of(data)
    if is_arrow(data):
        return arrow_source(data)
    if isinstance(data, Mapping) or is_array(data) or _is_rows(data, shape):
        return ArraySource.of(data, "data", shape)
    if _is_torch_loader(data):
        return _from_torch(data, shape)
    if isinstance(data, Samples) and not isinstance(data, Iterable):
        return SampleSource(data)
    return _iterable(data, shape)


def _iterable(data: Any, shape: SampleShape) -> BlockSource:
    n_rows = data.n_rows if isinstance(data, Counted) and not callable(data.n_rows) else None
    if n_rows is not None:
        n_rows = check_int(n_rows, "n_rows", type(data).__name__)
    if isinstance(data, Iterable):
        blocks = data._blocks if isinstance(data, IterableDataset) else data
        opened, one_shot = partial(iter, data), isinstance(blocks, Iterator)
    elif callable(data):
        opened, one_shot = partial(_call, data, shape), False
    else:
        check_not_lazy(data)
        raise TypeError(
            f"rows cannot come from a {type(data).__name__}: give an array, a dict of arrays, a data frame, "
            f"pm.parquet_source(...), an iterable of blocks, or a function without arguments that returns one"
        )
    first = partial(read_first, sample_shape=shape)
    return IterableSource(opened, first, n_rows, one_shot=one_shot)


def _call(factory: Callable[[], Any], shape: SampleShape) -> Iterable[Any]:
    """Return the blocks that a function opens. A single block counts as one."""
    blocks = factory()
    if _is_rows(blocks, shape):
        return [np.asarray(blocks)]
    if isinstance(blocks, Mapping) or is_array(blocks):
        return [blocks]
    if is_table(blocks) and not isinstance(blocks, ArrowReader):
        return [blocks]
    if not isinstance(blocks, Iterable):
        check_not_lazy(blocks)
        raise TypeError(
            f"the function that opens the data returned a {type(blocks).__name__}, not an iterable of blocks"
        )
    return blocks


def _is_rows(data: object, shape: SampleShape) -> bool:
    """Return whether data are a list of rows, each a list of as many numbers, and not of blocks."""
    if not isinstance(data, list | tuple) or not data:
        return False
    if not all(isinstance(row, list | tuple) and len(row) == len(data[0]) > 0 for row in data):
        return False
    numbers = all(isinstance(value, Number | np.number | np.bool_) for row in data for value in row)
    return numbers and (shape is None or shape == (len(data[0]),))


def _is_torch_loader(data: object) -> bool:
    """Return whether data are a loader in the manner of torch, whose rows are those of ``.dataset``.

    A data set, such as a ``Subset``, may have the attribute too, and so may an iterable of users.
    """
    if not (hasattr(data, "dataset") and hasattr(data, "batch_size")):
        return False
    return hasattr(data, "collate_fn") or not isinstance(data, Iterable | Indexable)


def shuffles(loader: object) -> bool:
    """Return whether a loader of torch shuffles."""
    return type(getattr(loader, "sampler", None)).__name__ == "RandomSampler"


def check_torch_loader(loader: Any) -> None:
    """Raise TypeError if a loader of torch leaves rows out or changes them, which reading misses."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    for kind, sampler, known in (
        ("batch_sampler", batch_sampler, {"BatchSampler"}),
        ("sampler", getattr(loader, "sampler", None), SAMPLERS),
        ("sampler", getattr(batch_sampler, "sampler", None), SAMPLERS),
    ):
        if sampler is not None and type(sampler).__name__ not in known:
            raise TypeError(
                f"the {kind} {type(sampler).__name__} of the loader, a {type(loader).__name__}, is not used: "
                f"all rows of loader.dataset are read, with those that it leaves out. Give the rows to fit: "
                f"pm.DataLoader(torch.utils.data.Subset(loader.dataset, indices), batch_size=...)"
            )
    collate = getattr(loader, "collate_fn", None)
    if collate is not None and name_of(collate) not in COLLATES:
        raise TypeError(
            f"collate_fn={collate!r} of the loader, a {type(loader).__name__}, is not called: rows are read "
            f"from loader.dataset. Change the samples in the data set's __getitem__, or give the batches "
            f"themselves, by a function: pm.DataLoader(lambda: iter(loader), batch_size=...)"
        )


def _from_torch(loader: Any, shape: SampleShape) -> BlockSource:
    """Return the rows of the dataset of a loader in the manner of torch."""
    check_torch_loader(loader)
    dataset = loader.dataset
    where = "the loader's dataset"
    if isinstance(dataset, BlockSource | Mapping | pd.DataFrame):
        return as_source(dataset, sample_shape=shape)
    if (tensors := _tensors(dataset)) is not None:
        return ArraySource.of(tensors, where, shape)
    streams = any(cls.__name__ == "IterableDataset" for cls in type(dataset).__mro__)
    if isinstance(dataset, Samples) and not streams:
        is_whole = is_array(dataset)
        return ArraySource.of(dataset, where, shape) if is_whole else SampleSource(dataset)
    if shape is None and loader.batch_size is not None and isinstance(dataset, Iterable):
        n_rows = len(dataset) if isinstance(dataset, Sized) else None
        return IterableSource(partial(map, _one_row, dataset), read_first, n_rows)
    return _iterable(dataset, shape)


def _tensors(dataset: object) -> dict[str, Any] | None:
    """Return the tensors of a ``TensorDataset`` of torch, which need not be read sample by sample.

    None for a dataset with samples of its own, such as one that transforms its tensors.
    """
    tensors = getattr(dataset, "tensors", None)
    if not (isinstance(tensors, tuple) and tensors):
        return None
    sample = getattr(type(dataset), "__getitem__", None)
    if sample is not None and str(getattr(sample, "__module__", "")).partition(".")[0] != "torch":
        return None
    return {str(i): t for i, t in enumerate(tensors)} if len(tensors) > 1 else {"": tensors[0]}


def _one_row(sample: Any) -> dict[str, np.ndarray]:
    """Return a sample as a block of one row."""
    return {n: as_numbers(part, "a sample")[np.newaxis] for n, part in named_parts(sample).items()}
