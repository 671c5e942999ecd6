# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Drivers: how many steps run in one call, one module for each way."""

from pymc.variational.engine.drivers.base import Driver, Run, State, StepFunction
from pymc.variational.engine.drivers.choice import choose_driver

__all__ = ["Driver", "Run", "State", "StepFunction", "choose_driver"]
