# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rewrites of the graph of a step, under the tag of `reductions`."""
