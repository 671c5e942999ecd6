# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows of datasets in the manner of torch: samples by their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pymc.data_loading.sources.arrays import ArrayBlock
from pymc.data_loading.sources.items import named_parts
from pymc.data_loading.sources.layout import Block, BlockSource, Layout
from pymc.data_loading.sources.parts import Slices
from pymc.data_loading.sources.values import as_field, as_numbers, field_of

__all__ = ["SampleSource"]

#: Samples that are gathered at once
PART_ROWS = 1024


@dataclass(frozen=True, eq=False, repr=False)
class SampleSource(BlockSource):
    """Rows of a dataset with ``__getitem__`` and ``__len__``: each sample is a row.

    Parameters
    ----------
    dataset : object
        ``dataset[i]`` is a number, an array or tensor, or a tuple or dict of these.

    Examples
    --------
    >>> from pymc.data_loading.sources.samples import SampleSource
    >>> class Squares:
    ...     def __len__(self):
    ...         return 4
    ...
    ...     def __getitem__(self, i):
    ...         return {"x": np.array([i, -i]), "y": i**2}
    >>> source = SampleSource(Squares())
    >>> source.n_rows, [field.shape for field in source.layout.fields]
    (4, [(2,), ()])
    """

    dataset: Any

    @property
    def n_rows(self) -> int:
        """How many samples there are."""
        return len(self.dataset)

    def _told(self) -> list[str]:
        return [f"samples of {type(self.dataset).__name__}", *super()._told()]

    @cached_property
    def _slices(self) -> Slices:
        return Slices(self.n_rows, PART_ROWS)

    @cached_property
    def part_lengths(self) -> tuple[int, ...]:
        """How many samples are gathered at once."""
        return self._slices.lengths

    @cached_property
    def layout(self) -> Layout:
        """What a batch is like. The first sample is read for it.

        Raises
        ------
        TypeError, ValueError
            If it is nothing of numbers, or there is none.
        """
        if self.n_rows == 0:
            raise ValueError("the dataset has no rows: its length is 0")
        first = _numbers(self.dataset[0], "sample 0")
        return Layout(tuple(field_of(n, a[np.newaxis], "sample 0") for n, a in first.items()))

    @property
    def identity(self) -> dict[str, Any]:
        """Rows and schema."""
        return {"kind": "samples", "n_rows": self.n_rows, "schema": self.layout.schema}

    def read(self, part: int) -> Block:
        """Return some samples.

        Raises
        ------
        TypeError, ValueError
            If a sample is nothing of numbers, or is not like the first.
        """
        start, stop = self._slices[part].start, self._slices[part].stop
        arrays = self.layout.empty(stop - start)
        for i in range(start, stop):
            sample = self._like_first(_numbers(self.dataset[i], f"sample {i}"), f"sample {i}")
            for out, value in zip(arrays, sample, strict=True):
                out[i - start] = value
        return ArrayBlock(self.layout, arrays, "the dataset", start)

    def _like_first(self, sample: Mapping[str, np.ndarray], where: str) -> list[np.ndarray]:
        fields = self.layout.fields
        expected = {f.name: (f.shape, f.dtype.name) for f in fields}
        found = {name: (array.shape, array.dtype.name) for name, array in sample.items()}
        shapes = {name: shape for name, (shape, _) in found.items()}
        if shapes == {field.name: field.shape for field in fields}:
            held = [as_field(sample[f.name], f.dtype, where) for f in fields]
            if all(array is not None for array in held):
                return held  # type: ignore[return-value]
        raise ValueError(f"{where} is not like sample 0: {found} and {expected} (shape and dtype)")


def _numbers(sample: Any, where: str) -> dict[str, np.ndarray]:
    parts = named_parts(tuple(sample) if isinstance(sample, tuple | list) else sample)
    return {
        name: as_numbers(part, f"{where}[{name!r}]" if name else where)
        for name, part in parts.items()
    }
