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

import logging

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable

from pymc.pytensorf import compile
from pymc.util import RandomState, _get_seeds_per_chain
from pymc.variational.memory import check_fits
from pymc.variational.objectives.base import Setting, log_weights
from pymc.variational.posterior.functions import (
    RowFunction,
    draw_guides,
    dynamic,
    row_axes,
    row_params,
)
from pymc.variational.posterior.row_weights import RowWeights, has_one_axis
from pymc.variational.posterior.sampler import FLOATS_AT_ONCE
from pymc.variational.posterior.selection import select_rows
from pymc.variational.progress import with_bar

__all__ = ["global_draws", "joint_log_weights"]

_log = logging.getLogger(__name__)

#: Bytes of draws above which those of rows are not kept.
LARGE_DRAWS = 2**28


def global_draws(
    approx: Any, draws: int, random_seed: RandomState = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw all variables of an approximation without rows of its own, with the log-density of the draws.

    Parameters
    ----------
    approx : GuidedApproximation
    draws : int
    random_seed : int, RandomState or Generator, optional

    Returns
    -------
    points : dict of str to array, shape (draws, ...)
        By name of the value variable, on the unconstrained space.
    logq : array of float64, shape (draws,)
    """
    n_draws = pt.lscalar("n_draws")
    found, here = draw_guides(approx, {}, (n_draws,)), approx.storage.here({})
    logq = sum(
        guide.logq(block, here, found.n_lead[guide], found.given)
        for guide, block in found.blocks.items()
    )
    values = found.values()
    [seed] = _get_seeds_per_chain(random_seed, 1)
    # It is called once, and runs in NumPy before a backend would have compiled it
    mode = Mode("py", "fast_compile")
    draw = compile([n_draws], [logq, *values.values()], random_seed=seed, mode=mode)
    total, *arrays = draw(draws)
    points = dict(zip((value.name or "" for value in values), arrays))
    return points, np.broadcast_to(total, (draws,)).astype("float64")


def joint_log_weights(
    approx: Any,
    draws: int,
    random_seed: RandomState = None,
    mode: Any = None,
    show: bool = False,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw all variables of all rows, with the log-ratio of the joint density and of the guides'.

    Parameters
    ----------
    approx : GuidedApproximation
    draws : int
    random_seed : int, RandomState or Generator, optional
    mode : optional
        Of the compilation.
    show : bool
        Whether to show a bar, once it takes a while.

    Returns
    -------
    points : dict of str to array, shape (draws, ...)
        By name of the value variable, on the unconstrained space; those of rows only where they are small.
    log_weights : array of float64, shape (draws,)
        log p - log q in nats, of all rows.
    """
    size = 8 * draws * approx.ndim
    if size > LARGE_DRAWS and has_one_axis(approx):
        return _by_parts(approx, draws, random_seed, show)
    check_fits({"all": size}, f"diagnose of {draws:,} draws", "Take fewer draws")
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
    parts = [draw(size, selection) for size in with_bar(sizes, "Log-weights", show)]
    totals = [np.broadcast_to(part[0], (size,)) for part, size in zip(parts, sizes)]
    arrays = [np.concatenate(each) for each in zip(*(part[1:] for part in parts))]
    names = [value.name or "" for value in values]
    return dict(zip(names, arrays)), np.concatenate(totals).astype("float64")


def _by_parts(
    approx: Any, draws: int, random_seed: RandomState, show: bool
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Sum the log-weights of parts of the rows, and keep the draws of what they share."""
    _log.info(
        f"diagnose draws the variables of all rows {draws:,} times, part by part, and does not keep them"
    )
    made = RowWeights.of(approx, draws, None, False, random_seed, "diagnose")
    fed = made.shared(draws, made.selection.computed)
    n_draws, params = pt.lscalar("n_draws"), row_params(approx)
    ahead = [guide for guide in approx.guides if not guide.sites[0].plate]
    early = draw_guides(approx, params, (n_draws,))
    known = {guide: tuple(map(dynamic, early.blocks[guide])) for guide in ahead}
    setting = Setting(approx.model, approx.terms, approx.guides, approx.storage.here(params))
    found = draw_guides(approx, params, (n_draws,), known)
    weights = log_weights(setting, found).glob
    values = {v.name or "": var for v, var in found.values().items() if v in _values_of(ahead)}
    inputs = [var for block in known.values() for var in block]
    shared = RowFunction.of(approx, [weights, *values.values()], n_draws, {}, inputs)
    total, *arrays = shared(draws, made.selection.computed, fed)
    total = np.broadcast_to(total, (draws,)).astype("float64")
    for particles, _, part in made.parts(fed, show):
        total[particles] += part.sum(axis=-1)
    return dict(zip(values, arrays)), total


def _values_of(guides: Sequence[Any]) -> set[Variable]:
    return {site.value for guide in guides for site in guide.sites}
