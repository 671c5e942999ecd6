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
"""Whether the values that a distribution of an encoder has are among those of its variable."""

from __future__ import annotations

from typing import Any

import numpy as np

from pytensor.graph.basic import Variable
from pytensor.graph.op import Op
from pytensor.tensor.random.op import RandomVariable

from pymc.distributions.custom import CustomDistRV
from pymc.distributions.transforms import _default_transform
from pymc.logprob.transforms import (
    CircularTransform,
    IntervalTransform,
    LogOddsTransform,
    LogTransform,
    SimplexTransform,
)
from pymc.pytensorf import constant_fold
from pymc.variational.guides.base import Site

__all__ = ["check_support"]

#: The least and the greatest value; None where that is not a constant, or nothing is known.
type Bounds = tuple[float | None, float | None]

_UNKNOWN: Bounds = (None, None)


def check_support(dist: Variable, op: Op, site: Site, call: str) -> None:
    """Raise where an encoder draws what its variable cannot be, as far as constants tell.

    Parameters
    ----------
    dist : Variable
        What the encoder returned.
    op : Op
        Of `dist`.
    site : Site
    call : str
        How messages begin.

    Raises
    ------
    ValueError
        The message shows both supports.
    """
    # What a user wrote has no transform, whatever its support
    if not _is_known(op):
        return
    default = _default_transform(op, dist)
    simplex = isinstance(site.transform, SimplexTransform)
    if site.transform is not None and (
        default is None or (simplex and not isinstance(default, SimplexTransform))
    ):
        raise ValueError(
            f"{call} returns {op.name or op}, which has values that {site.name!r} cannot have (its "
            f"transform is {site.transform.name!r}): give a distribution on the variable's own space, "
            f"such as {'pm.Dirichlet' if simplex else 'pm.LogNormal for a positive one'}"
        )
    least, greatest = _bounds(dist)
    for low, high in (_bounds(site.rv), _of_transform(site.transform, site.rv)):
        below = None not in (least, low) and least < low  # type: ignore[operator]
        if below or (None not in (greatest, high) and greatest > high):  # type: ignore[operator]
            raise ValueError(
                f"{call} returns {op.name or op}, with values from {_text(least)} to {_text(greatest)}, but "
                f"those of {site.name!r} are from {_text(low)} to {_text(high)}, so that log p of a draw "
                "may be -inf: give a distribution on the variable's own space, such as pm.LogNormal for "
                "a positive one, pm.Beta from 0 to 1, or pm.Bernoulli for 0 and 1"
            )


def _is_known(op: Any) -> bool:
    return isinstance(op, RandomVariable) and not isinstance(op, CustomDistRV)


def _bounds(dist: Variable) -> Bounds:
    op = dist.owner.op
    if not _is_known(op):
        return _UNKNOWN
    if not op.dtype.startswith("float"):
        return _of_counts(op.name, dist.owner.inputs[2:])
    transform = _default_transform(op, dist)
    return (-np.inf, np.inf) if transform is None else _of_transform(transform, dist)


def _of_counts(name: str, params: list[Variable]) -> Bounds:
    match name:
        case "bernoulli":
            return 0, 1
        case "categorical":
            n = params[0].type.shape[-1]
            return 0, None if n is None else n - 1
        case "binomial" | "beta_binomial":
            return 0, _number(params[0])
        case "poisson" | "negative_binomial":
            return 0, np.inf
        case "geometric":
            return 1, np.inf
        case "discrete_uniform":
            return _number(params[0]), _number(params[1])
    return _UNKNOWN


def _of_transform(transform: Any, rv: Variable) -> Bounds:
    match transform:
        case LogTransform():
            return 0.0, np.inf
        case LogOddsTransform() | SimplexTransform():
            return 0.0, 1.0
        case CircularTransform():
            return -np.pi, np.pi
        case IntervalTransform():
            low, high = transform.args_fn(*rv.owner.inputs)
            return (
                -np.inf if low is None else _number(low),
                np.inf if high is None else _number(high),
            )
    return _UNKNOWN


def _number(var: Any) -> float | None:
    """The value of a constant that is one number."""
    [value] = constant_fold([var], raise_not_constant=False) if isinstance(var, Variable) else [var]
    if isinstance(value, Variable) or np.size(value) == 0 or np.ptp(value) > 0:
        return None
    return float(np.ravel(value)[0])


def _text(bound: float | None) -> str:
    return "what its parameters say" if bound is None else f"{bound:g}"
