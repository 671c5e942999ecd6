# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Whether the rows of an encoder's distribution are each of their own row of the data.

A batch holds some of the rows, and others at each step. What a guide makes of a row must not depend
on which others came with it, or there is no one distribution that is fitted, and log q summed over rows
is not its density.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors

from pymc.logprob.basic import logp
from pymc.minibatch.current_length import current_length
from pymc.minibatch.lengths import check_no_length
from pymc.minibatch.provenance import OWN, Lost, Rows, indexes, trace
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.slicing import take_rows
from pymc.minibatch.stream import is_stream, streams_in
from pymc.variational.guides.base import Site
from pymc.variational.guides.lookups import trainable
from pymc.variational.guides.unnumbered_rows import UnnumberedRows, traced_axes

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["check_rows"]

_cheap_mode = Mode(linker="py", optimizer=None)


def check_rows(dist: Variable, site: Site, model: Model, subject: str) -> None:
    """Raise where a row of a distribution depends on other rows, on how many there are, or on none.

    It is read from the graph. Where that has an Op about which nothing is known, the distribution is
    computed for a batch, for the same in another order, and with another first row.

    Parameters
    ----------
    dist : Variable
        A distribution of the variable, with its axes.
    site : Site
    model : Model
    subject : str
        How messages begin.

    Raises
    ------
    ValueError
        The message names what mixes the rows, or whose length is computed with.
    """
    unnumbered = [rows for rows in site.plate if isinstance(rows, UnnumberedRows)]
    known = traced_axes(model, unnumbered)
    if not site.plate:
        found = indexes([dist], by_shape=True, known=known)
        if found:
            raise ValueError(
                f"{subject} is computed from a batch of the rows of {Rows(found[0]).dim!r}, which is another "
                "one at each step, but the variable is shared by all rows: compute it from all of the data"
            )
        return
    axes = trace(dist, known, model.free_RVs)
    if isinstance(axes, Lost) and axes.certain:
        raise ValueError(_mixed(subject, site.plate, axes.why))
    check_no_length(subject, [dist], known)
    for place, rows in enumerate(site.axes):
        if rows is None:
            continue
        if isinstance(axes, Lost):
            _check_values(dist, place, rows, subject, model)
            continue
        other = [k for k, axis in enumerate(axes) if axis == rows and k != place]
        if other or (isinstance(axes[place], Rows) and axes[place] != rows):
            raise ValueError(
                f"{subject} has the rows of {rows.dim!r} on another axis than axis {place}, where the "
                "variable has them"
            )
        if axes[place] is OWN:
            raise ValueError(
                f"{subject} has values of its own along axis {place}, where the variable has {rows}: a "
                "batch has other rows at each step. Compute the parameters from the batch, or from data "
                "with that dim in pm.Data; or give each row parameters of its own by 'mean_field' or "
                "pm.Structured"
            )


def _mixed(subject: str, plate: Sequence[Rows], why: str) -> str:
    dims = " x ".join(repr(rows.dim) for rows in plate)
    return (
        f"{subject} couples the rows of {dims}: {why}. What it makes of a row must not depend on the "
        "others of the batch, as it does with batch normalisation: take means over all rows, such as "
        "X.mean(0) of the full data, or normalise within the row"
    )


def _check_values(dist: Variable, place: int, rows: Rows, subject: str, model: Model) -> None:
    """Permute a batch, and change a row of it: row by row, the others stay as they were."""
    n_rows = current_length(rows.at_hand)
    if is_stream(rows):
        n_rows = current_length(rows.index.shape[0])
    n = min(rows.batch_size, n_rows or 0)
    if n_rows is None or n < 2:
        return
    density = _density_of_rows(dist, place, rows, model)
    first = np.arange(n)
    other = np.r_[n_rows - 1, first[1:]]
    plain, turned, changed = (density(order) for order in (first, first[::-1], other))
    rtol = 1e-3 if pytensor.config.floatX == "float32" else 1e-6
    for one, same in ((plain[:, ::-1], turned), (plain[:, 1:], changed[:, 1:])):
        if not np.allclose(one, same, rtol=rtol, atol=rtol, equal_nan=True):
            raise ValueError(
                _mixed(
                    subject,
                    [rows],
                    "in another order, or with another first row, the others had other distributions",
                )
            )


def _at_places(graph: Variable, rows: Rows, order: Variable) -> Variable:
    """Let a stream hold rows at some places of what it holds now; of rows that differ, if none was fed."""
    taken = {}
    for var in streams_in([graph]):
        placeholder, index = var.owner.inputs
        if Rows(index) == rows:
            value = placeholder.get_value()
            if value.dtype.kind == "f" and not value.any():
                value = np.random.default_rng(1).normal(size=value.shape).astype(value.dtype)
            taken[var] = take_rows(pt.as_tensor(value), order, 0)
    return rebuild([graph], taken)[0]


def _density_of_rows(dist: Variable, place: int, rows: Rows, model: Model) -> Any:
    """A function from places of rows to log q of the draws of two rows, at each row: (draws, rows)."""
    order = pt.lvector("order")
    draws = pytensor.function([], dist, mode=_cheap_mode)()
    within = [k for k in range(dist.type.ndim - dist.owner.op.ndim_supp) if k != place]
    densities = []
    for k in (0, -1):
        draw = np.take(draws, [k], axis=place)
        density = logp(dist, pt.repeat(draw, order.shape[0], axis=place))
        densities.append(density.sum(within) if within else density)
    graph = _at_places(pt.stack(densities), rows, order)
    swaps: dict[Variable, Variable] = {}
    if not rows.knows_numbers:
        for data in model.data_vars:
            dims = model.named_vars_to_dims.get(data.name) or ()
            if rows.dim in dims:
                swaps[data] = take_rows(data, order, dims.index(rows.dim))
    else:
        swaps = {
            index: pt.specify_shape(order, index.type.shape).astype(index.type.dtype)
            for index in indexes([graph], by_shape=True)
            if Rows(index) == rows
        }
    # Weights may start at 0, where nothing depends on anything
    rng = np.random.default_rng(0)
    for shared in trainable([graph], model):
        value = shared.get_value()
        moved = value + rng.normal(scale=0.1, size=value.shape)
        swaps[shared] = pt.constant(np.asarray(moved, dtype=value.dtype))
    found = set(ancestors([graph]))
    used: Mapping[Variable, Variable] = {old: new for old, new in swaps.items() if old in found}
    if used:
        [graph] = graph_replace([graph], used, strict=False)
    return pytensor.function([order], graph, mode=_cheap_mode, on_unused_input="ignore")
