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
"""Rows of datasets in the manner of torch: samples by their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pymc.variational.streaming.sources.arrays import ArrayBlock
from pymc.variational.streaming.sources.items import named_parts
from pymc.variational.streaming.sources.layout import Block, Layout, Source
from pymc.variational.streaming.sources.parts import Slices
from pymc.variational.streaming.sources.values import as_numbers, field_of

__all__ = ["SampleSource"]

#: Samples that are gathered at once
PART_ROWS = 1024


@dataclass(frozen=True, eq=False, repr=False)
class SampleSource(Source):
    """Rows of a dataset with ``__getitem__`` and ``__len__``: each sample is a row.

    Parameters
    ----------
    dataset : object
        ``dataset[i]`` is a number, an array or tensor, or a tuple or dict of these.

    Examples
    --------
    >>> from pymc.variational.streaming.sources.samples import SampleSource
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
        rows = self._stack(range(1))
        return Layout(tuple(field_of(n, array, "sample 0") for n, array in rows.items()))

    @property
    def identity(self) -> dict[str, Any]:
        """Rows and schema."""
        return {"kind": "samples", "n_rows": self.n_rows, "schema": self.layout.schema}

    def _stack(self, which: range) -> dict[str, np.ndarray]:
        samples = [_numbers(self.dataset[i], f"sample {i}") for i in which]
        first = samples[0]
        for i, sample in zip(which, samples, strict=True):
            if (found := _kinds(sample)) != (expected := _kinds(first)):
                raise ValueError(
                    f"sample {i} is not like sample {which[0]}: {found} and {expected} (shape and dtype)"
                )
        return {name: np.stack([sample[name] for sample in samples]) for name in first}

    def read(self, part: int) -> Block:
        """Return some samples.

        Raises
        ------
        TypeError, ValueError
            If a sample is nothing of numbers, or is not like the others.
        """
        start, stop = self._slices[part].start, self._slices[part].stop
        rows = self._stack(range(start, stop))
        expected = {f.name: (f.shape, f.dtype) for f in self.layout.fields}
        found = {name: (array.shape[1:], array.dtype) for name, array in rows.items()}
        if found != expected:
            raise ValueError(f"sample {start} is not like sample 0: {found} and {expected}")
        arrays = tuple(rows[field.name] for field in self.layout.fields)
        return ArrayBlock(self.layout, arrays, "the dataset", start)


def _numbers(sample: Any, where: str) -> dict[str, np.ndarray]:
    parts = named_parts(tuple(sample) if isinstance(sample, tuple | list) else sample)
    return {
        name: as_numbers(part, f"{where}[{name!r}]" if name else where)
        for name, part in parts.items()
    }


def _kinds(sample: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: (array.shape, array.dtype.name) for name, array in sample.items()}
