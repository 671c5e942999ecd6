# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from functools import wraps
from typing import Any

import numpy as np

from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.minibatch.data_placeholder import as_streamed
from pymc.minibatch.rebuild import all_rows
from pymc.minibatch.stream_index import streams_in
from pymc.model.core import Model


def _all_rows_of(X: Any) -> Any:
    """Return all rows of a minibatch, since the basis is the same for all batches."""
    if not isinstance(X, Variable):
        return X
    model = Model.get_context(error_if_none=False)  # type: ignore[attr-defined]
    if streams_in([X if model is None else as_streamed(model, X)]):
        raise ValueError(
            "The centre of an HSGP, and its boundary by c=, are those of all rows of X, but these come in "
            "batches from a loader, and none has been seen. Say before it over which range they are: "
            "gp.prior_linearized(np.array([[least], [most]])), with a column for each column of X, fixes "
            "both, and then gp.prior(name, X) takes batches"
        )
    return all_rows([X])[0]


class _CenteredOnAllRows:
    def prior_linearized(self: Any, X: Variable | np.ndarray) -> Any:
        if self._X_center is None and (full := _all_rows_of(X)) is not X:
            X_all = full.eval()
            self._X_center = (np.max(X_all, axis=0) + np.min(X_all, axis=0)) / 2
        return super().prior_linearized(X)  # type: ignore[misc]


released = _layer.run_release(globals(), HSGP=_CenteredOnAllRows, HSGPPeriodic=_CenteredOnAllRows)


@wraps(released.set_boundary)
def set_boundary(X: Variable | np.ndarray, c: object) -> np.ndarray:
    return released.set_boundary(_all_rows_of(X), c)
