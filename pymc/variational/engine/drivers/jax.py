# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The driver of JAX: many steps in one program of XLA, a `jax.lax.while_loop` around the step.

The losses go to a buffer of fixed length, so that one program serves any number of steps: a longer run calls
it again with the state that it returned. Values that no step changes are arguments of the program, and not of
the loop. A guarded step donates its values to the program, which writes the next ones into their memory: a
table of all rows is in memory once, and a call does not copy it.
"""

from __future__ import annotations

import copy

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax import lax
from numpy.random import Generator
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.link.jax.dispatch import jax_typify

from pymc.variational.engine.batch_feed import PreparedBatches
from pymc.variational.engine.drivers.base import (
    PickledByStep,
    Run,
    State,
    StepFunction,
    check_batches,
)
from pymc.variational.engine.step import host_value

__all__ = ["JaxDriver", "JaxStepDriver"]

#: Steps of one call of the program. A step of one microsecond hides the 50 of a call.
MAX_STEPS = 4096

#: Limits of the batches on the device for one call of the program: bytes, and number. The program is compiled
#: for this number: fewer batches are padded, more come in pieces.
MAX_BYTES, MAX_BATCHES = 2**24, 64

#: PyTensor's random variables on JAX read and return this of a generator: {"jax_state": a key}.
Rng = dict[str, jax.Array]

#: Values of inputs, by their index.
Values = dict[int, Any]

#: Batches for the batch inputs in pieces of one length, and that length.
Pieces = tuple[tuple[Values, ...], int]


class JaxDriver(PickledByStep):
    """Runs steps on JAX's default device. A state is a tuple of arrays there.

    Parameters
    ----------
    step : StepFunction
        Compiled with a mode of JAX. A step in which a value is the length of an axis cannot be traced:
        :meth:`compile` raises what JAX does.
    """

    name = "jax"

    def __init__(self, step: StepFunction) -> None:
        super().__init__(step)
        self._updated = tuple(sorted(step.updates))
        loss_shape = step.loss_buffer(MAX_STEPS).shape
        run = partial(run_steps, one_step(step), step.has_loss, loss_shape)
        self._program = jax.jit(run, donate_argnums=(1,) if step.guarded else ())

    def load(self, shared: Sequence[SharedVariable]) -> State:
        return tuple(upload(var.container.storage[0]) for var in shared)

    def store(self, state: State, shared: Sequence[SharedVariable]) -> None:
        if any(leaf.is_deleted() for leaf in jax.tree.leaves([state[i] for i in self._updated])):
            return  # donated to a call that raised an error: what was stored before is the last
        for i in self._updated:
            storage, before = shared[i].container.storage, host_value(shared[i])
            if self._step.guarded and isinstance(before, np.ndarray) and before.flags.writeable:
                np.copyto(before, state[i])  # keeps the memory of a large table
                storage[0] = before
            else:
                storage[0] = download(state[i], before)

    def copy(self, state: State) -> State:
        """Return the state itself: arrays of JAX do not change, unless a guarded step donates them."""
        if not self._step.guarded:
            return state
        return tuple(
            jax.tree.map(jnp.copy, value) if i in self._updated else value
            for i, value in enumerate(state)
        )

    def prepare_batches(self, values: tuple[np.ndarray, ...]) -> Pieces:
        inputs = self._step.batch_inputs
        n_bytes = sum(a[0].size * batch.dtype.itemsize for a, batch in zip(values, inputs))
        length = max(1, min(MAX_BYTES // max(n_bytes, 1), MAX_BATCHES))
        n_batches = len(values[0]) if values else 0
        pieces = (
            {
                batch.input_index: padded(
                    array[k : k + length].astype(batch.dtype, copy=False), length
                )
                for batch, array in zip(inputs, values)
            }
            for k in range(0, n_batches, length)
        )
        return tuple(pieces), length

    def compile(self, state: State) -> None:
        inputs = self._step.batch_inputs
        zeros = tuple(np.zeros((1, *state[b.input_index].shape), b.batch_dtype) for b in inputs)
        batches = PreparedBatches(self.prepare_batches(zeros), 0) if inputs else None
        self._call(state, 0, batches)

    def run(self, state: State, n_steps: int, batches: PreparedBatches | None = None) -> Run:
        check_batches(self._step, batches)
        losses = self._step.loss_buffer(n_steps)
        n_run, finite = 0, True
        while n_run < n_steps and finite:
            rest = batches and batches._replace(start=batches.start + n_run)
            n_done, state, buffer = self._call(state, min(n_steps - n_run, MAX_STEPS), rest)
            if self._step.has_loss:
                losses[n_run : n_run + n_done] = buffer[:n_done]
                finite = bool(np.isfinite(buffer[n_done - 1]).flat[0])
            n_run += n_done
        return Run(state, losses[:n_run])

    def _call(
        self, state: State, n_steps: int, batches: PreparedBatches | None
    ) -> tuple[int, State, np.ndarray]:
        """Run at most `MAX_STEPS` steps. Return how many ran, the state, and a buffer of losses."""
        batch_values, start = {}, 0
        if self._step.batch_inputs and batches is not None:
            pieces, length = batches.values
            piece, start = divmod(batches.start, length)
            batch_values, n_steps = pieces[piece], min(n_steps, length - start)
        changing = {i: state[i] for i in self._updated}
        fixed = {i: v for i, v in enumerate(state) if i not in changing and i not in batch_values}
        n_done, changing, losses = self._steps(n_steps, changing, fixed, batch_values, start)
        after = tuple(changing.get(i, value) for i, value in enumerate(state))
        return n_done, after, losses

    def _steps(
        self, n_steps: int, changing: Values, fixed: Values, batches: Values, start: int
    ) -> tuple[int, Values, np.ndarray]:
        n_done, changing, losses = self._program(
            np.int32(n_steps), changing, fixed, batches, np.int32(start)
        )
        return int(n_done), changing, np.asarray(losses)


class JaxStepDriver(JaxDriver):
    """Takes the steps one by one, if they cannot be put into the loop.

    An example is a step that JAX traces anew as the shapes of its values change.
    """

    name = "python"

    def __init__(self, step: StepFunction) -> None:
        super().__init__(step)
        self._one_step = one_step(step)

    def compile(self, state: State) -> None:
        """Do nothing: JAX compiles at the first call."""

    def _steps(
        self, n_steps: int, changing: Values, fixed: Values, batches: Values, start: int
    ) -> tuple[int, Values, np.ndarray]:
        losses = self._step.loss_buffer(n_steps)
        for k in range(n_steps):
            batch = {i: values[start + k] for i, values in batches.items()}
            changing, loss = self._one_step(changing, fixed | batch)
            if self._step.has_loss:
                losses[k] = loss
                if not np.isfinite(losses[k]).flat[0]:
                    return k + 1, changing, losses
        return n_steps, changing, losses


def one_step(step: StepFunction) -> Callable[[Values, Values], tuple[Values, Any]]:
    """Return the function (values that steps change, other values) -> (the next ones, first output)."""
    jit_fn, updates = step.function.vm.jit_fn, step.updates

    def take(changing: Values, fixed: Values) -> tuple[Values, Any]:
        values = fixed | changing
        outputs = jit_fn(*(values[i] for i in range(len(values))))
        # The loop needs the types that it began with, and other code may have changed x64 since
        after = {i: jax.tree.map(_as, outputs[updates[i]], changing[i]) for i in changing}
        return after, outputs[0]

    return take


def _as(new: jax.Array, old: jax.Array) -> jax.Array:
    return new if new.dtype == old.dtype else new.astype(old.dtype)


def run_steps(
    take: Callable[[Values, Values], tuple[Values, Any]],
    has_loss: bool,
    loss_shape: tuple[int, ...],
    n_steps: jax.Array,
    changing: Values,
    fixed: Values,
    batches: Values,
    start: jax.Array,
) -> tuple[jax.Array, Values, jax.Array]:
    """Loop until `n_steps` are done or a loss is not finite. JAX traces this.

    Step k takes the batch `start` + k.

    Returns
    -------
    n_done : integer array, shape ()
    changing : dict
    losses : float array, of `loss_shape`
        Nan behind the first `n_done`.
    """

    def go_on(carry: tuple) -> jax.Array:
        k, _, _, finite = carry
        return (k < n_steps) & finite

    def body(carry: tuple) -> tuple:
        k, changing, losses, finite = carry
        batch = {
            i: lax.dynamic_index_in_dim(values, start + k, keepdims=False)
            for i, values in batches.items()
        }
        changing, loss = take(changing, fixed | batch)
        if has_loss:
            loss = jnp.reshape(loss, loss_shape[1:]).astype(losses.dtype)
            losses = lax.dynamic_update_index_in_dim(losses, loss, k, axis=0)
            finite = jnp.isfinite(jnp.ravel(loss)[0])
        return k + 1, changing, losses, finite

    first = (jnp.zeros_like(n_steps), changing, jnp.full(loss_shape, jnp.nan), jnp.array(True))
    n_done, changing, losses, _ = lax.while_loop(go_on, body, first)
    return n_done, changing, losses


def padded(batches: np.ndarray, length: int) -> jax.Array:
    """Copy batches to the device, padded with zeros to `length` batches."""
    missing = length - len(batches)
    if missing:
        batches = np.concatenate([batches, np.zeros((missing, *batches.shape[1:]), batches.dtype)])
    return jnp.array(batches)


def upload(value: Any) -> jax.Array | Rng:
    """Copy an array, or the key of a generator, to the device."""
    if isinstance(value, Generator):
        return {"jax_state": jnp.array(jax_typify(value)["jax_state"])}
    return jnp.array(value)


def download(value: jax.Array | Rng, before: Any) -> Any:
    """Copy a value from the device, to the type of the one before."""
    if isinstance(before, Generator):
        return with_key(before, np.asarray(value["jax_state"]))
    return np.array(value, dtype=before.dtype)


def with_key(generator: Generator, key: np.ndarray) -> Generator:
    """Return a copy of a generator with a key of JAX where PyTensor takes it from.

    Parameters
    ----------
    generator : Generator
        Of a PCG64.
    key : array of uint32, shape (2,)
        It becomes the low 64 bits of the PCG64's state. So JAX goes on with this key, and other backends do
        not repeat the draws before.
    """
    new = copy.deepcopy(generator)
    state: dict[str, Any] = dict(new.bit_generator.state)
    # PyTensor reads the two lowest of the words that are not zero: there has to be a higher one.
    high = state["state"]["state"] >> 64 or 1
    state["state"]["state"] = high << 64 | int(key[1]) << 32 | int(key[0])
    state["has_uint32"] = state["uinteger"] = 0
    new.bit_generator.state = state
    return new
