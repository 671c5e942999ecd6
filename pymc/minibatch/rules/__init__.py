# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What each Op makes of the rows of a minibatch: the rules of `pymc.minibatch.axis_tracking.output_axes`."""

from pymc.minibatch.rules import indexing, random, tensor
