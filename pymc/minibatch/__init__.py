# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Random rows of large data, the same rows everywhere, and the scale that makes them count for all."""

from pymc.minibatch import (
    dispatch,  # registers the index with the backends
    rules,  # registers what `track_axes` applies
)
