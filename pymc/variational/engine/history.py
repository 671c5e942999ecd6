# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The losses of a fit, which grow as it goes on."""

from __future__ import annotations

import numpy as np

__all__ = ["LossHistory"]


class LossHistory:
    """Losses in one array, with room that doubles when it is used up.

    Examples
    --------
    >>> from pymc.variational.engine.history import LossHistory
    >>> history = LossHistory()
    >>> history.extend(np.array([3.0, 2.0]))
    >>> history.losses
    array([3., 2.])
    """

    def __init__(self) -> None:
        self._room = np.empty(1024)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def losses(self) -> np.ndarray:
        """All losses, float64 of shape (n_steps,): a view, which later losses do not change."""
        return self._room[: self._n]

    def extend(self, losses: np.ndarray) -> None:
        """Add the losses of the last steps, shape (n,)."""
        needed = self._n + len(losses)
        if needed > len(self._room):
            room = np.empty(max(needed, 2 * len(self._room)))
            room[: self._n] = self.losses
            self._room = room
        self._room[self._n : needed] = losses
        self._n = needed

    def recent_mean(self, n: int = 1000) -> float:
        """Mean of the last `n` losses that are finite, nan if none is."""
        recent = self.losses[-n:]
        recent = recent[np.isfinite(recent)]
        return float(recent.mean()) if recent.size else np.nan
