# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Every optimizer takes a schedule; with a number it builds the graph of the release."""

import inspect
import pickle

from functools import partial

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.graph.basic import equal_computations

import pymc as pm

from pymc.variational import updates
from pymc.variational.schedules import cosine_decay, exponential_decay, linear_warmup

PYTHON = Mode(linker="py", optimizer=None)
N_STEPS = 6
GRADIENT = np.array([1.0, -2.0])
SCHEDULE = linear_warmup(exponential_decay(0.1, 2, 0.5), 3)
RATES = SCHEDULE(np.arange(N_STEPS))
NAMES = (
    "sgd",
    "momentum",
    "nesterov_momentum",
    "adagrad",
    "adagrad_window",
    "rmsprop",
    "adadelta",
    "adam",
    "adamax",
)


def make_param():
    return pytensor.shared(np.zeros(2, dtype=pytensor.config.floatX), name="param")


def take_steps(optimizer, n=N_STEPS, mode=PYTHON, rates=None):
    """Return the parameter after each step on a fixed gradient, where `rates` are set one by one."""
    param = make_param()
    steps = optimizer([pt.constant(GRADIENT)], [param])
    step = pytensor.function([], [], updates=steps, mode=mode)
    path = []
    for i in range(n):
        if rates is not None:
            rates[0].set_value(rates[1][i])
        step()
        path.append(np.array(param.get_value()))
    return np.array(path)


@pytest.mark.parametrize("name", NAMES)
class TestEveryOptimizer:
    def test_schedule_is_the_rate_of_each_step(self, name):
        """As when the rate is a shared variable that is set by hand."""
        optimizer = getattr(pm, name)
        rate = pytensor.shared(0.0)
        by_hand = take_steps(
            lambda grads, params: optimizer(grads, params, rate), rates=(rate, RATES)
        )
        assert np.abs(np.diff(by_hand, axis=0)).min() > 0
        for spelling in [
            optimizer(learning_rate=SCHEDULE),
            optimizer(None, None, SCHEDULE),
            lambda grads, params: optimizer(grads, params, SCHEDULE),
            lambda grads, params: optimizer(
                params=params, loss_or_grads=grads, learning_rate=SCHEDULE
            ),
        ]:
            np.testing.assert_array_equal(take_steps(spelling), by_hand)

    def test_number_is_passed_through(self, name):
        ours, plain = getattr(pm, name), inspect.unwrap(getattr(updates, name))
        for rate in [0.3, np.float32(0.5), pytensor.shared(0.2)]:
            param = make_param()
            grads = [param**2]
            mine, its = ours(grads, [param], rate), plain(grads, [param], rate)
            assert len(mine) == len(its)
            # the state of each is its own, and corresponds by its place
            assert equal_computations(
                list(mine.values()), list(its.values()), list(mine), list(its)
            )

    def test_partial(self, name):
        optimizer = getattr(pm, name)
        given = optimizer(learning_rate=SCHEDULE)
        assert isinstance(given, partial)
        assert given.func is optimizer
        assert given.keywords["learning_rate"] is SCHEDULE
        unpickled = pickle.loads(pickle.dumps(given))
        assert (unpickled.func, unpickled.keywords) == (given.func, given.keywords)

    @pytest.mark.parametrize("rate", [0.1, SCHEDULE])
    def test_float32(self, name, rate):
        with pytensor.config.change_flags(floatX="float32"):
            param = make_param()
            steps = getattr(pm, name)(param.sum(), [param], learning_rate=rate)
        assert {old.dtype for old in steps} <= {"float32", "int64"}
        assert [new.dtype for new in steps.values()] == [old.dtype for old in steps]

    def test_release_documents_it(self, name):
        ours, plain = getattr(pm, name), inspect.unwrap(getattr(updates, name))
        assert inspect.signature(ours) == inspect.signature(plain)
        assert (ours.__name__, ours.__module__) == (name, "pymc.variational.updates")
        assert getattr(pm.variational, name) is getattr(updates, name) is ours
        doc = inspect.getdoc(ours)
        assert "learning_rate : float, symbolic scalar or schedule\n    The size of" in doc
        assert "in `refine`.\n" in doc
        before, after = inspect.getdoc(plain).split("learning_rate: float")[0], "Returns\n-------"
        assert doc.startswith(before.split("learning_rate : float")[0])
        assert doc.split(after)[1] == inspect.getdoc(plain).split(after)[1]

    def test_half_a_call(self, name):
        with pytest.raises(ValueError, match="provide both `loss_or_grads` and `params`"):
            getattr(pm, name)(params=[make_param()], learning_rate=SCHEDULE)


def test_sgd_goes_the_sum_of_the_rates():
    path = take_steps(pm.sgd(learning_rate=SCHEDULE))
    np.testing.assert_allclose(path, -np.outer(np.cumsum(RATES), GRADIENT), rtol=1e-12)


@pytest.mark.parametrize("mode", ["NUMBA", "JAX"])
def test_backends(mode):
    schedule = linear_warmup(cosine_decay(0.1, 3, 0.1), 2)
    path = take_steps(pm.sgd(learning_rate=schedule), mode=mode)
    np.testing.assert_allclose(
        path, -np.outer(np.cumsum(schedule(np.arange(N_STEPS))), GRADIENT), rtol=1e-12
    )


def test_each_call_begins_at_step_0():
    optimizer = pm.sgd(learning_rate=SCHEDULE)
    first = take_steps(optimizer)
    np.testing.assert_array_equal(take_steps(optimizer), first)


def test_step_is_an_integer_beyond_float32():
    param = make_param()
    seen = []

    def schedule(step):
        seen.append(step)
        return 1.0 * (step > 2**40)

    steps = pm.sgd([pt.constant(GRADIENT)], [param], schedule)
    [step] = seen
    assert (step.type, step in steps) == (pt.scalar(dtype="int64").type, True)
    step.set_value(np.array(2**40))
    take = pytensor.function([], [], updates=steps, mode=PYTHON)
    take()
    np.testing.assert_array_equal(param.get_value(), [0, 0])
    take()
    np.testing.assert_array_equal(param.get_value(), -GRADIENT)
    assert step.get_value() == 2**40 + 2


def test_loss_of_several_parameters_has_one_step():
    params = [make_param(), make_param()]
    steps = pm.sgd(params[0].sum() + 2 * params[1].sum(), params, SCHEDULE)
    assert len(steps) == 3


def test_refine_goes_on_where_fit_stopped():
    seen = []

    def schedule(step):
        seen.append(step)
        return 0.01 / (1 + step)

    with pm.Model():
        pm.Normal("mu")
        inference = pm.ADVI()
    with pytensor.config.change_flags(mode="FAST_COMPILE", linker="py"):
        inference.fit(3, obj_optimizer=pm.adam(learning_rate=schedule), progressbar=False)
        inference.refine(2, progressbar=False)
        [step] = seen
        assert step.get_value() == 5
        inference.fit(1, obj_optimizer=pm.adam(learning_rate=schedule), progressbar=False)
    assert seen[-1].get_value() == 1


def test_clipped_gradients():
    """`total_grad_norm_constraint` comes before the schedule: at its bound every step is a rate long."""
    rates = []
    with pm.Model():
        pm.Normal("mu", 1000, 0.001)
        inference = pm.ADVI()

    def track(approx, losses, i):
        rates.append(np.concatenate([p.get_value() for p in approx.params]))

    with pytensor.config.change_flags(mode="FAST_COMPILE", linker="py"):
        inference.fit(
            N_STEPS,
            obj_optimizer=pm.sgd(learning_rate=SCHEDULE),
            total_grad_norm_constraint=0.1,
            callbacks=[track],
            progressbar=False,
        )
    lengths = np.linalg.norm(np.diff(rates, axis=0), axis=1)
    np.testing.assert_allclose(lengths, 0.1 * RATES[1:], rtol=1e-6)


@pytest.mark.parametrize(
    ("rate", "error", "message"),
    [
        (True, TypeError, "is a number, such as 0.1; got True"),
        (None, TypeError, "is a number, such as 0.1; got None"),
        ("x", TypeError, "is a number, such as 0.1; got 'x'"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_no_rate(name, rate, error, message):
    with pytest.raises(error, match=f"^learning_rate of {name} {message}"):
        getattr(pm, name)(learning_rate=rate)


@pytest.mark.parametrize("rate", [1, np.float32(0.5), np.array(0.5), pt.constant(0.5)])
def test_numbers_of_other_types_are_rates(rate):
    assert np.isfinite(take_steps(pm.adam(learning_rate=rate), n=1)).all()
