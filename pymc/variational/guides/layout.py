# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Values of several variables side by side: as a vector, or a matrix with a line for each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.variational.guides.base import Plate, Site, plate_shape

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Where each variable of one plate is in a flat array.

    Parameters
    ----------
    sites : tuple of Site
        All of one plate.
    shapes : tuple of tuple of int
        For each site, the shape of what one row has: the value's shape without the plate's axes.
    """

    sites: tuple[Site, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, sites: Sequence[Site], point: Mapping[str, np.ndarray]) -> Layout:
        """Read the shapes from a point: the values of all rows or of a batch, by name."""
        shapes = tuple(
            tuple(
                int(n)
                for n, axis in zip(np.shape(point[site.value.name or ""]), site.axes)
                if axis is None
            )
            for site in sites
        )
        return cls(tuple(sites), shapes)

    @property
    def plate(self) -> Plate:
        return self.sites[0].plate

    @property
    def name(self) -> str:
        """What the names of parameters begin with."""
        return (self.plate[0].dim or "rows") if self.plate else "globals"

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(int(np.prod(shape)) for shape in self.shapes)

    @property
    def size(self) -> int:
        """How many numbers a row has."""
        return sum(self.sizes)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where the numbers of each site are."""
        ends = np.cumsum(self.sizes, dtype=int).tolist()
        return tuple(slice(end - size, end) for end, size in zip(ends, self.sizes))

    def entry(self, k: int) -> str:
        """Name the entry that a number of a row is of: the variable, with an index if it has several."""
        for site, shape, part in zip(self.sites, self.shapes, self.slices):
            if k < part.stop:
                at = ", ".join(map(str, np.unravel_index(k - part.start, shape))) if shape else ""
                return f"{site.name}[{at}]" if at else site.name
        raise IndexError(f"{k} is beyond the last entry")

    def shape(self) -> tuple:
        """Shape of the flat array of a batch: (size,), or (rows, size)."""
        rows = plate_shape(self.plate)
        if not rows:
            return (self.size,)
        return (pt.mul(*rows) if len(rows) > 1 else rows[0], self.size)

    def flatten(self, point: Mapping[str, np.ndarray]) -> np.ndarray:
        """Put the values of a point side by side: shape (size,), or (rows, size)."""
        n_rows = len(self.plate)
        lines = []
        for site in self.sites:
            value = np.asarray(point[site.value.name or ""])
            places = [k for k, axis in enumerate(site.axes) if axis is not None]
            moved = np.moveaxis(value, places, range(n_rows))
            lead = int(np.prod(moved.shape[:n_rows])) if n_rows else 1
            lines.append(moved.reshape(lead, -1))
        flat = np.concatenate(lines, axis=1)
        return flat if n_rows else flat[0]

    def split(self, flat: Variable, n_lead: int) -> dict[Site, Variable]:
        """Take a flat array with `n_lead` leading axes apart, into values of the sites."""
        rows = plate_shape(self.plate)
        lead = tuple(flat.shape[k] for k in range(n_lead))
        values = {}
        for site, shape, place in zip(self.sites, self.shapes, self.slices):
            part = flat[..., place.start] if shape == () else flat[..., place]
            if len(rows) > 1 or len(shape) > 1 or (not rows and len(shape) > 1):
                part = part.reshape((*lead, *rows, *shape))
            places = [n_lead + k for k, axis in enumerate(site.axes) if axis is not None]
            now = list(range(n_lead, n_lead + len(rows)))
            values[site] = part if places == now else pt.moveaxis(part, now, places)
        return values

    def join(self, values: Mapping[Site, Variable], n_lead: int) -> Variable:
        """Put values of the sites side by side; the inverse of `split`."""
        n_rows, parts = len(self.plate), []
        for site, size in zip(self.sites, self.sizes):
            places = [n_lead + k for k, axis in enumerate(site.axes) if axis is not None]
            part = pt.moveaxis(values[site], places, list(range(n_lead, n_lead + n_rows)))
            lead = tuple(part.shape[k] for k in range(n_lead))
            parts.append(part.reshape((*lead, *self.shape()[:-1], size)))
        return pt.concatenate(parts, axis=-1)

    def by_row_axes(self, logq: Variable, n_lead: int) -> Variable:
        """Give a value for each row, (..., rows), the axes of the plate."""
        if len(self.plate) < 2:
            return logq
        lead = tuple(logq.shape[k] for k in range(n_lead))
        return logq.reshape((*lead, *plate_shape(self.plate)))
