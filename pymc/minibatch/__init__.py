# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Minibatches: random rows of large data, axis tracking, and N/B scaling."""

#: The version of the patch, as in ``pyproject.toml``.
__version__ = "0.2.0"

from pymc.minibatch import (
    axis_rules,  # registers the rules of `track_axes`
    dispatch,  # registers the index with the backends
)
