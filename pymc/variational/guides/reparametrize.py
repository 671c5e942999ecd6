# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Draws of a distribution as a function of its parameters and of noise that does not depend on them.

Gradients pass through such draws to the parameters (Kingma and Welling 2014, "Auto-encoding variational
Bayes", section 2.4): of a normal distribution by location and scale, of others by the inverse of their
distribution function, where it has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.gradient import NullTypeGradError
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.op import Op
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.random.basic import (
    HalfNormalRV,
    LogNormalRV,
    MvNormalRV,
    NormalRV,
    StudentTRV,
)

from pymc.logprob.basic import icdf
from pymc.variational.guides.base import draw_random, noise


class Path(NamedTuple):
    """A draw as a function of noise.

    Parameters
    ----------
    draw : Variable
        One draw, of the distribution's rank.
    noise : Variable
        What it is a function of, of the same rank.
    of_shape : callable (shape) -> Variable
        Noise of a shape, drawn anew at each evaluation.
    """

    draw: Variable
    noise: Variable
    of_shape: Callable[[Sequence[Any]], Variable]


def path(dist: Variable) -> Path | None:
    """Write a draw of a distribution as a function of its parameters and of noise.

    Returns
    -------
    Path or None
        None where there is no such function that has a gradient.

    Examples
    --------
    >>> from pymc.variational.guides.reparametrize import path
    >>> import pytensor.tensor as pt
    >>> a = pt.scalar("a")
    >>> path(pm.Exponential.dist(a)) is None, path(pm.Gamma.dist(a, 1.0)) is None
    (False, True)
    """
    if not dist.type.dtype.startswith("float"):
        return None
    eps = pt.tensor(dtype=dist.type.dtype, shape=(None,) * dist.type.ndim)
    return _path(dist.owner.op, dist, eps)


@singledispatch
def _path(op: Op, dist: Variable, eps: Variable) -> Path | None:
    if getattr(op, "ndim_supp", 0) != 0:
        return None
    try:
        draw = icdf(dist, eps)
        parameters = [
            v for v in dist.owner.inputs if str(getattr(v.type, "dtype", ""))[:5] == "float"
        ]
        pytensor.grad(draw.sum(), parameters, disconnected_inputs="ignore")
    except (NotImplementedError, NullTypeGradError):
        return None
    return Path(draw, eps, _uniform)


@_path.register(NormalRV)
def _(op: NormalRV, dist: Variable, eps: Variable) -> Path:
    loc, scale = op.dist_params(dist.owner)
    return Path(loc + scale * eps, eps, noise)


@_path.register(LogNormalRV)
def _(op: LogNormalRV, dist: Variable, eps: Variable) -> Path:
    loc, scale = op.dist_params(dist.owner)
    return Path(pt.exp(loc + scale * eps), eps, noise)


@_path.register(HalfNormalRV)
def _(op: HalfNormalRV, dist: Variable, eps: Variable) -> Path:
    loc, scale = op.dist_params(dist.owner)
    return Path(loc + scale * abs(eps), eps, noise)


@_path.register(StudentTRV)
def _(op: StudentTRV, dist: Variable, eps: Variable) -> Path | None:
    """Scale standard draws, whose degrees of freedom have to be fixed for that."""
    freedom, loc, scale = op.dist_params(dist.owner)
    while freedom.owner is not None and isinstance(freedom.owner.op, DimShuffle):
        freedom = freedom.owner.inputs[0]
    if not isinstance(freedom, Constant) or freedom.data.size != 1:
        return None

    def standard(shape: Sequence[Any]) -> Variable:
        return draw_random(pt.random.t, freedom.data.item(), size=tuple(shape))

    return Path(loc + scale * eps, eps, standard)


@_path.register(MvNormalRV)
def _(op: MvNormalRV, dist: Variable, eps: Variable) -> Path:
    loc, cov = op.dist_params(dist.owner)
    return Path(loc + (pt.linalg.cholesky(cov) @ eps[..., None])[..., 0], eps, noise)


def _uniform(shape: Sequence[Any]) -> Variable:
    """Draw from the open unit interval: at its ends the inverse may be infinite."""
    tiny = np.finfo(pytensor.config.floatX).eps
    return draw_random(pt.random.uniform, tiny, 1 - tiny, size=tuple(shape))
