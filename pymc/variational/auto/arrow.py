# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""A normal distribution whose precision is arrow-shaped: globals, and blocks that depend on each other through them.

With noise :math:`z`, globals are :math:`g = m_g + L z_g` and each block is :math:`x_j = m_j + B_j z_g + C_j z_j`. The
precision of groups of a hierarchy has this form, and so have all its steps: with the whitened precision in blocks

.. math::

    P = \begin{pmatrix} P_{gg} & P_{gj} \\ P_{jg} & P_{jj} \end{pmatrix}, \qquad
    S = P_{gg} - \sum_j P_{gj} P_{jj}^{-1} P_{jg},

a step costs O(D) beside that of the globals, and the regression needs as many draws as one block and the globals have
numbers, however many blocks there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.variational.auto.log_posterior import LogPosterior
from pymc.variational.auto.normal import LEAST_PRECISION, Dense, Normal, positive
from pymc.variational.guides.base import FlatGuide, Layout, ParamValues, SampleShape, noise
from pymc.variational.guides.full_rank import solve_lower
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.mean_field import LOG_SQRT_2PI

__all__ = ["Arrow", "ArrowGuide", "Blocks", "are_independent", "find_blocks"]


@dataclass(frozen=True, eq=False)
class Blocks:
    """Which numbers of a point are in which block.

    Parameters
    ----------
    shared : array of int, shape (n_shared,)
        Those that are in none.
    own : array of int, shape (n_blocks, n_own)
        Those of each block.
    """

    shared: np.ndarray
    own: np.ndarray

    @property
    def size(self) -> int:
        return self.shared.size + self.own.size


class ArrowSlope(NamedTuple):
    """The natural gradient of the bound, whitened.

    Parameters
    ----------
    mean : array, shape (size,)
    shared : array, shape (n_shared, n_shared)
        The precision to go to, in units of the present one.
    across : array, shape (n_blocks, n_own, n_shared)
    own : array, shape (n_blocks, n_own, n_own)
    """

    mean: np.ndarray
    shared: np.ndarray
    across: np.ndarray
    own: np.ndarray

    @property
    def largest(self) -> float:
        spread = max(
            np.abs(self.shared - np.eye(len(self.shared))).max(initial=0),
            np.abs(self.across).max(initial=0),
            np.abs(self.own - np.eye(self.own.shape[1])).max(initial=0),
        )
        return float(max(np.abs(self.mean).max(), 0.5 * spread))


@dataclass(frozen=True, eq=False)
class Arrow(Normal):
    """A normal distribution of globals, and of blocks given these.

    Parameters
    ----------
    mean : array of float64, shape (size,)
    blocks : Blocks
    shared : array of float64, shape (n_shared, n_shared)
        L, lower triangular.
    across : array of float64, shape (n_blocks, n_own, n_shared)
        B.
    own : array of float64, shape (n_blocks, n_own, n_own)
        C, lower triangular.
    """

    mean: np.ndarray
    blocks: Blocks
    shared: np.ndarray
    across: np.ndarray
    own: np.ndarray

    @property
    def guide(self) -> Any:
        return {None: ArrowGuide(tuple(map(tuple, self.blocks.own.tolist())))}

    @property
    def guide_parameters(self) -> dict[str, np.ndarray]:
        parts = {"shared": self.shared, "across": self.across, "own": self.own}
        return {"mu": self.mean, **parts}

    def around(self, point: np.ndarray, width: float) -> Self:
        scale, blocks = width * (1 + np.abs(point)), self.blocks
        own = scale[blocks.own][..., None] * np.eye(blocks.own.shape[1])
        return type(self)(
            point, blocks, np.diag(scale[blocks.shared]), np.zeros_like(self.across), own
        )

    @classmethod
    def of_blocks(cls, blocks: Blocks) -> Self:
        """Return the standard normal distribution with some blocks."""
        n_blocks, n_own = blocks.own.shape
        n_shared = len(blocks.shared)
        own = np.broadcast_to(np.eye(n_own), (n_blocks, n_own, n_own)).copy()
        across = np.zeros((n_blocks, n_own, n_shared))
        return cls(np.zeros(blocks.size), blocks, np.eye(n_shared), across, own)

    def at(self, mean: np.ndarray, scale: float = 1.0) -> Arrow:
        parts = (scale * part for part in (self.shared, self.across, self.own))
        return Arrow(mean, self.blocks, *parts)

    @property
    def variance(self) -> np.ndarray:
        found = np.empty(self.size)
        found[self.blocks.shared] = (self.shared**2).sum(axis=-1)
        found[self.blocks.own] = (self.across**2).sum(axis=-1) + (self.own**2).sum(axis=-1)
        return found

    @property
    def log_scale(self) -> float:
        own = np.diagonal(self.own, axis1=1, axis2=2)
        return float(np.log(np.diag(self.shared)).sum() + np.log(own).sum())

    @property
    def of_globals(self) -> Dense:
        """The distribution of the globals."""
        return Dense(self.mean[self.blocks.shared], self.shared)

    @property
    def n_fitted(self) -> int:
        return len(self.blocks.shared) + self.blocks.own.shape[1]

    def noise(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw whitened draws, in pairs of opposite signs; globals and one block are matched to covariance I."""
        half = rng.normal(size=((n + 1) // 2, self.size))
        both = np.concatenate([half, -half])
        shared, own = both[:, self.blocks.shared], both[:, self.blocks.own]
        shared = _matched(shared[:, None])[:, 0]
        own = own - np.einsum("sg,gjb->sjb", shared, np.einsum("sg,sjb->gjb", shared, own)) / len(
            both
        )
        both[:, self.blocks.shared], both[:, self.blocks.own] = shared, _matched(own)
        return both

    def away(self, noise: np.ndarray) -> np.ndarray:
        shared, own = noise[:, self.blocks.shared], noise[:, self.blocks.own]
        found = np.empty_like(noise)
        found[:, self.blocks.shared] = shared @ self.shared.T
        found[:, self.blocks.own] = np.einsum("jbg,sg->sjb", self.across, shared) + np.einsum(
            "jbc,sjc->sjb", self.own, own
        )
        return found

    def whitened(self, points: np.ndarray) -> np.ndarray:
        away, found = points - self.mean, np.empty_like(points)
        shared = np.linalg.solve(self.shared, away[:, self.blocks.shared].T).T
        left = away[:, self.blocks.own] - np.einsum("jbg,sg->sjb", self.across, shared)
        found[:, self.blocks.shared] = shared
        found[:, self.blocks.own] = np.einsum("jbc,sjc->sjb", np.linalg.inv(self.own), left)
        return found

    def whitened_gradients(self, gradients: np.ndarray) -> np.ndarray:
        own, found = gradients[:, self.blocks.own], np.empty_like(gradients)
        found[:, self.blocks.shared] = gradients[:, self.blocks.shared] @ self.shared + np.einsum(
            "sjb,jbg->sg", own, self.across
        )
        found[:, self.blocks.own] = np.einsum("sjb,jbc->sjc", own, self.own)
        return found

    def restoring(self, noise: np.ndarray) -> np.ndarray:
        found, blocks = np.empty_like(noise), self.blocks
        own = np.einsum("jbc,sjb->sjc", np.linalg.inv(self.own), noise[:, blocks.own])
        left = noise[:, blocks.shared] - np.einsum("sjb,jbg->sg", own, self.across)
        found[:, blocks.shared] = np.linalg.solve(self.shared.T, left.T).T
        found[:, blocks.own] = own
        return found

    def regression(self, noise: np.ndarray, u: np.ndarray) -> ArrowSlope:
        z_shared, z_own = noise[:, self.blocks.shared], noise[:, self.blocks.own]
        u_shared, u_own = u[:, self.blocks.shared], u[:, self.blocks.own]
        n = len(noise)
        own = -_symmetric(np.einsum("sjb,sjc->jbc", z_own, u_own) / n)
        across = -np.einsum("sjb,sg->jbg", u_own, z_shared) / n
        # What blocks add to the gradient of globals is no part of their own curvature
        left = u_shared + np.einsum("sjb,jbg->sg", z_own, across)
        shared = -_symmetric(z_shared.T @ left / n)
        return ArrowSlope(u.mean(axis=0), shared, across, own)

    def moved(self, slope: ArrowSlope, rate: float) -> Arrow:
        blocks = self.blocks
        n_shared, n_own = len(blocks.shared), blocks.own.shape[1]
        own = _positive(rate * slope.own + (1 - rate) * np.eye(n_own))
        across = rate * slope.across
        inverse = np.linalg.inv(own)
        pull = np.einsum("jbc,jcg->jbg", inverse, across)
        schur = rate * slope.shared + (1 - rate) * np.eye(n_shared)
        schur = _positive(schur - np.einsum("jbg,jbh->gh", across, pull))
        covariance = _symmetric(np.linalg.inv(schur))
        mean, step = rate * slope.mean, np.empty(self.size)
        to_shared = mean[blocks.shared] - np.einsum("jbg,jb->g", pull, mean[blocks.own])
        step[blocks.shared] = covariance @ to_shared
        step[blocks.own] = np.einsum("jbc,jc->jb", inverse, mean[blocks.own]) - np.einsum(
            "jbg,g->jb", pull, step[blocks.shared]
        )
        root = np.linalg.cholesky(covariance)
        own_root = np.linalg.cholesky(_symmetric(inverse))
        across_root = -np.einsum("jbg,gh->jbh", pull, root)
        return Arrow(
            self.mean + self.away(step[None])[0],
            blocks,
            self.shared @ root,
            self.across @ root + self.own @ across_root,
            self.own @ own_root,
        )

    def of_draws(self, points: np.ndarray, weights: np.ndarray) -> Arrow:
        mean = weights @ points
        away = (points - mean) * np.sqrt(weights)[:, None]
        shared, own = away[:, self.blocks.shared], away[:, self.blocks.own]
        root = np.linalg.cholesky(shared.T @ shared)
        products = shared.T @ own.reshape(len(own), -1)
        across = np.linalg.solve(root, products)
        across = across.reshape(len(root), *own.shape[1:]).transpose(1, 2, 0)
        left = np.einsum("sjb,sjc->jbc", own, own) - across @ across.transpose(0, 2, 1)
        return Arrow(mean, self.blocks, root, across, np.linalg.cholesky(_symmetric(left)))


def _matched(draws: np.ndarray) -> np.ndarray:
    """Give draws (n, blocks, size) of mean 0 the covariance I within each block."""
    covariance = np.einsum("sjb,sjc->jbc", draws, draws) / len(draws)
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    return np.einsum("jbc,sjc->sjb", root, draws)


def _symmetric(matrices: np.ndarray) -> np.ndarray:
    return (matrices + np.swapaxes(matrices, -1, -2)) / 2


def _positive(matrices: np.ndarray) -> np.ndarray:
    """Let a precision have positive eigenvalues, as :meth:`Dense.moved` does."""
    values, vectors = np.linalg.eigh(matrices)
    values = np.maximum(positive(values), LEAST_PRECISION)
    return (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)


# MERGED: """The guide of an arrow-shaped normal distribution: what an automatic fit of many groups leaves."""


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

    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        shared, own, _ = self._places
        sds, (n_blocks, n_own) = starts.sds(self.layout, 1.0), own.shape
        return {
            "mu": starts.means(self.layout),
            "shared": np.diag(sds[shared]),
            "across": np.zeros((n_blocks, n_own, len(shared))),
            "own": sds[own][..., None] * np.eye(n_own),
        }

    def sample(self, params: Mapping[str, Variable], sample_shape: SampleShape) -> Variable:
        shared, own, order = self._places
        z = noise((*sample_shape, len(shared)))
        z_own = noise((*sample_shape, *own.shape))
        x_shared = z @ params["shared"].T
        x_own = (params["across"] * z[..., None, None, :]).sum(axis=-1)
        x_own = x_own + (params["own"] * z_own[..., None, :]).sum(axis=-1)
        side_by_side = pt.concatenate([x_shared, x_own.reshape((*sample_shape, own.size))], axis=-1)
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

    def moments(self, param_values: ParamValues) -> tuple[Variable, Variable]:
        params, (_, _, order) = self.values_by_name(param_values), self._places
        of_shared = (params["shared"] ** 2).sum(axis=-1)
        of_own = (params["across"] ** 2).sum(axis=-1) + (params["own"] ** 2).sum(axis=-1)
        variance = pt.concatenate([of_shared, of_own.ravel()])[order]
        return params["mu"], pt.sqrt(variance)


# MERGED: """Find blocks of a posterior that are independent of each other given the globals, such as groups of a hierarchy.
# MERGED:
# MERGED: An axis of one length in several variables makes a block of the entries at each place. Whether blocks are
# MERGED: independent, the gradient says: that of a block does not change where others do.
# MERGED: """


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
