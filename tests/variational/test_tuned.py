# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.fit(n, obj_optimizer="tuned")`, and fits that end when they are stationary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.variational.callbacks import CheckStationarity
from pymc.variational.optimizers import ScaleByAdam
from pymc.variational.tuned import AdamToFisher, tuned, with_named_optimizer
from tests.variational.engine import normal_model, params_of, quiet, shared

GRADS = np.random.default_rng(1).normal(size=(300, 2)) * [0.5, 300.0]


def directions(link: Any, steps: range) -> np.ndarray:
    """What a link makes of the last of some gradients, at steps of the fit."""
    param, grad, step = shared([0.0, 0.0]), pt.dvector("grad"), pt.lscalar("step")
    state = {name: [pt.as_tensor(v) for v in vs] for name, vs in link.init([param]).items()}
    inputs = {name: [v.type() for v in vs] for name, vs in state.items()}
    [change], after = link.update([grad], inputs, [param], step)
    flat = [v for vs in inputs.values() for v in vs]
    update = pm.pytensorf.compile(
        [grad, step, *flat],
        [change, *(v for vs in after.values() for v in vs)],
        mode="FAST_COMPILE",
        on_unused_input="ignore",
    )
    values, found = [v.eval() for vs in state.values() for v in vs], []
    for i in steps:
        direction, *values = update(GRADS[i % len(GRADS)], i, *values)
        found.append(direction)
    return np.array(found)


def test_from_adam_to_the_gradient_by_its_mean_square() -> None:
    """Of the two parameters, the gradients of the first are below 1."""
    n = 200
    adam = directions(ScaleByAdam(beta2=0.99), range(n))
    found = directions(AdamToFisher(n_steps=n), range(n))
    square, means = np.zeros(2), []
    for i in range(n):
        square = 0.99 * square + 0.01 * GRADS[i] ** 2
        means.append(square / (1 - 0.99 ** (i + 1)))
    power = np.minimum(np.arange(n) / (n / 2), 1)[:, None]
    expected = adam * np.maximum(np.sqrt(means), 1) ** -power
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found[:, 0], adam[:, 0], rtol=1e-12)
    np.testing.assert_array_less(abs(found[n // 2 :, 1]), abs(adam[n // 2 :, 1]) / 200)


def test_the_name_is_the_optimizer_and_its_average() -> None:
    made = with_named_optimizer(100, {"obj_optimizer": "tuned", "average": None})
    assert made == {"obj_optimizer": tuned(100), "average": 0.5}
    assert with_named_optimizer(100, {"obj_optimizer": "tuned", "average": 0.2})["average"] == 0.2
    assert with_named_optimizer(100, {"average": None}) == {"average": None}
    model = normal_model()
    by_name = pm.fit(20, model=model, random_seed=1, **quiet(obj_optimizer="tuned"))
    by_hand = pm.fit(20, model=model, random_seed=1, **quiet(obj_optimizer=tuned(20), average=0.5))
    np.testing.assert_array_equal(params_of(by_name), params_of(by_hand))


def test_a_narrow_posterior_of_columns_decades_apart() -> None:
    """Means within 0.5 sd, and sds by two fifths, which Adam leaves 10 times too wide at the same number of steps.

    Batches of 250 of 10,000 rows, over 2,500 steps that are averaged, leave a standard error of sqrt(40 / 2500) =
    0.13 sd, and half of it in the log of an sd; z of 1e-5, split over 6 numbers, is 4.9, times 0.063 for the sds.
    Rows of an epoch are drawn without replacement, which leaves less of the means.
    """
    rng = np.random.default_rng(1)
    X = rng.normal(size=(10_000, 3)) * [0.1, 1, 10]
    y = X @ [3.0, 0.3, 0.03] + rng.normal(size=len(X))
    with pm.Model():
        X_batch, y_batch = pm.Minibatch(X, y, batch_size=250)
        slope = pm.Normal("slope", 0, 10, shape=3)
        pm.Normal("y", X_batch @ slope, 1, observed=y_batch)
        approx = pm.fit(5000, obj_optimizer="tuned", random_seed=1, progressbar=False)
    precision = X.T @ X + np.eye(3) / 100
    exact, sd = np.linalg.solve(precision, X.T @ y), 1 / np.sqrt(np.diag(precision))
    assert abs((approx.mean.eval() - exact) / sd).max() < 0.5
    assert abs(np.log(approx.std.eval() / sd)).max() < 4.9 * 0.063
    assert approx.report.converged


class Recorder:
    def __init__(self) -> None:
        self.values: list[list[np.ndarray]] = []

    def __call__(self, approx: Any, losses: Any, i: int) -> None:
        self.values.append([param.get_value() for param in approx.params])


def test_until_stationary_is_the_average_of_the_stretch() -> None:
    record, check = Recorder(), CheckStationarity(every=2, tolerance=0.2)
    options = quiet(obj_optimizer=pm.adam(learning_rate=0.05, beta2=0.9), callbacks=[record])
    inference = pm.ADVI(model=normal_model(60), random_seed=1)
    approx = inference.fit(20_000, until=check, **options)
    n = approx.report.n_steps
    assert approx.report.stopped == check.stopped == str(approx.report.verdict.reason)
    assert 0 < check.stretch < 2 / 3 * n + 2 and n == len(record.values) < 20_000
    expected = [np.mean(values, axis=0) for values in zip(*record.values[check.stretch :])]
    np.testing.assert_allclose(params_of(approx), expected, rtol=1e-9)
    inference.refine(50, progressbar=False)  # begins anew
    assert check.stopped is None and approx.report.converged is False
    expected = [np.mean(values, axis=0) for values in zip(*record.values[check.stretch :])]
    np.testing.assert_allclose(params_of(approx), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("n", "rate", "says"),
    [(50, 0.1, "it has 1,000 steps at least"), (1500, 1e-4, "still moved by")],
)
def test_until_stationary_that_was_not(n: int, rate: float, says: str) -> None:
    options = quiet(obj_optimizer=pm.adam(learning_rate=rate), until="stationary")
    approx = pm.fit(n, model=normal_model(60), random_seed=1, **options)
    assert approx.report.n_steps == n
    assert approx.report.converged is False and says in approx.report.verdict.reason


def test_averages_of_steps_far_off_are_not_taken_for_the_optimum() -> None:
    check = CheckStationarity()
    check.stopped, check._spread = "Stationary at 10", 30.0
    assert not check.verdict().converged and "30 sd" in check.verdict().reason
    check._spread = 3.0
    assert check.verdict().converged


@pytest.mark.parametrize("at_start", [True, False])
def test_a_trainer(tmp_path: Path, at_start: bool) -> None:
    """The name is for the steps of the first fit, wherever it is written, and a checkpoint has what it is."""
    loader = pm.DataLoader(np.arange(40.0)[:, None], batch_size=10, shuffle=True, seed=1)

    def model() -> pm.Model:
        with pm.Model() as model:
            batch = pm.Data("batch", loader, dims=("obs", "column"))
            pm.Normal("y", pm.Normal("mu", 0, 10), 1, observed=batch[:, 0], dims="obs")
        return model

    name = {"obj_optimizer": "tuned"}
    options: dict[str, Any] = {"dataloader": loader, "progressbar": False, "random_seed": 1}
    trainer = pm.Trainer(model=model(), **options, **(name if at_start else {}))
    trainer.fit(20, **({} if at_start else name))
    assert trainer.state is not None and trainer.state.average is not None
    assert trainer.state.average.fraction == 0.5
    assert "n_steps=20" in str(trainer.approx.report.settings["obj_optimizer"])
    trainer.save(tmp_path)
    loaded = pm.Trainer.load(tmp_path, dataloader=loader, model=model(), progressbar=False)
    np.testing.assert_array_equal(params_of(loaded.approx), params_of(trainer.approx))
