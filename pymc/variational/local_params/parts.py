# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""An array of which one part at a time is in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Parts"]


@dataclass(frozen=True, eq=False)
class Parts:
    """An array in parts along its first axis, of which one at a time is made or read.

    Parameters
    ----------
    lengths : sequence of int
        Of the parts.
    row_shape : tuple of int
        The rest of the shape.
    dtype : dtype
    part : callable (k) -> array
    """

    lengths: Sequence[int]
    row_shape: tuple[int, ...]
    dtype: np.dtype
    part: Callable[[int], np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(self.lengths), *self.row_shape)
