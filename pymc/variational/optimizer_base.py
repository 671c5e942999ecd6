# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Base class of optimizers: transforms of gradients into changes of the parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pytensor
import pytensor.scalar as ps
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.elemwise import Elemwise

from pymc.argument_checks import check_fields
from pymc.variational.configurable import Configurable
from pymc.variational.number_inputs import lift_numbers
from pymc.variational.updates import get_or_compute_grads

__all__ = ["Optimizer", "State", "Variables", "next_value", "step_counter", "with_step"]

#: The state of an optimizer, arrays or variables by name: usually one for each parameter.
State: TypeAlias = dict[str, list[Any]]

Variables: TypeAlias = Sequence[Variable]


class Optimizer(Configurable, ABC):
    """A transform of gradients into changes of the parameters: a link of a :func:`chain`.

    Write a subclass with :meth:`update`, and with :meth:`init` if it has a state. They are called when the
    graph of a step is built. For the rows of a plate, they get the parameters of one row, and each row has
    its own state.

    Attributes
    ----------
    joint : bool
        Whether `update` needs the gradients of all parameters at once, such as for a norm over them. Those
        of a plate's rows are a matrix then, with zeros where a row is in the batch again. `init` does not
        get the parameters of rows.
    numbers_are_inputs : bool
        Whether the floats in `update` are inputs of the compiled step, so that other values do not
        compile another one. With False the compiler knows their values.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.variational.optimizers import Optimizer, chain
    >>> class Sign(Optimizer):
    ...     def update(self, grads, state, params, step):
    ...         return [pt.sign(grad) for grad in grads], state
    >>> signed = chain(Sign(), pm.sgd(learning_rate=0.1))
    """

    joint: ClassVar[bool] = False
    numbers_are_inputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the fields of a dataclass."""
        check_fields(self)

    def init(self, params: Sequence[SharedVariable]) -> State:
        """Return the state before the first step.

        Parameters
        ----------
        params : sequence of SharedVariable
            ``param.get_value(borrow=True)`` has the shape and dtype, ``param.name`` a name.

        Returns
        -------
        dict of str to list of array
        """
        return {}

    @abstractmethod
    def update(
        self, grads: Variables, state: State, params: Variables, step: Variable
    ) -> tuple[Variables, State]:
        """Return the changes of the parameters, and the next state.

        Parameters
        ----------
        grads : sequence of TensorVariable
            Of a loss that is minimised, or the changes by the previous link.
        state : dict of str to list of TensorVariable
            Of the names and shapes that :meth:`init` returns.
        params : sequence of TensorVariable
            Of the shapes of `grads`.
        step : TensorVariable of shape () and dtype int64
            Steps of the fit before this one, the same for all rows.

        Returns
        -------
        changes : sequence of TensorVariable
            Of the shapes of `grads`.
        state : dict of str to list of TensorVariable
            Of the names and shapes of `state`.
        """

    def rates(self, steps: np.ndarray) -> np.ndarray:
        """Return the learning rate at some steps, int64 of shape (n,), up to a factor: ones if it is constant."""
        return np.ones(len(steps))

    @property
    def links(self) -> tuple[Optimizer, ...]:
        """The links that gradients go through, one after the other."""
        return (self,)

    def check(self, names: Sequence[str | None]) -> None:
        """Raise a ValueError if an argument names a parameter that is not in `names`."""

    def changes(
        self, grads: Variables, params: Variables, step: Variable
    ) -> tuple[list[Variable], dict[SharedVariable, Variable]]:
        """Return changes of the parameters, and updates of shared variables as the state.

        Raises
        ------
        TypeError
            If `update` does not return a change for each gradient, or returns another state.
        """
        start = self.init([param for param in params if isinstance(param, SharedVariable)])
        state: State = {
            name: [_as_shared(v, name) for v in values] for name, values in start.items()
        }
        old = [var for variables in state.values() for var in variables]
        copied = {name: list(variables) for name, variables in state.items()}
        changes, after = self.update(list(grads), copied, list(params), step)
        lengths, returned = ({n: len(v) for n, v in s.items()} for s in (state, after))
        if len(changes) != len(grads) or returned != lengths:
            raise TypeError(
                f"{self!r}.update must return (changes, state): {len(grads)} changes, one for each "
                f"gradient, and as many arrays by name as init, {lengths}. It returned {len(changes)} "
                f"changes and {returned}"
            )
        new = [*changes, *(pt.as_tensor(var) for name in state for var in after[name])]
        if self.numbers_are_inputs:
            new = lift_numbers(new, [*grads, *params, *old, step])
        n = len(grads)
        updates = {var: value.astype(var.type.dtype) for var, value in zip(old, new[n:])}
        return new[:n], updates

    def __call__(
        self, loss_or_grads: Any, params: Sequence[SharedVariable]
    ) -> dict[SharedVariable, Variable]:
        """Return updates of the parameters and of the state, as PyMC's optimizers do."""
        params, step = list(params), step_counter()
        self.check([param.name for param in params])
        changes = get_or_compute_grads(loss_or_grads, params)
        states: dict[SharedVariable, Variable] = {}
        for link in self.links:
            changes, state = link.changes(changes, params, step)
            states |= state
        new = {param: next_value(param, change) for param, change in zip(params, changes)}
        return with_step(new | states, step)


def next_value(param: Variable, change: Variable) -> Variable:
    """Return `param` + `change`, which is ``new`` without rounding for a change ``new - param``."""
    if change.owner is not None and isinstance(change.owner.op, Elemwise):
        if isinstance(change.owner.op.scalar_op, ps.Sub) and change.owner.inputs[1] is param:
            return change.owner.inputs[0]
    return param + change


def step_counter() -> SharedVariable:
    """Return a shared int64 that counts steps, at 0."""
    return pytensor.shared(np.array(0, dtype="int64"), name="step")


def with_step(
    updates: Mapping[SharedVariable, Variable], step: SharedVariable, others: Variables = ()
) -> dict[SharedVariable, Variable]:
    """Return updates with one of the step, if one of them or of `others` depends on it."""
    counts = step in ancestors([*updates.values(), *others])
    return {**updates, **({step: step + 1} if counts else {})}


def _as_shared(value: Any, name: str) -> SharedVariable:
    value = np.array(value)
    return pytensor.shared(value, name, shape=value.shape)
