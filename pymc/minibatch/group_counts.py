# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""How many rows of the data read each group: counted in memory, in a pass over a loader, or by the user."""

from __future__ import annotations

import logging

from collections.abc import Sequence
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import pytensor

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable

from pymc.minibatch.axis_tracking import Rows, indexes, label
from pymc.minibatch.data_placeholder import loader_of
from pymc.minibatch.group_reads import counted_from_start
from pymc.minibatch.rebuild import all_rows, rebuild
from pymc.minibatch.stream_index import ReadableLoader, is_placeholder, streams_in
from pymc.pytensorf import current_value

__all__ = [
    "checked_counts",
    "counts_in_memory",
    "counts_of_stream",
    "refusal",
    "shares_of",
    "why_uncountable",
]

_log = logging.getLogger(__name__)

#: A variable, the groups that each row reads, and the number of all groups
Reads: TypeAlias = tuple[Variable, Sequence[Variable], int]


def shares_of(counts: np.ndarray) -> np.ndarray:
    """Return the share of each row of a group, one over their number; 0 for groups without rows."""
    return np.divide(1, counts, out=np.zeros(len(counts)), where=counts > 0)


def counts_in_memory(rv: Variable, indexes: Sequence[Variable], n_groups: int) -> np.ndarray:
    """Count the reads of each group in the data of a model."""
    counts = np.zeros(n_groups, dtype="int64")
    for index in indexes:
        counts += _bincount(rv, index, n_groups, current_value(all_rows([index])[0]))
    return counts


def checked_counts(rv: Variable, counts: Any, n_groups: int, n_reads: int | None) -> np.ndarray:
    """Return the numbers that the user gives, which add up to `n_reads` if it is known."""
    array = np.asarray(counts)
    if array.shape != (n_groups,) or array.dtype.kind not in "iu" or array.min(initial=0) < 0:
        raise ValueError(
            f"groups of pm.fit has for {rv.name!r} an array of shape {array.shape} and dtype {array.dtype}: the "
            f"number of rows of each group is an array of {n_groups:,} integers, 0 or larger"
        )
    if n_reads not in (None, int(array.sum())):
        raise ValueError(
            f"groups of pm.fit has {array.sum():,} rows in the groups of {rv.name!r}, and the data have "
            f"{n_reads:,}: the prior of each group would be scaled to the wrong number. Count all rows, and "
            "a row in each of the groups that it is read by"
        )
    return array


def why_uncountable(index: Variable, rows: Rows) -> str | None:
    """Return why the groups of a loader's rows cannot be counted; None if they can."""
    loader = loader_of(rows)
    if loader is None:
        return "the model does not know it"
    if not isinstance(loader, ReadableLoader):
        return f"{type(loader).__name__} gives its rows in batches only"
    if loader.one_shot:
        return "its rows can be read only once"
    streams = streams_in([index])
    known = {var: var.type() for var in streams if is_placeholder(var.owner.inputs[0])}
    if indexes(rebuild([index], known)):
        return "the groups depend on more than its fields"
    return None


def counts_of_stream(rows: Rows, reads: Sequence[Reads]) -> list[np.ndarray]:
    """Count the reads of each group of some variables, in one pass over the fields that say the groups."""
    begun, loader = perf_counter(), loader_of(rows)
    assert isinstance(loader, ReadableLoader)  # as why_uncountable has found
    graphs = [index for _, of_rv, _ in reads for index in of_rv]
    inputs = {var: var.type() for var in streams_in(graphs)}
    fields = [var.owner.inputs[0].tag.field.name for var in inputs]
    groups_of = pytensor.function(
        list(inputs.values()), rebuild(graphs, inputs), mode=Mode("py", None)
    )
    counts = [np.zeros(n_groups, dtype="int64") for _, _, n_groups in reads]
    n_rows = 0
    for part in loader.read_fields(fields):
        arrays = [part[name].astype(var.type.dtype) for name, var in zip(fields, inputs)]
        groups = iter(groups_of(*arrays))
        n_rows += len(arrays[0])
        for k, (rv, of_rv, n_groups) in enumerate(reads):
            for index in of_rv:
                counts[k] += _bincount(rv, index, n_groups, next(groups))
    names = ", ".join(repr(rv.name) for rv, _, _ in reads)
    _log.info(
        f"Counted the rows of the groups of {names} in a pass over {n_rows:,} rows of the loader, in "
        f"{perf_counter() - begun:.2g} s"
    )
    return counts


def _bincount(
    rv: Variable, index: Variable, n_groups: int, numbers: np.ndarray | None
) -> np.ndarray:
    if numbers is None or numbers.min(initial=0) < 0:
        raise refusal(
            rv, f"{label(index)} by which it is read has negative numbers, or unknown ones"
        )
    groups = counted_from_start(numbers, n_groups, rv, index)
    return np.bincount(groups, minlength=n_groups)


def refusal(rv: Variable, why: str) -> ValueError:
    """Return the error for a variable of which a step needs more groups than those of its rows."""
    return ValueError(
        f"groups of pm.fit has {rv.name!r}, but {why}. Leave it out: a step then takes all of its groups"
    )
