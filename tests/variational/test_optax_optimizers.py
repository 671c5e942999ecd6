# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Optimizers of optax in fits: the same numbers as in a loop of JAX."""

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.index import minibatch_index
from pymc.variational.local_params.row_optimizer import RowGradient, all_updates, guarded
from pymc.variational.local_params.table import ParamTable
from pymc.variational.optimizers import as_optimizer, chain, clip_by_global_norm
from tests.variational.engine import (
    JAX_COPIES,
    PYTHON,
    bare_step,
    counted_compilations,
    normal_model,
    quiet,
    shared,
)

optax = pytest.importorskip("optax")
jax = pytest.importorskip("jax")
jnp = jax.numpy

MAKERS = {
    "adam": lambda: optax.adam(0.1),
    "chain": lambda: optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(optax.cosine_decay_schedule(0.1, 10), weight_decay=0.1),
    ),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "by name": lambda: optax.multi_transform(
        {"fast": optax.sgd(0.1), "slow": optax.adam(0.01)}, {"a": "fast", "b": "slow"}
    ),
    "injected": lambda: optax.inject_hyperparams(optax.rmsprop)(learning_rate=0.1),
}
STARTS = {"b": np.array([[1.0, -2.0], [0.5, 3.0]]), "a": np.array([2.0, -0.3, 1.5])}


def slopes(params):
    """Gradients of a sum of quartics."""
    return {name: value**3 + value for name, value in params.items()}


def expected(transformation, starts, n=8):
    params = {name: jnp.asarray(value) for name, value in starts.items()}
    state, found = transformation.init(params), []
    for _ in range(n):
        changes, state = transformation.update(slopes(params), state, params)
        params = optax.apply_updates(params, changes)
        found.append({name: np.asarray(value) for name, value in params.items()})
    return found


@pytest.mark.parametrize("backend", ["jax", "python"])
@pytest.mark.parametrize("name", MAKERS)
def test_as_optax_itself(name, backend):
    transformation = MAKERS[name]()
    params = {key: shared(value, key) for key, value in STARTS.items()}
    updates = as_optimizer(transformation)(list(slopes(params).values()), list(params.values()))
    loss = sum((p**2).sum() for p in params.values())
    step = bare_step(updates, loss, "JAX" if backend == "jax" else PYTHON)
    assert step.driver.name == backend
    state = step.load()
    for want in expected(transformation, STARTS):
        state = step.driver.run(state, 1).state
        step.store(state)
        for key, param in params.items():
            np.testing.assert_allclose(param.get_value(), want[key], rtol=1e-14, atol=1e-14)


@pytest.mark.filterwarnings(JAX_COPIES)
class TestFits:
    def test_many_steps_in_one_call(self):
        optimizer = optax.adam(0.1)
        with normal_model():
            approx = pm.fit(
                300, obj_optimizer=optimizer, backend="jax", random_seed=1, progressbar=False
            )
        assert approx.report.driver == "jax"
        assert "GradientTransformation" in approx.report.settings["obj_optimizer"]
        assert approx.hist[-50:].mean() < approx.hist[:10].mean() - 1

    def test_numba_says_that_jax_is_faster(self):
        params = shared([1.0, 2.0])
        updates = as_optimizer(optax.sgd(0.1))([2 * params], [params])
        with pytest.warns(UserWarning, match="OptaxUpdate{backend='jax' is faster}"):
            step = bare_step(updates, (params**2).sum(), "NUMBA")
            losses = step.driver.run(step.load(), 3).losses
        np.testing.assert_allclose(losses, 5 * 0.64 ** np.arange(3))

    def test_one_object_is_compiled_once(self):
        optimizer, model = optax.adam(0.1), normal_model()
        with counted_compilations() as graphs, model:
            hists = [
                pm.fit(5, obj_optimizer=optimizer, random_seed=1, **quiet()).hist for _ in range(2)
            ]
        assert len(graphs) == 1
        np.testing.assert_array_equal(*hists)

    def test_refine_goes_on(self):
        optimizer = optax.adam(optax.exponential_decay(0.1, 5, 0.5))
        with normal_model():
            fits = [pm.ADVI(random_seed=1) for _ in range(2)]
            fits[0].fit(10, **quiet(obj_optimizer=optimizer))
            fits[1].fit(4, **quiet(obj_optimizer=optimizer))
            fits[1].refine(6, progressbar=False)
        np.testing.assert_array_equal(fits[0].hist, fits[1].hist)


def test_a_checkpoint_has_its_state(tmp_path):
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 30))
    more = {"progressbar": False, "obj_optimizer": optimizer, "compile_kwargs": {"mode": PYTHON}}

    def parts():
        loader = pm.DataLoader(np.arange(20.0), batch_size=4, seed=1)
        with pm.Model() as model:
            rows = pm.Data("rows", loader, dims="obs")
            pm.Normal("y", pm.Normal("mu", 0, 10), 1, observed=rows, dims="obs")
        return {"dataloader": loader, "model": model}

    first = pm.Trainer(**parts(), random_seed=1, **more)
    first.fit(6)
    first.save(tmp_path / "fit")
    again = pm.Trainer.load(tmp_path / "fit", **parts(), **more)
    for trainer in (first, again):
        trainer.fit(4)
    np.testing.assert_array_equal(first.approx.hist, again.approx.hist)


@pytest.mark.filterwarnings(JAX_COPIES)
class TestRows:
    start = np.random.default_rng(4).normal(size=(6, 2))

    @pytest.mark.parametrize("mode", ["JAX", PYTHON], ids=["jax", "python"])
    def test_each_row_alone(self, mode):
        """Adam counts the visits of a row."""
        rows = Rows(minibatch_index(6, 3, "with_replacement"))
        table, top = ParamTable.of((rows,), self.start, "z"), shared([0.5], "top")
        lines, params = table.gather()
        seen = pytensor.shared(np.zeros(3, dtype="int64"), "seen")
        optimizer = as_optimizer(optax.adam(0.1))
        gradients = [RowGradient(table, (lines, params), params**3 + params)]
        updates, updated = all_updates(optimizer, [top], [top**3 + top], gradients)
        loss, updates = guarded((params**2).sum() + (top**2).sum(), updates, updated)
        step = bare_step({**updates, seen: table.index}, loss, mode, guarded=True)
        state, alone = step.load(), {row: self.start[row] for row in range(6)}
        transformation = optax.adam(0.1)
        states = {row: transformation.init(jnp.asarray(alone[row])) for row in alone}
        for _ in range(12):
            state = step.driver.run(state, 1).state
            step.store(state)
            index = seen.get_value()
            for row in set(index.tolist()):
                slope = (alone[row] ** 3 + alone[row]) * (index == row).sum()
                change, states[row] = transformation.update(slope, states[row], alone[row])
                alone[row] = alone[row] + np.asarray(change)
            np.testing.assert_allclose(table.parameters(), np.array(list(alone.values())))
        np.testing.assert_allclose(
            top.get_value(), expected(transformation, {"a": [0.5]}, 12)[-1]["a"]
        )

    def test_after_a_norm_of_all(self):
        """One of our links bounds the norm of rows and of globals together."""
        rows = Rows(minibatch_index(6, 3, "without_replacement"))
        table, top = ParamTable.of((rows,), self.start, "z"), shared([0.5], "top")
        lines, params = table.gather()
        optimizer = chain(clip_by_global_norm(0.2), optax.sgd(1.0))
        gradients = [RowGradient(table, (lines, params), params)]
        updates, updated = all_updates(optimizer, [top], [top], gradients)
        loss, updates = guarded((params**2).sum(), updates, updated)
        step = bare_step(updates, loss, guarded=True)
        step.store(step.driver.run(step.load(), 1).state)
        moved = np.concatenate([np.ravel(table.parameters() - self.start), top.get_value() - 0.5])
        assert np.linalg.norm(moved) == pytest.approx(0.2)


def test_a_random_key():
    key = optax.GradientTransformation(
        lambda params: jax.random.key(0), lambda grads, state, params: (grads, state)
    )
    x = shared([1.0])
    with pytest.raises(TypeError, match="keeps an array of dtype key<fry>, which is no number"):
        as_optimizer(key)([x], [x])
