# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows followed through the graph, and held against what the graph computes.

`assert_row_by_row` does not trust the rules: it changes one row of the data and looks which rows of
the result change.
"""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from pytensor.compile.mode import Mode
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.replace import clone_replace, graph_replace
from pytensor.graph.traversal import graph_inputs
from pytensor.scan import map as scan_map
from pytensor.scan import scan

import pymc as pm
import pymc.dims as pmd

from pymc.minibatch.axis_tracking import (
    BROADCAST,
    OTHER,
    Rows,
    Untracked,
    broadcast_axis,
    indexes,
    label,
    output_axes,
    root_axes,
    same_draw,
    track_axes,
)

N, B = 7, 4
PYTHON = Mode(linker="py", optimizer="fast_compile")
rng = np.random.default_rng(3)
X, Y = rng.normal(size=(N, 3)) + 3, rng.normal(size=N) + 3


@pytest.fixture
def batch():
    x, y = pytensor.shared(X, shape=X.shape), pytensor.shared(Y, shape=Y.shape)
    return pm.Minibatch(x, y, batch_size=B, sampling="without_replacement")


def data_of(var):
    return [v for v in graph_inputs([var]) if _is_data(v)]


def _is_data(var):
    dtype = getattr(var.type, "dtype", "")
    return isinstance(var, pytensor.compile.SharedVariable) and dtype.startswith("float")


def assert_row_by_row(var, axes):
    """Changing one row of the data changes those slices of `var` that `axes` say, and no others."""
    [index] = indexes([var])
    rows = index.type()
    replaced = graph_replace([var], {index: rows}, strict=False)
    replaced = [getattr(r, "values", r) for r in replaced]
    fn = pytensor.function([rows], replaced, mode=PYTHON)
    drawn = np.array([5, 0, 3, 6])
    [before] = fn(drawn)
    for place, row in enumerate(drawn):
        changed = []
        for data in data_of(var):
            old = data.get_value()
            new = old.copy()
            new[row] *= rng.uniform(1.1, 1.5, size=new[row].shape)
            data.set_value(new)
            changed.append((data, old))
        [after] = fn(drawn)
        for data, old in changed:
            data.set_value(old)
        where = [k for k, axis in enumerate(axes) if isinstance(axis, Rows)]
        assert where, "no axis of rows"
        for k in where:
            differs = np.moveaxis(before != after, k, 0).reshape(before.shape[k], -1).any(axis=1)
            np.testing.assert_array_equal(differs, np.arange(len(drawn)) == place)


ROW_BY_ROW = {
    "elementwise": (lambda x, y: pt.exp(x) + 1, ("rows", OTHER)),
    "broadcast": (lambda x, y: x * y[:, None], ("rows", OTHER)),
    "transpose": (lambda x, y: x.T, (OTHER, "rows")),
    "column": (lambda x, y: x[:, 1], ("rows",)),
    "columns": (lambda x, y: x[:, :2], ("rows", OTHER)),
    "fancy columns": (lambda x, y: x[:, [2, 0]], ("rows", OTHER)),
    "new axis": (lambda x, y: y[None, :, None], (BROADCAST, "rows", BROADCAST)),
    "sum of columns": (lambda x, y: x.sum(1), ("rows",)),
    "max of columns": (lambda x, y: x.max(-1), ("rows",)),
    "argmax of columns": (lambda x, y: pt.argmax(x, axis=1) + y, ("rows",)),
    "cumsum of columns": (lambda x, y: pt.cumsum(x, axis=1), ("rows", OTHER)),
    "sorted columns": (lambda x, y: pt.sort(x, axis=1), ("rows", OTHER)),
    "repeated columns": (lambda x, y: pt.repeat(x, 2, axis=1), ("rows", OTHER)),
    "softmax": (lambda x, y: pt.special.softmax(x, axis=1), ("rows", OTHER)),
    "logsumexp": (lambda x, y: pt.logsumexp(x, axis=1), ("rows",)),
    "dot with a matrix": (lambda x, y: x @ np.arange(6.0).reshape(3, 2), ("rows", OTHER)),
    "dot with a vector": (lambda x, y: pt.dot(x, np.arange(3.0)), ("rows",)),
    "dot from the left": (lambda x, y: pt.dot(np.arange(6.0).reshape(2, 3), x.T), (OTHER, "rows")),
    "batched matmul": (lambda x, y: x[:, None, :] @ x[:, :, None], ("rows", BROADCAST, BROADCAST)),
    "einsum": (
        lambda x, y: pt.einsum("ij,jk->ik", x, np.arange(6.0).reshape(3, 2)),
        ("rows", OTHER),
    ),
    "solve": (lambda x, y: pt.linalg.solve(np.eye(3) * 2, x.T), (OTHER, "rows")),
    "batched cholesky": (
        lambda x, y: pt.linalg.cholesky(pt.eye(2)[None] * y[:, None, None]),
        ("rows", OTHER, OTHER),
    ),
    "concatenated columns": (lambda x, y: pt.concatenate([x, x], axis=1), ("rows", OTHER)),
    "ones beside": (
        lambda x, y: pt.concatenate([pt.ones((x.shape[0], 1)), x], axis=1),
        ("rows", OTHER),
    ),
    "stack": (lambda x, y: pt.stack([y, x[:, 0]], axis=1), ("rows", OTHER)),
    "stack first": (lambda x, y: pt.stack([y, x[:, 0]]), (OTHER, "rows")),
    "split columns": (lambda x, y: pt.split(x, [1, 2], axis=1)[1], ("rows", OTHER)),
    "written column": (lambda x, y: pt.set_subtensor(x[:, 0], y), ("rows", OTHER)),
    "written into zeros": (
        lambda x, y: pt.set_subtensor(pt.zeros((x.shape[0], 2))[:, 1], y),
        ("rows", OTHER),
    ),
    "written into nothing": (
        lambda x, y: pt.set_subtensor(pt.empty((x.shape[0], 1))[:, 0], y),
        ("rows", BROADCAST),
    ),
    "increased column": (lambda x, y: pt.inc_subtensor(x[:, [0, 2]], y[:, None]), ("rows", OTHER)),
    "reshape to a column": (lambda x, y: y.reshape((-1, 1)), ("rows", BROADCAST)),
    "reshape of columns": (
        lambda x, y: pt.tile(x, (1, 2)).reshape((B, 2, 3)),
        ("rows", OTHER, OTHER),
    ),
    "groups": (lambda x, y: pt.as_tensor(np.arange(20.0))[x[:, 0].astype(int)] + y, ("rows",)),
    "flattened columns": (lambda x, y: x[:, :, None].flatten(2), ("rows", OTHER)),
    "own column of each row": (
        lambda x, y: x[pt.arange(x.shape[0]), y.astype(int) % 3] + y,
        ("rows",),
    ),
    "taken along columns": (
        lambda x, y: pt.take_along_axis(x, pt.argsort(x, axis=1), axis=1) + y[:, None],
        ("rows", OTHER),
    ),
    "bins": (lambda x, y: pt.searchsorted(np.arange(9.0), y) + y, ("rows",)),
    "loop over rows": (
        lambda x, y: scan_map(lambda r, s: r.sum() * s, [x, y], return_updates=False),
        ("rows",),
    ),
    "loop over rows beside": (
        lambda x, y: scan_map(lambda r, w: r * w, x, [np.arange(3.0)], return_updates=False),
        ("rows", OTHER),
    ),
    "loop over columns": (
        lambda x, y: scan_map(lambda c, s: c * s, x.T, [y], return_updates=False),
        (OTHER, "rows"),
    ),
    "where": (lambda x, y: pt.switch(y > 3, x[:, 0], y), ("rows",)),
    "clip": (lambda x, y: pt.clip(y, 0, 100), ("rows",)),
    "specified shape": (lambda x, y: pt.specify_shape(x, (B, 3)), ("rows", OTHER)),
    "slice of all": (lambda x, y: y[0:B:1], ("rows",)),
}


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_row_by_row(name, batch):
    build, kinds = ROW_BY_ROW[name]
    var = build(*batch)
    axes = track_axes(var)
    assert not isinstance(axes, Untracked), axes
    rows = Rows(*indexes(batch))
    assert axes == tuple(rows if kind == "rows" else kind for kind in kinds)
    assert_row_by_row(var, axes)


def running_mean(rows):
    return scan(
        lambda row, mean: 0.5 * mean + 0.5 * row,
        sequences=[rows],
        outputs_info=[pt.zeros_like(rows[0]) if rows.type.ndim > 1 else pt.zeros(())],
        return_updates=False,
    )


MIXED = {
    "sum": (lambda x, y: x.sum(0), True),
    "sum of all": (lambda x, y: x.sum(), True),
    "mean": (lambda x, y: y - y.mean(), True),
    "cumsum": (lambda x, y: pt.cumsum(y), True),
    "sort": (lambda x, y: pt.sort(y), True),
    "sort of all": (lambda x, y: pt.sort(x, axis=None), True),
    "argmax": (lambda x, y: pt.argmax(x, axis=0), True),
    "repeat": (lambda x, y: pt.repeat(y, 2), True),
    "gram matrix": (lambda x, y: pt.dot(x.T, x), True),
    "inner product": (lambda x, y: pt.dot(y, y), True),
    "batched inner product": (lambda x, y: x.T[None] @ x[None], True),
    "reverse": (lambda x, y: y[::-1], True),
    "first": (lambda x, y: y[0], True),
    "mask": (lambda x, y: x[y > 0], True),
    "permutation": (lambda x, y: x[np.array([1, 0, 3, 2])], True),
    "concatenation": (lambda x, y: pt.concatenate([y, y]), True),
    "ravel": (lambda x, y: x.ravel(), True),
    "reshape": (lambda x, y: x.reshape((3, B)), True),
    "split": (lambda x, y: pt.split(y, [2, 2])[0], True),
    "slots": (lambda x, y: y + np.arange(4.0), True),
    "columns by place": (lambda x, y: x[np.arange(B), [0, 1, 2, 0]], True),
    "covariance of rows": (lambda x, y: pt.linalg.cholesky(x @ x.T + pt.eye(B)), None),
    "running mean": (lambda x, y: running_mean(y), True),
    "codes of groups": (lambda x, y: pt.unique(y, return_inverse=True)[1], True),
    "cholesky of rows": (lambda x, y: pt.linalg.cholesky(x @ x.T + pt.eye(B)), True),
    "solve of rows": (lambda x, y: pt.linalg.solve(pt.eye(B) * y, y), None),
    "bins between rows": (lambda x, y: pt.searchsorted(pt.sort(x, axis=1)[:, 0], 3.0), True),
    "bins of rows between rows": (lambda x, y: pt.searchsorted(y, y), True),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed(name, batch):
    build, certain = MIXED[name]
    lost = track_axes(build(*batch))
    assert isinstance(lost, Untracked)
    if certain is not None:
        assert lost.certain is certain


def test_what_broadcasts_is_the_same_all_along():
    assert track_axes(pt.ones(3)) == (BROADCAST,)
    assert track_axes(pt.as_tensor(np.full((3, 2), 1.5))) == (BROADCAST, BROADCAST)
    assert track_axes(pt.as_tensor(np.arange(6.0).reshape(3, 2))) == (OTHER, OTHER)
    assert track_axes(pt.as_tensor(np.tile(np.arange(2.0), (3, 1)))) == (BROADCAST, OTHER)
    assert track_axes(pt.vector()) == (OTHER,)
    assert track_axes(pt.row()) == (BROADCAST, OTHER)


def test_a_length_is_not_of_rows_that_are_lost(batch):
    mixed = pt.cumsum(batch[0], axis=0)
    assert isinstance(track_axes(mixed), Untracked)
    assert track_axes(pt.zeros(mixed.shape[0])) == (BROADCAST,)
    assert track_axes(pt.zeros(mixed.shape[0]) + batch[1]) == (Rows(*indexes(batch)),)


def test_a_free_variable_is_its_own():
    z = pm.Normal.dist(0, 1, shape=B)
    assert track_axes(z) == (BROADCAST,)
    assert track_axes(z * 2, known={z: root_axes(z)}) == (OTHER,)
    assert track_axes(z * 2, known={z: (BROADCAST,)}) == (BROADCAST,)


def test_clones_of_an_index_are_one(batch):
    [clone] = clone_replace([batch[0]], {})
    assert clone is not batch[0]
    assert len(indexes([clone, batch[1]])) == 1
    assert track_axes(clone[:, 0] + batch[1]) == (Rows(*indexes(batch)),)
    ours, theirs = indexes([batch[0]])[0], indexes([clone])[0]
    assert same_draw(ours, theirs)
    assert same_draw(*(v.owner.outputs[0] for v in (ours, theirs)))
    assert not same_draw(ours, theirs.owner.outputs[0])
    assert not same_draw(ours, indexes([pm.Minibatch(Y, batch_size=B)])[0])


def test_two_indexes_meet(batch):
    other = pm.Minibatch(Y, batch_size=B)
    lost = track_axes(batch[1] + other)
    assert isinstance(lost, Untracked)
    assert "two minibatch indexes" in lost.why


def test_meet():
    rows = Rows(indexes([pm.Minibatch(Y, batch_size=B)])[0])
    assert broadcast_axis([]) is BROADCAST
    assert broadcast_axis([BROADCAST, OTHER]) is OTHER
    assert broadcast_axis([BROADCAST, rows, rows]) == rows
    with pytest.raises(Untracked, match=r"not of the batch \(weights\)"):
        broadcast_axis([rows, OTHER], ["weights"])


def test_shape_is_no_dependence(batch):
    assert indexes([batch[0].shape[0]]) == []
    assert len(indexes([batch[0].shape[0]], by_shape=True)) == 1


def test_label():
    w = pt.vector("w")
    assert label(w) == "w"
    assert label(pt.exp(w)) == "Exp of w"


class Doubled(Op):
    """An Op that nobody has a rule for."""

    def make_node(self, x):
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = inputs[0] * 2


def test_unknown_op_and_a_rule_for_it(batch):
    var = Doubled()(batch[1])
    lost = track_axes(var)
    assert isinstance(lost, Untracked)
    assert not lost.certain

    class Known(Doubled):
        pass

    @output_axes.register(Known)
    def _(op, node, inputs):
        return [inputs[0]]

    var = Known()(batch[1])
    assert_row_by_row(var, track_axes(var))


def test_unknown_op_without_rows():
    assert track_axes(Doubled()(pt.vector())) == (OTHER,)


class TestNamedDims:
    @pytest.fixture
    def batch(self):
        with pm.Model(coords={"obs": range(N), "feature": range(3)}):
            x = pmd.Data("x", X, dims=("obs", "feature"))
            y = pmd.Data("y", Y, dims="obs")
            return pm.Minibatch(x, y, batch_size=B, sampling="without_replacement")

    ROW_BY_ROW = {
        "broadcast": (lambda x, y: x * y, ("rows", OTHER)),
        "transpose": (lambda x, y: x.transpose("feature", "obs"), (OTHER, "rows")),
        "sum": (lambda x, y: x.sum("feature"), ("rows",)),
        "cumsum": (lambda x, y: x.cumsum("feature"), ("rows", OTHER)),
        "dot": (
            lambda x, y: x.dot(pmd.as_xtensor(np.arange(3.0), dims=("feature",))),
            ("rows",),
        ),
        "column": (lambda x, y: x.isel(feature=1), ("rows",)),
        "columns": (lambda x, y: x.isel(feature=slice(0, 2)), ("rows", OTHER)),
        "expanded": (lambda x, y: y.expand_dims("new"), (BROADCAST, "rows")),
        "renamed": (lambda x, y: y.rename({"obs": "trial"}), ("rows",)),
        "concatenated": (lambda x, y: pmd.concat([x, x], dim="feature"), ("rows", OTHER)),
        "values": (lambda x, y: x.values[:, 0], ("rows",)),
        "softmax": (lambda x, y: pmd.math.softmax(x, dim="feature"), ("rows", OTHER)),
    }

    @pytest.mark.parametrize("name", ROW_BY_ROW)
    def test_row_by_row(self, name, batch):
        build, kinds = self.ROW_BY_ROW[name]
        var = build(*batch)
        axes = track_axes(var)
        assert not isinstance(axes, Untracked), axes
        rows = Rows(*indexes(batch))
        assert sorted(map(str, axes)) == sorted(
            str(rows if kind == "rows" else kind) for kind in kinds
        )
        assert_row_by_row(var, axes)

    MIXED = {
        "sum": lambda x, y: x.sum("obs"),
        "cumsum": lambda x, y: x.cumsum("obs"),
        "dot": lambda x, y: x.dot(y, dim="obs"),
        "first": lambda x, y: y.isel(obs=0),
        "slice": lambda x, y: y.isel(obs=slice(None, 2)),
        "concatenated": lambda x, y: pmd.concat([y, y], dim="obs"),
        "slots": lambda x, y: y + pmd.as_xtensor(np.arange(4.0), dims=("obs",)),
        "stacked": lambda x, y: x.stack({"cell": ("obs", "feature")}),
    }

    @pytest.mark.parametrize("name", MIXED)
    def test_mixed(self, name, batch):
        assert isinstance(track_axes(self.MIXED[name](*batch)), Untracked)


UNARY = [pt.log1p, pt.sqrt, lambda v: v * 2 + 1, lambda v: v**2, pt.abs]
SHAPES = [
    lambda v: v.T,
    lambda v: v[None],
    lambda v: v[..., None],
    lambda v: pt.stack([v, v], axis=-1),
    lambda v: pt.concatenate([v, v], axis=-1),
    lambda v: v.sum(axis=-1),
    lambda v: v[..., 0],
    lambda v: v[..., ::-1],
    lambda v: v.cumsum(axis=-1) if v.type.ndim else v,
    lambda v: v.squeeze(),
]


@settings(max_examples=60)
@given(steps=st.lists(st.sampled_from(UNARY + SHAPES), min_size=1, max_size=6))
def test_what_is_said_to_be_rows_is(steps):
    """Whatever comes out of a chain of Ops: axes called rows are, or the rows are called lost."""
    data = pytensor.shared(X, shape=X.shape)
    var = pm.Minibatch(data, batch_size=B, sampling="without_replacement")
    for step in steps:
        if var.type.ndim == 0:
            break
        var = step(var)
    axes = track_axes(var)
    if isinstance(axes, Untracked):
        assert axes.certain
    else:
        assert_row_by_row(var, axes)
