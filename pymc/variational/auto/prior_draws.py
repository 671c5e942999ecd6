# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Draws from the priors of a model, on the unconstrained space, for a few starts of a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytensor.tensor as pt

from pytensor.compile.mode import FAST_COMPILE
from pytensor.compile.rewriting import inline_ofg_expansion
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import in2out, node_rewriter
from pytensor.tensor.random.basic import CauchyRV, HalfCauchyRV, HalfNormalRV, StudentTRV

from pymc.distributions.continuous import Flat, HalfFlat
from pymc.initial_point import make_initial_point_expression
from pymc.pytensorf import compile, find_rng_nodes, replace_rng_nodes, reseed_rngs

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["prior_draws"]


def prior_draws(model: Model) -> Callable[[int], dict[str, np.ndarray]] | None:
    """Return a function of a seed that draws from the priors, or None if all of them are flat.

    It returns unconstrained values by the name of the value variable. Variables with a flat prior are at their
    initial value.
    """
    proper = [rv for rv in model.free_RVs if not isinstance(rv.owner.op, Flat | HalfFlat)]
    if not proper:
        return None
    values = make_initial_point_expression(
        free_rvs=model.free_RVs,
        rvs_to_transforms=model.rvs_to_transforms,
        initval_strategies={**model.rvs_to_initial_values, **dict.fromkeys(proper, "prior")},
        return_transformed=True,
    )
    graph = FunctionGraph(outputs=replace_rng_nodes(values), clone=False)
    for rewrite in (inline_ofg_expansion, draw_by_numpy):
        in2out(rewrite).rewrite(graph)
    rngs = find_rng_nodes(graph.outputs)
    draw_all = compile([], graph.outputs, mode=FAST_COMPILE)
    names = [model.rvs_to_values[rv].name for rv in model.free_RVs]

    def draw(seed: int) -> dict[str, np.ndarray]:
        reseed_rngs(rngs, seed)
        return dict(zip(names, draw_all()))

    return draw


@node_rewriter([HalfNormalRV, HalfCauchyRV, CauchyRV, StudentTRV])
def draw_by_numpy(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Draw by NumPy what PyTensor draws by `scipy.stats` in Python, which takes long to import.

    Examples
    --------
    ``half_normal(loc, scale) -> loc + scale * abs(normal(0, 1))``
    ``cauchy(loc, scale) -> loc + scale * normal(0, 1) / normal(0, 1)``
    ``t(df, loc, scale) -> loc + scale * normal(0, 1) / sqrt(gamma(df / 2, 2 / df))``
    """
    rng, size, *parameters, loc, scale = node.inputs
    shape = node.op._infer_shape(size, node.inputs[2:])
    rng, z = pt.random.normal(size=shape, rng=rng).owner.outputs
    if isinstance(node.op, CauchyRV | HalfCauchyRV):
        rng, other = pt.random.normal(size=shape, rng=rng).owner.outputs
        z = z / other
    if isinstance(node.op, StudentTRV):
        [dof] = parameters
        rng, chi2 = pt.random.gamma(dof / 2, scale=2 / dof, size=shape, rng=rng).owner.outputs
        z = z / pt.sqrt(chi2)
    if isinstance(node.op, HalfNormalRV | HalfCauchyRV):
        z = abs(z)
    return [rng, (loc + scale * z).astype(node.outputs[1].dtype)]
