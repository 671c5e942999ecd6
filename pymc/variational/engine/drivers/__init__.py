# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Drivers run many steps in one call; choose the one of the backend that compiled a step."""

from __future__ import annotations

import logging

from collections.abc import Callable

from pymc.variational.engine.drivers.base import Driver, PythonDriver, Run, State, StepFunction

__all__ = ["Driver", "Run", "State", "StepFunction", "choose_driver"]


_log = logging.getLogger(__name__)


# Drivers by the linker that compiled a step, in the order in which they are tried. The modules of
# Numba and JAX are loaded only when one of them did.
def _numba() -> tuple[type[Driver], ...]:
    from pymc.variational.engine.drivers.numba import NumbaDriver

    return NumbaDriver, PythonDriver


def _jax() -> tuple[type[Driver], ...]:
    from pymc.variational.engine.drivers.jax import JaxDriver, JaxStepDriver

    return JaxDriver, JaxStepDriver


DRIVERS: dict[str, Callable[[], tuple[type[Driver], ...]]] = {
    "NumbaLinker": _numba,
    "JAXLinker": _jax,
}


def choose_driver(step: StepFunction, shared_values: Callable[[Driver], State]) -> Driver:
    """Choose, and compile what the driver needs.

    Parameters
    ----------
    step : StepFunction
    shared_values : callable
        (driver) -> state, as the driver loads it.

    Returns
    -------
    Driver
        Of the linker that compiled the step if it can compile the loop, otherwise one that takes the
        steps one by one.
    """
    make = DRIVERS.get(type(step.function.maker.linker).__name__)
    loop, one_by_one = (None, PythonDriver) if make is None else make()
    if loop is not None:
        try:
            driver = loop(step)
            driver.compile(shared_values(driver))
            return driver
        # Backends raise errors of many kinds for a graph that they cannot compile. One that the step
        # itself has comes again when it is called.
        except Exception as error:
            _log.debug("The steps run one by one, since their loop does not compile: %s", error)
    return one_by_one(step)
