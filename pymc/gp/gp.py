# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.minibatch.plates import subsampled_dims
from pymc.model.core import modelcontext


class _Latent:
    def prior(self: Any, name: str, X: Variable, *args: object, **kwargs: Any) -> Any:
        _check_dims(self, name, kwargs.get("dims"))
        return super().prior(name, X, *args, **kwargs)  # type: ignore[misc]


class _LatentKron:
    def prior(self: Any, name: str, Xs: Sequence[Variable], *args: object, **kwargs: Any) -> Any:
        _check_dims(self, name, kwargs.get("dims"))
        return super().prior(name, Xs, *args, **kwargs)  # type: ignore[misc]


class _TP:  # it is a Latent, and has a prior of its own
    def prior(self: Any, name: str, X: Variable, *args: object, **kwargs: Any) -> Any:
        _check_dims(self, name, kwargs.get("dims"))
        return super().prior(name, X, *args, **kwargs)  # type: ignore[misc]


released = _layer.run_release(globals(), Latent=_Latent, TP=_TP, LatentKron=_LatentKron)


def _check_dims(process: object, name: str, dims: Sequence[str | None] | str | None) -> None:
    named = (dims,) if isinstance(dims, str) else dims or ()
    plates = subsampled_dims(modelcontext(None))
    for dim in named:
        if dim in plates:
            raise ValueError(
                f"pm.gp.{type(process).__name__}.prior of {name!r} has dims={dims!r}, but {dim!r} is "
                "subsampled: a batch has only some of its rows, and the values of a Gaussian process "
                "at the rows depend on each other, so that they cannot be drawn without the rest. Use "
                "pm.gp.HSGP, whose coefficients are global and whose values are computed row by row, a "
                "dim that is not subsampled, or all rows, without pm.Minibatch"
            )
