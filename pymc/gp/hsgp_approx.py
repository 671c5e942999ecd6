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
from typing import Any

import numpy as np

from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.minibatch.rebuild import all_rows


def _full(X: Any) -> Any:
    """All rows of a minibatch: what is fixed once for all batches cannot be of one of them."""
    return all_rows([X])[0] if isinstance(X, Variable) else X


class _CenteredOnAllRows:
    def prior_linearized(self: Any, X: Any) -> Any:
        full = _full(X)
        if self._X_center is None and full is not X:
            X_all = full.eval()
            self._X_center = (np.max(X_all, axis=0) + np.min(X_all, axis=0)) / 2
        return super().prior_linearized(X)  # type: ignore[misc]


released = _layer.run_release(globals(), HSGP=_CenteredOnAllRows, HSGPPeriodic=_CenteredOnAllRows)


def set_boundary(X: Any, c: Any) -> np.ndarray:
    return released.set_boundary(_full(X), c)


set_boundary.__doc__ = released.set_boundary.__doc__
