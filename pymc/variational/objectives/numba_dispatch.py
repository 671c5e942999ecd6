# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The median on Numba: bounds from a sample, then a selection among the numbers between them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pytensor.graph.basic import Apply
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from pymc.variational.objectives.median import Median

# Part of the key of PyTensor's cache of compiled functions: raise it when the code below changes.
CACHE_VERSION = 1

# The median's rank in a sample has a standard deviation of half the root of its size: 32. It lies outside
# these bounds by chance once in 30,000 arrays, which takes longer and has the same result.
SAMPLE, MARGIN = 4096, 128
# A sample of fewer numbers is no gain
MANY = 4 * SAMPLE
# By the golden ratio: multiples of it are spread evenly over an array, and not along its diagonals
SPREAD = np.int64(2654435761)


@numba_njit
def numbers_between(x: np.ndarray, low: Any, high: Any) -> tuple[int, np.ndarray]:
    """Return how many numbers are below `low`, and those from `low` to `high`."""
    n_below, n_between = 0, 0
    between = np.empty_like(x)
    # Without branches, which no processor would foresee
    for number in x:
        between[n_between] = number
        n_below += number < low
        n_between += (number >= low) & (number <= high)
    return n_below, between[:n_between]


@numba_njit
def median(array: np.ndarray) -> np.ndarray:
    """Return the median as an array of shape ()."""
    x = array.ravel()
    n, rank = x.size, x.size // 2
    if n >= MANY:
        sample = np.empty(SAMPLE, x.dtype)
        for i in range(SAMPLE):
            sample[i] = x[i * SPREAD % n]
        sample.sort()
        n_below, between = numbers_between(
            x, sample[SAMPLE // 2 - MARGIN], sample[SAMPLE // 2 + MARGIN]
        )
        if n_below < rank < n_below + between.size:
            x, rank = between, rank - n_below
    parts = np.partition(x, rank)
    if n % 2 == 1:
        return np.asarray(parts[rank])
    return np.asarray((parts[:rank].max() + parts[rank]) / x.dtype.type(2))


@register_funcify_default_op_cache_key(Median)
def numba_funcify_Median(op: Median, node: Apply, **kwargs: Any) -> tuple[Callable, int]:
    """Return the function for an array of any shape."""
    return median, CACHE_VERSION
