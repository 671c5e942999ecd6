# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Guides: variational distributions of the latent variables."""

from pymc.variational.guides.amortized import Amortized
from pymc.variational.guides.base import FlatGuide, Guide
from pymc.variational.guides.flow import NormalizingFlow
from pymc.variational.guides.low_rank import LowRank
from pymc.variational.guides.structured import Structured

__all__ = ["Amortized", "FlatGuide", "Guide", "LowRank", "NormalizingFlow", "Structured"]
