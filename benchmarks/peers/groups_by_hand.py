# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Steps of group effects written by hand: only the groups of a batch change."""

from time import perf_counter

import numba
import numpy as np

from _group_effects import BATCH, Groups


@numba.njit(fastmath=True)
def steps_by_hand(
    table: np.ndarray,
    shared: np.ndarray,
    moments: np.ndarray,
    group: np.ndarray,
    y: np.ndarray,
    shares: np.ndarray,
    slot_of: np.ndarray,
    n_steps: int,
) -> None:
    """Take steps of Adam: a line of `table` has mean, log sd, four moments and visits of a group."""
    n_rows, n_slots = len(y), BATCH
    who, slots = np.empty(n_slots, np.int64), np.empty(n_slots, np.int64)
    rows = np.empty(n_slots, np.int64)
    effects, noise, slopes, weights = np.empty((4, n_slots))
    z, slope = np.empty(3), np.empty(3)
    for step in range(1, n_steps + 1):
        for k in range(3):
            z[k] = np.random.standard_normal()
        drawn = shared[:, 0] + np.exp(shared[:, 1]) * z
        mu, prior, error = drawn[0], np.exp(-2 * drawn[1]), np.exp(-2 * drawn[2])
        slope[0] = -mu / 100
        slope[1], slope[2] = 1 - 1 / (4 * prior), 1 - 1 / (4 * error)
        n = 0
        for k in range(n_slots):
            rows[k] = np.random.randint(0, n_rows)
            g = group[rows[k]]
            if slot_of[g] < 0:
                slot_of[g], who[n] = n, g
                noise[n] = np.random.standard_normal()
                effects[n] = table[g, 0] + np.exp(table[g, 1]) * noise[n]
                slopes[n] = weights[n] = 0.0
                n += 1
            slots[k] = slot_of[g]
        scale = n_rows / n_slots
        for k in range(n_slots):
            j = slots[k]
            e, weight = effects[j], scale * shares[who[j]]
            residual = y[rows[k]] - mu - e
            slopes[j] += scale * residual * error - weight * e * prior
            weights[j] += weight
            slope[0] += scale * residual * error
            slope[1] += weight * (e * e * prior - 1)
            slope[2] += scale * (residual * residual * error - 1)
        for j in range(n):
            line = table[who[j]]
            slot_of[who[j]] = -1
            line[6] += 1
            spread = np.exp(line[1]) * noise[j]
            rate = 0.01 * np.sqrt(1 - 0.999 ** line[6]) / (1 - 0.9 ** line[6])
            for p, gradient in enumerate((-slopes[j], -(slopes[j] * spread + weights[j]))):
                line[2 + p] += 0.1 * (gradient - line[2 + p])
                line[4 + p] += 0.001 * (gradient * gradient - line[4 + p])
                line[p] -= rate * line[2 + p] / (np.sqrt(line[4 + p]) + 1e-8)
        rate = 0.01 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        for k in range(3):
            spread = np.exp(shared[k, 1]) * z[k]
            for p, gradient in enumerate((-slope[k], -(slope[k] * spread + 1))):
                moments[k, p] += 0.1 * (gradient - moments[k, p])
                moments[k, 2 + p] += 0.001 * (gradient * gradient - moments[k, 2 + p])
                shared[k, p] -= rate * moments[k, p] / (np.sqrt(moments[k, 2 + p]) + 1e-8)


def time_by_hand(data: Groups, n_steps: int) -> float:
    n_rows = np.bincount(data.group, minlength=data.n_groups)
    table, shared = np.zeros((data.n_groups, 8)), np.array([[0.0, -2.0]] * 3)
    arrays = (table, shared, np.zeros((3, 4)), data.group, data.y, 1 / np.maximum(n_rows, 1))
    slots = np.full(data.n_groups, -1)
    steps_by_hand(*arrays, slots, 1)
    begun = perf_counter()
    steps_by_hand(*arrays, slots, n_steps)
    return (perf_counter() - begun) / n_steps
