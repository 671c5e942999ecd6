# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Find blocks of a posterior that are independent of each other given the globals, such as groups of a hierarchy.

An axis of one length in several variables makes a block of the entries at each place. Whether blocks are
independent, the gradient says: that of a block does not change where others do.
"""

from __future__ import annotations

import numpy as np

from pymc.variational.auto.arrow import Arrow, Blocks
from pymc.variational.auto.log_posterior import LogPosterior
from pymc.variational.guides.layout import Layout

__all__ = ["are_independent", "find_blocks"]

#: The fewest blocks that are worth it.
FEWEST = 2

#: The most numbers of a block and the globals.
MOST = 400

#: The part of itself by which the gradient of a number may change where other blocks are moved: rounding. That of a
#: scale, far from the posterior, is decades larger than others.
ROUNDING = {"float64": 1e-9, "float32": 1e-4}


#: The largest change of a block's whitened gradient where others move by their sds.
COUPLED = 1e-3


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
    moved = _moved(len(blocks.own), rng)
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


def _moved(n_blocks: int, rng: np.random.Generator) -> np.ndarray:
    """Say which blocks are moved in each try: of any two, in one try the one and not the other, by their digits."""
    digits = np.arange(int(np.ceil(np.log2(n_blocks))))
    moved = (rng.permutation(n_blocks) >> digits[:, None]) % 2 == 1
    return np.concatenate([moved, ~moved])


def are_independent(logp: LogPosterior, normal: Arrow, rng: np.random.Generator) -> bool:
    """Tell whether blocks are independent at draws of a fitted normal, where moves are as large as the posterior.

    Far from it rounding of large gradients can hide that they are not.

    Parameters
    ----------
    logp : LogPosterior
    normal : Arrow
    rng : Generator

    Raises
    ------
    Stopped
    """
    own = normal.blocks.own
    noise, other = rng.normal(size=(2, normal.size))
    moved = _moved(len(own), rng)
    tries = np.repeat(noise[None], len(moved) + 1, axis=0)
    for z, which in zip(tries[1:], moved):
        z[own[which]] = other[own[which]]
    _, gradients = logp(normal.points(tries))
    with np.errstate(invalid="ignore"):
        u = np.einsum("sjb,jbc->sjc", gradients[:, own], normal.own)
        change = np.abs(u[1:] - u[0]).max(axis=-1)
    return not (change[~moved] > COUPLED).any()
