# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.fit` and the methods: arguments, what is kept, and every kind of fit through the engine."""

import logging
import os
import re
import signal

from threading import Thread, Timer

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.minibatch.index import IndexState
from pymc.model.transform.minibatch import minibatch_model
from pymc.variational.inference import KLqp
from pymc.variational.operators import KL
from pymc.variational.opvi import ObjectiveFunction
from tests.variational.engine import (
    PYTHON,
    assert_same,
    normal_model,
    params_of,
    quiet,
)


def logged(caplog):
    return [record.message for record in caplog.records]


class TestNumberOfSteps:
    @pytest.mark.parametrize("n", [True, np.True_, 2.0, "10", None, np.float64(3), [5]])
    def test_no_whole_number(self, n):
        message = f"n={re.escape(repr(n))} of a fit must be a whole number"
        for call in self.calls(n):
            with pytest.raises(TypeError, match=message):
                call()

    @pytest.mark.parametrize("n", [-1, np.int64(-5)])
    def test_negative(self, n):
        for call in self.calls(n):
            with pytest.raises(
                ValueError, match=f"n={re.escape(repr(n))} of a fit must be at least 0"
            ):
                call()

    def calls(self, n):
        """Calls that build a graph would find `optimizer` to be none."""
        model = normal_model()
        advi = pm.ADVI(model=model)
        return (
            lambda: pm.fit(n, model=model, obj_optimizer=None),
            lambda: advi.fit(n, obj_optimizer=None),
            lambda: advi.refine(n),
        )

    @pytest.mark.parametrize("n", [7, np.int64(7), np.uint8(7)])
    def test_whole_numbers(self, n):
        with normal_model():
            approx = pm.fit(n, random_seed=1, **quiet())
        assert approx.hist.shape == (7,)

    def test_none_initialises(self, caplog):
        caplog.set_level(logging.INFO)
        model = normal_model()
        before = params_of(pm.ADVI(model=model, random_seed=1).approx)
        advi = pm.ADVI(model=model, random_seed=1)
        approx = advi.fit(0, **quiet())
        assert_same(params_of(approx), before)
        assert approx.hist.shape == (0,)
        assert approx.report.n_steps == 0
        assert logged(caplog) == ["Initialization only"]
        advi.refine(3, progressbar=False)
        assert approx.hist.shape == (3,)


class TestRefine:
    def test_as_one_fit(self):
        fits = []
        for lengths in [(30,), (10, 15, 5)]:
            advi = pm.ADVI(model=normal_model(), random_seed=1)
            advi.fit(lengths[0], **quiet())
            for n in lengths[1:]:
                advi.refine(n, progressbar=False)
            assert advi.state.i == advi.approx.report.n_steps == 30
            fits.append([*params_of(advi.approx), advi.hist])
        assert_same(*fits)

    def test_before_a_fit(self):
        with pytest.raises(TypeError, match=r"call `\.fit` first"):
            pm.ADVI(model=normal_model()).refine(3)

    def test_callbacks_count_on(self):
        seen = []
        advi = pm.ADVI(model=normal_model(), random_seed=1)
        callback = lambda approx, losses, i: seen.append((i, len(losses)))  # noqa: E731
        advi.fit(2, **quiet(callbacks=[callback]))
        advi.refine(2, progressbar=False)
        assert seen == [(1, 1), (2, 2), (3, 1), (4, 2)]

    def test_after_a_stop(self):
        def stop(approx, losses, i):
            if i == 4:
                raise StopIteration("enough")

        advi = pm.ADVI(model=normal_model(), random_seed=1)
        advi.fit(10, **quiet(callbacks=[stop]))
        assert (advi.state.i, advi.approx.report.stopped) == (4, "enough")
        advi.refine(6, progressbar=False)
        assert (advi.state.i, advi.approx.report.stopped) == (10, "finished")
        with normal_model():
            whole = pm.fit(10, random_seed=1, **quiet())
        assert_same(params_of(advi.approx), params_of(whole))


class TestScore:
    def test_without(self):
        seen = []
        with normal_model():
            approx = pm.fit(
                10,
                random_seed=1,
                callbacks=[lambda _, x, i: seen.append((x, i))],
                score=False,
                **quiet(),
            )
            scored = pm.fit(10, random_seed=1, **quiet())
        assert approx.hist.shape == (0,)
        assert seen == [(None, i) for i in range(1, 11)]
        assert len({tuple(p) for p in params_of(scored)}) == 2

    def test_noise_moves_on(self):
        """Each step has noise of its own, though nobody asks for its loss."""
        kept = []
        with pm.Model():
            pm.Normal("x")
            pm.fit(
                8,
                random_seed=1,
                score=False,
                callbacks=[lambda approx, *_: kept.append(np.ravel(params_of(approx)))],
                obj_optimizer=pm.sgd(learning_rate=1e-3),
                **quiet(),
            )
        increments = np.diff(kept, axis=0)
        assert increments.shape == (7, 2)
        # The gradient by `mu` is the noise, but for what the parameters moved: up to 1e-3 a step
        noise = np.sort(increments[:, 0] / 1e-3)
        assert np.diff(noise).min() > 1e-2

    def test_of_a_method_without_a_loss(self):
        svgd = pm.SVGD(model=normal_model(), n_particles=4, random_seed=1)
        with pytest.warns(UserWarning, match="does not return loss"):
            svgd.fit(3, score=True, **quiet())
        assert svgd.hist.shape == (0,)
        assert svgd.approx.report.n_steps == 3


class TestLog:
    @pytest.mark.parametrize("n", [5, 20])
    def test_finished(self, caplog, n):
        caplog.set_level(logging.INFO)
        with normal_model():
            approx = pm.fit(n, random_seed=1, **quiet())
        mean = f"{approx.hist.mean():,.5g}" if n >= 10 else f"{approx.hist[-1]:,.5g}"
        average = "Average " if n >= 10 else ""
        assert logged(caplog) == [f"Finished [100%]: {average}Loss = {mean}"]

    def test_stopped(self, caplog):
        caplog.set_level(logging.INFO)

        def stop(approx, losses, i):
            if i == 5:
                raise StopIteration("enough")

        with normal_model():
            pm.fit(20, random_seed=1, **quiet(callbacks=[stop]))
        assert logged(caplog)[0] == "enough"
        assert logged(caplog)[1].startswith("Interrupted at 5 [25%]: Average Loss = ")


def test_control_c_keeps_all_steps(caplog):
    caplog.set_level(logging.INFO)
    handler = signal.getsignal(signal.SIGINT)
    advi = pm.ADVI(model=normal_model(), random_seed=1)
    advi.fit(0, backend="numba", progressbar=False)
    Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    advi.refine(10**9, progressbar=False)
    n = advi.approx.report.n_steps
    assert len(advi.hist) == advi.state.i == n > 100
    assert advi.approx.report.stopped == "interrupted"
    assert 0.2 < advi.approx.report.seconds < 1.3
    assert logged(caplog)[-1].startswith(f"Interrupted at {n:,d} [0%]: Average Loss = ")
    assert signal.getsignal(signal.SIGINT) is handler
    whole = pm.ADVI(model=advi.approx.model, random_seed=1)
    whole.fit(n, backend="numba", progressbar=False)
    assert_same([*params_of(whole.approx), whole.hist], [*params_of(advi.approx), advi.hist])


def test_in_another_thread():
    fits = []
    model = normal_model()

    def run():
        fits.append(pm.fit(20, model=model, random_seed=1, **quiet()))

    thread = Thread(target=run)
    thread.start()
    thread.join()
    run()
    assert_same(params_of(fits[0]), params_of(fits[1]))


def test_a_bad_rate_is_refused_before_anything_is_compiled():
    def callback(approx, losses, i):
        pass

    callback.every = 0
    with (
        normal_model(),
        pytest.raises(ValueError, match="every=0 of the callback callback must be at least 1"),
    ):
        pm.fit(5, callbacks=[callback], obj_optimizer=None)


class TestArguments:
    def test_optimizer_constraint_and_updates(self):
        count = pytensor.shared(np.int64(0), "count")
        rate, bound = 0.1, 1e-3
        advi = pm.ADVI(model=normal_model(), random_seed=1)
        before = params_of(advi.approx)
        advi.fit(
            1,
            **quiet(
                obj_optimizer=pm.sgd(learning_rate=rate),
                total_grad_norm_constraint=bound,
                more_updates={count: count + 3},
            ),
        )
        after = params_of(advi.approx)
        assert count.get_value() == 3
        step = np.concatenate([x - y for x, y in zip(after, before)])
        np.testing.assert_allclose(np.linalg.norm(step), rate * bound, rtol=1e-4)

    def test_samples_of_the_objective(self):
        """More draws a step, less noise of the loss."""
        spread = {}
        for n_mc in (1, 25):
            with normal_model():
                approx = pm.fit(
                    200,
                    random_seed=1,
                    obj_n_mc=n_mc,
                    obj_optimizer=pm.sgd(learning_rate=0.0),
                    **quiet(),
                )
            spread[n_mc] = approx.hist.std(ddof=1)
        # The ratio of the standard deviations is 5; its log has a standard error of 0.5 for heavy
        # tails of a loss that is a square of the noise (kurtosis 15, sqrt(14 / 800) each).
        assert abs(np.log(spread[1] / spread[25] / 5)) < 4 * 0.15

    def test_old_name_of_compile_kwargs(self):
        with normal_model(), pytest.warns(DeprecationWarning, match="`fn_kwargs` is deprecated"):
            pm.fit(3, random_seed=1, fn_kwargs={"mode": PYTHON}, progressbar=False)

    def test_include_transformed(self):
        with pm.Model():
            pm.HalfNormal("sd")
            approx = pm.fit(3, random_seed=1, include_transformed=True, **quiet())
        assert set(approx.state.mean) == {"sd", "sd_log__"}

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: pm.fit(3, callback=[print]), r"pm.fit got callback=.*Near it are callbacks"),
            (lambda: pm.fit(3, epochs=2), r"pm.fit got epochs=2, .* n = 2 \* math.ceil\(N"),
            (lambda: pm.ADVI().fit(3, obj_optimiser=1), r"A fit got .*Near it are obj_optimizer"),
        ],
    )
    def test_that_nothing_takes(self, call, message):
        with normal_model(), pytest.raises(TypeError, match=message):
            call()

    def test_of_an_operator_of_ones_own(self):
        """What its updates take, a fit takes."""

        class Objective(ObjectiveFunction):
            seen: list[float] = []

            def updates(self, *, power=1.0, **kwargs):
                self.seen.append(power)
                return super().updates(**kwargs)

        class Operator(KL):
            objective_class = Objective

        with normal_model():
            inference = KLqp(pm.MeanField())
            inference.objective = Operator(inference.approx)(None)
            pm.fit(1, inference, power=2.0, obj_n_mc=1, **quiet())
            with pytest.raises(TypeError, match=r"pm.fit got powr=2.*Near it are power"):
                pm.fit(1, inference, powr=2.0)
        assert Objective.seen == [2.0]

    def test_settings_of_the_report(self):
        with normal_model():
            approx = pm.fit(
                3,
                "fullrank_advi",
                random_seed=1,
                obj_n_mc=2,
                obj_optimizer=pm.adam(learning_rate=0.01),
                **quiet(),
            )
        report = approx.report
        assert (report.method, report.driver, report.backend) == (
            "FullRankADVI",
            "python",
            "python",
        )
        assert report.settings["obj_n_mc"] == 2
        assert report.settings["obj_optimizer"].startswith("adam(learning_rate=0.01, ")
        assert report.compile_seconds > 0


class TestBatchSize:
    @pytest.mark.parametrize("batch_size", [2, {"obs": 3}])
    def test_as_the_model_of_minibatches(self, batch_size):
        fits = []
        for short in (True, False):
            model = normal_model()
            if not short:
                model = minibatch_model(model, batch_size=batch_size)
            kwargs = {"batch_size": batch_size} if short else {}
            fits.append(pm.fit(20, model=model, random_seed=1, **quiet(**kwargs)))
        assert_same(fits[0].hist, fits[1].hist)
        assert_same(params_of(fits[0]), params_of(fits[1]))

    def test_of_the_context(self):
        with normal_model():
            approx = pm.fit(5, random_seed=1, batch_size=2, **quiet())
        assert len(set(approx.hist)) == 5

    def test_with_an_inference(self):
        advi = pm.ADVI(model=normal_model())
        with pytest.raises(TypeError, match=r"batch_size=2 of pm.fit needs the name of a method"):
            pm.fit(5, advi, batch_size=2)

    def test_rows_move_on_under_svgd(self):
        """Particles share a batch, and each step has another."""
        with minibatch_model(normal_model(), batch_size=2):
            svgd = pm.SVGD(n_particles=3, random_seed=1)
        svgd.fit(0, **quiet())

        def position():
            [index] = [var for var in svgd.state.step.shared if isinstance(var, IndexState)]
            return index.get_value()[2]

        read = [position()]
        svgd.fit(4, **quiet(callbacks=[lambda *_: read.append(position())]))
        np.testing.assert_array_equal(read, [0, 2, 4, 6, 8])
