# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The patch as commits on PyMC's tree: ``python -m scripts.upstream``."""
