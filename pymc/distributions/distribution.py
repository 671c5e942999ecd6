# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

import numpy as np

from pytensor.graph.basic import Variable
from pytensor.graph.op import Op
from pytensor.graph.replace import graph_replace
from pytensor.tensor.shape import shape_i

import pymc._layer as _layer

from pymc._docstrings import extends_docstring
from pymc.minibatch.axis_tracking import OTHER, Rows, Untracked, indexes, track_axes
from pymc.minibatch.data_placeholder import as_streamed
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.plates import local_shape, note_index, subsampled_dims
from pymc.minibatch.scaling import scale_factor
from pymc.minibatch.stream_index import refuse_loader


class _Distribution:
    def __new__(
        cls, name: str, *args: object, observed: Any = None, dims: Any = None, **kwargs: object
    ) -> Any:
        refuse_loader(observed, f"observed of {name!r}")
        if dims is not None and kwargs.get("shape") is None and kwargs.get("size") is None:
            names = released.convert_dims(dims)
            if isinstance(observed, Variable):
                observed = as_streamed(_model(), observed)
            if isinstance(observed, Variable) and indexes([observed]):
                kwargs["shape"] = _batch_shape(observed, names)
            elif observed is None:
                for index in indexes(
                    v for v in [*args, *kwargs.values()] if isinstance(v, Variable)
                ):
                    note_index(_model(), index)  # of a batch that another model has made
                if not subsampled_dims(_model()).keys().isdisjoint(names):
                    kwargs["shape"] = local_shape(_model(), names)
        return super().__new__(cls, name, *args, observed=observed, dims=dims, **kwargs)  # type: ignore[call-arg]


released = _layer.run_release(globals(), Distribution=_Distribution)


@released._change_dist_size.register(MinibatchIndexRV)
def change_index_size(op: Op, index: Variable, new_size: object, expand: bool = False) -> Variable:
    """Particles share the rows of a batch."""
    return index


def _model() -> Any:
    from pymc.model.core import modelcontext  # that module imports this one

    return modelcontext(None)


def _batch_shape(observed: Variable, dims: Sequence[str]) -> tuple[Variable, ...]:
    """Return the shape of `dims`, with the batch size for rows of a minibatch."""
    shape = list(released.shape_from_dims(dims, _model()))
    axes = track_axes(observed)
    for k in range(min(len(shape), observed.type.ndim)):
        axis = OTHER if isinstance(axes, Untracked) else axes[k]
        if isinstance(axis, Rows):
            shape[k] = shape_i(axis.index, 0)
        elif isinstance(axes, Untracked):
            shape[k] = observed.shape[k]
    return tuple(shape)


class ScaledPartialObservedRV(released.PartialObservedRV):  # type: ignore[name-defined]
    """A `PartialObservedRV` whose last input scales the log-probability of the observed part."""


@extends_docstring(released.create_partial_observed_rv)
def create_partial_observed_rv(rv: Variable, mask: np.ndarray) -> tuple:
    """A scale of `rv` goes to the observed component.

    The prior of imputed values is not scaled: given the parameters, it integrates to one.

    Raises
    ------
    NotImplementedError
        With a scale, if the draws of a multivariate distribution are missing in part.
    """
    from pymc.variational.minibatch_rv import unscaled_rv

    bare, totals = unscaled_rv(rv)
    name, missing = rv.name, mask
    parts = released.create_partial_observed_rv(bare, mask)
    if all(total is None for total in totals):
        return parts
    return _scale_observed_part(parts, bare, totals, missing, name)


def _scale_observed_part(
    parts: tuple, bare: Variable, totals: Sequence, mask: np.ndarray, name: str
) -> tuple:
    from pymc.variational.minibatch_rv import imputed_totals, scaled_rv

    (observed_rv, antimask), (imputed_rv, _), joined_rv = parts
    ndim_supp = bare.owner.op.ndim_supp
    if not isinstance(observed_rv.owner.op, released.PartialObservedRV):
        scaled = scaled_rv(observed_rv, imputed_totals(totals, mask, ndim_supp))
        joined_rv = graph_replace(joined_rv, {observed_rv: scaled})
        return (scaled, antimask), (imputed_rv, mask), joined_rv
    if ndim_supp > 0:
        raise NotImplementedError(
            f"total_size of {name!r}, whose draws are missing in part: the log-probability of "
            f"the observed part of a draw of {bare.owner.op} cannot be scaled apart from the "
            "imputed one. Leave out the rows with missing values, or leave out total_size"
        )
    scale = scale_factor(totals[: mask.ndim], mask.shape)
    node = observed_rv.owner
    inner = node.op.fgraph.unfreeze()
    both = ScaledPartialObservedRV(
        inputs=[*inner.inputs, scale.type()], outputs=inner.outputs, ndim_supp=0
    )(*node.inputs, scale)
    joined_rv = graph_replace(joined_rv, dict(zip(node.outputs, both, strict=True)))
    return (both[0], antimask), (both[1], mask), joined_rv


@released._logprob.register(ScaledPartialObservedRV)
def scaled_partial_observed_rv_logprob(
    op: Op,
    values: Sequence[Variable],
    dist: Variable,
    mask: Variable,
    scale: Variable,
    **kwargs: object,
) -> tuple[Variable, Variable]:
    observed, imputed = released.partial_observed_rv_logprob(op, values, dist, mask, **kwargs)
    return observed * scale, imputed


@released._support_point.register(ScaledPartialObservedRV)
def scaled_partial_observed_rv_support_point(
    op: Op, partial_obs_rv: Variable, rv: Variable, mask: Variable, scale: Variable
) -> Variable:
    return released.partial_observed_rv_support_point(op, partial_obs_rv, rv, mask)
