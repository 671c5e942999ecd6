# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Rows by their place: which axes of data come out, entry by entry, on an axis of a term."""

import numpy as np
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.minibatch.rebuild import with_inputs
from pymc.minibatch.subsample import find_positional_rows, with_lengths

N = 6
square = pt.constant(np.arange(36.0).reshape(N, N), name="square")
x = pt.constant(np.arange(6.0), name="x")
index = pt.constant(np.array([0, 2, 1, 5, 3, 2]), name="index")
slots = pt.vector("slots", shape=(N,))
weights = pt.vector("weights", shape=(N,))

DATA = {
    "elementwise": (pt.exp(x) + 1, {x: [0]}),
    "rows of a matrix": (square @ weights, {square: [0]}),
    "columns of a matrix": (weights @ square, {square: [1]}),
    "index, and not what it picks from": (slots[index], {index: [0]}),
    "index of an index": (weights[index][x.astype("int64")], {x: [0]}),
    "sum over columns": ((square * weights).sum(1), {square: [0]}),
    "mean of all beside": (x - x.mean(), {x: [0]}),
    "by a mean": (weights.sum() * x, {x: [0]}),
    "written to a column": (pt.set_subtensor(pt.zeros((N, 2))[:, 1], x), {x: [0]}),
    "joined as a column": (pt.stack([x, pt.ones(N)], axis=1), {x: [0]}),
    "parameter of a distribution": (pm.Normal.dist(x, 1), {x: [0]}),
    "bound of a truncated one": (pm.Truncated.dist(pm.Normal.dist(), lower=x), {x: [0]}),
    "transposed": (square.T, {square: [1]}),
    "running sum": (pt.cumsum(x), {}),
    "lag": (pt.concatenate([[0.0], x[:-1]]), {}),
    "alike": (pt.zeros(N), {}),
}


@pytest.mark.parametrize("name", DATA)
def test_data(name):
    term, expected = DATA[name]
    found = find_positional_rows([(term, 0)], N).data
    assert {var: axes for var, axes in found.items() if var in (x, square, index)} == expected


def test_of_blocked_variables_nothing_is_asked():
    group_effects = slots + x  # the mean of each of as many groups as rows
    found = find_positional_rows(
        [(group_effects[index], 0), (group_effects * 1, 0)], N, [group_effects]
    )
    assert found.data == {index: [0]}


def test_of_several_axes():
    found = find_positional_rows([(square * 2, 0), (square * 2, 1)], N)
    assert found.data == {square: [0, 1]}


SIZES = {
    "number": lambda: pt.zeros(N),
    "shape of a constant": lambda: pt.full((x.shape[0], 2), 1.5),
    "broadcast": lambda: pt.broadcast_to(x[:2], (N, 2)),
    "reshape": lambda: x.reshape((N, 1)),
    "size of a draw": lambda: pm.Normal.dist(0, 1, shape=(N, 2)),
    "size of a symbolic one": lambda: pm.DiracDelta.dist(1.0, size=(N, 2)),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    term = SIZES[name]()
    [(node, axes)] = find_positional_rows([(term, 0)], N).sizes.items()
    assert (node, axes) == (term.owner, [0])
    inputs = with_lengths(node, node.inputs, {0: pt.constant(2)})
    if name == "reshape":
        inputs[0] = x[:2]
    shape = with_inputs(node, inputs).outputs[term.owner.outputs.index(term)].shape
    assert shape.eval().tolist() == [2, *term.shape.eval()[1:]]


def test_another_number_is_no_size_of_rows():
    assert not find_positional_rows([(pt.zeros((1, 2)) + pt.zeros((N, 2))[:1], 0)], N).sizes


def test_where_rows_end():
    lagged, summed = pt.cumsum(x), pt.cumsum(slots)
    found = find_positional_rows([(lagged + summed + pt.zeros(N), 0)], N)
    assert found.ends == {lagged: [0], summed: [0]}
    assert set(found.coupled) == {lagged, summed}
