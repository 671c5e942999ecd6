# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

import pymc._layer as _layer

from pymc._docstrings import extends_docstring

released = _layer.run_release(globals())

from pymc.minibatch.data_placeholder import stream_data  # noqa: E402
from pymc.minibatch.index import MinibatchIndexRV, minibatch_index  # noqa: E402, F401
from pymc.minibatch.minibatch import Minibatch  # noqa: E402, F401
from pymc.minibatch.stream_index import gives_rows, is_loader  # noqa: E402
from pymc.minibatch.total_size import is_valid_observed  # noqa: E402, F401


@extends_docstring(released.Data)
def Data(
    name: str,
    value: Any,
    *,
    dims: str | Sequence[str | None] | None = None,
    coords: dict[str, Any] | None = None,
    infer_dims_and_coords: bool = False,
    model: Any = None,
    **kwargs: object,
) -> Any:
    """Of a `DataLoader`, the variable holds one batch: what is computed from its rows counts for all of them.

    Parameters
    ----------
    value : array_like or pandas.Series, pandas.Dataframe, DataLoader
        Of a loader, the variable holds a batch, or the field `name` of it where batches are dicts: it
        has ``batch_size`` rows now, zeros until some are fed.
    dims : str, tuple of str or tuple of None, optional
        The first one of a loader's batch is that of its rows, and has the length ``loader.total_size``.
    coords : dict, optional
        The columns of a loader have their names where it knows them.

    Returns
    -------
    SharedVariable; of a loader TensorVariable of shape (batch_size, ...)
        With :func:`pymc.set_data` it takes other values, of any number of rows.

    Raises
    ------
    TypeError, ValueError, ShapeError
        If there is no model, or dims or the loader's field do not fit.

    Examples
    --------
    Rows that come in batches:

    >>> loader = pm.DataLoader(np.arange(6000.0).reshape(2000, 3), batch_size=100)
    >>> with pm.Model() as model:
    ...     batch = pm.Data("batch", loader, dims=("obs", "column"))
    ...     mu = pm.Normal("mu")
    ...     y = pm.Normal("y", mu, 1, observed=batch[:, 2], dims="obs")
    >>> model.dim_lengths["obs"].eval(), batch.eval().shape
    (array(2000), (100, 3))
    """
    if gives_rows(value):
        raise TypeError(
            f"pm.Data({name!r}, ...) got a {type(value).__name__}, which does not say what the batches are "
            "like. Write loader = pm.DataLoader(..., batch_size=...) of it, "
            f"pm.Data({name!r}, loader), and fit by that loader"
        )
    if is_loader(value):
        from pymc.model.core import modelcontext  # which imports this module

        return stream_data(name, value, modelcontext(model), dims, coords, **kwargs)
    return released.Data(
        name,
        value,
        dims=dims,
        coords=coords,
        infer_dims_and_coords=infer_dims_and_coords,
        model=model,
        **kwargs,
    )
