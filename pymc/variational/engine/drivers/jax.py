# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Many steps in one program of XLA, a `jax.lax.while_loop` around the step.

The losses go to a buffer of fixed length, so that one program serves any number of steps: a longer
run calls it again with the state that it returned. Values that no step changes are arguments of the
program, and not of the loop. A guarded step gives its values away to the program, which writes the
next ones into their memory: a table of all rows is there once, and a call does not copy it.
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

#: Losses of one call of the program; a step of one microsecond hides the 50 of a call.
BUFFER = 4096

#: Bytes, and at most how many batches, of a stream that are on the device for one call of the program.
#: It is compiled for this number of batches: fewer are padded, more come in pieces.
ROOM, MOST = 2**24, 64

#: What PyTensor's random variables on JAX read of a generator, and return: {"jax_state": a key}.
Rng = dict[str, jax.Array]

#: By the place among the inputs of a step.
Values = dict[int, Any]

#: Batches for the fed inputs in pieces of one length, and that length.
Pieces = tuple[tuple[Values, ...], int]


class JaxDriver(PickledByStep):
    """Runs steps on JAX's default device; a state is a tuple of arrays there.

    Parameters
    ----------
    step : StepFunction
        Compiled with a mode of JAX. A step in which a value is the length of an axis cannot be
        traced: :meth:`compile` raises what JAX does.
    """

    name = "jax"

    def __init__(self, step: StepFunction) -> None:
        super().__init__(step)
        self._updated = tuple(sorted(step.updates))
        self._has_loss = step.has_loss
        self._guarded = step.guarded
        run = partial(run_steps, one_step(step), step.has_loss, step.loss_buffer(BUFFER).shape)
        self._program = jax.jit(run, donate_argnums=(1,) if step.guarded else ())

    def load(self, shared: Sequence[SharedVariable]) -> State:
        return tuple(upload(var.container.storage[0]) for var in shared)

    def store(self, state: State, shared: Sequence[SharedVariable]) -> None:
        if any(leaf.is_deleted() for leaf in jax.tree.leaves([state[i] for i in self._updated])):
            return  # given away to a call that raised an error: what was stored before is the last
        for i in self._updated:
            storage, before = shared[i].container.storage, host_value(shared[i])
            if self._guarded and isinstance(before, np.ndarray) and before.flags.writeable:
                np.copyto(before, state[i])  # a table is large, and lies as it was asked to
                storage[0] = before
            else:
                storage[0] = download(state[i], before)

    def copy(self, state: State) -> State:
        """Return the state itself, but for a guarded step: arrays of JAX do not change otherwise."""
        if not self._guarded:
            return state
        return tuple(
            jax.tree.map(jnp.copy, value) if i in self._updated else value
            for i, value in enumerate(state)
        )

    def prepare_batches(self, values: tuple[np.ndarray, ...]) -> Pieces:
        size = sum(a[0].size * g.dtype.itemsize for a, g in zip(values, self._step.fed))
        length = max(1, min(ROOM // max(size, 1), MOST))
        n_batches = len(values[0]) if values else 0
        pieces = (
            {
                given.place: padded(array[k : k + length].astype(given.dtype, copy=False), length)
                for given, array in zip(self._step.fed, values)
            }
            for k in range(0, n_batches, length)
        )
        return tuple(pieces), length

    def compile(self, state: State) -> None:
        fed = self._step.fed
        held = self.prepare_batches(
            tuple(np.zeros((1, *state[g.place].shape), g.given) for g in fed)
        )
        self._call(state, 0, PreparedBatches(held, 0) if fed else None)

    def run(self, state: State, n_steps: int, fed: PreparedBatches | None = None) -> Run:
        check_batches(self._step, fed)
        losses = self._step.loss_buffer(n_steps)
        n_run, finite = 0, True
        while n_run < n_steps and finite:
            rest = fed and fed._replace(start=fed.start + n_run)
            n_done, state, buffer = self._call(state, min(n_steps - n_run, BUFFER), rest)
            if self._has_loss:
                losses[n_run : n_run + n_done] = buffer[:n_done]
                finite = bool(np.isfinite(buffer[n_done - 1]).flat[0])
            n_run += n_done
        return Run(state, losses[:n_run])

    def _call(
        self, state: State, n_steps: int, fed: PreparedBatches | None
    ) -> tuple[int, State, np.ndarray]:
        """Run at most `BUFFER` steps; return how many ran, the state, and a buffer of losses."""
        values, start = {}, 0
        if self._step.fed and fed is not None:
            pieces, length = fed.values
            which, start = divmod(fed.start, length)
            values, n_steps = pieces[which], min(n_steps, length - start)
        moving = {i: state[i] for i in self._updated}
        fixed = {i: v for i, v in enumerate(state) if i not in moving and i not in values}
        n_done, moving, buffer = self._steps(n_steps, moving, fixed, values, start)
        after = tuple(moving.get(i, value) for i, value in enumerate(state))
        return n_done, after, buffer

    def _steps(
        self, n_steps: int, moving: Values, fixed: Values, fed: Values, start: int
    ) -> tuple[int, Values, np.ndarray]:
        n, k = np.int32(n_steps), np.int32(start)
        n_done, moving, buffer = self._program(n, moving, fixed, fed, k)
        return int(n_done), moving, np.asarray(buffer)


class JaxStepDriver(JaxDriver):
    """Takes the steps one by one, for a step that cannot be put into the loop.

    The one that JAX traces anew as the shapes of its values change is such a step.
    """

    name = "python"

    def __init__(self, step: StepFunction) -> None:
        super().__init__(step)
        self._take = one_step(step)

    def compile(self, state: State) -> None:
        """Do nothing: JAX compiles at the first call."""

    def _steps(
        self, n_steps: int, moving: Values, fixed: Values, fed: Values, start: int
    ) -> tuple[int, Values, np.ndarray]:
        losses = self._step.loss_buffer(n_steps)
        for k in range(n_steps):
            batch = {i: batches[start + k] for i, batches in fed.items()}
            moving, loss = self._take(moving, fixed | batch)
            if self._has_loss:
                losses[k] = loss
                if not np.isfinite(losses[k]).flat[0]:
                    return k + 1, moving, losses
        return n_steps, moving, losses


def one_step(step: StepFunction) -> Callable[[Values, Values], tuple[Values, Any]]:
    """Make the function (values that steps change, the others) -> (the next ones, first output)."""
    jit_fn, updates = step.function.vm.jit_fn, step.updates

    def take(moving: Values, fixed: Values) -> tuple[Values, Any]:
        values = fixed | moving
        outputs = jit_fn(*(values[i] for i in range(len(values))))
        # The loop asks for the types that it began with, and other code may have changed x64 since
        after = {i: jax.tree.map(_as, outputs[updates[i]], moving[i]) for i in moving}
        return after, outputs[0]

    return take


def _as(new: jax.Array, old: jax.Array) -> jax.Array:
    return new if new.dtype == old.dtype else new.astype(old.dtype)


def run_steps(
    take: Callable[[Values, Values], tuple[Values, Any]],
    has_loss: bool,
    shape: tuple[int, ...],
    n_steps: jax.Array,
    moving: Values,
    fixed: Values,
    fed: Values,
    start: jax.Array,
) -> tuple[jax.Array, Values, jax.Array]:
    """Loop until `n_steps` are done, or a loss is not finite; JAX traces this.

    Step k takes the batch `start` + k of what is fed.

    Returns
    -------
    n_done : integer array, shape ()
    moving : dict
    losses : float array, of `shape`
        Nan behind the first `n_done`.
    """

    def go_on(carry: tuple) -> jax.Array:
        k, _, _, finite = carry
        return (k < n_steps) & finite

    def body(carry: tuple) -> tuple:
        k, moving, losses, finite = carry
        batch = {
            i: lax.dynamic_index_in_dim(batches, start + k, keepdims=False)
            for i, batches in fed.items()
        }
        moving, loss = take(moving, fixed | batch)
        if has_loss:
            loss = jnp.reshape(loss, shape[1:]).astype(losses.dtype)
            losses = lax.dynamic_update_index_in_dim(losses, loss, k, axis=0)
            finite = jnp.isfinite(jnp.ravel(loss)[0])
        return k + 1, moving, losses, finite

    first = (jnp.zeros_like(n_steps), moving, jnp.full(shape, jnp.nan), jnp.array(True))
    n_done, moving, losses, _ = lax.while_loop(go_on, body, first)
    return n_done, moving, losses


def padded(batches: np.ndarray, length: int) -> jax.Array:
    """Copy batches to the device, with zeros behind them up to `length`, which nobody reads."""
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
    """Make the host's kind of value, of which it has `before`."""
    if isinstance(before, Generator):
        return with_key(before, np.asarray(value["jax_state"]))
    return np.array(value, dtype=before.dtype)


def with_key(generator: Generator, key: np.ndarray) -> Generator:
    """Copy a generator, and put a key of JAX where PyTensor takes it from.

    Parameters
    ----------
    generator : Generator
        Of a PCG64.
    key : array of uint32, shape (2,)
        It becomes the low 64 bits of the PCG64's state. So JAX goes on with this key, and the other
        backends with other draws than those before.
    """
    new = copy.deepcopy(generator)
    state: dict[str, Any] = dict(new.bit_generator.state)
    # PyTensor reads the two lowest of the words that are not zero: there has to be a higher one.
    high = state["state"]["state"] >> 64 or 1
    state["state"]["state"] = high << 64 | int(key[1]) << 32 | int(key[0])
    state["has_uint32"] = state["uinteger"] = 0
    new.bit_generator.state = state
    return new
