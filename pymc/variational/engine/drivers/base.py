# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a driver is: it runs many optimisation steps in one call."""

from __future__ import annotations

import copy

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

from pymc.variational.engine.feeds import Fed
from pymc.variational.engine.step import StepFunction, host_value

__all__ = ["Driver", "HostState", "Rebuilt", "Run", "State", "StepFunction", "check_fed"]

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

    def hold(self, values: tuple[np.ndarray, ...]) -> Any:
        """Take batches for the fed inputs, each with an axis of them in front, as `run` reads it."""

    def run(self, state: State, n_steps: int, fed: Fed | None = None) -> Run:
        """Take `n_steps` steps, or fewer where a loss is not finite; `state` is used up.

        A step with fed inputs needs `fed`, of at least `n_steps` batches from its start.
        """


class Rebuilt:
    """Pickled as the step that it is made from; copies share it, since it keeps no state.

    Parameters
    ----------
    step : StepFunction
    """

    def __init__(self, step: StepFunction) -> None:
        self._step = step

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._step,)

    def __deepcopy__(self, memo: Any) -> Rebuilt:
        return self


class HostState(Rebuilt):
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

    def hold(self, values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return values

    def copy(self, state: State) -> State:
        values = list(state)
        for i in self._changed:
            values[i] = _copied(values[i])
        return tuple(values)


def check_fed(step: StepFunction, fed: Fed | None) -> None:
    """Raise where a step needs batches and has none."""
    if step.fed and fed is None:
        raise ValueError("The step has fed inputs: run(state, n_steps, fed) needs their batches.")


def _copied(value: Any) -> Any:
    if isinstance(value, np.random.Generator):  # deepcopy takes ten times as long
        bit_generator = type(value.bit_generator)(0)
        bit_generator.state = value.bit_generator.state
        return np.random.Generator(bit_generator)
    return copy.copy(value)
