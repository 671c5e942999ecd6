# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A step is compiled once for a model, and shared by fits that keep their own variables."""

import gc
import threading
import weakref

from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.variational import schedules
from pymc.variational.engine.step_cache import make_step, one_at_a_time
from pymc.variational.optimizers import adamw, chain, clip
from tests.variational.engine import (
    JAX_COPIES,
    PYTHON,
    assert_same,
    counted_compilations,
    normal_model,
    params_of,
    quiet,
    shared,
)


def fit(model=None, n=20, seed=1, **kwargs):
    return pm.fit(n, model=model, random_seed=seed, **quiet(**kwargs))


class TestCompiledOnce:
    """What a second fit compiles, after one with plain settings."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        model = normal_model()
        fit(model, obj_optimizer=pm.adam(learning_rate=0.01))
        return model

    def compilations(self, model, **kwargs):
        with counted_compilations(cold=False) as graphs:
            fit(model, **{"obj_optimizer": pm.adam(learning_rate=0.01), **kwargs})
        return len(graphs)

    @pytest.mark.parametrize(
        "kwargs", [{}, {"seed": 2}, {"n": 0}, {"n": 31}, {"callbacks": [lambda *_: None]}]
    )
    def test_the_same(self, model, kwargs):
        assert self.compilations(model, **kwargs) == 0

    def test_another_start(self, model):
        assert self.compilations(model, start={"mu": np.array(3.0)}) == 0

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"obj_optimizer": pm.adam(learning_rate=0.01, beta1=0.8)},
            {"obj_optimizer": pm.adam(learning_rate=pt.constant(0.01))},
            {"obj_optimizer": pm.sgd(learning_rate=0.01)},
            {"compile_kwargs": {"mode": PYTHON.including("fusion")}},
            {"compile_kwargs": {"mode": PYTHON, "name": "step"}},
            {"score": False},
            {"obj_n_mc": 2},
            {"total_grad_norm_constraint": 1.0},
            {"method": "fullrank_advi"},
            {"average": 0.5},
        ],
        ids=lambda kwargs: next(iter(kwargs)),
    )
    def test_another_step(self, model, kwargs):
        assert self.compilations(model, **kwargs) == 1
        assert self.compilations(model, **kwargs) == 0

    def test_refine(self, model):
        advi = pm.ADVI(model=model, random_seed=1)
        advi.fit(5, **quiet(obj_optimizer=pm.adam(learning_rate=0.01)))
        with counted_compilations(cold=False) as graphs:
            advi.refine(5, progressbar=False)
        assert not graphs

    def test_another_model(self):
        """One of the same form has the same step, as long as the first lives."""
        with counted_compilations() as graphs:
            first, second = normal_model(6), normal_model(9)
            fit(first)
            fit(second)
            assert len(graphs) == 1
            del first
            gc.collect()
            fit(normal_model(7))  # the second has kept it
        assert len(graphs) == 1


def observed(data, total_size=None, guide=False):
    """Rows of which each has its own latent variable if they have a dim, or all the same."""
    mu = pm.Normal("mu", 0, 10)
    if guide:
        mu = pm.Normal("z", mu, 1, dims="obs")
    pm.Normal("y", mu, 1, observed=data, total_size=total_size, dims="obs" if guide else None)


def rows(n):
    return np.random.default_rng(n).normal(2.0, 1.0, size=n)


def full(n):
    with pm.Model() as model:
        observed(pm.Data("x", rows(n)))
    return model


def minibatch_of_data(n):
    with pm.Model() as model:
        observed(pm.Minibatch(pm.Data("x", rows(n), dims="obs"), batch_size=3))
    return model


def minibatch_of_an_array(n):
    with pm.Model() as model:
        observed(pm.Minibatch(rows(n), batch_size=3))
    return model


def a_number_as_total_size(n):
    with pm.Model() as model:
        observed(pm.Data("x", rows(4)), total_size=n)
    return model


def a_table(n):
    with pm.Model() as model:
        observed(pm.Minibatch(pm.Data("x", rows(n), dims="obs"), batch_size=3), guide=True)
    return model


#: Of streamed models
LOADERS: WeakKeyDictionary = WeakKeyDictionary()


def a_stream(n, guide=False):
    with pm.Model() as model:
        LOADERS[model] = pm.DataLoader(rows(n), batch_size=4, seed=1)
        observed(pm.Data("x", LOADERS[model], dims="obs"), guide=guide)
    return model


def a_table_of_a_stream(n):
    return a_stream(n, guide=True)


def fitted(model, **kwargs):
    """Return the losses of a fit, of batches of the model's own loader where it is streamed."""
    loader = LOADERS.get(model)
    return fit(model, n=8, **kwargs, **({} if loader is None else {"data": loader})).hist


FORMS = [
    full,
    minibatch_of_data,
    minibatch_of_an_array,
    a_number_as_total_size,
    a_table,
    a_stream,
    a_table_of_a_stream,
]


def by_hand(rate):
    """A user's own function, with a number in it."""
    return lambda grads, params: {p: p - rate * g for p, g in zip(params, grads)}


def slowing(rate):
    """A user's own schedule, with a number in it."""
    return pm.adam(learning_rate=lambda step: rate / (1.0 + step))


class TestNumbersAreInputs:
    """Two fits that differ in numbers share a step, and each has the losses that it has alone."""

    def assert_shared(self, fits):
        alone = []
        for each in fits:
            with counted_compilations() as graphs:
                alone.append(each())
            assert len(graphs) == 1
        assert not np.array_equal(*alone)
        with counted_compilations() as graphs:
            together = [each() for each in fits]
        assert len(graphs) == 1
        for got, expected in zip(together, alone, strict=True):
            np.testing.assert_array_equal(got, expected)

    @pytest.mark.parametrize("form", FORMS)
    def test_number_of_rows(self, form):
        models = [form(n) for n in (7, 13)]
        self.assert_shared([partial(fitted, model) for model in models])

    @pytest.mark.parametrize("guide", ["mean_field", None])
    @pytest.mark.parametrize(
        "optimizers",
        [
            [pm.adam(learning_rate=0.1), pm.adam(learning_rate=0.5)],
            [pm.adagrad_window, pm.adagrad_window(learning_rate=0.1)],
            [by_hand(0.001), by_hand(0.002)],
            [slowing(0.1), slowing(0.3)],
            [adamw(0.1, weight_decay=0.5), adamw(1.0, weight_decay=0.25)],
            [
                chain(clip(1.0), pm.sgd(learning_rate=0.1)),
                chain(clip(0.1), pm.sgd(learning_rate=1)),
            ],
            *(
                [pm.adam(learning_rate=schedule(a)), pm.adam(learning_rate=schedule(b))]
                for schedule, a, b in [
                    (lambda n: schedules.cosine_decay(0.1, n), 5, 70_000),
                    (lambda n: schedules.exponential_decay(0.1, n, 0.5), 1, 300),
                    (lambda n: schedules.linear_warmup(schedules.cosine_decay(0.1, 9), n), 2, 200),
                    (lambda n: schedules.piecewise_constant([0.1, 1 / n], [n]), 2, 5),
                ]
            ),
        ],
    )
    def test_optimizer(self, optimizers, guide):
        model = minibatch_of_data(7)
        self.assert_shared(
            [partial(fitted, model, obj_optimizer=each, guide=guide) for each in optimizers]
        )

    def test_bound_of_the_gradient(self):
        model = full(5)
        self.assert_shared(
            [
                partial(fitted, model, total_grad_norm_constraint=bound, guide="mean_field")
                for bound in (0.1, 1.0)
            ]
        )

    def test_a_schedule_of_rows(self):
        """All parameters share its numbers and the step that it counts."""
        model = a_table(7)
        with counted_compilations() as graphs:
            fitted(model, obj_optimizer=pm.adam(learning_rate=schedules.cosine_decay(0.1, 50)))
        names = [var.name for var in graphs[0].shared]
        numbers = ("step", "initial_learning_rate", "decay_steps", "final_fraction")
        assert [names.count(name) for name in numbers] == [1, 1, 1, 1]


@pytest.mark.filterwarnings(JAX_COPIES)
class TestNumbersOnJax:
    def compilations(self, form):
        with counted_compilations() as graphs:
            models = [form(n) for n in (7, 13)]
            hists = [
                pm.fit(4, model=m, random_seed=1, backend="jax", progressbar=False).hist
                for m in models
            ]
            assert len(hists[0]) == 4
        return len(graphs)

    def test_a_number_of_rows(self):
        assert self.compilations(a_number_as_total_size) == 1

    def test_raw_data_are_constants(self):
        assert self.compilations(minibatch_of_an_array) == 2


class TestSettings:
    def compilations(self, **flags):
        """Whether a second step is compiled, of the same graph and with other settings."""
        model, x = pm.Model(), shared(1.0)
        with counted_compilations() as graphs:
            for _ in range(2):
                make_step({x: 0.5 * x}, x, model=model, random_seed=1, mode=PYTHON)
            assert len(graphs) == 1
            with pytensor.config.change_flags(**flags):
                make_step({x: 0.5 * x}, x, model=model, random_seed=1, mode=PYTHON)
        return len(graphs) - 1

    def test_float_type(self):
        assert self.compilations(floatX="float64") == 0
        assert self.compilations(floatX="float32") == 1

    @pytest.mark.parametrize("backend", ["NUMBA", "JAX"])
    def test_mode(self, backend):
        model, x = pm.Model(), shared(1.0)
        with counted_compilations() as graphs:
            drivers = [
                make_step({x: 0.5 * x}, x, model=model, random_seed=1, mode=mode).driver.name
                for mode in (PYTHON, backend, PYTHON, backend)
            ]
        assert drivers == ["python", backend.lower()] * 2
        assert len(graphs) == 2

    def test_check_bounds(self):
        """The check is an Op in the graph, which compilation takes out where the model says so."""
        model = pm.Model()
        x = shared(-1.0)
        updates = {x: 0.5 * x}
        loss = pm.logp(pm.Exponential.dist(1), pm.math.abs(x) + 1) + x
        ops = []
        with counted_compilations() as graphs:
            for check in (True, False, True):
                model.check_bounds = check
                step = make_step(updates, loss, model=model, random_seed=1, mode=PYTHON)
                ops.append(str(step.driver._step.function.maker.fgraph))
        assert len(graphs) == 2
        assert ops[0] == ops[2]


class TestOwnValues:
    def test_a_fit_leaves_other_approximations(self):
        model = normal_model()
        approx = fit(model, seed=1)
        before = params_of(approx)
        other = fit(model, seed=2)
        assert_same(params_of(approx), before)
        assert not any(np.array_equal(x, y) for x, y in zip(before, params_of(other)))

    def test_and_after_refine(self):
        model = normal_model()
        first, second = (pm.ADVI(model=model, random_seed=seed) for seed in (1, 2))
        for advi in (first, second):
            advi.fit(10, **quiet())
        other = params_of(second.approx)
        first.refine(10, progressbar=False)
        assert_same(params_of(second.approx), other)
        # As if the second had never been
        alone = pm.ADVI(model=normal_model(), random_seed=1)
        alone.fit(20, **quiet())
        assert_same(params_of(first.approx), params_of(alone.approx))
        np.testing.assert_array_equal(first.hist, alone.hist)

    @pytest.mark.parametrize("optimizer", [pm.adam, pm.adagrad_window, pm.momentum])
    def test_an_optimizer_starts_anew(self, optimizer):
        model = normal_model()
        optimizer = optimizer(learning_rate=0.01)
        with counted_compilations() as graphs:
            fits = [fit(model, obj_optimizer=optimizer) for _ in range(2)]
        assert len(graphs) == 1
        assert_same(fits[0].hist, fits[1].hist)
        assert_same(params_of(fits[0]), params_of(fits[1]))

    def test_a_schedule_starts_anew(self):
        model = normal_model()
        falling = pm.sgd(learning_rate=lambda step: 0.01 / (1 + step))
        fits = [fit(model, obj_optimizer=falling).hist for _ in range(2)]
        assert_same(*fits)
        constant = fit(model, obj_optimizer=pm.sgd(learning_rate=0.01)).hist
        assert fits[0][1] == constant[1]  # the first step has the rate of step 0
        assert fits[0][2] != constant[2]

    def test_a_schedule_goes_on_in_refine(self):
        falling = pm.sgd(learning_rate=lambda step: 0.01 / (1 + step))
        advi = pm.ADVI(model=normal_model(), random_seed=1)
        advi.fit(10, **quiet(obj_optimizer=falling))
        advi.refine(10, progressbar=False)
        whole = fit(normal_model(), obj_optimizer=falling)
        np.testing.assert_array_equal(advi.hist, whole.hist)

    def test_another_fit_of_the_same_inference_restarts_the_optimizer_only(self):
        advi = pm.ADVI(model=normal_model(), random_seed=1)
        adam = pm.adam(learning_rate=0.1)
        advi.fit(10, **quiet(obj_optimizer=adam))
        after = params_of(advi.approx)
        with counted_compilations(cold=False) as graphs:
            advi.fit(1, **quiet(obj_optimizer=adam))
        assert not graphs
        # The first step of Adam has the length of the rate
        for x, y in zip(params_of(advi.approx), after):
            np.testing.assert_allclose(abs(x - y), 0.1, rtol=1e-4)
        assert len(advi.hist) == 11

    def test_settings_of_the_data_are_seen(self):
        model = normal_model(6)
        fit(model)
        new = np.random.default_rng(2).normal(-4, 1, size=9)
        with model:
            pm.set_data({"x": new}, coords={"obs": range(9)})
        with counted_compilations(cold=False) as graphs:
            losses = fit(model).hist
        assert not graphs
        fresh = normal_model(9)
        with fresh:
            pm.set_data({"x": new})
        np.testing.assert_allclose(losses, fit(fresh).hist, rtol=1e-12)


class TestWhatIsKept:
    def test_dies_with_the_model(self):
        model, x = pm.Model(), shared(1.0)
        step = make_step({x: 0.5 * x}, None, model=model, random_seed=1, mode=PYTHON)
        driver = weakref.ref(step.driver)
        del step
        gc.collect()
        assert driver() is not None
        del model
        gc.collect()
        assert driver() is None

    def test_of_raw_data_too(self):
        rows = np.arange(10.0)
        with pm.Model() as model:
            mu = pm.Normal("mu")
            pm.Normal("y", mu, observed=pm.Minibatch(rows, batch_size=2))
        fit(model)
        kept = weakref.ref(model)
        del model, mu
        gc.collect()
        assert kept() is None

    def test_values_do_not_outlive_the_fit(self):
        model = pm.Model()
        x = shared(np.zeros(1000))
        step = make_step({x: 0.5 * x}, None, model=model, random_seed=1, mode=PYTHON)
        step.store(step.driver.run(step.load(), 3)[0])
        value = weakref.ref(x.get_value(borrow=True))
        del step, x
        gc.collect()
        assert value() is None


def test_noise_moves_on_without_a_loss():
    """Whatever the optimizer, and whether or not anybody asks for losses."""
    x = shared(np.zeros(2))
    noise = pt.random.normal(size=2, rng=pytensor.shared(np.random.default_rng(1)))
    step = make_step({x: x + noise}, None, model=pm.Model(), random_seed=1, mode=PYTHON)
    state, seen = step.load(), [np.zeros(2)]
    for _ in range(4):
        state, _ = step.driver.run(state, 1)
        step.store(state)
        seen.append(x.get_value())
    increments = np.diff(seen, axis=0)
    assert len(np.unique(increments)) == increments.size


def minibatch_model(n_rows=30):
    rows = np.random.default_rng(1).normal(size=n_rows)
    with pm.Model(coords={"obs": range(n_rows)}) as model:
        x = pm.Minibatch(pm.Data("x", rows, dims="obs"), batch_size=3)
        mu = pm.Normal("mu")
        pm.Normal("y", mu, 1, observed=x, dims="obs")
    return model


class TestFitsOfOneModelAtOnce:
    """As they are in threads: each has the rows that it has alone."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return minibatch_model()

    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, model):
        return {seed: fit(model, seed=seed).hist for seed in (1, 2)}

    def test_one_is_made_while_the_other_waits(self, model, alone):
        fits = {seed: pm.ADVI(model=model, random_seed=seed) for seed in alone}
        for each in fits.values():
            each.prepare(compile_kwargs={"mode": PYTHON})
        for n in (5, 15):
            for each in fits.values():
                each.refine(n, progressbar=False)
        assert_same([each.hist for each in fits.values()], list(alone.values()))

    def test_one_within_the_other(self, model, alone):
        """Whose steps were taken on after it, from a state of their own."""
        inner = []

        def callback(approx, losses, i):
            if i == 10:
                inner.append(fit(model, seed=2).hist)

        outer = fit(model, callbacks=[callback]).hist
        assert_same([outer, *inner], list(alone.values()))

    def test_in_threads(self, alone):
        """A step that both have is compiled once, by one while the other waits."""
        model, hists = minibatch_model(), {}

        def go(seed):
            hists[seed] = fit(model, seed=seed).hist

        threads = [threading.Thread(target=go, args=(seed,)) for seed in alone]
        with counted_compilations() as graphs:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(graphs) == 1
        assert_same([hists[seed] for seed in alone], list(alone.values()))

    def test_nobody_waits_for_the_steps_of_another(self):
        with pytest.raises(ZeroDivisionError, match="mine"):
            one_at_a_time(fail)()
        thread = threading.Thread(target=one_at_a_time(int))
        thread.start()
        thread.join(timeout=10)
        assert not thread.is_alive()


def fail():
    raise ZeroDivisionError("mine")
