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
import pytensor
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
    """Indices of the globals and of each block in a point."""

    shared: np.ndarray  # (n_shared,) of int: the numbers in no block
    members: np.ndarray  # (n_blocks, block_size) of int

    @property
    def size(self) -> int:
        return self.shared.size + self.members.size

    @property
    def block_size(self) -> int:
        return self.members.shape[1]

    def split(self, points: Any) -> tuple[Any, Any]:
        """Return globals and blocks of arrays or graphs, shapes (..., n_shared) and (..., n_blocks, block_size)."""
        return points[..., self.shared], points[..., self.members]

    def join(self, shared: np.ndarray, local: np.ndarray) -> np.ndarray:
        """Return points, shape (..., size), of globals and blocks."""
        points = np.empty((*local.shape[:-2], self.size))
        points[..., self.shared], points[..., self.members] = shared, local
        return points


class ArrowSlope(NamedTuple):
    """The natural gradient of the bound, whitened; the target precision is in units of the present one."""

    mean: np.ndarray  # (size,)
    shared: np.ndarray  # (n_shared, n_shared)
    across: np.ndarray  # (n_blocks, block_size, n_shared)
    within: np.ndarray  # (n_blocks, block_size, block_size)

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
    """A normal distribution of globals, and of blocks given these."""

    mean: np.ndarray  # (size,)
    blocks: Blocks
    shared: np.ndarray  # L, lower triangular: (n_shared, n_shared)
    across: np.ndarray  # B: (n_blocks, block_size, n_shared)
    within: np.ndarray  # C, lower triangular: (n_blocks, block_size, block_size)

    @classmethod
    def of_blocks(cls, blocks: Blocks) -> Self:
        """Return the standard normal distribution with some blocks."""
        return cls.diagonal(np.zeros(blocks.size), blocks, np.ones(blocks.size))

    @classmethod
    def diagonal(cls, mean: np.ndarray, blocks: Blocks, sds: np.ndarray) -> Self:
        """Return a distribution of independent numbers."""
        shared, local = blocks.split(sds)
        across = np.zeros((*local.shape, len(shared)))
        return cls(mean, blocks, np.diag(shared), across, local[..., None] * np.eye(local.shape[1]))

    @property
    def of_globals(self) -> Dense:
        """The distribution of the globals."""
        return Dense(self.mean[self.blocks.shared], self.shared)

    @property
    def sd(self) -> np.ndarray:
        local = (self.across**2).sum(axis=-1) + (self.within**2).sum(axis=-1)
        return np.sqrt(self.blocks.join((self.shared**2).sum(axis=-1), local))

    @property
    def log_scale(self) -> float:
        local = np.diagonal(self.within, axis1=1, axis2=2)
        return float(np.log(np.diag(self.shared)).sum() + np.log(local).sum())

    @property
    def n_fitted(self) -> int:
        return len(self.blocks.shared) + self.blocks.block_size

    @property
    def guide(self) -> Any:
        return {None: ArrowGuide(tuple(map(tuple, self.blocks.members.tolist())))}

    @property
    def guide_parameters(self) -> dict[str, np.ndarray]:
        parts = {"shared": self.shared, "across": self.across, "within": self.within}
        return {"mu": self.mean, **parts}

    def around(self, point: np.ndarray, width: float) -> Self:
        return self.diagonal(point, self.blocks, width * (1 + np.abs(point)))

    def at(self, mean: np.ndarray, scale: float = 1.0) -> Arrow:
        parts = (scale * part for part in (self.shared, self.across, self.within))
        return Arrow(mean, self.blocks, *parts)

    def noise(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw antithetic pairs; globals and each single block have the covariance I exactly."""
        half = rng.normal(size=((n + 1) // 2, self.size))
        both = np.concatenate([half, -half])
        shared, local = self.blocks.split(both)
        shared = _matched(shared[:, None])[:, 0]
        # Remove the correlation of each block with the globals
        slopes = np.einsum("sg,sjb->gjb", shared, local)
        local = local - np.einsum("sg,gjb->sjb", shared, slopes) / len(both)
        return self.blocks.join(shared, _matched(local))

    def away(self, noise: np.ndarray) -> np.ndarray:
        shared, local = self.blocks.split(noise)
        with_shared = np.einsum("jbg,sg->sjb", self.across, shared)
        local = with_shared + np.einsum("jbc,sjc->sjb", self.within, local)
        return self.blocks.join(shared @ self.shared.T, local)

    def whitened(self, points: np.ndarray) -> np.ndarray:
        shared, local = self.blocks.split(points - self.mean)
        shared = np.linalg.solve(self.shared, shared.T).T
        left = local - np.einsum("jbg,sg->sjb", self.across, shared)
        return self.blocks.join(shared, np.einsum("jbc,sjc->sjb", np.linalg.inv(self.within), left))

    def whitened_gradients(self, gradients: np.ndarray) -> np.ndarray:
        shared, local = self.blocks.split(gradients)
        shared = shared @ self.shared + np.einsum("sjb,jbg->sg", local, self.across)
        return self.blocks.join(shared, np.einsum("sjb,jbc->sjc", local, self.within))

    def restoring(self, noise: np.ndarray) -> np.ndarray:
        shared, local = self.blocks.split(noise)
        local = np.einsum("jbc,sjb->sjc", np.linalg.inv(self.within), local)
        left = shared - np.einsum("sjb,jbg->sg", local, self.across)
        return self.blocks.join(np.linalg.solve(self.shared.T, left.T).T, local)

    def regression(self, noise: np.ndarray, u: np.ndarray) -> ArrowSlope:
        (z_shared, z_local), (u_shared, u_local) = self.blocks.split(noise), self.blocks.split(u)
        n = len(noise)
        local = -_symmetric(np.einsum("sjb,sjc->jbc", z_local, u_local) / n)
        across = -np.einsum("sjb,sg->jbg", u_local, z_shared) / n
        # Remove the part of the globals' gradient that is due to the blocks
        left = u_shared + np.einsum("sjb,jbg->sg", z_local, across)
        shared = -_symmetric(z_shared.T @ left / n)
        return ArrowSlope(u.mean(axis=0), shared, across, local)

    def moved(self, slope: ArrowSlope, rate: float) -> Arrow:
        eye_shared, eye_local = np.eye(len(self.blocks.shared)), np.eye(self.blocks.block_size)
        local = _positive(rate * slope.within + (1 - rate) * eye_local)
        across = rate * slope.across
        inverse = np.linalg.inv(local)
        pull = np.einsum("jbc,jcg->jbg", inverse, across)
        # The precision of the globals alone is the Schur complement of the blocks'
        schur = rate * slope.shared + (1 - rate) * eye_shared
        schur = _positive(schur - np.einsum("jbg,jbh->gh", across, pull))
        covariance = _symmetric(np.linalg.inv(schur))
        to_shared, to_local = self.blocks.split(rate * slope.mean)
        to_shared = covariance @ (to_shared - np.einsum("jbg,jb->g", pull, to_local))
        to_local = np.einsum("jbc,jc->jb", inverse, to_local)
        to_local = to_local - np.einsum("jbg,g->jb", pull, to_shared)
        root = np.linalg.cholesky(covariance)
        within_root = np.linalg.cholesky(_symmetric(inverse))
        across_root = -np.einsum("jbg,gh->jbh", pull, root)
        return Arrow(
            self.mean + self.away(self.blocks.join(to_shared, to_local)[None])[0],
            self.blocks,
            self.shared @ root,
            self.across @ root + self.within @ across_root,
            self.within @ within_root,
        )

    def of_draws(self, points: np.ndarray, weights: np.ndarray) -> Arrow:
        mean = weights @ points
        shared, local = self.blocks.split((points - mean) * np.sqrt(weights)[:, None])
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
    """Guide of an :class:`Arrow` distribution."""

    member_indices: tuple[tuple[int, ...], ...] = ()  # of each block; blocks have one size

    name = "arrow"
    couples_rows = True

    @cached_property
    def _blocks(self) -> Blocks:
        members = np.array(self.member_indices, dtype=int)
        return Blocks(np.setdiff1d(np.arange(self.layout.size), members), members)

    def _join(self, shared: Variable, local: Variable, sample_shape: SampleShape = ()) -> Variable:
        """Return vectors of globals and blocks, as :meth:`Blocks.join` does."""
        members = self._blocks.members
        parts = [shared, local.reshape((*sample_shape, members.size))]
        order = np.argsort(np.concatenate([self._blocks.shared, members.ravel()]))
        return pt.concatenate(parts, axis=-1)[..., order]

    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        means, sds = starts.means(self.layout), starts.sds(self.layout, 1.0)
        return Arrow.diagonal(means, self._blocks, sds).guide_parameters

    def sample(self, params: Mapping[str, Variable], sample_shape: SampleShape) -> Variable:
        z = noise((*sample_shape, len(self._blocks.shared)))
        z_local = noise((*sample_shape, *self._blocks.members.shape))
        x_local = (params["across"] * z[..., None, None, :]).sum(axis=-1)
        x_local = x_local + (params["within"] * z_local[..., None, :]).sum(axis=-1)
        return params["mu"] + self._join(z @ params["shared"].T, x_local, sample_shape)

    def log_density(self, z: Variable, params: Mapping[str, Variable]) -> Variable:
        shared, local = self._blocks.split(z - params["mu"])
        x = solve_lower(params["shared"], shared)
        left = local - (params["across"] * x[..., None, None, :]).sum(axis=-1)
        x_local = solve_lower(params["within"], left)
        log_scale = pt.log(pt.diagonal(params["shared"])).sum()
        log_scale += pt.log(pt.diagonal(params["within"], axis1=-2, axis2=-1)).sum()
        squares = (x**2).sum(axis=-1) + (x_local**2).sum(axis=(-2, -1))
        return -0.5 * squares - log_scale - self.layout.size * LOG_SQRT_2PI

    def moments(self, param_values: ParamValues) -> tuple[Variable, Variable]:
        params = self.values_by_name(param_values)
        of_shared = (params["shared"] ** 2).sum(axis=-1)
        of_local = (params["across"] ** 2).sum(axis=-1) + (params["within"] ** 2).sum(axis=-1)
        return params["mu"], pt.sqrt(self._join(of_shared, of_local))


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
    """
    for blocks in _candidates(logp.layout):
        is_small = len(blocks.shared) + blocks.block_size <= MAX_BLOCK_SIZE
        if is_small and _independent(logp, blocks, rng):
            return blocks
    return None


def _candidates(layout: Layout) -> list[Blocks]:
    """Return the blocks for each length of an axis, sorted by the number of globals."""
    lengths = {n for shape in layout.shapes for n in shape if n > 1}
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
    rounding = ROUNDING[pytensor.config.floatX] * np.abs(gradients).max(axis=0)
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
