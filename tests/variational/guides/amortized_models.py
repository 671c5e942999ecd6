# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Models with an encoder, for the tests of amortized guides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import toposort
from pytensor.tensor.random.op import RandomVariable

import pymc as pm

from pymc.minibatch.index import MinibatchIndexRV
from pymc.variational.approximation import guided_approximation
from pymc.variational.guides.model_guide import ModelGuide

PLAIN = Mode(linker="py", optimizer=None)
N, B = 5, 3
Y = np.array([0.4, 1.7, -0.6, 2.2, 0.9])


def weights(name: str, value: Any) -> Any:
    return pytensor.shared(np.asarray(value, dtype=pytensor.config.floatX), name=name)


def one_local(
    prior: Callable[[], Variable], encode: Callable[..., Variable], **kwargs: Any
) -> tuple[pm.Model, pm.Amortized]:
    """A model with one variable of its rows, `z`, and a guide of it."""
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        z = prior()
        loc = z if z.type.ndim == 1 else z.sum(-1)
        pm.Normal("y", loc, 1, observed=batch, dims="obs")
    return model, pm.Amortized({"z": encode}, inputs=[batch], dim="obs", **kwargs)


def bound(model: pm.Model, guide: Any) -> ModelGuide:
    [found] = (g for g in guided_approximation(model, guide).guides if isinstance(g, ModelGuide))
    return found


def here_of(guide: Any) -> dict[Any, Variable]:
    return {p: p for p in guide.parameters}


def normal(mean: Any = 0.0) -> Callable[[], Variable]:
    return lambda: pm.Normal("z", mean, 1, dims="obs")


def vae(**kwargs: Any) -> tuple[pm.Model, pm.Amortized, dict[str, Any]]:
    """An encoder with a scale that is data, and a decoder with weights of its own."""
    found = {
        "w": weights("w", 0.5),
        "b": weights("b", 0.0),
        "decoder": weights("decoder", 1.0),
        "counts": pytensor.shared(np.ones(2, dtype="int64"), name="counts"),
    }
    with pm.Model(coords={"obs": range(N)}) as model:
        scale = pm.Data("scale", 2.0)
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        z = pm.Normal("z", 0, 1, dims="obs")
        pm.Normal("y", found["decoder"] * z, 1, observed=batch, dims="obs")

    def encode(y: Variable) -> Variable:
        rate = found["decoder"] / scale + 0 * found["counts"].sum()
        return pm.Normal.dist((found["w"] * y + found["b"]) * rate, 1)

    found["scale"] = scale
    return model, pm.Amortized({"z": encode}, [batch], "obs", **kwargs), found


def with_noise(graphs: Sequence[Variable], noise: Callable[[Variable], Variable]) -> list[Variable]:
    """Put numbers in the place of all noise, but for the index."""
    nodes = [
        node
        for node in toposort(graphs)
        if isinstance(node.op, RandomVariable) and not isinstance(node.op, MinibatchIndexRV)
    ]
    swaps = {}
    for node in nodes:
        out = node.outputs[1]
        size = [node.inputs[1][k] for k in range(out.type.ndim)]
        swaps[out] = noise(pt.zeros(size)) if size else noise(pt.constant(0.0))
    return list(graph_replace(list(graphs), swaps, strict=False))
