# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from functools import partial
from typing import Any

from pytensor.xtensor import as_xtensor

import pymc._layer as _layer

from pymc._docstrings import extends_docstring
from pymc.data import Data as RegularData
from pymc.minibatch.stream_index import is_loader
from pymc.model.core import Model

released = _layer.run_release(globals())


@extends_docstring(released.Data)
def Data(
    name: str,
    value: object,
    dims: str | Sequence[str] | None = None,
    model: Model | None = None,
    **kwargs: Any,
) -> Any:
    """Of a `DataLoader`, the variable holds one batch, and its first dim is that of the rows."""
    if is_loader(value):
        names = released.convert_dims(dims)
        return as_xtensor(RegularData(name, value, dims=names, model=model, **kwargs), dims=names)
    return released.Data(name, value, dims=dims, model=model, **kwargs)


@extends_docstring(released.Potential)
def Potential(
    name: str,
    value: object,
    dims: str | Sequence[str] | None = None,
    model: Model | None = None,
    total_size: Any = None,
) -> Any:
    """`total_size` is that of :func:`pymc.Potential`, for a sum over the rows of a minibatch."""
    register = partial(released.RegularPotential, total_size=total_size)
    return released._register_and_return_xtensor_variable(name, value, dims, model, register)
