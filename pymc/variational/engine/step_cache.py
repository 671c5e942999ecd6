# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Compiled steps and the shared variables they are about; each is compiled once.

A step is a function of values: parameters and data, the numbers that an optimizer and a schedule are made
of, and how many rows there are. So it serves fits with others of these, and models of the same form, as of
data that have grown. Arrays of other lengths compile nothing, but for raw arrays on JAX, which are constants
of the program there, and JAX traces a program anew for each shape of an array.

Fits of one model may run in several threads. Each has parameters, generators and states of the model's
minibatch indexes of its own, and one step is made at a time.
"""

from __future__ import annotations

import threading

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import pytensor

from pytensor.compile.mode import Mode, get_mode, predefined_modes
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

from pymc.minibatch.array_data import compiles_to_jax
from pymc.minibatch.index import IndexState
from pymc.variational.engine.drivers import Driver, State, choose_driver
from pymc.variational.engine.step import StepGraph, compile_step, host_value, step_graph

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["Step", "make_step", "one_at_a_time"]


@dataclass(frozen=True)
class Step:
    """A compiled step, and the shared variables that it is about.

    Parameters
    ----------
    driver : Driver
    shared : tuple of SharedVariable
        In the order of the driver's state.
    has_loss : bool
        Whether the loss of each step is known.
    guarded : bool
        Whether a step whose loss is not finite leaves all but generators and indexes as it was, so
        that nobody keeps a copy to go back to.
    fed : tuple of int
        Which of the variables that were said to be fed the step reads, in the driver's order.
    graph : StepGraph, optional
        What was compiled, for who tells steps apart: on variables of its own, without values.
    inputs : tuple of SharedVariable
        Those of `shared`, in the order of the graph.
    """

    driver: Driver
    shared: tuple[SharedVariable, ...]
    has_loss: bool
    guarded: bool = False
    fed: tuple[int, ...] = ()
    graph: StepGraph | None = None
    inputs: tuple[SharedVariable, ...] = ()

    def load(self) -> State:
        """Take the values of the shared variables, as the driver holds them."""
        return self.driver.load(self.shared)

    def store(self, state: State) -> None:
        """Give the shared variables the values of `state`."""
        self.driver.store(state, self.shared)


@dataclass(frozen=True)
class _Compiled:
    """What was compiled for a graph: its driver, and which of the graph's inputs the driver's are."""

    graph: StepGraph
    settings: tuple[Any, ...]
    driver: Driver
    order: tuple[int, ...]

    def bind(self, shared: Sequence[SharedVariable], fed: Iterable[SharedVariable]) -> Step:
        own = tuple(shared[i] for i in self.order)
        read = tuple(k for k, var in enumerate(fed) if var in own)
        graph = self.graph
        return Step(
            self.driver, own, graph.has_loss, graph.guarded, read, graph, inputs=tuple(shared)
        )


# PyTensor's flags, and the generators of a model that are seeded, are those of all threads
_making = threading.RLock()


def one_at_a_time[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Let a function that makes steps wait for others that do, in other threads."""

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _making:
            return function(*args, **kwargs)

    return alone


# Steps that are kept for a model, the last ones
MOST = 8

# What was compiled for a model, or found for it among what was compiled for others, lives as long as the
# model.
_compiled: WeakKeyDictionary[Any, list[_Compiled]] = WeakKeyDictionary()


@one_at_a_time
def make_step(
    updates: Mapping[SharedVariable, Variable],
    loss: Variable | None,
    *,
    model: Model,
    random_seed: int,
    mode: Any = None,
    guarded: bool = False,
    fed: Mapping[SharedVariable, np.dtype] | None = None,
    **compile_kwargs: Any,
) -> Step:
    """Compile a step, unless the same was compiled before for a model that still lives.

    Parameters
    ----------
    updates : mapping of SharedVariable to Variable
        The next values. Those of generators and minibatch indexes are added.
    loss : scalar variable, optional
    model : Model
        Its `check_bounds` counts, and it is whose steps are kept.
    random_seed : int
        Seeds the generators and minibatch indexes of the graph.
    mode : str or Mode, optional
        As of :func:`pytensor.function`.
    guarded : bool
        Whether loss and updates are from :func:`~pymc.variational.local_params.row_optimizer.guarded`.
    fed : mapping of SharedVariable to dtype, optional
        What has another value at each step, and the dtype of its batches:
        :attr:`BatchFeed.inputs <pymc.variational.engine.batch_feed.BatchFeed.inputs>`.
    **compile_kwargs
        More of :func:`pytensor.function`'s.

    Returns
    -------
    Step
        It has states of the minibatch indexes of its own: those of the model stay as they were seeded.

    Examples
    --------
    >>> import pytensor
    >>> from pymc.variational.engine.step_cache import make_step
    >>> x = pytensor.shared(1.0)
    >>> step = make_step({x: 0.5 * x}, x**2, model=pm.Model(), random_seed=1)
    >>> state, losses = step.driver.run(step.load(), 3)
    >>> losses
    array([1.    , 0.25  , 0.0625])
    """
    graph = step_graph(updates, loss, random_seed, guarded, fed, compiles_to_jax(mode))
    settings = (*_mode_key(mode), model.check_bounds, tuple(compile_kwargs.items()))
    known = _compiled.setdefault(model, [])
    shared = [_own(var) for var in graph.shared]
    for old in [*known, *(old for steps in list(_compiled.values()) for old in steps)]:
        if old.settings == settings and old.graph.same_as(graph):
            if not any(old is mine for mine in known):
                _keep(known, old)
            return old.bind(shared, fed or ())
    own = graph.on_own_variables()
    with model:
        function = compile_step(own, mode, **compile_kwargs)
    inputs = [shared[i] for i in function.order]
    driver = choose_driver(function, lambda driver: driver.load(inputs))
    own.forget_values()
    new = _Compiled(own, settings, driver, function.order)
    _keep(known, new)
    return new.bind(shared, fed or ())


def _keep(known: list[_Compiled], step: _Compiled) -> None:
    known.append(step)
    del known[:-MOST]


def _own(var: SharedVariable) -> SharedVariable:
    """Copy the state of a minibatch index, which is the model's; all else is of one fit, or data."""
    if not isinstance(var, IndexState):
        return var
    return type(var)(type=var.type, value=host_value(var), strict=False, name=var.name)


def _mode_key(mode: Any) -> tuple[Any, ...]:
    """Tell what two modes must have alike; a user's own is alike to itself only."""
    resolved = get_mode(mode)
    own = isinstance(mode, Mode) and all(mode is not known for known in predefined_modes.values())
    kind = mode if own else (type(resolved.linker), str(resolved.provided_optimizer))
    return kind, pytensor.config.floatX
