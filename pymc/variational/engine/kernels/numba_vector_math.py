# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Exponentials and logarithms without branches or calls, so that LLVM vectorises loops with them.

Errors are below one unit in the last place. Subnormal numbers, overflow, infinity and nan are selected at the end. A number
of float32 is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from typing import Any

import numpy as np

from pytensor.graph.basic import Apply
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from pymc.variational.engine.kernels.numba_rows import version_of
from pymc.variational.engine.kernels.vector_math import VectorMath

CACHE_VERSION = version_of(__file__)

#: log 2 in two parts: multiples of the first are exact
LOG2_HIGH, LOG2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
LOG2_E = 1.4426950408889634

#: Added to a number below 2**51, it leaves the nearest integer in the low bits
ROUND = 1.5 * 2.0**52
ROUND_BITS = int(np.float64(ROUND).view(np.int64))

SQRT_HALF_BITS = int(np.float64(np.sqrt(0.5)).view(np.int64))
#: Coefficients of (exp(r) - 1 - r) / r², and of 2 (atanh(s) / s - 1) / s² in powers of s². What is left out is below 1e-17
EXP_SERIES = tuple(1 / factorial(j) for j in range(14, 1, -1))
ATANH_SERIES = tuple(2 / j for j in range(25, 1, -2))

SMALLEST_NORMAL, TWO_54 = float(np.finfo(np.float64).tiny), 2.0**54


# In the order of the operations, which is what makes them exact
exactly = numba_njit(fastmath=False, error_model="numpy", forceinline=True)


@exactly
def power_of_two(k: int) -> float:
    """Return 2.0 ** k of a normal number."""
    return np.int64((k + 1023) << 52).view(np.float64)


@exactly
def polynomial(coefficients: tuple[float, ...], x: float) -> float:
    """Return the value of a polynomial, whose first coefficient is that of the highest power."""
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


@exactly
def vector_exp(x: float) -> float:
    """Return exp(x) = 2 ** k * exp(r), where abs(r) is at most log(2) / 2."""
    y = min(max(np.float64(x), -746.0), 710.0)  # nan, the first argument, stays
    rounded = y * LOG2_E + ROUND
    k = rounded - ROUND
    r = (y - k * LOG2_HIGH) - k * LOG2_LOW
    power = 1.0 + (r + r * r * polynomial(EXP_SERIES, r))
    n = np.int64(np.float64(rounded).view(np.int64) - ROUND_BITS)
    half = n >> 1  # in two factors, since 2.0 ** 1024 and subnormal powers are none
    return power * power_of_two(half) * power_of_two(n - half)


@exactly
def exponent_and_rest(u: float) -> tuple[float, float]:
    """Return k and f with u = 2 ** k * (1 + f), where 1 + f is between the roots of 1/2 and 2."""
    is_small = u < SMALLEST_NORMAL
    bits = np.int64(np.float64(u * TWO_54 if is_small else u).view(np.int64))
    k = (bits - SQRT_HALF_BITS) >> 52
    rest = np.int64(bits - (k << 52)).view(np.float64)
    exponent = np.int64(k + ROUND_BITS).view(np.float64) - ROUND
    return exponent - 54.0 if is_small else exponent, rest - 1.0


@exactly
def log_of_parts(k: float, f: float, c: float) -> float:
    """Return ``k log(2) + log(1 + f) + c``, for a c that is small beside f."""
    s = f / (2.0 + f)  # log(1 + f) = 2 atanh(s)
    z = s * s
    h = 0.5 * f * f
    rest = s * (h + z * polynomial(ATANH_SERIES, z)) + (
        k * LOG2_LOW + c
    )  # of log(1 + f) = f - h + rest
    return k * LOG2_HIGH - ((h - rest) - f)


@exactly
def vector_log(x: float) -> float:
    """Return log(x)."""
    x = np.float64(x)
    k, f = exponent_and_rest(x)
    result = log_of_parts(k, f, 0.0)
    result = x if x == np.inf else result
    result = -np.inf if x == 0.0 else result
    return result if x >= 0.0 else np.nan


@exactly
def vector_log1p(x: float) -> float:
    """Return log(1 + x)."""
    x = np.float64(x)
    u = 1.0 + x
    # What rounding has left out of u, over u
    lost = (x - (u - 1.0) if x < 1.0 else 1.0 - (u - x)) / u
    k, f = exponent_and_rest(u)
    result = log_of_parts(k, f, lost)
    result = x if x == np.inf else result
    result = -np.inf if x == -1.0 else result
    return result if x >= -1.0 else np.nan


@exactly
def vector_sigmoid(x: float) -> float:
    """Return 1 / (1 + exp(-x)), where exp(-x) may overflow."""
    power = vector_exp(-abs(x))
    return (1.0 if x >= 0.0 else power) / (1.0 + power)


@exactly
def vector_softplus(x: float) -> float:
    """Return log(1 + exp(x)), where exp(x) may overflow."""
    return max(x, 0.0) + vector_log1p(vector_exp(-abs(x)))


FUNCTIONS = {
    "exp": vector_exp,
    "log": vector_log,
    "log1p": vector_log1p,
    "sigmoid": vector_sigmoid,
    "softplus": vector_softplus,
}


@register_funcify_default_op_cache_key(VectorMath)
def numba_funcify_VectorMath(op: VectorMath, node: Apply, **kwargs: Any) -> tuple[Callable, int]:
    """Return the loop for arrays of any layout."""
    function = FUNCTIONS[op.name]

    @numba_njit(boundscheck=False)
    def vector_math(x: np.ndarray) -> np.ndarray:
        out = np.empty(x.shape, x.dtype)
        source, target = np.ascontiguousarray(x).reshape(-1), out.reshape(-1)
        for i in range(source.shape[0]):
            target[i] = function(source[i])
        return out

    return vector_math, CACHE_VERSION
