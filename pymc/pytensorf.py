# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.compile.io import Out
from pytensor.compile.mode import Mode
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import explicit_graph_inputs

import pymc._layer as _layer

from pymc.minibatch.array_data import compiles_to_jax, keeps_integers, outputs_as_constants
from pymc.minibatch.rebuild import all_rows
from pymc.minibatch.scaling import check_one_function

released = _layer.run_release(globals())

from pymc.minibatch.axis_tracking import equal_updates as equal_computations  # noqa: E402, F401

if TYPE_CHECKING:
    # What our modules use of the release's
    def floatX(X: Any) -> Any: ...
    def constant_fold(xs: Any, raise_not_constant: bool = True) -> Any: ...
    def resolve_shapes(shapes: Any) -> Any: ...
    def collect_default_updates(outputs: Any) -> dict[Any, Any]: ...
    def find_rng_nodes(variables: Any) -> list[Any]: ...
    def replace_rng_nodes(outputs: Any) -> list[Any]: ...
    def reseed_rngs(rngs: Any, seed: Any) -> None: ...
    def resolve_backend_compile_kwargs(backend: Any, compile_kwargs: Any) -> dict[str, Any]: ...


convert_data = keeps_integers(released.convert_data)


@wraps(released.compile)
def compile(
    inputs: object,
    outputs: Any,
    random_seed: object = None,
    mode: Mode | str | None = None,
    **kwargs: Any,
) -> Any:
    updates = dict(kwargs.get("updates") or {})
    all_outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    all_outputs = [*all_outputs, *updates.values()]
    graphs = [out.variable if isinstance(out, Out) else out for out in all_outputs]
    check_one_function([out for out in graphs if isinstance(out, Variable)], is_step=bool(updates))
    if compiles_to_jax(mode):
        outputs, kwargs = outputs_as_constants(outputs, kwargs)
    return released.compile(inputs, outputs, random_seed=random_seed, mode=mode, **kwargs)


compile_pymc = compile


# Compiling takes longer than evaluating once does
_CHEAP_MODE = Mode(linker="py", optimizer=None)


def current_value(var: Variable) -> np.ndarray | None:
    """Evaluate a graph; None if its value depends on inputs, and not only on their static shapes."""
    if isinstance(var, Constant):
        return np.asarray(var.data)
    [resolved] = resolve_shapes([var])
    if any(True for _ in explicit_graph_inputs([resolved])):
        return None
    return np.asarray(resolved.eval(mode=_CHEAP_MODE))


def current_length(length: Variable | int | None) -> int | None:
    """Return a length as a number; None if it has inputs, or there is none."""
    value = current_value(length) if isinstance(length, Variable) else length
    return None if value is None else int(value)


@wraps(released.extract_obs_data)
def extract_obs_data(x: Variable) -> np.ndarray:
    return released.extract_obs_data(all_rows([x])[0])
