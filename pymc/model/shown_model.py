# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Models with minibatches as they are shown: on all rows, with the sizes of batches."""

import re

from collections.abc import Callable
from functools import wraps
from typing import Any

from pytensor.graph.basic import Variable

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.plates import rows_by_axis, subsampled_dims
from pymc.minibatch.stream_index import is_stream
from pymc.model.core import Model
from pymc.model.full_data import shown_model
from pymc.pytensorf import current_length

__all__ = ["BatchLength", "ShownModel", "batch_length", "with_batch_sizes"]


class ShownModel:
    """A view of a model: the one on all rows, with the batch sizes of its dims."""

    def __init__(self, model: Model):
        self._full = shown_model(model)
        self.batch_sizes = {d: Rows(i).batch_size for d, i in subsampled_dims(model).items()}
        for name, dims in model.named_vars_to_dims.items():  # an index of raw data has no dim
            for dim, rows in zip(dims, rows_by_axis(model, name)):
                if rows is not None:
                    self.batch_sizes[dim] = rows.batch_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._full, name)


class BatchLength(int):
    """A number of rows, shown with the size of a batch: ``500 of 40000``."""

    batch_size: int

    def __new__(cls, total: int, batch_size: int) -> "BatchLength":
        length = super().__new__(cls, total)
        length.batch_size = batch_size
        return length

    def __str__(self) -> str:
        return f"{self.batch_size} of {int(self)}"


def batch_length(length: int, rows: Rows) -> BatchLength:
    """Return the number of all rows, with the size of a batch."""
    total = current_length(rows.total) if is_stream(rows) else length
    return BatchLength(total or length, rows.batch_size)


def with_batch_sizes(dims_expression: Callable[..., str]) -> Callable[..., str]:
    """Add the rows of a batch to the dims of a variable in a table."""

    @wraps(dims_expression)
    def wrapper(model: Model, var: Variable) -> str:
        text = dims_expression(model, var)
        batch_sizes = model.batch_sizes if isinstance(model, ShownModel) else {}
        for dim, size in batch_sizes.items():
            pattern = rf"(?:^|(?<= )){re.escape(dim)}\["
            text = re.sub(pattern, lambda found: f"{found[0]}{size} of ", text)
        return text

    return wrapper
