# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The driver of Numba: many steps in a loop that is compiled around the step.

PyTensor compiles a step to a function of its inputs, which returns the loss and the next values. The
loop below passes those on as the inputs of the next step, without a copy and without Python. It lies
in PyTensor's cache of compiled functions, under a key made from the step's.
"""

from __future__ import annotations

import warnings

from collections.abc import Callable, Sequence
from hashlib import sha256
from types import FunctionType
from typing import Any

import numba
import numpy as np

from numba import NumbaWarning, types
from numba.core.errors import NumbaError
from numba.core.typing.templates import signature as typed
from numba.extending import intrinsic, register_jitable
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS
from pytensor.link.numba.dispatch.basic import numba_njit

from pymc.variational.engine.batch_feed import PreparedBatches
from pymc.variational.engine.drivers.base import NumpyState, Run, State, StepFunction, check_batches
from pymc.variational.engine.drivers.quick_compilation import quick_compilation

__all__ = ["NumbaDriver"]

# Part of the key of the cache, which does not know this file: raise it when a loop below changes.
CACHE_VERSION = 4


def next_state(updates: Sequence[tuple[int, int]], n_inputs: int) -> Callable:
    """Return the compiled function (state, outputs of a step) -> state after the step."""
    output_of = dict(updates)

    @intrinsic
    def arrange(typing_context: Any, state: Any, outputs: Any) -> tuple[Any, Callable]:
        # For each input: the argument of this function that has its next value, and its index there
        sources = [(1, output_of[i]) if i in output_of else (0, i) for i in range(n_inputs)]
        result = types.Tuple([(state, outputs)[k].types[i] for k, i in sources])

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = [builder.extract_value(args[k], i) for k, i in sources]
            after = context.make_tuple(builder, signature.return_type, values)
            context.nrt.incref(builder, signature.return_type, after)
            return after

        return result(state, outputs), generate

    return arrange


def view(values: np.ndarray, k: int) -> np.ndarray:
    return values[k]


def converted(dtype: Any) -> Callable[[np.ndarray, int], np.ndarray]:
    def copy(values: np.ndarray, k: int) -> np.ndarray:
        return values[k].astype(dtype)

    return copy


def with_batch(batch_inputs: Sequence[int], n_inputs: int) -> Callable:
    """Return the compiled function (state, batches, k) -> state with the k-th batch in its batch inputs.

    A batch is a view, or a copy if its dtype is not that of the input.
    """
    index = {i: j for j, i in enumerate(batch_inputs)}

    @intrinsic
    def insert(typing_context: Any, state: Any, batches: Any, k: Any) -> tuple[Any, Callable]:
        kinds = [
            kind.copy(layout="C", readonly=False) if i in index else kind
            for i, kind in enumerate(state.types)
        ]

        def value(context: Any, builder: Any, args: Any, i: int) -> Any:
            if i not in index:
                unchanged = builder.extract_value(args[0], i)
                context.nrt.incref(builder, kinds[i], unchanged)
                return unchanged
            kind = batches.types[index[i]]
            take = view if kind.dtype == kinds[i].dtype else converted(kinds[i].dtype)
            array = builder.extract_value(args[1], index[i])
            return context.compile_internal(
                builder, take, typed(kinds[i], kind, k), (array, args[2])
            )

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = [value(context, builder, args, i) for i in range(n_inputs)]
            return context.make_tuple(builder, signature.return_type, values)

        return types.Tuple(kinds)(state, batches, k), generate

    return insert


# The loops are templates: each driver gives their code globals of its own. Closures would do the same,
# but Numba does not cache them.
STEP: Callable = None  # type: ignore[assignment]
NEXT_STATE: Callable = None  # type: ignore[assignment]
WITH_BATCH: Callable = None  # type: ignore[assignment]
STORE_LOSS: Callable = None  # type: ignore[assignment]


def run_steps(losses: np.ndarray, state: State, batches: tuple, start: int) -> tuple[int, State]:
    n_run = losses.shape[0]
    for k in range(losses.shape[0]):
        outputs = STEP(*state)
        state = NEXT_STATE(state, outputs)
        if not STORE_LOSS(losses, k, outputs[0]):
            n_run = k + 1
            break
    return n_run, state


# One loop for both would count references of a whole state anew at each step, which a small step notices.
def run_batches(losses: np.ndarray, state: State, batches: tuple, start: int) -> tuple[int, State]:
    n_run = losses.shape[0]
    for k in range(losses.shape[0]):
        outputs = STEP(*WITH_BATCH(state, batches, start + k))
        state = NEXT_STATE(state, outputs)
        if not STORE_LOSS(losses, k, outputs[0]):
            n_run = k + 1
            break
    return n_run, state


# Store the loss of a step, which is its first output. Return whether it is finite.


@register_jitable(inline="always")
def store_scalar(losses: np.ndarray, k: int, loss: np.ndarray) -> bool:
    losses[k] = loss[()]
    return np.isfinite(losses[k])


@register_jitable(inline="always")
def store_vector(losses: np.ndarray, k: int, loss: np.ndarray) -> bool:
    # One by one: Numba would compile the message for arrays of other shapes, and all of its strings
    for i in range(len(loss)):
        losses[k, i] = loss[i]
    return np.isfinite(losses[k, 0])


@register_jitable(inline="always")
def store_none(losses: np.ndarray, k: int, first_output: Any) -> bool:
    return True


def make_loop(step: StepFunction) -> tuple[Any, str | None]:
    """Return the loop around a step, to be compiled, and its key in the cache.

    The loop of a step without a function can only be loaded from there.
    """
    updates = tuple(sorted(step.updates.items()))
    n_inputs = len(step.order)
    template = run_batches if step.batch_inputs else run_steps
    store = store_none
    if step.has_loss:
        store = store_vector if step.loss_shape else store_scalar
    scope = {
        "__name__": __name__,  # Numba imports this module when it reads a loop from the cache
        "STEP": None,
        "NEXT_STATE": next_state(updates, n_inputs),
        "WITH_BATCH": with_batch([batch.input_index for batch in step.batch_inputs], n_inputs),
        "STORE_LOSS": store,
    }
    loop_key = step.loop_key
    if loop_key is None:
        py_func = step.function.vm.jit_fn.py_func
        key = CACHED_SRC_FUNCTIONS.get(py_func)
        # The step without the entry from Python, which takes long to compile
        scope["STEP"] = numba_njit(py_func, cache=key is not None)
        if key is not None:
            kinds = f"{template.__name__} {store.__name__} {step.batch_inputs}"
            parts = f"{key} {updates} {kinds} {CACHE_VERSION}"
            loop_key = sha256(parts.encode()).hexdigest()
    loop = FunctionType(template.__code__, scope, template.__name__)
    if loop_key is not None:
        CACHED_SRC_FUNCTIONS[loop] = loop_key
    cached = loop_key is not None
    return numba_njit(loop, final_function=True, nogil=True, cache=cached), loop_key


class NumbaDriver(NumpyState):
    """Runs steps in one loop of compiled code, without Python's lock.

    Parameters
    ----------
    step : StepFunction
        Compiled with a mode of Numba. It need not have been called, and is not.
    """

    name = "numba"

    def __init__(self, step: StepFunction) -> None:
        super().__init__(step)
        self._loop, self.loop_key = make_loop(step)
        # By the types of a state. Numba looks them up itself at each call, in Python for a Generator,
        # which takes as long as a hundred small steps.
        self._compiled: dict[tuple[Any, ...], Callable] = {}

    def compile(self, state: State) -> None:
        batches = tuple(
            np.empty((1, *state[batch.input_index].shape), batch.batch_dtype)
            for batch in self._step.batch_inputs
        )
        self._loop_for(self._step.loss_buffer(0), state, batches)

    def run(self, state: State, n_steps: int, batches: PreparedBatches | None = None) -> Run:
        check_batches(self._step, batches)
        values, start = batches or ((), 0)
        losses = self._step.loss_buffer(n_steps)
        loop = self._loop_for(losses, state, values)
        n_run, state = loop(losses, state, values, start)
        return Run(state, losses[:n_run])

    def _loop_for(
        self, losses: np.ndarray, state: State, batches: tuple[np.ndarray, ...]
    ) -> Callable:
        """Return the compiled loop for values of these types."""
        types_of_values = tuple(map(type_key, (*state, *batches)))
        if types_of_values not in self._compiled:
            signature = *map(numba.typeof, (losses, state, batches)), types.intp
            self._compiled[types_of_values] = self._compile_or_load(signature)
        return self._compiled[types_of_values]

    def _compile_or_load(self, signature: tuple[types.Type, ...]) -> Callable:
        try:
            return compiled(self._loop, signature)
        # The cache has no loop for these types, or a file that is broken: it is a pickle, so errors of any kind
        except Exception:
            if self._step.compile_late is None:
                raise
        # Without Numba's lock: who makes a step has the lock of steps, and then waits for Numba's
        self._step = self._step.with_function()
        self._loop, self.loop_key = make_loop(self._step)
        try:
            return compiled(self._loop, signature)
        except NumbaError:
            raise
        except Exception:
            self._loop.recompile()  # which only removes it from the cache
            return compiled(self._loop, signature)


def compiled(loop: Any, signature: tuple[types.Type, ...]) -> Callable:
    with quick_compilation(), warnings.catch_warnings():
        # Raw data in the graph are constants, and large ones keep it out of the cache. PyTensor is silent
        # about this too.
        warnings.filterwarnings("ignore", ".*Cannot cache compiled function", NumbaWarning)
        return loop.compile(signature)


def type_key(value: Any) -> Any:
    """Return all that Numba's type of a value depends on."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim, value.flags.num
    return type(value)
