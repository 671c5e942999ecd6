# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.Trainer` and `pm.fit(data=loader)`: exact batches, going on, and that nothing is lost."""

import inspect
import os
import signal
import subprocess
import sys
import textwrap

from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.data_loading.batch import Position
from pymc.data_loading.data_loader import DataLoader
from pymc.variational.engine.batch_feed import FeedInUse
from pymc.variational.engine.callback_schedule import CallbackSchedule
from pymc.variational.trainer import Trainer
from tests.variational.engine import JAX_COPIES, PYTHON, assert_same, params_of, quiet

pytestmark = pytest.mark.filterwarnings(JAX_COPIES)

N, B = 50, 8
DATA = np.random.default_rng(1).normal([2, 0], 1, size=(N, 2))


def streamed(data=DATA, dims=("obs", "column"), **kwargs):
    """A loader, and the model of its first column."""
    loader = DataLoader(data, **{"batch_size": B, "seed": 1, **kwargs})
    with pm.Model() as model:
        batch = pm.Data("batch", loader, dims=dims)
        mu = pm.Normal("mu", 0, 10)
        pm.Normal("y", mu, 1, observed=batch[:, 0], dims="obs")
    return loader, model


def by_hand(batch_size=B, total_size=N, name="batch", width=2):
    """A model with a plain placeholder."""
    with pm.Model() as model:
        batch = pm.Data(name, np.zeros((batch_size, width)))
        mu = pm.Normal("mu", 0, 10)
        pm.Normal("y", mu, 1, observed=batch[:, 0], total_size=total_size)
    return model


def trainer_of(loader, model, **kwargs):
    return Trainer(dataloader=loader, model=model, **quiet(random_seed=1, **kwargs))


def batches(loader, n, position=Position()):
    """The next `n` batches, one array."""
    return np.concatenate([c.values[0].copy() for c in loader.chunks(position, n)])


class Noting:
    """A source of blocks that notes how many rows were read."""

    def __init__(self, data=DATA, length=5, error_at=None):
        self.data, self.length, self.error_at, self.n_read = data, length, error_at, 0

    def __call__(self):
        for start in range(0, len(self.data), self.length):
            if start == self.error_at:
                raise OSError("part-3.parquet, row group 2: cannot be read")
            block = self.data[start : start + self.length]
            self.n_read += len(block)
            yield block


class TestSteps:
    def test_counts(self):
        loader, model = streamed()
        trainer = trainer_of(loader, model)
        approx = trainer.fit(10)
        assert trainer.approx is approx
        assert (trainer.batches_seen, trainer.rows_streamed) == (10, 80)
        assert trainer.position == Position(1, 30)
        assert len(trainer.hist) == len(approx.hist) == approx.report.n_steps == 10
        trainer.refine(2)
        assert (trainer.batches_seen, len(approx.hist), trainer.position) == (
            12,
            12,
            Position(1, 46),
        )

    def test_repr(self):
        trainer = trainer_of(*streamed())
        text = "DataLoader(ArraySource(50 rows, float64 of shape (2,) each), batch_size=8)"
        assert repr(trainer) == f"Trainer('advi', {text}, batches_seen=0)"

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_callbacks_see_the_batch_of_their_step(self, shuffle):
        """And the last batch is there when the fit has ended; a pass's tail opens the next pass."""
        loader, model = streamed(shuffle=shuffle)
        seen = []
        trainer = trainer_of(loader, model)
        trainer.fit(14, callbacks=[lambda *_: seen.append(model["batch"].get_value())])
        np.testing.assert_array_equal(seen, batches(loader, 14))
        np.testing.assert_array_equal(model["batch"].get_value(), seen[-1])
        rows = np.concatenate(seen)
        np.testing.assert_array_equal(np.sort(rows[:N], axis=0), np.sort(DATA, axis=0))

    @pytest.mark.parametrize("mode", ["numba", "jax", "python"])
    def test_as_in_memory_step_by_step(self, mode):
        """As batches that are put into a placeholder before each step, whose scale is another graph."""
        how = {"compile_kwargs": {"mode": PYTHON}} if mode == "python" else {"backend": mode}
        loader, model = streamed()
        wanted = batches(loader, 20)
        fitted = Trainer(dataloader=loader, model=model, random_seed=1, progressbar=False)
        approx = fitted.fit(20, **how)

        other = by_hand()
        inference = pm.ADVI(model=other, random_seed=1)
        with pytensor.config.change_flags(numba__fastmath=False):  # as a trainer compiles
            inference.fit(0, progressbar=False, **how)
        for batch in wanted:
            other["batch"].set_value(batch)
            inference.refine(1, progressbar=False)
        for ours, theirs in zip(params_of(approx), params_of(inference.approx), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(approx.hist, inference.hist, rtol=1e-13)

    def test_arguments_that_failed_are_forgotten(self):
        """A checkpoint after it has none of them, and the same trainer fits."""
        trainer = trainer_of(*streamed())
        before = dict(trainer._arguments)
        with pytest.raises(TypeError, match=r"obj_optimizer=\[\] is no optimizer"):
            trainer.fit(1, obj_optimizer=[])
        assert (trainer._arguments, trainer.state) == (before, None)
        trainer.fit(2)
        assert "obj_optimizer" not in trainer._arguments

    def test_going_on_is_one_fit(self):
        outcomes = []
        for parts in [(30,), (1, 6, 23)]:
            trainer = trainer_of(*streamed(shuffle=True, buffer_size=20))
            trainer.fit(parts[0])
            for n in parts[1:]:
                trainer.fit(n) if n == 6 else trainer.refine(n)
            outcomes.append([*params_of(trainer.approx), trainer.hist])
        assert_same(*outcomes)

    def test_prepare_takes_no_step(self):
        loader, model = streamed()
        trainer = trainer_of(loader, model)
        before = trainer.prepare().step.load()
        assert (trainer.state.i, trainer.batches_seen, len(trainer.hist)) == (0, 0, 0)
        assert len(before) == len(trainer.state.step.shared)
        trainer.position = Position(0, 16)
        trainer.fit(1)
        np.testing.assert_array_equal(model["batch"].get_value(), DATA[16:24])

    def test_a_plain_placeholder_and_a_loader_of_somebody_else(self):
        """Rows are those of its data set, in another library's batches of any kind."""

        class Loader:
            dataset, batch_size = DATA, B

            def __len__(self):
                return 7  # batches

        trainer = trainer_of(Loader(), by_hand(name="x"), data_name="x")
        approx = trainer.fit(5)
        loader, model = streamed()
        assert_same(params_of(approx), params_of(trainer_of(loader, model).fit(5)))

    @pytest.mark.parametrize("total_size", [N, None])
    def test_a_loader_that_is_iterated(self, total_size):
        """As that of pymc-extras: a batch size, a total, and batches of a pass, shuffled or not."""

        class Batches:
            batch_size, n_read = B, 0

            def __iter__(self):
                for batch in np.split(DATA, range(B, N, B)):
                    self.n_read += 1
                    yield batch

            def __len__(self):
                return N // B  # batches

        given, shared = Batches(), by_hand(name="x")
        given.total_size = total_size
        with pytest.raises(
            TypeError, match=r"Write loader = pm\.DataLoader\(\.\.\., batch_size=\.\.\.\)"
        ):
            pm.Data("x", given, model=shared)
        trainer = trainer_of(given, shared, data_name="x")
        assert (given.n_read < N // B) == (total_size is not None)  # else rows are counted
        approx = trainer.fit(2 * N // B)
        assert trainer.dataloader.total_size == N
        loader, model = streamed()
        assert_same(params_of(approx), params_of(trainer_of(loader, model).fit(2 * N // B)))

    def test_dicts(self):
        fields = {"X": DATA, "y": DATA[:, 0].astype("float32"), "unused": np.arange(N)}
        loader = DataLoader(fields, batch_size=B)
        with pm.Model() as model:
            X, y = (pm.Data(name, loader) for name in "Xy")
            w = pm.Normal("w", shape=2)
            pm.Normal("obs", X @ w, 1, observed=y)
        with pm.Model() as plain:
            X, y = pm.Data("X", np.zeros((B, 2))), pm.Data("y", np.zeros(B))
            w = pm.Normal("w", shape=2)
            pm.Normal("obs", X @ w, 1, observed=y, total_size=N)
        one = trainer_of(loader, model).fit(10)
        other = trainer_of(loader, plain).fit(10)
        assert_same([*params_of(one), one.hist], [*params_of(other), other.hist])
        np.testing.assert_array_equal(plain["y"].get_value(), model["y"].get_value())

    def test_rows_that_are_left_out(self):
        """As if they were not in the data, bit for bit."""
        spoilt = DATA.copy()
        spoilt[::3, 1] = np.nan
        clean = DATA[np.isfinite(spoilt).all(axis=1)]
        one = trainer_of(*streamed(spoilt, on_nan="skip"))
        one.fit(12)
        other = trainer_of(*streamed(clean))
        other.fit(12)
        assert one.dataloader.total_size == len(clean) == 33
        assert_same([*params_of(one.approx), one.hist], [*params_of(other.approx), other.hist])

    def test_a_guide_and_an_objective(self):
        loader, model = streamed()
        how = {"guide": "low_rank", "gradient": "stl", "reduction": "mean"}
        one = trainer_of(loader, model, **how).fit(6, obj_optimizer=pm.sgd(learning_rate=1e-3))
        other = pm.fit(
            6,
            model=model,
            data=loader,
            obj_optimizer=pm.sgd(learning_rate=1e-3),
            **how,
            **quiet(random_seed=1),
        )
        assert one.report.settings["gradient"] == "stl"
        assert_same([one.hist], [other.hist])


class TestArguments:
    def test_of_a_call_before_those_of_the_trainer(self):
        loader, model = streamed()
        trainer = trainer_of(loader, model, obj_optimizer=pm.sgd(learning_rate=1e-3), score=False)
        trainer.fit(3, score=True)
        assert len(trainer.hist) == 3
        assert trainer.approx.report.settings["obj_optimizer"] == "sgd(learning_rate=0.001)"

    def test_new_arguments_of_the_step(self):
        """The step is made anew; parameters, losses and the place in the stream stay."""
        loader, model = streamed()
        trainer = trainer_of(loader, model)
        trainer.fit(3)
        before = params_of(trainer.approx)
        trainer.fit(1, obj_optimizer=pm.sgd(learning_rate=0.0))
        assert_same(before, params_of(trainer.approx))
        assert (len(trainer.hist), trainer.position) == (4, Position(0, 32))
        assert trainer.state.i == 4

    def test_arguments_of_an_earlier_call_stay(self):
        trainer, seen = trainer_of(*streamed()), []

        def note(approx, losses, i):
            seen.append(i)

        trainer.fit(2, obj_optimizer=pm.sgd(learning_rate=0.0), callbacks=[note])
        before = params_of(trainer.approx)
        trainer.fit(2, score=True)
        assert_same(before, params_of(trainer.approx))
        trainer.fit(1, callbacks=[])
        trainer.fit(1, score=True)
        assert seen == [1, 2, 3, 4]

    def test_refine_takes_no_callbacks(self):
        trainer = trainer_of(*streamed())
        trainer.fit(1)
        with pytest.raises(
            TypeError, match=r"Trainer.refine got callbacks=\[\], .* of the last fit"
        ):
            trainer.refine(1, callbacks=[])
        trainer.refine(1, progressbar=False)

    def test_callbacks_of_a_later_call(self):
        trainer, seen = trainer_of(*streamed()), []
        trainer.fit(3)
        trainer.fit(2, callbacks=[lambda approx, losses, i: seen.append(i)])
        trainer.refine(1)
        assert seen == [4, 5, 6]

    def test_an_instance(self):
        loader, model = streamed()
        inference = pm.FullRankADVI(model=model, random_seed=1)
        trainer = Trainer(inference, dataloader=loader, **quiet())
        assert trainer.fit(3) is inference.approx
        assert len(inference.hist) == 3

    def test_an_instance_of_another_model(self):
        """Batches would go into one model, and the zeros of the other be fitted."""
        loader, model = streamed()
        inference = pm.ADVI(model=streamed()[1], random_seed=1)
        with pytest.raises(ValueError, match="was made for another model than model="):
            Trainer(inference, dataloader=loader, model=model)
        with pytest.raises(ValueError, match="was made for another model than model="):
            pm.fit(1, method=inference, model=model, data=loader)
        Trainer(inference, dataloader=loader, model=inference.approx.model)

    def test_the_model_of_the_context(self):
        loader, model = streamed()
        with model:
            trainer = Trainer(dataloader=loader, **quiet(random_seed=1))
            approx = pm.fit(3, data=loader, **quiet(random_seed=1))
        assert_same(params_of(trainer.fit(3)), params_of(approx))

    @pytest.mark.parametrize(
        ("n", "error", "message"),
        [
            (True, TypeError, "n=True of Trainer.fit must be a whole number"),
            (2.0, TypeError, "n=2.0 of Trainer.fit must be a whole number"),
            (0, ValueError, "n=0 of Trainer.fit must be at least 1"),
            (-3, ValueError, "n=-3 of Trainer.fit must be at least 1"),
        ],
    )
    def test_n(self, n, error, message):
        trainer = trainer_of(*streamed())
        with pytest.raises(error, match=message):
            trainer.fit(n)
        assert trainer.state is None

    def test_without_a_number_as_many_as_pm_fit(self):
        def stop(approx, losses, i):
            raise StopIteration

        trainer = trainer_of(*streamed())
        trainer.fit(callbacks=[stop])
        n = inspect.signature(pm.fit).parameters["n"].default
        assert trainer.state.until == n == 10_000

    def test_refine_needs_a_fit(self):
        with pytest.raises(TypeError, match=r"call `.fit` first"):
            trainer_of(*streamed()).refine(1)
        with pytest.raises(AttributeError, match=r"call `.fit` first"):
            trainer_of(*streamed()).approx

    def test_batch_size_is_the_loaders(self):
        loader, model = streamed()
        with pytest.raises(TypeError, match=r"batch_size=4 and data= of pm.fit are two ways"):
            pm.fit(1, model=model, data=loader, batch_size=4)
        with pytest.raises(TypeError, match=r"batch_size=4 of pm.Trainer: the batches have"):
            trainer_of(loader, model, batch_size=4)
        with pytest.raises(TypeError, match=r"Trainer.fit takes no data, model"):
            trainer_of(loader, model).fit(1, model=model, data=loader)

    def test_what_is_fitted_is_said_once(self):
        trainer = trainer_of(*streamed())
        trainer.fit(1)
        with pytest.raises(TypeError, match=r"guide of Trainer.fit say what is fitted"):
            trainer.fit(1, guide="low_rank")


class TestModelAndLoader:
    """What does not fit together is refused when the trainer is made, and nothing was read."""

    @pytest.fixture
    def loader(self):
        self.source = Noting()
        return DataLoader(self.source, batch_size=B, total_size=N, sample_shape=(2,))

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (
                lambda: by_hand(name="x"),
                KeyError,
                "data_name='batch' is no pm.Data of the model, which has 'x'",
            ),
            (
                lambda: by_hand(total_size=N + 1),
                ValueError,
                "'y' has total_size=51, and the loader has 50",
            ),
            (
                lambda: by_hand(total_size=None),
                ValueError,
                "'y' depends on a batch and has no total_size",
            ),
            (
                lambda: by_hand(width=3),
                ValueError,
                r"'batch' of the model has rows of shape \(3,\), and the",
            ),
            (lambda: streamed()[1], None, None),
            (
                lambda: streamed(np.zeros((60, 2)))[1],
                ValueError,
                "for 60 rows in all, and the loader has 50",
            ),
            (
                lambda: streamed(np.zeros((N, 3)))[1],
                ValueError,
                r"rows of shape \(3,\), and the loader's",
            ),
        ],
    )
    def test_models(self, loader, make, error, message):
        if error is None:
            trainer_of(loader, make())
        else:
            with pytest.raises(error, match=message):
                trainer_of(loader, make())

    def test_rows_of_their_own_variables(self):
        """Parameters of rows are found by a batch's row numbers, which has as many as the model."""
        data = np.zeros((N, 1))
        loader, other = (DataLoader(data, batch_size=size) for size in (B, 5))
        with pm.Model() as model:
            batch = pm.Data("batch", loader, dims=("obs", "column"))
            z = pm.Normal("z", 0, 1, dims="obs")
            pm.Normal("y", z, 1, observed=batch[:, 0], dims="obs")
        with pytest.raises(
            ValueError, match=r"rows of a batch of 8, and the loader's have batch_size=5"
        ):
            trainer_of(other, model)
        trainer = trainer_of(loader, model)
        trainer.fit(3)
        seen = trainer.approx.sample(10, random_seed=1).posterior["z"]
        assert seen.sizes["obs"] == N

    def test_rows_that_have_variables_are_not_left_out(self):
        loader = DataLoader(np.zeros(N), batch_size=B, on_nan="skip")
        with pm.Model() as model:
            batch = pm.Data("batch", loader, dims="obs")
            z = pm.Normal("z", 0, 1, dims="obs")
            pm.Normal("y", z, 1, observed=batch, dims="obs")
        with pytest.raises(ValueError, match="latent variables of rows, and on_nan='skip'"):
            trainer_of(loader, model)

    def test_no_data(self, loader):
        with pm.Model() as model:
            pm.Normal("x")
        with pytest.raises(
            KeyError, match=r"The model has no pm.Data to hold a batch of the loader"
        ):
            trainer_of(loader, model)

    def test_a_batch_that_nobody_uses(self, loader):
        with pm.Model() as model:
            pm.Data("batch", np.zeros((B, 2)))
            pm.Normal("x")
        with pytest.raises(
            ValueError, match="No observed variable of the model depends on 'batch'"
        ):
            trainer_of(loader, model)

    def test_floats_for_whole_numbers(self, loader):
        with pm.Model() as model:
            batch = pm.Data("batch", np.zeros((B, 2), int))
            pm.Poisson("y", pm.HalfNormal("mu"), observed=batch[:, 0], total_size=N)
        with pytest.raises(
            ValueError, match=r"dtype int.., which cannot hold the loader's float64"
        ):
            trainer_of(loader, model)

    def test_names(self, loader):
        with pytest.raises(
            KeyError, match=r"data_name='x' is no pm.Data that was made from a loader: 'batch'"
        ):
            trainer_of(*streamed(), data_name="x")
        with pytest.raises(
            KeyError, match=r"batches have 'X', 'y', and the model's pm.Data are 'batch'"
        ):
            trainer_of(DataLoader({"X": DATA, "y": DATA}, batch_size=B), by_hand())
        with pytest.raises(
            ValueError, match="for the fields '' of a batch, and the loader's have 'X', 'y'"
        ):
            trainer_of(DataLoader({"X": DATA, "y": DATA}, batch_size=B), streamed()[1])

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (
                lambda loader, model: trainer_of(loader, model).fit(3, epochs=2),
                r"Trainer.fit got epochs=2, which nothing in a fit takes. .* n = 2 \* math.ceil\(N / batch",
            ),
            (
                lambda loader, model: trainer_of(loader, model, callback=[]),
                r"pm.Trainer got callback=\[\], which .*Near it are callbacks",
            ),
            (
                lambda loader, model: trainer_of(loader, model, checkpoint_evry=2),
                "Near it are checkpoint_every, checkpoint",
            ),
            (lambda loader, model: trainer_of(loader, model, n=2), "pm.Trainer takes no n: "),
            (
                lambda loader, model: pm.fit(3, model=model, data=loader, optimizer=1),
                r"pm.fit got optimizer=1, .*Write obj_optimizer='tuned', or pm.adam",
            ),
        ],
    )
    def test_arguments_that_nothing_takes(self, loader, call, message):
        with pytest.raises(TypeError, match=message):
            call(loader, by_hand())
        assert self.source.n_read <= 5  # the first look at a block

    def test_no_loader(self):
        with pytest.raises(
            TypeError, match=r"has to be a pm.DataLoader, or .*Write pm.DataLoader\(data"
        ):
            trainer_of(DATA, by_hand())

    def test_integers_that_floats_cannot_hold(self):
        data = np.full((N, 2), 2**53 + 1)
        with pytest.raises(
            ValueError,
            match=r"'batch' got integers .* to 9007199254740993, not all of which float64",
        ):
            trainer_of(DataLoader(data, batch_size=B), by_hand()).fit(1)

    def test_rows_beyond_the_tables_of_latent_variables(self):
        loader = DataLoader(np.zeros(20), batch_size=5, total_size=10)
        with pm.Model() as model:
            observed = pm.Data("y", loader, dims="obs")
            z = pm.Normal("z", dims="obs")
            pm.Normal("likelihood", z, 1, observed=observed, dims="obs")
        trainer = trainer_of(loader, model)
        with (
            pytest.warns(UserWarning, match="total_size=10 was given"),
            pytest.raises(ValueError, match="row number 19, and total_size=10 rows have latent"),
        ):
            trainer.fit(4)

    def test_a_fit_without_the_loader(self):
        """Its steps would all see the same zeros."""
        loader, model = streamed()
        with pytest.raises(
            ValueError, match="'batch' of the model is made from a loader, and a fit without"
        ):
            pm.fit(1, model=model)
        with model:
            pm.set_data({"batch": next(iter(loader))})
        pm.fit(1, model=model, **quiet())


class TestNothingIsLost:
    def failed(self, source, n=10, error=OSError, message="part-3.parquet, row group 2", **kwargs):
        small = {"shuffle": True, "buffer_size": 10, "seed": 1}
        loader = DataLoader(source, batch_size=B, total_size=N, prefetch=0, **small)
        trainer = trainer_of(loader, by_hand())
        with pytest.raises(error, match=message):
            trainer.fit(n, **kwargs)
        return trainer

    def test_a_source_that_dies(self):
        source = Noting(error_at=30)
        trainer = self.failed(source)
        n_done = trainer.batches_seen
        assert 0 < n_done <= 3
        assert (
            len(trainer.hist) == len(trainer.approx.hist) == trainer.approx.report.n_steps == n_done
        )
        assert "row group 2" in trainer.approx.report.stopped
        source.error_at = None  # it is there again
        trainer.refine(7 - n_done)
        whole = trainer_of(trainer.dataloader, by_hand())
        whole.fit(7)
        assert_same([trainer.hist], [whole.hist])

    def test_a_callback_that_fails(self):
        def fail(approx, losses, i):
            if i == 4:
                raise RuntimeError("of the callback")

        trainer = self.failed(Noting(), 10, RuntimeError, "of the callback", callbacks=[fail])
        assert (trainer.batches_seen, len(trainer.hist), trainer.position) == (
            4,
            4,
            Position(0, 32),
        )

    def test_what_ends_the_process(self, tmp_path):
        """All is kept, and the last checkpoint is written, before it is raised again."""

        def leave(approx, losses, i):
            if i == 4:
                raise SystemExit("enough")

        trainer = trainer_of(*streamed())
        with pytest.raises(SystemExit, match="enough"):
            trainer.fit(10, callbacks=[leave], checkpoint=tmp_path)
        assert (trainer.batches_seen, len(trainer.hist), trainer.state.i) == (4, 4, 4)
        assert [folder.name for folder in tmp_path.glob("step-*")] == ["step-000000004"]

    def test_ctrl_c_and_going_on(self):
        def interrupt(approx, losses, i):
            if i == 11:
                os.kill(os.getpid(), signal.SIGINT)

        one = trainer_of(*streamed(shuffle=True))
        one.fit(30, callbacks=[interrupt])
        assert one.approx.report.stopped == "interrupted"
        assert (one.batches_seen, len(one.hist)) == (11, 11)
        one.refine(19)
        other = trainer_of(*streamed(shuffle=True))
        other.fit(30)
        assert_same([*params_of(one.approx), one.hist], [*params_of(other.approx), other.hist])

    def test_nan(self):
        """The step before is kept, and so is its place in the stream."""

        def rate(step):
            return pt.switch(pt.ge(step, 12), np.nan, 1e-3)

        trainer = trainer_of(*streamed(), obj_optimizer=pm.sgd(learning_rate=rate))
        with pytest.raises(FloatingPointError, match=r"NaN occurred in optimization. Step"):
            trainer.fit(30)
        assert (trainer.batches_seen, len(trainer.hist), trainer.position) == (
            12,
            12,
            Position(1, 46),
        )

    @pytest.mark.parametrize("n", [6, 20])
    def test_an_iterator_is_read_no_further_than_needed(self, n):
        """And one that ends is said to have ended."""
        source = Noting(length=1)
        loader = DataLoader(source(), batch_size=B, total_size=N)
        trainer = trainer_of(loader, by_hand())
        if n == 6:
            trainer.fit(n)
            assert source.n_read == 48
        else:
            with pytest.warns(UserWarning, match="ended after 6 of the n=20 steps of this fit"):
                trainer.fit(n)
            assert trainer.approx.report.stopped == "the source has ended"
        assert trainer.batches_seen == len(trainer.hist) == 6

    def test_an_iterator_goes_on(self):
        loader = DataLoader(Noting(length=1)(), batch_size=B, total_size=N)
        trainer = trainer_of(loader, by_hand())
        trainer.fit(2)
        trainer.refine(3)
        whole = trainer_of(DataLoader(DATA, batch_size=B), by_hand())
        whole.fit(5)
        assert_same([trainer.hist], [whole.hist])

    @pytest.mark.parametrize("end", ["stop", "error", "ctrl-c"])
    def test_an_iterator_loses_nothing(self, end):
        """What was read ahead of a fit that ended early is there for the next."""
        trainer, seen = (
            trainer_of(*streamed(Noting(length=5)(), total_size=N, sample_shape=(2,))),
            [],
        )

        def note(approx, losses, i):
            seen.append(trainer.model["batch"].get_value())
            if i == 2:
                if end == "ctrl-c":
                    os.kill(os.getpid(), signal.SIGINT)
                else:
                    raise StopIteration if end == "stop" else RuntimeError("of the callback")

        if end == "error":
            with pytest.raises(RuntimeError, match="of the callback"):
                trainer.fit(6, callbacks=[note])
        else:
            trainer.fit(6, callbacks=[note])
        trainer.refine(4)
        np.testing.assert_array_equal(np.concatenate(seen), DATA[:48])

    def test_windows_are_read_once(self):
        source = Noting(length=5)
        loader = DataLoader(source, batch_size=B, total_size=N, shuffle=True, seed=1, prefetch=0)
        trainer = trainer_of(loader, by_hand())
        n_before = source.n_read
        trainer.fit(1)
        for _ in range(5):
            trainer.refine(1)
        assert source.n_read - n_before <= N
        whole = trainer_of(loader, by_hand())
        whole.fit(6)
        assert_same([trainer.hist], [whole.hist])

    def test_two_at_once(self):
        loader, model = streamed()
        one, other = trainer_of(loader, model), trainer_of(loader, model)
        with pytest.raises(
            FeedInUse, match=r"Another fit is feeding 'batch', .* of this model now"
        ):
            one.fit(3, callbacks=[lambda *_: other.fit(1)])
        assert (one.batches_seen, other.batches_seen) == (1, 0)
        other.fit(3)
        one.fit(2, callbacks=[])  # one after the other they are independent
        assert_same([one.hist], [other.hist])

    def test_callbacks_at_the_end(self):
        class AtEnd(CallbackSchedule):
            every, at_end = 4, True

            def __init__(self):
                self.seen = []

            def __call__(self, approx, losses, i):
                self.seen.append((i, len(trainer.hist), trainer.batches_seen))

        trainer, note = trainer_of(*streamed()), AtEnd()
        trainer.fit(6, callbacks=[note])
        assert note.seen == [(4, 0, 4), (6, 6, 6)]

    def test_what_fails_at_the_end(self):
        """The first error is raised, and it says what came after it."""

        class Full(CallbackSchedule):
            every, at_end = 1000, True

            def __call__(self, approx, losses, i):
                raise OSError("no space left")

        def fail(approx, losses, i):
            if i == 2:
                raise RuntimeError("of the callback")

        trainer = trainer_of(*streamed())
        with pytest.raises(RuntimeError, match="of the callback") as caught:
            trainer.fit(6, callbacks=[fail, Full()])
        assert "no space left" in caught.value.__notes__[0]
        with pytest.raises(OSError, match="no space left"):
            trainer.fit(3, callbacks=[Full()])
        assert (len(trainer.hist), trainer.batches_seen) == (5, 5)

    @pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
    def test_sigterm(self, tmp_path):
        """All is kept, the last callback runs, and then the process ends as it was told."""
        code = """
            import os, signal, sys
            from pathlib import Path
            import tests.variational.test_trainer as t

            class Note(t.CallbackSchedule):
                every, at_end = 3, True
                def __call__(self, approx, losses, i):
                    if i == 6 and not len(approx.hist):
                        os.kill(os.getpid(), signal.SIGTERM)
                    if len(approx.hist):
                        Path(sys.argv[1]).write_text(f"{i} {len(trainer.hist)} {trainer.batches_seen}")

            trainer = t.trainer_of(*t.streamed())
            trainer.approx if trainer.state else trainer.prepare()
            trainer.approx.hist = ()
            trainer.fit(1000, callbacks=[Note()])
            Path(sys.argv[1]).write_text("not ended")
        """
        file = tmp_path / "note"
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(file)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGTERM, done.stderr
        assert file.read_text() == "6 6 6"


class TestPosterior:
    def test_a1(self):
        """The closed form of A1; the wrong scales give sd 0.30 and 0.03."""
        n = 100
        data = np.random.default_rng(3).normal(0.1, 1, size=(n, 1))
        loader = DataLoader(data, batch_size=10, shuffle=True, seed=1)
        with pm.Model() as model:
            batch = pm.Data("batch", loader, dims=("obs", "column"))
            mu = pm.Normal("mu", 0, 1)
            pm.Normal("x", mu, 1, observed=batch[:, 0], dims="obs")
        approx = pm.fit(
            6000,
            model=model,
            data=loader,
            random_seed=1,
            obj_optimizer=pm.adam(learning_rate=0.02),
            average=0.5,
            progressbar=False,
        )
        mean, sd = data.sum() / (n + 1), 1 / np.sqrt(n + 1)
        np.testing.assert_allclose(approx.std.eval(), sd, rtol=0.15)
        # The average of 3000 correlated steps: a tenth of them count, each with the noise of a batch
        assert abs(approx.mean.eval()[0] - mean) < 4 * sd * np.sqrt(n / 10) / np.sqrt(300)

    def test_a6(self):
        """Columns of a batch stay in step: slope 2 and not 0."""
        rng = np.random.default_rng(4)
        x = rng.normal(size=1000)
        data = np.stack([x, 1 + 2 * x + 0.5 * rng.normal(size=1000)], axis=1)
        loader = DataLoader(data, batch_size=50, shuffle=True, seed=1)
        with pm.Model() as model:
            batch = pm.Data("batch", loader, dims=("obs", "column"))
            a, b = pm.Normal("a", 0, 10), pm.Normal("b", 0, 10)
            pm.Normal("y", a + b * batch[:, 0], 0.5, observed=batch[:, 1], dims="obs")
        trainer = Trainer(dataloader=loader, model=model, random_seed=1, progressbar=False)
        approx = trainer.fit(4000, obj_optimizer=pm.adam(learning_rate=0.02), average=0.5)
        slope = np.polyfit(x, data[:, 1], 1)[0]
        draws = approx.sample(2000, random_seed=1).posterior["b"]
        assert abs(float(draws.mean()) - slope) < 4 * 0.016
