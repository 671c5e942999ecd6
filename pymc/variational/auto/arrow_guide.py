# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The guide of an arrow-shaped normal distribution: what an automatic fit of many groups leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.variational.guides.base import Here, Lead, noise
from pymc.variational.guides.flat import FlatGuide
from pymc.variational.guides.full_rank import solve_lower
from pymc.variational.guides.mean_field import LOG_SQRT_2PI
from pymc.variational.guides.starts import Starts

__all__ = ["ArrowGuide"]


@dataclass(eq=False)
class ArrowGuide(FlatGuide):
    """A normal distribution of globals, and of blocks given these.

    Parameters
    ----------
    own_places : tuple of tuple of int
        The places of the numbers of each block, as many of each.
    """

    own_places: tuple[tuple[int, ...], ...] = ()

    name = "arrow"
    couples_rows = True

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places of globals and of blocks, and where each number is when they stand side by side."""
        own = np.array(self.own_places, dtype=int)
        shared = np.setdiff1d(np.arange(self.layout.size), own)
        return shared, own, np.argsort(np.concatenate([shared, own.ravel()]))

    def start(self, starts: Starts) -> dict[str, np.ndarray]:
        shared, own, _ = self._places
        sds, (n_blocks, n_own) = starts.sds(self.layout, 1.0), own.shape
        return {
            "mu": starts.means(self.layout),
            "shared": np.diag(sds[shared]),
            "across": np.zeros((n_blocks, n_own, len(shared))),
            "own": sds[own][..., None] * np.eye(n_own),
        }

    def sample(self, params: Mapping[str, Variable], lead: Lead) -> Variable:
        shared, own, order = self._places
        z = noise((*lead, len(shared)))
        z_own = noise((*lead, *own.shape))
        x_shared = z @ params["shared"].T
        x_own = (params["across"] * z[..., None, None, :]).sum(axis=-1)
        x_own = x_own + (params["own"] * z_own[..., None, :]).sum(axis=-1)
        side_by_side = pt.concatenate([x_shared, x_own.reshape((*lead, own.size))], axis=-1)
        return params["mu"] + side_by_side[..., order]

    def log_density(self, z: Variable, params: Mapping[str, Variable]) -> Variable:
        shared, own, _ = self._places
        away = z - params["mu"]
        x = solve_lower(params["shared"], away[..., shared])
        left = away[..., own] - (params["across"] * x[..., None, None, :]).sum(axis=-1)
        x_own = solve_lower(params["own"], left)
        log_scale = pt.log(pt.diagonal(params["shared"])).sum()
        log_scale += pt.log(pt.diagonal(params["own"], axis1=-2, axis2=-1)).sum()
        squares = (x**2).sum(axis=-1) + (x_own**2).sum(axis=(-2, -1))
        return -0.5 * squares - log_scale - self.layout.size * LOG_SQRT_2PI

    def moments(self, here: Here) -> tuple[Variable, Variable]:
        params, (_, _, order) = self.named(here), self._places
        of_shared = (params["shared"] ** 2).sum(axis=-1)
        of_own = (params["across"] ** 2).sum(axis=-1) + (params["own"] ** 2).sum(axis=-1)
        variance = pt.concatenate([of_shared, of_own.ravel()])[order]
        return params["mu"], pt.sqrt(variance)
