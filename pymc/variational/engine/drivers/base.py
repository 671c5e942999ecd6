# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a driver is: it runs many optimisation steps in one call."""

from __future__ import annotations

import copy
import threading

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

from pymc.variational.engine.batch_feed import PreparedBatches
from pymc.variational.engine.step import StepFunction, host_value

__all__ = [
    "Driver",
    "NumpyState",
    "PickledByStep",
    "PythonDriver",
    "Run",
    "State",
    "StepFunction",
    "check_batches",
]

#: The values of a step's shared variables, in the order of its inputs, as its backend holds them.
State = tuple[Any, ...]


class Run(NamedTuple):
    """What came of a call.

    Parameters
    ----------
    state : State
        After the last step that ran.
    losses : array of shape (n_steps,) or (n_steps, n), or shorter
        The loss of each step that ran, nan for a step without one, and others beside it. It is shorter
        where the loss was not finite: that one is the last.
    """

    state: State
    losses: np.ndarray


class Driver(Protocol):
    """Runs the steps of one compiled function; it keeps no state of its own."""

    #: What the report of a fit says: "numba", "jax" or "python".
    name: str

    def __init__(self, step: StepFunction) -> None: ...

    def load(self, shared: Sequence[SharedVariable]) -> State:
        """Take the values of the shared variables, which stand in the order of the inputs."""

    def store(self, state: State, shared: Sequence[SharedVariable]) -> None:
        """Write the values that steps change back, as NumPy arrays and Generators."""

    def copy(self, state: State) -> State:
        """Copy what steps change in place, to go back to it later."""

    def compile(self, state: State) -> None:
        """Compile what `run` needs for values of the types in `state`, without taking a step."""

    def prepare_batches(self, values: tuple[np.ndarray, ...]) -> Any:
        """Take batches for the fed inputs, each with an axis of them in front, as `run` reads it."""

    def run(self, state: State, n_steps: int, fed: PreparedBatches | None = None) -> Run:
        """Take `n_steps` steps, or fewer where a loss is not finite; `state` is used up.

        A step with fed inputs needs `fed`, of at least `n_steps` batches from its start.
        """


class PickledByStep:
    """Pickled as the step that it is made from; copies share it, since it keeps no state.

    Parameters
    ----------
    step : StepFunction
    """

    def __init__(self, step: StepFunction) -> None:
        self._step = step

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._step,)

    def __deepcopy__(self, memo: Any) -> PickledByStep:
        return self


class NumpyState(PickledByStep):
    """State of drivers that compute on NumPy arrays and Generators: the shared values themselves.

    Parameters
    ----------
    step : StepFunction
    """

    def __init__(self, step: StepFunction) -> None:
        super().__init__(step)
        self._changed = tuple(sorted(step.updates))

    def load(self, shared: Sequence[SharedVariable]) -> State:
        return tuple(host_value(var) for var in shared)

    def store(self, state: State, shared: Sequence[SharedVariable]) -> None:
        for i in self._changed:
            shared[i].container.storage[0] = state[i]

    def prepare_batches(self, values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return values

    def copy(self, state: State) -> State:
        values = list(state)
        for i in self._changed:
            values[i] = _copied(values[i])
        return tuple(values)


def check_batches(step: StepFunction, fed: PreparedBatches | None) -> None:
    """Raise where a step needs batches and has none."""
    if step.fed and fed is None:
        raise ValueError("The step has fed inputs: run(state, n_steps, fed) needs their batches.")


def _copied(value: Any) -> Any:
    if isinstance(value, np.random.Generator):  # deepcopy takes ten times as long
        bit_generator = type(value.bit_generator)(0)
        bit_generator.state = value.bit_generator.state
        return np.random.Generator(bit_generator)
    return copy.copy(value)


class PythonDriver(NumpyState):
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

    def run(self, state: State, n_steps: int, fed: PreparedBatches | None = None) -> Run:
        check_batches(self._step, fed)
        with self._lock:
            return self._run(state, n_steps, fed)

    def _run(self, state: State, n_steps: int, fed: PreparedBatches | None) -> Run:
        slots = [(self._storages[given.place], given.dtype) for given in self._step.fed]
        others = [storage[0] for storage in self._storages]
        for storage, value in zip(self._storages, state):
            storage[0] = value
        losses = self._step.loss_buffer(n_steps)
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
