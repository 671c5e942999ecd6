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
"""Log-weights of joint draws of all variables of a guided approximation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt

from pymc.util import RandomState, _get_seeds_per_chain
from pymc.variational.objectives.base import Setting, log_weights
from pymc.variational.sampling.functions import RowFunction, draw_guides, row_axes, row_params
from pymc.variational.sampling.sampler import FLOATS_AT_ONCE
from pymc.variational.sampling.selection import select_rows

__all__ = ["joint_log_weights"]


def joint_log_weights(
    approx: Any, draws: int, random_seed: RandomState = None, mode: Any = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw all variables of all rows, with the log-ratio of the joint density and of the guides'.

    Parameters
    ----------
    approx : GuidedApproximation
    draws : int
    random_seed : int, RandomState or Generator, optional
    mode : optional
        Of the compilation.

    Returns
    -------
    points : dict of str to array, shape (draws, ...)
        By name of the value variable, on the unconstrained space.
    log_weights : array of float64, shape (draws,)
        log p - log q in nats, of all rows.
    """
    n_draws, params = pt.lscalar("n_draws"), row_params(approx)
    found = draw_guides(approx, params, (n_draws,))
    setting = Setting(approx.model, approx.terms, approx.guides, approx.storage.here(params))
    weights = log_weights(setting, found)
    total = weights.glob
    for plate, rows in weights.rows.items():
        total = total + rows.sum(axis=tuple(range(-len(plate), 0)))
    values = found.values()
    [seed] = _get_seeds_per_chain(random_seed, 1)
    outputs = [total, *values.values()]
    draw = RowFunction.of(approx, outputs, n_draws, params, random_seed=seed, mode=mode)
    selection = select_rows(approx.model, row_axes(approx), None)
    at_once = max(FLOATS_AT_ONCE // max(approx.ndim, 1), 1)
    sizes = [min(at_once, draws - done) for done in range(0, draws, at_once)]
    parts = [draw(size, selection) for size in sizes]
    totals = [np.broadcast_to(part[0], (size,)) for part, size in zip(parts, sizes)]
    arrays = [np.concatenate(each) for each in zip(*(part[1:] for part in parts))]
    names = [value.name or "" for value in values]
    return dict(zip(names, arrays)), np.concatenate(totals).astype("float64")
