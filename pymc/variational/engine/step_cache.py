# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The cache of compiled steps: each graph is compiled once, for all models that have it.

A step is a function of values: parameters and data, the numbers of an optimizer and a schedule, and the
number of rows. So it serves fits with others of these, and models of the same form, as of data that have
grown. Raw arrays on JAX are an exception: they are constants of the program there, and JAX traces a program
anew for each shape of an array.

Fits of one model may run in several threads. Each has its own parameters, generators and states of the
model's minibatch indexes, and one step is made at a time.
"""

from __future__ import annotations

import gc
import threading

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import pytensor

from pytensor.compile.mode import Mode, get_mode, predefined_modes
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.link.numba import NumbaLinker

from pymc.minibatch.array_data import compiles_to_jax
from pymc.minibatch.index import IndexState
from pymc.model.core import Model
from pymc.variational.engine.drivers import Driver, State, choose_driver
from pymc.variational.engine.saved_steps import SavedStep
from pymc.variational.engine.step import (
    StepFunction,
    StepGraph,
    compile_step,
    host_value,
    step_function,
    step_graph,
)
from pymc.variational.engine.step_key import step_key

if TYPE_CHECKING:
    import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Step", "make_step", "one_at_a_time"]

#: Steps that are kept for a model, the last ones
MAX_STEPS = 8


@dataclass(frozen=True)
class Step:
    """A compiled step, and the shared variables that it reads and changes."""

    driver: Driver
    shared: tuple[SharedVariable, ...]  # in the order of the driver's state
    has_loss: bool
    #: A step whose loss is not finite changes generators and indexes only: nobody needs a copy to go back to
    guarded: bool = False
    batch_variables: tuple[int, ...] = ()  # which variables of a batch feed it reads
    graph: StepGraph | None = None  # that was compiled, without values
    inputs: tuple[SharedVariable, ...] = ()  # `shared`, in the order of the graph
    at_once: int = 1  # steps of a call, if the driver cannot part them

    def load(self) -> State:
        """Return the values of the shared variables, as the driver holds them."""
        return self.driver.load(self.shared)

    def store(self, state: State) -> None:
        """Give the shared variables the values of `state`."""
        self.driver.store(state, self.shared)


@dataclass(frozen=True)
class CachedStep:
    """A compiled graph."""

    graph: StepGraph
    settings: tuple[object, ...]
    driver: Driver
    order: tuple[int, ...]  # for each input of the driver, its index among those of the graph

    def bind(
        self, inputs: Sequence[SharedVariable], batch_variables: Iterable[SharedVariable]
    ) -> Step:
        """Return the step on the variables of a fit."""
        shared = tuple(inputs[i] for i in self.order)
        read = tuple(k for k, var in enumerate(batch_variables) if var in shared)
        graph = self.graph
        return Step(
            self.driver, shared, graph.has_loss, graph.guarded, read, graph, inputs=tuple(inputs)
        )


# PyTensor's flags, and the generators of a model that are seeded, are shared by all threads
_compile_lock = threading.RLock()


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function that makes steps wait for those in other threads, and build their graphs quickly."""

    @wraps(function)
    def locked(*args: P.args, **kwargs: P.kwargs) -> R:
        with _compile_lock, _quick_graphs():
            return function(*args, **kwargs)

    return locked


@contextmanager
def _quick_graphs() -> Iterator[None]:
    """Build graphs without what a fit does not need: stack traces of variables, and garbage collections.

    A fifth of the time to build the graph of a step goes into its stack traces, and a collection of all
    objects falls into it two or three times.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with pytensor.config.change_flags(traceback__limit=0):
            yield
    finally:
        if collects:
            gc.enable()


# The steps that were compiled for a model, or found for it among those of others. They live as long as the
# model
_compiled: WeakKeyDictionary[Model, list[CachedStep]] = WeakKeyDictionary()


@one_at_a_time
def make_step(
    updates: Mapping[SharedVariable, Variable],
    loss: Variable | None,
    *,
    model: Model,
    random_seed: int,
    mode: str | Mode | None = None,
    guarded: bool = False,
    batch_dtypes: Mapping[SharedVariable, np.dtype] | None = None,
    **compile_kwargs: Any,
) -> Step:
    """Compile a step, unless the same was compiled before for a model that still lives.

    Parameters
    ----------
    updates : mapping of SharedVariable to Variable
        The next values. Those of generators and minibatch indexes are added.
    loss : scalar variable, optional
    model : Model
        The cache keeps the step as long as it lives. Its `check_bounds` counts.
    random_seed : int
        Seeds the generators and minibatch indexes of the graph.
    mode : str or Mode, optional
        As of :func:`pytensor.function`.
    guarded : bool
        Whether loss and updates are from :func:`~pymc.variational.local_params.row_optimizer.guarded`.
    batch_dtypes : mapping of SharedVariable to dtype, optional
        The inputs that a batch feed sets, and the dtypes of their batches:
        :attr:`BatchFeed.batch_dtypes <pymc.variational.engine.batch_feed.BatchFeed.batch_dtypes>`.
    **compile_kwargs
        More of :func:`pytensor.function`'s.

    Returns
    -------
    Step
        It has its own states of the minibatch indexes: those of the model stay as they were seeded.

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
    graph = step_graph(updates, loss, random_seed, guarded, batch_dtypes, compiles_to_jax(mode))
    settings = (*_mode_key(mode), model.check_bounds, tuple(compile_kwargs.items()))
    inputs = [_copied_index_state(var) for var in graph.shared]
    of_model = _compiled.setdefault(model, [])
    of_all = [cached for steps in list(_compiled.values()) for cached in steps]
    for cached in [*of_model, *of_all]:
        if cached.settings == settings and cached.graph.same_as(graph):
            if not any(cached is known for known in of_model):
                _keep(of_model, cached)
            return cached.bind(inputs, batch_dtypes or ())
    graph = graph.with_new_variables()
    key = _key_on_disk(graph, mode, model, compile_kwargs)
    step = None if key is None else _saved_step(key, graph, get_mode(mode))
    if step is None:
        with model:
            step = compile_step(graph, mode, **compile_kwargs)
    shared = [inputs[i] for i in step.order]
    driver = choose_driver(step, lambda driver: driver.load(shared))
    loop_key = getattr(driver, "loop_key", None)
    if key is not None and loop_key not in (None, step.loop_key):
        SavedStep(loop_key, step.order, dict(step.updates)).write(key)
    graph.drop_values()
    new = CachedStep(graph, settings, driver, step.order)
    _keep(of_model, new)
    return new.bind(inputs, batch_dtypes or ())


def _key_on_disk(
    graph: StepGraph, mode: str | Mode | None, model: Model, compile_kwargs: Mapping[str, Any]
) -> str | None:
    """Return the key of a step that Numba compiles with plain settings; None for others."""
    cached = pytensor.config.numba__cache and model.check_bounds and not compile_kwargs
    if not cached or not isinstance(get_mode(mode).linker, NumbaLinker):
        return None
    return step_key(graph, _mode_key(mode))


def _saved_step(key: str, graph: StepGraph, mode: Mode) -> StepFunction | None:
    """Return the step with the loop in the cache on disk, if it has one."""
    saved = SavedStep.read(key)
    if saved is None or sorted(saved.order) != list(range(len(graph.shared))):
        return None

    floatX = pytensor.config.floatX

    @cache
    @one_at_a_time
    def compile_late() -> StepFunction:
        # By now there may be another flag, and a model around that does not check bounds
        with pytensor.config.change_flags(floatX=floatX), Model(model=None):  # type: ignore[operator]
            return compile_step(graph, mode)

    late = {"loop_key": saved.loop_key, "compile_late": compile_late}
    return step_function(graph, saved.order, saved.updates, None, **late)


def _keep(steps: list[CachedStep], step: CachedStep) -> None:
    steps.append(step)
    del steps[:-MAX_STEPS]


def _copied_index_state(var: SharedVariable) -> SharedVariable:
    """Copy the state of a minibatch index, which is the model's. All else is of one fit, or data."""
    if not isinstance(var, IndexState):
        return var
    return type(var)(type=var.type, value=host_value(var), strict=False, name=var.name)


def _mode_key(mode: str | Mode | None) -> tuple[object, ...]:
    """Return a key that equal modes share. A mode that users have made is equal to itself only."""
    resolved = get_mode(mode)
    users = isinstance(mode, Mode) and all(mode is not known for known in predefined_modes.values())
    kind = mode if users else (type(resolved.linker), *_query_key(resolved.provided_optimizer))
    return kind, pytensor.config.floatX


def _query_key(query: Any) -> tuple[object, ...]:
    """Return what a query for rewrites asks for. Its text has addresses of sets, which say nothing."""
    if not isinstance(query, RewriteDatabaseQuery):
        return (query,)
    sets = tuple(map(tuple, (query.include, query.require, query.exclude)))
    subqueries = {name: _query_key(each) for name, each in query.subquery.items()}
    return *sets, query.position_cutoff, tuple(query.extra_rewrites), tuple(subqueries.items())
