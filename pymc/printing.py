# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import re

from functools import wraps
from typing import Any

from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.plates import rows_by_axis, subsampled_dims
from pymc.minibatch.rebuild import all_rows
from pymc.model.core import Model
from pymc.model.full_data import shown_model

released = _layer.run_release(globals())


class _ShownModel:
    """The model on all rows, with the batch sizes of its dims."""

    def __init__(self, model: Model):
        self._full = shown_model(model)
        self.batch_sizes = {d: Rows(i).batch_size for d, i in subsampled_dims(model).items()}
        for name, dims in model.named_vars_to_dims.items():  # an index of raw data has no dim
            for dim, rows in zip(dims, rows_by_axis(model, name)):
                if rows is not None:
                    self.batch_sizes[dim] = rows.batch_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._full, name)


@wraps(released.str_for_dist)
def str_for_dist(dist: Variable, *args: object, **kwargs: object) -> str:
    from pymc.variational.minibatch_rv import unscaled_rv

    name = dist.name
    [dist] = all_rows([unscaled_rv(dist)[0]])
    dist.name = name
    return released.str_for_dist(dist, *args, **kwargs)


@wraps(released.str_for_model)
def str_for_model(model: Model, *args: object, **kwargs: object) -> str:
    return released.str_for_model(shown_model(model), *args, **kwargs)


@wraps(released.model_table)
def model_table(model: Model, **kwargs: object) -> Any:
    return released.model_table(_ShownModel(model), **kwargs)


def _dims_expression(model: Model, var: Variable) -> str:
    """Get the dimensions of a variable; of a subsampled dim, also the rows of a batch."""
    text = released._dims_expression(model, var)
    batch_sizes = model.batch_sizes if isinstance(model, _ShownModel) else {}
    for dim, size in batch_sizes.items():
        text = re.sub(
            rf"(?:^|(?<= )){re.escape(dim)}\[", lambda found: f"{found[0]}{size} of ", text
        )
    return text
