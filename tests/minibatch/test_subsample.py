# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What becomes of the batch, and what stays of all rows: compared with the same on the rows taken."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode

import pymc as pm
import pymc.dims as pmd

from pymc.minibatch.axis_tracking import track_axes
from pymc.minibatch.index import minibatch_index
from pymc.minibatch.minibatch import take_rows
from pymc.minibatch.rebuild import all_rows
from pymc.minibatch.subsample import size_inputs, subsample

N, B = 6, 2
X = np.random.default_rng(1).normal(size=(N, 3))

x = pytensor.shared(X)
n_obs = pytensor.shared(np.int64(N))
index = minibatch_index(N, B, "without_replacement")
rows = take_rows(x, index, 0)


def on_batch(graph):
    """Rewrite `graph` of all rows, and evaluate it with the rows that it took."""
    [out] = subsample([graph], {x: (rows, track_axes(rows))}, {n_obs: index.shape[0]})
    mode = Mode(linker="py", optimizer=None)
    return pytensor.function([], [out, rows], mode=mode)()


OF_THE_BATCH = {
    "itself": lambda x, n: x,
    "of a column": lambda x, n: x[:, 0] * 2,
    "sum over columns": lambda x, n: x.sum(1),
    "ones by shape": lambda x, n: pt.ones(x.shape[0]),
    "ones by dim": lambda x, n: pt.ones(n),
    "ones by whole shape": lambda x, n: pt.ones(x.shape),
    "zeros_like": lambda x, n: pt.zeros_like(x),
    "more columns": lambda x, n: pt.ones((x.shape[0], x.shape[1] + 1)),
    "written": lambda x, n: pt.set_subtensor(pt.zeros((n, 2))[:, 1], x[:, 0]),
    "shares": lambda x, n: n * pt.ones(n) / pt.ones(n).sum(),
    "reshaped": lambda x, n: x[:, 0].reshape((n, 1)),
}


@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_rows_and_sizes_are_of_the_batch(name):
    form = OF_THE_BATCH[name]
    value, batch = on_batch(form(x, n_obs))
    expected = form(pt.as_tensor(batch), pt.constant(B)).eval()
    np.testing.assert_allclose(value, expected)
    assert len(value) == B


OF_ALL_ROWS = {
    "count": lambda x, n: x.shape[0],
    "count of the dim": lambda x, n: n,
    "count as a float": lambda x, n: 1 / x.shape[0],
    "size": lambda x, n: x.size,
    "mean": lambda x, n: x.mean(0),
    "spread": lambda x, n: x.std(0),
    "extremes": lambda x, n: pt.stack([x.max(), x.min()]),
    "Gram matrix": lambda x, n: x.T @ x / n,
    "counted ones": lambda x, n: pt.ones(n).sum() + pt.ones_like(x[:, 0]).sum(),
    "sorted": lambda x, n: pt.sort(x, axis=0),
    "columns": lambda x, n: pt.ones(x.shape[1]),
}


@pytest.mark.parametrize("name", OF_ALL_ROWS)
def test_numbers_are_of_all_rows(name):
    form = OF_ALL_ROWS[name]
    value, _ = on_batch(form(x, n_obs))
    np.testing.assert_allclose(value, form(pt.as_tensor(X), pt.constant(N)).eval())


def test_both_at_once():
    value, batch = on_batch((x - x.mean(0)) / x.std(0) + pt.full((n_obs, 1), 1.0) / n_obs)
    np.testing.assert_allclose(value, (batch - X.mean(0)) / X.std(0) + 1 / N)


def test_what_does_not_fit_says_so():
    draws = pm.Normal.dist(x, 1)
    with pytest.raises(ValueError, match=r"does not fit to the rows of a batch .*in pm\.Data"):
        on_batch(draws + np.ones((N, 3)))


def test_back_to_all_rows():
    graph = (x - x.mean(0)) / pt.sqrt(n_obs) + pt.ones((n_obs, 1))
    [out] = subsample([graph], {x: (rows, track_axes(rows))}, {n_obs: index.shape[0]})
    [full] = all_rows([out])
    mode = Mode(linker="py", optimizer=None)
    np.testing.assert_allclose(full.eval(mode=mode), graph.eval(mode=mode))


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (pm.Normal.dist(size=(n_obs,)), [n_obs]),
        (pm.DiracDelta.dist(1.0, size=(n_obs,)), [n_obs]),
        (pmd.Normal.dist(dim_lengths={"obs": n_obs}), [n_obs]),
        (pt.ones((n_obs, 2)), [n_obs]),
        (pt.exp(x), []),
    ],
    ids=["RandomVariable", "SymbolicRandomVariable", "named dims", "Alloc", "other"],
)
def test_size_inputs(variable, expected):
    node = variable.owner
    sizes = [node.inputs[k] for k in size_inputs(node)]
    assert [var for var in expected if var not in pytensor.graph.ancestors(sizes)] == []
    assert bool(sizes) == bool(expected)
