# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Results of a fit: draws, predictions and log-weights, of all rows or of some."""
