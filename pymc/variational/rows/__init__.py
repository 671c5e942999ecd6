# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Parameters of rows: gathered at the index of a batch, and updated only there."""

from pymc.variational.rows import dispatch  # registers its Ops with the backends
