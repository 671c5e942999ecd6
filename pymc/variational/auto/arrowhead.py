# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Normal distributions with an arrow-shaped precision: globals, and blocks that are independent given these.

With noise :math:`z`, globals are :math:`g = m_g + L z_g` and each block is :math:`x_j = m_j + B_j z_g + C_j z_j`. The
posterior of a hierarchy's groups has such a precision. With the whitened precision

.. math::

    P = \begin{pmatrix} P_{gg} & P_{gj} \\ P_{jg} & P_{jj} \end{pmatrix}, \qquad
    S = P_{gg} - \sum_j P_{gj} P_{jj}^{-1} P_{jg},

a natural-gradient step costs O(D) beside the globals' part, and the regression needs draws for one block and the
globals, however many blocks there are.
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
    """Indices of the globals and of each block in a point.

    Parameters
    ----------
    shared : array of int, shape (n_shared,)
        The globals: numbers in no block.
    members : array of int, shape (n_blocks, block_size)
        The numbers of each block.
    """

    shared: np.ndarray
    members: np.ndarray

    @property
    def size(self) -> int:
        return self.shared.size + self.members.size


class ArrowSlope(NamedTuple):
    """The natural gradient of the bound, whitened.

    Parameters
    ----------
    mean : array, shape (size,)
    shared : array, shape (n_shared, n_shared)
        The target precision, in units of the present one.
    across : array, shape (n_blocks, block_size, n_shared)
    within : array, shape (n_blocks, block_size, block_size)
    """

    mean: np.ndarray
    shared: np.ndarray
    across: np.ndarray
    within: np.ndarray

    @property
    def largest(self) -> float:
        spread = max(
            np.abs(self.shared - np.eye(len(self.shared))).max(initial=0),
            np.abs(self.across).max(initial=0),
            np.abs(self.within - np.eye(self.within.shape[1])).max(initial=0),
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
    across : array of float64, shape (n_blocks, block_size, n_shared)
        B.
    within : array of float64, shape (n_blocks, block_size, block_size)
        C, lower triangular.
    """

    mean: np.ndarray
    blocks: Blocks
    shared: np.ndarray
    across: np.ndarray
    within: np.ndarray

    @property
    def guide(self) -> Any:
        return {None: ArrowGuide(tuple(map(tuple, self.blocks.members.tolist())))}

    @property
    def guide_parameters(self) -> dict[str, np.ndarray]:
        parts = {"shared": self.shared, "across": self.across, "within": self.within}
        return {"mu": self.mean, **parts}

    def around(self, point: np.ndarray, width: float) -> Self:
        scale, blocks = width * (1 + np.abs(point)), self.blocks
        local = scale[blocks.members][..., None] * np.eye(blocks.members.shape[1])
        return type(self)(
            point, blocks, np.diag(scale[blocks.shared]), np.zeros_like(self.across), local
        )

    @classmethod
    def of_blocks(cls, blocks: Blocks) -> Self:
        """Return the standard normal distribution with some blocks."""
        n_blocks, block_size = blocks.members.shape
        n_shared = len(blocks.shared)
        local = np.broadcast_to(np.eye(block_size), (n_blocks, block_size, block_size)).copy()
        across = np.zeros((n_blocks, block_size, n_shared))
        return cls(np.zeros(blocks.size), blocks, np.eye(n_shared), across, local)

    def at(self, mean: np.ndarray, scale: float = 1.0) -> Arrow:
        parts = (scale * part for part in (self.shared, self.across, self.within))
        return Arrow(mean, self.blocks, *parts)

    @property
    def variance(self) -> np.ndarray:
        found = np.empty(self.size)
        found[self.blocks.shared] = (self.shared**2).sum(axis=-1)
        found[self.blocks.members] = (self.across**2).sum(axis=-1) + (self.within**2).sum(axis=-1)
        return found

    @property
    def log_scale(self) -> float:
        local = np.diagonal(self.within, axis1=1, axis2=2)
        return float(np.log(np.diag(self.shared)).sum() + np.log(local).sum())

    @property
    def of_globals(self) -> Dense:
        """The distribution of the globals."""
        return Dense(self.mean[self.blocks.shared], self.shared)

    @property
    def n_fitted(self) -> int:
        return len(self.blocks.shared) + self.blocks.members.shape[1]

    def noise(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw antithetic pairs; globals and each single block have the covariance I exactly."""
        half = rng.normal(size=((n + 1) // 2, self.size))
        both = np.concatenate([half, -half])
        shared, local = both[:, self.blocks.shared], both[:, self.blocks.members]
        shared = _matched(shared[:, None])[:, 0]
        local = local - np.einsum(
            "sg,gjb->sjb", shared, np.einsum("sg,sjb->gjb", shared, local)
        ) / len(both)
        both[:, self.blocks.shared], both[:, self.blocks.members] = shared, _matched(local)
        return both

    def away(self, noise: np.ndarray) -> np.ndarray:
        shared, local = noise[:, self.blocks.shared], noise[:, self.blocks.members]
        found = np.empty_like(noise)
        found[:, self.blocks.shared] = shared @ self.shared.T
        found[:, self.blocks.members] = np.einsum("jbg,sg->sjb", self.across, shared) + np.einsum(
            "jbc,sjc->sjb", self.within, local
        )
        return found

    def whitened(self, points: np.ndarray) -> np.ndarray:
        away, found = points - self.mean, np.empty_like(points)
        shared = np.linalg.solve(self.shared, away[:, self.blocks.shared].T).T
        left = away[:, self.blocks.members] - np.einsum("jbg,sg->sjb", self.across, shared)
        found[:, self.blocks.shared] = shared
        found[:, self.blocks.members] = np.einsum("jbc,sjc->sjb", np.linalg.inv(self.within), left)
        return found

    def whitened_gradients(self, gradients: np.ndarray) -> np.ndarray:
        local, found = gradients[:, self.blocks.members], np.empty_like(gradients)
        found[:, self.blocks.shared] = gradients[:, self.blocks.shared] @ self.shared + np.einsum(
            "sjb,jbg->sg", local, self.across
        )
        found[:, self.blocks.members] = np.einsum("sjb,jbc->sjc", local, self.within)
        return found

    def restoring(self, noise: np.ndarray) -> np.ndarray:
        found, blocks = np.empty_like(noise), self.blocks
        local = np.einsum("jbc,sjb->sjc", np.linalg.inv(self.within), noise[:, blocks.members])
        left = noise[:, blocks.shared] - np.einsum("sjb,jbg->sg", local, self.across)
        found[:, blocks.shared] = np.linalg.solve(self.shared.T, left.T).T
        found[:, blocks.members] = local
        return found

    def regression(self, noise: np.ndarray, u: np.ndarray) -> ArrowSlope:
        z_shared, z_local = noise[:, self.blocks.shared], noise[:, self.blocks.members]
        u_shared, u_local = u[:, self.blocks.shared], u[:, self.blocks.members]
        n = len(noise)
        local = -_symmetric(np.einsum("sjb,sjc->jbc", z_local, u_local) / n)
        across = -np.einsum("sjb,sg->jbg", u_local, z_shared) / n
        # Remove the part of the globals' gradient that is due to the blocks
        left = u_shared + np.einsum("sjb,jbg->sg", z_local, across)
        shared = -_symmetric(z_shared.T @ left / n)
        return ArrowSlope(u.mean(axis=0), shared, across, local)

    def moved(self, slope: ArrowSlope, rate: float) -> Arrow:
        blocks = self.blocks
        n_shared, block_size = len(blocks.shared), blocks.members.shape[1]
        local = _positive(rate * slope.within + (1 - rate) * np.eye(block_size))
        across = rate * slope.across
        inverse = np.linalg.inv(local)
        pull = np.einsum("jbc,jcg->jbg", inverse, across)
        schur = rate * slope.shared + (1 - rate) * np.eye(n_shared)
        schur = _positive(schur - np.einsum("jbg,jbh->gh", across, pull))
        covariance = _symmetric(np.linalg.inv(schur))
        mean, step = rate * slope.mean, np.empty(self.size)
        to_shared = mean[blocks.shared] - np.einsum("jbg,jb->g", pull, mean[blocks.members])
        step[blocks.shared] = covariance @ to_shared
        step[blocks.members] = np.einsum("jbc,jc->jb", inverse, mean[blocks.members]) - np.einsum(
            "jbg,g->jb", pull, step[blocks.shared]
        )
        root = np.linalg.cholesky(covariance)
        within_root = np.linalg.cholesky(_symmetric(inverse))
        across_root = -np.einsum("jbg,gh->jbh", pull, root)
        return Arrow(
            self.mean + self.away(step[None])[0],
            blocks,
            self.shared @ root,
            self.across @ root + self.within @ across_root,
            self.within @ within_root,
        )

    def of_draws(self, points: np.ndarray, weights: np.ndarray) -> Arrow:
        mean = weights @ points
        away = (points - mean) * np.sqrt(weights)[:, None]
        shared, local = away[:, self.blocks.shared], away[:, self.blocks.members]
        root = np.linalg.cholesky(shared.T @ shared)
        products = shared.T @ local.reshape(len(local), -1)
        across = np.linalg.solve(root, products)
        across = across.reshape(len(root), *local.shape[1:]).transpose(1, 2, 0)
        left = np.einsum("sjb,sjc->jbc", local, local) - across @ across.transpose(0, 2, 1)
        return Arrow(mean, self.blocks, root, across, np.linalg.cholesky(_symmetric(left)))


def _matched(draws: np.ndarray) -> np.ndarray:
    """Scale draws of shape (n, blocks, size) and mean 0 to the covariance I within each block."""
    covariance = np.einsum("sjb,sjc->jbc", draws, draws) / len(draws)
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    return np.einsum("jbc,sjc->sjb", root, draws)


def _symmetric(matrices: np.ndarray) -> np.ndarray:
    return (matrices + np.swapaxes(matrices, -1, -2)) / 2


def _positive(matrices: np.ndarray) -> np.ndarray:
    """Return precisions with positive eigenvalues, as in :meth:`Dense.moved`."""
    values, vectors = np.linalg.eigh(matrices)
    values = np.maximum(positive(values), LEAST_PRECISION)
    return (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)


@dataclass(eq=False)
class ArrowGuide(FlatGuide):
    """Guide of an :class:`Arrow` distribution.

    Parameters
    ----------
    member_indices : tuple of tuple of int
        Indices of the numbers of each block; blocks have one size.
    """

    member_indices: tuple[tuple[int, ...], ...] = ()

    name = "arrow"
    couples_rows = True

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices of the globals and of the blocks, and the order that undoes their concatenation."""
        members = np.array(self.member_indices, dtype=int)
        shared = np.setdiff1d(np.arange(self.layout.size), members)
        return shared, members, np.argsort(np.concatenate([shared, members.ravel()]))

    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        shared, members, _ = self._places
        sds, (n_blocks, block_size) = starts.sds(self.layout, 1.0), members.shape
        return {
            "mu": starts.means(self.layout),
            "shared": np.diag(sds[shared]),
            "across": np.zeros((n_blocks, block_size, len(shared))),
            "within": sds[members][..., None] * np.eye(block_size),
        }

    def sample(self, params: Mapping[str, Variable], sample_shape: SampleShape) -> Variable:
        shared, members, order = self._places
        z = noise((*sample_shape, len(shared)))
        z_local = noise((*sample_shape, *members.shape))
        x_shared = z @ params["shared"].T
        x_local = (params["across"] * z[..., None, None, :]).sum(axis=-1)
        x_local = x_local + (params["within"] * z_local[..., None, :]).sum(axis=-1)
        side_by_side = pt.concatenate(
            [x_shared, x_local.reshape((*sample_shape, members.size))], axis=-1
        )
        return params["mu"] + side_by_side[..., order]

    def log_density(self, z: Variable, params: Mapping[str, Variable]) -> Variable:
        shared, members, _ = self._places
        away = z - params["mu"]
        x = solve_lower(params["shared"], away[..., shared])
        left = away[..., members] - (params["across"] * x[..., None, None, :]).sum(axis=-1)
        x_local = solve_lower(params["within"], left)
        log_scale = pt.log(pt.diagonal(params["shared"])).sum()
        log_scale += pt.log(pt.diagonal(params["within"], axis1=-2, axis2=-1)).sum()
        squares = (x**2).sum(axis=-1) + (x_local**2).sum(axis=(-2, -1))
        return -0.5 * squares - log_scale - self.layout.size * LOG_SQRT_2PI

    def moments(self, param_values: ParamValues) -> tuple[Variable, Variable]:
        params, (_, _, order) = self.values_by_name(param_values), self._places
        of_shared = (params["shared"] ** 2).sum(axis=-1)
        of_local = (params["across"] ** 2).sum(axis=-1) + (params["within"] ** 2).sum(axis=-1)
        variance = pt.concatenate([of_shared, of_local.ravel()])[order]
        return params["mu"], pt.sqrt(variance)


#: The fewest blocks for which an arrow-shaped precision pays.
MIN_BLOCKS = 2

#: The most numbers of a block and the globals together.
MAX_BLOCK_SIZE = 400

#: Rounding: the relative change of a number's gradient that counts as none when other blocks move. It is relative to
#: that number's gradient, since far from the posterior a scale's gradient is decades larger than others.
ROUNDING = {"float64": 1e-9, "float32": 1e-4}

#: The largest change of a block's whitened gradient when others move by their sds.
COUPLED = 1e-3


def find_blocks(logp: LogPosterior, rng: np.random.Generator) -> Blocks | None:
    """Find blocks that are independent given the globals, such as groups of a hierarchy.

    Variables with an axis of one length make a block of their entries at each index. Blocks are independent if the
    gradient of each does not change when others move. Of several divisions, the one with the fewest globals wins.

    Parameters
    ----------
    logp : LogPosterior
    rng : Generator

    Raises
    ------
    Stopped
    """
    for blocks in _candidates(logp.layout):
        if len(blocks.shared) + blocks.members.shape[1] <= MAX_BLOCK_SIZE and _independent(
            logp, blocks, rng
        ):
            return blocks
    return None


def _candidates(layout: Layout) -> list[Blocks]:
    """Return the blocks for each length of an axis, sorted by the number of globals."""
    lengths = {n for shape in layout.shapes for n in shape if n >= MIN_BLOCKS}
    places = np.arange(layout.size)
    found = []
    for length in lengths:
        members = []
        for shape, part in zip(layout.shapes, layout.slices):
            entries = places[part].reshape(shape)
            if shape.count(length) == 1:
                members.append(np.moveaxis(entries, shape.index(length), 0).reshape(length, -1))
        if members:
            joined = np.concatenate(members, axis=1)
            found.append(Blocks(np.setdiff1d(places, joined), joined))
    return sorted(found, key=lambda blocks: len(blocks.shared))


def _independent(logp: LogPosterior, blocks: Blocks, rng: np.random.Generator) -> bool:
    """Return True if moving some blocks changes the gradient of no other block."""
    moved = _moved(len(blocks.members), rng)
    start = logp.start + 0.1 * rng.normal(size=logp.size)
    points = np.repeat(start[None], len(moved) + 1, axis=0)
    for point, which in zip(points[1:], moved):
        places = blocks.members[which]
        point[places] += 0.3 * rng.normal(size=places.shape)
    _, gradients = logp(points)
    if not np.isfinite(gradients).all():
        return False
    change = np.abs(gradients[1:] - gradients[0])
    rounding = ROUNDING[str(logp.dtype)] * np.abs(gradients).max(axis=0)
    others = (blocks.members[~which] for which in moved)
    return all((change[k][members] <= rounding[members]).all() for k, members in enumerate(others))


def _moved(n_blocks: int, rng: np.random.Generator) -> np.ndarray:
    """Return masks of blocks to move, so that for any two, some mask moves the first and not the second.

    The masks are the binary digits of the blocks' numbers, and their complements.
    """
    digits = np.arange(int(np.ceil(np.log2(n_blocks))))
    moved = (rng.permutation(n_blocks) >> digits[:, None]) % 2 == 1
    return np.concatenate([moved, ~moved])


def are_independent(logp: LogPosterior, normal: Arrow, rng: np.random.Generator) -> bool:
    """Return True if blocks are independent at draws of a fitted normal, moving each by its posterior sd.

    Far from the posterior, rounding of large gradients can hide a dependence.

    Parameters
    ----------
    logp : LogPosterior
    normal : Arrow
    rng : Generator

    Raises
    ------
    Stopped
    """
    members = normal.blocks.members
    noise, other = rng.normal(size=(2, normal.size))
    moved = _moved(len(members), rng)
    tries = np.repeat(noise[None], len(moved) + 1, axis=0)
    for z, which in zip(tries[1:], moved):
        z[members[which]] = other[members[which]]
    _, gradients = logp(normal.points(tries))
    with np.errstate(invalid="ignore"):
        u = np.einsum("sjb,jbc->sjc", gradients[:, members], normal.within)
        change = np.abs(u[1:] - u[0]).max(axis=-1)
    return not (change[~moved] > COUPLED).any()
