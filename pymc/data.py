# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

import pymc._layer as _layer

released = _layer.run_release(globals())

from pymc.minibatch.data_placeholder import stream_data  # noqa: E402
from pymc.minibatch.index import MinibatchIndexRV, minibatch_index  # noqa: E402, F401
from pymc.minibatch.minibatch import Minibatch  # noqa: E402, F401
from pymc.minibatch.stream_index import gives_rows, is_loader  # noqa: E402
from pymc.minibatch.total_size import is_valid_observed  # noqa: E402, F401


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
    """Create a data container that registers a data variable with the model.

    Parameters
    ----------
    name : str
        The name for this variable.
    value : array_like, pandas object, or DataLoader
        A value to associate with this variable. Of a loader, the variable holds a batch, or the field
        `name` of it where batches are dicts: it has ``batch_size`` rows now, zeros until some are fed.
    dims : str or tuple of str or None, optional
        Dimension names of the axes. The first one of a loader's batch is that of its rows, and has the
        length ``loader.total_size``.
    coords : dict, optional
        Coordinate values to set for new dimensions introduced by this variable. The columns of a loader
        have their names where it knows them.
    infer_dims_and_coords : bool, default False
        Whether to take coords and names of dims from an index in `value`.
    model : Model, optional
        Model in which to register the container. Defaults to the current context.
    **kwargs
        Extra arguments passed to :func:`pytensor.shared`, including ``shape``.

    Returns
    -------
    SharedVariable; of a loader TensorVariable of shape (batch_size, ...)
        With :func:`pymc.set_data` it takes other values, of any number of rows. What is computed from
        the rows of a loader counts for all of them, as that of :func:`pymc.Minibatch` does.

    Raises
    ------
    TypeError, ValueError, ShapeError
        If there is no model, or dims or the loader's field do not fit.

    Examples
    --------
    >>> with pm.Model():
    ...     x = pm.Data("x", [1.0, 2.0, 3.0], dims="obs")
    >>> x.eval()
    array([1., 2., 3.])

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
    if not is_loader(value):
        return released.Data(
            name,
            value,
            dims=dims,
            coords=coords,
            infer_dims_and_coords=infer_dims_and_coords,
            model=model,
            **kwargs,
        )
    from pymc.model.core import modelcontext  # which imports this module

    return stream_data(name, value, modelcontext(model), dims, coords, **kwargs)
