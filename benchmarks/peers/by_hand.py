# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The fit of :class:`Normals` written by hand as one Numba loop: how fast a step can be on this machine.

Mean-field, one draw a step, Adam; the gradient is worked out on paper, nothing of the size of a batch
is written to memory, and the compiler may reorder sums, as it may for PyTensor's functions. Rows are
drawn with replacement by NumPy's generator.

There are two: rows are read one after another, as one writes it, or four at a time (``"block": 4``),
so that the processor waits for several rows of the gather at once.
"""

import math

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from _problems import Normals, Posterior

from peers import ANNEALING, LEARNING_RATE

COMPILED = {"fastmath": True, "error_model": "numpy", "boundscheck": False}


class ByHand:
    """The state of the loop.

    Parameters
    ----------
    data : Normals
    block : {1, 4}
        How many rows are read at once.
    """

    compiles_each_call = False

    def __init__(self, data: Normals, block: int) -> None:
        self.data, self.rate, self.n_taken = data, LEARNING_RATE, 0
        dtype, n_columns = data.data.dtype, data.data.shape[1]
        self.rows = np.array(data.data)  # a file that is mapped into memory is read here
        # location, rho, and their first and second moments; a row for mu and one for log sd
        self.state = tuple(np.zeros((2, n_columns), dtype) for _ in range(6))
        self.rng = np.random.default_rng(1)
        self.loop = compile_loop(dtype.type, {1: sums_by_row, 4: sums_by_four}[block])

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        losses = np.empty(n_steps, self.rows.dtype)
        batch_size = self.data.batch_size
        self.loop(losses, self.rows, batch_size, self.rate, self.n_taken, self.rng, *self.state)
        self.n_taken += n_steps
        return losses

    def anneal(self) -> None:
        for self.rate, n_steps in ANNEALING:
            self.run(n_steps)

    def posterior(self) -> Posterior:
        location, rho = (part.astype("float64").ravel() for part in self.state[:2])
        return Posterior(location, np.log1p(np.exp(rho)))


def start(data: Normals, settings: dict[str, Any]) -> ByHand:
    """Make the loop, which Numba compiles at its first call."""
    return ByHand(data, settings["block"])


@numba.njit(**COMPILED)
def sums_by_row(data, rows, mu, sums, squares):
    """Write the sum of y - mu and of its square over the rows, for each column."""
    sums[:], squares[:] = 0, 0
    for i in rows:
        y = data[i]
        for j in range(mu.shape[0]):
            residual = y[j] - mu[j]
            sums[j] += residual
            squares[j] += residual * residual


@numba.njit(**COMPILED)
def sums_by_four(data, rows, mu, sums, squares):
    """Write the same, four rows at a time."""
    sums[:], squares[:] = 0, 0
    whole = rows.shape[0] - rows.shape[0] % 4
    for i in range(0, whole, 4):
        y0, y1, y2, y3 = data[rows[i]], data[rows[i + 1]], data[rows[i + 2]], data[rows[i + 3]]
        for j in range(mu.shape[0]):
            r0, r1, r2, r3 = y0[j] - mu[j], y1[j] - mu[j], y2[j] - mu[j], y3[j] - mu[j]
            sums[j] += (r0 + r1) + (r2 + r3)
            squares[j] += (r0 * r0 + r1 * r1) + (r2 * r2 + r3 * r3)
    for i in rows[whole:]:
        y = data[i]
        for j in range(mu.shape[0]):
            residual = y[j] - mu[j]
            sums[j] += residual
            squares[j] += residual * residual


def compile_loop(number: Callable[[float], Any], sum_rows: Callable[..., None]) -> Any:
    """Make the loop over steps; `number` is the type of all floats in it."""
    zero, one, half = number(0), number(1), number(0.5)
    log_2pi = number(math.log(2 * math.pi))
    keep_1, keep_2, epsilon = number(0.9), number(0.999), number(1e-8)
    prior_precision = number(1e-10)

    @numba.njit(**COMPILED)
    def adam(parameter, gradient, first, second, rate):
        first = keep_1 * first + (one - keep_1) * gradient
        second = keep_2 * second + (one - keep_2) * gradient * gradient
        return parameter - rate * first / (math.sqrt(second) + epsilon), first, second

    @numba.njit(**COMPILED)
    def loop(losses, data, batch_size, rate, n_taken, rng, location, rho, *moments):
        location_1, location_2, rho_1, rho_2 = moments
        n_rows, n_columns = data.shape
        share = number(batch_size / n_rows)  # PyMC's loss is that of a batch, in nats
        scale = number(n_rows / batch_size)
        noise = np.empty((2, n_columns), data.dtype)
        width, value = np.empty_like(noise), np.empty_like(noise)
        sums, squares = np.empty(n_columns, data.dtype), np.empty(n_columns, data.dtype)
        for k in range(losses.shape[0]):
            step = n_taken + k + 1
            step_rate = number(rate * math.sqrt(1 - 0.999**step) / (1 - 0.9**step))
            rows = rng.integers(0, n_rows, batch_size)
            for v in range(2):
                for j in range(n_columns):
                    noise[v, j] = rng.standard_normal()
            for v in range(2):
                for j in range(n_columns):
                    width[v, j] = math.log1p(math.exp(rho[v, j]))
                    value[v, j] = location[v, j] + width[v, j] * noise[v, j]
            sum_rows(data, rows, value[0], sums, squares)
            loss = zero
            for j in range(n_columns):
                mu, log_sd = value[0, j], value[1, j]
                variance = math.exp(log_sd + log_sd)
                precision = one / variance
                # logp of the rows, of mu, and of log_sd with its Jacobian
                square = scale * squares[j] * precision
                loss += half * (square + mu * mu * prior_precision + variance) - log_sd
                loss += number(n_rows) * (log_sd + half * log_2pi)
                slopes = (
                    mu * prior_precision - scale * sums[j] * precision,
                    number(n_rows) - square + variance - one,
                )
                for v in range(2):
                    # logq: its gradient is that of -log(width), as the draw moves with the guide
                    loss -= half * noise[v, j] * noise[v, j] + math.log(width[v, j])
                    growth = one - math.exp(-width[v, j])  # of the width with rho
                    to_location = share * slopes[v]
                    to_rho = share * (slopes[v] * noise[v, j] - one / width[v, j]) * growth
                    location[v, j], location_1[v, j], location_2[v, j] = adam(
                        location[v, j], to_location, location_1[v, j], location_2[v, j], step_rate
                    )
                    rho[v, j], rho_1[v, j], rho_2[v, j] = adam(
                        rho[v, j], to_rho, rho_1[v, j], rho_2[v, j], step_rate
                    )
            losses[k] = share * loss

    return loop
