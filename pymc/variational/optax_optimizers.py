# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""An optimizer of optax as a link: its `update` is a part of the step.

On JAX it is traced with the step. Other backends call it as a compiled function of JAX at each step, by
way of Python: many times slower for a small step, and the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.replace import _vectorize_node
from pytensor.link.jax.dispatch import jax_funcify  # noqa: F401, which sets how many bits JAX has
from pytensor.link.jax.ops import JAXOp
from pytensor.tensor.type import TensorType

from pymc.variational.optimizer_base import Optimizer, State, Variables

__all__ = ["OptaxOptimizer", "OptaxUpdate"]


@dataclass(frozen=True)
class OptaxOptimizer(Optimizer):
    """An optimizer of optax, such as ``optax.adam(1e-3)``, as a link.

    Optax gets the parameters as a dict by name, for ``optax.masked`` and ``optax.multi_transform``. Each row
    of a plate has its own state: a count, and so a schedule, counts the visits of a row, and a norm is
    the norm of a row.

    Parameters
    ----------
    transformation : optax.GradientTransformation
        Its numbers are constants of the compiled step: use one object for several fits.
    """

    numbers_are_inputs = False

    transformation: Any

    def init(self, params: Sequence[SharedVariable]) -> State:
        arrays = [jnp.asarray(param.get_value(borrow=True)) for param in params]
        leaves = jax.tree.leaves(self.transformation.init(_by_name(params, arrays)))
        for leaf in map(jnp.asarray, leaves):
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
                raise TypeError(
                    f"The optimizer {self.transformation!r} keeps an array of dtype {leaf.dtype}, which is "
                    "no number: of random keys, write jax.random.key_data(key) instead of the key"
                )
        return {"state": [np.asarray(leaf) for leaf in leaves]}

    def update(
        self, grads: Variables, state: State, params: Variables, step: Variable
    ) -> tuple[Variables, State]:
        like = [jax.ShapeDtypeStruct([n or 1 for n in p.type.shape], p.type.dtype) for p in params]
        shapes = jax.eval_shape(self.transformation.init, _by_name(params, like))
        names = tuple(_by_name(params, like))
        function = _Update(self.transformation, names, jax.tree.structure(shapes))
        inputs = [*grads, *params, *state["state"]]
        inputs = [pt.cast(g, p.type.dtype) for g, p in zip(grads, params)] + inputs[len(names) :]
        outputs = OptaxUpdate.of(function, inputs)(*inputs, return_list=True)
        return outputs[: len(names)], {"state": outputs[len(names) :]}


def _by_name(params: Sequence[Variable], values: Sequence[Any]) -> dict[str, Any]:
    """Return values by the names of parameters, with a number for those without a unique name."""
    counts = Counter(param.name for param in params)
    return {
        p.name if p.name and counts[p.name] == 1 else f"{p.name or 'param'}_{k}": value
        for k, (p, value) in enumerate(zip(params, values, strict=True))
    }


@dataclass(frozen=True)
class _Update:
    """The function (gradients, parameters, leaves of the state) -> (changes, leaves of the next state).

    `batched` has True for each argument with a leading axis of rows, which are updated one by one.
    """

    transformation: Any
    names: tuple[str, ...]
    treedef: Any
    batched: tuple[bool, ...] | None = None

    def __call__(self, *values: jax.Array) -> tuple[jax.Array, ...]:
        if self.batched is None:
            return self._update(*values)
        return jax.vmap(self._update, in_axes=[0 if b else None for b in self.batched])(*values)

    def _update(self, *values: jax.Array) -> tuple[jax.Array, ...]:
        n = len(self.names)
        grads, params = (dict(zip(self.names, v)) for v in (values[:n], values[n : 2 * n]))
        state = jax.tree.unflatten(self.treedef, values[2 * n :])
        changes, state = self.transformation.update(grads, state, params)
        new = [*(changes[name] for name in self.names), *jax.tree.leaves(state)]
        before = [*values[:n], *values[2 * n :]]
        return tuple(jnp.asarray(x, dtype=old.dtype) for x, old in zip(new, before, strict=True))


class OptaxUpdate(JAXOp):
    """One update by an optimizer of optax, of all parameters at once or of each row."""

    def __str__(self) -> str:
        return "OptaxUpdate{backend='jax' is faster}"

    @classmethod
    def of(cls, function: _Update, inputs: Variables) -> OptaxUpdate:
        """Return the Op for inputs of these types."""
        n = len(function.names)
        types = [var.type for var in (*inputs[:n], *inputs[2 * n :])]
        if function.batched is not None:
            n_rows = inputs[function.batched.index(True)].type.shape[0]
            is_batched = [*function.batched[:n], *function.batched[2 * n :]]
            types = [
                kind if has_rows else TensorType(kind.dtype, (n_rows, *kind.shape))
                for kind, has_rows in zip(types, is_batched)
            ]
        return cls([var.type for var in inputs], types, function)


@_vectorize_node.register(OptaxUpdate)
def vectorize_optax_update(op: OptaxUpdate, node: Apply, *inputs: Variable) -> Apply:
    """Update each row with its own state."""
    batched = tuple(new.type.ndim > old.type.ndim for new, old in zip(inputs, node.inputs))
    return OptaxUpdate.of(replace(op.jax_func, batched=batched), inputs).make_node(*inputs)
