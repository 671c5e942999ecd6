# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Whether a term is a sum over rows, found by trying: for Ops that no rule knows.

A sum over rows adds up: its value for five rows is that for two of them and that for the other three
together. A mean, a lag or a softmax over rows does not, nor does a term that is not of rows. Rows are among
both parts, so that what couples those of one group does not add up either, however many groups there are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import singledispatch

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.tensor.type import lvector

from pymc.minibatch.current_length import current_length
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.provenance import Axes, Lost, Rows
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream_index import StreamedRows, StreamIndexRV

__all__ = ["adds_up", "is_marker", "is_random"]

_MODE = Mode(linker="py", optimizer=None)
_POINTS = 4
_ROWS = 12
_SEED = 2083


def adds_up(
    term: Variable,
    rows: Collection[Rows],
    known: Mapping[Variable, Axes | Lost],
    free: Collection[Variable],
) -> bool | None:
    """Try whether the sum of all entries of a term is one over rows of data.

    Parameters
    ----------
    term : Variable
        A log-probability, as a function of the data of the model and its random variables.
    rows : collection of Rows
        What it should be a sum over.
    known : mapping of Variable to axes
        Those of local variables, which get a value for each row, among others.
    free : collection of Variable
        The model's free variables, which get values drawn from their prior.

    Returns
    -------
    bool or None
        None where nothing can be told: it is random, its rows are not at hand or are all alike, it is
        not finite, or it is made for one number of rows.
    """
    try:
        function = _of_places(term, known, free)
        answers = [_adds_up(function, axis) for axis in rows]
    except Exception:  # a user's function may fail in any way at rows of another number
        return None
    return False if False in answers else None if None in answers else True


type _Function = Callable[[int, Mapping[Rows, np.ndarray]], np.ndarray]


def _adds_up(function: _Function, axis: Rows) -> bool | None:
    """Compare the term of five rows with that of two of them and that of the others."""
    rng = np.random.default_rng(_SEED)
    conclusive = 0
    for point in range(_POINTS):
        first, second, third = rng.permutation(_ROWS)[:3]
        places = np.array([first, second, third, second, first])
        parts = [function(point, {axis: part}) for part in (places, places[:2], places[2:])]
        if not np.isfinite(parts).all() or function(point, {axis: places}) != parts[0]:
            continue
        whole, two, three = parts
        tolerance = np.sqrt(np.finfo(whole.dtype).eps) * np.abs(parts).sum()
        if abs(whole - two - three) > tolerance:
            return False
        others = [function(point, {axis: places[k : k + 2]}) for k in (1, 2, 3)]
        conclusive += any(abs(other - two) > tolerance for other in others)
    return True if conclusive > 1 else None


def _of_places(
    term: Variable, known: Mapping[Variable, Axes | Lost], free: Collection[Variable]
) -> _Function:
    """Make a term a function of a point, and of places among a few rows of data and of local variables."""
    roots = [
        var
        for var in ancestors([term])
        if var in free or (var.owner is None and _rows_along(var, known))
    ]
    inner = [v for v in ancestors([term], blockers=roots) if v not in roots and v.owner is not None]
    if any(is_random(var.owner) for var in inner):
        raise NotImplementedError("its values are random")
    rng = np.random.default_rng(_SEED)
    places: dict[Rows, Variable] = {}
    replaced: dict[Variable, Variable] = {}
    lengths = _rows_at_hand(inner)
    for axis, length in lengths.items():
        places[axis] = lvector()
        few = pt.constant(rng.choice(length, _ROWS, replace=length < _ROWS))[places[axis]]
        for var in inner:
            if isinstance(var.owner.op, StreamedRows) and Rows(var.owner.inputs[1]) == axis:
                replaced[var] = var.owner.inputs[0][few]
            elif isinstance(var.owner.op, MinibatchIndexRV) and var is var.owner.outputs[1]:
                if Rows(var) == axis:
                    replaced[var] = few
    inputs = []
    for root in roots:
        table = root.type.clone(shape=(None,) * root.type.ndim)()
        inputs.append(table)
        for k, axis in _rows_along(root, known).items():
            table = table[(slice(None),) * k + (places.setdefault(axis, lvector()),)]
        replaced[root] = table
    [total] = rebuild([term.sum()], replaced, bypass=_is_marker)
    compiled = pytensor.function([*places.values(), *inputs], total, mode=_MODE)
    drawn = _drawn(roots)

    def function(point: int, at: Mapping[Rows, np.ndarray]) -> np.ndarray:
        chosen = [at.get(axis, np.arange(3)) for axis in places]
        values = [
            _table(draws[point * _ROWS :][:_ROWS], _rows_along(root, known))
            for root, draws in zip(roots, drawn)
        ]
        return compiled(*chosen, *values)

    return function


def _drawn(roots: Sequence[Variable]) -> list[list[np.ndarray]]:
    """Draw random variables from their prior; the value variable of one is any number."""
    from pymc.pytensorf import compile

    priors = rebuild(
        [pt.random.normal(size=root.type.shape) if root.owner is None else root for root in roots],
        {},
        bypass=_is_marker,
    )
    draw = compile([], priors, random_seed=_SEED, mode=_MODE)
    return list(map(list, zip(*(draw() for _ in range(_POINTS * _ROWS)))))


@singledispatch
def is_marker(op: Op) -> bool:
    """Tell whether an Op says what its first input is in a model, and does nothing."""
    return False


def _is_marker(node: Apply) -> bool:
    return is_marker(node.op)


def is_random(node: Apply) -> bool:
    """Tell whether `node` draws random values, and not the rows of a batch."""
    return isinstance(node.op, RNGConsumerOp) and not isinstance(node.op, MinibatchIndexRV)


def _rows_along(var: Variable, known: Mapping[Variable, Axes | Lost]) -> dict[int, Rows]:
    axes = known.get(var, ())
    return {
        k: a for k, a in enumerate(axes if isinstance(axes, tuple) else ()) if isinstance(a, Rows)
    }


def _rows_at_hand(variables: Iterable[Variable]) -> dict[Rows, int]:
    """Count the rows of data that are there: of a stream those of the batch that was fed last."""
    lengths: dict[Rows, int] = {}
    for var in variables:
        op = var.owner.op
        if isinstance(op, StreamedRows):
            placeholder, index = var.owner.inputs
            lengths[Rows(index)] = len(placeholder.get_value(borrow=True))
        elif isinstance(op, MinibatchIndexRV) and not isinstance(op, StreamIndexRV):
            lengths[Rows(var.owner.outputs[1])] = current_length(var.owner.inputs[2]) or 0
    return lengths


def _table(draws: Sequence[np.ndarray], rows: Mapping[int, Rows]) -> np.ndarray:
    """Make a value of draws: one of them, or along axes of rows that of as many rows as there are draws."""
    if not rows:
        return draws[0]
    first, *others = rows
    value = np.concatenate(draws, axis=first).take(range(_ROWS), axis=first)
    for k in others:
        value = value.take(np.arange(_ROWS) % value.shape[k], axis=k)
    return value
