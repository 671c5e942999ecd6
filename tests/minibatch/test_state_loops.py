# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Loops that carry a state within each row: rows are followed through them, or vouched for."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.minibatch.axis_tracking import OTHER, Rows, Untracked, track_axes
from pymc.minibatch.index import minibatch_index
from tests.minibatch.enumeration import full_logp_and_gradient, mean_over_batches, some_point

N, B, T = 4, 2, 3
COORDS = {"row": range(N), "time": range(T)}
VALUES = np.random.default_rng(0).normal(size=(N, T))
CHOICES = np.random.default_rng(1).integers(0, 2, size=(N, T))
REWARDS = (VALUES > 0).astype(float)


@pytest.fixture(autouse=True)
def cheap_loops():
    """Loops compile their steps by the default mode, which would be Numba's."""
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


def scan(step, sequences, start, *others):
    return pytensor.scan(
        step,
        sequences=[seq.T for seq in sequences],
        outputs_info=start,
        non_sequences=others,
        return_updates=False,
    )


def hidden_markov(y):
    """The forward algorithm; its state is a row's log-probability of each hidden state."""
    mu = pm.Normal("mu", [-1, 1], 1, shape=2)
    log_p = pt.log(pt.special.softmax(pm.Normal("p", shape=(2, 2)), axis=1))

    def step(y, alpha, mu, log_p):
        return pt.logsumexp(alpha[:, :, None] + log_p, axis=1) - 0.5 * (y[:, None] - mu) ** 2

    alphas = scan(step, [y], [pt.full((y.shape[0], 2), np.log(0.5))], mu, log_p)
    return pt.logsumexp(alphas[-1], axis=1)


def q_learning(choice, reward):
    """Rescorla-Wagner, with a state for each option."""
    rate, slope = pm.Normal("rate"), pm.Normal("slope")

    def step(choice, reward, q0, q1, rate, slope):
        logp = slope * pt.switch(choice, q1, q0) - pt.logaddexp(slope * q0, slope * q1)
        return (
            pt.switch(choice, q0, q0 + rate * (reward - q0)),
            pt.switch(choice, q1 + rate * (reward - q1), q1),
            logp,
        )

    nothing = pt.zeros_like(reward[:, 0])
    *_, logp = scan(step, [choice, reward], [nothing, nothing, None], rate, slope)
    return logp.sum(axis=0)


def q_learning_by_places(choice, reward):
    """The same with one state of all options, whose rows are picked by their places."""
    rate, slope = pm.Normal("rate"), pm.Normal("slope")

    def step(choice, reward, q, rate):
        rows = pt.arange(choice.shape[0])
        old = q[rows, choice]
        return pt.set_subtensor(q[rows, choice], old + rate * (reward - old))

    start = pt.zeros((choice.shape[0], 2))
    q = scan(step, [choice, reward], [start], rate)
    q = slope * pt.concatenate([start[None], q[:-1]])
    chosen = pt.take_along_axis(q, choice.T[:, :, None], axis=2)[:, :, 0]
    return (chosen - pt.logsumexp(q, axis=-1)).sum(axis=0)


FORMS = {
    "hidden Markov": (hidden_markov, {"y": VALUES}),
    "Rescorla-Wagner": (q_learning, {"choice": CHOICES, "reward": REWARDS}),
    "by places": (q_learning_by_places, {"choice": CHOICES, "reward": REWARDS}),
}
FOLLOWED = ["hidden Markov", "Rescorla-Wagner"]


def built(form, batch=False, **how):
    likelihood, arrays = FORMS[form]
    with pm.Model(coords=COORDS) as model:
        data = [pm.Data(name, array, dims=("row", "time")) for name, array in arrays.items()]
        if batch:
            data = pm.Minibatch(*data, batch_size=B, sampling="without_replacement")
            data = data if isinstance(data, list | tuple) else [data]
        pm.Potential("ll", likelihood(*data), **how)
    return model


def derived(model):
    return pm.minibatch_model(model, B, sampling="without_replacement")


def assert_exact(form, *models):
    full = built(form)
    point = some_point(full)
    expected = full_logp_and_gradient(full, point)
    for model in models:
        np.testing.assert_allclose(mean_over_batches(model, point), expected)


@pytest.mark.parametrize("form", FOLLOWED)
def test_rows_are_followed(form):
    assert_exact(form, built(form, batch=True, dims="row"), derived(built(form, dims="row")))


@pytest.mark.parametrize("form", ["by places"])
def test_rows_that_are_vouched_for(form):
    with pytest.raises(ValueError, match=r"say so by dims= and by total_size=<rows in all>"):
        built(form, batch=True, dims="row")
    vouched = {"dims": "row", "total_size": N}
    assert_exact(form, built(form, batch=True, **vouched), derived(built(form, **vouched)))


def test_what_is_vouched_for_stays():
    model = built("by places", batch=True, dims="row", total_size=N)
    full = pm.remove_minibatch(model)
    assert_exact("by places", model.copy(), derived(full), pm.remove_minibatch(derived(full)))


def test_total_of_the_full_model_alone():
    """Without dims, `total_size` says which axis is of rows."""
    model = built("hidden Markov", total_size=N)
    batched = pm.minibatch_model(model, {"row": B}, sampling="without_replacement")
    assert_exact("hidden Markov", batched)


def test_total_of_batches_fed_by_hand_stays():
    with pm.Model() as model:
        y = pm.Data("y", np.arange(4.0), dims="row")
        pm.Potential("ll", -((y - pm.Normal("mu")) ** 2), dims="row", total_size=100)
    point = {"mu": np.array(0.3)}
    np.testing.assert_allclose(
        mean_over_batches(derived(model), point), full_logp_and_gradient(model, point)
    )


def test_a_sum_over_all_rows_is_told_what_works():
    with pm.Model(coords=COORDS) as model:
        y = pm.Data("y", VALUES, dims=("row", "time"))
        ll = hidden_markov(y)
        with pytest.raises(
            ValueError, match=r"of no minibatch.*keep a value for each row and give"
        ):
            pm.Potential("ll", ll.sum(), total_size=N)
        pm.Potential("sum", ll.sum())
    with pytest.raises(ValueError, match=r"model of all rows, and give the Potential the dims="):
        pm.minibatch_model(model, {"row": B})


class TestRule:
    """Axes of what a loop gives."""

    def batch(self):
        index = minibatch_index(5, B)
        return pt.as_tensor(VALUES[:, :1].repeat(5, 1).T)[index], Rows(index)

    def test_a_state_takes_rows_from_another_state(self):
        """`b` has rows from the second step on, through `a`."""
        batch, rows = self.batch()
        zeros = pt.zeros((B,))
        a, b = scan(lambda x, a, b: (a + x, b + a), [batch], [zeros, zeros])
        assert track_axes(a) == track_axes(b) == (OTHER, rows)
        assert track_axes(b[-1]) == (rows,)

    def test_several_taps(self):
        batch, rows = self.batch()
        start = {"initial": pt.zeros((2, B)), "taps": [-2, -1]}
        out = scan(lambda x, before, last: before - last + x, [batch], [start])
        assert track_axes(out) == (OTHER, rows)

    @pytest.mark.parametrize(
        ("step", "why"),
        [
            (lambda x, a: a + x - x.mean(), "mixes the rows"),
            (lambda x, a: (a + x)[::-1], "by their place in the batch"),
            (lambda x, a: a + x + pt.arange(float(B)), "values that are not of the batch"),
        ],
        ids=["mean", "reversed", "by slot"],
    )
    def test_steps_that_mix_rows(self, step, why):
        batch, _ = self.batch()
        found = track_axes(scan(step, [batch], [pt.zeros((B,))]))
        assert isinstance(found, Untracked)
        assert why in found.why

    def test_a_start_of_the_slots(self):
        batch, _ = self.batch()
        found = track_axes(scan(lambda x, a: a + x, [batch], [pt.vector("start", shape=(B,))]))
        assert isinstance(found, Untracked)
        assert "values that are not of the batch" in found.why

    def test_a_loop_over_rows_carries_no_state(self):
        batch, _ = self.batch()
        found = track_axes(scan(lambda x, a: a + x, [batch.T], [pt.zeros((4,))]))
        assert isinstance(found, Untracked)
        assert found.certain
