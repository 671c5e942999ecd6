# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Many steps in a loop that Numba compiles around the step.

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
from numba.core.typing.templates import signature as typed
from numba.extending import intrinsic
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS
from pytensor.link.numba.dispatch.basic import numba_njit

from pymc.variational.engine.batch_feed import PreparedBatches
from pymc.variational.engine.drivers.base import NumpyState, Run, State, StepFunction, check_batches

__all__ = ["NumbaDriver"]

# Part of the key of the cache, which does not know this file: raise it when a loop below changes.
CACHE_VERSION = 2


def next_state(updates: Sequence[tuple[int, int]], n_inputs: int) -> Callable:
    """Make the compiled function (state, outputs of a step) -> state after the step."""
    output_of = dict(updates)

    @intrinsic
    def arrange(typing_context: Any, state: Any, outputs: Any) -> tuple[Any, Callable]:
        taken = [(outputs, output_of[i]) if i in output_of else (state, i) for i in range(n_inputs)]
        result = types.Tuple([source.types[i] for source, i in taken])

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = [
                builder.extract_value(args[1], output_of[i])
                if i in output_of
                else builder.extract_value(args[0], i)
                for i in range(n_inputs)
            ]
            made = context.make_tuple(builder, signature.return_type, values)
            context.nrt.incref(builder, signature.return_type, made)
            return made

        return result(state, outputs), generate

    return arrange


def view(values: np.ndarray, k: int) -> np.ndarray:
    return values[k]


def converted(dtype: Any) -> Callable[[np.ndarray, int], np.ndarray]:
    def copy(values: np.ndarray, k: int) -> np.ndarray:
        return values[k].astype(dtype)

    return copy


def with_batch(fed: Sequence[int], n_inputs: int) -> Callable:
    """Make the compiled function (state, batches, k) -> state with the k-th batch in its fed places.

    A batch is a view; of another dtype than the place, a copy.
    """
    place = {i: j for j, i in enumerate(fed)}

    @intrinsic
    def feed(typing_context: Any, state: Any, values: Any, k: Any) -> tuple[Any, Callable]:
        def one(i: int) -> Any:
            return state.types[i].copy(layout="C", readonly=False) if i in place else state.types[i]

        kinds = [one(i) for i in range(n_inputs)]

        def take(context: Any, builder: Any, args: Any, i: int) -> Any:
            if i not in place:
                value = builder.extract_value(args[0], i)
                context.nrt.incref(builder, kinds[i], value)
                return value
            given = values.types[place[i]]
            take_one = view if given.dtype == kinds[i].dtype else converted(kinds[i].dtype)
            whole = builder.extract_value(args[1], place[i])
            return context.compile_internal(
                builder, take_one, typed(kinds[i], given, k), (whole, args[2])
            )

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = [take(context, builder, args, i) for i in range(n_inputs)]
            return context.make_tuple(builder, signature.return_type, values)

        return types.Tuple(kinds)(state, values, k), generate

    return feed


# The loops are templates: each driver gives their code globals of its own. Closures would do the same,
# but Numba does not cache them.
STEP: Callable = None  # type: ignore[assignment]
NEXT_STATE: Callable = None  # type: ignore[assignment]
WITH_BATCH: Callable = None  # type: ignore[assignment]


def run_with_loss(losses: np.ndarray, state: State, values: tuple, start: int) -> tuple[int, State]:
    n_run = losses.shape[0]
    for k in range(losses.shape[0]):
        outputs = STEP(*state)
        state = NEXT_STATE(state, outputs)
        losses[k] = outputs[0][()]
        if not np.isfinite(losses[k]):
            n_run = k + 1
            break
    return n_run, state


def run_with_losses(
    losses: np.ndarray, state: State, values: tuple, start: int
) -> tuple[int, State]:
    n_run = losses.shape[0]
    for k in range(losses.shape[0]):
        outputs = STEP(*state)
        state = NEXT_STATE(state, outputs)
        losses[k] = outputs[0]
        if not np.isfinite(losses[k, 0]):
            n_run = k + 1
            break
    return n_run, state


def run_without_loss(
    losses: np.ndarray, state: State, values: tuple, start: int
) -> tuple[int, State]:
    for _ in range(losses.shape[0]):
        state = NEXT_STATE(state, STEP(*state))
    return losses.shape[0], state


# The same with a batch for each step. One loop for both would count references of a whole state anew at
# each step, which a small step notices.
def feed_with_loss(
    losses: np.ndarray, state: State, values: tuple, start: int
) -> tuple[int, State]:
    n_run = losses.shape[0]
    for k in range(losses.shape[0]):
        outputs = STEP(*WITH_BATCH(state, values, start + k))
        state = NEXT_STATE(state, outputs)
        losses[k] = outputs[0][()]
        if not np.isfinite(losses[k]):
            n_run = k + 1
            break
    return n_run, state


def feed_with_losses(
    losses: np.ndarray, state: State, values: tuple, start: int
) -> tuple[int, State]:
    n_run = losses.shape[0]
    for k in range(losses.shape[0]):
        outputs = STEP(*WITH_BATCH(state, values, start + k))
        state = NEXT_STATE(state, outputs)
        losses[k] = outputs[0]
        if not np.isfinite(losses[k, 0]):
            n_run = k + 1
            break
    return n_run, state


def feed_without_loss(
    losses: np.ndarray, state: State, values: tuple, start: int
) -> tuple[int, State]:
    for k in range(losses.shape[0]):
        state = NEXT_STATE(state, STEP(*WITH_BATCH(state, values, start + k)))
    return losses.shape[0], state


#: (whether it has a loss, others beside it, fed inputs) -> loop
LOOPS = {
    (True, False, False): run_with_loss,
    (True, True, False): run_with_losses,
    (False, False, False): run_without_loss,
    (True, False, True): feed_with_loss,
    (True, True, True): feed_with_losses,
    (False, False, True): feed_without_loss,
}


class NumbaDriver(NumpyState):
    """Runs steps in one loop of compiled code, which lets other threads of Python run.

    Parameters
    ----------
    step : StepFunction
        Compiled with a mode of Numba. It need not have been called, and is not.
    """

    name = "numba"

    def __init__(self, step: StepFunction) -> None:
        jit_fn = step.function.vm.jit_fn
        key = CACHED_SRC_FUNCTIONS.get(jit_fn.py_func)
        super().__init__(step)
        updates = tuple(sorted(step.updates.items()))
        n_inputs = len(step.function.input_storage)
        template = LOOPS[step.has_loss, step.loss_buffer(0).ndim == 2, bool(step.fed)]
        scope = {
            "np": np,
            "__name__": __name__,  # Numba imports this module when it reads a loop from the cache
            # The step without the entry from Python, which takes long to compile
            "STEP": numba_njit(jit_fn.py_func, cache=key is not None),
            "NEXT_STATE": next_state(updates, n_inputs),
            "WITH_BATCH": with_batch([given.place for given in step.fed], n_inputs),
        }
        loop = FunctionType(template.__code__, scope, template.__name__)
        if key is not None:
            parts = f"{key} {updates} {template.__name__} {step.fed} {CACHE_VERSION}"
            CACHED_SRC_FUNCTIONS[loop] = sha256(parts.encode()).hexdigest()
        self._loop = numba_njit(loop, final_function=True, nogil=True, cache=key is not None)
        # By the types of a state. Numba looks them up itself at each call, in Python for a Generator,
        # which takes as long as a hundred small steps.
        self._entries: dict[tuple[Any, ...], Callable] = {}

    def compile(self, state: State) -> None:
        values = tuple(np.empty((1, *state[g.place].shape), g.given) for g in self._step.fed)
        self._entry(self._step.loss_buffer(0), state, values)

    def run(self, state: State, n_steps: int, fed: PreparedBatches | None = None) -> Run:
        check_batches(self._step, fed)
        values, start = ((), 0) if fed is None else fed
        losses = self._step.loss_buffer(n_steps)
        n_run, state = self._entry(losses, state, values)(losses, state, values, start)
        return Run(state, losses[:n_run])

    def _entry(self, losses: np.ndarray, state: State, values: tuple[np.ndarray, ...]) -> Callable:
        """Look up the compiled loop for values of these types, or compile it."""
        kinds = tuple(map(kind, (*state, *values)))
        if kinds not in self._entries:
            signature = *map(numba.typeof, (losses, state, values)), types.intp
            with warnings.catch_warnings():
                # Raw data in the graph are constants, and large ones keep it out of the cache.
                # PyTensor is silent about this too.
                warnings.filterwarnings("ignore", ".*Cannot cache compiled function", NumbaWarning)
                self._entries[kinds] = self._loop.compile(signature)
        return self._entries[kinds]


def kind(value: Any) -> Any:
    """Tell what Numba's type of a value depends on."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim, value.flags.num
    return type(value)
