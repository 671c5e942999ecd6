# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pytensor.compile.io import Out
from pytensor.compile.mode import Mode
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import explicit_graph_inputs
from pytensor.graph.type import HasDataType

import pymc._layer as _layer

from pymc.minibatch.array_data import as_constants, compiles_to_jax, numbers_of
from pymc.minibatch.axis_tracking import same_draw
from pymc.minibatch.rebuild import all_rows
from pymc.minibatch.scaling import check_one_function

released = _layer.run_release(globals())

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


def convert_data(data: Any) -> Any:
    """Convert data to an array, or a variable, of floatX or of integers.

    Integers keep their dtype if they may not fit into one of 32 bits (16 with a floatX of 32). Dtypes of
    pandas are converted by :func:`.numbers_of`.
    """
    if isinstance(data, Variable):
        of_integers = isinstance(data.type, HasDataType) and data.type.dtype.startswith("int")
        return data if of_integers else released.convert_data(data)
    numbers = numbers_of(data)
    converted = released.convert_data(numbers)
    if isinstance(data, pd.DataFrame) and isinstance(numbers, np.ndarray):
        return released.floatX(converted)  # as of all frames
    if isinstance(converted, np.ndarray) and converted.dtype.kind == "i":
        original = np.asanyarray(numbers)
        bounds, values = np.iinfo(converted.dtype), np.ma.compressed(original)
        if values.size and (values.min() < bounds.min or values.max() > bounds.max):
            return original.copy()
    return converted


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
        outputs, kwargs = _with_constants(outputs, kwargs)
    return released.compile(inputs, outputs, random_seed=random_seed, mode=mode, **kwargs)


compile_pymc = compile


def _with_constants(outputs: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Replace raw data in outputs and updates by the same constants."""
    several = isinstance(outputs, list | tuple)
    wrapped = list(outputs) if several else [outputs]
    graphs = [out.variable if isinstance(out, Out) else out for out in wrapped]
    updates = dict(kwargs.get("updates") or {})
    if not all(isinstance(graph, Variable) for graph in [*graphs, *updates.values()]):
        return outputs, kwargs
    new = as_constants([*graphs, *updates.values()])
    if "updates" in kwargs:
        kwargs = kwargs | {"updates": dict(zip(updates, new[len(graphs) :]))}
    new_outputs = [
        Out(graph, borrow=out.borrow) if isinstance(out, Out) else graph
        for out, graph in zip(wrapped, new)
    ]
    return new_outputs if several else new_outputs[0], kwargs


def equal_computations(
    xs: list[Variable], ys: list[Variable], *args: object, **kwargs: Any
) -> bool:
    """Return True also for the next states of two clones of one minibatch index.

    Deriving a log-probability clones the index and rewrites its inputs. `collect_default_updates`
    would see two different updates of one state, return none, and the batch would never move.
    """
    if len(xs) == len(ys) and all(map(same_draw, xs, ys)):
        return True
    return released.equal_computations(xs, ys, *args, **kwargs)


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


def extract_obs_data(x: Variable) -> np.ndarray:
    """Extract data from observed variables; all rows of what is minibatched."""
    return released.extract_obs_data(all_rows([x])[0])
