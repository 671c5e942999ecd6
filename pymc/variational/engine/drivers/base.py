# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The protocol of a driver, which runs many optimisation steps in one call, and the one in Python."""

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
    """The state after the last step that ran, and the losses.

    These have shape (n_steps,), or (n_steps, n) with auxiliary losses, and are nan for steps without a loss.
    They end with the first loss that is not finite.
    """

    state: State
    losses: np.ndarray


class Driver(Protocol):
    """Runs the steps of one compiled function. It has no state of its own."""

    #: In the report of a fit: "numba", "jax" or "python".
    name: str

    def __init__(self, step: StepFunction) -> None: ...

    def load(self, shared: Sequence[SharedVariable]) -> State:
        """Return the values of the shared variables, which are in the order of the inputs."""

    def store(self, state: State, shared: Sequence[SharedVariable]) -> None:
        """Write the values that steps change back, as NumPy arrays and Generators."""

    def copy(self, state: State) -> State:
        """Copy the values that steps change in place, to go back to them."""

    def compile(self, state: State) -> None:
        """Compile all that `run` needs for values of these types, without taking a step."""

    def prepare_batches(self, values: tuple[np.ndarray, ...]) -> Any:
        """Return batches for the batch inputs, each an array with an axis of batches in front, for `run`."""

    def run(self, state: State, n_steps: int, batches: PreparedBatches | None = None) -> Run:
        """Take `n_steps` steps, or fewer if a loss is not finite. `state` must not be used again.

        A step with batch inputs needs at least `n_steps` batches.
        """


class PickledByStep:
    """Mixin of drivers: pickled as the step that they are made from, and shared by copies."""

    def __init__(self, step: StepFunction) -> None:
        self._step = step

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._step.with_function(),)

    def __deepcopy__(self, memo: Any) -> PickledByStep:
        return self


class NumpyState(PickledByStep):
    """State of drivers that compute on NumPy arrays and Generators: the shared values themselves."""

    def __init__(self, step: StepFunction) -> None:
        super().__init__(step)
        self._updated = tuple(sorted(step.updates))

    def load(self, shared: Sequence[SharedVariable]) -> State:
        return tuple(host_value(var) for var in shared)

    def store(self, state: State, shared: Sequence[SharedVariable]) -> None:
        for i in self._updated:
            shared[i].container.storage[0] = state[i]

    def prepare_batches(self, values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return values

    def copy(self, state: State) -> State:
        return tuple(_copied(v) if i in self._updated else v for i, v in enumerate(state))


class PythonDriver(NumpyState):
    """Calls the compiled function of a step: for the C backend, and where no loop can be compiled."""

    name = "python"

    def __init__(self, step: StepFunction) -> None:
        super().__init__(step)
        # Fits in two threads may share the function, which has one place for values
        self._lock = threading.Lock()
        self._storages = [container.storage for container in step.function.input_storage]

    def compile(self, state: State) -> None:
        """Do nothing: PyTensor compiles the function, some backends at its first call."""

    def run(self, state: State, n_steps: int, batches: PreparedBatches | None = None) -> Run:
        check_batches(self._step, batches)
        with self._lock:
            before = [storage[0] for storage in self._storages]
            for storage, value in zip(self._storages, state):
                storage[0] = value
            try:
                losses = self._run(n_steps, batches)
                return Run(tuple(storage[0] for storage in self._storages), losses)
            finally:
                for storage, value in zip(self._storages, before):
                    storage[0] = value

    def _run(self, n_steps: int, batches: PreparedBatches | None) -> np.ndarray:
        losses = self._step.loss_buffer(n_steps)
        for k in range(n_steps):
            if batches is not None:
                for (i, dtype, _), values in zip(self._step.batch_inputs, batches.values):
                    batch = values[batches.start + k]
                    self._storages[i][0] = batch.astype(dtype, copy=False)
            loss = self._step.function()
            if self._step.has_loss:
                losses[k] = loss
                if not np.isfinite(losses[k]).flat[0]:
                    return losses[: k + 1]
        return losses


def check_batches(step: StepFunction, batches: PreparedBatches | None) -> None:
    """Raise if a step needs batches and gets none."""
    if step.batch_inputs and batches is None:
        raise ValueError(
            "The step has batch inputs: run(state, n_steps, batches) needs batches for them."
        )


def _copied(value: Any) -> Any:
    if isinstance(value, np.random.Generator):  # deepcopy takes ten times as long
        bit_generator = type(value.bit_generator)(0)
        bit_generator.state = value.bit_generator.state
        return np.random.Generator(bit_generator)
    return copy.copy(value)
