# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""A graph at some rows is computed from inputs at these rows."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.graph.traversal import ancestors

from pymc.minibatch.at_rows import at_rows, picked_rows

PYTHON = Mode("py", None)


def test_an_index_is_brought_to_the_leaves():
    x, w, index = pt.matrix("x"), pt.vector("w"), pt.lvector("index")
    positive, other = pt.exp(x), pt.constant([[1.0, 2.0], [0.5, 3.0]])
    graphs = [
        (pt.exp(x + w[:, None]).sum(axis=1), 0),
        (x @ pt.constant([1.0, 2.0]), 0),
        (x @ other, 0),
        (other @ x.T, 1),
        (pt.dot(other, x.T), 1),
        (pt.concatenate([x, x**2], axis=1)[:, 1:3], 0),
        (pt.alloc(w, 3), 0),
        (pt.alloc(w, 2, 3), 1),
        (x[pt.constant([2, 1, 0])], 0),
        (x.T[:, pt.constant([2, 1, 0])], 1),
        (x.T[pt.constant([1, 0])], 1),
        (x.T[1], 0),
        ((x.T * 2).T, 0),
        ((x.T * w).sum(axis=0), 0),
        (pt.logsumexp(x, axis=1), 0),
        (pt.cumsum(x, axis=1), 0),
        (x[:, 1:].set(positive[:, :1]), 0),
        (x[:, 1].inc(w), 0),
    ]
    values = {x: np.arange(6.0).reshape(3, 2), w: np.ones(3), index: np.array([2, 0, 2, 1])}
    found = [at_rows(graph, index, axis) for graph, axis in graphs]
    expected = [graph.take(index, axis=axis) for graph, axis in graphs]
    both = pytensor.function(list(values), [*found, *expected], mode=PYTHON)(*values.values())
    for new, old in zip(both[: len(graphs)], both[len(graphs) :]):
        np.testing.assert_allclose(new, old, rtol=1e-14)
    for (graph, _), new in zip(graphs, found):
        assert graph not in set(ancestors([new]))


def test_rows_are_not_brought_through_what_mixes_them():
    x, index = pt.matrix("x"), pt.lvector("index")
    for graph in (pt.cumsum(x, axis=0), pt.concatenate([x, x]), x[1:], x[:2].set(x[1:])):
        assert at_rows(graph, index).owner.inputs == [graph, index]


PICKED = [
    lambda x, i: x[i],
    lambda x, i: x[:, i],
    lambda x, i: x[i, 1],
    lambda x, i: x[1, i],
    lambda x, i: x[1, :, i],
    lambda x, i: x[i, :, 1],
    lambda x, i: x[:, 1, i],
    lambda x, i: x[:, i, 1],
    lambda x, i: x[1, i, 0],
    lambda x, i: x[1:, i],
    lambda x, i: x[i, ::2, 1],
]


@pytest.mark.parametrize("case", range(len(PICKED)))
def test_rows_are_picked_before_other_entries(case):
    x, i = pt.tensor3("x"), pt.lvector("i")
    graph = PICKED[case](x, i)
    picked = picked_rows(graph.owner)
    assert picked.index is i
    rows = picked.of(at_rows(x, i, picked.axis))
    values = np.random.default_rng(1).normal(size=(3, 3, 3)), np.array([2, 0, 2, 1])
    found, expected = pytensor.function([x, i], [rows, graph], mode=PYTHON)(*values)
    np.testing.assert_array_equal(found, expected)


def test_other_indexing_picks_no_rows():
    x, i = pt.tensor3("x"), pt.lvector("i")
    for graph in (x[i, i], x[pt.lmatrix()], x[pt.vector(dtype="bool")], x[1], pt.exp(x)):
        assert picked_rows(graph.owner) is None
    assert picked_rows(None) is None
