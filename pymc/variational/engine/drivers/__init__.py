# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Drivers, which run many steps in one call, and the choice among them."""

from __future__ import annotations

import logging

from collections.abc import Callable

from pymc.variational.engine.drivers.base import Driver, PythonDriver, Run, State, StepFunction

__all__ = ["Driver", "Run", "State", "StepFunction", "choose_driver"]

_log = logging.getLogger(__name__)


# The drivers of a linker: the one that compiles a loop, and the one that takes steps one by one. The modules
# of Numba and JAX are loaded only when one of them has compiled a step.
def _numba() -> tuple[type[Driver], type[Driver]]:
    from pymc.variational.engine.drivers.numba import NumbaDriver

    return NumbaDriver, PythonDriver


def _jax() -> tuple[type[Driver], type[Driver]]:
    from pymc.variational.engine.drivers.jax import JaxDriver, JaxStepDriver

    return JaxDriver, JaxStepDriver


DRIVERS: dict[str, Callable[[], tuple[type[Driver], type[Driver]]]] = {
    "NumbaLinker": _numba,
    "JAXLinker": _jax,
}


def choose_driver(step: StepFunction, load: Callable[[Driver], State]) -> Driver:
    """Return a driver of the linker that compiled a step: one that compiles a loop, if that works.

    The loop is compiled for the types of the state that `load` returns.
    """
    drivers = DRIVERS.get(step.linker)
    if drivers is None:
        return PythonDriver(step)
    loop, one_by_one = drivers()
    try:
        driver = loop(step)
        driver.compile(load(driver))
        return driver
    # Backends raise errors of many kinds for a graph that they cannot compile. An error of the step itself
    # comes again when it is called.
    except Exception as error:
        _log.debug("The steps run one by one, since their loop does not compile: %s", error)
        return one_by_one(step)
