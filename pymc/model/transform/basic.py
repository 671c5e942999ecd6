# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pymc._layer as _layer

from pymc.model.core import Model

released = _layer.run_release(globals())


def remove_minibatched_nodes(model: Model) -> Any:
    """Remove all uses of pm.Minibatch in the Model; see :func:`pymc.remove_minibatch`."""
    from pymc.model.transform.minibatch import remove_minibatch

    return remove_minibatch(model)
