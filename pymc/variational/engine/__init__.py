# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The engine of a fit: a step compiled on each backend, and the loop over steps."""
