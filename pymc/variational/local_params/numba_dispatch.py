# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""First occurrences on Numba, by an open hash table of the rows seen so far."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pytensor.graph.basic import Apply
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from pymc.variational.local_params.row_optimizer import FirstOccurrence

# Part of the key of PyTensor's cache of compiled functions: raise it when the code below changes.
CACHE_VERSION = 1

EMPTY = np.int64(-1)
# Odd, and near 2^64 over the golden ratio: its products differ in their middle bits (Knuth, 6.4)
SPREAD = np.int64(-7046029254386353131)
SHIFT = np.int64(20)


@numba_njit
def first_occurrence(index: np.ndarray) -> np.ndarray:
    """Return the first occurrences, in a time proportional to the number of slots."""
    n_slots, n_places = index.shape[0], 1
    while n_places < 2 * n_slots:
        n_places *= 2
    mask = n_places - 1
    slot_at = np.full(n_places, EMPTY, np.int64)
    first = np.empty(n_slots, np.int64)
    for slot in range(n_slots):
        place = (index[slot] * SPREAD >> SHIFT) & mask
        while slot_at[place] != EMPTY and index[slot_at[place]] != index[slot]:
            place = (place + 1) & mask
        if slot_at[place] == EMPTY:
            slot_at[place] = slot
        first[slot] = slot_at[place]
    return first


@register_funcify_default_op_cache_key(FirstOccurrence)
def numba_funcify_FirstOccurrence(
    op: FirstOccurrence, node: Apply, **kwargs: Any
) -> tuple[Callable, int]:
    """Return the function for any number of slots."""
    return first_occurrence, CACHE_VERSION
