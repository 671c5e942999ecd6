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
"""Find blocks of a posterior that are independent of each other given the globals, such as groups of a hierarchy.

An axis of one length in several variables makes a block of the entries at each place. Whether blocks are
independent, the gradient says: that of a block does not change where others do.
"""

from __future__ import annotations

import numpy as np

from pymc.variational.auto.arrow import Blocks
from pymc.variational.auto.log_posterior import LogPosterior
from pymc.variational.guides.layout import Layout

__all__ = ["find_blocks"]

#: The fewest blocks that are worth it.
FEWEST = 2

#: The most numbers of a block and the globals.
MOST = 400

#: The part of it by which the gradient of a block may change where others are moved: rounding.
ROUNDING = {"float64": 1e-9, "float32": 1e-4}


def find_blocks(logp: LogPosterior, rng: np.random.Generator) -> Blocks | None:
    """Return the most blocks that are independent given the globals; None if there are none.

    Parameters
    ----------
    logp : LogPosterior
    rng : Generator

    Raises
    ------
    Stopped
    """
    for blocks in _candidates(logp.layout):
        if len(blocks.shared) + blocks.own.shape[1] <= MOST and _independent(logp, blocks, rng):
            return blocks
    return None


def _candidates(layout: Layout) -> list[Blocks]:
    """Return the blocks of each length of an axis, those of the most numbers first."""
    lengths = {n for shape in layout.shapes for n in shape if n >= FEWEST}
    places = np.arange(layout.size)
    found = []
    for length in lengths:
        own = []
        for shape, part in zip(layout.shapes, layout.slices):
            mine = places[part].reshape(shape)
            if shape.count(length) == 1:
                own.append(np.moveaxis(mine, shape.index(length), 0).reshape(length, -1))
        if own:
            joined = np.concatenate(own, axis=1)
            found.append(Blocks(np.setdiff1d(places, joined), joined))
    return sorted(found, key=lambda blocks: len(blocks.shared))


def _independent(logp: LogPosterior, blocks: Blocks, rng: np.random.Generator) -> bool:
    """Tell whether the gradient of no block changes where others are moved."""
    n_blocks = len(blocks.own)
    # By the digits of their numbers, any two blocks are told apart: one is moved, and the other is not
    digits = np.arange(int(np.ceil(np.log2(n_blocks))))
    moved = (rng.permutation(n_blocks) >> digits[:, None]) % 2 == 1
    moved = np.concatenate([moved, ~moved])
    start = logp.start + 0.1 * rng.normal(size=logp.size)
    points = np.repeat(start[None], len(moved) + 1, axis=0)
    for point, which in zip(points[1:], moved):
        places = blocks.own[which]
        point[places] += 0.3 * rng.normal(size=places.shape)
    _, gradients = logp(points)
    if not np.isfinite(gradients).all():
        return False
    change = np.abs(gradients[1:] - gradients[0])
    rounding = ROUNDING[str(logp.dtype)] * np.abs(gradients).max(axis=0)
    others = (blocks.own[~which] for which in moved)
    return all((change[k][own] <= rounding[own]).all() for k, own in enumerate(others))
