# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Steps called one by one from Python: for the C backend, and for what cannot be compiled into a loop."""

from __future__ import annotations

import threading

import numpy as np

from pymc.variational.engine.drivers.base import HostState, Run, State, StepFunction, check_fed
from pymc.variational.engine.feeds import Fed

__all__ = ["PythonDriver"]


class PythonDriver(HostState):
    """Calls the compiled function of a step.

    Parameters
    ----------
    step : StepFunction
        Compiled with any mode.
    """

    name = "python"

    def __init__(self, step: StepFunction) -> None:
        super().__init__(step)
        # Fits in two threads may share the function, which has one place for values
        self._lock = threading.Lock()
        self._storages = [container.storage for container in step.function.input_storage]

    def compile(self, state: State) -> None:
        """Do nothing: PyTensor compiles the function, some backends at its first call."""

    def run(self, state: State, n_steps: int, fed: Fed | None = None) -> Run:
        check_fed(self._step, fed)
        with self._lock:
            return self._run(state, n_steps, fed)

    def _run(self, state: State, n_steps: int, fed: Fed | None) -> Run:
        slots = [(self._storages[given.place], given.dtype) for given in self._step.fed]
        others = [storage[0] for storage in self._storages]
        for storage, value in zip(self._storages, state):
            storage[0] = value
        losses = self._step.room(n_steps)
        n_run = 0
        try:
            while n_run < n_steps:
                if fed is not None:
                    for (storage, dtype), values in zip(slots, fed.values):
                        storage[0] = values[fed.start + n_run].astype(dtype, copy=False)
                loss = self._step.function()
                if self._step.has_loss:
                    losses[n_run] = loss
                n_run += 1
                if self._step.has_loss and not np.isfinite(losses[n_run - 1]).flat[0]:
                    break
            after = tuple(storage[0] for storage in self._storages)
        finally:
            for storage, value in zip(self._storages, others):
                storage[0] = value
        return Run(after, losses[:n_run])
