# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Bounds of held-out rows in closed form, and early stopping by them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.variational.approximation import guided_approximation
from pymc.variational.held_out import EarlyStopping, HeldOutBound

RNG = np.random.default_rng(1)
Y, HELD_OUT = RNG.normal(1, 1, size=40), RNG.normal(1, 1, size=12)


@pytest.fixture(autouse=True)
def python_mode():
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


def mean_model():
    with pm.Model() as model:
        y = pm.Minibatch(pm.Data("y_data", Y, dims="obs"), batch_size=8)
        pm.Normal("y", pm.Normal("mu", 0, 10), 1, observed=y, dims="obs")
    return model


def approximation(mean=0.5, sd=0.25):
    return guided_approximation(mean_model(), start={"mu": mean}, start_sigma={"mu": sd})


def test_the_bound_of_a_normal():
    """The mean of log N(y; mu, 1) over mu ~ N(m, s^2) is log N(y; m, 1) - s^2 / 2."""
    bound = HeldOutBound({"y_data": HELD_OUT}, n_particles=4000, random_seed=1)
    found = bound(approximation())
    exact = np.mean(-0.5 * np.log(2 * np.pi) - (HELD_OUT - 0.5) ** 2 / 2) - 0.25**2 / 2
    assert abs(found - exact) < 5 * bound.se  # a false alarm in 2 million seeds
    # d mu has an sd of 0.25 and a slope of the mean residual, but for the square of d mu
    residual = abs(HELD_OUT.mean() - 0.5)
    assert bound.se == pytest.approx(
        np.hypot(0.25 * residual, 0.25**2 / 2**0.5) / 4000**0.5, rel=0.1
    )


def test_it_follows_the_parameters():
    approx, bound = approximation(mean=3.0), HeldOutBound({"y_data": HELD_OUT}, random_seed=1)
    before = bound(approx)
    [mu, _] = approx.params
    mu.set_value(mu.get_value() + HELD_OUT.mean() - 3.0)
    assert bound(approx) > before + 1


def test_a_step_is_computed_once(monkeypatch):
    approx, bound = approximation(), HeldOutBound({"y_data": HELD_OUT}, random_seed=1)
    assert bound(approx, None, 5) == bound(approx, None, 5)
    assert bound(approx, None, 6) != bound(approx, None, 7)
    other = approximation(mean=3.0)
    assert bound(other, None, 7) < bound(approx, None, 8) - 1


def test_rows_of_a_loader():
    arrays = HeldOutBound({"y_data": HELD_OUT}, random_seed=1)
    loader = pm.DataLoader({"y_data": HELD_OUT}, batch_size=5, shuffle=True, seed=1)
    assert HeldOutBound(loader, random_seed=1)(approximation()) == arrays(approximation())
    single = HeldOutBound(pm.DataLoader(HELD_OUT, batch_size=5), data_name="y_data", random_seed=1)
    np.testing.assert_array_equal(single.validation["y_data"], HELD_OUT)


def test_rows_of_a_stream():
    with pm.Model() as model:
        y = pm.Data("y_data", pm.DataLoader(Y, batch_size=8), dims="obs")
        pm.Normal("y", pm.Normal("mu", 0, 10), 1, observed=y, dims="obs")
    approx = guided_approximation(model, start={"mu": 0.5}, start_sigma={"mu": 0.25})
    in_memory = HeldOutBound({"y_data": HELD_OUT}, n_particles=500, random_seed=1)(approximation())
    bound = HeldOutBound({"y_data": HELD_OUT}, n_particles=500, random_seed=2)
    assert abs(bound(approx) - in_memory) < 5 * 2**0.5 * bound.se


def encoded_model():
    with pm.Model(coords={"obs": range(len(Y))}) as model:
        y = pm.Minibatch(pm.Data("y_data", Y, dims="obs"), batch_size=8)
        pm.Normal("z", 0, 1, dims="obs")
        pm.Normal("y", model["z"], 1, observed=y, dims="obs")
    return model, y


def test_rows_with_an_encoder():
    """The guide that is the posterior: each row has its evidence, log N(y; 0, 2), for any draw."""
    model, y = encoded_model()
    guide = pm.Amortized({"z": lambda y: pm.Normal.dist(y / 2, 0.5**0.5)}, inputs=[y], dim="obs")
    approx = guided_approximation(model, guide)
    found = HeldOutBound({"y_data": HELD_OUT}, random_seed=1)(approx)
    assert found == pytest.approx(np.mean(-0.5 * np.log(4 * np.pi) - HELD_OUT**2 / 4))


def test_rows_with_parameters_of_their_own():
    approx = guided_approximation(encoded_model()[0])
    with pytest.raises((ValueError, KeyError, IndexError), match="row"):
        HeldOutBound({"y_data": HELD_OUT})(approx)


def test_a_model_without_rows():
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu"), 1, observed=pm.Data("y_data", Y))
    with pytest.raises(ValueError, match=r"HeldOutBound.*rows"):
        HeldOutBound({"y_data": HELD_OUT})(guided_approximation(model))


def test_arguments():
    with pytest.raises(
        TypeError, match=r"validation=3 of HeldOutBound has to be the held-out rows"
    ):
        EarlyStopping(3)
    with pytest.raises(ValueError, match=r"n_particles=1 of HeldOutBound"):
        HeldOutBound({"y": Y}, n_particles=1)
    with pytest.raises(ValueError, match="patience=0 of EarlyStopping"):
        EarlyStopping({"y": Y}, patience=0)
    with pytest.raises(ValueError, match=r"min_delta=-1.0 of EarlyStopping"):
        EarlyStopping({"y": Y}, min_delta=-1.0)


class Scripted(HeldOutBound):
    """Bounds that were written down."""

    def __init__(self, values):
        super().__init__({"y": np.zeros(2)})
        self.values = list(values)
        self.se = 0.5

    def __call__(self, approx, losses=None, i=0):
        return self.values.pop(0)


class Param(SimpleNamespace):
    def get_value(self):
        return self.value

    def set_value(self, value):
        self.value = value


def run(stop, n):
    approx = SimpleNamespace(params=[Param(value=0)])
    for i in range(1, n + 1):
        approx.params[0].value = i
        try:
            stop(approx, None, i)
        except StopIteration as end:
            return i, approx.params[0].value, str(end)
    return n, approx.params[0].value, ""


def test_it_stops_after_its_patience():
    stop = EarlyStopping(Scripted([1, 3, 2, 2.5, 4]), patience=2)
    assert run(stop, 5) == (
        4,
        2,
        "The held-out bound has not risen since step 2, where it was 3 nats a row",
    )
    assert (stop.best_step, stop.steps, stop.bounds) == (2, [1, 2, 3, 4], [1, 3, 2, 2.5])
    assert stop.errors == [0.5] * 4


def test_patience_counts_anew_after_a_rise():
    assert run(EarlyStopping(Scripted([1, 0, 2, 1, 3, 0, 0]), patience=2), 7)[:2] == (7, 5)


def test_small_rises_do_not_count():
    rising = [0, 0.1, 0.2, 0.3]
    assert run(EarlyStopping(Scripted(rising), patience=2, min_delta=1.0), 4)[:2] == (3, 1)
    assert run(EarlyStopping(Scripted(rising), patience=2), 4)[:2] == (4, 4)


def test_the_last_parameters_may_stay():
    assert run(EarlyStopping(Scripted([1, 0]), patience=1, restore_best=False), 2)[:2] == (2, 2)


def test_another_fit():
    stop = EarlyStopping(Scripted([9, 8, 1, 2]), patience=2)
    run(stop, 2)
    assert run(stop, 2)[0] == 2
    assert stop.bounds == [1, 2]


def test_a_fit_keeps_the_best_parameters():
    """A rate that is far too large moves on from the start, which is best."""
    stop = EarlyStopping({"y_data": HELD_OUT}, every=5, patience=3, random_seed=1)
    seen = {}

    def watch(approx, losses, i):
        seen[i] = [param.get_value() for param in approx.params]

    watch.every = 5
    approx = pm.fit(
        500,
        model=mean_model(),
        start={"mu": HELD_OUT.mean()},
        obj_optimizer=pm.sgd(learning_rate=-0.02),
        callbacks=[watch, stop],
        random_seed=1,
        progressbar=False,
    )
    assert approx.report.stopped.startswith("The held-out bound has not risen since step")
    assert approx.report.n_steps == stop.best_step + 15
    for param, value in zip(approx.params, seen[stop.best_step]):
        np.testing.assert_array_equal(param.get_value(), value)
