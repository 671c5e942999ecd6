# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fits without settings: ``pm.fit(method="auto")``."""

from pymc.variational.auto.inference import AutoApproximation, AutoInference

__all__ = ["AutoApproximation", "AutoInference"]
