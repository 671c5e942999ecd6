# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""How many batches are wanted of a reader, which waits where there are enough."""

from __future__ import annotations

from threading import Condition

__all__ = ["Demand"]


class Demand:
    """How many batches are wanted in all. It grows while they are read, in another thread.

    Parameters
    ----------
    n_batches : float
        May be infinite.

    Examples
    --------
    >>> from pymc.data_loading.demand import Demand
    >>> demand = Demand()
    >>> demand.raise_to(3)
    >>> demand.wait_for_more(2), demand.n_batches
    (True, 3)
    """

    def __init__(self, n_batches: float = 0) -> None:
        self.n_batches = n_batches
        self._closed = False
        self._changed = Condition()

    def raise_to(self, n_batches: float) -> None:
        """Want so many, if it is more than before."""
        with self._changed:
            self.n_batches = max(self.n_batches, n_batches)
            self._changed.notify_all()

    def close(self) -> None:
        """Want no more, for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_for_more(self, n_made: int) -> bool:
        """Wait until more than `n_made` are wanted; return False when none ever will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.n_batches > n_made)
            return not self._closed
