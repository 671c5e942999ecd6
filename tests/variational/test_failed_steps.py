# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A fit that meets a value that is not finite: what it says, and what it keeps."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.variational.engine.loop import NotFinite, run_loop
from pymc.variational.local_params.row_optimizer import guarded
from pymc.variational.progress import FitProgress
from pymc.variational.report import NONFINITE_ADVICE, describe_failed_step
from tests.variational.engine import (
    PYTHON,
    assert_same,
    bare_step,
    halving,
    normal_model,
    params_of,
    quiet,
    shared,
)


def bad_rate(first_bad):
    """A learning rate that is not a number at a step, which counts from 1."""
    return pm.sgd(learning_rate=lambda step: pt.switch(pt.ge(step, first_bad - 1), np.nan, 1e-3))


def failed(model, message, n=500, method=pm.ADVI, **kwargs):
    """An inference whose fit raised an error."""
    inference = method(model=model, random_seed=1)
    with pytest.raises(FloatingPointError, match=message) as caught:
        inference.fit(n, **quiet(**kwargs))
    return inference, str(caught.value)


def growing(first_bad, with_loss=True):
    """A count; the loss, or the parameter itself, is not a number at a step."""
    x, n = shared(0.0, "x"), shared(0.0, "n")
    bad = pt.eq(n + 1, first_bad)
    updates = {n: n + 1, x: x + 1 if with_loss else pt.switch(bad, np.nan, x + 1)}
    loss = pt.switch(bad, np.nan, n) if with_loss else None
    return x, n, bare_step(updates, loss)


def loop(step, n_steps, *callbacks, params=()):
    progress = FitProgress(n_steps, show=False)
    return run_loop(
        step, n_steps, approx=None, params=params, callbacks=callbacks, progress=progress
    )


class TestNotFiniteSteps:
    @pytest.mark.parametrize("with_loss", [True, False])
    @pytest.mark.parametrize("first_bad", [1, 2, 3, 50, 1234])
    def test_last_good_state(self, first_bad, with_loss):
        """In the middle of a call as at its edge."""
        x, n, step = growing(first_bad, with_loss)
        with pytest.raises(NotFinite, match=f"step {first_bad}: loss nan") as caught:
            loop(step, 5000, params=[x])
        assert caught.value.end.n_steps == first_bad - 1
        assert x.get_value() == n.get_value() == first_bad - 1
        expected = np.arange(first_bad - 1) if with_loss else []
        np.testing.assert_array_equal(caught.value.end.losses, expected)

    def test_a_parameter_goes_bad_before_the_loss(self):
        """The loss is of the parameters before the step, so that the next has the bad one."""
        x, n = shared(0.0, "x"), shared(0.0, "n")
        step = bare_step({n: n + 1, x: pt.switch(pt.eq(n, 36), np.nan, x + 1)}, x)
        with pytest.raises(NotFinite, match="step 37"):
            loop(step, 5000, params=[x])
        assert x.get_value() == n.get_value() == 36

    def test_infinite(self):
        x, step = halving(1e200)
        with pytest.raises(NotFinite, match="step 1: loss inf"):
            loop(step, 10)
        assert x.get_value() == 1e200

    def test_only_parameters_are_watched(self):
        x = shared(np.inf)
        end = loop(bare_step({x: 0.5 * x}, None), 10, params=[])
        assert end.n_steps == 10

    def test_callbacks_ran_before(self):
        x, _, step = growing(30)
        seen = []

        def note(approx, losses, i):
            seen.append((i, float(x.get_value())))

        note.every = 10
        with pytest.raises(NotFinite, match="step 30"):
            loop(step, 5000, note)
        assert seen == [(10, 10), (20, 20)]


class TestMessage:
    def test_step_variables_and_advice(self):
        with pm.Model() as model:
            pm.Normal("a", 0, 1, shape=2)
            pm.Normal("b", 0, 1)
        _, message = failed(
            model,
            "NaN occurred in optimization. Step 37 is",
            score=False,
            obj_optimizer=bad_rate(37),
        )
        assert "RV `a`.ravel()[0, 1] is not finite after it." in message
        assert "RV `b`.ravel()[0] is not finite after it." in message
        assert message.endswith(NONFINITE_ADVICE)
        for advised in ("learning_rate", "total_grad_norm_constraint", "start=", "hist"):
            assert advised in message

    def test_only_the_entries_concerned(self):
        with pm.Model() as model:
            pm.Normal("a", 0, 1)
            pm.Normal("b", 0, 1, shape=10)
        mu, _ = params = pm.ADVI(model=model).approx.params
        del mu, params
        bad = np.zeros(11)
        bad[1 + 3 :] = np.nan

        def breaking(loss_or_grads, params):
            updates = pm.sgd(loss_or_grads, params, learning_rate=1e-3)
            return {var: value + bad for var, value in updates.items()}

        _, message = failed(model, "Step 1 is not finite", obj_optimizer=breaking)
        assert "`b`.ravel()[3, 4, 5, 6, 7, ...]" in message
        assert "`a`" not in message

    def test_the_loss(self):
        factor = pytensor.shared(np.array(np.inf), "factor")
        with pm.Model() as model:
            x = pm.Normal("x")
            pm.Potential("infinite", -factor * (1 + x**2))
            pm.Normal("fine", x, 1, observed=1.0)
        _, message = failed(model, r"Step 1 is not finite: its loss is inf\.")
        assert "The log-probability of `infinite` is -inf at the mean" in message
        assert "`fine`" not in message

    def test_data(self):
        with pm.Model() as model:
            mu = pm.Normal("mu")
            pm.Normal("y", mu, 1, observed=pm.Data("data", [1.0, np.inf]))
        _, message = failed(model, "Step 1 is not finite: its loss is inf")
        assert "log-probability of `y` is -inf at the mean" in message
        assert "`mu`.ravel()[0]" in message

    def test_a_start_with_an_infinite_loss(self):
        inference = pm.ADVI(model=normal_model(), start={"mu": np.array(1e200)}, random_seed=1)
        with pytest.raises(FloatingPointError, match="Step 1 is not finite"):
            inference.fit(5, **quiet())
        assert len(inference.hist) == 0


class TestKept:
    @pytest.mark.parametrize("score", [True, False])
    @pytest.mark.parametrize("first_bad", [1, 2, 37, 300])
    def test_state_of_the_last_good_step(self, first_bad, score):
        inference, _ = failed(
            normal_model(), f"Step {first_bad} ", obj_optimizer=bad_rate(first_bad), score=score
        )
        good = pm.ADVI(model=normal_model(), random_seed=1)
        good.fit(first_bad - 1, **quiet(obj_optimizer=bad_rate(first_bad), score=score))
        assert_same(params_of(inference.approx), params_of(good.approx))
        np.testing.assert_array_equal(inference.hist, good.hist)
        assert len(inference.hist) == (first_bad - 1 if score else 0)
        assert inference.approx.report.n_steps == first_bad - 1
        assert inference.approx.hist is inference.hist

    @pytest.mark.parametrize("backend", ["numba", "jax"])
    @pytest.mark.filterwarnings("ignore:The RandomType SharedVariables:UserWarning")
    def test_on_backends(self, backend):
        """A loop that runs on to the end of a call is taken back to the same step."""
        fits = []
        for n, error in [(5000, True), (99, False)]:
            inference = pm.ADVI(model=normal_model(), random_seed=1)
            kwargs = {"obj_optimizer": bad_rate(100), "backend": backend, "progressbar": False}
            if error:
                with pytest.raises(FloatingPointError, match="Step 100 is not finite"):
                    inference.fit(n, **kwargs)
            else:
                inference.fit(n, **kwargs)
            fits.append([*params_of(inference.approx), inference.hist])
        assert_same(*fits)

    def test_refine(self):
        """It comes to the same step again, and to the next with another value of what went wrong."""
        factor = pytensor.shared(np.array(1.0), "factor")
        with pm.Model() as model:
            x = pm.Normal("x")
            pm.Potential("p", -factor * x**2)
        inference = pm.ADVI(model=model, random_seed=1)
        inference.fit(10, **quiet())
        factor.set_value(np.array(np.nan))
        with pytest.raises(FloatingPointError, match="Step 11 is not finite"):
            inference.refine(10, progressbar=False)
        factor.set_value(np.array(1.0))
        inference.refine(10, progressbar=False)
        whole = pm.ADVI(model=model, random_seed=1)
        whole.fit(20, **quiet())
        assert_same(params_of(inference.approx), params_of(whole.approx))
        np.testing.assert_array_equal(inference.hist, whole.hist)

    def test_the_approximation_draws(self):
        inference, _ = failed(normal_model(), "Step 37", obj_optimizer=bad_rate(37))
        with pytensor.config.change_flags(mode=PYTHON):
            draws = inference.approx.sample(20, random_seed=1)
        assert np.isfinite(draws["posterior"]["mu"]).all()


def test_svgd_says_which_variable():
    """One particle is enough."""
    with pm.Model() as model:
        pm.Normal("a")
        pm.Normal("b", shape=2)
    bad = np.zeros((3, 3))
    bad[1, 2] = np.nan

    def breaking(loss_or_grads, params):
        updates = pm.sgd(loss_or_grads, params, learning_rate=1e-3)
        return {var: value + bad for var, value in updates.items()}

    svgd = partial(pm.SVGD, n_particles=3)
    _, message = failed(model, "Step 1 is not finite", method=svgd, obj_optimizer=breaking)
    assert "`a`" not in message
    assert "`b`.ravel()[1] is" in message


def test_full_rank_says_which_variable():
    with pm.Model() as model:
        pm.Normal("a")
        pm.Normal("b", shape=2)
    _, message = failed(
        model, "Step 4 is not finite", method=pm.FullRankADVI, obj_optimizer=bad_rate(4)
    )
    assert "`b`.ravel()[0, 1]" in message


class TestGuarded:
    """The message for a step that changes nothing if it fails, and so is not taken again."""

    def message(self, loss, **attributes):
        x = shared(1.0)
        own_loss, updates = guarded(x, {x: x / 2})
        step = bare_step(updates, own_loss, guarded=True)
        text = describe_failed_step(
            SimpleNamespace(**{"bad_terms": list} | attributes), step, 7, loss
        )
        assert x.get_value() == 1.0
        assert text.endswith(NONFINITE_ADVICE)
        return text.removesuffix(NONFINITE_ADVICE).rstrip().splitlines()

    def test_terms_of_the_approximation(self):
        lines = self.message(np.nan, bad_terms=lambda: [("y", -np.inf)])
        assert lines == [
            "NaN occurred in optimization. Step 8 is not finite: its loss, or a parameter after it, "
            "is nan.",
            "The log-probability of `y` is -inf at the mean of the approximation before it.",
        ]

    def test_infinite_loss(self):
        [line] = self.message(np.inf)
        assert line.endswith("Step 8 is not finite: its loss is inf.")
