# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The batch moves at each call of every compiled function of a model."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.graph.basic import equal_computations as plain_equal_computations

import pymc as pm

from pymc.minibatch.index import IndexState, minibatch_index
from pymc.pytensorf import collect_default_updates, equal_computations, extract_obs_data

PYTHON = Mode(linker="py", optimizer="fast_compile")
N, B = 6, 2
rng = np.random.default_rng(5)
X, Y = rng.normal(size=(N, 2)), rng.normal(size=N)


def one_data():
    return pm.Minibatch(pm.Data("y", Y), batch_size=B), 0.0


def several_data():
    x, y = pm.Minibatch(pm.Data("x", X), pm.Data("y", Y), batch_size=B)
    return y, x.sum(-1)


def data_with_dims():
    x = pm.Data("x", X, dims=("obs", "feature"))
    x, y = pm.Minibatch(x, pm.Data("y", Y, dims="obs"), batch_size=B)
    return y, x.sum(-1)


def raw_arrays():
    x, y = pm.Minibatch(X, Y, batch_size=B)
    return y, x.sum(-1)


def data_and_raw_array():
    x, y = pm.Minibatch(pm.Data("x", X), Y, batch_size=B)
    return y, x.sum(-1)


def expressions():
    x, y = pm.Data("x", X), pm.Data("y", Y)
    x, y = pm.Minibatch(pt.concatenate([x, x**2], axis=1), y * 2, batch_size=B)
    return y, x.sum(-1)


def two_calls():
    y = pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
    x = pm.Minibatch(pm.Data("x", X, dims=("obs", "feature")), batch_size=B)
    return y, x.sum(-1)


FORMS = [
    one_data, several_data, data_with_dims, raw_arrays, data_and_raw_array, expressions, two_calls
]  # fmt: skip


def build(form):
    """Two terms, one of them of clones of the index when its log-probability is derived."""
    with pm.Model(coords={"obs": range(N), "feature": range(2)}) as model:
        y, x = form()
        b = pm.Normal("b")
        pm.Normal("first", b * x, 1, observed=y)
        pm.Normal("second", b, pt.ones_like(y), observed=y + x)
    return model


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def model(request):
    return build(request.param)


def one_pass(function, *args):
    """Call as often as a pass of the default sampling takes, which has each row once."""
    return np.array([np.ravel(function(*args)) for _ in range(N // B)])


class TestBatchMoves:
    """The mean over a pass is the full value, which is so only if the batch moves on by B rows."""

    def check(self, values, full):
        assert len(np.unique(values[:, 0])) == N // B
        np.testing.assert_allclose(values.mean(0), np.ravel(full), rtol=1e-10)

    def test_logp(self, model):
        with pytensor.config.change_flags(mode=PYTHON), pm.minibatch_logp():
            point = {"b": np.array(0.3)}
            logp = model.compile_logp()
            full = pm.remove_minibatch(model).compile_logp()(point)
            self.check(one_pass(logp, point), full)

    def test_dlogp(self, model):
        point = {"b": np.array(0.3)}
        with pm.minibatch_logp():
            dlogp = model.compile_dlogp(mode=PYTHON)
        full = pm.remove_minibatch(model).compile_dlogp(mode=PYTHON)(point)
        self.check(one_pass(dlogp, point), full)

    def test_logp_dlogp_function(self, model):
        point = np.array([0.3])
        with pm.minibatch_logp():
            function, full = (
                m.logp_dlogp_function(ravel_inputs=True, mode=PYTHON)
                for m in (model, pm.remove_minibatch(model))
            )
        for one in (function, full):
            one.set_extra_values({})
        values = one_pass(lambda p: np.hstack(function(p)), point)
        self.check(values, np.hstack(full(point)))

    def test_step_of_a_fit(self, model):
        inference = pm.ADVI(model=model, random_seed=1)
        step = inference.objective.step_function(score=True, compile_kwargs={"mode": PYTHON})
        [state] = [v for v in step.get_shared() if isinstance(v, IndexState)]
        start = state.get_value()
        for k in range(1, 4):
            step()
            np.testing.assert_array_equal(state.get_value(), [*start[:2], k * B, 0])


class TestEqualComputations:
    def test_clones_of_an_index(self):
        rows = pt.lscalar("rows")
        node = minibatch_index(rows, B).owner
        clone = node.clone_with_new_inputs([node.inputs[0], node.inputs[1], rows + 0])
        assert equal_computations(node.outputs[:1], clone.outputs[:1])
        assert equal_computations(node.outputs, clone.outputs)
        assert not equal_computations(node.outputs[:1], clone.outputs[1:])
        other = minibatch_index(rows, B).owner  # has a state of its own
        assert not equal_computations(node.outputs[:1], other.outputs[:1])

    def test_other_graphs(self):
        x, y = pt.dscalars("x", "y")
        assert equal_computations([x + y], [x + y])
        assert not equal_computations([x + y], [x - y])

    def test_clones_have_one_update(self):
        rows = pt.lscalar("rows")
        node = minibatch_index(rows, B).owner
        clone = node.clone_with_new_inputs([node.inputs[0], node.inputs[1], rows + 0])
        outputs = [node.outputs[1] + clone.outputs[1]]
        [(state, update)] = collect_default_updates(outputs, inputs=[rows]).items()
        assert state is node.inputs[0]
        assert update in (node.outputs[0], clone.outputs[0])

    def test_without_it_the_batch_is_frozen(self, monkeypatch):
        """What the override is for: take it away, and there is no update."""
        monkeypatch.setattr(pm.pytensorf, "equal_computations", plain_equal_computations)
        rows = pt.lscalar("rows")
        node = minibatch_index(rows, B).owner
        clone = node.clone_with_new_inputs([node.inputs[0], node.inputs[1], rows + 0])
        with pytest.warns(UserWarning, match="multiple distinct clients"):
            updates = collect_default_updates([node.outputs[1] + clone.outputs[1]], inputs=[rows])
        assert not updates


def test_extract_obs_data_has_all_rows():
    with pm.Model():
        batch = pm.Minibatch(pm.Data("y", Y), batch_size=B)
    np.testing.assert_array_equal(extract_obs_data(batch), Y)
